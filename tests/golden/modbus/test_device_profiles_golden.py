"""Shipped device profiles against their documents: registers to values, setpoints to writes.

Each vector says where it comes from. Where a document has an example it is the example; else
the registers follow from the type and the scale that its table gives.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.modbus.registers.codec import decode, encode
from adapters.modbus.registers.control import OF_A_MAP, RegisterControl
from adapters.modbus.registers.definition import RegisterMap
from config.profiles import read_profile, shipped
from gateway.register_maps import register_map

FOLDER = Path(__file__).parent / "profiles"
VECTORS: dict[str, Any] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.iterdir())
}
READS = [
    pytest.param(name, read, id=f"{name}-{read['point']}-{number}")
    for name, vectors in VECTORS.items()
    for number, read in enumerate(vectors["reads"])
]
DRIVES = [
    pytest.param(name, drive, id=f"{name}-{drive['control']}-{number}")
    for name, vectors in VECTORS.items()
    for number, drive in enumerate(vectors["drives"])
]
Writes = list[list[Any]]


def device(name: str) -> RegisterMap:
    return register_map(read_profile(name).required())


def held(name: str, control: str) -> dict[str, Any]:
    """What the device shows before it is driven, of all vectors of a control."""
    drives = [drive for drive in VECTORS[name]["drives"] if drive["control"] == control]
    return {point: value for drive in drives for point, value in drive.get("held", {}).items()}


def on_the_wire(found: RegisterMap, writes: dict[str, float]) -> Writes:
    return [
        [found.points[point].address, encode(found.points[point], value)]
        for point, value in writes.items()
    ]


def test_every_shipped_profile_has_vectors() -> None:
    assert sorted(VECTORS) == list(shipped())
    assert all(vectors["source"] for vectors in VECTORS.values())


@pytest.mark.parametrize("name", shipped())
def test_every_point_has_a_vector_and_every_control_is_driven_and_ended(name: str) -> None:
    vectors, found = VECTORS[name], device(name)
    assert {read["point"] for read in vectors["reads"]} == set(found.points)
    ended = {drive["control"] for drive in vectors["drives"] if drive.get("release")}
    driven = {drive["control"] for drive in vectors["drives"] if not drive.get("release")}
    assert ended == driven == set(found.controls)


@pytest.mark.parametrize(("name", "read"), READS)
def test_registers_are_the_value_that_the_document_gives(name: str, read: dict[str, Any]) -> None:
    value = decode(device(name).points[read["point"]], read["registers"])
    assert value == read["value"], read["cite"]
    assert type(value) is type(read["value"]) or isinstance(value, int)


@pytest.mark.parametrize(("name", "drive"), DRIVES)
def test_a_setpoint_is_written_as_the_document_has_it(name: str, drive: dict[str, Any]) -> None:
    found = device(name)
    control = RegisterControl(
        found, found.controls[drive["control"]], phases=drive.get("phases", 3)
    )
    control.learn({OF_A_MAP: held(name, drive["control"])})
    if drive.get("release"):
        assert on_the_wire(found, control.stop()) == drive["writes"], drive["cite"]
        return
    power_kw, lease_s = drive["power_kw"], drive["lease_s"]
    assert on_the_wire(found, control.start(power_kw, lease_s)) == drive["writes"], drive["cite"]
    assert on_the_wire(found, control.refresh(power_kw, lease_s)) == drive["refresh"]


@pytest.mark.parametrize(("name", "drive"), [p for p in DRIVES if "power_kw" in p.values[1]])
def test_what_was_written_reads_back_as_what_was_asked(name: str, drive: dict[str, Any]) -> None:
    found = device(name)
    told = found.controls[drive["control"]]
    control = RegisterControl(found, told, phases=drive.get("phases", 3))
    shown = held(name, drive["control"])
    control.learn({OF_A_MAP: shown})
    for point, value in control.start(drive["power_kw"], drive["lease_s"]).items():
        shown[point] = decode(found.points[point], encode(found.points[point], value))
    in_force = control.parse(shown)
    assert in_force.active
    assert in_force.power_kw is not None
    assert abs(in_force.power_kw) <= abs(drive["power_kw"]) + 1e-9, "more than was asked"
    assert abs(in_force.power_kw - drive["power_kw"]) <= in_force.step_kw
    for point, value in control.stop().items():
        shown[point] = decode(found.points[point], encode(found.points[point], value))
    assert not control.parse(shown).active
