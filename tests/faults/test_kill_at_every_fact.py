"""Kill -9 at every fact of a run, before and after its commit, and go on.

The real process dies inside the transaction of a fact, or right after its commit and before
anybody hears of it. Started again, the order goes on to its statement: no device sees an
effect twice, nothing that was acknowledged is lost, the journal verifies.

How long a restart takes is the machine's affair. A run whose gateway was not back with time
to spare before the window ended shows nothing, and is made again with a slower clock.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.cli.journal import check
from gateway.store.verify import Verdict
from tests.harness.killer import arguments
from tests.harness.street import DEVICES, Street, street

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(1500)]
AT_ONCE = 5
SPARE_S = 7.0
"""Wall seconds of the window that a restarted gateway needs: devices are waited for, then told."""
TRIES = 3
ONCE = ("OrderSubmitted", "OrderAwarded", "OrderPlanned", "SetpointsIssued")


class Pace(NamedTuple):
    """How a run's clock goes."""

    speed: float
    periods: int
    lead_s: float
    """Wall seconds between the contract and its window."""

    @property
    def window_s(self) -> float:
        return self.periods * 300.0 / self.speed


AHEAD = Pace(speed=60.0, periods=2, lead_s=12.0)
"""The window has to be ahead still when the client repeats its order after the restart."""
WITHIN = Pace(speed=60.0, periods=4, lead_s=3.0)
"""The window has to last longer than the restart."""
BEHIND = Pace(speed=120.0, periods=2, lead_s=3.0)
"""The window is over when the process dies."""

PACES = {"OrderSubmitted": AHEAD, "OrderAwarded": WITHIN, "OrderPlanned": WITHIN,
         "SetpointsIssued": WITHIN, "SetpointsApplied": WITHIN, "WindowClosed": BEHIND,
         "DeliveryVerified": BEHIND, "OrderSettled": BEHIND}  # fmt: skip
NUMBERS = {"SetpointsApplied": len(DEVICES), "WindowClosed": BEHIND.periods,
           "DeliveryVerified": BEHIND.periods}  # fmt: skip
"""How many facts of a kind there are, where it is not one: every protocol answers by itself."""


class Point(NamedTuple):
    """Where a process dies."""

    kind: str
    number: int
    when: str


POINTS = [
    Point(kind, number, when)
    for kind in PACES
    for number, when in product(range(1, NUMBERS.get(kind, 1) + 1), ("before", "after"))
]


class TooLateError(Exception):
    """The gateway was not back early enough for this run to show anything."""


@dataclass
class Outcome:
    """What is left of one run."""

    point: Point | None
    pace: Pace
    restarted: float
    """Wall time at which the second process was started."""
    window_ends: float
    """Wall time."""
    order: dict[str, Any]
    facts: list[dict[str, Any]]
    log: list[dict[str, Any]]
    gateway_log: list[dict[str, Any]]
    exit_code: int
    verdict: Verdict

    def heard(self, device: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["device"] == device]

    def effects(self, device: str) -> list[Any]:
        """Setpoints that came into force on a device, in order."""
        return [entry["power_w"] for entry in self.heard(device)
                if entry.get("effect") == "set" and entry.get("enabled", 1) == 1]  # fmt: skip


def one_run(folder: Path, point: Point | None, pace: Pace) -> Outcome:
    """A run that is killed at a point, and its continuation."""
    lease_s = 300.0 * pace.periods  # nobody refreshes it while the gateway is dead
    with street(folder, speed=pace.speed, lease_s=lease_s) as here:
        module = {} if point is None else {
            "module": "tests.harness.killer", "arguments": arguments(*point)}  # fmt: skip
        process = here.lab.start(**module)
        restarted = 0.0
        try:
            here.await_telemetry()
            need = here.sign_contract(periods=pace.periods, lead_s=pace.lead_s)
            if here.left_s("start") <= 0:
                raise TooLateError("the contract was signed too late")
            order_id = here.submit(need)
            if point is not None:
                assert process.wait(pace.lead_s + pace.window_s + 60) == -9
                restarted = time.time()
                process = here.lab.start()
                order_id = submitted_again(here, need, order_id, point)
            assert order_id is not None
            here.await_settled(order_id)
            order, facts = here.order(order_id), here.facts(order_id)
            window_ends = time.time() + here.left_s("end")
        finally:
            exit_code = process.stop()
        data = here.folder / "data"
        verdict = check(f"sqlite:///{data / 'market.db'}", data / "roots/roots.jsonl",
                        data / "keys/journal.pub.pem")  # fmt: skip
        log, gateway_log = here.log(), here.gateway_log()
    return Outcome(point, pace, restarted, window_ends, order, facts, log, gateway_log,
                   exit_code, verdict)  # fmt: skip


def submitted_again(here: Street, need: str, order_id: str | None, point: Point) -> str:
    """What a client does that got no answer, or repeats itself."""
    if PACES[point.kind] is not BEHIND and here.left_s("end") < SPARE_S:
        raise TooLateError("the gateway came back too late")
    if order_id is None and here.left_s("start") < 1.0:
        raise TooLateError("the order cannot be repeated any more")
    again = here.submit(need)
    assert again is not None
    assert order_id in {None, again}, "a retry made a second order"
    return again


def decided(folder: Path, point: Point | None) -> Outcome:
    """A run that was in time, with as slow a clock as that takes."""
    pace = BEHIND if point is None else PACES[point.kind]
    for attempt in range(TRIES):
        try:
            slower = pace._replace(speed=pace.speed / 2**attempt, lead_s=pace.lead_s * 2**attempt)
            return one_run(folder / str(attempt), point, slower)
        except TooLateError as error:
            late = error
    raise AssertionError(f"{point}: this machine is too slow: {late}")


def check_outcome(outcome: Outcome) -> None:
    where = outcome.point
    kinds = Counter(record["fact"]["kind"] for record in outcome.facts)
    assert all(kinds[kind] == 1 for kind in ONCE), (where, kinds)
    issued = [s["device_id"] for r in outcome.facts for s in r["fact"].get("setpoints", ())]
    assert sorted(issued) == sorted(DEVICES), (where, "issued twice or never")
    closed = [
        (r["fact"]["contract_id"], r["fact"]["period"]["start"], r["fact"]["version"])
        for r in outcome.facts
        if r["fact"]["kind"] == "WindowClosed"
    ]
    assert len(closed) == len(set(closed)) >= outcome.pace.periods, (where, closed)
    states = {row["setpoint"]["device_id"]: row["outcome"]["type"]
              for row in outcome.order["setpoints"]}  # fmt: skip
    assert states == dict.fromkeys(DEVICES, "applied"), (where, states)
    for device in DEVICES:
        assert len(outcome.effects(device)) == 1, (where, device, outcome.effects(device))
    assert outcome.verdict.verified, (where, outcome.verdict.faults)
    assert outcome.exit_code == 0, where


def check_event_stands(outcome: Outcome) -> None:
    """A restart neither cancels a VEN's event nor asks for a second opt."""
    heard = outcome.heard("site-1")
    opted = [(entry["event"], entry["modification"]) for entry in heard if "received" in entry]
    assert len(opted) == 1, (outcome.point, opted)
    fates = [entry["effect"] for entry in heard if entry.get("effect") in
             {"stands", "cancelled", "left_out"}]  # fmt: skip
    assert fates == ["stands"], (outcome.point, fates)


def check_read_back_first(outcome: Outcome) -> None:
    """What was issued before the death is told again only after the device was asked.

    A VEN is told of its event as long as it has not answered, else the event would be
    cancelled: that it is the same event, unmodified, is for `check_event_stands`.
    """
    if outcome.point is None or not issued_before(outcome.point):
        return
    for device in DEVICES:
        after = [entry for entry in outcome.heard(device)
                 if outcome.restarted <= entry["at"] < outcome.window_ends]  # fmt: skip
        told = [entry["at"] for entry in after if entry.get("received") in {"set", "write"}]
        asked = read_backs(outcome, device)
        where = (outcome.point, device, asked, told)
        assert asked or PACES[outcome.point.kind] is BEHIND, where
        assert not told or asked[0] <= told[0], where
        wire = [entry["received"] for entry in after if "received" in entry]
        if device == "ev-1" and told:
            assert wire[0] == "query", (outcome.point, wire)


def read_backs(outcome: Outcome, device: str) -> list[float]:
    """Wall times at which the restarted gateway acted on what it had read back."""
    return [
        datetime.fromisoformat(entry["timestamp"]).timestamp()
        for entry in outcome.gateway_log
        if entry["event"] == "device_read_back" and entry["device"] == device
    ]


def issued_before(point: Point) -> bool:
    """Whether the intent to tell devices was committed when the process died."""
    kinds = list(PACES)
    issued, here = kinds.index("SetpointsIssued"), kinds.index(point.kind)
    return here > issued or (here == issued and point.when == "after")


def test_an_order_survives_kill_9_at_every_fact(tmp_path: Path) -> None:
    def run(point: Point | None) -> Outcome:
        name = "clean" if point is None else "-".join(map(str, point))
        return decided(tmp_path / name, point)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        clean, *outcomes = pool.map(run, [None, *POINTS])
    kinds = Counter(record["fact"]["kind"] for record in clean.facts)
    assert kinds == {kind: NUMBERS.get(kind, 1) for kind in PACES}, "a fact is not killed at"
    for outcome in [clean, *outcomes]:
        check_outcome(outcome)
        check_event_stands(outcome)
        check_read_back_first(outcome)
    assert all(outcome.restarted for outcome in outcomes)
