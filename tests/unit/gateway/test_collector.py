"""The collector of cycles looks less often, and still collects."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from gateway.collector import settle


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Ring:
    def __init__(self) -> None:
        self.me = self


def test_cycles_go_all_the_same() -> None:
    settle()
    ring = Ring()
    gone = weakref.ref(ring)
    del ring
    kept = [[] for _ in range(2 * gc.get_threshold()[0])]  # type: ignore[var-annotated]
    assert gone() is None
    assert kept


def test_what_start_up_made_is_left_out_of_sight() -> None:
    gc.unfreeze()
    settle()
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] > 700
