"""What an idle edge box costs: ten Modbus devices polled each second by a real `flexway serve`.

Ours: the whole service (API, journal, readings committed with fdatasync, dispatch,
verification), with nothing ordered. Reference: a loop that polls the same devices as often and
throws the answers away, in a process of its own, at the same time. Both as processor time
of all their threads, in per cent of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvloop

from tests.bench.modbus_references import Bare
from tests.bench.modbus_units import HOST, served
from tests.harness.lab import Lab, wait_for

DEVICES = 10
SECONDS = 20.0
_WARM_UP_S = 5.0
_STORED = "flexway_readings_stored_total"


class Polled(Bare):
    """Asks when it is told to."""

    def ask(self) -> None:
        super()._ask()

    def _ask(self) -> None:
        """Not at once."""


def run(runs: int) -> list[dict[str, Any]]:
    """Medians of `runs` stretches of equal length, 20 s in all."""
    with tempfile.TemporaryDirectory() as name, served(DEVICES) as ports:
        lab = _lab(Path(name), ports)
        child = lab.start()
        reference = _reference(ports)
        try:
            wait_for(lambda: _readings(lab) >= DEVICES, seconds=30, what="readings of all")
            time.sleep(_WARM_UP_S)
            ours, bare = _measured([child.pid, reference.pid], SECONDS / runs, runs)
            assert _readings(lab) >= DEVICES * (SECONDS + _WARM_UP_S) * 0.8, "it was not polled"
        finally:
            reference.terminate()
            reference.wait()
            child.stop()
            lab.close()
    middle, beside = statistics.median(ours), statistics.median(bare)
    return [
        {
            "name": "edge_idle_cpu", "ours": middle, "reference": beside,
            "ratio": middle / beside, "unit": "% of a core", "runs": runs,
        }
    ]  # fmt: skip


def _lab(folder: Path, ports: Sequence[int]) -> Lab:
    lab = Lab(folder, datetime.now(UTC), speed=1.0, minutes=5)
    profile = {
        "min_kw": -5.0, "max_kw": 5.0, "control": "setpoint", "lease": "revert_timer",
        "lease_s": 600.0, "telemetry_s": 1.0, "capacity_kwh": 6.4,
    }  # fmt: skip
    lab.sections["modbus"] = {
        "devices": [
            {"device_id": f"bat-{number}", "organisation": "org_seller", "host": HOST,
             "port": port, "unit": 1, "role": "battery", "profile": profile}
            for number, port in enumerate(ports)
        ]
    }  # fmt: skip
    lab.wall_epoch = lab.market_epoch.timestamp()
    lab.write_settings()
    return lab


def _readings(lab: Lab) -> float:
    """Readings that the service says it has stored."""
    text = httpx.get(f"{lab.url}/metrics").text
    found = [line.split() for line in text.splitlines() if line.startswith(_STORED)]
    return sum(float(value) for *_, value in found)


def _reference(ports: Sequence[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bench_edge_cpu", "--ports", json.dumps(list(ports))]
    )


def _measured(pids: Sequence[int], seconds: float, runs: int) -> list[list[float]]:
    """Per cent of a core that each process took in each stretch."""
    shares: list[list[float]] = [[] for _ in pids]
    for _ in range(runs):
        before, began = [_processor_s(pid) for pid in pids], time.perf_counter()
        time.sleep(seconds)
        elapsed = time.perf_counter() - began
        for share, pid, spent in zip(shares, pids, before, strict=True):
            share.append(100.0 * (_processor_s(pid) - spent) / elapsed)
    return shares


def _processor_s(pid: int) -> float:
    """Seconds that all threads of a process ran, counted in nanoseconds by the kernel."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


async def poll(ports: Sequence[int]) -> None:
    """Ask every device once a second, for ever."""
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(Polled, HOST, port) for port in ports]
    due = loop.time()
    while True:
        for _, polled in made:
            polled.ask()
        due += 1.0
        await asyncio.sleep(due - loop.time())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ports", type=json.loads, required=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(poll(parser.parse_args().ports))
