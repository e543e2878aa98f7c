"""Kill -9 where an order does not run as planned, before and after each fact, and go on.

A charger acknowledges and does nothing, a site opts out, one battery cannot be reached at
first and the answer of another is lost: the running plan is revised onto the batteries, and
after the order its rebound is watched. Wherever the process dies, no revision is made twice,
no device is told twice of what it may have, and the order goes on to its statement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest

from marketplace_core.events import StreetFact
from tests.faults.test_kill_at_every_fact import PACES as HAPPY
from tests.harness.killed_run import Outcome, Pace, Point, decided
from tests.harness.lab import wait_for
from tests.harness.street import UNWILLING, Street

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(900)]
AT_ONCE = 9
REBOUND_S = 300.0
WITHIN = Pace(speed=60.0, periods=4, lead_s=3.0)
"""The window outlasts the restart and the revision after it."""
BEHIND = Pace(speed=60.0, periods=3, lead_s=3.0, behind=True)
"""The window is over when the process dies; a revision fits into it."""

NUMBERS = {
    "SetpointsRefused": 1, "SetpointsUnreachable": 1, "SetpointsUnconfirmed": 1,
    "OrderRevised": 1, "OrderAwarded": 2, "OrderPlanned": 2, "SetpointsIssued": 2,
    "ReboundMeasured": 1,
}  # fmt: skip
"""Which fact of a kind is died at: the second where the first is that of the order itself."""
POINTS = [
    Point(kind, number, when)
    for (kind, number), when in product(NUMBERS.items(), ("before", "after"))
]
MOMENTARY = {"SetpointsUnreachable", "SetpointsUnconfirmed"}
"""True of one moment: what the next process finds is another thing."""
OF_NO_RUN = {
    "OrderRejected": "no contract serves it: nothing runs",
    "OrderInfeasible": "no device can deliver any of it: nothing runs",
    "OrderStopped": "somebody ends it: killed at in test_stop.py",
}
SITE, IDLE = "site-1", "ev-1"
"""The one opts out, the other acknowledges and does nothing."""
BATTERIES = tuple(device for device in UNWILLING if device.startswith("bat-"))
NEAR_W = 1.5
"""Registers count whole watts."""


def measured(here: Street, order_id: str) -> None:
    """Wait for the statement and for the rebound."""
    here.await_settled(order_id)

    def rebound() -> bool:
        return any(r["fact"]["kind"] == "ReboundMeasured" for r in here.facts(order_id))

    wait_for(rebound, seconds=60, what="the rebound", every_s=0.2)


def run(folder: Path, point: Point | None) -> Outcome:
    name = "clean" if point is None else "-".join(map(str, point))
    pace = BEHIND if point is not None and point.kind == "ReboundMeasured" else WITHIN
    return decided(
        folder / name, point, pace, measured, devices=UNWILLING, rebound_s=REBOUND_S
    )  # fmt: skip


def identities(fact: dict[str, Any]) -> Iterator[Hashable]:
    """What is said once: a revision, a device's setpoint of it, its outcome, a window's version.

    That a setpoint is applied is said by every process that finds it in force.
    """
    kind = fact["kind"]
    if kind == "SetpointsApplied":
        return
    if "setpoints" in fact:  # one of a device that is being asked goes out by itself
        for setpoint in fact["setpoints"]:
            yield kind, setpoint["revision"], setpoint["device_id"]
    elif "outcomes" in fact:
        for outcome in fact["outcomes"]:
            yield kind, outcome["setpoint_id"]
    elif "period" in fact:
        yield kind, fact["contract_id"], fact["period"]["start"], fact["version"]
    else:
        yield kind, fact["revision"], fact.get("version")


def issued(outcome: Outcome, device: str) -> list[dict[str, Any]]:
    """Setpoints that a device was to be told, in order."""
    return [
        setpoint for fact in outcome.of("SetpointsIssued") for setpoint in fact["setpoints"]
        if setpoint["device_id"] == device
    ]  # fmt: skip


def check_facts(outcome: Outcome) -> None:
    where = outcome.point
    facts = [record["fact"] for record in outcome.facts]
    twice = Counter(key for fact in facts for key in identities(fact))
    assert set(twice.values()) == {1}, (where, [key for key, n in twice.items() if n > 1])
    applied = Counter(each["setpoint_id"] for fact in outcome.of("SetpointsApplied")
                      for each in fact["outcomes"])  # fmt: skip
    assert max(applied.values()) <= (1 if where is None else 2), (where, applied)
    last = outcome.of("OrderRevised")[-1]["revision"]
    for kind, first in (("OrderRevised", 1), ("OrderAwarded", 0), ("OrderPlanned", 0)):
        revisions = [fact["revision"] for fact in outcome.of(kind)]
        assert revisions == list(range(first, last + 1)), (where, kind, revisions)
    told = [
        (s["device_id"], s["revision"]) for device in UNWILLING for s in issued(outcome, device)
    ]
    assert len(told) == len(set(told)), (where, told)
    if where is not None and not (where.kind in MOMENTARY and where.when == "before"):
        assert len(outcome.of(where.kind)) >= where.number, (where, "lost")
    assert outcome.order["state"] == "settled", where
    assert outcome.verdict.verified, (where, outcome.verdict.faults)
    assert outcome.exit_code == 0, where


def check_devices(outcome: Outcome) -> None:
    """Every setpoint comes into force at most once, in order; the last one is in force."""
    where = outcome.point
    assert outcome.effects(SITE) == [], where
    charger = [entry["id"] for entry in outcome.heard(IDLE) if entry.get("effect") == "set"]
    assert charger == [s["id"] for s in issued(outcome, IDLE)], (where, charger)
    for battery in BATTERIES:
        effects = outcome.effects(battery)
        powers = [setpoint["power_kw"] * 1000.0 for setpoint in issued(outcome, battery)]
        left = iter(powers)
        once = all(any(abs(power - watts) <= NEAR_W for power in left) for watts in effects)
        assert once, (where, battery, effects, powers)
        assert abs(effects[-1] - powers[-1]) <= NEAR_W, (where, battery, effects, powers)
    newest = {
        row["setpoint"]["device_id"]: row["outcome"]["type"]
        for row in sorted(outcome.order["setpoints"], key=lambda row: row["setpoint"]["revision"])
    }
    assert newest == {**dict.fromkeys(UNWILLING, "applied"), SITE: "refused"}, (where, newest)


def check_asked_once(outcome: Outcome) -> None:
    """The site is asked of each state of its event once, and never told that it holds."""
    asked = [
        (entry["event"], entry["modification"])
        for entry in outcome.heard(SITE) if entry.get("received") == "event"
    ]  # fmt: skip
    assert len(asked) == len(set(asked)) >= 1, (outcome.point, asked)
    refused = [each["device_id"] for fact in outcome.of("SetpointsRefused")
               for each in fact["outcomes"]]  # fmt: skip
    assert refused == [SITE], (outcome.point, refused)


def check_read_back_first(outcome: Outcome) -> None:
    """Until something new is issued to it, a device is told only after it was asked."""
    if outcome.point is None:
        return
    for device in (*BATTERIES, IDLE):
        told = [entry["at"] for entry in outcome.heard(device)
                if entry["at"] >= outcome.restarted
                and entry["at"] < min(outcome.window_ends, first_new(outcome, device))
                and entry.get("received") in {"set", "write"}]  # fmt: skip
        asked = [at for at in outcome.read_backs(device) if at >= outcome.restarted]
        where = (outcome.point, device, asked, told)
        assert not told or (asked and asked[0] <= told[0]), where


def first_new(outcome: Outcome, device: str) -> float:
    """Wall time at which a setpoint was first issued to a device after the restart."""
    ends = datetime.fromisoformat(outcome.order["order"]["interval"]["end"])
    for record in outcome.facts:
        ahead = (ends - datetime.fromisoformat(record["at"])).total_seconds()
        at = outcome.window_ends - ahead / outcome.pace.speed
        devices = [each["device_id"] for each in record["fact"].get("setpoints", ())]
        if at > outcome.restarted and device in devices:
            return at
    return outcome.window_ends


def check_made_up_for(outcome: Outcome) -> None:
    """The devices that do not do their share are named, and the batteries take it over."""
    short = {each["device_id"] for fact in outcome.of("OrderRevised") for each in fact["short"]}
    assert short >= {SITE, IDLE}, (outcome.point, short)
    powers = [setpoint["power_kw"] for setpoint in issued(outcome, "bat-1")]
    assert powers[-1] > powers[0], (outcome.point, powers)


def test_an_order_that_is_revised_survives_kill_9_at_every_fact_of_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        clean, *outcomes = pool.map(lambda point: run(tmp_path, point), [None, *POINTS])
    kinds = {record["fact"]["kind"] for record in clean.facts}
    assert kinds == set(HAPPY) | set(NUMBERS), "a fact is not killed at"
    assert kinds | set(OF_NO_RUN) == {fact.__name__ for fact in get_args(StreetFact)}
    for outcome in [clean, *outcomes]:
        check_facts(outcome)
        check_devices(outcome)
        check_asked_once(outcome)
        check_read_back_first(outcome)
        check_made_up_for(outcome)
    assert all(outcome.restarted for outcome in outcomes)
