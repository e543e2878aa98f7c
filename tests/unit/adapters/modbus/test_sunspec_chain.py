"""Discovery on register images: bases, broken ends, models that come twice."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from adapters.modbus.sunspec import Chain, Found, SunSpecError, walk

MARKER = (0x5375, 0x6E53)


def found(registers: Mapping[int, int]) -> Chain:
    """Walk an image; what it does not hold, the unit refuses."""
    steps = walk()
    ask = next(steps)
    while True:
        address, count = ask
        words = [registers.get(address + n) for n in range(count)]
        answer = None if None in words else [word for word in words if word is not None]
        try:
            ask = steps.send(answer)
        except StopIteration as done:
            chain: Chain = done.value
            return chain


def image(
    base: int, *models: tuple[int, int], end: tuple[int, ...] = (0xFFFF, 0)
) -> dict[int, int]:
    words = [*MARKER]
    for number, length in models:
        words += [number, length, *([0] * min(length, 200))]
    return {base + place: word for place, word in enumerate([*words, *end])}


@pytest.mark.parametrize("base", [40000, 50000, 0])
def test_models_are_found_at_each_base(base: int) -> None:
    chain = found(image(base, (1, 66), (103, 50), (123, 24)))
    assert chain == Chain(
        base, (Found(1, base + 2, 68), Found(103, base + 70, 52), Found(123, base + 122, 26))
    )


def test_registers_at_an_earlier_base_that_are_no_marker_are_passed_over() -> None:
    registers = {40000: 1, 40001: 2, **image(50000, (1, 66))}
    assert found(registers).base == 50000


def test_no_marker_is_said_with_the_places_that_were_asked() -> None:
    with pytest.raises(SunSpecError, match="40000, 50000, 0"):
        found({40000: 1, 40001: 2})


def test_two_models_of_one_id_are_both_known_and_the_first_is_it() -> None:
    chain = found(image(40000, (1, 66), (160, 28), (160, 48)))
    assert [one.length for one in chain.models] == [68, 30, 50]
    assert chain.first(160) == Found(160, 40070, 30)
    assert chain.first(999) is None


@pytest.mark.parametrize(
    ("end", "word"),
    [((), "nothing to read"), ((0, 0), "no model at"), ((103, 0xFFF0), "claims 65520")],
)
def test_a_chain_that_breaks_off_keeps_what_came_before(end: tuple[int, ...], word: str) -> None:
    chain = found(image(40000, (1, 66), (103, 50), end=end))
    assert [one.model for one in chain.models] == [1, 103]
    assert word in chain.remark


def test_a_model_of_length_zero_is_passed_over() -> None:
    chain = found(image(40000, (1, 66), (64001, 0), (103, 50)))
    assert [one.model for one in chain.models] == [1, 64001, 103]
    assert chain.remark == ""


def test_a_chain_without_end_ends() -> None:
    chain = found(image(0, *[(64001, 1)] * 200))
    assert len(chain.models) == 64
    assert "64 models" in chain.remark


def test_a_chain_up_to_the_last_address_ends() -> None:
    registers = dict.fromkeys(range(0x1_0000), 0) | {0: MARKER[0], 1: MARKER[1], 2: 1, 3: 0xFFFC}
    assert "last address" in found({**registers, 40000: 0}).remark
