"""Decisions have their sections, tests that are named exist, the image is built by the rules."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))
SECTIONS = ["Context", "Decision", "What we gave up"]
Instruction = tuple[str, str]
BUILD_TOOLS = re.compile(r"\b(apt-get|apt|gcc|g\+\+|make|pip3? (install|wheel))\b")


def stages(dockerfile: str) -> list[list[Instruction]]:
    """Instructions of each stage, continuation lines joined."""
    joined = re.sub(r"\\\n", " ", dockerfile)
    found: list[list[Instruction]] = []
    for line in joined.splitlines():
        name, _, rest = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        if name.upper() == "FROM":
            found.append([])
        if found:
            found[-1].append((name.upper(), rest.strip()))
    return found


def faults(dockerfile: str) -> list[str]:
    """Rules of the image that a Dockerfile breaks."""
    built = stages(dockerfile)
    final = built[-1] if built else []
    bases = [rest.split()[0] for stage in built for name, rest in stage if name == "FROM"]
    aliases = {rest.split()[-1] for stage in built for name, rest in stage
               if name == "FROM" and " as " in rest.lower()}  # fmt: skip
    users = [rest for name, rest in final if name == "USER"]
    copies = [rest for name, rest in final if name in {"COPY", "ADD"}]
    rules = {
        "multi-stage": len(built) > 1,
        "pinned": all(_pinned(base) or base in aliases for base in bases),
        "no tools": not any(BUILD_TOOLS.search(rest) for name, rest in final if name == "RUN"),
        "user": bool(users) and users[-1].split(":")[0] not in {"root", "0"},
        "healthcheck": any(n == "HEALTHCHECK" and not r.startswith("NONE") for n, r in final),
        "copies from a stage": bool(copies) and all("--from=" in copy for copy in copies),
    }
    return [rule for rule, kept in rules.items() if not kept]


def _pinned(base: str) -> bool:
    _, _, tag = base.rpartition("/")[2].partition(":")
    return bool(re.match(r"v?\d+\.\d+", tag)) or "@sha256:" in base


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: str(path.stem))
def test_a_decision_has_its_three_sections(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    parts = re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]
    assert all(part.strip() for part in parts)
    number = path.stem.split("-")[0]
    assert number == "0000" or text.startswith(f"# {int(number)}. ")


def test_no_decision_shares_its_number() -> None:
    numbers = [path.stem.split("-")[0] for path in DECISIONS]
    assert len(numbers) >= 9
    assert len(set(numbers)) == len(numbers)


def missing_tests(text: str) -> set[str]:
    """Tests that a text names in code spans, by function or by file, and that do not exist."""
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", text))
    functions = set(re.findall(r"`(test_\w+)`", text))
    definition = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in definition.findall(path.read_text(encoding="utf-8"))
    }
    return {name for name in files if not (ROOT / name).is_file()} | (functions - defined)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_a_test_that_a_document_names_exists(path: Path) -> None:
    assert missing_tests(path.read_text(encoding="utf-8")) == set()


def test_the_failure_matrix_names_tests_and_a_missing_one_is_caught() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert len(set(re.findall(r"`(test_\w+)`", text))) > 80
    assert missing_tests("`test_nobody_wrote_this` `tests/unit/test_gone.py` `tests/days.py`") == {
        "test_nobody_wrote_this", "tests/unit/test_gone.py",
    }  # fmt: skip


def test_every_direct_dependency_is_accounted_for() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = pyproject.partition("dependencies = [")[2].partition("\n]")[0]
    wanted = set(re.findall(r'"([A-Za-z0-9-]+)', block))
    table = (ROOT / "docs" / "adr" / "0009-dependencies.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(): cells for line in table.splitlines()
            if len(cells := line.split("|")) > 5}  # fmt: skip
    assert len(wanted) > 20
    assert wanted - set(rows) == set()
    locked = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    for name in sorted(wanted):
        version = re.search(rf"^{re.escape(name)}==([^\s\\;]+)", locked, re.MULTILINE)
        assert version is not None, name
        cells = [cell.strip() for cell in rows[name]]
        assert version[1] in cells, name
        assert any(re.fullmatch(r"20\d\d-\d\d-\d\d", cell) for cell in cells), name


def test_the_image_is_built_by_the_rules() -> None:
    assert faults((ROOT / "Dockerfile").read_text(encoding="utf-8")) == []


def test_the_image_holds_every_package_that_is_ours() -> None:
    build = stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))[0]
    copied = {word for name, rest in build if name == "COPY" for word in rest.split()}
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.search(r"^packages = (\[.*\])$", pyproject, re.MULTILINE)
    assert packages is not None
    assert set(json.loads(packages[1])) <= copied


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ("python:3.11-slim-bookworm AS build", "python:latest AS build", "pinned"),
        ("python:3.11-slim-bookworm\n", "python\n", "pinned"),
        ("USER flexway", "USER root", "user"),
        ("USER flexway", "", "user"),
        ("RUN groupadd", "RUN apt-get update && groupadd", "no tools"),
        ("RUN groupadd", "RUN pip install x && groupadd", "no tools"),
        ("HEALTHCHECK", "LABEL", "healthcheck"),
        ("COPY --from=build", "COPY", "copies from a stage"),
    ],
)
def test_a_broken_image_is_caught(before: str, after: str, rule: str) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert before in dockerfile
    assert faults(dockerfile.replace(before, after)) == [rule]


def test_one_stage_is_caught() -> None:
    assert "multi-stage" in faults("FROM python:3.11-slim\nUSER flexway")
