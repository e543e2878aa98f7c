"""What a unit has to offer so that it can be driven, whichever map its registers follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from adapters.modbus.control import Control
from adapters.modbus.link import POLL, LineLink
from adapters.modbus.sunspec import Value
from adapters.modbus.unit import PreparedWrite


class DrivenUnit(Protocol):
    """Reads and writes the points of a control. Raises LinkError, and PointError."""

    link: LineLink
    number: int

    async def verify(self, serial: str) -> None:
        """Check who it is, once per connection; PointError when it is another."""

    async def inform(self, control: Control) -> None:
        """Let a control learn what it needs of the unit, once per connection."""

    async def read(self, number: int, /, lane: int = POLL) -> dict[str, Value]:
        """Points of a model, or of the control where there are no models."""
        ...

    async def prepare(self, number: int, /, values: Mapping[str, float]) -> PreparedWrite:
        """Encode points; nothing is written."""
        ...

    async def send(self, prepared: PreparedWrite) -> None:
        """Write what was prepared; raises as `send_in_order`."""
