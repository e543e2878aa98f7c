"""Modbus reads per second over 100 connections, beside a bare client and the library.

Ours: the adapter's own polling, from the planned read to the reading that is handed to the
sink; a poll is due as soon as the one before is done. What is read (60 registers), the servers,
the connections and the event loop are the same for all three, which take turns; the references
decode nothing. `modbus_read_cpu`: the same as processor time per read, which neighbours on the
machine change less. `_growth`: what a read costs at 1, 4 and 16 times 100 units, beside the
fewest: each with a connection of its own, and four behind each connection.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import uvloop

from adapters.modbus.adapter import ModbusAdapter, ModbusEndpoint
from gateway.clock import SystemClock
from gateway.collector import settle
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.units import Kw, Kwh
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading
from tests.bench.modbus_references import bare, library
from tests.bench.modbus_units import (
    HOST,
    POWER_KW,
    STORED_KWH,
    allow_many_sockets,
    served,
)
from tests.harness.clocks import IdentityTime, eventually

CONNECTIONS = 100
SECONDS = 1.0
_AT_ONCE_S = 1e-6
"""Poll interval: the next poll is due when this one is done."""


class Counter:
    """A sink that looks at every reading and keeps none."""

    def __init__(self) -> None:
        self.readings = 0
        self.devices: set[str] = set()

    async def store(self, readings: Sequence[Reading]) -> None:
        for reading in readings:
            assert (reading.power_kw, reading.soc_kwh) == (POWER_KW, STORED_KWH)
            self.readings += 1
            self.devices.add(reading.series)

    def quarantine(self, *, source: str, reason: str, evidence: bytes, device_id: str = "") -> None:
        raise AssertionError(f"{source}: {reason} ({evidence!r})")

    def noticed(self, *, device_id: str, kind: FlagKind, since: datetime, evidence: str) -> None:
        raise AssertionError(f"{device_id}: {kind} ({evidence})")


def run(runs: int) -> list[dict[str, Any]]:
    """Medians of `runs` turns of a second each."""
    allow_many_sockets()
    with _settled(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return _beside(runner, runs) + _growth(runner, runs)


@contextmanager
def _settled() -> Iterator[None]:
    """The collector as the service sets it, for the references as well."""
    before = gc.get_threshold()
    settle()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def _beside(runner: asyncio.Runner, runs: int) -> list[dict[str, Any]]:
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    with served(CONNECTIONS) as ports:
        for _ in range(runs):
            for name, measure in (("bare", bare), ("ours", ours), ("library", library)):
                rate, cost = runner.run(measure(ports, SECONDS))
                rates.setdefault(name, []).append(rate)
                costs.setdefault(name, []).append(1e6 * cost)
    return [
        _row(f"{name}{against}", made["ours"], made[other], unit, runs)
        for name, unit, made in (
            ("modbus_poll_100", "reads/s", rates), ("modbus_read_cpu", "us/read", costs)
        )
        for against, other in (("", "bare"), ("_pymodbus", "library"))
    ]  # fmt: skip


def _growth(runner: asyncio.Runner, runs: int) -> list[dict[str, Any]]:
    """Processor time of a read at 100, 400 and 1,600 units."""
    rows = []
    with served(16 * CONNECTIONS) as ports:
        for name, shared in (("units", 1), ("shared", 4)):
            spent: dict[int, list[float]] = {1: [], 4: [], 16: []}
            for _ in range(runs):
                for factor, times in spent.items():
                    lines = ports[: factor * CONNECTIONS // shared]
                    _, cost = runner.run(ours(lines, SECONDS, units=shared))
                    times.append(1e6 * cost)
            rows += [
                _row(f"modbus_{name}_growth_{factor}x", times, spent[1], "us/read", runs)
                for factor, times in spent.items()
            ]
    return rows


def adapter_of(ports: Sequence[int], units: int) -> ModbusAdapter:
    """`units` on each port."""
    return ModbusAdapter(
        [
            ModbusEndpoint(
                device_id=f"bat-{port}-{unit}", host=HOST, port=port, unit=unit, role="battery",
                profile=DeviceProfile(
                    device_id=f"bat-{port}-{unit}", protocol="modbus", min_kw=Kw(-5.0),
                    max_kw=Kw(5.0), capacity_kwh=Kwh(6.4), lease=LeaseKind.REVERT_TIMER,
                    telemetry_s=_AT_ONCE_S,
                ),
            )
            for port in ports
            for unit in range(1, units + 1)
        ],
        clock=SystemClock(IdentityTime()), time_map=IdentityTime(), timeout_s=5.0,
    )  # fmt: skip


async def ours(ports: Sequence[int], seconds: float, *, units: int = 1) -> tuple[float, float]:
    """Readings per second, and processor seconds that one took."""
    sink, adapter = Counter(), adapter_of(ports, units)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(adapter.run(sink, ready=lambda: None))
        await eventually(
            lambda: len(sink.devices) == len(ports) * units, seconds=60, what="every unit"
        )
        before, began, spent = sink.readings, time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        readings = sink.readings - before
        elapsed, spent = time.perf_counter() - began, time.process_time() - spent
        running.cancel()
    return readings / elapsed, spent / readings


def _row(
    name: str, ours: list[float], reference: list[float], unit: str, runs: int
) -> dict[str, Any]:
    middle, beside = statistics.median(ours), statistics.median(reference)
    return {
        "name": name, "ours": middle, "reference": beside, "ratio": middle / beside,
        "unit": unit, "runs": runs,
    }  # fmt: skip
