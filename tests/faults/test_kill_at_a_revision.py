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
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any, get_args

import pytest

from marketplace_core.events import StreetFact
from tests.faults.test_kill_at_every_fact import PACES as HAPPY
from tests.harness.killed_run import Outcome, Pace, Point, decided, settled
from tests.harness.lab import wait_for
from tests.harness.street import UNWILLING, Street

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(900)]
AT_ONCE = 5
REBOUND_S = 300.0
WITHIN = Pace(speed=60.0, periods=7, lead_s=3.0)
"""The window outlasts two restarts and the revision after each."""
BEHIND = Pace(speed=60.0, periods=3, lead_s=3.0, behind=True)
"""The window is over when the process dies; a revision fits into it."""

FIRST = {"OrderAwarded": 2, "OrderPlanned": 2, "SetpointsIssued": 2}
"""Which fact of its kind the first process dies at: the first is that of the order itself."""


def chain(*deaths: tuple[str, str]) -> list[Point]:
    """Where the processes of one run die, one after the other."""
    return [
        Point(kind, 1 if number else FIRST.get(kind, 1), when)
        for number, (kind, when) in enumerate(deaths)
    ]  # fmt: skip


RUNS = [
    chain(("ReboundMeasured", "before"), ("ReboundMeasured", "after")),
    chain(("SetpointsUnreachable", "before"), ("OrderRevised", "before")),
    chain(("OrderPlanned", "before"), ("OrderPlanned", "after")),
    chain(("SetpointsUnreachable", "after"), ("OrderRevised", "after")),
    chain(("SetpointsRefused", "before"), ("SetpointsRefused", "after")),
    chain(("SetpointsUnconfirmed", "before"), ("OrderAwarded", "before")),
    chain(("SetpointsIssued", "before"), ("SetpointsIssued", "after")),
    chain(("SetpointsUnconfirmed", "after"), ("OrderAwarded", "after")),
]
"""Two deaths each: every start costs the machine seconds."""
DEATHS = {(point.kind, point.when) for points in RUNS for point in points}
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


def run(folder: Path, points: list[Point]) -> Outcome:
    name = "-".join(str(part) for point in points for part in point) or "clean"
    last = points[-1].kind if points else "ReboundMeasured"
    rebound = last == "ReboundMeasured"
    return decided(
        folder / name, points, BEHIND if rebound else WITHIN, measured if rebound else settled,
        devices=UNWILLING, rebound_s=REBOUND_S,
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
    where = outcome.points
    facts = [record["fact"] for record in outcome.facts]
    twice = Counter(key for fact in facts for key in identities(fact))
    assert set(twice.values()) == {1}, (where, [key for key, n in twice.items() if n > 1])
    applied = Counter(each["setpoint_id"] for fact in outcome.of("SetpointsApplied")
                      for each in fact["outcomes"])  # fmt: skip
    assert max(applied.values()) <= 1 + len(outcome.restarts), (where, applied)
    last = outcome.of("OrderRevised")[-1]["revision"]
    for kind, first in (("OrderRevised", 1), ("OrderAwarded", 0), ("OrderPlanned", 0)):
        revisions = [fact["revision"] for fact in outcome.of(kind)]
        assert revisions == list(range(first, last + 1)), (where, kind, revisions)
    told = [
        (s["device_id"], s["revision"]) for device in UNWILLING for s in issued(outcome, device)
    ]
    assert len(told) == len(set(told)), (where, told)
    for kind, _, when in where:
        assert outcome.of(kind) or (kind in MOMENTARY and when == "before"), (where, kind, "lost")
    assert outcome.order["state"] == "settled", where
    assert outcome.verdict.verified, (where, outcome.verdict.faults)
    assert outcome.exit_code == 0, where


def check_devices(outcome: Outcome) -> None:
    """Every setpoint comes into force at most once, in order; the last one is in force."""
    where = outcome.points
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
    # An earlier one may have been overtaken before its device could be asked: only the last counts.
    rows = sorted(outcome.order["setpoints"], key=lambda row: row["setpoint"]["revision"])
    last = {row["setpoint"]["device_id"]: row["outcome"] for row in rows}
    newest = {device: found and found["type"] for device, found in last.items()}
    assert newest == {**dict.fromkeys(UNWILLING, "applied"), SITE: "refused"}, (where, newest)


def check_asked_once(outcome: Outcome) -> None:
    """The site is asked of each state of its event once, and never told that it holds."""
    asked = [
        (entry["event"], entry["modification"])
        for entry in outcome.heard(SITE) if entry.get("received") == "event"
    ]  # fmt: skip
    assert len(asked) == len(set(asked)) >= 1, (outcome.points, asked)
    refused = [each["device_id"] for fact in outcome.of("SetpointsRefused")
               for each in fact["outcomes"]]  # fmt: skip
    assert refused == [SITE], (outcome.points, refused)


def check_read_back_first(outcome: Outcome) -> None:
    """After a restart a device is told only once it was asked, or of something new."""
    for began, dies in pairwise([*outcome.restarts, outcome.window_ends]):
        for device in (*BATTERIES, IDLE):
            until = min(dies, outcome.window_ends, first_new(outcome, device, began))
            told = [entry["at"] for entry in outcome.heard(device)
                    if began <= entry["at"] < until
                    and entry.get("received") in {"set", "write"}]  # fmt: skip
            asked = [at for at in outcome.read_backs(device) if at >= began]
            where = (outcome.points, device, asked, told)
            assert not told or (asked and asked[0] <= told[0]), where


def first_new(outcome: Outcome, device: str, since: float) -> float:
    """Wall time at which a setpoint is first issued to a device after a restart."""
    ends = datetime.fromisoformat(outcome.order["order"]["interval"]["end"])
    for record in outcome.facts:
        ahead = (ends - datetime.fromisoformat(record["at"])).total_seconds()
        at = outcome.window_ends - ahead / outcome.pace.speed
        devices = [each["device_id"] for each in record["fact"].get("setpoints", ())]
        if at > since and device in devices:
            return at
    return outcome.window_ends


def check_made_up_for(outcome: Outcome) -> None:
    """The devices that do not do their share are named, and the batteries take it over."""
    short = {each["device_id"] for fact in outcome.of("OrderRevised") for each in fact["short"]}
    assert short >= {SITE, IDLE}, (outcome.points, short)
    powers = [setpoint["power_kw"] for setpoint in issued(outcome, "bat-1")]
    assert powers[-1] > powers[0], (outcome.points, powers)


def test_an_order_that_is_revised_survives_kill_9_at_every_fact_of_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        clean, *outcomes = pool.map(partial(run, tmp_path), [[], *RUNS])
    kinds = {record["fact"]["kind"] for record in clean.facts}
    assert kinds == set(HAPPY) | {kind for kind, _ in DEATHS}, "a fact is not killed at"
    assert set(product({kind for kind, _ in DEATHS}, ("before", "after"))) == DEATHS
    assert kinds | set(OF_NO_RUN) == {fact.__name__ for fact in get_args(StreetFact)}
    for outcome in [clean, *outcomes]:
        check_facts(outcome)
        check_devices(outcome)
        check_asked_once(outcome)
        check_read_back_first(outcome)
        check_made_up_for(outcome)
    assert all(len(outcome.restarts) == len(outcome.points) for outcome in outcomes)
