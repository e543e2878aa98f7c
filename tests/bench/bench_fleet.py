"""What a device costs: memory and processor time of the gateway at 1, 4 and 16 times as many.

A fleet of real connections on a real Mosquitto, and the real service behind it. Beside it
on the same broker, at the same time, on the same stream: one subscriber that keeps the
newest message of each device in a dict (`plain_store.py`), the least that anybody needs.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware_sim.fleet.population import populate
from tests.harness.lab import mosquitto, wait_for
from tests.harness.storm import Fleet, bare_back_s, believed, counter, gateway, storm

SIZES = (625, 2_500, 10_000)
STORM = 10_000
_STORM_AT_S, _SPREAD_S, _STORM_INTERVAL_S = 150.0, 20.0, 30.0
_INTERVAL_S = 15.0
_WINDOW_S = 30.0
"""Wall seconds over which processor time and messages are counted."""
_NEVER_S = 86_400.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one process at one size."""

    memory: int
    """Resident bytes."""
    cpu_us: float
    """Processor microseconds for each telemetry message."""


def reconnect(runs: int) -> list[dict[str, Any]]:
    """10,000 devices lose their connection: until all are back, and setpoints meanwhile."""
    found, bare = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as name, mosquitto(Path(name)) as port:
            bare.append(_bare(Path(name), port))
        with tempfile.TemporaryDirectory() as name, mosquitto(Path(name)) as port:
            found.append(
                asyncio.run(
                    storm(Path(name), port, STORM, storm_at=_STORM_AT_S, spread_s=_SPREAD_S,
                          interval_s=_STORM_INTERVAL_S)
                )
            )  # fmt: skip
    back = statistics.median(one.back_s for one in found)
    rows = [_row("reconnect_10k", back, statistics.median(bare), "s", runs)]
    for percent in (50, 99):
        during = statistics.median(one.percentile("during", percent) for one in found)
        before = statistics.median(one.percentile("before", percent) for one in found)
        rows.append(_row(f"reconnect_10k_setpoint_p{percent}", during, before, "s", runs))
    return rows


def costs(runs: int) -> list[dict[str, Any]]:
    """Memory per device and time per message, at three sizes; medians of `runs` of each."""
    ours: dict[int, list[Cost]] = {size: [] for size in SIZES}
    plain: dict[int, list[Cost]] = {size: [] for size in SIZES}
    for _ in range(runs):
        for size in SIZES:
            with tempfile.TemporaryDirectory() as name, mosquitto(Path(name)) as port:
                one, other = _cost(Path(name), port, size)
            ours[size].append(one)
            plain[size].append(other)
    first, last = SIZES[0], SIZES[-1]
    rows = [_row("memory_per_device", _each(ours, first, last), _each(plain, first, last),
                 "B/device", runs)]  # fmt: skip
    smallest = _each(ours, first, SIZES[1])
    rows += [
        _row(f"memory_growth_{SIZES[n] // first}x_to_{SIZES[n + 1] // first}x",
             _each(ours, SIZES[n], SIZES[n + 1]), smallest, "B/device", runs)
        for n in range(len(SIZES) - 1)
    ]  # fmt: skip
    times = {size: statistics.median(one.cpu_us for one in ours[size]) for size in SIZES}
    beside = {size: statistics.median(one.cpu_us for one in plain[size]) for size in SIZES}
    rows.append(_row("telemetry_cpu", times[last], beside[last], "us/message", runs))
    rows += [
        _row(f"telemetry_cpu_growth_{size // first}x", times[size], times[first], "us/message",
             runs)
        for size in SIZES
    ]  # fmt: skip
    return rows


def _each(costs_of: dict[int, list[Cost]], small: int, large: int) -> float:
    """Bytes that each device more took, between two sizes."""
    memory = {
        size: statistics.median(one.memory for one in costs_of[size]) for size in (small, large)
    }
    return (memory[large] - memory[small]) / (large - small)


def _cost(folder: Path, port: int, size: int) -> tuple[Cost, Cost]:
    population = populate("mqtt", size, seed=7)
    with gateway(folder, port, population, _INTERVAL_S) as (lab, child), _plain(port) as plain:
        fleet = Fleet(folder, port, size, storm_at=_NEVER_S, spread_s=_INTERVAL_S, spared=(),
                      interval_s=_INTERVAL_S)  # fmt: skip
        try:
            fleet.wait_up(120)
            wait_for(lambda: believed(lab) == size, seconds=60, what="everybody", every_s=0.5)
            time.sleep(2 * _INTERVAL_S)  # every device has reported more than once
            began = (_cpu(child.pid), _cpu(plain.pid), counter(lab, "readings_stored_total"),
                     plain.messages)  # fmt: skip
            time.sleep(_WINDOW_S)
            ended = (_cpu(child.pid), _cpu(plain.pid), counter(lab, "readings_stored_total"),
                     plain.messages)  # fmt: skip
            assert plain.devices == size
            memory = _memory(child.pid), _memory(plain.pid)
        finally:
            fleet.child.stop()
    ours, reference, stored, seen = (
        after - before for before, after in zip(began, ended, strict=True)
    )
    return (
        Cost(memory=memory[0], cpu_us=ours / stored * 1e6),
        Cost(memory=memory[1], cpu_us=reference / seen * 1e6),
    )


class _Plain:
    """The reference's process and what it last said."""

    def __init__(self, port: int) -> None:
        self.messages, self.devices = 0, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.plain_store", "--port", str(port)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._reader.join()
        self._process.stdout.close()  # type: ignore[union-attr]

    def _read(self) -> None:
        for line in self._process.stdout:  # type: ignore[union-attr]
            self.messages, self.devices = map(int, line.split())


@contextmanager
def _plain(port: int) -> Iterator[_Plain]:
    running = _Plain(port)
    try:
        yield running
    finally:
        running.close()


def _bare(folder: Path, port: int) -> float:
    return bare_back_s(folder, port, STORM, storm_at=_SPREAD_S + 15.0, spread_s=_SPREAD_S,
                       interval_s=_STORM_INTERVAL_S)  # fmt: skip


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _row(name: str, ours: float, reference: float, unit: str, runs: int) -> dict[str, Any]:
    return {
        "name": name, "ours": ours, "reference": reference, "ratio": ours / reference,
        "unit": unit, "runs": runs,
    }  # fmt: skip
