"""The same adapter on a serial line, on RTU over TCP, and with a foreign server at its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.framer import FramerType
from pymodbus.pdu import DecodePDU
from pymodbus.server import ModbusTcpServer

from adapters.modbus.clients import _RtuFramer, _SocketFramer
from adapters.modbus.lines import Line, SerialPort, Transport
from adapters.modbus.link import LineLink, LinkError, UnitDown
from marketplace_core.dispatch.setpoint import Applied, Unreachable
from tests.harness.clocks import eventually
from tests.harness.lab import free_port
from tests.harness.modbus import setpoint
from tests.harness.modbus_server import HOST, Connection, serving
from tests.harness.modbus_site import BATTERY, METER, METER_KW, Site, polling, site

pytestmark = pytest.mark.process
TRANSPORTS = ["tcp", "rtu", "rtu_over_tcp"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_two_units_on_one_line_are_driven_and_polled(transport: Transport) -> None:
    async with site(transport) as lab:
        async with polling(lab):
            outcome = await lab.issue(setpoint(-3.5))
            assert isinstance(outcome, Applied)
            assert lab.battery.commanded_kw() == -3.5
            await eventually(
                lambda: {r.series for r in lab.sink.readings} == {"bat-1", "meter-1"},
                what="readings of both",
            )
        values = {r.power_kw for r in lab.sink.readings if r.series == "meter-1"}
        assert values == {METER_KW}
        assert {request.unit for request in lab.server.requests} == {BATTERY, METER}


async def test_a_serial_line_is_silent_between_an_answer_and_the_next_request() -> None:
    """At 1200 baud 3.5 characters are 32 ms."""
    lab, gaps, answered = Site("rtu"), list[float](), [0.0]
    heard = lab.server.received

    def received(connection: Connection, data: bytes) -> None:
        gaps.append(time.monotonic() - answered[0])
        heard(connection, data)
        answered[0] = time.monotonic()

    lab.server.received = received  # type: ignore[method-assign]
    async with serving(lab.server, "rtu") as line:
        assert line.serial is not None
        slow = msgspec.structs.replace(
            line, serial=msgspec.structs.replace(line.serial, baudrate=1_200)
        )
        link = LineLink(slow, timeout_s=2.0, monotonic=time.monotonic)
        await asyncio.gather(*(link.read(METER, 40000, 2) for _ in range(5)))
        link.close()
    assert len(lab.server.requests) == 5
    assert all(gap >= slow.silence_s for gap in gaps[1:])


@pytest.mark.parametrize(
    "change",
    [{"device": "/dev/there-is-none"}, {"parity": "even", "stopbits": 1}],
    ids=["no such device", "a parity that a pseudo-terminal has not"],
)
async def test_a_serial_line_that_cannot_be_opened_is_unreachable(
    change: dict[str, object],
) -> None:
    async with site("rtu") as lab:
        lab.adapter.close()
        line = lab.adapter._bound["bat-1"].endpoint.on()
        assert line.serial is not None
        broken = msgspec.structs.replace(line.serial, **change)
        lab.connect(msgspec.structs.replace(line, serial=broken))
        outcome = await lab.issue(setpoint())
        assert isinstance(outcome, Unreachable)
        assert "cannot be reached" in outcome.reason


@asynccontextmanager
async def foreign(framer: FramerType) -> AsyncIterator[int]:
    """The library's own server: registers without a device behind them."""
    block = ModbusSequentialDataBlock(1, list(range(100)))
    context = ModbusServerContext(ModbusDeviceContext(hr=block), single=True)
    port = free_port()
    server = ModbusTcpServer(context, framer=framer, address=(HOST, port))
    serve = asyncio.create_task(server.serve_forever())
    try:
        await eventually(lambda: server.transport is not None, what="the foreign server")
        yield port
    finally:
        await server.shutdown()
        await serve


@pytest.mark.parametrize(
    ("transport", "framer"), [("tcp", FramerType.SOCKET), ("rtu_over_tcp", FramerType.RTU)]
)
async def test_a_foreign_server_is_understood(transport: Transport, framer: FramerType) -> None:
    async with foreign(framer) as port:
        line = Line(transport=transport, host=HOST, port=port)
        link = LineLink(line, timeout_s=5.0, monotonic=time.monotonic)
        assert await link.read(1, 10, 4) == [10, 11, 12, 13]
        await link.write(1, 20, [7, 8])
        assert await link.read(1, 19, 4) == [19, 7, 8, 22]
        with pytest.raises(LinkError) as refused:
            await link.read(1, 5000, 1)
        assert refused.value.exception_code == 2
        link.close()


@pytest.mark.parametrize("most", [2, 50, 125])
async def test_no_request_asks_for_more_registers_than_the_device_gives(most: int) -> None:
    async with site() as lab:
        link = LineLink(
            lab.adapter._bound["bat-1"].endpoint.on(), timeout_s=5.0, monotonic=time.monotonic
        )
        link.limit(METER, most)
        whole = await link.read(METER, 40000, 99)
        assert len(whole) == 99
        asked = [int.from_bytes(request.body[2:4], "big") for request in lab.server.requests]
        assert sum(asked) == 99
        assert max(asked) <= most
        link.close()


async def test_a_write_on_another_connection_than_was_checked_is_not_sent() -> None:
    async with site() as lab:
        link = LineLink(
            lab.adapter._bound["bat-1"].endpoint.on(), timeout_s=5.0, monotonic=time.monotonic
        )
        await link.read(METER, 40000, 2)
        checked = link.connections
        link.close()
        with pytest.raises(UnitDown, match="connected anew"):
            await link.write(METER, 40000, [1], connection=checked)
        assert not [request for request in lab.server.requests if request.writes]
        link.close()


def test_a_line_is_told_by_its_socket_or_its_device() -> None:
    port = SerialPort(device="/dev/ttyUSB0")
    assert Line(transport="rtu", serial=port).key == ("/dev/ttyUSB0", 0)
    assert Line(host="10.0.0.1", port=502).key == ("10.0.0.1", 502)
    assert Line(transport="rtu", serial=port).name == "/dev/ttyUSB0"


@pytest.mark.parametrize("noise", [b"\xff", b"\x08", b"\xff\xff\x00\x00\x00", b"\x01"])
def test_noise_without_end_is_thrown_away_and_the_answer_before_it_is_found(noise: bytes) -> None:
    framer = _RtuFramer(DecodePDU(False))
    answer = bytes.fromhex("110306022b00000064c8ba")
    used, found = framer.handleFrame(noise * 60_000, 0x11, 0)
    assert (found, used >= 60_000 * len(noise) - 512) == (None, True)
    used, found = framer.handleFrame(answer + noise * 60_000, 0x11, 0)
    assert found is not None
    assert (used, found.registers) == (len(answer), [0x022B, 0, 0x64])


def test_thousands_of_frames_that_nobody_waits_for_are_thrown_away() -> None:
    framer = _SocketFramer(DecodePDU(False))
    answer = bytes.fromhex("00070000000511030200 05".replace(" ", ""))
    stray = bytes.fromhex("00060000000511030200 09".replace(" ", ""))
    used, found = framer.handleFrame(stray * 3 + answer, 0x11, 7)
    assert found is not None
    assert (used, found.registers) == (4 * len(answer), [5])
    assert framer.handleFrame(stray * 20_000, 0x11, 7) == (20_000 * len(stray), None)
    used, found = framer.handleFrame(answer + stray * 20_000, 0x11, 7)
    assert (used, found is not None) == (len(answer), True)
