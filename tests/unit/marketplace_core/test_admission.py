"""Needs, bids and assets that the market does not admit."""

from __future__ import annotations

import math
from decimal import Decimal

import msgspec
import pytest

from marketplace_core.commands import PlaceBid, PublishNeed
from marketplace_core.errors import RejectedError
from marketplace_core.intervals import Interval, instant
from marketplace_core.procurement.admission import validate_bid, validate_need
from marketplace_core.procurement.need import Need
from marketplace_core.registry.asset import Asset, MeasurementPoint
from marketplace_core.registry.rules import validate_assets
from marketplace_core.units import Direction, Kw

WINDOW = Interval(instant("2017-07-20T22:00:00Z"), instant("2017-07-21T04:00:00Z"))
NEED = Need(
    id="need_1", buyer="org_dso", feeder="fdr_1", direction=Direction.DOWN, kw=Kw(50.0),
    window=WINDOW, price_cap=Decimal(600), currency="GBP", baseline="caiso_10_of_10",
    allowed_baselines=("zero",),
)  # fmt: skip
PUBLISH = PublishNeed(
    feeder="fdr_1", direction=Direction.UP, kw=Kw(50.0), window=WINDOW,
    price_cap=Decimal(600), currency="GBP",
)  # fmt: skip
BID = PlaceBid(
    need_id="need_1", assets=("ast_1", "ast_2"), kw=Kw(7.0), utilisation_price=Decimal(100)
)


def asset(name: str, **changes: object) -> Asset:
    base = Asset(
        id=name, organisation="org_s", feeder="fdr_1", technology="battery", devices=(f"d_{name}",),
        meter=f"m_{name}", measurement_point=MeasurementPoint.DEVICE, up_kw=Kw(9.0),
        down_kw=Kw(3.5),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


ASSETS = {name: asset(name) for name in ("ast_1", "ast_2")}


def refused_field(bid: PlaceBid, assets: dict[str, Asset]) -> str:
    with pytest.raises(RejectedError) as caught:
        validate_bid(NEED, bid, assets, "org_s")
    assert caught.value.rule
    return caught.value.field


def test_a_bid_at_the_registered_capability_in_the_needs_direction_is_admitted() -> None:
    validate_bid(NEED, BID, ASSETS, "org_s")
    validate_bid(NEED, msgspec.structs.replace(BID, baseline="zero"), ASSETS, "org_s")
    validate_bid(NEED, msgspec.structs.replace(BID, baseline="caiso_10_of_10"), ASSETS, "org_s")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kw": 0.0}, "kw"),
        ({"kw": -1.0}, "kw"),
        ({"kw": math.nan}, "kw"),
        ({"kw": 7.01}, "kw"),
        ({"min_kw": 7.5}, "min_kw"),
        ({"min_kw": -1.0}, "min_kw"),
        ({"utilisation_price": Decimal(-1)}, "utilisation_price"),
        ({"utilisation_price": Decimal("NaN")}, "utilisation_price"),
        ({"assets": ()}, "assets"),
        ({"assets": ("ast_1", "ast_1")}, "assets"),
        ({"baseline": "meter_before_after"}, "baseline"),
    ],
)
def test_a_bid_that_breaks_a_rule_is_refused_by_field(
    changes: dict[str, object], field: str
) -> None:
    assert refused_field(msgspec.structs.replace(BID, **changes), ASSETS) == field


@pytest.mark.parametrize(
    "changes",
    [
        {"feeder": "fdr_2"},
        {"organisation": "org_other"},
        {"measurement_point": MeasurementPoint.SITE_NET},
    ],
)
def test_a_bid_with_an_unfit_asset_is_refused(changes: dict[str, object]) -> None:
    assert refused_field(BID, ASSETS | {"ast_2": asset("ast_2", **changes)}) == "assets"


def test_somebody_elses_asset_and_no_asset_are_refused_in_the_same_words() -> None:
    words = []
    for assets in ({"ast_1": asset("ast_1")}, ASSETS | {"ast_2": asset("ast_2", organisation="x")}):
        with pytest.raises(RejectedError) as caught:
            validate_bid(NEED, BID, assets, "org_s")
        words.append((caught.value.message, caught.value.rule, caught.value.remedy))
    assert words[0] == words[1]


def test_a_sound_need_is_admitted() -> None:
    validate_need(PUBLISH)
    validate_need(msgspec.structs.replace(PUBLISH, allowed_baselines=("zero",)))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kw": 0.0}, "kw"),
        ({"kw": math.inf}, "kw"),
        ({"price_cap": Decimal(-1)}, "price_cap"),
        ({"min_bid_kw": -1.0}, "min_bid_kw"),
        ({"currency": "pounds"}, "currency"),
        ({"currency": "gbp"}, "currency"),
        ({"baseline": "guess"}, "baseline"),
        ({"allowed_baselines": ("zero", "guess")}, "baseline"),
    ],
)
def test_a_need_that_breaks_a_rule_is_refused_by_field(
    changes: dict[str, object], field: str
) -> None:
    with pytest.raises(RejectedError) as caught:
        validate_need(msgspec.structs.replace(PUBLISH, **changes))
    assert caught.value.field == field


def test_sound_assets_are_registered() -> None:
    validate_assets("org_s", list(ASSETS.values()))
    validate_assets("org_s", [asset("a", up_kw=0.0), asset("b", down_kw=0.0)])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"organisation": "org_other"}, "organisation"),
        ({"feeder": " "}, "feeder"),
        ({"meter": ""}, "meter"),
        ({"devices": ()}, "devices"),
        ({"up_kw": -1.0}, "up_kw"),
        ({"down_kw": math.nan}, "down_kw"),
        ({"up_kw": 0.0, "down_kw": 0.0}, "up_kw"),
        ({"devices": ("d_ast_2",)}, "devices"),
        ({"id": "ast_2"}, "id"),
    ],
)
def test_an_asset_that_breaks_a_rule_is_refused_by_field(
    changes: dict[str, object], field: str
) -> None:
    with pytest.raises(RejectedError) as caught:
        validate_assets("org_s", [asset("ast_1", **changes), asset("ast_2")])
    assert caught.value.field == field
