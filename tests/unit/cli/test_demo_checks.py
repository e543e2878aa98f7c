"""Checks of the demo that a wrong day must fail."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.cli.demo.checks import state_checks
from gateway.cli.demo.first_told import first_reading, first_told
from tests.harness.day_report import sample_report

Json = dict[str, Any]


def flagged_in_time(report: Json) -> tuple[str, bool]:
    """Name and outcome of the check on how soon faults were flagged."""
    checks = state_checks(report, exits={}, spoiled=1)
    (found,) = [(name, held) for name, held in checks.items() if "ignores or clamps" in name]
    return found


@pytest.mark.parametrize(
    ("transport", "allowed"), [("lockstep", "2 intervals"), ("sockets", "2.5 intervals")]
)
def test_what_ignores_is_flagged_within_the_number_that_the_check_names(
    transport: str, allowed: str
) -> None:
    report = sample_report() | {"transport": transport}
    most = float(allowed.split(maxsplit=1)[0])
    for after, held in ((most, True), (most + 0.01, False), (None, False)):
        report["truth"]["injected"][1]["after_intervals"] = after
        name, found = flagged_in_time(report)
        assert f"within {allowed} of" in name
        assert found is held


def test_a_late_flag_fails_the_check_whatever_it_says_of_itself() -> None:
    report = sample_report()
    report["flags"][1]["after_intervals"] = 0.0
    report["truth"]["injected"][1]["after_intervals"] = 90.0
    assert flagged_in_time(report)[1] is False


def test_a_process_that_did_not_stop_cleanly_fails_its_check() -> None:
    for exits, held in (({"gateway": 0, "devices": 0}, True), ({"gateway": 1}, False)):
        checks = state_checks(sample_report(), exits=exits, spoiled=1)
        assert checks["every process stopped cleanly"] is held


def test_when_a_setpoint_was_first_in_force_is_kept_when_it_is_read_back_later() -> None:
    def applied(at: str) -> Json:
        outcome = {"setpoint_id": "spt_1", "device_id": "dev_1", "at": at}
        return {"at": at, "fact": {"kind": "SetpointsApplied", "outcomes": [outcome]}}

    begins = "2017-07-21T00:00:00+00:00"
    issued = {"id": "spt_1", "device_id": "dev_1", "valid_from": begins}
    facts = [
        {"at": "2017-07-20T23:45:00Z",
         "fact": {"kind": "SetpointsIssued", "setpoints": [issued]}},
        applied("2017-07-20T23:50:00+00:00"),
        applied("2017-07-21T00:53:00+00:00"),
    ]  # fmt: skip
    assert first_told(facts) == ({"dev_1": "2017-07-20T23:45:00Z"}, {"dev_1": begins})


def test_the_first_reading_under_a_setpoint_begins_after_it() -> None:
    since = "2017-07-21T00:00:10+00:00"
    series = [(1500595200.0, 60.0, 0.0), (1500595260.0, 60.0, 1.0), (1500595320.0, 60.0, 1.0)]
    assert first_reading(series, since) == "2017-07-21T00:01:00+00:00"
    assert first_reading(series, None) is None
    assert first_reading([], since) is None
