"""`flexway journal verify` on what an operator may point it at."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import flexway
from tests.harness.api import awarded_need, service


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """What a service that ran leaves behind."""
    async with service(tmp_path) as http:
        await awarded_need(http)
    return tmp_path


def verify(folder: Path, **changes: str) -> Result:
    given = {
        "database": f"sqlite:///{folder / 'market.db'}", "roots": str(folder / "roots.jsonl"),
        "public-key": str(folder / "key.pub.pem"), **changes,
    }  # fmt: skip
    arguments = [part for name, value in given.items() for part in (f"--{name}", value)]
    return CliRunner().invoke(flexway, ["journal", "verify", *arguments])


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


async def test_a_journal_with_its_roots_is_verified(folder: Path) -> None:
    done = verify(folder)
    assert done.exit_code == 0, done.output
    assert "verified" in done.output


async def test_roots_that_were_emptied_are_a_fault(folder: Path) -> None:
    (folder / "roots.jsonl").write_text("")
    done = verify(folder)
    assert done.exit_code == 1
    assert "it was emptied" in done.output.replace("\n", " ")
    assert "green" not in done.output


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("database", "nonsense"), ("database", "sqlite:///{0}/absent.db"),
        ("database", "sqlite:///{0}/key.pem"), ("roots", "{0}/absent.jsonl"),
        ("public-key", "{0}/absent.pem"), ("public-key", "{0}/roots.jsonl"),
    ],
)  # fmt: skip
async def test_what_cannot_be_read_is_one_clear_line(folder: Path, option: str, value: str) -> None:
    before = names(folder)
    done = verify(folder, **{option: value.format(folder)})
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit), done.exception
    assert "cannot be verified" in done.output
    assert names(folder) <= before | {"market.db-wal", "market.db-shm"}
