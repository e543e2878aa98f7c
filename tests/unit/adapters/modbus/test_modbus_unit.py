"""One unit behind a real socket: discovery, the device's own lengths, scale factors that move."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from adapters.modbus.link import ModbusLink
from adapters.modbus.sunspec import MOST_REGISTERS, SunSpecError, load_model
from adapters.modbus.unit import SunSpecUnit
from firmware_sim.servers.modbus import ModbusServer, Unit

pytestmark = pytest.mark.process


class Image(Unit):
    """Any models of any length at any base; `on_read` may change registers between requests."""

    def __init__(self, *models: tuple[int, int], base: int = 40000) -> None:
        super().__init__("image-1", [], serial="SN1", base=base)
        self.base = base
        del self._registers[-2:]
        self.places: dict[int, int] = {}
        for number, length in models:
            self.places.setdefault(number, len(self._registers))
            self._registers += [number, length - 2, *([0] * (length - 2))]
        self._registers += [0xFFFF, 0]
        self.reads: list[tuple[int, int]] = []
        self.on_read: Callable[[int], None] = lambda _count: None

    def set(self, number: int, name: str, words: Sequence[int]) -> None:
        """Put registers at a point."""
        start = self.places[number] + load_model(number).points[name].offset
        self._registers[start : start + len(words)] = words

    def held(self, number: int, name: str) -> list[int]:
        """Registers of a point."""
        point = load_model(number).points[name]
        start = self.places[number] + point.offset
        return self._registers[start : start + point.size]

    def read(self, address: int, count: int) -> list[int] | None:
        """As the unit does, and counted."""
        registers = super().read(address, count)
        if registers is not None and count > 2:
            self.reads.append((address, count))
            self.on_read(len(self.reads))
        return registers


@contextlib.asynccontextmanager
async def behind(image: Unit) -> AsyncIterator[SunSpecUnit]:
    async with ModbusServer({1: image}) as server:
        link = ModbusLink(
            "127.0.0.1", server.port, timeout_s=1.0, monotonic=asyncio.get_running_loop().time
        )
        yield SunSpecUnit(link, 1)
        link.close()


@pytest.mark.parametrize("base", [40000, 50000, 0])
async def test_a_unit_is_found_at_each_base(base: int) -> None:
    async with behind(Image((103, 52), base=base)) as unit:
        await unit.discover()
        assert unit.addresses == {1: base + 2, 103: base + 70}
        assert (await unit.identity()).serial == "SN1"


async def test_a_shorter_model_is_not_read_into_its_neighbour() -> None:
    """The registers behind an old, short model 123 are another model's."""
    image = Image((123, 20), (103, 52))
    async with behind(image) as unit:
        values = await unit.read(123)
        assert (image.reads[-1][1], values["WMaxLimPct"]) == (20, None)
        assert "OutPFSet_SF" not in values


async def test_a_write_uses_the_scale_factor_of_that_moment() -> None:
    image = Image((704, 67))
    async with behind(image) as unit:
        await unit.write(704, {"WSet": 3000.0})
        assert image.held(704, "WSet") == [0, 3000]
        image.set(704, "WSet_SF", [1])
        await unit.write(704, {"WSet": 3000.0})
        assert image.held(704, "WSet") == [0, 300]
        image.set(704, "WSet_SF", [0x8000])
        with pytest.raises(SunSpecError, match="WSet_SF"):
            await unit.write(704, {"WSet": 3000.0})
        assert image.held(704, "WSet") == [0, 300]


async def test_a_scale_factor_that_changes_between_two_reads_scales_its_own_read() -> None:
    image = Image((103, 52))
    image.set(103, "W", [250])
    async with behind(image) as unit:
        assert (await unit.read(103))["W"] == 250
        image.set(103, "W", [2500])
        image.set(103, "W_SF", [0xFFFF])
        assert (await unit.read(103))["W"] == 250.0


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_scale_factor_that_changes_between_the_requests_of_one_read_is_noticed(
    number: int,
) -> None:
    """Model 701 takes two requests; its scale factors come with the second one."""
    image = Image((701, 155))
    image.set(701, "W", [250])
    async with behind(image) as unit:
        assert (await unit.read(701))["W"] == 250
        image.reads.clear()

        def change(reads: int) -> None:
            if reads == number:
                image.set(701, "W", [2500])
                image.set(701, "W_SF", [0xFFFF])

        image.on_read = change
        assert (await unit.read(701))["W"] == 250
        image.on_read = lambda _reads: None
        assert (await unit.read(701))["W"] == 250


async def test_a_long_model_that_stands_still_takes_no_more_requests_than_it_needs() -> None:
    image = Image((701, 155))
    async with behind(image) as unit:
        await unit.read(701)
        image.reads.clear()
        await unit.read(701)
        assert sum(count for _, count in image.reads) == 155
        assert len(image.reads) == 2


async def test_scale_factors_in_front_of_a_long_group_are_asked_again() -> None:
    """Model 160 with ten modules: its scale factors come first, the last modules much later."""
    model = load_model(160)
    image = Image((160, model.length + 10 * 20))
    last = model.length + 9 * 20 + model.points["module.DCW"].offset
    image._registers[image.places[160] + last] = 500
    async with behind(image) as unit:
        assert (await unit.read(160))["module[10].DCW"] == 500
        image.reads.clear()

        def change(reads: int) -> None:
            if reads == 1:  # the scale factors have gone out, the last module has not
                image._registers[image.places[160] + last] = 5000
                image.set(160, "DCW_SF", [0xFFFF])

        image.on_read = change
        assert (await unit.read(160))["module[10].DCW"] == 500


async def test_scale_factors_that_never_stand_still_are_said() -> None:
    image = Image((701, 155))
    image.on_read = lambda reads: image.set(701, "W_SF", [reads % 5])
    async with behind(image) as unit:
        with pytest.raises(SunSpecError, match="change while it is read"):
            await unit.read(701)


async def test_a_point_of_a_group_that_repeats_is_written_where_it_stands() -> None:
    model = load_model(705)
    image = Image((705, model.length + 2 * 18))
    image.set(705, "NCrv", [2])
    image.set(705, "NPt", [4])
    async with behind(image) as unit:
        await unit.write(705, {"Crv[2].Pt[3].V": 95.0})
        assert (await unit.read(705))["Crv[2].Pt[3].V"] == 95.0
        behind_fixed = image.places[705] + model.length
        # Curve 2 begins 18 registers after curve 1; its point 3 follows 10 registers and 2 points.
        assert image._registers[behind_fixed : behind_fixed + 36].index(95) == 18 + 10 + 2 * 2


async def test_a_model_that_claims_to_be_endless_does_not_keep_its_neighbours_waiting() -> None:
    image = Image((1, 68), (160, 20_000))
    async with behind(image) as unit:
        registers = await unit.registers(160)
        assert len(registers) == MOST_REGISTERS
        # a long model is read until its scale factors keep still
        assert sum(count for _, count in image.reads) < 3 * MOST_REGISTERS
