"""Sequence marks: what was seen, what is missing, and what comes late."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.store.sequence import MOST_HOLES, Mark, SequenceMarks

EV, OTHER = 7, 8


def restored(marks: SequenceMarks, *keys: tuple[int, int]) -> SequenceMarks:
    """What a restart makes of marks that were kept."""
    again = SequenceMarks()
    for key in keys:
        kept = msgspec.msgpack.encode(marks.mark(*key))
        again.load(*key, msgspec.msgpack.decode(kept, type=Mark))
    return again


@given(
    st.lists(st.integers(min_value=0, max_value=60), min_size=1, max_size=200),
    st.integers(min_value=0, max_value=200),
)
def test_sequence_marks_agree_with_a_plain_set(sequence: list[int], restart: int) -> None:
    marks, seen = SequenceMarks(), {0}
    marks.seen(EV, 1, 0)
    for place, number in enumerate(sequence):
        if place == restart:
            marks = restored(marks, (EV, 1))
        assert marks.seen(EV, 1, number) == (number in seen)
        seen.add(number)
        missing = max(seen) + 1 - len(seen)
        assert marks.missing == ({EV: missing} if missing else {})


def test_a_late_arrival_closes_a_gap_however_late() -> None:
    marks = SequenceMarks()
    marks.seen(EV, 1, 0)
    for number in range(3, 20_003):
        marks.seen(EV, 1, number)
    assert marks.missing == {EV: 2}
    assert not marks.seen(EV, 1, 1)
    assert marks.seen(EV, 1, 1)
    assert (marks.missing, marks.opened, marks.closed) == ({EV: 1}, 2, 1)


def test_a_new_boot_is_no_gap_and_leaves_those_of_the_old_one() -> None:
    marks = SequenceMarks()
    for number in (0, 1, 3):
        marks.seen(EV, 1, number)
    marks.seen(EV, 2, 0)
    assert marks.missing == {EV: 1}
    marks.seen(EV, 3, 2)  # its first readings never came: a boot counts from 0
    assert marks.missing == {EV: 3}
    assert not marks.seen(EV, 1, 2)
    assert marks.missing == {EV: 2}


def test_what_came_before_a_series_was_first_heard_is_no_gap_and_no_repeat() -> None:
    marks = SequenceMarks()
    assert not marks.seen(EV, 1, 1_000)
    assert marks.missing == {}
    assert not marks.seen(EV, 1, 999)  # nobody knows: the key of the database decides
    assert not restored(marks, (EV, 1)).seen(EV, 1, 999)


def test_holes_are_bounded_and_a_forgotten_one_makes_no_reading_a_repeat() -> None:
    marks = SequenceMarks()
    for number in range(0, 2 * MOST_HOLES + 20, 2):
        marks.seen(EV, 1, number)
    kept = marks.mark(EV, 1)
    assert len(kept.holes) == MOST_HOLES
    assert marks.missing == {EV: MOST_HOLES + 9}
    again = restored(marks, (EV, 1))
    for known in (marks, again):
        assert not known.seen(EV, 1, 1)  # in a hole that was forgotten: not lost twice
        assert known.missing == {EV: MOST_HOLES + 9}
    assert marks.seen(EV, 1, 2 * MOST_HOLES)


def test_series_are_counted_apart() -> None:
    marks = SequenceMarks()
    for series in (EV, OTHER):
        marks.seen(series, 1, 0)
    marks.seen(EV, 1, 5)
    assert marks.missing == {EV: 4}
