"""What the governor says, and that a count outlives the process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.governor import Denied, Governor, Shaped
from adapters.write_book import WriteBook
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.errors import StoreError
from marketplace_core.units import Kw

NOON = datetime(2026, 7, 1, 12, 30, tzinfo=UTC)


def profile(**fields: object) -> DeviceProfile:
    bounds = {"min_kw": Kw(-5.0), "max_kw": Kw(5.0)}
    return DeviceProfile(device_id="bat-1", protocol="modbus", **{**bounds, **fields})


@pytest.mark.parametrize(
    ("asked", "held"), [(2.74, 2.5), (-2.74, -2.5), (0.4, 0.0), (-0.4, 0.0), (5.0, 5.0), (2.5, 2.5)]
)
def test_steps_are_rounded_towards_zero(asked: float, held: float) -> None:
    shaped = Governor(profile(step_kw=0.5)).shape(asked)
    assert isinstance(shaped, Shaped)
    assert shaped.power_kw == held
    assert bool(shaped.note) == (asked != held)


def test_a_charger_that_cannot_go_lower_is_not_told_to_draw_more() -> None:
    """Between -1.4 and -1.0 kW there is no step of 1 kW that it may hold."""
    governor = Governor(profile(min_kw=Kw(-7.0), max_kw=Kw(-1.4), step_kw=1.0))
    denied = governor.shape(-1.9)
    assert isinstance(denied, Denied)
    assert (denied.rule, denied.retry_at) == ("step_kw", None)


def test_no_number_is_no_power() -> None:
    assert isinstance(Governor(profile()).shape(float("nan")), Denied)


def test_a_release_is_counted_and_does_not_hold_up_the_next_setpoint() -> None:
    governor = Governor(profile(writes_per_day=10, write_every_s=60.0))
    governor.charge(NOON, 6, setpoint=True)
    governor.charge(NOON + timedelta(seconds=59), 1, setpoint=False)
    assert governor.check(NOON + timedelta(seconds=60), 3) is None
    assert governor.used(NOON + timedelta(seconds=60)) == 7


def test_wear_names_the_rule_and_when_it_may_be_tried_again() -> None:
    governor = Governor(profile(writes_per_day=10))
    governor.charge(NOON, 6, setpoint=True)
    denied = governor.check(NOON + timedelta(hours=3), 6)
    assert denied is not None
    assert denied.rule == "writes_per_day"
    assert denied.retry_at == datetime(2026, 7, 2, 13, 0, tzinfo=UTC)
    assert "6 of 10 writes" in denied.reason
    assert governor.check(denied.retry_at, 6) is None
    assert governor.check(denied.retry_at - timedelta(seconds=1), 6) is not None


def test_more_than_a_whole_budget_never_passes() -> None:
    denied = Governor(profile(writes_per_day=5)).check(NOON, 6)
    assert denied is not None
    assert denied.retry_at is None


def test_a_clock_that_ran_years_ahead_does_not_block_a_device_for_years() -> None:
    governor = Governor(profile(writes_per_day=6, write_every_s=60.0))
    governor.charge(NOON + timedelta(days=4000), 6, setpoint=True)
    assert governor.check(NOON, 6) is None


async def test_the_count_survives_a_restart(tmp_path: Path) -> None:
    file, limited = tmp_path / "state/writes.json", profile(writes_per_day=10)
    await WriteBook([limited], file).charge("bat-1", NOON, 6, setpoint=True)
    again = WriteBook([limited], file).governor("bat-1")
    assert again.used(NOON) == 6
    assert again.check(NOON, 6) is not None


async def test_a_device_without_a_budget_costs_no_file(tmp_path: Path) -> None:
    file = tmp_path / "writes.json"
    await WriteBook([profile()], file).charge("bat-1", NOON, 6, setpoint=True)
    assert not file.exists()


async def test_a_count_that_cannot_be_kept_is_an_error_that_names_the_setting(
    tmp_path: Path,
) -> None:
    (tmp_path / "taken").write_text("a file where a folder has to be")
    book = WriteBook([profile(writes_per_day=10)], tmp_path / "taken/writes.json", key="modbus.x")
    with pytest.raises(StoreError, match=r"modbus\.x"):
        await book.charge("bat-1", NOON, 1, setpoint=True)


async def test_a_broken_file_is_no_reason_not_to_start(tmp_path: Path) -> None:
    file = tmp_path / "writes.json"
    file.write_bytes(b"{")
    book = WriteBook([profile(writes_per_day=10)], file)
    assert book.governor("bat-1").used(NOON) == 0
