"""One SunSpec unit behind a link: discovery, identity, points."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from adapters.modbus.control import Control
from adapters.modbus.link import COMMAND, POLL, LineLink, LinkError, UnitDown
from adapters.modbus.sunspec import (
    MOST_REGISTERS,
    Chain,
    Found,
    Model,
    SunSpecError,
    Value,
    decode,
    encode,
    layout,
    load_model,
    scale_of,
    walk,
)

_COMMON: Final = 1
_NOT_THERE: Final = frozenset({2, 3})
"""Illegal address, illegal value: what a unit answers where it has no registers."""
_ONE_REQUEST: Final = 120
"""Registers that come in one answer, and so belong together; the protocol allows 125."""
_TRIES: Final = 3


class MaybeWritten(LinkError):  # noqa: N818 - says what is known, not what went wrong
    """A write got no answer: it may or may not be in force."""


class PartlyRefused(LinkError):  # noqa: N818 - says what is known, not what went wrong
    """A unit took some of the writes and refused a later one."""


class PreparedWrite(msgspec.Struct, frozen=True):
    """Points as registers, scaled as the unit scales them now; not sent yet."""

    requests: tuple[tuple[int, list[int]], ...]
    """Address and registers of each, in the order they are written."""
    connection: int
    """On which the scale factors were read: it is sent on no other."""
    wears: int | None = None
    """Requests that count against the device's budget of writes; None = all."""

    @property
    def wear(self) -> int:
        """Requests that count against the device's budget of writes."""
        return len(self.requests) if self.wears is None else self.wears


class Identity(msgspec.Struct, frozen=True):
    """What a unit says it is (model 1)."""

    manufacturer: str
    model: str
    serial: str


class SunSpecUnit:
    """Reads and writes points by model and name."""

    def __init__(self, link: LineLink, unit: int) -> None:
        self.link = link
        self.number = unit
        self.chain: Chain | None = None
        """What `discover` found."""
        self.addresses: dict[int, int] = {}
        """Model id -> address of its header (of the first, where there are two); filled by
        `discover`."""
        self._known_on = self._informed_on = -1
        self._exponents: dict[int, tuple[int, ...]] = {}
        """Address of a model that takes several requests -> scale factors that it showed last."""

    async def discover(self, lane: int = POLL) -> None:
        """Find the models; LinkError when it does not answer, SunSpecError when it has none."""
        chain = await self._walked(lane)
        if chain.first(_COMMON) is None:
            raise SunSpecError(f"the unit has no common model ({chain.remark or 'chain complete'})")
        addresses: dict[int, int] = {}
        for found in chain.models:
            addresses.setdefault(found.model, found.address)
        self.chain, self.addresses = chain, addresses

    async def identity(self, lane: int = POLL) -> Identity:
        """Who the unit says it is."""
        values = await self.read(_COMMON, lane)
        return Identity(*(str(values.get(name) or "") for name in ("Mn", "Md", "SN")))

    async def verify(self, serial: str) -> None:
        """Check the unit's serial number once per connection; SunSpecError when it is another."""
        if self._known_on == self.link.connections and self.addresses:
            return
        await self.discover(COMMAND)
        found = await self.identity(COMMAND)
        if serial and found.serial != serial:
            raise SunSpecError(f"serial number {found.serial!r} instead of {serial!r}")
        self._known_on = self.link.connections

    async def inform(self, control: Control) -> None:
        """Let a control learn what it needs of this unit, once per connection.

        SunSpecError when the unit has no such control.
        """
        if self.chain is None:
            await self.discover(COMMAND)
        if self._informed_on == self.link.connections:
            return
        if control.model not in self.addresses:
            listed = ", ".join(map(str, sorted(self.addresses)))
            raise SunSpecError(f"the unit has no model {control.model}; it has {listed}")
        wanted = set(control.reference) & self.addresses.keys()
        control.learn({number: await self.read(number, COMMAND) for number in sorted(wanted)})
        self._informed_on = self.link.connections

    async def read(self, number: int, lane: int = POLL) -> dict[str, Value]:
        """Every point of a model, scaled by the scale factors of the same read."""
        return decode(load_model(number), await self.registers(number, lane))

    async def write(self, number: int, values: Mapping[str, float]) -> None:
        """Write points in the order given, one request each; raises as `prepare` and `send`."""
        await self.send(await self.prepare(number, values))

    async def prepare(self, number: int, values: Mapping[str, float]) -> PreparedWrite:
        """Encode points as the unit scales them now; nothing is written.

        The model is read just before: a scale factor may have changed.

        Raises:
            LinkError: the unit could not be asked for its scale factors.
            SunSpecError: a point cannot hold its value, or the unit lacks the model or point.
        """
        model = load_model(number)
        registers = await self.registers(number, COMMAND)
        points, start = layout(model, registers).points, self.addresses[number]
        # Scale factors first: that says so where the unit's revision lacks a point.
        scales = {name: scale_of(model, name, registers) for name in values}
        requests = tuple(
            (start + points[name].offset, encode(model, name, value, scales[name]))
            for name, value in values.items()
        )
        return PreparedWrite(requests, self.link.connections)

    async def send(self, prepared: PreparedWrite) -> None:
        """Write what was prepared on the connection it was prepared on; as `send_in_order`."""

        async def write(address: int, words: list[int]) -> None:
            await self.link.write(self.number, address, words, connection=prepared.connection)

        await send_in_order(prepared, write)

    async def registers(self, number: int, lane: int = POLL) -> list[int]:
        """Registers of a model, from its header to where the unit says that it ends."""
        if self.chain is None:
            await self.discover(lane)
        found = self.chain.first(number) if self.chain is not None else None
        if found is None:
            raise SunSpecError(f"the unit has no model {number}")
        return await self.registers_of(found, lane)

    async def registers_of(self, found: Found, lane: int = POLL) -> list[int]:
        """Registers of one model of the chain, with scale factors that held all the while.

        A model that takes several requests is read again when its scale factors changed
        meanwhile; SunSpecError when they do not keep still.
        """
        if found.length > MOST_REGISTERS:  # it would keep its neighbours waiting
            found = msgspec.structs.replace(found, length=MOST_REGISTERS)
        if found.length <= _ONE_REQUEST:
            return await self.link.read(self.number, found.address, found.length, lane)
        model = load_model(found.model)
        for _ in range(_TRIES):
            registers, last = await self._in_parts(model, found, lane)
            before = self._exponents.get(found.address)
            after = await self._exponents_after(model, found, registers, last, lane)
            self._exponents[found.address] = after
            if after in (before, ()) and after == _exponents(model, registers):
                return registers
        raise SunSpecError(f"scale factors of model {found.model} change while it is read")

    async def _in_parts(self, model: Model, found: Found, lane: int) -> tuple[list[int], int]:
        """Registers of a long model, and where its last request began.

        Scale factors that stand at its end come together, in the last request.
        """
        registers: list[int] = []
        last, scales = 0, _scale_places(model, [0] * model.length)
        while len(registers) < found.length:
            last = len(registers)
            count = min(_ONE_REQUEST, found.length - last)
            if (
                scales
                and last < scales[0] < last + count < found.length <= scales[0] + _ONE_REQUEST
            ):
                count = scales[0] - last
            registers += await self.link.read(self.number, found.address + last, count, lane)
        return registers, last

    async def _exponents_after(
        self, model: Model, found: Found, registers: list[int], last: int, lane: int
    ) -> tuple[int, ...]:
        """Scale factors once everything else is read: asked again where they came too early."""
        places = _scale_places(model, registers)
        if not places or places[0] >= last:
            return tuple(registers[place] for place in places)
        again = list(registers)
        for start in range(places[0], places[-1] + 1, _ONE_REQUEST):
            count = min(_ONE_REQUEST, places[-1] + 1 - start)
            part = await self.link.read(self.number, found.address + start, count, lane)
            again[start : start + count] = part
        return tuple(again[place] for place in places)

    async def _walked(self, lane: int) -> Chain:
        steps = walk()
        ask = next(steps)
        while True:
            answer: list[int] | None = None
            try:
                answer = await self.link.read(self.number, *ask, lane)
            except LinkError as error:
                if error.exception_code not in _NOT_THERE:
                    raise
            try:
                ask = steps.send(answer)
            except StopIteration as done:
                chain: Chain = done.value
                return chain


async def send_in_order(
    prepared: PreparedWrite, write: Callable[[int, list[int]], Awaitable[None]]
) -> None:
    """Write what was prepared, one request each.

    Raises:
        MaybeWritten: an answer stayed out after something may have been written.
        PartlyRefused: the unit refused a later write than the first.
        LinkError: nothing was written, or the unit refused (`exception_code`).
    """
    for done, (address, words) in enumerate(prepared.requests):
        try:
            await write(address, words)
        except LinkError as error:
            sent = done > 0 or not isinstance(error, UnitDown)
            if sent and error.exception_code is None:
                raise MaybeWritten(str(error)) from error
            if done > 0:
                raise PartlyRefused(str(error), exception_code=error.exception_code) from error
            raise


def _scale_places(model: Model, registers: list[int]) -> list[int]:
    points = layout(model, registers).points.values()
    return [point.offset for point in points if point.type == "sunssf"]


def _exponents(model: Model, registers: list[int]) -> tuple[int, ...]:
    return tuple(registers[place] for place in _scale_places(model, registers))
