"""The network tree and disputes: what is admitted, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest

from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.stop import StopMeaning, stop_power
from marketplace_core.errors import RejectedError
from marketplace_core.registry.location import Level, Location, feeders_below, validate_locations
from marketplace_core.settlement.dispute import DisputeState, open_dispute, resolve_dispute
from marketplace_core.settlement.statement import StatementLine
from marketplace_core.units import Kw

AT = datetime(2017, 7, 21, tzinfo=UTC)


def place(name: str, level: Level, parent: str | None) -> Location:
    return Location(id=name, name=name, level=level, parent=parent)


TREE = {
    each.id: each
    for each in (
        place("US", Level.COUNTRY, None), place("Z1", Level.ZONE, "US"),
        place("Z2", Level.ZONE, "US"), place("S1", Level.SUBSTATION, "Z1"),
        place("F1", Level.FEEDER, "S1"), place("F2", Level.FEEDER, "Z1"),
        place("F3", Level.FEEDER, "Z2"),
    )
}  # fmt: skip


@pytest.mark.parametrize(
    ("root", "feeders"),
    [("US", {"F1", "F2", "F3"}), ("Z1", {"F1", "F2"}), ("S1", {"F1"}), ("F3", {"F3"}),
     ("F9", {"F9"})],
)  # fmt: skip
def test_feeders_below_a_place(root: str, feeders: set[str]) -> None:
    assert feeders_below(TREE.values(), root) == feeders


@pytest.mark.parametrize(
    "placed",
    [
        [place("F4", Level.FEEDER, None)],
        [place("F4", Level.FEEDER, "S9")],
        [place("S2", Level.SUBSTATION, "F1")],
        [place("Z3", Level.ZONE, "Z1")],
        [place("Z1", Level.FEEDER, "US")],
    ],
)
def test_what_does_not_fit_is_refused(placed: list[Location]) -> None:
    with pytest.raises(RejectedError) as caught:
        validate_locations(TREE, placed)
    assert caught.value.field == "parent"


def test_a_place_may_come_with_its_parent_in_any_order() -> None:
    validate_locations({}, [place("F1", Level.FEEDER, "US"), place("US", Level.COUNTRY, None)])


LINE = StatementLine(
    id="stl_1", order_id="ord_1", contract_id="ctr_1", seller="org_s", version=1,
    item="utilisation", quantity=Decimal(1), unit="kWh", price=Decimal(1), amount=Decimal("1.00"),
    currency="GBP", explains="",
)  # fmt: skip


def test_a_dispute_is_about_the_version_that_stands() -> None:
    with pytest.raises(RejectedError, match="version 2 stands"):
        open_dispute(
            LINE, "org_b", dispute_id="dsp_1", by="org_s", at=AT, reason="low", newest_version=2
        )


@pytest.mark.parametrize(
    ("accept", "state"), [(True, DisputeState.ACCEPTED), (False, DisputeState.REJECTED)]
)
def test_a_dispute_is_decided_once_with_its_reason(*, accept: bool, state: DisputeState) -> None:
    made = open_dispute(
        LINE, "org_b", dispute_id="dsp_1", by="org_s", at=AT, reason="low", newest_version=1
    )
    decided = resolve_dispute(made, accept=accept, resolution="the meter is right", at=AT)
    assert (decided.state, decided.resolution, decided.resolved_at) == (
        state, "the meter is right", AT,
    )  # fmt: skip
    with pytest.raises(RejectedError) as caught:
        resolve_dispute(decided, accept=not accept, resolution="", at=AT)
    assert caught.value.rule == "a dispute is decided once"


@pytest.mark.parametrize(
    ("meaning", "bounds", "fallback", "power"),
    [
        (StopMeaning.RELEASE, (-5, 5), -1.0, None),
        (StopMeaning.ZERO, (-5, 5), None, 0.0),
        (StopMeaning.ZERO, (-5, -2), None, -2.0),
        (StopMeaning.FALLBACK, (-5, 5), -1.0, -1.0),
        (StopMeaning.FALLBACK, (-5, 5), None, None),
    ],
)
def test_what_stop_means_for_a_device(
    meaning: StopMeaning, bounds: tuple[float, float], fallback: float | None, power: float | None
) -> None:
    profile = DeviceProfile(
        device_id="d", protocol="mqtt", min_kw=Kw(bounds[0]), max_kw=Kw(bounds[1]),
        fallback_kw=None if fallback is None else Kw(fallback),
    )  # fmt: skip
    assert stop_power(profile, meaning) == power
    assert msgspec.json.decode(msgspec.json.encode(meaning), type=StopMeaning) is meaning
