"""The governor in front of every write, and polls that ask for what is due only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.modbus.reads import ReadLimits, Span
from adapters.modbus.sunspec import load_model
from marketplace_core.dispatch.profile import LeaseRefresh
from marketplace_core.dispatch.setpoint import Applied, Refused, Unreachable
from tests.harness.clocks import eventually
from tests.harness.modbus import setpoint
from tests.harness.modbus_server import Fault
from tests.harness.modbus_site import BATTERY, METER, Once, polling, site

pytestmark = pytest.mark.process
SETPOINT_WRITES = 6


async def test_a_power_between_steps_is_rounded_towards_zero_and_says_so() -> None:
    async with site(step_kw=0.5) as lab:
        outcome = await lab.issue(setpoint(-2.74))
        assert isinstance(outcome, Applied)
        assert lab.battery.commanded_kw() == outcome.read_back_kw == -2.5
        assert "-2.74 kW became -2.5 kW" in outcome.note
        renewed = await lab.issue(setpoint(-2.74))
        assert isinstance(renewed, Applied)
        assert lab.written().count("WSet") == 1


async def test_setpoints_come_no_faster_than_the_profile_says_and_a_release_always() -> None:
    async with site(write_every_s=30.0) as lab:
        assert isinstance(await lab.issue(setpoint(1.0)), Applied)
        refused = await lab.issue(setpoint(2.0, id="spt_2"))
        assert isinstance(refused, Refused)
        assert refused.rule == "write_every_s"
        assert refused.retry_at is not None
        assert lab.battery.commanded_kw() == 1.0
        assert isinstance(await lab.adapter.release("bat-1", order_id="ord_1", revision=0), Applied)
        assert lab.battery.commanded_kw() is None
        lab.clock.skipped_s += 30.0
        now = lab.clock.now()
        assert refused.retry_at <= now
        assert isinstance(await lab.issue(setpoint(2.0, id="spt_3")), Applied)


async def test_a_renewal_over_the_budget_is_refused_and_the_setpoint_stands() -> None:
    async with site(writes_per_day=SETPOINT_WRITES + 1) as lab:
        assert isinstance(await lab.issue(setpoint()), Applied)
        assert isinstance(await lab.issue(setpoint()), Applied)  # its renewal: the seventh write
        writes = len(lab.written())
        refused = await lab.issue(setpoint())
        assert isinstance(refused, Refused)
        assert refused.rule == "writes_per_day"
        assert len(lab.written()) == writes
        assert lab.battery.commanded_kw() == 3.0
        assert isinstance(await lab.adapter.release("bat-1", order_id="ord_1", revision=0), Applied)
        assert lab.battery.commanded_kw() is None
        lab.clock.skipped_s += 25 * 3600.0
        later = setpoint(id="spt_2", valid_until=lab.clock.now() + timedelta(minutes=10))
        assert isinstance(await lab.issue(later), Applied)


async def test_one_long_lease_stands_to_the_end_and_renewals_only_read_back() -> None:
    async with site(refresh=LeaseRefresh.LONG) as lab:
        one = setpoint(valid_until=datetime.now(UTC) + timedelta(seconds=600))
        outcome = await lab.issue(one)
        assert isinstance(outcome, Applied)
        assert outcome.lease_remaining_s == pytest.approx(600, abs=5)
        writes = len(lab.written())
        for _ in range(10):
            lab.clock.skipped_s += 30.0
            renewed = await lab.issue(one)
            assert isinstance(renewed, Applied)
        assert len(lab.written()) == writes == SETPOINT_WRITES


async def test_a_long_lease_that_the_unit_has_lost_is_written_again() -> None:
    async with site(refresh=LeaseRefresh.LONG) as lab:
        one = setpoint()
        assert isinstance(await lab.issue(one), Applied)
        lab.battery.write(lab.battery.controls().start + load_model(704).points["WSetEna"].offset,
                          [0])  # fmt: skip
        assert lab.battery.commanded_kw() is None
        assert isinstance(await lab.issue(one), Applied)
        assert lab.battery.commanded_kw() == 3.0


async def test_a_long_lease_that_is_capped_is_written_anew_before_it_ends() -> None:
    async with site(refresh=LeaseRefresh.LONG, longest_lease_s=120.0) as lab:
        one = setpoint(valid_until=datetime.now(UTC) + timedelta(seconds=300))
        outcome = await lab.issue(one)
        assert isinstance(outcome, Applied)
        assert outcome.lease_remaining_s == 120.0
        lab.clock.skipped_s += 30.0
        await lab.issue(one)
        assert len(lab.written()) == SETPOINT_WRITES
        lab.clock.skipped_s += 45.0  # 45 s stand: less than the 60 s that a lease has to
        assert isinstance(await lab.issue(one), Applied)
        assert len(lab.written()) == 2 * SETPOINT_WRITES


async def test_the_budget_is_kept_over_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "writes.json"
    async with site(writes_per_day=8, writes=file) as lab:
        assert isinstance(await lab.issue(setpoint()), Applied)
    async with site(writes_per_day=8, writes=file) as lab:
        refused = await lab.issue(setpoint(id="spt_2"))
        assert isinstance(refused, Refused)
        assert refused.rule == "writes_per_day"
        assert lab.written() == []


async def test_a_count_that_cannot_be_kept_holds_back_setpoints_and_no_release(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("no folder")
    async with site(writes_per_day=80, writes=tmp_path / "file/writes.json") as lab:
        refused = await lab.issue(setpoint())
        assert isinstance(refused, Refused)
        assert "modbus.writes" in refused.reason
        assert lab.written() == []
        assert isinstance(await lab.adapter.release("bat-1", order_id="ord_1", revision=0), Applied)
        assert lab.written() == ["WSetEna"]


async def test_nothing_is_counted_for_a_unit_that_cannot_be_reached() -> None:
    async with site(writes_per_day=SETPOINT_WRITES + 1) as lab:
        lab.server.choose = Once(lab, "identity", Fault.DROPPED)
        assert isinstance(await lab.issue(setpoint()), Unreachable)
        lab.clock.skipped_s += 61.0
        assert isinstance(await lab.issue(setpoint()), Applied)


async def test_slow_things_are_asked_for_slowly_and_power_each_time() -> None:
    async with site(slow_s=3600.0) as lab:
        lab.battery.publish(power_kw=1.5, soc_kwh=4.25)
        async with polling(lab):
            await eventually(
                lambda: sum(r.series == "bat-1" for r in lab.sink.readings) >= 5, what="readings"
            )
        battery = [r for r in lab.sink.readings if r.series == "bat-1"]
        meter = [r for r in lab.sink.readings if r.series == "meter-1"]
        assert {(r.power_kw, r.soc_kwh) for r in battery} == {(1.5, 4.25)}
        # A register belongs to its own reading; what is stored is still the newest known.
        assert [r.register_kwh is not None for r in meter] == [True] + [False] * (len(meter) - 1)
        storage = lab.adapter._bound["bat-1"].unit.addresses[713]
        asked = [r.address for r in lab.server.requests if r.unit == BATTERY]
        assert sum(storage + 2 < address < storage + 9 for address in asked) == 1


async def test_one_request_fetches_a_meters_power_and_registers() -> None:
    async with site() as lab:
        async with polling(lab):
            await eventually(
                lambda: sum(r.series == "meter-1" for r in lab.sink.readings) >= 3, what="readings"
            )
        start = lab.adapter._bound["meter-1"].unit.addresses[203]
        asked = [
            (r.address - start, int.from_bytes(r.body[2:4], "big"))
            for r in lab.server.requests
            if r.unit == METER and r.address > start
        ]
        assert (18, 37) in asked  # from W to TotWh_SF
        assert len(asked) == asked.count((18, 37)) + 1  # and once the header after the model


async def test_a_forbidden_register_is_stepped_over() -> None:
    probe = site()
    async with probe as lab:
        unit = lab.adapter._bound["meter-1"].unit
        await unit.discover()
        no = Span(unit.addresses[203] + 30, unit.addresses[203] + 31)
    async with site(reads=ReadLimits(forbidden=(no,))) as lab:
        async with polling(lab):
            await eventually(
                lambda: any(r.series == "meter-1" for r in lab.sink.readings), what="a reading"
            )
        for request in lab.server.requests:
            if request.unit == METER:
                count = int.from_bytes(request.body[2:4], "big")
                assert not request.address <= no.start < request.address + count
