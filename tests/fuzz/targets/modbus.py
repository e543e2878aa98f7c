"""Modbus: the registers of SunSpec models, the chain of models, and frames of either kind.

Frames on the line are the library's business, but for what `clients` puts in front of it: both are
fed here, because what a device sends passes through both.
"""

from __future__ import annotations

import json
import logging
import random
import struct
from typing import Any, Final

from pymodbus.exceptions import ModbusException
from pymodbus.pdu import DecodePDU

from adapters.modbus.clients import _RtuFramer, _SocketFramer
from adapters.modbus.sunspec import (
    SunSpecError,
    decode,
    decode_raw,
    encode,
    layout,
    load_model,
    scale_of,
    walk,
)
from tests.fuzz.corpus import load
from tests.fuzz.judge import Target
from tests.golden.sunspec.test_sunspec_golden import VECTORS
from tests.harness.modbus_frames import crc16

MODELS: Final = tuple(int(file.stem.removeprefix("model_")) for file in VECTORS)
_DECODER: Final = DecodePDU(False)
_FRAMERS: Final = (_SocketFramer(_DECODER), _RtuFramer(_DECODER))
_UNIT: Final = 1
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


def registers(frame: bytes) -> bool:
    """A block of registers that says which model it is: decoded; one point written back."""
    words = _words(frame)
    if len(words) < 2:
        return False
    number = words[0] if words[0] in MODELS else MODELS[words[0] % len(MODELS)]
    model = load_model(number)
    values = decode(model, words)
    if not values:
        return False
    name = list(values)[words[1] % len(values)]
    value, point = values[name], layout(model, words).points[name]
    held = words[point.offset : point.offset + point.size]
    raw = decode_raw(point, held)
    if isinstance(value, int | float) and isinstance(raw, int | float):
        shown = scale_of(model, name, words)
        if abs(raw) < 2**53 or (shown or 0) >= 0 or isinstance(raw, float):
            # what a double cannot hold is not written back to the bit
            assert encode(model, name, value, shown) == held, (number, name, value, shown)
    return True


def chain(frame: bytes) -> bool:
    """The walk over a unit's memory, which begins at one of the base addresses."""
    words = _words(frame)
    base = (40_000, 50_000, 0)[len(words) % 3]
    steps = walk()
    ask = next(steps)
    while True:
        address, count = ask
        there = words[address - base : address - base + count] if address >= base else []
        try:
            ask = steps.send(there if len(there) == count else None)
        except StopIteration as done:
            return bool(done.value.models)


def frames(frame: bytes) -> bool:
    """A stream from a device on TCP and on RTU: an answer, or an error of the library's own."""
    understood = 0
    for framer in _FRAMERS:
        try:
            used, found = framer.handleFrame(frame, _UNIT, 7)
        except ModbusException:
            continue
        assert 0 <= used <= len(frame)
        understood += found is not None
    return understood > 0


def some_registers(rng: random.Random) -> bytes:
    model = load_model(rng.choice(MODELS))
    words = [rng.choice((0, 1, 2, 3, 0x8000, 0xFFFF, rng.getrandbits(16)))
             for _ in range(model.length + rng.randrange(80))]  # fmt: skip
    words[:2] = [model.id, max(0, len(words) - 2)]
    for point in layout(model, words).points.values():
        if point.type == "sunssf":
            words[point.offset] = rng.randrange(-10, 11) & 0xFFFF
    return struct.pack(f">{len(words)}H", *words)


def some_chain(rng: random.Random) -> bytes:
    words = [0x5375, 0x6E53]
    for _ in range(rng.randrange(8)):
        length = rng.randrange(20)
        words += [rng.choice(MODELS), length, *(rng.getrandbits(16) for _ in range(length))]
    words += [0xFFFF, 0]
    return struct.pack(f">{len(words)}H", *words)


def some_frame(rng: random.Random) -> bytes:
    count = rng.randrange(1, 30)
    pdu = rng.choice(
        (
            bytes([3, 2 * count]) + rng.randbytes(2 * count),
            struct.pack(">BHH", 16, 40_000, count),
            bytes([0x83, rng.randrange(1, 12)]),
            bytes([0x90, 4]),
        )
    )
    if rng.random() < 0.5:
        return struct.pack(">HHHB", 7, 0, len(pdu) + 1, _UNIT) + pdu
    return bytes([_UNIT]) + pdu + crc16(bytes([_UNIT]) + pdu)


def _words(frame: bytes) -> list[int]:
    count = len(frame) // 2
    return list(struct.unpack(f">{count}H", frame[: 2 * count]))


def _golden() -> list[bytes]:
    found: list[dict[str, Any]] = [json.loads(file.read_text(encoding="utf-8")) for file in VECTORS]
    return [bytes.fromhex(one["registers"]) for one in found]


TARGETS = (
    Target(
        "sunspec",
        registers,
        (SunSpecError,),
        share=6,
        make=some_registers,
        seeds=[*_golden(), *load("sunspec")],
        tokens=(b"\xff\xf6", b"\x00\x0a", b"\xff\xfe", *(struct.pack(">H", n) for n in MODELS)),
    ),
    Target(
        "sunspec_chain",
        chain,
        (SunSpecError,),
        share=6,
        make=some_chain,
        seeds=[b"SunS\xff\xff", *load("sunspec_chain")],
        tokens=(b"SunS", b"\xff\xff\x00\x00", b"\x00\x67\x00\x32", b"\x00\x01\x00\x42"),
    ),
    Target(
        "modbus_frames",
        frames,
        (),
        share=6,
        make=some_frame,
        seeds=[
            bytes.fromhex(text)
            for text in (
                "000700000009010306022b00000064",
                "0103022b0102",
                "000700000006011000010002",
                "00070000000301830b",
                "018302c0f1",
            )
        ]
        + load("modbus_frames"),
        tokens=(
            b"\x00\x07\x00\x00\x00\x03\x01\x83",
            b"\x01\x03",
            b"\x01\x10",
            b"\x01\x83\x02\xc0\xf1",
            b"\x2b\x0e",
            b"\x14",
            b"\x17",
            b"\x18",
            b"\x08",
        ),
    ),
)
