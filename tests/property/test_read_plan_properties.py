"""A read plan holds what is wanted, breaks no limit, and no plan has fewer reads."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adapters.modbus.reads import ReadLimits, ReadPlanError, Span, plan_reads

LAST = 60


@st.composite
def spans(draw: st.DrawFn, longest: int = 9) -> Span:
    start = draw(st.integers(0, LAST))
    return Span(start, start + draw(st.integers(1, longest)))


WANTED = st.lists(spans(), max_size=8)
LIMITS = st.builds(
    lambda most, gap, no: ReadLimits(max_registers=most, max_gap=gap, forbidden=tuple(no)),
    st.integers(1, 20), st.integers(0, 20), st.lists(spans(3), max_size=3),
)  # fmt: skip


def registers(found: list[Span]) -> set[int]:
    return {at for span in found for at in range(span.start, span.end)}


def wanted_pieces(wanted: list[Span], limits: ReadLimits) -> list[Span]:
    """What must stay in one read: overlapping spans together, single registers of long ones."""
    pieces: list[Span] = []
    for span in sorted(wanted):
        if pieces and span.start < pieces[-1].end:
            pieces[-1] = Span(pieces[-1].start, max(pieces[-1].end, span.end))
        else:
            pieces.append(span)
    return [
        part
        for piece in pieces
        for part in (
            [piece] if piece.count <= limits.max_registers
            else [Span(at, at + 1) for at in range(piece.start, piece.end)]
        )
    ]  # fmt: skip


def permitted(read: Span, pieces: list[Span], limits: ReadLimits) -> bool:
    held = registers(pieces)
    gap = longest = 0
    for at in range(read.start, read.end):
        gap = 0 if at in held else gap + 1
        longest = max(longest, gap)
    crosses = registers([read]) & registers(list(limits.forbidden))
    return read.count <= limits.max_registers and longest <= limits.max_gap and not crosses


def fewest(pieces: list[Span], limits: ReadLimits) -> int:
    """By trying every way of cutting the pieces into reads."""
    best = [0] + [len(pieces)] * len(pieces)
    for end in range(1, len(pieces) + 1):
        for begin in range(end):
            if permitted(Span(pieces[begin].start, pieces[end - 1].end), pieces, limits):
                best[end] = min(best[end], best[begin] + 1)
    return best[-1]


@given(wanted=WANTED, limits=LIMITS)
def test_a_plan_holds_everything_within_the_limits_in_the_fewest_reads(
    wanted: list[Span], limits: ReadLimits
) -> None:
    assume(not registers(wanted) & registers(list(limits.forbidden)))
    plan, pieces = plan_reads(wanted, limits), wanted_pieces(wanted, limits)
    assert registers(wanted) <= registers(plan)
    assert all(permitted(read, pieces, limits) for read in plan)
    for piece in pieces:
        assert any(read.start <= piece.start and piece.end <= read.end for read in plan)
    assert len(plan) == fewest(pieces, limits)
    naive = sum(-(-span.count // limits.max_registers) for span in wanted)
    assert len(plan) <= naive
    assert plan == sorted(plan)
    assert all(a.end <= b.start for a, b in itertools.pairwise(plan))


@given(wanted=WANTED, limits=LIMITS)
def test_what_may_not_be_read_is_never_planned(wanted: list[Span], limits: ReadLimits) -> None:
    assume(registers(wanted) & registers(list(limits.forbidden)))
    with pytest.raises(ReadPlanError, match="may not be read"):
        plan_reads(wanted, limits)
