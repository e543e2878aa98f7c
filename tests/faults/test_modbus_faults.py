"""Every way an answer can go wrong, at every step of a command, has the outcome that is true.

docs/reliability.md has the same table in words.
"""

from __future__ import annotations

import asyncio

import pytest

from adapters.modbus.lines import Transport
from marketplace_core.dispatch.setpoint import Applied, Refused, Unconfirmed, Unreachable
from tests.harness.clocks import eventually
from tests.harness.modbus import setpoint
from tests.harness.modbus_frames import Request
from tests.harness.modbus_server import Fault
from tests.harness.modbus_site import BATTERY, METER_KW, Once, Site, polling, site

pytestmark = pytest.mark.process
BACKOFF_S = 61.0
"""Longer than any back-off of a unit."""
SILENT = [
    Fault.DROPPED, Fault.DELAYED, Fault.LATE, Fault.WRONG_UNIT, Fault.WRONG_TRANSACTION,
    Fault.GARBAGE, Fault.TRUNCATED, Fault.HALF_CLOSED, Fault.RESET,
]  # fmt: skip
ON_A_LINE = [
    Fault.DROPPED, Fault.DELAYED, Fault.LATE, Fault.WRONG_UNIT, Fault.GARBAGE, Fault.TRUNCATED
]  # fmt: skip
"""A serial line has no transaction numbers and no connection to close."""
NO = [Fault.ILLEGAL_VALUE, Fault.DEVICE_FAILURE, Fault.BUSY]


async def command(lab: Site, when: str, fault: Fault, outcome: type) -> None:
    """The outcome is the one that is true; the neighbour and the next command are well."""
    lab.server.choose = struck = Once(lab, when, fault)
    came = await lab.issue(setpoint(3.0))
    assert struck.struck
    assert type(came) is outcome, came
    in_force = lab.battery.commanded_kw()
    if not isinstance(came, Unconfirmed):
        assert in_force == (3.0 if isinstance(came, Applied) else None)
    assert len(lab.written()) == len(set(lab.written())), "a write was repeated"
    assert await lab.meter_kw() == METER_KW
    lab.clock.skipped_s += BACKOFF_S
    again = await lab.issue(setpoint(-2.0, id="spt_2"))
    assert isinstance(again, Applied), again
    assert lab.battery.commanded_kw() == again.read_back_kw == -2.0


@pytest.mark.parametrize("fault", SILENT)
async def test_no_answer_before_anything_is_written_is_unreachable(fault: Fault) -> None:
    async with site() as lab:
        await command(lab, "identity", fault, Unreachable)


@pytest.mark.parametrize("when", ["first write", "enable", "read back"])
@pytest.mark.parametrize("fault", SILENT)
async def test_no_answer_to_a_write_or_its_read_back_is_unconfirmed(
    fault: Fault, when: str
) -> None:
    async with site() as lab:
        await command(lab, when, fault, Unconfirmed)


@pytest.mark.parametrize("when", ["identity", "first write", "enable"])
@pytest.mark.parametrize("fault", NO)
async def test_an_exception_of_the_unit_is_refused_and_nothing_is_in_force(
    fault: Fault, when: str
) -> None:
    async with site() as lab:
        await command(lab, when, fault, Refused)


@pytest.mark.parametrize("fault", NO)
async def test_an_exception_at_the_read_back_is_unconfirmed(fault: Fault) -> None:
    async with site() as lab:
        await command(lab, "read back", fault, Unconfirmed)


@pytest.mark.parametrize(
    ("when", "fault", "outcome"),
    [
        ("identity", Fault.NO_PATH, Unreachable),
        ("identity", Fault.NO_ANSWER, Unreachable),
        ("first write", Fault.NO_PATH, Unreachable),
        ("first write", Fault.NO_ANSWER, Unconfirmed),
        ("enable", Fault.NO_PATH, Unconfirmed),
        ("enable", Fault.NO_ANSWER, Unconfirmed),
    ],
)
async def test_a_gateway_that_reaches_nobody_says_what_it_knows(
    when: str, fault: Fault, outcome: type
) -> None:
    async with site() as lab:
        await command(lab, when, fault, outcome)


@pytest.mark.parametrize("when", ["first write", "enable"])
async def test_a_write_that_is_only_acknowledged_is_unconfirmed(when: str) -> None:
    async with site() as lab:
        await command(lab, when, Fault.ACKNOWLEDGE, Unconfirmed)


async def test_a_new_value_under_an_old_enable_is_not_called_refused() -> None:
    """The unit holds one setpoint, takes the value of the next and refuses to be enabled again."""
    async with site() as lab:
        assert isinstance(await lab.issue(setpoint(3.0)), Applied)
        lab.server.choose = Once(lab, "enable", Fault.DEVICE_FAILURE)
        came = await lab.issue(setpoint(-1.0, id="spt_2"))
        assert lab.battery.commanded_kw() == -1.0
        assert isinstance(came, Unconfirmed), came


@pytest.mark.parametrize("transport", ["rtu", "rtu_over_tcp"])
@pytest.mark.parametrize("fault", ON_A_LINE)
async def test_a_serial_line_tells_the_same_outcomes_apart(
    fault: Fault, transport: Transport
) -> None:
    async with site(transport) as lab:
        await command(lab, "identity", fault, Unreachable)
    async with site(transport) as lab:
        await command(lab, "enable", fault, Unconfirmed)


@pytest.mark.parametrize("transport", ["tcp", "rtu", "rtu_over_tcp"])
async def test_late_answers_one_after_the_other_are_never_taken_for_the_next(
    transport: Transport,
) -> None:
    """A unit that is always one answer behind: it is not believed once."""
    async with site(transport) as lab:
        unit = lab.adapter._bound["meter-1"].unit
        assert await lab.meter_kw() == METER_KW

        def late(request: Request) -> Fault | None:
            return Fault.LATE if request.unit == unit.number else None

        lab.server.choose = late
        for power_kw in (1.0, 2.0, 3.0, 4.0):
            lab.meter.publish(power_kw=power_kw, imported_kwh=0, exported_kwh=0)
            lab.clock.skipped_s += BACKOFF_S
            with pytest.raises(Exception, match=r"no answer|instead of|not asked"):
                await lab.meter_kw()
        lab.server.choose = lambda _request: None
        for _ in range(3):
            lab.clock.skipped_s += BACKOFF_S
            try:
                assert await lab.meter_kw() == 4.0
            except Exception:  # noqa: BLE001, S112 - what came late is being thrown away
                continue
            break
        else:
            raise AssertionError("it never recovered")


async def test_a_neighbour_is_polled_on_while_a_unit_answers_nothing() -> None:
    async with site() as lab:
        lab.server.choose = lambda r: Fault.DROPPED if r.unit == BATTERY else None
        async with polling(lab):
            await eventually(
                lambda: sum(r.series == "meter-1" for r in lab.sink.readings) >= 10,
                what="the neighbour's readings",
            )
        assert not [r for r in lab.sink.readings if r.series == "bat-1"]


async def test_a_command_waits_for_at_most_the_request_that_is_on_the_wire() -> None:
    """Twenty polls wait when the command comes: one of them is on the wire, the rest come after."""
    async with site(telemetry_s=3600.0) as lab:
        assert isinstance(await lab.issue(setpoint(1.0)), Applied)  # identity is known
        await lab.meter_kw()
        lab.server.requests.clear()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(lab.meter_kw())
            await asyncio.sleep(0)
            tasks.create_task(lab.issue(setpoint(2.0, id="spt_2")))
        units = [request.unit for request in lab.server.requests]
        command_of = [n for n, unit in enumerate(units) if unit == BATTERY]
        assert len(units) == 20 + len(command_of)
        assert command_of == list(range(1, 1 + len(command_of)))


async def test_a_command_among_polls_at_full_speed_waits_for_one_request_at_most() -> None:
    """Polls are due as soon as they are done: the line is never idle, and yet the command's."""
    async with site(telemetry_s=1e-6) as lab:
        assert isinstance(await lab.issue(setpoint(1.0)), Applied)  # identity is known
        async with polling(lab):
            for number in range(2, 7):
                heard = len(lab.server.requests)
                await eventually(lambda: len(lab.server.requests) > heard + 20, what="polls")  # noqa: B023 - used at once
                before = len(lab.server.requests)
                came = await lab.issue(setpoint(float(number % 5), id=f"spt_{number}"))
                assert isinstance(came, Applied)
                command = [
                    n for n, request in enumerate(lab.server.requests)
                    if n >= before and lab.controls(request)
                ]  # fmt: skip
                assert command[0] <= before + 1
                assert command == list(range(command[0], command[0] + len(command)))
