"""Points that are picked out of planned reads are what decoding the whole model says they are."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.modbus.points import PointReads
from adapters.modbus.reads import ReadLimits
from adapters.modbus.sunspec import Chain, Found, decode, load_model

MODELS = (1, 103, 113, 120, 122, 160, 203, 701, 702, 713, 802)
FIRST = 40_002
WORDS = st.one_of(
    st.sampled_from([0, 1, 0x7FFF, 0x8000, 0xFFFF, 0xFFFE, 0x4141, 0x7F80]),
    st.integers(0, 0xFFFF),
)


class Registers:
    """A link to a unit that is nothing but its registers; every read is kept."""

    def __init__(self, words: list[int]) -> None:
        self.words = words
        self.reads: list[tuple[int, int]] = []

    async def read_once(self, _unit: int, address: int, count: int, _lane: int) -> bytes:
        self.reads.append((address, count))
        at = address - FIRST
        assert 0 <= at <= at + count <= len(self.words)
        return struct.pack(f">{count}H", *self.words[at : at + count])


class Device:
    number = 1

    def __init__(self, link: Registers) -> None:
        self.link = link


@st.composite
def units(draw: Any) -> tuple[Chain, list[int], list[tuple[int, list[str]]], ReadLimits]:
    """Two models one behind the other, points of both, and what a read may be."""
    first, second = draw(st.permutations(MODELS))[:2]
    words: list[int] = []
    found, wanted, taken = [], [], set[str]()
    for number in (first, second):
        model = load_model(number)
        body = draw(st.lists(WORDS, min_size=model.length, max_size=model.length))
        for point in model.points.values():
            if point.type == "sunssf" and "." not in point.name and draw(st.booleans()):
                body[point.offset] = draw(st.integers(-10, 10)) & 0xFFFF
        body[:2] = number, model.length - 2
        found.append(Found(number, FIRST + len(words), model.length))
        words += body
        fixed = [n for n, p in model.points.items() if "." not in n and p.type != "pad"]
        names = draw(st.lists(st.sampled_from(fixed), min_size=1, max_size=6, unique=True))
        wanted.append((number, [name for name in names if name not in taken]))
        taken |= set(names)
    limits = ReadLimits(max_registers=draw(st.integers(2, 125)), max_gap=draw(st.integers(0, 125)))
    return Chain(40_000, tuple(found)), words, wanted, limits


@given(units())
@settings(max_examples=300, deadline=None)
def test_picked_points_are_those_of_the_whole_model(
    unit: tuple[Chain, list[int], list[tuple[int, list[str]]], ReadLimits],
) -> None:
    chain, words, wanted, limits = unit
    link = Registers(words)
    picked = asyncio.run(PointReads(chain, wanted, limits).read(Device(link)))  # type: ignore[arg-type]
    expected = {}
    for (number, names), found in zip(wanted, chain.models, strict=True):
        start = found.address - FIRST
        whole = decode(load_model(number), words[start : start + found.length])
        expected |= {name: whole.get(name) for name in names}
    assert {n: repr(v) for n, v in picked.items()} == {n: repr(v) for n, v in expected.items()}
    assert all(count <= limits.max_registers for _, count in link.reads)
