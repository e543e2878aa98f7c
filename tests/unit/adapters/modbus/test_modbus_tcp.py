"""Our Modbus TCP connection, against a server that says exactly what it is told to say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from pymodbus.client import AsyncModbusTcpClient

from adapters.modbus.batch import Batch
from adapters.modbus.frames import join, read_request, split
from adapters.modbus.link import LinkError, ModbusLink
from adapters.modbus.tcp import TcpClient
from firmware_sim.servers.modbus import BatteryUnit, ModbusServer
from tests.harness.clocks import eventually

pytestmark = pytest.mark.process
HOST, UNIT = "127.0.0.1", 1
TIMEOUT_S = 5.0
"""So long that a test which waits for it is seen to do so."""
Answer = Callable[[int], list[bytes | None]]
VALUE = bytes.fromhex("0302002a")
"""One register: 42."""


@dataclass
class Script:
    """What the server writes for each request, in turn; None ends the connection."""

    answers: list[Answer]
    heard: list[tuple[int, int, bytes]] = field(default_factory=list)
    opened: list[asyncio.Transport] = field(default_factory=list)
    port: int = 0


class Player(asyncio.Protocol):
    def __init__(self, script: Script) -> None:
        self._script = script
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._script.opened.append(transport)

    def data_received(self, data: bytes) -> None:
        frames, self._rest = split(self._rest + data)
        for frame in frames:
            self._script.heard.append(frame)
            parts = self._script.answers.pop(0)(frame[0]) if self._script.answers else []
            for number, part in enumerate(parts):  # each a segment of its own
                asyncio.get_running_loop().call_later(0.005 * number, self._write, part)

    def _write(self, part: bytes | None) -> None:
        if part is None:
            self._transport.close()
        else:
            self._transport.write(part)


@asynccontextmanager
async def scripted(*answers: Answer) -> AsyncIterator[Script]:
    script = Script(list(answers))
    server = await asyncio.get_running_loop().create_server(lambda: Player(script), HOST, 0)
    script.port = server.sockets[0].getsockname()[1]
    async with server:
        yield script
        for transport in script.opened:
            transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def linked(
    *answers: Answer, timeout_s: float = TIMEOUT_S
) -> AsyncIterator[tuple[ModbusLink, Script]]:
    async with scripted(*answers) as script:
        link = ModbusLink(HOST, script.port, timeout_s=timeout_s, monotonic=lambda: 0.0)
        yield link, script
        link.close()


def good(number: int) -> list[bytes | None]:
    return [join(number, UNIT, VALUE)]


def nothing(_number: int) -> list[bytes | None]:
    return []


async def at_once(link: ModbusLink) -> str:
    """What a read fails with, long before its time is over."""
    began = time.monotonic()
    with pytest.raises(LinkError) as failed:
        await link.read(UNIT, 0, 1)
    assert time.monotonic() - began < TIMEOUT_S
    return str(failed.value)


async def test_an_answer_in_single_bytes_is_put_together() -> None:
    def torn(number: int) -> list[bytes | None]:
        return [bytes([byte]) for byte in join(number, UNIT, VALUE)]

    async with linked(torn) as (link, _):
        assert await link.read(UNIT, 0, 1) == [42]


async def test_what_answers_an_earlier_number_is_passed_over() -> None:
    def late_and_good(number: int) -> list[bytes | None]:
        late = join(number - 1, UNIT, bytes.fromhex("03020063"))
        return [late + join(number, UNIT, VALUE) + late]

    async with linked(late_and_good, good) as (link, script):
        assert await link.read(UNIT, 0, 1) == [42]
        assert await link.read(UNIT, 0, 1) == [42]
        assert len(script.opened) == 1


@pytest.mark.parametrize(
    ("unit", "pdu", "words"),
    [
        (2, "0302002a", "unit 2"),
        (1, "0402002a", "function 4"),
        (1, "8402", "function 4"),
        (1, "030400010002", "2 registers came instead of 1"),
        (1, "0302002a00", "came instead of 1"),
        (1, "0304002a", "came instead of 1"),
        (1, "830200", "came instead of 1"),
        (1, "03", "0 registers came"),
    ],
)
async def test_an_answer_to_something_else_fails_at_once_and_costs_the_connection(
    unit: int, pdu: str, words: str
) -> None:
    async with linked(lambda n: [join(n, unit, bytes.fromhex(pdu))]) as (link, _):
        assert words in await at_once(link)
        assert link._client is None


async def test_bytes_that_are_no_frame_end_the_connection_at_once() -> None:
    async with linked(lambda _: [b"\xde\xad\xbe\xef" * 4]) as (link, _):
        assert "no Modbus frame" in await at_once(link)


async def test_a_server_that_hangs_up_is_noticed_at_once() -> None:
    async with linked(lambda _: [None]) as (link, _):
        assert "ended" in await at_once(link)


async def test_an_answer_before_the_end_of_the_connection_counts() -> None:
    async with linked(lambda n: [join(n, UNIT, VALUE), None], good) as (link, script):
        assert await link.read(UNIT, 0, 1) == [42]
        await eventually(lambda: not link._client.connected, what="the end")  # type: ignore[union-attr]
        assert await link.read(UNIT, 0, 1) == [42]
        assert len(script.opened) == link.connections == 2


async def test_the_answer_to_a_request_that_was_given_up_is_not_taken_for_the_next() -> None:
    """On the same connection: a cancelled request costs nobody else anything."""
    stale: list[int] = []

    def keep(number: int) -> list[bytes | None]:
        stale.append(number)
        return []

    def stale_first(number: int) -> list[bytes | None]:
        return [join(stale[0], UNIT, bytes.fromhex("03020063")), join(number, UNIT, VALUE)]

    async with linked(keep, stale_first) as (link, script):
        given_up = asyncio.create_task(link.read(UNIT, 0, 1))
        await eventually(lambda: bool(script.heard), what="the request")
        given_up.cancel()
        assert await link.read(UNIT, 0, 1) == [42]
        assert len(script.opened) == 1


async def test_numbers_go_on_over_a_new_connection_and_begin_again_after_the_last() -> None:
    async with scripted(good, good, good) as script:
        numbers = 0xFFFD
        for _ in range(3):
            client = TcpClient(HOST, script.port, TIMEOUT_S, Batch(), numbers)
            assert await client.connect()
            assert await client.exchange(UNIT, read_request(0, 1)) == VALUE
            client.close()
            numbers = client.transaction
        assert [number for number, _, _ in script.heard] == [0xFFFE, 0xFFFF, 0]


async def test_each_request_has_the_whole_time_although_one_timer_serves_them_all() -> None:
    """The timer was set for the first; the fourth is sent before that one's time is over."""
    timeout_s = 0.4
    async with linked(good, good, good, nothing, timeout_s=timeout_s) as (link, _):
        for _ in range(3):
            await link.read(UNIT, 0, 1)
            await asyncio.sleep(timeout_s / 4)
        began = time.monotonic()
        with pytest.raises(LinkError, match=r"nothing came within 0\.4 s"):
            await link.read(UNIT, 0, 1)
        assert time.monotonic() - began >= timeout_s * 0.9  # the loop counts milliseconds


async def test_what_was_not_sent_when_the_connection_is_closed_is_never_sent() -> None:
    async with scripted(good) as script:
        client = TcpClient(HOST, script.port, TIMEOUT_S, Batch())
        assert await client.connect()
        answer = client.exchange(UNIT, read_request(0, 1))
        client.close()
        with pytest.raises(Exception, match="ended"):
            await answer
        await asyncio.sleep(0.05)
        assert script.heard == []


async def test_many_connections_of_one_batch_each_get_their_own_answers() -> None:
    def own(value: int) -> Answer:
        return lambda number: [join(number, UNIT, bytes([3, 2, 0, value]))]

    batch = Batch()
    async with scripted(*(own(value) for value in range(50))) as script:
        clients = [TcpClient(HOST, script.port, TIMEOUT_S, batch) for _ in range(50)]
        for client in clients:
            await client.connect()
        answers = await asyncio.gather(*(c.exchange(UNIT, read_request(0, 1)) for c in clients))
        assert sorted(answer[3] for answer in answers) == list(range(50))
        for client in clients:
            client.close()


async def test_nobody_to_connect_to_is_said() -> None:
    async with scripted() as script:
        pass
    link = ModbusLink(HOST, script.port, timeout_s=TIMEOUT_S, monotonic=time.monotonic)
    assert "cannot be reached" in await at_once(link)


async def test_the_library_and_we_read_the_same_of_a_simulated_unit() -> None:
    """A foreign client at our server: what we take for right is not only our own reading."""
    unit = BatteryUnit("bat-1", serial="SN1", capacity_kwh=6.4)
    async with ModbusServer({UNIT: unit}) as server:
        library = AsyncModbusTcpClient(HOST, port=server.port, retries=0, reconnect_delay=0)
        assert await library.connect()
        link = ModbusLink(HOST, server.port, timeout_s=TIMEOUT_S, monotonic=time.monotonic)
        theirs = await library.read_holding_registers(40_000, count=100, device_id=UNIT)
        assert theirs.registers == await link.read(UNIT, 40_000, 100)
        control = unit.controls().start + 10
        await library.write_registers(control, [7, 8], device_id=UNIT)
        assert await link.read(UNIT, control, 2) == [7, 8]
        await link.write(UNIT, control, [9, 10])
        theirs = await library.read_holding_registers(control, count=2, device_id=UNIT)
        assert theirs.registers == [9, 10]
        refused = await library.read_holding_registers(0, count=1, device_id=UNIT)
        with pytest.raises(LinkError) as error:
            await link.read(UNIT, 0, 1)
        assert refused.exception_code == error.value.exception_code == 2
        library.close()
        link.close()
