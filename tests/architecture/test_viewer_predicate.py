"""The organisation is a predicate: the API reads through a viewer, or says why not."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from sqlalchemy import Connection

API = Path(__file__).parents[2] / "gateway" / "api"
PUBLIC = {
    "tree": "the network is public",
    "needs_page": "needs are public",
    "need_view": "needs are public",
    "auctions_page": "the history of auctions is public",
    "auction": "the history of auctions is public",
}
GUARDED = {
    "read_streams": "the order was found through a viewer",
    "setpoints_of": "the order was found through a viewer",
    "need_by_id": "the dry run has checked whose need it is",
    "contracts_for": "the dry run has checked whose need it is",
    "called_by_others": "the dry run has checked whose need it is",
    "others_beside": "as above; which other orders there are is not told",
    "devices_of": "of contracts of the buyer's own need",
    "in_force": "summed up over a feeder, for buyers and operators",
    "ends_in_force": "only those of devices that were found through a viewer are shown",
    "client_by_id": "finds out who is asking",
    "is_suspended": "finds out who is asking",
}
"""Reads without a viewer that routes use, and why they give nothing away."""


def reads_of(path: Path) -> set[tuple[str, str]]:
    """Functions of the store that a module imports: (module, name)."""
    return {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gateway.store")
        for alias in node.names
        if node.module is not None
    }


def lacks_viewer(function: object) -> bool:
    """Whether it reads the database for nobody in particular."""
    if not inspect.isfunction(function):
        return False
    parameters = inspect.signature(function, eval_str=True).parameters
    reads = any(each.annotation is Connection for each in parameters.values())
    return reads and "viewer" not in parameters


@pytest.mark.parametrize("path", sorted(API.glob("*.py")), ids=lambda path: path.stem)
def test_a_route_reads_through_a_viewer_or_says_why_not(path: Path) -> None:
    bare = {
        name for module, name in reads_of(path)
        if lacks_viewer(getattr(importlib.import_module(module), name))
    }  # fmt: skip
    assert bare - PUBLIC.keys() - GUARDED.keys() == set()


@pytest.mark.parametrize("path", sorted(API.glob("routes_*.py")), ids=lambda path: path.stem)
def test_a_route_is_a_coroutine(path: Path) -> None:
    """In virtual time there are no threads for the framework to run it in."""
    handlers = [
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any("router." in ast.unparse(each) for each in node.decorator_list)
    ]  # fmt: skip
    assert handlers
    assert [node.name for node in handlers if isinstance(node, ast.FunctionDef)] == []


def test_every_exception_is_still_in_use() -> None:
    imported = {name for path in API.glob("*.py") for _, name in reads_of(path)}
    assert (PUBLIC.keys() | GUARDED.keys()) - imported == set()


def test_a_read_without_a_viewer_is_caught() -> None:
    def bare(connection: Connection) -> None: ...
    def seen(connection: Connection, viewer: str) -> None: ...

    assert lacks_viewer(bare)
    assert not lacks_viewer(seen)
