"""Kill -9 at every fact of a run, before and after its commit, and go on.

The real process dies inside the transaction of a fact, or right after its commit and before
anybody hears of it. Started again, the order goes on to its statement: no device sees an
effect twice, nothing that was acknowledged is lost, the journal verifies.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

from tests.harness.killed_run import Outcome, Pace, Point, decided
from tests.harness.street import DEVICES

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(1500)]
AT_ONCE = 5
ONCE = ("OrderSubmitted", "OrderAwarded", "OrderPlanned", "SetpointsIssued")


AHEAD = Pace(speed=60.0, periods=2, lead_s=12.0)
"""The window has to be ahead still when the client repeats its order after the restart."""
WITHIN = Pace(speed=60.0, periods=4, lead_s=3.0)
"""The window has to last longer than the restart."""
BEHIND = Pace(speed=120.0, periods=2, lead_s=3.0, behind=True)
"""The window is over when the process dies."""

PACES = {"OrderSubmitted": AHEAD, "OrderAwarded": WITHIN, "OrderPlanned": WITHIN,
         "SetpointsIssued": WITHIN, "SetpointsApplied": WITHIN, "WindowClosed": BEHIND,
         "DeliveryVerified": BEHIND, "OrderSettled": BEHIND}  # fmt: skip
NUMBERS = {"SetpointsApplied": len(DEVICES), "WindowClosed": BEHIND.periods,
           "DeliveryVerified": BEHIND.periods}  # fmt: skip
"""How many facts of a kind there are, where it is not one: every protocol answers by itself."""


POINTS = [
    Point(kind, number, when)
    for kind in PACES
    for number, when in product(range(1, NUMBERS.get(kind, 1) + 1), ("before", "after"))
]


def check_outcome(outcome: Outcome) -> None:
    where = outcome.points
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
    assert len(opted) == 1, (outcome.points, opted)
    fates = [entry["effect"] for entry in heard if entry.get("effect") in
             {"stands", "cancelled", "left_out"}]  # fmt: skip
    assert fates == ["stands"], (outcome.points, fates)


def check_read_back_first(outcome: Outcome) -> None:
    """What was issued before the death is told again only after the device was asked.

    A VEN is told of its event as long as it has not answered, else the event would be
    cancelled: that it is the same event, unmodified, is for `check_event_stands`.
    """
    if not outcome.points or not issued_before(outcome.points[-1]):
        return
    for device in DEVICES:
        after = [entry for entry in outcome.heard(device)
                 if outcome.restarted <= entry["at"] < outcome.window_ends]  # fmt: skip
        told = [entry["at"] for entry in after if entry.get("received") in {"set", "write"}]
        asked = outcome.read_backs(device)
        where = (outcome.points, device, asked, told)
        assert asked or outcome.pace.behind, where
        assert not told or asked[0] <= told[0], where
        wire = [entry["received"] for entry in after if "received" in entry]
        if device == "ev-1" and told:
            assert wire[0] == "query", (outcome.points, wire)


def issued_before(point: Point) -> bool:
    """Whether the intent to tell devices was committed when the process died."""
    kinds = list(PACES)
    issued, here = kinds.index("SetpointsIssued"), kinds.index(point.kind)
    return here > issued or (here == issued and point.when == "after")


def test_an_order_survives_kill_9_at_every_fact(tmp_path: Path) -> None:
    def run(point: Point | None) -> Outcome:
        name = "clean" if point is None else "-".join(map(str, point))
        if point is None:
            return decided(tmp_path / name, [], BEHIND)
        return decided(tmp_path / name, [point], PACES[point.kind])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        clean, *outcomes = pool.map(run, [None, *POINTS])
    kinds = Counter(record["fact"]["kind"] for record in clean.facts)
    assert kinds == {kind: NUMBERS.get(kind, 1) for kind in PACES}, "a fact is not killed at"
    for outcome in [clean, *outcomes]:
        check_outcome(outcome)
        check_event_stands(outcome)
        check_read_back_first(outcome)
    assert all(outcome.restarted for outcome in outcomes)
