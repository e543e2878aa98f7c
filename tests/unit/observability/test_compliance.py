"""Compliance: what devices measure over what they were told."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.observability.compliance import Compliance, Instruction, compliance
from marketplace_core.units import Kw


def told(device: str, reference: float, power: float, protocol: str = "mqtt") -> Instruction:
    return Instruction(
        device_id=device, protocol=protocol, reference_kw=Kw(reference), power_kw=Kw(power)
    )


def test_a_device_that_does_as_told_is_whole() -> None:
    found = compliance([told("a", -7.0, -2.0)], {"a": -2.0}.get)
    assert found == {"mqtt": Compliance(5.0, 5.0)}
    assert found["mqtt"].ratio == 1.0


def test_a_device_that_ignores_delivers_nothing() -> None:
    assert compliance([told("a", -7.0, -2.0)], {"a": -7.0}.get)["mqtt"].ratio == 0.0


def test_the_wrong_way_is_negative() -> None:
    assert compliance([told("a", 0.0, 5.0)], {"a": -5.0}.get)["mqtt"].ratio == -1.0


def test_downward_flexibility_counts_the_same() -> None:
    assert compliance([told("a", 0.0, -4.0)], {"a": -3.0}.get)["mqtt"].ratio == 0.75


def test_who_is_not_heard_is_not_believed() -> None:
    found = compliance([told("a", 0.0, 5.0), told("b", 0.0, 5.0)], {"a": 5.0}.get)
    assert found["mqtt"].ratio == 0.5


def test_protocols_are_kept_apart() -> None:
    plan = [told("a", 0.0, 4.0, "modbus"), told("b", -6.0, 0.0, "mqtt")]
    found = compliance(plan, {"a": 4.0, "b": -6.0}.get)
    assert (found["modbus"].ratio, found["mqtt"].ratio) == (1.0, 0.0)


def test_nothing_asked_is_no_ratio() -> None:
    assert compliance([], {}.get) == {}
    assert math.isnan(compliance([told("a", 1.0, 1.0)], {"a": 9.0}.get)["mqtt"].ratio)


POWERS = st.floats(-100, 100)


@given(st.lists(st.tuples(POWERS, POWERS), min_size=1, max_size=20))
def test_doing_as_told_is_one_whatever_was_told(plan: list[tuple[float, float]]) -> None:
    told_all = [told(str(n), reference, power) for n, (reference, power) in enumerate(plan)]
    found = compliance(told_all, lambda device: plan[int(device)][1])["mqtt"]
    assert found.instructed_kw == found.measured_kw
