"""The Modbus adapter against simulated SunSpec units over real sockets."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from adapters.modbus.sunspec import SunSpecError, decode, encode, load_model
from marketplace_core.dispatch.setpoint import Applied, Refused, Unconfirmed, Unreachable
from tests.harness.clocks import eventually
from tests.harness.modbus import TIMEOUT_S, rig, setpoint

pytestmark = pytest.mark.process


def offset(name: str) -> int:
    return load_model(704).points[name].offset


async def test_timer_is_written_before_the_setpoint_and_read_back() -> None:
    async with rig() as lab:
        outcome = await lab.issue(setpoint(-3.5))
        assert isinstance(outcome, Applied)
        assert (outcome.read_back_kw, outcome.lease_remaining_s) == (-3.5, 60.0)
        order = [where for where, _ in lab.writes()]
        assert order.index(offset("WSetRvrtTms")) < order.index(offset("WSet"))
        assert order.index(offset("WSet")) < order.index(offset("WSetEna"))
        assert lab.battery.commanded_kw() == -3.5


async def test_refresh_writes_only_what_restarts_the_timer() -> None:
    async with rig() as lab:
        await lab.issue(setpoint())
        lab.now[0] += 40
        lab.log.clear()
        outcome = await lab.issue(setpoint())
        assert isinstance(outcome, Applied)
        assert outcome.lease_remaining_s == 60.0
        assert lab.writes() == [(offset("WSetEna"), [1])]


async def test_battery_reverts_by_itself_when_nobody_refreshes() -> None:
    async with rig() as lab:
        await lab.issue(setpoint())
        lab.now[0] += 59.9
        assert lab.battery.commanded_kw() == 3.0
        lab.now[0] += 0.2
        assert lab.battery.commanded_kw() is None
        assert not (await lab.adapter.read_back("bat-1")).active


async def test_release_returns_the_battery_to_its_own_behaviour() -> None:
    async with rig() as lab:
        await lab.issue(setpoint())
        released = await lab.adapter.release("bat-1", order_id="ord_1", revision=0)
        assert isinstance(released, Applied)
        assert lab.battery.commanded_kw() is None


async def test_bounds_and_time_are_checked_before_the_wire() -> None:
    async with rig() as lab:
        assert isinstance(await lab.issue(setpoint(5.5)), Refused)
        past = datetime.now(UTC) - timedelta(seconds=1)
        assert isinstance(await lab.issue(setpoint(valid_until=past)), Unconfirmed)
        assert lab.log == []


async def test_another_serial_number_is_refused_before_any_write() -> None:
    async with rig(serial="SN9") as lab:
        outcome = await lab.issue(setpoint())
        assert isinstance(outcome, Refused)
        assert "SN1" in outcome.reason
        assert lab.writes() == []


async def test_exception_is_refused() -> None:
    async with rig() as lab:
        lab.battery.faults.exception = 4
        assert isinstance(await lab.issue(setpoint()), Refused)


async def test_unit_that_acknowledges_and_ignores_is_refused_with_evidence() -> None:
    async with rig() as lab:
        lab.battery.faults.ignores = True
        outcome = await lab.issue(setpoint())
        assert isinstance(outcome, Refused)
        assert "active=False" in outcome.evidence


async def test_a_unit_whose_revert_timer_stands_still_is_refused_and_let_go() -> None:
    """It would hold the setpoint for ever if the gateway died."""
    async with rig() as lab:
        lab.battery.faults.no_timer = True
        outcome = await lab.issue(setpoint())
        assert isinstance(outcome, Refused)
        assert "lease_wall_s=0.0" in outcome.evidence
        assert lab.battery.commanded_kw() is None


async def test_silent_unit_is_unreachable() -> None:
    async with rig() as lab:
        lab.battery.faults.silent = True
        assert isinstance(await lab.issue(setpoint()), Unreachable)
        assert lab.log == []


async def test_lost_answer_to_a_write_is_unconfirmed_and_never_retried() -> None:
    async with rig() as lab:
        lab.battery.faults.drop_writes = True
        assert isinstance(await lab.issue(setpoint()), Unconfirmed)
        assert len(lab.writes()) == 1


@pytest.mark.parametrize("fault", ["wrong_unit", "garbage"])
async def test_answers_that_make_no_sense_are_no_answers(fault: str) -> None:
    async with rig() as lab:
        setattr(lab.battery.faults, fault, True)
        assert isinstance(await lab.issue(setpoint()), Unreachable | Unconfirmed)


async def test_late_answer_is_not_taken_for_the_next_one() -> None:
    async with rig() as lab:
        lab.battery.faults.late_s = 2 * TIMEOUT_S
        assert isinstance(await lab.issue(setpoint()), Unreachable)
        lab.battery.faults.late_s = 0.0
        lab.meter.publish(power_kw=-1.25, imported_kwh=0, exported_kwh=0)
        points = await lab.adapter._bound["meter-1"].unit.read(203)
        assert points["W"] == 1250  # this meter counts import as positive


async def test_a_silent_unit_does_not_stall_its_neighbour() -> None:
    async with rig(polling=True) as lab:
        lab.meter.publish(power_kw=-2.5, imported_kwh=0, exported_kwh=0)
        lab.battery.faults.silent = True
        await eventually(
            lambda: sum(r.series == "meter-1" for r in lab.sink.readings) >= 20,
            seconds=4, what="the neighbour's readings",
        )  # fmt: skip
        values = {r.power_kw for r in lab.sink.readings if r.series == "meter-1"}
        assert values <= {0.0, -2.5}


def test_model_704_as_the_public_definition_lays_it_out() -> None:
    """SunSpec model 704 (DER AC Controls): offsets and sizes of the points we write."""
    points = load_model(704).points
    found = {n: (points[n].offset, points[n].size, points[n].type) for n in (
        "WSetEna", "WSet", "WSetRvrt", "WSetEnaRvrt", "WSetRvrtTms", "WSetRvrtRem", "WSet_SF",
    )}  # fmt: skip
    assert found == {
        "WSetEna": (22, 1, "enum16"), "WSet": (24, 2, "int32"), "WSetRvrt": (26, 2, "int32"),
        "WSetEnaRvrt": (30, 1, "enum16"), "WSetRvrtTms": (31, 2, "uint32"),
        "WSetRvrtRem": (33, 2, "uint32"), "WSet_SF": (55, 1, "sunssf"),
    }  # fmt: skip


def test_registers_of_known_values() -> None:
    """Big-endian two's complement, scale factor applied; sentinels are no values."""
    model = load_model(704)
    assert encode(model, "WSet", -3500.0, 0) == [0xFFFF, 0xF254]
    assert encode(model, "WSet", -3500.0, 1) == [0xFFFF, 0xFEA2]
    registers = [0] * model.length
    registers[24:26] = [0xFFFF, 0xFEA2]
    registers[55] = 1
    assert decode(model, registers)["WSet"] == -3500.0
    registers[55] = 0x8000
    assert decode(model, registers)["WSet"] is None
    registers[55], registers[24:26] = 0, [0x8000, 0]
    assert decode(model, registers)["WSet"] is None


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, -(2**31)])
def test_value_that_a_point_cannot_hold_is_an_error(value: int) -> None:
    with pytest.raises(SunSpecError):
        encode(load_model(704), "WSet", float(value), 0)


@pytest.mark.parametrize(("watts", "scale"), list(itertools.product((-5000, 0, 32767), (-2, 0, 2))))
def test_what_is_encoded_decodes(watts: int, scale: int) -> None:
    model = load_model(704)
    registers = [0] * model.length
    registers[24:26] = encode(model, "WSet", watts, scale)
    registers[55] = scale & 0xFFFF
    assert decode(model, registers)["WSet"] == pytest.approx(watts, abs=10.0**scale / 2)
