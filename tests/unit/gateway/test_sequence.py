"""Sequence marks: which readings were seen, and which are given up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.store.sequence import SequenceMarks


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
