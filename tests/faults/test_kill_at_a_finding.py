"""Kill -9 at a finding about a device, before and after its commit: lost or kept, said once.

A finding is nobody's request: one that was lost is made again from what the device does next.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish

from adapters.mqtt import wire
from gateway.store.engine import open_engine
from gateway.store.journal import read_after
from marketplace_core.events import DeviceFlagged
from tests.harness.killer import arguments
from tests.harness.lab import HOST, wait_for
from tests.harness.street import Street, street

pytestmark = [pytest.mark.process]
SPEED = 10.0
"""The half hour in which a thing is not said again lasts three wall minutes."""


def spoil(here: Street) -> None:
    """The charger says something that is no telemetry; the broker does not keep it for later."""
    topic = wire.topic("org_seller", "ev-1", "telemetry")
    publish.single(topic, b"\xc1", qos=0, hostname=HOST, port=here.lab.sections["mqtt"]["port"])


def dies_of_it(here: Street, when: str) -> None:
    killer = arguments("DeviceFlagged", 1, when)
    process = here.lab.start(module="tests.harness.killer", arguments=killer)

    def dead() -> bool:
        spoil(here)
        try:
            return process.wait(0.2) == -9
        except subprocess.TimeoutExpired:
            return False

    wait_for(dead, seconds=30, what="the end of the service")


def findings(here: Street) -> list[Any]:
    """Those in the journal."""
    engine = open_engine(f"sqlite:///{here.folder / 'data/market.db'}")
    try:
        with engine.connect() as connection:
            facts = [record.fact for record in read_after(connection, {}, 1_000_000)]
    finally:
        engine.dispose()
    return [fact.flag for fact in facts if isinstance(fact, DeviceFlagged)]


def test_a_finding_survives_kill_9_and_is_said_once(tmp_path: Path) -> None:
    with street(tmp_path, speed=SPEED) as here:
        dies_of_it(here, "before")
        assert findings(here) == []
        dies_of_it(here, "after")
        (found,) = findings(here)
        process = here.lab.start()
        operator = here.lab.client("org_operator")
        try:
            (shown,) = operator.get("/v1/flags")
            assert (shown["device_id"], shown["kind"]) == ("ev-1", "malformed")
            before = operator.get("/v1/quarantine")

            def heard_again() -> bool:
                spoil(here)
                return bool(operator.get("/v1/quarantine") != before)

            wait_for(heard_again, seconds=10, what="the quarantine", every_s=0.2)
            assert operator.get("/v1/flags") == [shown]
        finally:
            assert process.stop() == 0
        assert findings(here) == [found]
