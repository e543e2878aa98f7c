"""Groups that repeat, scale factors by scope, models of other revisions."""

from __future__ import annotations

import pytest

from adapters.modbus.sunspec import (
    MOST_REGISTERS,
    SunSpecError,
    decode,
    encode,
    layout,
    load_model,
    meaning,
    scale_of,
)
from adapters.modbus.sunspec.definition import Group, Point
from adapters.modbus.sunspec.definition import scale_name as resolve

MPPT = 160
MODULE = 20
"""Registers of one module of model 160."""


def mppt(modules: int, extra: int = 0) -> list[int]:
    """Model 160 whose module n has DCW = 100 n, at 10^-1."""
    model = load_model(MPPT)
    registers = [0] * (model.length + MODULE * modules + extra)
    registers[model.points["DCW_SF"].offset] = 0xFFFF
    for number in range(modules):
        registers[model.length + MODULE * number + model.points["module.DCW"].offset] = (
            100 * number + 100
        )
    return registers


@pytest.mark.parametrize("modules", [0, 1, 2, 7])
def test_a_group_without_a_count_repeats_as_often_as_it_fits(modules: int) -> None:
    values = decode(load_model(MPPT), mppt(modules))
    assert [values.get(f"module[{n + 1}].DCW") for n in range(modules)] == [
        10.0 * n + 10 for n in range(modules)
    ]
    assert f"module[{modules + 1}].DCW" not in values


def test_half_a_module_is_none() -> None:
    values = decode(load_model(MPPT), mppt(2, extra=MODULE - 1))
    assert "module[2].DCW" in values
    assert not any(name.startswith("module[3]") for name in values)


def test_a_count_that_is_not_implemented_means_as_many_as_fit() -> None:
    model = load_model(714)
    registers = [0] * (model.length + 2 * 25)
    registers[model.points["NPrt"].offset] = 0xFFFF
    names = layout(model, registers).points
    assert "Prt[2].DCW" in names
    assert "Prt[3].DCW" not in names


@pytest.mark.parametrize("claimed", [3, 0xFFFE])
def test_a_count_that_claims_more_than_there_are_registers_is_cut(claimed: int) -> None:
    model = load_model(705)
    registers = [0] * (model.length + 40)
    registers[model.points["NCrv"].offset] = claimed
    registers[model.points["NPt"].offset] = claimed
    points = layout(model, registers).points
    assert max(p.offset + p.size for p in points.values()) <= len(registers)
    assert "Crv[1].Pt[1].V" in points


def test_a_count_of_none_is_none() -> None:
    model = load_model(714)
    points = layout(model, [0] * (model.length + 50)).points
    assert not any("[" in name for name in points)


def test_nested_groups_are_numbered_each() -> None:
    """Model 707: NCrvSet curves, each with three tables of NPt points; V then Tms (uint32)."""
    model = load_model(707)
    registers = [0] * 200
    registers[model.points["NCrvSet"].offset] = 2
    registers[model.points["NPt"].offset] = 2
    points = layout(model, registers).points
    # A curve: ReadOnly, then per table ActPt and 2 points of 3 registers: 1 + 3 * (1 + 6).
    first, second = points["Crv[1].MayTrip.Pt[2].Tms"], points["Crv[2].MayTrip.Pt[2].Tms"]
    assert second.offset - first.offset == 22
    assert first.offset == model.length + 1 + 7 + 1 + 3 + 1


def test_a_scale_factor_of_the_fixed_part_scales_what_repeats() -> None:
    model = load_model(705)
    registers = [0] * (model.length + 30)
    registers[model.points["NCrv"].offset] = registers[model.points["NPt"].offset] = 1
    registers[model.points["V_SF"].offset] = 0xFFFE
    registers[layout(model, registers).points["Crv[1].Pt[1].V"].offset] = 10512
    assert decode(model, registers)["Crv[1].Pt[1].V"] == 105.12
    assert scale_of(model, "Crv[1].Pt[1].V", registers) == -2
    assert encode(model, "Crv[1].Pt[1].V", 105.12, -2) == [10512]


def test_a_scale_factor_inside_the_group_is_that_instance_s_own() -> None:
    scopes = (("string[2].", frozenset({"A_SF"})), ("", frozenset({"A_SF", "V_SF"})))
    assert resolve("A_SF", scopes) == "string[2].A_SF"
    assert resolve("V_SF", scopes) == "V_SF"
    assert resolve(-1, scopes) == -1
    assert resolve(None, scopes) is None


@pytest.mark.parametrize("exponent", [0x8000, 11, 0xFFF5, 0x7FFF])
def test_an_invalid_scale_factor_makes_a_value_unknown_and_a_write_impossible(
    exponent: int,
) -> None:
    model = load_model(704)
    registers = [0] * model.length
    registers[model.points["WSet_SF"].offset] = exponent
    assert decode(model, registers)["WSet"] is None
    with pytest.raises(SunSpecError, match="WSet_SF"):
        scale_of(model, "WSet", registers)
    with pytest.raises(SunSpecError, match="WSet"):
        encode(model, "WSet", 1.0, 12)


def test_an_older_revision_is_shorter_and_the_rest_is_left_out() -> None:
    model = load_model(704)
    cut = model.points["WSet"].offset + 1  # in the middle of a point of two registers
    values = decode(model, [0] * cut)
    assert "WSetMod" in values
    assert "WSet" not in values
    with pytest.raises(SunSpecError, match="beyond the end"):
        scale_of(model, "WSet", [0] * cut)


def test_a_value_whose_scale_factor_was_cut_off_is_unknown() -> None:
    model = load_model(704)
    values = decode(model, [0] * (model.points["WSet_SF"].offset))
    assert values["WSet"] is None


def test_a_newer_revision_is_longer_and_what_is_known_is_decoded() -> None:
    model = load_model(704)
    registers = [0] * model.length + [0xABCD] * 40
    assert decode(model, registers) == decode(model, registers[: model.length])


@pytest.mark.parametrize("name", ["Nothing", "Crv[1].Nothing", ""])
def test_a_point_that_there_is_none_of_is_said(name: str) -> None:
    with pytest.raises(SunSpecError, match="no point"):
        encode(load_model(705), name, 1)


def test_what_an_enumeration_and_a_bit_field_say() -> None:
    state = load_model(103).points["St"]
    assert meaning(state, 4) == ("MPPT",)
    assert meaning(state, 99) == ()
    mode = load_model(124).points["StorCtl_Mod"]
    assert meaning(mode, 3) == ("CHARGE", "DiSCHARGE")
    assert meaning(mode, None) == ()


def test_definitions_say_their_tree() -> None:
    root = load_model(707).root
    assert isinstance(root, Group)
    assert isinstance(root.points[0], Point)
    assert [inner.count for inner in root.groups] == ["NCrvSet"]


@pytest.mark.parametrize("number", [160, 706, 711, 712, 714, 803])
def test_more_registers_than_any_model_has_are_not_laid_out(number: int) -> None:
    registers = [0xFFFF] * 0x1_0000
    registers[:2] = [number, 0xFFFE]
    shape = layout(load_model(number), registers)
    assert shape.size <= MOST_REGISTERS
    assert set(decode(load_model(number), registers)) <= set(shape.points)
