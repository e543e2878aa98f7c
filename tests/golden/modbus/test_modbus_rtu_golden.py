"""RTU frames as the specification words them, byte by byte.

Sources: MODBUS over Serial Line, Specification and Implementation Guide V1.02: section 2.5.1.1
(silence), 2.5.1.2 and appendix B (checksum: the message 02 07 has 0x1241, sent 41 12). MODBUS
Application Protocol V1.1b3: section 6.3 (read of registers 108 to 110, answer 02 2B 00 00 00 64)
and 6.12 (write of registers 2 and 3, address 1 on the wire, with 00 0A and 01 02).
"""

from __future__ import annotations

import time

import pytest

from adapters.modbus.lines import Line, SerialPort
from adapters.modbus.link import LineLink
from tests.harness.modbus_frames import Request, Rtu, crc16
from tests.harness.modbus_server import Connection, Faulty, serving

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    ("message", "checksum"),
    [
        ("0207", "4112"),
        ("1103006b0003", "7687"),
        ("110306022b00000064", "c8ba"),
        ("11100001000204000a0102", "c6f0"),
        ("", "ffff"),
    ],
)
def test_checksum(message: str, checksum: str) -> None:
    assert crc16(bytes.fromhex(message)).hex() == checksum


class Recorder(Faulty):
    """Answers each request with the next of the frames it is given."""

    def __init__(self, *answers: str) -> None:
        super().__init__(units={}, framing=Rtu(), delay_s=0.0)
        self.answers = [bytes.fromhex(answer) for answer in answers]
        self.heard = b""

    def received(self, connection: Connection, data: bytes) -> None:
        self.heard += data
        request, rest = Rtu().split(self.heard)
        if isinstance(request, Request) and not rest:
            connection.send(self.answers.pop(0))


@pytest.mark.parametrize("transport", ["rtu", "rtu_over_tcp"])
async def test_a_read_and_its_answer(transport: str) -> None:
    line_end = Recorder("110306022b00000064c8ba")
    async with serving(line_end, transport) as line:
        link = LineLink(line, timeout_s=5.0, monotonic=time.monotonic)
        assert await link.read(0x11, 0x6B, 3) == [0x022B, 0, 0x64]
        assert line_end.heard.hex() == "1103006b00037687"
        link.close()


@pytest.mark.parametrize("transport", ["rtu", "rtu_over_tcp"])
async def test_a_write_and_its_answer(transport: str) -> None:
    line_end = Recorder("1110000100021298")
    async with serving(line_end, transport) as line:
        link = LineLink(line, timeout_s=5.0, monotonic=time.monotonic)
        await link.write(0x11, 1, [0x000A, 0x0102])
        assert line_end.heard.hex() == "11100001000204000a0102c6f0"
        link.close()


@pytest.mark.parametrize(
    ("baudrate", "parity", "stopbits", "milliseconds"),
    [
        (9_600, "even", 1, 4.0104),  # 3.5 characters of 11 bits
        (19_200, "even", 1, 2.0052),
        (19_200, "none", 2, 2.0052),
        (19_200, "none", 1, 1.8229),
        (38_400, "even", 1, 1.75),  # fixed above 19200 baud
        (115_200, "odd", 1, 1.75),
    ],
)
def test_silence_between_frames(
    baudrate: int, parity: str, stopbits: int, milliseconds: float
) -> None:
    serial = SerialPort(device="x", baudrate=baudrate, parity=parity, stopbits=stopbits)
    silence = Line(transport="rtu", serial=serial).silence_s
    assert silence * 1000 == pytest.approx(milliseconds, abs=1e-4)
