"""Sends setpoints when they are due, keeps their leases, ends them on time.

A setpoint goes on the wire only after `SetpointsIssued` is committed. What a device
did not take because it could not be reached is tried again while it is valid (nothing
was written, so that is safe); what may have been written is read back, never repeated
blindly; what was refused stays refused.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final

import msgspec
import structlog

from gateway.stages.dispatch.agenda import Agenda
from gateway.stages.dispatch.driver import Answered, Driver
from gateway.stages.dispatch.held import Held
from gateway.store.setpoints import SetpointRow, SetpointState
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.ports import Clock

_SHORTEST_NAP_S: Final = 0.005
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
        self._agenda = Agenda()
        self._wake = asyncio.Event()

    def planned(self, setpoints: Iterable[Setpoint]) -> None:
        """Take over setpoints that were just committed as planned."""
        now = self._clock.now()
        for setpoint in setpoints:
            self._hold(setpoint, SetpointState.PLANNED, now)
        self._wake.set()

    def restore(self, rows: Iterable[SetpointRow]) -> None:
        """Take over what was open when the process ended.

        Everything that may have reached a device is read back before anything is issued.
        """
        now = self._clock.now()
        for row in rows:
            state = row.state
            if state is SetpointState.APPLIED:
                state = SetpointState.ISSUED  # in force? only the device knows
            self._hold(row.setpoint, state, now)
        self._wake.set()

    def stopped(self, order_id: str, at: datetime) -> None:
        """Let every setpoint of an order end at `at`."""
        self._shorten((h for h in self._agenda.every() if h.setpoint.order_id == order_id), at)

    def seize(self, setpoint_ids: Collection[str], at: datetime) -> list[Held]:
        """Give setpoints up to whoever stops them: none is issued or refreshed any more.

        What is being asked of a device just now stays `busy` until it is answered.
        """
        seized = sorted(self._agenda.among(setpoint_ids), key=lambda held: held.number)
        self._shorten(seized, at)
        for held in seized:
            self._agenda.remove(held)
        return seized

    def give_back(self, group: Iterable[Held]) -> None:
        """Take over again what was seized and could not be stopped: it is released once more."""
        for held in group:
            held.market_entry = held.wall_entry = None
            self._agenda.add(held)
        self._wake.set()

    def open_setpoints(self) -> list[Setpoint]:
        """Every setpoint that something is still to be done for."""
        return [held.setpoint for held in self._agenda.every()]

    def leases(self) -> dict[str, float]:
        """Market seconds left on the lease of each device that holds a setpoint.

        May be called from any thread, as `states` and `running`.
        """
        now = self._clock.monotonic()
        scale = self._clock.wall_seconds(1.0)
        return {
            held.setpoint.device_id: max(0.0, held.lease_ends - now) / scale
            for held in self._agenda.every()
            if held.state is SetpointState.APPLIED and held.refreshed
        }

    def states(self) -> Counter[str]:
        """How many setpoints whose time is not over stand in each state; from any thread."""
        return Counter(held.state.value for held in self._agenda.every())

    def running(self) -> dict[str, int]:
        """The newest revision of every order with a setpoint for now; from any thread."""
        now = self._clock.now()
        orders: dict[str, int] = {}
        for setpoint in self.open_setpoints():
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

    def _hold(self, setpoint: Setpoint, state: SetpointState, now: datetime) -> None:
        profile = self._profiles.get(setpoint.device_id)
        if profile is None:
            _log.error("device_unbound", device=setpoint.device_id, order_id=setpoint.order_id)
            return
        self._agenda.add(Held(setpoint, profile, state, now))

    def _shorten(self, group: Iterable[Held], at: datetime) -> None:
        for held in group:
            until = min(held.setpoint.valid_until, at)
            held.setpoint = msgspec.structs.replace(held.setpoint, valid_until=until)
            self._agenda.look(held)
        self._wake.set()

    def _step(self, tasks: asyncio.TaskGroup) -> None:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        found = self._agenda.due(now, monotonic)
        self._end_due(tasks, [held for held in found if held.over(now)], now)
        self._send_due(tasks, [held for held in found if held.due(now)])
        for held in found:
            if held.to_refresh(monotonic):
                self._start(tasks, [held], self._driver.refresh)
            elif held.to_retry(monotonic):
                self._start(tasks, [held], self._driver.resolve)
            elif not held.due(now):  # what is due and was not sent waits for one that is busy
                self._agenda.look(held)

    def _end_due(self, tasks: asyncio.TaskGroup, over: Iterable[Held], now: datetime) -> None:
        """End what is over; a device that something else was sent to is not released."""
        for held, release in [(held, not self._driven(held, now)) for held in over]:
            self._start(tasks, [held], partial(self._end, release=release))

    def _driven(self, held: Held, now: datetime) -> bool:
        """Whether something else was sent to its device and goes on."""
        return any(
            not each.over(now) and each.state is not SetpointState.PLANNED
            for each in self._agenda.of_device(held.setpoint.device_id)
        )

    def _send_due(self, tasks: asyncio.TaskGroup, due: Sequence[Held]) -> None:
        """Send what is due, each in place of the earlier revisions for its device.

        A revision that is overtaken before it was sent is never sent.
        """
        older = {held.setpoint.id: self._older(held) for held in due}
        due = [held for held in due if not any(old.busy for old in older[held.setpoint.id])]
        overtaken = {old.setpoint.id: old for one in due for old in older[one.setpoint.id]}
        newest = [held for held in due if held.setpoint.id not in overtaken]
        if newest:
            for old in overtaken.values():
                self._agenda.remove(old)
            superseded = list(overtaken.values())
            self._start(tasks, newest, partial(self._driver.send, superseded=superseded))

    def _older(self, held: Held) -> list[Held]:
        """Setpoints of earlier revisions that one stands in for."""
        setpoint = held.setpoint
        return [
            old for old in self._agenda.of_device(setpoint.device_id)
            if old.setpoint.order_id == setpoint.order_id
            and old.setpoint.revision < setpoint.revision
        ]  # fmt: skip

    def _start(
        self,
        tasks: asyncio.TaskGroup,
        group: Sequence[Held],
        work: Callable[[Sequence[Held], Answered], Awaitable[None]],
    ) -> None:
        token = object()
        for held in group:
            held.work = token
        tasks.create_task(self._do(group, work, token))

    async def _do(
        self,
        group: Sequence[Held],
        work: Callable[[Sequence[Held], Answered], Awaitable[None]],
        token: object,
    ) -> None:
        orders = ",".join(sorted({held.setpoint.order_id for held in group}))
        try:
            with structlog.contextvars.bound_contextvars(order_id=orders):
                await work(group, partial(self._answered, token=token))
        finally:
            self._answered(group, token=token)

    def _answered(self, group: Iterable[Held], *, token: object) -> None:
        """These are dealt with, however long the others of their group take."""
        for held in group:
            if held.work is token:
                held.work = None
                for each in self._agenda.of_device(held.setpoint.device_id):
                    self._agenda.look(each)  # one that waited for it, too
        self._wake.set()

    async def _end(self, group: Sequence[Held], _answered: Answered, *, release: bool) -> None:
        for held in group:
            await self._driver.end(held, release=release)
            self._agenda.remove(held)

    def _nap(self) -> float:
        waits = [self._idle_s]
        if (at := self._agenda.next_market) is not None:
            waits.append(self._clock.wall_seconds((at - self._clock.now()).total_seconds()))
        if (retry_at := self._agenda.next_wall) is not None:
            waits.append(retry_at - self._clock.monotonic())
        return max(_SHORTEST_NAP_S, min(waits))
