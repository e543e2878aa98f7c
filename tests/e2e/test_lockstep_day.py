"""The whole day in virtual time by the command line: its report, its faults, another store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

import pytest

from tests.harness.played_day import Played, fits, play
from tests.harness.servers import PASSWORD, postgres, redis

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(1000)]
KINDS = {"ignores", "clamps", "offline", "opts_out", "times_out", "malformed", "replays"}
FIELDS = {
    "awards": {"order", "seller", "kw", "price", "accepted", "reason"},
    "orders": {"id", "direction", "need_kw", "events"},
    "windows": {"order", "start", "instructed_kw", "baseline_kw", "measured_kw",
                "delivered_kw", "coverage"},
    "flags": {"device", "kind", "at", "after_intervals"},
    "statement": {"seller", "line", "quantity", "unit", "price", "amount", "currency",
                  "explains"},
}  # fmt: skip
COUNTS = {"issued", "applied", "refused", "unreachable", "unconfirmed"}


class OnServers(NamedTuple):
    """A day, and what Redis held at its end."""

    played: Played
    groups: str
    live: list[str]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("first"), "--seed", "1")


@pytest.fixture(scope="module")
def on_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnServers]:
    """The same day on PostgreSQL, with Redis for the bus and the live state."""
    folder = tmp_path_factory.mktemp("servers")
    secret = folder / "password"
    secret.write_text(PASSWORD)
    with postgres() as database, redis() as bus:
        url = database.database()
        played = play(
            folder / "report", "--seed", "1", FLEXWAY_STORE__DATABASE=url,
            FLEXWAY_STORE__READINGS=url, FLEXWAY_STORE__DATABASE_PASSWORD_FILE=str(secret),
            FLEXWAY_BUS__KIND="redis", FLEXWAY_BUS__LIVE_STATE="redis", FLEXWAY_BUS__URL=bus.url,
            FLEXWAY_BUS__PASSWORD_FILE=str(secret),
        )  # fmt: skip
        groups = bus.keys("XINFO", "GROUPS", "flexway:journal:0")
        yield OnServers(played, groups, bus.keys("KEYS", "flexway:live:*").split())


def test_a_day_ends_well_and_every_check_holds(day: Played) -> None:
    assert day.code == 0, day.output
    checks = day.report["checks"]
    assert len(checks) >= 15
    assert [name for name, held in checks.items() if held is not True] == []


def test_the_report_tells_everything_a_reader_may_count_on(day: Played) -> None:
    report = day.report
    for section, fields in FIELDS.items():
        assert report[section], section
        for row in report[section]:
            assert fields <= set(row), section
    assert set(report["setpoints"]) >= COUNTS
    assert {"events", "head_hash", "verified"} <= set(report["journal"])
    assert {"delivered_kwh", "settled_kwh", "error_pct", "abs_error_pct"} <= set(report["truth"])
    for order in report["orders"]:
        assert all(datetime.fromisoformat(event["at"]).tzinfo for event in order["events"])


def test_the_report_names_its_seed(day: Played) -> None:
    assert day.report["seed"] == 1


def test_every_setpoint_has_one_end(day: Played) -> None:
    counts = day.report["setpoints"]
    assert counts["issued"] > 0
    assert counts["issued"] == sum(counts[name] for name in COUNTS - {"issued"})


def test_there_is_an_order_each_way(day: Played) -> None:
    assert sorted(order["direction"] for order in day.report["orders"]) == ["DOWN", "UP"]


def test_the_truth_of_every_device_is_known_for_every_minute(day: Played) -> None:
    devices = {row["device"] for row in day.powers}
    minutes = {row["at"] for row in day.powers}
    assert len(day.powers) == len(devices) * len(minutes) > 10_000
    assert all(isinstance(row["power_kw"], float) for row in day.powers)


def test_something_of_every_kind_goes_wrong(day: Played) -> None:
    assert {fault["fault"] for fault in day.faults} == KINDS


def test_every_fault_is_flagged_and_every_flag_is_a_fault(day: Played) -> None:
    assert day.missed() == []
    assert day.false_alarms() == []


def test_what_ignores_or_clamps_is_flagged_within_two_intervals(day: Played) -> None:
    """By the truth: from when fault and setpoint were both there to the first flag."""
    for fault in (one for one in day.faults if one["fault"] in {"ignores", "clamps"}):
        flagged = min(
            datetime.fromisoformat(flag["at"]) for flag in day.report["flags"] if fits(flag, fault)
        )
        told = min(
            datetime.fromisoformat(row["in_force_at"]) for row in day.report["devices"]
            if row["device"] == fault["device"] and row["in_force_at"] >= "2017-07-21"
        )  # fmt: skip
        since = max(datetime.fromisoformat(fault["at"]), told)
        assert flagged - since <= timedelta(minutes=2)


def test_the_judge_counts_the_delay_of_every_flag(day: Played) -> None:
    injected = day.report["truth"]["injected"]
    assert len(injected) == len(day.faults)
    assert all(0.0 <= fault["after_intervals"] <= 5.0 for fault in injected)


@pytest.mark.parametrize("name", ["report.json", "truth.jsonl", "statement.csv", "report.html"])
def test_the_day_gives_the_same_result_on_postgresql_and_redis(
    day: Played, on_servers: OnServers, name: str
) -> None:
    """To the byte, the head of the journal's hash chain too: so the same seed is the same day."""
    played = on_servers.played
    assert played.code == 0, played.output
    assert (played.folder / name).read_bytes() == (day.folder / name).read_bytes()


def test_that_day_went_through_redis(on_servers: OnServers) -> None:
    assert "dispatch" in on_servers.groups
    assert "observe" in on_servers.groups
    assert len(on_servers.live) > 50
