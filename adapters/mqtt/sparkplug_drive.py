"""Setpoints on their way to Sparkplug devices: written, waited for, told apart by their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

from adapters.base import refuse
from adapters.mqtt.sparkplug import Life
from adapters.mqtt.sparkplug_binding import Command, Wanted, beat_after, command, tolerance
from adapters.mqtt.sparkplug_control import Before, Verdict, answered, before, disturbed, verdict
from adapters.mqtt.sparkplug_inbound import Bound, Fleet
from adapters.mqtt.sparkplug_payload import DataType, Payload
from marketplace_core.dispatch.setpoint import (
    Applied,
    Refused,
    Setpoint,
    SetpointOutcome,
    Unconfirmed,
    Unreachable,
)
from marketplace_core.ports import Clock, TimeMap
from marketplace_core.units import Kw

_BIRTH_S: Final = 2.0
"""Wall seconds that an edge node has to be born after it was asked to."""

Send = Callable[[Bound, Payload, float], bool]
"""Publishes a command that is good for so many wall seconds; False when it could not."""


class Driver:
    """Writes to devices, one command at a time for each, and waits for their reports."""

    def __init__(
        self,
        fleet: Fleet,
        send: Send,
        *,
        link_up: Callable[[], bool],
        clock: Clock,
        time_map: TimeMap,
        ack_timeout_s: float,
    ) -> None:
        """`ack_timeout_s`: wall seconds that a device has to report a command back."""
        self._fleet = fleet
        self._send = send
        self._link_up = link_up
        self._clock = clock
        self._time = time_map
        self._ack_timeout_s = ack_timeout_s
        self._births_by = 0.0

    def wall_ms(self) -> int:
        """Milliseconds since 1970 on the wall."""
        wall = self._time.to_wall(self._clock.now())
        return round(wall.timestamp() * 1000)

    def link_came_up(self) -> None:
        """Births were asked for just now."""
        self._births_by = self._clock.monotonic() + _BIRTH_S

    async def reached(self, bound: Bound, patience_s: float) -> bool:
        """Whether a device's session is sound, after a rebirth that is under way has come."""
        if not self._link_up():
            return False
        if self._fleet.life(bound) is Life.ABSENT:
            patience_s = min(patience_s, self._births_by - self._clock.monotonic())
        return await self._until(
            bound, lambda: self._fleet.life(bound) is Life.BORN, max(0.0, patience_s)
        )

    async def apply(self, bound: Bound, setpoint: Setpoint, releases: int) -> SetpointOutcome:
        """Put a setpoint in force; the caller has the device for itself.

        `releases`: how many were asked for when this setpoint was; a newer one overtakes it.
        """
        at = self._clock.now()
        # It may have waited for another command, and expired meanwhile.
        refused = refuse(setpoint, bound.device.profile, at)
        if refused is not None:
            return refused
        if bound.releases != releases:
            return self._unreachable(bound, setpoint.id, "a release overtook it")
        if "setpoint" not in bound.device.metrics:
            return self._refused(bound, setpoint.id, "it has no setpoint metric")
        if setpoint.revision < bound.newest.get(setpoint.order_id, 0):
            return self._refused(bound, setpoint.id, "an older revision than it has had")
        bound.newest[setpoint.order_id] = setpoint.revision
        left_s = self._clock.wall_seconds((setpoint.valid_until - at).total_seconds())
        wanted = Wanted(
            power_kw=setpoint.power_kw, enable=True, beat=_next_beat(bound),
            lease_s=min(self._clock.wall_seconds(setpoint.lease_s), left_s),
        )  # fmt: skip
        outcome = await self._write(bound, setpoint.id, wanted, min(left_s, self._ack_timeout_s))
        if isinstance(outcome, Applied | Unconfirmed):
            bound.held = setpoint
        return outcome

    async def _undone(self, bound: Bound) -> str:
        """Take back what a refused command left in force: nothing else would ever end it."""
        bound.held = None
        outcome = await self._write(bound, "", self._rest(bound), self._ack_timeout_s)
        return "" if isinstance(outcome, Applied) else ", and may not be back at its fallback"

    def _rest(self, bound: Bound) -> Wanted:
        """What returns a device to its fallback."""
        if "enable" in bound.device.metrics:
            return Wanted(enable=False, beat=_next_beat(bound))
        return Wanted(power_kw=bound.device.profile.fallback_kw, beat=_next_beat(bound))

    async def release(self, bound: Bound, *, order_id: str, revision: int) -> SetpointOutcome:
        """Return a device to its fallback; the caller has the device for itself."""
        at, held = self._clock.now(), bound.held
        device_id = bound.device.device_id
        if held is not None and held.order_id != order_id and held.valid_until > at:
            return Applied(setpoint_id="", device_id=device_id, at=at)  # nothing of it is in force
        if held is not None and held.order_id == order_id and held.revision > revision:
            return self._refused(bound, "", f"revision {held.revision} is in force")
        if "setpoint" not in bound.device.metrics:
            return self._refused(bound, "", "it has no setpoint metric")
        outcome = await self._write(bound, "", self._rest(bound), self._ack_timeout_s)
        if isinstance(outcome, Applied):
            bound.held = None
        return outcome

    async def _write(
        self, bound: Bound, setpoint_id: str, wanted: Wanted, expiry_s: float
    ) -> SetpointOutcome:
        if not await self.reached(bound, _BIRTH_S):
            return self._unreachable(bound, setpoint_id, self._why_not(bound))
        session = self._fleet.node_of(bound).session
        declared = session.declared(bound.device.sparkplug_device)
        try:
            written = command(wanted, bound.device, declared)
        except (ValueError, OverflowError) as error:
            return self._refused(bound, setpoint_id, str(error))
        was = before(bound.reported)
        payload = Payload(timestamp_ms=self.wall_ms(), metrics=written.metrics)
        if not self._send(bound, payload, expiry_s):
            return self._unreachable(bound, setpoint_id, "the broker is not connected")
        return await self._confirmed(bound, setpoint_id, written, was)

    async def _confirmed(
        self, bound: Bound, setpoint_id: str, written: Command, was: Before
    ) -> SetpointOutcome:
        near = tolerance_of(self._fleet, bound)
        deaths, releases = bound.deaths, bound.releases

        def stands() -> tuple[Verdict, str]:
            return verdict(written.expected, was, bound.reported, tolerance_kw=near)

        def overtaken() -> bool:
            return bool(setpoint_id) and bound.releases != releases

        def over() -> bool:
            return stands()[0] is not Verdict.OPEN or bound.deaths != deaths or overtaken()

        await self._until(bound, over, self._ack_timeout_s)
        outcome, amiss = stands()
        at, device_id = self._clock.now(), bound.device.device_id
        if bound.deaths != deaths:
            reason = "it went away before it reported anything"
        elif outcome is Verdict.MATCHES:
            return self._applied(bound, setpoint_id, was)
        elif overtaken():
            reason = "a release overtook it before it was reported"
        elif outcome is Verdict.CONTRADICTED or answered(written.expected, was, bound.reported):
            reason = "it reports something else"
            if setpoint_id and disturbed(was, bound.reported):
                reason += await self._undone(bound)
            return Refused(
                setpoint_id=setpoint_id, device_id=device_id, at=at, reason=reason,
                evidence=amiss,
            )  # fmt: skip
        else:
            reason = f"no report within {self._ack_timeout_s:g} s: {amiss}"
        return Unconfirmed(setpoint_id=setpoint_id, device_id=device_id, at=at, reason=reason)

    def _applied(self, bound: Bound, setpoint_id: str, was: Before) -> Applied:
        values, reports = bound.reported.values, bound.reported.reports
        power_kw, lease_s = values.get("setpoint"), values.get("lease")
        fresh = reports.get("lease", 0) > was.reports.get("lease", 0)
        return Applied(
            setpoint_id=setpoint_id, device_id=bound.device.device_id, at=self._clock.now(),
            read_back_kw=Kw(power_kw) if setpoint_id and power_kw is not None else None,
            lease_remaining_s=lease_s * self._time.speed if fresh and lease_s is not None else None,
        )  # fmt: skip

    async def _until(self, bound: Bound, holds: Callable[[], bool], seconds: float) -> bool:
        """Wait, wall seconds at most, for something that only the device's messages change."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    bound.news.clear()
                    await bound.news.wait()
        except TimeoutError:
            return holds()
        return True

    def _why_not(self, bound: Bound) -> str:
        if not self._link_up():
            return "the broker is not connected"
        if self._fleet.life(bound) is Life.ABSENT:
            return "it is not there: no birth, or a death since"
        return "messages of its edge node are missing: a rebirth was asked for"

    def _refused(self, bound: Bound, setpoint_id: str, reason: str) -> Refused:
        at: datetime = self._clock.now()
        return Refused(
            setpoint_id=setpoint_id, device_id=bound.device.device_id, at=at, reason=reason
        )

    def _unreachable(self, bound: Bound, setpoint_id: str, reason: str) -> Unreachable:
        return Unreachable(
            setpoint_id=setpoint_id, device_id=bound.device.device_id, at=self._clock.now(),
            reason=reason,
        )  # fmt: skip


def tolerance_of(fleet: Fleet, bound: Bound) -> float:
    """Kilowatts that a device's setpoint may read back aside, by the type that it declared."""
    session = fleet.node_of(bound).session
    declared = session.declared(bound.device.sparkplug_device)
    known = declared.get(bound.device.metrics["setpoint"].metric)
    return tolerance(bound.device, DataType.DOUBLE if known is None else known.datatype)


def _next_beat(bound: Bound) -> int:
    told = bound.reported.values.get("heartbeat")
    return beat_after(0 if told is None else int(told))
