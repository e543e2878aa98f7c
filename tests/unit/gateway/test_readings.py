"""Readings are stored once, durably, and malformed messages are kept aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.store.readings import Quarantined
from gateway.store.readings_sqlite import SqliteReadings
from gateway.store.sequence import SequenceMarks
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

START = datetime(2017, 7, 20, 23, 30, tzinfo=UTC)


def reading(number: int, *, series: str = "ev-1", boot: int = 1, sequence: int = -1) -> Reading:
    start = START + timedelta(minutes=number)
    return Reading(
        series=series, start=start, seconds=60.0, power_kw=Kw(-number), boot=boot,
        sequence=sequence,
    )  # fmt: skip


@pytest.fixture
def open_readings(tmp_path: Path) -> Iterator[Callable[[], SqliteReadings]]:
    opened: list[SqliteReadings] = []

    def start() -> SqliteReadings:
        readings = SqliteReadings(tmp_path / "readings.db")
        readings.start()
        opened.append(readings)
        return readings

    yield start
    for readings in opened:
        readings.stop()


async def test_duplicates_by_device_boot_and_sequence_vanish(
    open_readings: Callable[[], SqliteReadings],
) -> None:
    store = open_readings()
    first = [reading(n, sequence=n) for n in range(5)]
    assert await store.store(first) == first
    moved = [reading(9, sequence=3)]  # replayed under another time stamp
    assert await store.store(first + moved) == []
    assert len(store.between("ev-1", START, START + timedelta(hours=1)).power_kw) == 5


async def test_duplicates_vanish_across_a_restart(
    open_readings: Callable[[], SqliteReadings],
) -> None:
    first = [reading(n, sequence=n) for n in range(5)]
    await open_readings().store(first)
    again = open_readings()
    assert await again.store([*first, reading(5, sequence=5)]) == [reading(5, sequence=5)]


async def test_a_new_boot_counts_from_zero(open_readings: Callable[[], SqliteReadings]) -> None:
    store = open_readings()
    await store.store([reading(0, sequence=0)])
    rebooted = [reading(1, boot=2, sequence=0)]
    assert await store.store(rebooted) == rebooted


async def test_between_includes_a_span_that_began_before(
    open_readings: Callable[[], SqliteReadings],
) -> None:
    store = open_readings()
    long = Reading(series="m", start=START, seconds=3600.0, power_kw=Kw(-2.0))
    await store.store([long])
    found = store.between("m", START + timedelta(minutes=30), START + timedelta(minutes=45))
    assert found.seconds.tolist() == [3600.0]
    assert (
        len(store.between("m", START + timedelta(hours=1), START + timedelta(hours=2)).seconds) == 0
    )


async def test_latest_is_the_newest_of_every_series(
    open_readings: Callable[[], SqliteReadings],
) -> None:
    store = open_readings()
    await store.store([reading(n, series=s) for s in ("a", "b") for n in (3, 1, 2)])
    assert {(r.series, r.power_kw) for r in store.latest()} == {("a", -3.0), ("b", -3.0)}


async def test_quarantined_messages_are_kept_and_cut_to_size(
    open_readings: Callable[[], SqliteReadings],
) -> None:
    store = open_readings()
    message = Quarantined(at=START, source="t", reason="not MessagePack", evidence=b"x" * 10_000)
    await store.quarantine(message)
    kept = store.quarantined()[0]
    assert (kept.source, kept.reason, len(kept.evidence)) == ("t", "not MessagePack", 4096)


@given(st.lists(st.integers(min_value=0, max_value=60), max_size=200))
def test_sequence_marks_agree_with_a_plain_set(sequence: list[int]) -> None:
    marks, seen = SequenceMarks(), set[int]()
    for number in sequence:
        assert marks.seen(1, 1, number) == (number in seen)
        seen.add(number)
    assert marks.gaps == {}


def test_a_hole_that_never_fills_is_counted_as_a_gap() -> None:
    marks = SequenceMarks()
    marks.seen(7, 1, 0)
    for number in range(3, 3 + 5000):
        marks.seen(7, 1, number)
    assert marks.gaps == {7: 2}
    assert marks.seen(7, 1, 1)  # given up: it would be taken for a replay
