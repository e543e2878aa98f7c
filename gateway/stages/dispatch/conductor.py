"""Sends setpoints when they are due, keeps their leases, ends them on time.

A setpoint goes on the wire only after `SetpointsIssued` is committed. What a device
did not take because it could not be reached is tried again while it is valid (nothing
was written, so that is safe); what may have been written is read back, never repeated
blindly; what was refused stays refused.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import msgspec
import structlog

from gateway.stages.dispatch.driver import Driver
from gateway.stages.dispatch.held import Held
from gateway.store.setpoints import SetpointRow, SetpointState
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.ports import Clock

_RETRIED: Final = (SetpointState.UNREACHABLE, SetpointState.UNCONFIRMED, SetpointState.ISSUED)
_log = structlog.get_logger(__name__)


class Conductor:
    """Holds every open setpoint of this process and decides what is due."""

    def __init__(
        self,
        driver: Driver,
        profiles: Mapping[str, DeviceProfile],
        clock: Clock,
        *,
        idle_s: float = 1.0,
    ) -> None:
        """`idle_s`: longest wall time between two looks at what is due."""
        self._idle_s = idle_s
        self._driver = driver
        self._profiles = profiles
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._wake = asyncio.Event()

    def planned(self, setpoints: Iterable[Setpoint]) -> None:
        """Take over setpoints that were just committed as planned."""
        for setpoint in setpoints:
            self._hold(setpoint, SetpointState.PLANNED)
        self._wake.set()

    def restore(self, rows: Iterable[SetpointRow]) -> None:
        """Take over what was open when the process ended.

        Everything that may have reached a device is read back before anything is issued.
        """
        for row in rows:
            state = row.state
            if state is SetpointState.APPLIED:
                state = SetpointState.ISSUED  # in force? only the device knows
            self._hold(row.setpoint, state)
        self._wake.set()

    def stopped(self, order_id: str, at: datetime) -> None:
        """Let every setpoint of an order end at `at`."""
        self._shorten((h for h in self._held.values() if h.setpoint.order_id == order_id), at)

    def seize(self, setpoint_ids: Collection[str], at: datetime) -> list[Held]:
        """Give setpoints up to whoever stops them: none is issued or refreshed any more.

        What is being asked of a device just now stays `busy` until it is answered.
        """
        seized = [held for held in self._held.values() if held.setpoint.id in setpoint_ids]
        self._shorten(seized, at)
        for held in seized:
            del self._held[held.setpoint.id]
        return seized

    def give_back(self, group: Iterable[Held]) -> None:
        """Take over again what was seized and could not be stopped: it is released once more."""
        for held in group:
            self._held.setdefault(held.setpoint.id, held)
        self._wake.set()

    def open_setpoints(self) -> list[Setpoint]:
        """Every setpoint that something is still to be done for."""
        return [held.setpoint for held in self._held.values()]

    def leases(self) -> dict[str, float]:
        """Market seconds left on the lease of each device that holds a setpoint.

        May be called from any thread, as `states` and `running`.
        """
        now = self._clock.monotonic()
        scale = self._clock.wall_seconds(1.0)
        return {
            held.setpoint.device_id: max(0.0, held.lease_ends - now) / scale
            for held in list(self._held.values())
            if held.state is SetpointState.APPLIED and held.refreshed
        }

    def states(self) -> Counter[str]:
        """How many setpoints whose time is not over stand in each state; from any thread."""
        return Counter(held.state.value for held in list(self._held.values()))

    def running(self) -> dict[str, int]:
        """The newest revision of every order with a setpoint for now; from any thread."""
        now = self._clock.now()
        orders: dict[str, int] = {}
        for setpoint in [held.setpoint for held in list(self._held.values())]:
            if setpoint.valid_from <= now < setpoint.valid_until:
                known = orders.get(setpoint.order_id, setpoint.revision)
                orders[setpoint.order_id] = max(known, setpoint.revision)
        return orders

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                self._step(tasks)
                try:
                    async with asyncio.timeout(self._nap()):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    def _hold(self, setpoint: Setpoint, state: SetpointState) -> None:
        profile = self._profiles.get(setpoint.device_id)
        if profile is None:
            _log.error("device_unbound", device=setpoint.device_id, order_id=setpoint.order_id)
            return
        self._held.setdefault(setpoint.id, Held(setpoint, profile, state, self._clock.now()))

    def _shorten(self, group: Iterable[Held], at: datetime) -> None:
        for held in group:
            until = min(held.setpoint.valid_until, at)
            held.setpoint = msgspec.structs.replace(held.setpoint, valid_until=until)
        self._wake.set()

    def _step(self, tasks: asyncio.TaskGroup) -> None:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        self._end_due(tasks, now)
        self._send_due(tasks, now)
        for held in self._held.values():
            if held.busy or held.retry_at > monotonic:
                continue
            if held.state is SetpointState.APPLIED and held.refreshed:
                self._start(tasks, [held], self._driver.refresh)
            elif held.state in _RETRIED:
                self._start(tasks, [held], self._driver.resolve)

    def _end_due(self, tasks: asyncio.TaskGroup, now: datetime) -> None:
        """End what is over; a device that something else was sent to is not released."""
        over = [held for held in self._held.values() if held.over(now)]
        if not over:
            return
        driven = {
            held.setpoint.device_id for held in self._held.values()
            if not held.over(now) and held.state is not SetpointState.PLANNED
        }  # fmt: skip
        for held in over:
            release = held.setpoint.device_id not in driven
            self._start(tasks, [held], partial(self._end, release=release))

    def _send_due(self, tasks: asyncio.TaskGroup, now: datetime) -> None:
        """Send what is due, each in place of the earlier revisions for its device.

        A revision that is overtaken before it was sent is never sent.
        """
        due = [held for held in self._held.values() if held.due(now)]
        if not due:
            return
        older = self._older(due)
        due = [held for held in due if not any(old.busy for old in older[held.setpoint.id])]
        overtaken = {old.setpoint.id: old for one in due for old in older[one.setpoint.id]}
        newest = [held for held in due if held.setpoint.id not in overtaken]
        if newest:
            for setpoint_id in overtaken:
                del self._held[setpoint_id]
            superseded = list(overtaken.values())
            self._start(tasks, newest, partial(self._driver.send, superseded=superseded))

    def _older(self, group: Collection[Held]) -> dict[str, list[Held]]:
        """Setpoints of earlier revisions that each of a group stands in for, by its id."""
        orders = {one.setpoint.order_id for one in group}
        held_by: dict[tuple[str, str], list[Held]] = defaultdict(list)
        for held in self._held.values():
            if held.setpoint.order_id in orders:
                held_by[held.setpoint.device_id, held.setpoint.order_id].append(held)
        return {
            one.setpoint.id: [
                old for old in held_by[one.setpoint.device_id, one.setpoint.order_id]
                if old.setpoint.revision < one.setpoint.revision
            ]
            for one in group
        }  # fmt: skip

    def _start(
        self,
        tasks: asyncio.TaskGroup,
        group: list[Held],
        work: Callable[[list[Held]], Awaitable[None]],
    ) -> None:
        for held in group:
            held.busy = True
        tasks.create_task(self._do(group, work))

    async def _do(self, group: list[Held], work: Callable[[list[Held]], Awaitable[None]]) -> None:
        orders = ",".join(sorted({held.setpoint.order_id for held in group}))
        try:
            with structlog.contextvars.bound_contextvars(order_id=orders):
                await work(group)
        finally:
            for held in group:
                held.busy = False
            self._wake.set()

    async def _end(self, group: list[Held], *, release: bool) -> None:
        for held in group:
            await self._driver.end(held, release=release)
            self._held.pop(held.setpoint.id, None)

    def _nap(self) -> float:
        now = self._clock.now()
        waits = [self._idle_s]
        for held in self._held.values():
            if held.busy:
                continue
            waits.append(self._wall(held.setpoint.valid_until - now))
            if held.state is SetpointState.PLANNED:
                waits.append(self._wall(held.send_at - now))
            elif held.state in _RETRIED or held.refreshed:
                waits.append(held.retry_at - self._clock.monotonic())
        return max(0.005, min(waits))

    def _wall(self, span: timedelta) -> float:
        return self._clock.wall_seconds(span.total_seconds())
