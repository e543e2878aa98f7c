"""One SunSpec unit behind a link: discovery, identity, points."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from adapters.modbus.link import COMMAND, POLL, LineLink, LinkError, UnitDown
from adapters.modbus.sunspec import (
    BASES,
    END_MODEL,
    HEADER,
    MARKER,
    SunSpecError,
    Value,
    decode,
    encode,
    load_model,
    scale_of,
)

_COMMON = 1
_MOST_MODELS = 64
_ILLEGAL_ADDRESS = 2


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
        self.addresses: dict[int, int] = {}
        """Model id -> address of its header; filled by `discover`."""
        self._known_on = -1

    async def discover(self, lane: int = POLL) -> None:
        """Find the models; LinkError when it does not answer, SunSpecError when it has none."""
        base = await self._base(lane)
        address, addresses = base + len(MARKER), dict[int, int]()
        for _ in range(_MOST_MODELS):
            number, length = await self.link.read(self.number, address, HEADER, lane)
            if number == END_MODEL:
                break
            addresses.setdefault(number, address)
            address += HEADER + length
        if _COMMON not in addresses:
            raise SunSpecError("the unit has no common model")
        self.addresses = addresses

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

    async def read(self, number: int, lane: int = POLL) -> dict[str, Value]:
        """Every point of a model, scaled."""
        if not self.addresses:
            await self.discover(lane)
        return decode(load_model(number), await self._registers(number, lane))

    async def write(self, number: int, values: Mapping[str, float]) -> None:
        """Write points in the order given, one request each; raises as `prepare` and `send`."""
        await self.send(await self.prepare(number, values))

    async def prepare(self, number: int, values: Mapping[str, float]) -> PreparedWrite:
        """Encode points as the unit scales them now; nothing is written.

        Raises:
            LinkError: the unit could not be asked for its scale factors.
            SunSpecError: a point cannot hold its value, or the unit lacks the model.
        """
        model = load_model(number)
        registers = await self._registers(number, COMMAND)
        start = self.addresses[number]
        return PreparedWrite(
            tuple(
                (
                    start + model.points[name].offset,
                    encode(model, name, value, scale_of(model, name, registers)),
                )
                for name, value in values.items()
            ),
            self.link.connections,
        )

    async def send(self, prepared: PreparedWrite) -> None:
        """Write what was prepared, one request each, on the connection it was prepared on.

        Raises:
            MaybeWritten: an answer stayed out after something may have been written.
            PartlyRefused: the unit refused a later write than the first.
            LinkError: nothing was written, or the unit refused (`exception_code`).
        """
        for done, (address, words) in enumerate(prepared.requests):
            try:
                await self.link.write(self.number, address, words, connection=prepared.connection)
            except LinkError as error:
                sent = done > 0 or not isinstance(error, UnitDown)
                if sent and error.exception_code is None:
                    raise MaybeWritten(str(error)) from error
                if done > 0:
                    raise PartlyRefused(str(error), exception_code=error.exception_code) from error
                raise

    async def _registers(self, number: int, lane: int) -> list[int]:
        if number not in self.addresses:
            raise SunSpecError(f"the unit has no model {number}")
        return await self.link.read(
            self.number, self.addresses[number], load_model(number).length, lane
        )

    async def _base(self, lane: int) -> int:
        for base in BASES:
            try:
                if tuple(await self.link.read(self.number, base, len(MARKER), lane)) == MARKER:
                    return base
            except LinkError as error:
                if error.exception_code != _ILLEGAL_ADDRESS:
                    raise
        raise SunSpecError("no SunSpec marker at any base address")
