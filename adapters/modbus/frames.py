"""Modbus TCP frames and the few PDUs that are used: bytes to values and back, no I/O.

MODBUS Messaging on TCP/IP Implementation Guide V1.0b, section 3.1.3: a frame is transaction,
protocol (0), length of what follows, unit, PDU. MODBUS Application Protocol V1.1b3: reading
holding registers is section 6.3, input registers 6.4, writing one 6.6, several 6.12, exceptions
are section 7; a PDU has at most 253 bytes (section 4.1).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from marketplace_core.errors import FlexwayError

READ: Final = 3
READ_INPUT: Final = 4
WRITE_ONE: Final = 6
WRITE: Final = 16
REFUSED: Final = 0x80
"""Set in the function code of a refusal."""
_HEADER: Final = struct.Struct(">HHHB")
_HEADER_BYTES: Final = 7
_UNPACK: Final = _HEADER.unpack_from
_COUNTED: Final = 6
"""Bytes of a header up to and with the length."""
_SHORTEST, _LONGEST = 2, 1 + 253
"""What a length may say: unit and function code at least, unit and the longest PDU at most."""
_FIELDS: Final = struct.Struct(">BHH")
_REFUSAL_BYTES: Final = 2


class FrameError(FlexwayError):
    """Bytes that are no Modbus frame: nothing that follows them can be trusted."""

    def __init__(self, message: str, evidence: bytes) -> None:
        super().__init__(message)
        self.evidence = evidence


Frame = tuple[int, int, bytes]
"""Transaction, unit, and PDU: function code and data, one byte at least."""


def join(transaction: int, unit: int, pdu: bytes) -> bytes:
    """A frame as bytes."""
    return _HEADER.pack(transaction, 0, len(pdu) + 1, unit) + pdu


def split(data: bytes) -> tuple[list[Frame], bytes]:
    """Whole frames in their order, and the bytes of one that has begun.

    FrameError as soon as a header cannot be one. What is left is shorter than a frame.
    """
    frames: list[Frame] = []
    start, size = 0, len(data)
    while size - start >= _HEADER_BYTES:
        transaction, protocol, length, unit = _UNPACK(data, start)
        if protocol or not _SHORTEST <= length <= _LONGEST:
            evidence = data[start : start + _HEADER_BYTES]
            raise FrameError(f"no Modbus frame begins with {evidence.hex()}", evidence)
        end = start + _COUNTED + length
        if end > size:
            break
        frames.append((transaction, unit, data[start + _HEADER_BYTES : end]))
        if end == size:
            return frames, b""
        start = end
    return frames, data[start:]


def read_request(address: int, count: int, function: int = READ) -> bytes:
    """Ask for registers: holding ones, or with READ_INPUT input ones."""
    return _FIELDS.pack(function, address, count)


def write_one_request(address: int, value: int) -> bytes:
    """Write one holding register; the answer is the same bytes."""
    return _FIELDS.pack(WRITE_ONE, address, value)


def write_request(address: int, values: Sequence[int]) -> bytes:
    """Write holding registers."""
    count = len(values)
    return _FIELDS.pack(WRITE, address, count) + struct.pack(f">B{count}H", 2 * count, *values)


def refusal(pdu: bytes) -> int:
    """The exception code of a refusal; 0 for any other answer."""
    return pdu[1] if len(pdu) == _REFUSAL_BYTES and pdu[0] & REFUSED else 0


def data_read(pdu: bytes, count: int, function: int = READ) -> bytes | None:
    """Two bytes of each register that was asked for; None when it answers something else."""
    if len(pdu) == 2 + 2 * count and pdu[0] == function and pdu[1] == 2 * count:
        return pdu[2:]
    return None


def confirms(pdu: bytes, address: int, count: int) -> bool:
    """Whether it says that the write of so many registers was taken."""
    return pdu == _FIELDS.pack(WRITE, address, count)
