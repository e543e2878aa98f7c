"""Delivered energy: measured against the baseline that the contract names."""

from __future__ import annotations

from typing import Final

from marketplace_core.events import DeliveryVerified, WindowClosed
from marketplace_core.procurement.contract import Contract
from marketplace_core.provenance import Confidence, Rule, Source
from marketplace_core.results import BaselineRefused, BaselineResult
from marketplace_core.units import Kw, Kwh


class DeliveryRule(Rule, frozen=True, kw_only=True):
    """Parameters of verification."""

    min_coverage: float
    """Least coverage (0..1) of a settlement period; below it nothing counts as delivered."""


DELIVERY: Final = DeliveryRule(
    id="measured_minus_baseline",
    title="Measured minus baseline, where the readings cover enough of the period",
    sources=(
        Source(
            states="least coverage of a period",
            work="Flexway",
            as_of="2026-11",
            confidence=Confidence.OWN,
        ),
    ),
    min_coverage=0.8,
)


def verify(
    window: WindowClosed,
    contract: Contract,
    baseline: BaselineResult,
    index: int,
    rule: DeliveryRule = DELIVERY,
) -> DeliveryVerified:
    """Delivered energy of one closed window.

    `index` is the window's place among the settlement periods of the order, and so in
    `baseline.kw`. Nothing is delivered where the baseline was refused or the readings
    cover too little; `note` then says why.

    Raises:
        IndexError: the baseline has no such period.
    """
    notes: list[str] = []
    baseline_kw: Kw | None = None
    days: tuple[str, ...] = ()
    if isinstance(baseline, BaselineRefused):
        notes.append(f"nothing counts: the baseline was refused: {baseline.reason}")
    else:
        baseline_kw, days = _at(baseline.kw, index), baseline.days
        notes += [baseline.note] if baseline.note else []
    if window.coverage < rule.min_coverage:
        notes.append(
            f"nothing counts: readings cover {window.coverage:.1%} of the period,"
            f" {rule.min_coverage:.0%} are needed"
        )
    delivered = Kwh(0.0)
    if baseline_kw is not None and window.coverage >= rule.min_coverage:
        change = contract.direction.sign * (window.measured_kw - baseline_kw)
        delivered = Kwh(change * window.period.hours)
    return DeliveryVerified(
        order_id=window.order_id,
        revision=window.revision,
        contract_id=window.contract_id,
        period=window.period,
        version=window.version,
        instructed_kw=window.instructed_kw,
        measured_kw=window.measured_kw,
        baseline_kw=baseline_kw,
        delivered_kwh=delivered,
        coverage=window.coverage,
        baseline_method=contract.baseline,
        baseline_days=days,
        note="; ".join(notes),
    )


def _at(kw: tuple[Kw, ...], index: int) -> Kw:
    if not 0 <= index < len(kw):
        msg = f"the baseline has {len(kw)} periods, none with index {index}"
        raise IndexError(msg)
    return kw[index]
