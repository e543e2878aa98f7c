"""One unit under setpoints: identity, governor, timer, setpoint, enable, read back.

What comes of it is told apart by how far it came: nothing written is Unreachable or Refused,
written and not read back is Unconfirmed, and only what reads back is Applied.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import structlog

from adapters.governor import Denied, Governor
from adapters.modbus.control import Control, InForce
from adapters.modbus.driven import DrivenUnit
from adapters.modbus.errors import PointError
from adapters.modbus.heartbeat import Heartbeat
from adapters.modbus.link import COMMAND, LinkError
from adapters.modbus.unit import MaybeWritten, PartlyRefused, PreparedWrite
from adapters.write_book import WriteBook
from marketplace_core.dispatch.leases import ended_by
from marketplace_core.dispatch.profile import LeaseKind
from marketplace_core.dispatch.setpoint import (
    Applied,
    Refused,
    Setpoint,
    SetpointOutcome,
    Unconfirmed,
    Unreachable,
)
from marketplace_core.errors import StoreError
from marketplace_core.ports import Clock, TimeMap
from marketplace_core.units import Kw

_READ_BACK_KW: Final = 0.05
"""Registers are scaled integers: a read-back this near is the setpoint."""
_TIMER_S: Final = 2.0
"""Wall seconds: a revert timer of less may read 0 while it runs, because it counts whole ones."""
_log = structlog.get_logger(__name__)


class Drive:
    """Writes to one unit and says what came of it."""

    def __init__(
        self, device_id: str, unit: DrivenUnit, control: Control, *, serial: str,
        book: WriteBook, clock: Clock, time_map: TimeMap, heartbeat: Heartbeat | None = None,
    ) -> None:  # fmt: skip
        """`serial`: checked before the first write on every connection; empty = any."""
        self._device_id = device_id
        self._unit = unit
        self._control = control
        self._heartbeat = heartbeat
        self._serial = serial
        self._book = book
        self._clock = clock
        self._time = time_map
        self._stands_until: datetime | None = None
        """Market time at which the lease that was written last runs out."""

    async def start(self, setpoint: Setpoint) -> SetpointOutcome:
        """Put a setpoint in force."""
        shaped = self._governor.shape(setpoint.power_kw)
        if isinstance(shaped, Denied):
            return self._denied(setpoint.id, shaped)
        at, left_s = self._clock.now(), self._left_s(setpoint)
        lease_s = self._governor.lease_s(setpoint.lease_s, left_s)
        wall_s = self._clock.wall_seconds(lease_s)
        outcome = await self._write(
            setpoint.id, lambda: self._control.start(shaped.power_kw, wall_s),
            self._matches(shaped.power_kw, wall_s), beat_s=wall_s, note=shaped.note,
        )  # fmt: skip
        if isinstance(outcome, Applied):
            self._stands_until = at + timedelta(seconds=lease_s)
        return outcome

    async def renew(self, setpoint: Setpoint) -> SetpointOutcome | None:
        """Renew the lease of the setpoint in force; None when it has to be put in force anew."""
        shaped = self._governor.shape(setpoint.power_kw)
        if isinstance(shaped, Denied):
            return self._denied(setpoint.id, shaped)
        wall_s = self._clock.wall_seconds(setpoint.lease_s)
        matches = self._matches(shaped.power_kw, wall_s)
        at, left_s = self._clock.now(), self._left_s(setpoint)
        standing_s = 0.0
        if self._stands_until is not None:
            standing_s = (self._stands_until - at).total_seconds()
        if not self._governor.renews(setpoint.lease_s, left_s, standing_s):
            return await self._look(setpoint.id, matches, standing_s, shaped.note)
        if self._governor.lease_s(setpoint.lease_s, left_s) != setpoint.lease_s:
            return None  # a long lease is written with its new length
        outcome = await self._write(
            setpoint.id, lambda: self._control.refresh(shaped.power_kw, wall_s), matches,
            beat_s=wall_s, note=shaped.note,
        )  # fmt: skip
        if isinstance(outcome, Applied):
            self._stands_until = at + timedelta(seconds=setpoint.lease_s)
        held_back = isinstance(outcome, Refused) and outcome.rule
        return outcome if isinstance(outcome, Applied) or held_back else None

    async def stop(self) -> SetpointOutcome:
        """Let go of the unit; no rate or wear holds it back.

        It returns to its own behaviour. One that nothing but the gateway brings back is put to
        the fallback that is declared for it, and stays there.
        """
        profile = self._governor.profile
        fallback = profile.fallback_kw if ended_by(profile) == "gateway" else None
        if fallback is None:
            return await self._write("", self._control.stop, lambda in_force: not in_force.active)

        def points() -> dict[str, float]:
            """Without its timer: the fallback is no lease, it lasts."""
            started = self._control.start(fallback, _TIMER_S)
            return {n: 0 if n.endswith("RvrtTms") else value for n, value in started.items()}

        return await self._write("", points, self._matches(fallback, 0.0))

    @property
    def _timed(self) -> bool:
        """Whether its own timer is relied upon: else it may stand still, or count for nothing."""
        return self._governor.profile.lease is LeaseKind.REVERT_TIMER

    @property
    def _governor(self) -> Governor:
        return self._book.governor(self._device_id)

    async def _write(
        self, setpoint_id: str, points: Callable[[], dict[str, float]],
        matches: Callable[[InForce], bool], *, beat_s: float = 0.0, note: str = "",
    ) -> SetpointOutcome:  # fmt: skip
        """Identity, governor, writes in order, read back: told apart by how far it came.

        `points` is asked once the control has learned what it needs of the unit; `beat_s`:
        wall seconds that a heartbeat is kept up for.
        """
        with self._unit.link.command():
            try:
                await self._unit.verify(self._serial)
                await self._unit.inform(self._control)
                prepared = await self._unit.prepare(self._control.model, points())
                # Once more, if that took a new connection.
                await self._unit.verify(self._serial)
                await self._unit.inform(self._control)
                denied = None
                if prepared.requests:  # else it holds all of it already, and is only looked at
                    denied = await self._admit(prepared.wear, setpoint=bool(setpoint_id))
                if denied is not None:
                    return self._denied(setpoint_id, denied)
                if self._heartbeat is not None and beat_s:
                    await self._heartbeat.hold(beat_s)
                in_force = await self._send(prepared, matches)
            except PointError as error:
                return self._refused(setpoint_id, str(error))
            except LinkError as error:
                return self._failed(error, setpoint_id)
            if matches(in_force):
                return self._applied(setpoint_id, in_force, note=note)
            await self._take_back(in_force)
        return self._refused(setpoint_id, "it reads back something else", evidence=repr(in_force))

    async def _send(self, prepared: PreparedWrite, matches: Callable[[InForce], bool]) -> InForce:
        """Write and read back; what was refused half-way is known only by reading back."""
        try:
            await self._unit.send(prepared)
        except PartlyRefused as error:
            in_force = await self._confirm()
            if matches(in_force):
                raise MaybeWritten(f"{error}, and it reads back all the same") from error
            raise
        return await self._confirm()

    async def _admit(self, requests: int, *, setpoint: bool) -> Denied | None:
        """Ask the governor, and count what is about to be written."""
        wall = self._time.to_wall(self._clock.now())
        if setpoint and (denied := self._governor.check(wall, requests)) is not None:
            return denied
        try:
            await self._book.charge(self._device_id, wall, requests, setpoint=setpoint)
        except StoreError as error:
            _log.error("writes_not_counted", device=self._device_id, error=str(error))
            if setpoint:
                return Denied(rule="writes_per_day", reason=f"its writes cannot be kept: {error}")
        return None

    async def _confirm(self) -> InForce:
        """Read the control registers after a write; MaybeWritten when they stay unread."""
        try:
            return self._control.parse(await self._unit.read(self._control.model, COMMAND))
        except (LinkError, PointError) as error:
            raise MaybeWritten(f"written, not read back: {error}") from error

    async def _take_back(self, in_force: InForce) -> None:
        """Let go of a unit whose timer stands still: nothing else would ever end it."""
        if not self._timed or not in_force.active or in_force.lease_wall_s != 0:
            return
        with suppress(LinkError, PointError):
            prepared = await self._unit.prepare(self._control.model, self._control.stop())
            await self._admit(prepared.wear, setpoint=False)
            await self._unit.send(prepared)

    async def _look(
        self, setpoint_id: str, matches: Callable[[InForce], bool], standing_s: float, note: str
    ) -> SetpointOutcome | None:
        """A renewal that writes nothing: the long lease stands, if the unit says so too."""
        try:
            with self._unit.link.command():
                await self._unit.verify(self._serial)
                await self._unit.inform(self._control)
                in_force = await self._confirm()
        except PointError as error:
            return self._refused(setpoint_id, str(error))
        except LinkError as error:
            return Unreachable(
                setpoint_id=setpoint_id, device_id=self._device_id, at=self._clock.now(),
                reason=str(error),
            )  # fmt: skip
        if not matches(in_force):
            return None
        return self._applied(setpoint_id, in_force, standing_s=standing_s, note=note)

    def _matches(self, power_kw: float, lease_wall_s: float) -> Callable[[InForce], bool]:
        def matches(in_force: InForce) -> bool:
            power = in_force.power_kw
            near = power is not None and abs(power - power_kw) <= max(
                _READ_BACK_KW, in_force.step_kw
            )
            stopped = in_force.lease_wall_s == 0 and lease_wall_s >= _TIMER_S
            stands_still = self._timed and stopped
            return in_force.active and near and not stands_still

        return matches

    def _applied(
        self, setpoint_id: str, in_force: InForce, *, standing_s: float | None = None,
        note: str = "",
    ) -> Applied:  # fmt: skip
        left_s = standing_s
        if in_force.lease_wall_s is not None and self._timed:
            left_s = in_force.lease_wall_s * self._time.speed
        power = in_force.power_kw
        return Applied(
            setpoint_id=setpoint_id, device_id=self._device_id, at=self._clock.now(),
            read_back_kw=None if power is None else Kw(power), lease_remaining_s=left_s, note=note,
        )  # fmt: skip

    def _refused(self, setpoint_id: str, reason: str, *, evidence: str = "") -> Refused:
        return Refused(
            setpoint_id=setpoint_id, device_id=self._device_id, at=self._clock.now(),
            reason=reason, evidence=evidence,
        )  # fmt: skip

    def _denied(self, setpoint_id: str, denied: Denied) -> Refused:
        return Refused(
            setpoint_id=setpoint_id, device_id=self._device_id, at=self._clock.now(),
            reason=denied.reason, rule=denied.rule, retry_at=denied.retry_at,
        )  # fmt: skip

    def _failed(self, error: LinkError, setpoint_id: str) -> SetpointOutcome:
        """A unit's own exception is a refusal; silence after a write is Unconfirmed."""
        kind: type[Refused | Unconfirmed | Unreachable] = Unreachable
        if error.exception_code is not None:
            kind = Refused
        elif isinstance(error, MaybeWritten):
            kind = Unconfirmed
        return kind(
            setpoint_id=setpoint_id, device_id=self._device_id, at=self._clock.now(),
            reason=str(error),
        )  # fmt: skip

    def _left_s(self, setpoint: Setpoint) -> float:
        return (setpoint.valid_until - self._clock.now()).total_seconds()
