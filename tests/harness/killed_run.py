"""One order of the real service that is killed at chosen facts, started again and goes on.

How long a restart takes is the machine's affair. A run whose gateway was not back with time
to spare before the window ended shows nothing, and is made again with a slower clock.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from gateway.children import Child
from gateway.cli.journal import check
from gateway.store.verify import Verdict
from tests.harness.killer import arguments
from tests.harness.street import Street, street

SPARE_S = 7.0
"""Wall seconds of the window that a restarted gateway needs: devices are waited for, then told."""
TRIES = 3


class Pace(NamedTuple):
    """How a run's clock goes."""

    speed: float
    periods: int
    lead_s: float
    """Wall seconds between the contract and its window."""
    behind: bool = False
    """The window is over when the process dies."""

    @property
    def window_s(self) -> float:
        return self.periods * 300.0 / self.speed


class Point(NamedTuple):
    """Where a process dies: at which of its own facts of a kind."""

    kind: str
    number: int
    when: str


class TooLateError(Exception):
    """The gateway was not back early enough for this run to show anything."""


@dataclass
class Outcome:
    """What is left of one run."""

    points: Sequence[Point]
    pace: Pace
    restarts: Sequence[float]
    """Wall times at which the later processes were started."""
    window_ends: float
    """Wall time."""
    order: dict[str, Any]
    facts: list[dict[str, Any]]
    log: list[dict[str, Any]]
    gateway_log: list[dict[str, Any]]
    exit_code: int
    verdict: Verdict

    @property
    def restarted(self) -> float:
        """Wall time at which the last process was started; 0 when the first one lived."""
        return self.restarts[-1] if self.restarts else 0.0

    def heard(self, device: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["device"] == device]

    def effects(self, device: str) -> list[Any]:
        """Setpoints that came into force on a device, in order."""
        return [entry["power_w"] for entry in self.heard(device)
                if entry.get("effect") == "set" and entry.get("enabled", 1) == 1]  # fmt: skip

    def read_backs(self, device: str) -> list[float]:
        """Wall times at which a gateway acted on what it had read back."""
        return [
            datetime.fromisoformat(entry["timestamp"]).timestamp()
            for entry in self.gateway_log
            if entry["event"] == "device_read_back" and entry["device"] == device
        ]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The order's facts of a kind."""
        return [record["fact"] for record in self.facts if record["fact"]["kind"] == kind]


def settled(here: Street, order_id: str) -> None:
    """Wait for the statement: the usual end of a run."""
    here.await_settled(order_id)


def one_run(
    folder: Path, points: Sequence[Point], pace: Pace, until: Callable[[Street, str], None],
    **options: Any,
) -> Outcome:  # fmt: skip
    """A run whose processes are killed one after the other, and its continuation."""
    lease_s = 300.0 * pace.periods  # nobody refreshes it while the gateway is dead
    restarts: list[float] = []
    with street(folder, speed=pace.speed, lease_s=lease_s, **options) as here:
        process = start(here, points[:1])
        try:
            here.await_telemetry()
            need = here.sign_contract(periods=pace.periods, lead_s=pace.lead_s)
            if here.left_s("start") <= 0:
                raise TooLateError("the contract was signed too late")
            order_id = here.submit(need)
            for number in range(1, len(points) + 1):
                await_death(here, process, pace)
                restarts.append(time.time())
                process = start(here, points[number : number + 1], wait=number == len(points))
            if points:
                order_id = submitted_again(here, need, order_id, pace)
            assert order_id is not None
            until(here, order_id)
            order, facts = here.order(order_id), here.facts(order_id)
            window_ends = time.time() + here.left_s("end")
        finally:
            exit_code = process.stop()
        data = here.folder / "data"
        verdict = check(f"sqlite:///{data / 'market.db'}", data / "roots/roots.jsonl",
                        data / "keys/journal.pub.pem")  # fmt: skip
        log, gateway_log = here.log(), here.gateway_log()
    return Outcome(points, pace, restarts, window_ends, order, facts, log, gateway_log,
                   exit_code, verdict)  # fmt: skip


def start(here: Street, points: Sequence[Point], *, wait: bool = True) -> Child:
    """A service that dies at the point, if there is one."""
    for point in points:
        return here.lab.start(module="tests.harness.killer", arguments=arguments(*point), wait=wait)
    return here.lab.start(wait=wait)


def await_death(here: Street, process: Child, pace: Pace) -> None:
    """Wait until a process was killed; TooLateError when it outlives the window instead."""
    longest = here.left_s("end") + (60.0 if pace.behind else 0.0)
    try:
        assert process.wait(max(1.0, longest)) == -9
    except subprocess.TimeoutExpired as error:
        raise TooLateError("the window ended before the process did") from error


def submitted_again(here: Street, need: str, order_id: str | None, pace: Pace) -> str:
    """What a client does that got no answer, or repeats itself."""
    if not pace.behind and here.left_s("end") < SPARE_S:
        raise TooLateError("the gateway came back too late")
    if order_id is None and here.left_s("start") < 1.0:
        raise TooLateError("the order cannot be repeated any more")
    again = here.submit(need)
    assert again is not None
    assert order_id in {None, again}, "a retry made a second order"
    return again


def decided(
    folder: Path, points: Sequence[Point], pace: Pace,
    until: Callable[[Street, str], None] = settled, **options: Any,
) -> Outcome:  # fmt: skip
    """A run that was in time, with as slow a clock as that takes.

    `until` waits for the end of the run; `options` are the street's.
    """
    for attempt in range(TRIES):
        try:
            slower = pace._replace(speed=pace.speed / 2**attempt, lead_s=pace.lead_s * 2**attempt)
            return one_run(folder / str(attempt), points, slower, until, **options)
        except TooLateError as error:
            late = error
    raise AssertionError(f"{points}: this machine is too slow: {late}")
