"""Registers of a device that is not SunSpec, as values and back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from adapters.modbus.registers.codec import decode, encode, meaning
from adapters.modbus.registers.definition import DevicePoint, RegisterError


@pytest.mark.parametrize(
    ("fields", "words", "value"),
    [
        ({"type": "uint16"}, [65535], 65535),
        ({"type": "int16"}, [0xFFFF], -1),
        ({"type": "int16", "scale": 0.1}, [3], 0.3),
        ({"type": "int16", "scale": 10.0}, [3], 30.0),
        ({"type": "int16", "scale": 0.5, "offset": -40.0}, [100], 10.0),
        ({"type": "uint32"}, [0x0102, 0x0304], 0x01020304),
        ({"type": "uint32", "word_order": "little"}, [0x0304, 0x0102], 0x01020304),
        ({"type": "uint32", "byte_order": "little"}, [0x0201, 0x0403], 0x01020304),
        ({"type": "uint32", "word_order": "little", "byte_order": "little"}, [0x0403, 0x0201],
         0x01020304),
        ({"type": "uint64", "word_order": "little"}, [4, 3, 2, 1], 0x0001000200030004),
        ({"type": "int64"}, [0xFFFF] * 4, -1),
        ({"type": "float32"}, [0x3FC0, 0], 1.5),
        ({"type": "float32", "word_order": "little"}, [0, 0x3FC0], 1.5),
        ({"type": "float64"}, [0x3FF8, 0, 0, 0], 1.5),
        ({"type": "bitfield32"}, [0, 5], 5),
        ({"type": "enum16", "scale": 10.0}, [3], 3),
    ],
)  # fmt: skip
def test_a_value_is_read_as_its_type_and_order_say_and_written_back(
    fields: dict[str, Any], words: list[int], value: float
) -> None:
    point = DevicePoint(address=0, **fields)
    assert decode(point, words) == value
    assert encode(point, value) == words


def test_text_ends_at_the_first_nul_and_may_have_its_bytes_swapped() -> None:
    point = DevicePoint(address=0, type="string", length=3)
    assert decode(point, [0x4142, 0x4300, 0x5858]) == "ABC"
    swapped = msgspec.structs.replace(point, byte_order="little", word_order="little")
    assert decode(swapped, [0x4241, 0x0043, 0]) == "ABC"
    assert decode(point, [0, 0, 0]) is None


@pytest.mark.parametrize(
    ("fields", "value"),
    [({"type": "uint16"}, -1.0), ({"type": "uint16"}, 65536.0), ({"type": "int16"}, float("nan")),
     ({"type": "float32"}, float("inf")), ({"type": "string", "length": 2}, 1.0),
     ({"type": "uint16", "missing": (0xFFFF,)}, 65535.0)],
)  # fmt: skip
def test_what_a_point_cannot_hold_is_refused(fields: dict[str, Any], value: float) -> None:
    with pytest.raises(RegisterError):
        encode(DevicePoint(address=7, **fields), value)


def test_missing_numbers_and_meanings() -> None:
    point = DevicePoint(address=0, type="uint16", missing=(0xFFFF, 0x8000), meanings={1: "on"})
    assert [decode(point, [word]) for word in (0xFFFF, 0x8000, 1)] == [None, None, 1]
    assert (meaning(point, 1), meaning(point, 2), meaning(point, None)) == (("on",), (), ())
    bits = DevicePoint(address=0, type="bitfield16", meanings={0: "a", 2: "c"})
    assert meaning(bits, 5) == ("a", "c")
    with pytest.raises(RegisterError, match="2 registers"):
        decode(point, [1, 2])
