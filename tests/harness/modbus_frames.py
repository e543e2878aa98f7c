"""Modbus frames written from the specifications, for servers that share nothing with the adapter.

MODBUS over Serial Line V1.02: an RTU frame is address, PDU and CRC, the low byte first
(section 2.5.1.2 and appendix B). MODBUS Messaging on TCP/IP V1.0b: the MBAP header is
transaction, protocol 0, length and unit (section 3.1.3).
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

READ: Final = 3
WRITE_ONE: Final = 6
WRITE_MANY: Final = 16


@dataclass(frozen=True)
class Request:
    unit: int
    function: int
    body: bytes
    """After the function code."""
    transaction: int = 0

    @property
    def address(self) -> int:
        return int.from_bytes(self.body[:2], "big")

    @property
    def writes(self) -> bool:
        return self.function in {WRITE_ONE, WRITE_MANY}


def crc16(data: bytes) -> bytes:
    """Polynomial A001 on a register of ones, bit by bit; the low byte goes first."""
    register = 0xFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            carry = register & 1
            register >>= 1
            if carry:
                register ^= 0xA001
    return bytes([register & 0xFF, register >> 8])


class Framing(ABC):
    @abstractmethod
    def split(self, buffer: bytes) -> tuple[Request | None, bytes]:
        """The first whole request, if there is one, and what is left."""

    @abstractmethod
    def frame(self, request: Request, unit: int, transaction: int, pdu: bytes) -> bytes:
        """An answer to a request, in the name of a unit."""


class Mbap(Framing):
    def split(self, buffer: bytes) -> tuple[Request | None, bytes]:
        if len(buffer) < 8:
            return None, buffer
        transaction, _, length, unit, function = struct.unpack(">HHHBB", buffer[:8])
        end = 6 + length
        if len(buffer) < end:
            return None, buffer
        return Request(unit, function, buffer[8:end], transaction), buffer[end:]

    def frame(self, request: Request, unit: int, transaction: int, pdu: bytes) -> bytes:
        return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


class Rtu(Framing):
    def split(self, buffer: bytes) -> tuple[Request | None, bytes]:
        if len(buffer) < 8:
            return None, buffer
        end = 9 + buffer[6] if buffer[1] == WRITE_MANY else 8
        if len(buffer) < end:
            return None, buffer
        whole = buffer[:end]
        if crc16(whole[:-2]) != whole[-2:]:
            raise AssertionError(f"the client sent a frame with a wrong checksum: {whole.hex()}")
        return Request(whole[0], whole[1], whole[2:-2]), buffer[end:]

    def frame(self, request: Request, unit: int, transaction: int, pdu: bytes) -> bytes:
        body = bytes([unit]) + pdu
        return body + crc16(body)
