"""What each aggregate was told and what it said to that. In memory, no I/O."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from marketplace_core.dispatch.setpoint import Setpoint


class Standing(enum.Enum):
    """Where one setpoint stands with its aggregate."""

    SENDING = "sending"
    """It may be on its way now."""
    DOUBTFUL = "doubtful"
    """It may have arrived; nobody said so."""
    ACKNOWLEDGED = "acknowledged"


@dataclass
class Told:
    """One setpoint that an aggregate may know of."""

    setpoint: Setpoint
    standing: Standing
    withdrawn_by: int | None = None
    """Revision of a cancellation that is not acknowledged yet."""
    doubted: bool = False
    """An earlier delivery may have arrived, whatever comes of a later one."""
    settling: bool = False
    """It is being asked about again now."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while its dispatch is delivered: who comes second finds what came of it."""


class Book:
    """Setpoints by aggregate and id; what is over is forgotten."""

    def __init__(self) -> None:
        self._told: dict[str, dict[str, Told]] = {}

    def restore(self, setpoints: Iterable[Setpoint], standing: Standing) -> None:
        """Take over what was told before a restart."""
        for setpoint in setpoints:
            self.enter(setpoint, standing)

    def enter(self, setpoint: Setpoint, standing: Standing = Standing.SENDING) -> Told:
        """The entry of a setpoint; made with `standing` when there is none."""
        entries = self._told.setdefault(setpoint.device_id, {})
        doubted = standing is Standing.DOUBTFUL
        return entries.setdefault(setpoint.id, Told(setpoint, standing, doubted=doubted))

    def drop(self, told: Told) -> None:
        """The aggregate does not hold it."""
        self._told.get(told.setpoint.device_id, {}).pop(told.setpoint.id, None)

    def of_order(self, device_id: str, order_id: str, now: datetime) -> list[Told]:
        """What an aggregate was told for one order and is not over, oldest revision first."""
        found = [
            told
            for told in self._told.get(device_id, {}).values()
            if told.setpoint.order_id == order_id and told.setpoint.valid_until > now
        ]
        return sorted(found, key=lambda told: told.setpoint.revision)

    def running(self, device_id: str, now: datetime) -> list[Told]:
        """What may be in force now and was not withdrawn, the latest to begin last."""
        found = [
            told
            for told in self._told.get(device_id, {}).values()
            if told.setpoint.valid_from <= now < told.setpoint.valid_until
            and told.withdrawn_by is None
        ]
        return sorted(found, key=lambda told: (told.setpoint.valid_from, told.setpoint.revision))

    def unsettled(self, now: datetime) -> list[Told]:
        """What may have arrived and was not answered, and what has still to be withdrawn.

        Forgets what is over at market time `now`.
        """
        for entries in self._told.values():
            for told in [t for t in entries.values() if t.setpoint.valid_until <= now]:
                del entries[told.setpoint.id]
        return [
            told
            for entries in self._told.values()
            for told in entries.values()
            if not told.settling
            and (told.standing is Standing.DOUBTFUL or told.withdrawn_by is not None)
        ]
