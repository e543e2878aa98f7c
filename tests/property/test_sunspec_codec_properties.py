"""The SunSpec codec: what is written is read, whatever comes does not crash it."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import sunspec2.device
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adapters.modbus.sunspec import (
    Chain,
    Point,
    SunSpecError,
    decode,
    encode,
    layout,
    load_model,
    meaning,
    scale_of,
    walk,
)

MODELS = (
    1, 101, 102, 103, 111, 112, 113, *range(120, 125), 160, *range(201, 205), *range(701, 716),
    801, 802, 803,
)  # fmt: skip
COUNTS = ("NPt", "NCrv", "NCrvSet", "NCtl", "NPrt", "NStr")
word = st.integers(0, 0xFFFF)


def image(number: int, counts: int, exponents: list[int], room: int) -> list[int]:
    """A device's registers of a model with `counts` of everything that repeats."""
    model = load_model(number)
    registers = [0] * (model.length + room)
    registers[0], registers[1] = number, len(registers) - 2
    for name in COUNTS:
        if name in model.points:
            registers[model.points[name].offset] = counts
    scales = [p for p in layout(model, registers).points.values() if p.type == "sunssf"]
    for place, point in enumerate(scales):
        registers[point.offset] = exponents[place % len(exponents)] & 0xFFFF
    return registers


def raw_value(draw: Any, point: Point) -> int | float | str:
    """Anything that a point may hold, unscaled, but its sentinel."""
    bits = 16 * point.size
    if point.type == "string":
        text = st.text(st.characters(min_codepoint=33, max_codepoint=0x24F), max_size=2 * bits)
        value: str = draw(text)
        assume(0 < len(value.encode()) <= 2 * point.size and value == value.strip())
        return value
    if point.type.startswith("float"):
        number: float = draw(st.floats(width=32, allow_nan=False, allow_infinity=False))
        return number
    if point.type.startswith(("int", "sunssf")):
        return int(draw(st.integers(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)))
    if point.type.startswith("acc"):
        return int(draw(st.integers(1, 2**bits - 1)))
    top = 2 ** (bits - 1) - 1 if point.type.startswith("bitfield") else 2**bits - 2
    return int(draw(st.integers(0, top)))


@st.composite
def writes(draw: Any) -> tuple[int, list[int], str, int | float | str]:
    number = draw(st.sampled_from(MODELS))
    exponents = draw(st.lists(st.integers(-10, 10), min_size=1, max_size=4))
    registers = image(number, draw(st.integers(1, 3)), exponents, draw(st.integers(40, 200)))
    points = layout(load_model(number), registers).points
    names = [name for name, point in points.items() if point.writable]
    assume(names)
    name = draw(st.sampled_from(names))
    return number, registers, name, raw_value(draw, points[name])


@given(writes())
@settings(max_examples=400, deadline=None)
def test_what_is_written_to_any_writable_point_is_read(
    write: tuple[int, list[int], str, int | float | str],
) -> None:
    number, registers, name, raw = write
    model = load_model(number)
    points = layout(model, registers).points
    point, scale = points[name], scale_of(model, name, registers)
    held = list(registers)
    held[point.offset : point.offset + point.size] = encode(model, name, raw)
    assume(layout(model, held).points.keys() == points.keys())
    value = decode(model, held)[name]
    assert value is not None
    assert encode(model, name, value, scale) == held[point.offset : point.offset + point.size]
    others = decode(model, registers)
    read = decode(model, held)
    assert {n for n in read if read[n] != others[n]} <= {name, *_scaled_by(points, name)}


def _scaled_by(points: dict[str, Point], name: str) -> set[str]:
    return {other.name for other in points.values() if other.scale == name}


@pytest.mark.parametrize("number", MODELS)
def test_every_writable_point_holds_its_extremes_and_zero(number: int) -> None:
    """No point is left to chance: each is written in two instances of whatever repeats."""
    model = load_model(number)
    registers = image(number, 2, [-2, 0, 1, 10, -10], 120)
    for name, point in layout(model, registers).points.items():
        if not point.writable or point.type in {"string", "count"}:
            continue
        scale = scale_of(model, name, registers)
        for raw in _extremes(point):
            words = encode(model, name, raw)
            held = list(registers)
            held[point.offset : point.offset + point.size] = words
            value = decode(model, held)[name]
            assert value is not None, name
            assert encode(model, name, value, scale) == words, name


def _extremes(point: Point) -> tuple[float, ...]:
    top = 2 ** (16 * point.size)
    if point.type.startswith("float"):
        return (-1.5, 0.0, 2.0**127)
    if point.type.startswith("int"):
        return (1 - top // 2, 0, top // 2 - 1)
    return (0, top // 2 - 1) if point.type.startswith("bitfield") else (0, top - 2)


@given(st.sampled_from(MODELS), st.lists(word, max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_registers_decode_to_something(number: int, registers: list[int]) -> None:
    model = load_model(number)
    values = decode(model, registers)
    points = layout(model, registers).points
    assert set(values) <= set(points)
    for point in points.values():
        assert point.offset + point.size <= len(registers)
        assert all(meaning(point, values.get(point.name)))
    for name in values:
        try:
            scale = scale_of(model, name, registers)
        except SunSpecError:
            assert values[name] is None
        else:
            assert scale is None or -10 <= scale <= 10


@given(
    st.sampled_from(MODELS),
    st.text(max_size=12),
    st.one_of(st.floats(), st.integers(), st.text(max_size=40)),
    st.one_of(st.none(), st.integers(-40, 40)),
    st.data(),
)
@settings(max_examples=300, deadline=None)
def test_any_value_encodes_or_is_refused_with_a_word(
    number: int, name: str, value: float | str, scale: int | None, data: st.DataObject
) -> None:
    model = load_model(number)
    if data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(model.points)))
    try:
        words = encode(model, name, value, scale)
    except SunSpecError as error:
        words, said = None, str(error)
    if words is None:
        assert str(number) in said
    else:
        assert len(words) == model.points[name].size
        assert all(0 <= one <= 0xFFFF for one in words)


@given(
    st.sampled_from((160, 701, 704, 705, 706, 707, 708, 709, 710, 711, 712, 714, 803)),
    st.integers(1, 4), st.integers(1, 3), st.data(),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_groups_lie_where_an_independent_codec_finds_them(
    number: int, outer: int, inner: int, data: st.DataObject
) -> None:
    """pysunspec2's own object model, on the same registers.

    A count of 0 is left out: it reads that as "as many as fit", and we as none.
    """
    model = load_model(number)
    registers = image(number, outer, [0], 600)
    if "NPt" in model.points:
        registers[model.points["NPt"].offset] = inner
    if number == 160:
        registers = registers[: model.length + 20 * outer]
        registers[model.points["N"].offset] = outer
    shape = layout(model, registers)
    registers = registers[: shape.size]
    registers[1] = len(registers) - 2
    for point in shape.points.values():
        if point.type in {"int16", "uint16"} and point.name not in {"ID", "L", *COUNTS}:
            registers[point.offset] = data.draw(st.integers(0, 0x7FFF))
    packed = struct.pack(f">{len(registers)}H", *registers)
    theirs = sunspec2.device.Model(number, data=packed, model_len=len(registers) - 2)
    ours = decode(model, registers)
    found = dict(_flat(theirs.get_dict(), ""))
    for name, point in shape.points.items():
        if point.type in {"int16", "uint16"}:
            held = registers[point.offset]
            assert found[name] == held
            assert ours[name] == held


def _flat(group: dict[str, Any], prefix: str) -> Any:
    for name, value in group.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            for number, one in enumerate(value, start=1):
                yield from _flat(one, f"{prefix}{name}[{number}].")
        else:
            yield prefix + name, value


@given(st.lists(st.one_of(st.none(), st.tuples(word, word)), max_size=80), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_any_chain_ends(answers: list[tuple[int, int] | None], before: int) -> None:
    """Whatever a unit answers, discovery ends and stays within the addresses there are."""
    marker: list[tuple[int, int] | None] = [None] * min(before, 2) + [(0x5375, 0x6E53)]
    steps = walk()
    asked = [next(steps)]
    replies = iter(marker + answers)
    chain: Chain | None = None
    for _ in range(2 * len(answers) + 10):
        reply = next(replies, (0xFFFF, 0))
        try:
            asked.append(steps.send(None if reply is None else list(reply)))
        except StopIteration as ended:
            chain = ended.value
            break
        except SunSpecError:
            return
    assert chain is not None
    assert all(0 <= address <= 0x1_0000 - count for address, count in asked)
    ends = [found.address + found.length for found in chain.models]
    assert [found.address for found in chain.models[1:]] == ends[:-1]


@given(st.integers(1, 2**64 - 2), st.integers(-10, 10))
@settings(deadline=None)
def test_energy_is_written_back_to_the_watt_hour_as_far_as_it_can_be_told(
    count: int, scale: int
) -> None:
    model = load_model(714)
    words = list(struct.unpack(">4H", struct.pack(">Q", count)))
    value = count * 10**scale if scale >= 0 else count / 10**-scale
    assume(scale >= 0 or count < 2**50)  # a double holds no more
    assert encode(model, "DCWhInj", value, scale) == words
