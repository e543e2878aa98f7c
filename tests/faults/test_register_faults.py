"""A device with a profile on a faulty line: the outcome is the one that is true, as for SunSpec."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from adapters.modbus.adapter import ModbusAdapter, ModbusEndpoint
from adapters.modbus.lines import Transport
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import (
    Applied,
    Refused,
    SetpointOutcome,
    Unconfirmed,
    Unreachable,
)
from marketplace_core.units import Kw
from tests.harness.clocks import IdentityTime
from tests.harness.modbus import setpoint
from tests.harness.modbus_frames import Mbap, Request, Rtu
from tests.harness.modbus_server import Fault, Faulty, serving
from tests.harness.modbus_site import TIMEOUT_S, SkippingClock
from tests.harness.registers import (
    HEARTBEAT,
    MODE,
    POWER,
    READS,
    SERIAL,
    HybridInverter,
    shipped_map,
)

pytestmark = pytest.mark.process
BACKOFF_S: Final = 61.0
SILENT = [Fault.DROPPED, Fault.LATE, Fault.WRONG_UNIT, Fault.GARBAGE, Fault.RESET]
ON_A_LINE = [Fault.DROPPED, Fault.LATE, Fault.WRONG_UNIT, Fault.GARBAGE]
WRITES: Final = {"timer": HEARTBEAT, "value": POWER, "enable": MODE}
_READ_INPUT: Final = 4


class Line:
    """One hybrid inverter, and a fault that strikes once."""

    def __init__(self, transport: Transport) -> None:
        self.log: list[Mapping[str, Any]] = []
        self.inverter = HybridInverter("bat-1", log=self.log.append)
        self.server = Faulty(
            units={1: self.inverter}, framing=Mbap() if transport == "tcp" else Rtu(),
            delay_s=2 * TIMEOUT_S,
        )  # fmt: skip
        self.clock = SkippingClock()
        self.adapter: ModbusAdapter
        self.struck = False

    def strike(self, when: str, fault: Fault) -> None:
        written = 0

        def choose(request: Request) -> Fault | None:
            nonlocal written
            written += request.writes
            now = {
                "identity": request.function == _READ_INPUT,
                "read back": not request.writes and written == 4,
            }.get(when, request.writes and request.address == WRITES.get(when))
            if self.struck or not now:
                return None
            self.struck = True
            return fault

        self.server.choose = choose

    async def issue(self, power_kw: float, name: str = "spt_1") -> SetpointOutcome:
        one = setpoint(power_kw, id=name)
        (outcome,) = [found async for batch in self.adapter.issue([one]) for found in batch]
        return outcome


@asynccontextmanager
async def line(transport: Transport = "tcp") -> AsyncIterator[Line]:
    made = Line(transport)
    async with serving(made.server, transport) as where:
        profile = DeviceProfile(
            device_id="bat-1", protocol="modbus", min_kw=Kw(-5.0), max_kw=Kw(5.0),
            lease=LeaseKind.REVERT_TIMER, lease_s=60.0,
        )  # fmt: skip
        endpoint = ModbusEndpoint(
            device_id="bat-1", line=where, unit=1, role="battery", serial=SERIAL, reads=READS,
            device=shipped_map("sungrow-sh"), profile=profile,
        )  # fmt: skip
        made.adapter = ModbusAdapter(
            [endpoint], clock=made.clock, time_map=IdentityTime(), timeout_s=TIMEOUT_S
        )
        yield made
        made.adapter.close()


async def command(lab: Line, when: str, fault: Fault, outcome: type) -> None:
    """The outcome is true, no write is repeated, and the next command is well."""
    lab.strike(when, fault)
    came = await lab.issue(3.0)
    assert lab.struck
    assert type(came) is outcome, came
    if not isinstance(came, Unconfirmed):
        assert lab.inverter.commanded_kw() == (3.0 if isinstance(came, Applied) else None)
    written = [entry["address"] for entry in lab.log if entry.get("received") == "write"]
    assert len(written) == len(set(written)), "a write was repeated"
    lab.clock.skipped_s += BACKOFF_S
    if fault is Fault.LATE and isinstance(lab.server.framing, Rtu):
        # Without transaction numbers the late answer takes the place of the next one's.
        assert isinstance(await lab.issue(-2.0, "spt_2"), Unreachable)
        lab.clock.skipped_s += BACKOFF_S
    again = await lab.issue(-2.0, "spt_2")
    assert isinstance(again, Applied), again
    assert lab.inverter.commanded_kw() == again.read_back_kw == -2.0


@pytest.mark.parametrize("fault", SILENT)
async def test_no_answer_before_anything_is_written_is_unreachable(fault: Fault) -> None:
    async with line() as lab:
        await command(lab, "identity", fault, Unreachable)


@pytest.mark.parametrize("when", ["timer", "value", "enable", "read back"])
@pytest.mark.parametrize("fault", SILENT)
async def test_no_answer_to_a_write_or_its_read_back_is_unconfirmed(
    fault: Fault, when: str
) -> None:
    async with line() as lab:
        await command(lab, when, fault, Unconfirmed)


@pytest.mark.parametrize("when", ["identity", "timer", "value", "enable"])
async def test_an_exception_of_the_device_is_refused_and_nothing_is_in_force(when: str) -> None:
    async with line() as lab:
        await command(lab, when, Fault.DEVICE_FAILURE, Refused)


@pytest.mark.parametrize("transport", ["rtu", "rtu_over_tcp"])
@pytest.mark.parametrize("fault", ON_A_LINE)
async def test_a_serial_line_tells_the_same_outcomes_apart(
    fault: Fault, transport: Transport
) -> None:
    async with line(transport) as lab:
        await command(lab, "identity", fault, Unreachable)
    async with line(transport) as lab:
        await command(lab, "enable", fault, Unconfirmed)
