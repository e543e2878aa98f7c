"""Kill -9 at every street fact of a run, before and after its commit, and go on.

The real process dies inside the transaction of the n-th fact, or right after its commit
and before anybody hears of it. Started again, the order goes on to its statement: no
device sees an effect twice, nothing that was acknowledged is lost, the journal verifies.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.children import Child
from gateway.cli.journal import check
from gateway.store.verify import Verdict
from tests.harness.street import DEVICES, Street, street

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(840)]
AT_ONCE = 4
NEVER = 1_000_000
ONCE = ("OrderSubmitted", "OrderAwarded", "OrderPlanned")


@dataclass
class Outcome:
    """What is left of one run."""

    at: int
    when: str
    killed: bool
    restarted: float
    """Wall time at which the second process was started."""
    order: dict[str, Any]
    facts: list[dict[str, Any]]
    log: list[dict[str, Any]]
    exit_code: int
    verdict: Verdict


def one_run(folder: Path, at: int, when: str) -> Outcome:
    """A run that is killed at its street fact `at`, and its continuation."""
    with street(folder) as here:
        arguments = ["--at", str(at), "--when", when]
        process = here.lab.start(module="tests.harness.killer", arguments=arguments)
        restarted = 0.0
        try:
            here.await_telemetry()
            need = here.sign_contract(periods=2)
            order_id = here.submit(need)
            killed = not survived(here, process, order_id)
            if killed:
                process.wait(20)
                restarted = time.time()
                process = here.lab.start()
                again = here.submit(need)  # a client that got no answer, or repeats itself
                assert again is not None
                assert order_id in {None, again}, "a retry made a second order"
                order_id = again
            assert order_id is not None
            here.await_state(order_id, "settled", seconds=45)
            order, facts = here.order(order_id), here.facts(order_id)
        finally:
            exit_code = process.stop()
        data = here.folder / "data"
        verdict = check(f"sqlite:///{data / 'market.db'}", data / "roots/roots.jsonl",
                        data / "keys/journal.pub.pem")  # fmt: skip
        log = here.log()
    return Outcome(at, when, killed, restarted, order, facts, log, exit_code, verdict)


def survived(here: Street, process: Child, order_id: str | None) -> bool:
    """Wait for the death (False) or the statement (True), whichever comes first."""
    deadline = time.monotonic() + 45
    while process.running and time.monotonic() < deadline:
        try:
            if order_id is not None and here.order(order_id)["state"] == "settled":
                return True
        except httpx.TransportError:
            continue
        time.sleep(0.05)
    assert not process.running, "neither killed nor settled"
    return False


def effects(outcome: Outcome, device: str) -> list[Any]:
    """Setpoints that came into force on a device, in order."""
    return [
        entry["power_w"]
        for entry in outcome.log
        if entry["device"] == device
        and entry.get("effect") == "set"
        and entry.get("enabled", 1) == 1
    ]


def check_outcome(outcome: Outcome) -> None:
    where = f"killed {outcome.when} the commit of fact {outcome.at}"
    kinds = Counter(record["fact"]["kind"] for record in outcome.facts)
    assert all(kinds[kind] == 1 for kind in ONCE), (where, kinds)
    issued = [s["id"] for r in outcome.facts for s in r["fact"].get("setpoints", ())]
    assert len(issued) == len(set(issued)) == len(DEVICES), (where, "issued twice or never")
    closed = [
        (r["fact"]["contract_id"], r["fact"]["period"]["start"], r["fact"]["version"])
        for r in outcome.facts
        if r["fact"]["kind"] == "WindowClosed"
    ]
    assert len(closed) == len(set(closed)) >= 2, (where, closed)
    for device in DEVICES:
        assert len(effects(outcome, device)) <= 1, (where, device, "an effect came twice")
    applied = {row["setpoint"]["device_id"] for row in outcome.order["setpoints"]
               if row["outcome"] and row["outcome"]["type"] == "applied"}  # fmt: skip
    for device in applied:
        assert effects(outcome, device), (where, device, "applied without an effect")
    assert outcome.verdict.verified, (where, outcome.verdict.faults)
    assert outcome.exit_code == 0, where


def check_read_back_first(outcome: Outcome) -> None:
    """Where a command had gone out before the death, the device is asked before it is told."""
    for device in DEVICES:
        heard = [
            entry for entry in outcome.log if entry["device"] == device and "received" in entry
        ]
        before = [entry for entry in heard if entry["at"] < outcome.restarted]
        after = [entry for entry in heard if entry["at"] >= outcome.restarted]
        told = any(entry["received"] in {"set", "write"} for entry in before)
        again = [n for n, entry in enumerate(after) if entry["received"] in {"set", "write"}]
        if told and again:
            asked = {entry["received"] for entry in after[: again[0]]}
            assert asked & {"query", "read"}, (outcome.at, outcome.when, after[: again[0] + 1])


def test_an_order_survives_kill_9_at_every_fact(tmp_path: Path) -> None:
    clean = one_run(tmp_path / "clean", NEVER, "after")
    assert not clean.killed
    check_outcome(clean)
    assert {row["outcome"]["type"] for row in clean.order["setpoints"]} == {"applied"}
    points = list(product(range(1, len(clean.facts) + 1), ("before", "after")))

    def run(point: tuple[int, str]) -> Outcome:
        return one_run(tmp_path / f"{point[1]}-{point[0]}", *point)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(run, points))
    for outcome in outcomes:
        check_outcome(outcome)
        check_read_back_first(outcome)
    # A run may batch its last facts otherwise than the clean one did: no more than that.
    assert sum(outcome.killed for outcome in outcomes) >= len(points) - 4
