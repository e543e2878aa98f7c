"""The emergency lane: devices are stopped at once, past the conductor and its queue.

The conductor gives the devices up first, so that nothing is issued or refreshed while they
are told. What was on its way to a device at that moment is waited for, and the device is
then told again. What cannot be stopped in time goes back to the conductor, which tries on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import structlog

from gateway.observability.metrics import Metrics
from gateway.stages.dispatch.conductor import Conductor
from gateway.stages.dispatch.held import Held
from gateway.store.setpoints import SetpointState, state_of
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Applied, Setpoint, SetpointOutcome, Unconfirmed
from marketplace_core.dispatch.stop import StopMeaning, StopOutcome, stop_power
from marketplace_core.errors import DeviceError
from marketplace_core.ports import Clock, DeviceAdapter
from marketplace_core.units import Kw

_HOLDS_ITSELF: Final = (LeaseKind.REVERT_TIMER, LeaseKind.TIME_TO_LIVE)
"""Devices that end a value by themselves: only these are held at one without being watched."""
_PAUSE_S: Final = 0.25
"""Wall seconds between two tries at a device."""
_BUSY_S: Final = 0.01
"""Wall seconds between two looks at a device that is being asked something."""
_log = structlog.get_logger(__name__)


class EmergencyLane:
    """Implements the EmergencyLane port over the adapters."""

    def __init__(
        self,
        adapters: Mapping[str, DeviceAdapter],
        *,
        conductor: Conductor,
        clock: Clock,
        metrics: Metrics,
        give_up_s: float = 3.0,
    ) -> None:
        """`adapters` by protocol; `give_up_s`: wall seconds that a device is tried for."""
        self._adapters = adapters
        self._conductor = conductor
        self._clock = clock
        self._metrics = metrics
        self._give_up_s = give_up_s

    def open_setpoints(self) -> list[Setpoint]:
        """What is in force, on its way or planned."""
        return self._conductor.open_setpoints()

    async def stop(
        self,
        emergency_id: str,
        setpoint_ids: Collection[str],
        meanings: Mapping[str, StopMeaning],
        *,
        since: float,
    ) -> list[StopOutcome]:
        """End setpoints at their devices, all at once; one outcome per device, by id.

        `meanings` says for each device what stop means; `since` is the monotonic instant from
        which latency counts.
        """
        seized = self._conductor.seize(setpoint_ids, self._clock.now())
        by_device: dict[str, list[Held]] = {}
        for held in seized:
            by_device.setdefault(held.setpoint.device_id, []).append(held)
        async with asyncio.TaskGroup() as tasks:
            stopping = [
                tasks.create_task(self._stop(emergency_id, by_device[device], meaning, since))
                for device, meaning in sorted(meanings.items())
                if device in by_device
            ]
        outcomes = [task.result() for task in stopping]
        failed = {each.device_id for each in outcomes if each.outcome != "applied"}
        self._conductor.give_back(h for h in seized if h.setpoint.device_id in failed)
        _log.warning("emergency_stop", devices=len(outcomes), failed=len(failed))
        return outcomes

    async def _stop(
        self, emergency_id: str, group: Sequence[Held], meaning: StopMeaning, since: float
    ) -> StopOutcome:
        profile = group[0].profile
        if profile.lease not in _HOLDS_ITSELF or stop_power(profile, meaning) is None:
            meaning = StopMeaning.RELEASE
        if meaning is StopMeaning.RELEASE and all(_never_sent(held) for held in group):
            # There is nothing to let go of, and the device may be serving somebody else now.
            outcome: SetpointOutcome = Applied(
                setpoint_id="", device_id=profile.device_id, at=self._clock.now()
            )
        else:
            outcome = await self._until_done(emergency_id, group, meaning)
        latency = self._clock.monotonic() - since
        self._metrics.emergency.observe(latency)
        return StopOutcome(
            device_id=profile.device_id,
            meaning=meaning,
            outcome=state_of(outcome).value,
            reason="" if isinstance(outcome, Applied) else outcome.reason,
            latency_s=latency,
        )

    async def _until_done(
        self, emergency_id: str, group: Sequence[Held], meaning: StopMeaning
    ) -> SetpointOutcome:
        """Tell a device until it says yes, or the time for it is over."""
        deadline = self._clock.monotonic() + self._give_up_s
        while True:
            busy = any(held.busy for held in group)
            outcome = await self._tell(emergency_id, group, meaning)
            over = self._clock.monotonic() >= deadline
            if over or (isinstance(outcome, Applied) and not busy):
                return outcome
            if not isinstance(outcome, Applied):
                await asyncio.sleep(_PAUSE_S)
            await self._quiet(group, deadline)

    async def _quiet(self, group: Sequence[Held], deadline: float) -> None:
        """Return when nothing is being asked of a device any more, or at the deadline."""
        # `busy` is a plain flag because the conductor looks at every one of them at each step.
        while any(h.busy for h in group) and self._clock.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_BUSY_S)

    async def _tell(
        self, emergency_id: str, group: Sequence[Held], meaning: StopMeaning
    ) -> SetpointOutcome:
        profile = group[0].profile
        adapter = self._adapters[profile.protocol]
        try:
            async with asyncio.timeout(self._give_up_s):
                power = stop_power(profile, meaning)
                if power is None:
                    return await _release(adapter, group)
                hold = self._hold(emergency_id, profile, power)
                async for outcomes in adapter.issue([hold]):
                    return outcomes[0]
                raise DeviceError(  # noqa: TRY301 - a broken adapter is a device that is silent
                    "the adapter gave no outcome", device_id=profile.device_id, retryable=True
                )
        except (TimeoutError, DeviceError) as error:
            return self._unconfirmed(profile.device_id, str(error) or "no answer in time")

    def _hold(self, emergency_id: str, profile: DeviceProfile, power: float) -> Setpoint:
        now = self._clock.now()
        return Setpoint(
            id=f"{emergency_id}-{profile.device_id}"[:128],
            order_id=emergency_id,
            revision=0,
            device_id=profile.device_id,
            power_kw=Kw(power),
            valid_from=now,
            valid_until=now + timedelta(seconds=profile.lease_s),
            lease_s=profile.lease_s,
        )

    def _unconfirmed(self, device_id: str, reason: str) -> Unconfirmed:
        now = self._clock.now()
        return Unconfirmed(setpoint_id="", device_id=device_id, at=now, reason=reason)


def _never_sent(held: Held) -> bool:
    return held.state is SetpointState.PLANNED and not held.busy


async def _release(adapter: DeviceAdapter, group: Iterable[Held]) -> SetpointOutcome:
    """Release a device from every order that it serves; the worst outcome counts."""
    newest: dict[str, Setpoint] = {}
    for held in group:
        known = newest.get(held.setpoint.order_id)
        if known is None or known.revision < held.setpoint.revision:
            newest[held.setpoint.order_id] = held.setpoint
    outcomes = [
        await adapter.release(each.device_id, order_id=each.order_id, revision=each.revision)
        for each in newest.values()
    ]
    return next((each for each in outcomes if not isinstance(each, Applied)), outcomes[0])
