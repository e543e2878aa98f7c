"""The closed loop: what was commanded against what is measured, while orders run.

It stands beside the street. It hears of committed facts and of stored readings, says what
is wrong with devices, and where a contract falls short asks intake for a new plan of what
is left: a shortfall never jumps back on the street.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import msgspec
import structlog
from sqlalchemy import Connection, Engine

from gateway.flags import Flags
from gateway.live import Live
from gateway.observability.metrics import Metrics
from gateway.running import Running
from gateway.stages.intake import EMITS, Intake
from gateway.store.engine import run_read
from gateway.store.flags import flags_since
from gateway.store.journal import read_streams
from gateway.store.market import contracts_for, devices_of, orders_in
from gateway.store.setpoints import newest_setpoints
from gateway.store.writer import Writer
from marketplace_core.commands import RevisePlan
from marketplace_core.dispatch.bounds import DeviceState
from marketplace_core.dispatch.lifecycle import UNDER_WAY
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.tracking import FLAG_OF, TRACKING, TrackingRule, missing, track
from marketplace_core.events import EmergencyStopped, OrderFact, SetpointsApplied
from marketplace_core.ports import Clock, Record
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading

_REMEMBERED: Final = timedelta(days=1)
"""Findings this young are not said again after a restart."""
_STOPPED: Final = "it was let go by an emergency stop"
_log = structlog.get_logger(__name__)


class Tracker:
    """Follows every running order of this process."""

    def __init__(
        self,
        *,
        engine: Engine,
        writer: Writer,
        intake: Intake,
        live: Live,
        flags: Flags,
        profiles: Mapping[str, DeviceProfile],
        clock: Clock,
        metrics: Metrics,
        rule: TrackingRule = TRACKING,
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._intake = intake
        self._live = live
        self._flags = flags
        self._profiles = profiles
        self._clock = clock
        self._metrics = metrics
        self._rule = rule
        self._running: dict[str, Running] = {}
        self._interval = timedelta(
            seconds=min((p.telemetry_s for p in profiles.values()), default=60.0)
        )

    def restore(self) -> None:
        """Take over the orders that ran, or were on their way to it, when the process ended."""
        now, engine = self._clock.now(), self._engine
        self._flags.restore(run_read(engine, lambda at: flags_since(at, now - _REMEMBERED)))
        rows = run_read(engine, lambda at: orders_in(at, UNDER_WAY))
        ids = [row.order.id for row in rows if row.order.interval.end > now]
        self.heard(run_read(engine, lambda at: list(read_streams(at, ids))) if ids else [])
        for order_id, order in self._running.items():
            told = run_read(engine, partial(newest_setpoints, order_id=order_id))
            order.let_go((d for d, s in told.items() if order.ended(s)), _STOPPED)
            order.resumed(now)

    def heard(self, records: Iterable[Record]) -> None:
        """Hear of committed facts, in order."""
        for record in records:
            if isinstance(record.fact, EmergencyStopped):
                self._let_go(record.fact)
            if not isinstance(record.fact, OrderFact):
                continue
            order = self._running.setdefault(record.stream, Running(self._profiles))
            for device_id, at, reason in order.heard(record.fact):
                self._flags.found(
                    device_id=device_id, kind=FlagKind.OPTS_OUT, since=at, evidence=reason,
                    order_id=record.stream,
                )  # fmt: skip
            if order.over:
                del self._running[record.stream]
            elif isinstance(record.fact, SetpointsApplied):
                self._catch_up(record.stream, order, record.fact)

    def _catch_up(self, order_id: str, order: Running, fact: SetpointsApplied) -> None:
        """Judge by what was measured under a setpoint before its confirmation was committed."""
        for outcome in fact.outcomes:
            reading = self._live.newest(outcome.device_id)
            if reading is not None:
                self._judge(order_id, order, reading)

    def _let_go(self, stop: EmergencyStopped) -> None:
        for order in self._running.values():
            order.let_go((device_id for device_id, _ in stop.devices), _STOPPED)

    def stored(self, readings: Sequence[Reading]) -> None:
        """Judge devices under a setpoint by readings that were just stored."""
        for order_id, order in self._running.items():
            for reading in readings:
                self._judge(order_id, order, reading)

    def _judge(self, order_id: str, order: Running, reading: Reading) -> None:
        device = order.tracked.get(reading.series)
        if device is None:
            return
        after = order.tracked[reading.series] = track(device, reading, self._rule)
        kind = FLAG_OF.get(after.progress)
        if kind is not None and after.progress is not device.progress:
            interval = timedelta(seconds=device.profile.telemetry_s)
            since = (after.first_short or reading.end) - interval
            self._flags.found(
                device_id=reading.series, kind=kind, since=since, order_id=order_id,
                evidence=_evidence(after.allocation.power_kw, reading.power_kw),
            )  # fmt: skip

    async def run(self) -> None:
        """Look at every running order once per telemetry interval, until cancelled."""
        self.restore()
        while True:
            now = self._clock.now()
            for order_id, order in list(self._running.items()):
                if order.due(now, self._interval * self._rule.rest_intervals, self._interval):
                    await self._look(order_id, order, now)
            await self._clock.sleep_until(max(now + self._interval, self._clock.now()))

    async def _look(self, order_id: str, order: Running, now: datetime) -> None:
        short = order.shortfalls()
        if abs(order.lacking(short) - order.made_up) <= self._rule.revise_kw:
            return
        left = msgspec.structs.replace(order.order.interval, start=now)
        command = RevisePlan(
            order_id=order_id, revision=order.revision + 1, since=now, short=short,
            missing=missing(
                order.calls, short, self._fleet(order), direction=order.order.direction,
                span=left, rule=self._rule,
            ),
            reason=_reason(order, short),
        )  # fmt: skip
        if await self._writer.transact(lambda tx: self._intake.revise(tx, command), emits=EMITS):
            self._metrics.revisions.inc()
            _log.info("plan_revised", order_id=order_id, revision=command.revision,
                      reason=command.reason)  # fmt: skip

    def _fleet(self, order: Running) -> dict[str, list[DeviceState]]:
        """Devices of every contract, with the power that they would have by themselves."""

        def read(connection: Connection) -> dict[str, list[str]]:
            return {
                contract.id: devices_of(connection, contract.assets)
                for contract in contracts_for(connection, order.order.need_id)
            }

        found = run_read(self._engine, read)
        states: dict[str, list[DeviceState]] = {}
        for contract_id, devices in found.items():
            states[contract_id] = [order.referred(each) for each in self._live.devices(devices)]
        return states


def _evidence(commanded_kw: float, measured_kw: float) -> str:
    return f"commanded {commanded_kw:.2f} kW, measured {measured_kw:.2f} kW"


def _reason(order: Running, short: Sequence[object]) -> str:
    if not short:
        return "every device does its share again"
    lacking = order.lacking(order.shortfalls())
    return f"{len(short)} devices fall {lacking:.2f} kW short of their share"
