"""Gaps between readings are filled from what the meter counted meanwhile."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace_core.intervals import instant
from marketplace_core.units import Kw
from marketplace_core.verification.gaps import fill
from marketplace_core.verification.reading import Reading

START = instant("2017-07-21T00:00:00Z")


def reading(minute: float, kw: float, register: float | None, minutes: float = 1.0) -> Reading:
    return Reading(
        series="m", start=START + timedelta(minutes=minute), seconds=60.0 * minutes,
        power_kw=Kw(kw), register_kwh=register,
    )  # fmt: skip


def test_the_gap_gets_the_energy_that_no_reading_accounts_for() -> None:
    found = fill(reading(0, 2.0, 100.0), reading(13, 6.0, 100.0 + 1.2 + 0.1))
    assert found is not None
    assert (found.start, found.seconds) == (START + timedelta(minutes=1), 720.0)
    assert found.power_kw == pytest.approx(6.0)  # 1.2 kWh in 12 minutes


@given(
    st.lists(st.floats(-20.0, 20.0), min_size=3, max_size=30),
    st.floats(-1e6, 1e6),
)
def test_energy_is_conserved_whatever_happened_in_the_gap(
    powers: list[float], register: float
) -> None:
    last = len(powers) - 1
    total = sum(powers[1:]) / 60.0
    first = reading(0, powers[0], register)
    after = reading(last, powers[last], register + total)
    found = fill(first, after)
    if found is not None:
        filled = found.power_kw * found.seconds / 3600.0 + powers[last] / 60.0
        assert filled == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (reading(0, 1.0, 5.0), reading(1, 1.0, 5.1)),  # no gap
        (reading(0, 1.0, None), reading(9, 1.0, 5.0)),
        (reading(0, 1.0, 5.0), reading(9, 1.0, None)),
        (reading(0, 1.0, 5000.0), reading(9, 1.0, 0.1)),  # the register was reset
        (reading(0, 1.0, 5.0), reading(3000, 1.0, 55.0)),  # more than a day
        (reading(9, 1.0, 5.0), reading(0, 1.0, 5.0)),  # late, not missing
    ],
)
def test_nothing_is_filled_where_it_would_make_no_sense(before: Reading, after: Reading) -> None:
    assert fill(before, after) is None


def test_what_is_filled_has_no_register_of_its_own() -> None:
    found = fill(reading(0, 1.0, 5.0), reading(9, 1.0, 5.2))
    assert found is not None
    assert found.register_kwh is None
