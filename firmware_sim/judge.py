"""Holds a report against what was true: energy that was delivered, and faults that happened.

The market never sees the truth; this compares after the fact. Energy delivered is what the
contract's meters really did less what they would have done had nobody commanded, in the
direction of the order.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from firmware_sim.judge_faults import Happened, match
from firmware_sim.scenario import Scenario, SuggestedBid
from firmware_sim.world import World
from marketplace_core.errors import ConfigError
from marketplace_core.intervals import instant
from marketplace_core.units import Direction

_MINUTE_H = 1.0 / 60.0
_UNITS_KWH = {"kWh": Decimal(1), "MWh": Decimal(1000)}
Json = Mapping[str, Any]
Powers = Mapping[tuple[str, int], float]
"""Mean kW of a device in a minute, by device and Unix minute."""
_LEAST_KWH: Final = 0.05
"""Below it no share is said of what was delivered."""


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one seller in one order, positive when it went the way that was asked."""

    order: str
    seller: str
    delivered_kwh: float
    """In truth."""
    settled_kwh: float
    """As the statement has it; where its lines name no order, as the windows would be paid."""
    error_pct: float | None
    """Of the settled energy; None when nothing was delivered."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The report's section on truth."""

    delivered_kwh: float
    settled_kwh: float
    error_pct: float | None
    """Signed: what one seller was paid too much cancels what another was paid too little."""
    abs_error_pct: float | None
    """The same with the errors of orders and sellers summed without their signs."""
    orders: tuple[Energy, ...]
    injected: tuple[Happened, ...]
    misses: tuple[Happened, ...]
    false_alarms: tuple[Happened, ...]


def judge(scenario: Scenario, world: World, report: Json, powers: tuple[Powers, Powers]) -> Verdict:
    """Compare; `powers` are the truth and the counterfactual.

    Raises: ConfigError when the report or the truth lacks what is needed.
    """
    try:
        energies = _energies(scenario, report, powers)
        settled = _settled_kwh(report["statement"])
        injected, false_alarms = match(scenario, world.faults, report)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        msg = f"the report and the truth do not fit together: {error!r}"
        raise ConfigError(msg) from error
    delivered = sum(one.delivered_kwh for one in energies)
    return Verdict(
        delivered_kwh=delivered,
        settled_kwh=settled,
        error_pct=_error_pct(settled - delivered, delivered),
        abs_error_pct=_error_pct(
            sum(abs(one.settled_kwh - one.delivered_kwh) for one in energies), delivered
        ),
        orders=tuple(energies),
        injected=injected,
        misses=tuple(one for one in injected if one.after_intervals is None),
        false_alarms=false_alarms,
    )


def read_report(path: Path) -> Json:
    """A report. Raises ConfigError when it is none."""
    try:
        report: Json = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        msg = f"{path} is no report: {error}"
        raise ConfigError(msg) from error
    return report


def read_truth(path: Path) -> Powers:
    """Rows of powers; rows of faults are passed over. Raises ConfigError for a bad file."""
    decoder = msgspec.json.Decoder(_TruthRow)
    powers = {}
    try:
        rows = decoder.decode_lines(path.read_bytes())
    except (OSError, msgspec.MsgspecError) as error:
        msg = f"{path} holds no truth: {error}"
        raise ConfigError(msg) from error
    for row in rows:
        if row.power_kw is not None:
            powers[row.device, _minute(row.at)] = row.power_kw
    return powers


def save(verdict: Verdict, out: Path) -> None:
    """Write a verdict as indented JSON."""
    out.write_bytes(msgspec.json.format(msgspec.json.encode(verdict), indent=2) + b"\n")


def summary(verdict: Verdict) -> str:
    """A verdict in one line."""
    error = "nothing to compare"
    if verdict.error_pct is not None:
        error = f"{verdict.error_pct:+.1f} %, {verdict.abs_error_pct:.1f} % without signs"
    return (
        f"delivered {verdict.delivered_kwh:.1f} kWh,"
        f" settled {verdict.settled_kwh:.1f} kWh ({error});"
        f" {len(verdict.injected)} faults, {len(verdict.misses)} missed,"
        f" {len(verdict.false_alarms)} false alarms"
    )


class _TruthRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    at: datetime
    device: str
    power_kw: float | None = None


def _energies(scenario: Scenario, report: Json, powers: tuple[Powers, Powers]) -> list[Energy]:
    directions = {each["id"]: Direction(each["direction"]) for each in report["orders"]}
    windows: dict[tuple[str, str], list[Json]] = defaultdict(list)
    for window in report["windows"]:
        windows[window["order"], window["seller"]].append(window)
    named = all("order" in line for line in report["statement"])
    found = []
    for (order, seller), own in sorted(windows.items()):
        direction = directions[order]
        meters = _meters(scenario, report, direction, own)
        starts = sorted({instant(each["start"]) for each in own})
        moved = sum(_moved_kwh(powers, meters, at, scenario.market.grid_minutes) for at in starts)
        delivered = direction.sign * moved
        settled = _payable_kwh(own, scenario.market.grid_minutes)
        if named:
            lines = [
                line for line in report["statement"]
                if (line["order"], line["seller"]) == (order, seller)
            ]  # fmt: skip
            settled = _settled_kwh(lines)
        found.append(
            Energy(
                order=order, seller=seller, delivered_kwh=delivered, settled_kwh=settled,
                error_pct=_error_pct(settled - delivered, delivered),
            )
        )  # fmt: skip
    return found


def _meters(
    scenario: Scenario, report: Json, direction: Direction, windows: Sequence[Json]
) -> list[str]:
    """Series at which a seller's contracts of one order are measured, each once."""
    order, seller = windows[0]["order"], windows[0]["seller"]
    event = scenario.market.event(direction).name
    bids = [one for one in scenario.bids if one.event == event and one.seller == seller]
    won = _won(bids, report, order, len({window["contract"] for window in windows}))
    names = {name for bid in won for name in bid.assets}
    return sorted({asset.meter for asset in scenario.assets if asset.id in names})


def _won(
    bids: Sequence[SuggestedBid], report: Json, order: str, contracts: int
) -> Sequence[SuggestedBid]:
    """Bids of a seller that became contracts: by the awards, else the cheapest so many."""
    awards = [one for one in report.get("awards", ()) if one["order"] == order]
    if awards:
        prices = {Decimal(str(one["price"])) for one in awards if one["accepted"]}
        return [one for one in bids if one.price in prices]
    return sorted(bids, key=lambda one: one.price)[:contracts]


def _moved_kwh(
    powers: tuple[Powers, Powers], meters: Iterable[str], start: datetime, minutes: int
) -> float:
    """Energy by which meters differ from what they would have shown, injection positive."""
    truth, otherwise = powers
    first = _minute(start)
    keys = [(meter, minute) for meter in meters for minute in range(first, first + minutes)]
    return sum(truth[key] - otherwise[key] for key in keys) * _MINUTE_H


def _payable_kwh(windows: Iterable[Json], minutes: int) -> float:
    paid = sum(min(max(0.0, w["delivered_kw"]), w["instructed_kw"]) for w in windows)
    return float(paid) * minutes * _MINUTE_H


def _settled_kwh(lines: Iterable[Json]) -> float:
    """Energy of statement lines; lines in other units are not about energy."""
    return float(
        sum(
            Decimal(str(line["quantity"])) * _UNITS_KWH[line["unit"]]
            for line in lines
            if line["unit"] in _UNITS_KWH
        )
    )


def _error_pct(error: float, delivered: float) -> float | None:
    """A share of next to nothing says nothing."""
    return None if abs(delivered) < _LEAST_KWH else 100.0 * error / abs(delivered)


def _minute(at: datetime) -> int:
    return int(at.timestamp() // 60)
