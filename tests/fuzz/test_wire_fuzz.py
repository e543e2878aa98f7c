"""Each codec takes generated and mutated frames: a share here, a million with `make fuzz`."""

from __future__ import annotations

import pytest

from tests.fuzz.corpus import FOLDER, load
from tests.fuzz.judge import run
from tests.fuzz.targets import TARGETS, shares

FRAMES = 60_000
CODECS = shares(FRAMES)


@pytest.mark.parametrize("name", TARGETS)
def test_a_codec_takes_whatever_comes(name: str) -> None:
    verdict = run(TARGETS[name], CODECS[name], seed=1)
    assert [str(fault) for fault in verdict.faults] == []
    assert verdict.frames >= CODECS[name]
    assert 0 < verdict.understood < verdict.frames, "frames that are all good, or all noise"


def test_all_codecs_together_take_what_is_asked_for() -> None:
    assert sum(shares(1_000_000).values()) >= 1_000_000
    assert set(CODECS) == set(TARGETS)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_what_is_kept_belongs_to_a_codec_and_is_kept_once(path: object) -> None:
    name = path.stem  # type: ignore[attr-defined]
    frames = load(name)
    assert name in TARGETS
    assert 0 < len(frames) == len(set(frames))
