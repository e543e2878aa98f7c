"""Single points of a unit: planned once, across models, with the scale factor of their moment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adapters.modbus.points import PointReads
from adapters.modbus.reads import ReadLimits
from adapters.modbus.sample import Sampler
from adapters.modbus.sunspec import SunSpecError
from tests.unit.adapters.modbus.test_modbus_unit import Image, behind

pytestmark = pytest.mark.process
HYBRID = ((103, 52), (713, 9))
WANTED = ((103, ("W",)), (713, ("WHAvail",)))


class OneModelAtATime(Image):
    """Refuses a read that crosses from one of its models into the next."""

    def read(self, address: int, count: int) -> list[int] | None:
        starts = [self.base + place for place in self.places.values()]
        if any(address < start < address + count for start in starts):
            return None
        return super().read(address, count)


class Watched(Image):
    """Says after every read how many there were since it is watched."""

    def __init__(self, *models: tuple[int, int]) -> None:
        super().__init__(*models)
        self.after: Callable[[int], None] | None = None
        self._count = 0

    def read(self, address: int, count: int) -> list[int] | None:
        registers = super().read(address, count)
        if self.after is not None:
            self._count += 1
            self.after(self._count)
        return registers


def hybrid(kind: type[Image] = Image) -> Image:
    image = kind(*HYBRID)
    image.set(103, "W", [250])
    image.set(713, "WHAvail", [32])
    image.set(713, "WH_SF", [2])
    return image


async def test_neighbouring_models_come_in_one_request() -> None:
    image = hybrid()
    async with behind(image) as unit:
        await unit.discover()
        assert unit.chain is not None
        reads = PointReads(unit.chain, WANTED, ReadLimits())
        image.reads.clear()
        assert await reads.read(unit) == {"W": 250, "WHAvail": 3200}
        assert len(image.reads) == 1


async def test_a_unit_that_answers_for_one_model_at_a_time_is_asked_that_way_from_then_on() -> None:
    image = hybrid(OneModelAtATime)
    async with behind(image) as unit:
        await unit.discover()
        assert unit.chain is not None
        reads = PointReads(unit.chain, WANTED, ReadLimits())
        assert await reads.read(unit) == {"W": 250, "WHAvail": 3200}
        assert len(reads.spans) == 2
        image.set(103, "W", [300])
        assert await reads.read(unit) == {"W": 300, "WHAvail": 3200}


async def test_a_scale_factor_that_changes_between_two_polls_scales_its_own_poll() -> None:
    image = hybrid()
    async with behind(image) as unit:
        sampler = Sampler(unit, "battery", ReadLimits())
        reads = await sampler.plan(slow=True)
        assert (await reads.read(unit))["W"] == 250
        image.set(103, "W", [2500])
        image.set(103, "W_SF", [0xFFFF])
        assert sampler.planned(slow=True) is reads
        assert (await reads.read(unit))["W"] == 250.0
        image.set(103, "W_SF", [0x8000])
        assert (await reads.read(unit))["W"] is None


@pytest.mark.parametrize("change_at", [1, 2, 3, 4])
async def test_a_scale_factor_of_another_request_is_used_only_where_it_held(change_at: int) -> None:
    """Model 701, at most 50 registers at once: `W` is read, and then `W_SF`."""
    image = Watched((701, 155))
    image.set(701, "W", [250])
    async with behind(image) as unit:
        await unit.discover()
        assert unit.chain is not None
        reads = PointReads(unit.chain, ((701, ("W",)),), ReadLimits(max_registers=50))
        assert await reads.read(unit) == {"W": 250}

        def change(count: int) -> None:
            if count == change_at:
                image.set(701, "W", [2500])
                image.set(701, "W_SF", [0xFFFF])

        image.after = change
        for _ in range(3):
            assert await reads.read(unit) == {"W": 250}
        assert image.held(701, "W") == [2500]


async def test_scale_factors_that_never_stand_still_are_said() -> None:
    image = Watched((701, 155))
    async with behind(image) as unit:
        await unit.discover()
        assert unit.chain is not None
        reads = PointReads(unit.chain, ((701, ("W",)),), ReadLimits(max_registers=50))
        image.after = lambda count: image.set(701, "W_SF", [count % 5])
        with pytest.raises(SunSpecError, match="change while"):
            await reads.read(unit)


async def test_a_unit_that_was_found_to_be_another_is_planned_anew() -> None:
    image = hybrid()
    async with behind(image) as unit:
        sampler = Sampler(unit, "battery", ReadLimits())
        await sampler.plan(slow=False)
        assert sampler.planned(slow=False) is not None
        await unit.discover()
        assert sampler.planned(slow=False) is None


async def test_what_a_unit_does_not_have_is_said_by_its_name() -> None:
    image = hybrid()
    async with behind(image) as unit:
        await unit.discover()
        assert unit.chain is not None
        with pytest.raises(SunSpecError, match="no model 802"):
            PointReads(unit.chain, ((802, ("SoC",)),), ReadLimits())
        with pytest.raises(SunSpecError, match="no point Watts"):
            PointReads(unit.chain, ((103, ("Watts",)),), ReadLimits())
        with pytest.raises(SunSpecError, match="measures power"):
            await Sampler(unit, "meter", ReadLimits()).plan(slow=True)
