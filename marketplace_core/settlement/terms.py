"""Settlement terms: strategies that turn verified deliveries into what is paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol

import msgspec

from marketplace_core.errors import RejectedError
from marketplace_core.events import DeliveryVerified
from marketplace_core.procurement.contract import Contract
from marketplace_core.provenance import Confidence, Rule, Source
from marketplace_core.units import Kwh, Money, to_watt_hours

_MWH_TO_KWH: Final = -3
"""Power of ten from a price per MWh to a price per kWh: a shift, so it stays exact."""


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is paid under some terms: quantity times price."""

    item: str
    quantity: Decimal
    unit: str
    price: Decimal
    """Per `unit`, exact."""
    amount: Decimal
    """`quantity * price`, rounded once, half-even to the cent."""
    explains: str


class SettlementTerms(Protocol):
    """Terms that a contract may name."""

    @property
    def rule(self) -> Rule:
        """The named, dated rule."""

    def charges(
        self, contract: Contract, deliveries: Sequence[DeliveryVerified]
    ) -> tuple[Charge, ...]:
        """What one order owes under the contract; at most one delivery per period."""


UTILISATION: Final = Rule(
    id="utilisation",
    title="Energy delivered, up to what was instructed, at the utilisation price",
    sources=(
        Source(
            states="per settlement period the lesser of delivered and instructed"
            " times the utilisation price",
            work="SSEN TRANSITION",
            as_of="2026-11",
            confidence=Confidence.READ,
        ),
    ),
)


@dataclass(frozen=True)
class Utilisation:
    """Pays energy alone: never for more than was asked, never less than nothing."""

    rule: Rule

    def charges(
        self, contract: Contract, deliveries: Sequence[DeliveryVerified]
    ) -> tuple[Charge, ...]:
        """One charge; each period counts in whole watt-hours, so that they add up exactly."""
        ordered = sorted(deliveries, key=lambda each: each.period)
        quantity = sum((_payable(each) for each in ordered), Decimal("0.000"))
        price = contract.utilisation_price.scaleb(_MWH_TO_KWH)
        return (
            Charge(
                item=self.rule.id,
                quantity=quantity,
                unit="kWh",
                price=price,
                amount=Money(quantity * price, contract.currency).rounded().amount,
                explains=self._explain(contract, ordered),
            ),
        )

    def _explain(self, contract: Contract, deliveries: Sequence[DeliveryVerified]) -> str:
        periods = "; ".join(_explain_period(each) for each in deliveries) or "no period"
        days = sorted({day for each in deliveries for day in each.baseline_days})
        used = f" over {', '.join(days)}" if days else ""
        return (
            f"Baseline {contract.baseline}{used}. Periods: {periods}."
            f" Terms {self.rule.id}: {self.rule.source}."
        )


def _payable(delivery: DeliveryVerified) -> Decimal:
    """Energy of one period in kWh that is paid."""
    instructed = to_watt_hours(Kwh(delivery.instructed_kw * delivery.period.hours))
    delivered = to_watt_hours(delivery.delivered_kwh)
    return max(Decimal("0.000"), min(delivered, instructed))


def _explain_period(delivery: DeliveryVerified) -> str:
    instructed = to_watt_hours(Kwh(delivery.instructed_kw * delivery.period.hours))
    text = (
        f"{delivery.period.start:%Y-%m-%dT%H:%MZ} {_payable(delivery)} kWh"
        f" (delivered {to_watt_hours(delivery.delivered_kwh)}, instructed {instructed},"
        f" version {delivery.version})"
    )
    return f"{text} [{delivery.note}]" if delivery.note else text


TERMS: Final[Mapping[str, SettlementTerms]] = {
    terms.rule.id: terms for terms in (Utilisation(UTILISATION),)
}
"""Every settlement terms by the id that contracts name."""


def terms_of(contract: Contract) -> SettlementTerms:
    """The terms that a contract names. Raises RejectedError when there are none such."""
    found = TERMS.get(contract.terms)
    if found is None:
        raise RejectedError(
            f"contract {contract.id} names terms {contract.terms!r}", field="terms",
            rule="a contract names terms of the registry",
            remedy=f"choose from {', '.join(TERMS)}",
        )  # fmt: skip
    return found
