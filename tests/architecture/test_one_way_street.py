"""The street is one way: every stage takes from its left and gives to its right."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections import Counter
from types import ModuleType

import pytest

from marketplace_core.events import RANK, STREET, OrderFact, OrderSettled, OrderSubmitted

STAGES = ("intake", "award", "plan", "dispatch", "observe", "verify", "settle")


def stage(name: str) -> ModuleType:
    return importlib.import_module(f"gateway.stages.{name}")


def goes_left(
    consumes: frozenset[type[OrderFact]], emits: frozenset[type[OrderFact]]
) -> list[tuple[str, str]]:
    """Pairs of facts that a stage would carry to the left, or keep in place."""
    return [
        (taken.__name__, given.__name__)
        for taken in consumes
        for given in emits
        if RANK[taken] >= RANK[given]
    ]


@pytest.mark.parametrize("name", STAGES)
def test_stage_goes_right(name: str) -> None:
    assert goes_left(stage(name).CONSUMES, stage(name).EMITS) == []


def test_a_leftward_route_is_caught() -> None:
    assert goes_left(frozenset({OrderSettled}), frozenset({OrderSubmitted}))
    assert goes_left(frozenset({OrderSettled}), frozenset({OrderSettled}))


def test_every_fact_has_exactly_one_stage_that_emits_it() -> None:
    emitted = Counter(fact for name in STAGES for fact in stage(name).EMITS)
    assert emitted == Counter({fact: 1 for kinds in STREET for fact in kinds})


def test_stages_stand_in_the_order_of_what_they_emit() -> None:
    firsts = [min(RANK[fact] for fact in stage(name).EMITS) for name in STAGES]
    assert firsts == sorted(firsts)


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 kept, 0 broken" in done.stdout
