"""Registers of every model that Flexway uses, as an independent codec reads them.

The vectors beside this file name their source: the SunSpec Alliance's model definition and the
release of pysunspec2 whose own decoder gave the values. The bytes in this file are worked out
by hand from the SunSpec Device Information Model Specification 1.1, section "Point Types".
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from adapters.modbus.sunspec import SunSpecError, decode, encode, layout, load_model, scale_of

VECTORS = sorted(Path(__file__).parent.glob("model_*.json"))


def vector(file: Path) -> tuple[dict[str, Any], list[int]]:
    document = json.loads(file.read_text(encoding="utf-8"))
    return document, [int(word, 16) for word in document["registers"].split()]


def test_every_model_that_is_used_has_its_vector() -> None:
    numbers = {int(file.stem.removeprefix("model_")) for file in VECTORS}
    wanted = {1, 101, 102, 103, 111, 112, 113, *range(120, 125), 160, 201, 202, 203, 204}
    assert numbers == wanted | set(range(701, 716)) | {801, 802, 803}


@pytest.mark.parametrize("file", VECTORS, ids=lambda file: file.stem)
def test_registers_decode_as_the_independent_codec_reads_them(file: Path) -> None:
    document, registers = vector(file)
    found = decode(load_model(document["model"]), registers)
    assert list(found) == list(document["values"])
    for name, value in document["values"].items():
        wanted = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
        assert found[name] == wanted, name


@pytest.mark.parametrize("file", VECTORS, ids=lambda file: file.stem)
def test_values_encode_to_the_registers_they_came_from(file: Path) -> None:
    document, registers = vector(file)
    model = load_model(document["model"])
    for name, point in layout(model, registers).points.items():
        value = document["values"].get(name)
        if value is not None:
            words = registers[point.offset : point.offset + point.size]
            assert encode(model, name, value, scale_of(model, name, registers)) == words, name


SENTINELS = [  # model, point, registers that mean "not implemented"
    (103, "W", [0x8000]),  # int16
    (103, "A", [0xFFFF]),  # uint16
    (103, "WH", [0, 0]),  # acc32
    (103, "St", [0xFFFF]),  # enum16
    (103, "Evt1", [0xFFFF, 0xFFFF]),  # bitfield32
    (103, "Evt1", [0x8000, 0x0001]),  # its highest bit set: the others mean nothing
    (124, "StorCtl_Mod", [0xFFFF]),  # bitfield16
    (124, "StorCtl_Mod", [0x8001]),
    (103, "A_SF", [0x8000]),  # sunssf
    (113, "W", [0x7FC0, 0x0000]),  # float32: NaN
    (113, "W", [0xFFC0, 0x0001]),  # any other NaN
    (704, "WSet", [0x8000, 0]),  # int32
    (704, "WSetRvrtTms", [0xFFFF, 0xFFFF]),  # uint32
    (705, "NPt", [0xFFFF]),  # count
    (701, "TotWhInj", [0xFFFF] * 4),  # uint64
    (1, "SN", [0] * 16),  # string
    (1, "SN", [0x2020] * 16),  # padded with blanks only
]


@pytest.mark.parametrize(("number", "name", "words"), SENTINELS)
def test_a_sentinel_is_no_value(number: int, name: str, words: list[int]) -> None:
    model = load_model(number)
    registers = [0] * model.length
    offset = model.points[name].offset
    registers[offset : offset + len(words)] = words
    assert decode(model, registers)[name] is None


def test_floats_and_64_bit_registers_by_hand() -> None:
    """-2.5 = -1.01b x 2^1: sign 1, exponent 128, fraction 0100.. = C020 0000h."""
    inverter = load_model(113)
    assert encode(inverter, "W", -2.5) == [0xC020, 0x0000]
    meter = load_model(701)
    offset = meter.points["TotWhInj"].offset
    registers = [0] * meter.length
    registers[offset : offset + 4] = [0x0001, 0x0000, 0x0000, 0x0002]
    assert decode(meter, registers)["TotWhInj"] == 2**48 + 2


@pytest.mark.parametrize(
    ("text", "words"),
    [("Ab", [0x4162]), ("Abc", [0x4162, 0x6300]), ("ä", [0xC3A4])],
)
def test_text_is_padded_with_zeros(text: str, words: list[int]) -> None:
    model = load_model(1)
    assert encode(model, "SN", text) == words + [0] * (16 - len(words))
    registers = [0] * model.length
    offset = model.points["SN"].offset
    registers[offset : offset + 16] = words + [0x2020] * (16 - len(words))
    if words[-1] & 0xFF:  # blanks after the text are padding as well
        assert decode(model, registers)["SN"] == text


@pytest.mark.parametrize("text", ["x" * 33, "ä" * 17, "a\0b"])
def test_text_that_does_not_fit_is_refused_not_cut(text: str) -> None:
    with pytest.raises(SunSpecError, match="32 bytes"):
        encode(load_model(1), "SN", text)


def test_exponents_scale_exactly() -> None:
    """3 at 10^-1 is 0.3 and not 0.30000000000000004; 7 at 10^3 is the integer 7000."""
    model = load_model(103)
    registers = [0] * model.length
    registers[model.points["W"].offset] = 3
    registers[model.points["W_SF"].offset] = 0xFFFF
    assert decode(model, registers)["W"] == 0.3
    registers[model.points["W"].offset] = 7
    registers[model.points["W_SF"].offset] = 3
    assert decode(model, registers)["W"] == 7000
    assert struct.pack(">H", encode(model, "W", 7000, 3)[0]) == b"\0\7"
