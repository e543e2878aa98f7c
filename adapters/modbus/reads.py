"""Which reads fetch the registers that are wanted: as few as a device's limits allow. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from marketplace_core.errors import FlexwayError

MOST_REGISTERS: Final = 125
"""Registers of one read (MODBUS Application Protocol V1.1b3, section 6.3)."""


class ReadPlanError(FlexwayError):
    """Registers are wanted that the device's limits forbid."""


class Span(msgspec.Struct, frozen=True, order=True):
    """Registers from `start` up to, and without, `end`."""

    start: int
    end: int

    @property
    def count(self) -> int:
        """Registers."""
        return self.end - self.start


class ReadLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one read of a device may be."""

    max_registers: int = 120
    max_gap: int = 110
    """Registers that nobody wants and that are read along rather than asking twice."""
    forbidden: tuple[Span, ...] = ()
    """Registers that the device does not answer for: no read may hold one."""


def plan_reads(wanted: Iterable[Span], limits: ReadLimits) -> list[Span]:
    """The fewest reads that hold everything wanted, in the order of their addresses.

    A wanted span is never torn over two reads, as its registers are one value, unless it is
    longer than a read. Any part of a permitted read is permitted, so taking each read as far
    as it goes gives the fewest.

    Raises:
        ReadPlanError: a span that is wanted touches a forbidden one.
    """
    whole = list(_pieces(wanted, limits))
    plan: list[Span] = []
    for piece in whole:
        if plan and _joins(plan[-1], piece, limits):
            plan[-1] = Span(plan[-1].start, piece.end)
        else:
            plan.append(piece)
    return plan


def _pieces(wanted: Iterable[Span], limits: ReadLimits) -> Iterator[Span]:
    """What must not be torn, ascending: what overlaps is one, what is too long falls apart."""
    for span in _merged(sorted(span for span in wanted if span.count > 0)):
        for no in limits.forbidden:
            if no.start < span.end and span.start < no.end:
                raise ReadPlanError(
                    f"registers {span.start} to {span.end - 1} are wanted, and "
                    f"{no.start} to {no.end - 1} may not be read"
                )
        if span.count <= limits.max_registers:
            yield span
        else:
            yield from (Span(at, at + 1) for at in range(span.start, span.end))


def _merged(spans: Sequence[Span]) -> Iterator[Span]:
    open_span: Span | None = None
    for span in spans:
        if open_span is not None and span.start < open_span.end:
            open_span = Span(open_span.start, max(open_span.end, span.end))
            continue
        if open_span is not None:
            yield open_span
        open_span = span
    if open_span is not None:
        yield open_span


def _joins(read: Span, piece: Span, limits: ReadLimits) -> bool:
    crosses = any(no.start < piece.start and read.end < no.end for no in limits.forbidden)
    near = piece.start - read.end <= limits.max_gap
    return near and not crosses and piece.end - read.start <= limits.max_registers
