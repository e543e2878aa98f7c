"""Commands and their answers: built, matched, turned into outcomes. No I/O."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection
from datetime import datetime
from typing import Final, Literal

import msgspec

from adapters.mqtt import wire
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import (
    Applied,
    ReadBack,
    Refused,
    Setpoint,
    SetpointOutcome,
    Unconfirmed,
)
from marketplace_core.ports import Clock, TimeMap
from marketplace_core.units import Kw

Answers = asyncio.Queue[wire.Acknowledgement]
_WATTS: Final = 1000.0


class MqttDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device behind the broker."""

    device_id: str
    organisation: str
    profile: DeviceProfile


class Expected:
    """Who waits for the answer to which command; several may wait for the same."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], tuple[Answers, ...]] = {}

    def add(self, command_id: str, device_id: str, answers: Answers) -> None:
        """Put the answer to a command into `answers` when it comes."""
        key = (command_id, device_id)
        self._waiting[key] = (*self._waiting.get(key, ()), answers)

    def remove(self, command_id: str, device_id: str, answers: Answers) -> None:
        """Stop waiting; harmless when nobody waits."""
        key = (command_id, device_id)
        left = tuple(one for one in self._waiting.get(key, ()) if one is not answers)
        if left:
            self._waiting[key] = left
        else:
            self._waiting.pop(key, None)

    def answered(self, device_id: str, answer: wire.Acknowledgement) -> None:
        """Hand an answer to whoever waits; a device answers for itself only."""
        for answers in self._waiting.get((answer.id, device_id), ()):
            answers.put_nowait(answer)


class Translator:
    """Market values to wire values and back; market time scales to wall time here."""

    def __init__(self, clock: Clock, time_map: TimeMap, ttl_s: float) -> None:
        """`ttl_s`: wall seconds within which a device must act on a command."""
        self._clock = clock
        self._time = time_map
        self._ttl_s = ttl_s
        self._numbers = itertools.count(1)

    def setpoint(self, setpoint: Setpoint, now: datetime) -> wire.Command:
        """The command that asks a device to hold a setpoint, sent at the market time `now`."""
        wall = self._clock.wall_seconds
        lasts = wall((setpoint.valid_until - now).total_seconds())
        return wire.Command(
            kind="set",
            id=setpoint.id,
            order_id=setpoint.order_id,
            revision=setpoint.revision,
            power_w=setpoint.power_kw * _WATTS,
            lease_s=wall(setpoint.lease_s),
            ttl_s=min(lasts, self._ttl_s),
            starts_in_s=max(0.0, wall((setpoint.valid_from - now).total_seconds())),
            valid_for_s=lasts,
        )

    def request(
        self, kind: Literal["release", "query"], *, order_id: str = "", revision: int = 0
    ) -> wire.Command:
        """A release or a query, with an id of its own."""
        name = f"{kind}-{next(self._numbers)}-{self._clock.now().timestamp():.6f}"
        return wire.Command(
            kind=kind, id=name, order_id=order_id, revision=revision, ttl_s=self._ttl_s
        )

    def outcome(
        self, setpoint_id: str, device_id: str, answer: wire.Acknowledgement
    ) -> SetpointOutcome:
        """What a device's answer says of a setpoint."""
        at = self._clock.now()
        if answer.status == "applied":
            return Applied(
                setpoint_id=setpoint_id, device_id=device_id, at=at,
                read_back_kw=_kilowatts(answer), lease_remaining_s=self._market_seconds(answer),
            )  # fmt: skip
        return Refused(
            setpoint_id=setpoint_id, device_id=device_id, at=at,
            reason=answer.reason or f"the device says {answer.status}",
            evidence=msgspec.json.encode(answer).decode(),
        )  # fmt: skip

    def read_back(self, device_id: str, answer: wire.Acknowledgement) -> ReadBack:
        """What a device's answer says of its own state."""
        return ReadBack(
            device_id=device_id,
            at=self._clock.now(),
            active=answer.setpoint_id is not None,
            setpoint_id=answer.setpoint_id,
            setpoint_kw=_kilowatts(answer),
            lease_remaining_s=self._market_seconds(answer),
        )

    def unanswered(self, setpoints: Collection[Setpoint], waited_s: float) -> list[SetpointOutcome]:
        """Outcomes of setpoints that were published and never answered."""
        return [
            Unconfirmed(
                setpoint_id=setpoint.id, device_id=setpoint.device_id, at=self._clock.now(),
                reason=f"no acknowledgement within {waited_s:g} s",
            )
            for setpoint in setpoints
        ]  # fmt: skip

    def _market_seconds(self, answer: wire.Acknowledgement) -> float | None:
        return None if answer.lease_s is None else answer.lease_s * self._time.speed


def _kilowatts(answer: wire.Acknowledgement) -> Kw | None:
    return None if answer.power_w is None else Kw(answer.power_w / _WATTS)
