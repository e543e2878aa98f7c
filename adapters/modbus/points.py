"""Reading single points of a unit in as few requests as its limits allow.

Where the points stand, which requests fetch them and how they are decoded is worked out
once, because a unit is asked for the same ones each second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from adapters.modbus.link import POLL, LinkError
from adapters.modbus.reads import ReadLimits, Span, plan_reads
from adapters.modbus.sunspec import (
    Chain,
    Picker,
    Place,
    Point,
    SunSpecError,
    Value,
    layout,
    load_model,
)
from adapters.modbus.unit import SunSpecUnit

_UNREAD: Final = 0x8000
"""Stands where nothing was read: no count, so that as many are laid out as fit."""
_NOT_THERE: Final = frozenset({2, 3})
"""Illegal address, illegal value: what a unit says that is not read across its models."""
_TRIES: Final = 3
Wanted = Sequence[tuple[int, Sequence[str]]]
"""Models and the names of their points; no name stands in two of them."""


async def read_points(
    unit: SunSpecUnit, number: int, names: Iterable[str], limits: ReadLimits, lane: int = POLL
) -> dict[str, Value]:
    """Named points of a model, scaled; their scale factors come along.

    Raises:
        LinkError: the unit gave no answer.
        SunSpecError: it lacks the model, or the model has no such point.
        ReadPlanError: a point stands where the unit's limits forbid reading.
    """
    if unit.chain is None:
        await unit.discover(lane)
    if unit.chain is None:
        raise SunSpecError(f"the unit has no model {number}")
    return await PointReads(unit.chain, ((number, tuple(names)),), limits).read(unit, lane)


class _Sought(msgspec.Struct, frozen=True):
    """A point and where it stands in the unit."""

    name: str
    model: int
    start: int
    """Address of the model."""
    point: Point | None
    scale: Point | None

    def spans(self) -> Iterator[Span]:
        """Registers that have to be read for it."""
        for point in (self.point, self.scale):
            if point is not None:
                yield Span(self.start + point.offset, self.start + point.offset + point.size)


class PointReads:
    """Points of one unit as requests, planned for the models that it was found to have."""

    def __init__(self, chain: Chain, wanted: Wanted, limits: ReadLimits) -> None:
        """Raises SunSpecError and ReadPlanError as `read_points` does."""
        self._limits = limits
        self._sought = tuple(one for number, names in wanted for one in _seek(chain, number, names))
        self._shown: list[bytes] | None = None
        """What scale factors that come by another request than their values were last."""
        self._plan(across=True)

    async def read(self, unit: SunSpecUnit, lane: int = POLL) -> dict[str, Value]:
        """The points by name, each scaled by a scale factor that held when it was read.

        Raises LinkError, and SunSpecError where scale factors do not keep still.
        """
        try:
            if self._sole is not None:
                start, count = self._sole
                return self._values(await unit.link.read_once(unit.number, start, count, lane))
            return await self._in_parts(unit, lane)
        except LinkError as error:
            if error.exception_code not in _NOT_THERE or not self._across:
                raise
        self._plan(across=False)  # there are units that answer for one model at a time
        return await self._in_parts(unit, lane)

    async def _in_parts(self, unit: SunSpecUnit, lane: int) -> dict[str, Value]:
        for _ in range(_TRIES):
            parts: dict[Span, bytes] = {}
            for span in self._in_turn:
                parts[span] = await unit.link.read_once(unit.number, span.start, span.count, lane)
            data = b"".join(parts[span] for span in self.spans)
            before, self._shown = self._shown, [data[at : at + 2] for at in self._apart]
            if not self._apart or self._shown == before:
                return self._values(data)
        raise SunSpecError("scale factors change while points are read")

    def _plan(self, *, across: bool) -> None:
        """`across`: one request may hold points of several models."""
        models = {one.model: None for one in self._sought}
        groups = [[*models]] if across else [[model] for model in models]
        self.spans: tuple[Span, ...] = tuple(
            sorted(
                span
                for group in groups
                for span in plan_reads(
                    (s for one in self._sought if one.model in group for s in one.spans()),
                    self._limits,
                )
            )
        )
        """What is read, in the order of addresses."""
        self._across = across and len(models) > 1
        self._values = Picker([self._place(one) for one in self._sought]).values
        self._sole = None
        if len(self.spans) == 1:
            self._sole = (self.spans[0].start, self.spans[0].count)
        self._apart, late = self._scales_apart()
        # Their scale factors stand between two equal looks at them: the last poll's and this one's.
        self._in_turn = sorted(self.spans, key=lambda span: span in late)

    def _place(self, one: _Sought) -> Place:
        if one.point is None:
            return Place(one.name, None)
        at, constant = self._byte(one.start + one.point.offset), one.point.scale
        if one.scale is not None:
            return Place(one.name, one.point, at, scale_at=self._byte(one.start + one.scale.offset))
        return Place(one.name, one.point, at, scale=constant if isinstance(constant, int) else None)

    def _scales_apart(self) -> tuple[list[int], set[Span]]:
        """Scale factors that another request brings than their values: places and requests."""
        places, spans = set[int](), set[Span]()
        for one in self._sought:
            if one.point is None or one.scale is None:
                continue
            value, scale = (one.start + point.offset for point in (one.point, one.scale))
            if self._holder(value) != self._holder(scale):
                places.add(self._byte(scale))
                spans.add(self._holder(scale))
        return sorted(places), spans

    def _holder(self, address: int) -> Span:
        return next(span for span in self.spans if span.start <= address < span.end)

    def _byte(self, address: int) -> int:
        """Where a register stands in what is read, one request behind the other."""
        holder = self._holder(address)
        before = sum(span.count for span in self.spans if span < holder)
        return 2 * (before + address - holder.start)


def _seek(chain: Chain, number: int, names: Sequence[str]) -> Iterator[_Sought]:
    """Points by name; what a unit's older revision of the model does not have has no point."""
    found = chain.first(number)
    if found is None:
        raise SunSpecError(f"the unit has no model {number}")
    model = load_model(number)
    points: Mapping[str, Point] = layout(model, [_UNREAD] * found.length).points
    for name in names:
        if name not in model.points:
            raise SunSpecError(f"model {number} has no point {name}")
        point = points.get(name)
        scale = points.get(point.scale) if point and isinstance(point.scale, str) else None
        yield _Sought(name, number, found.address, point, scale)
