"""Past-tense facts: what the journal holds.

`STREET` ranks the facts of a dispatch from left to right. A stage consumes what
stands left of everything it emits; the architecture test holds every stage to it.
Market facts (needs, bids, contracts) stand beside the street and have no rank.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from marketplace_core.dispatch.order import Allocation, Call, Exclusion, Order, Shortfall
from marketplace_core.dispatch.setpoint import Applied, Refused, Setpoint, Unconfirmed, Unreachable
from marketplace_core.dispatch.stop import StopOutcome
from marketplace_core.intervals import Interval
from marketplace_core.procurement.bid import Bid, Clearing
from marketplace_core.procurement.contract import Contract
from marketplace_core.procurement.need import Need
from marketplace_core.registry.asset import Asset
from marketplace_core.registry.location import Location
from marketplace_core.settlement.dispute import Dispute
from marketplace_core.settlement.statement import Posting, StatementLine
from marketplace_core.units import Kw, Kwh
from marketplace_core.verification.flags import Flag


class OrderFact(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind"):
    """A fact on the street: belongs to one revision of one order."""

    order_id: str
    revision: int = 0


class OrderSubmitted(OrderFact, frozen=True, kw_only=True):
    """Intake accepted an order; from here on it is durable."""

    order: Order


class OrderRevised(OrderFact, frozen=True, kw_only=True):
    """A running order enters the street again, to be planned anew for what is left of it."""

    order: Order
    """With the new revision and the interval that is left."""
    short: tuple[Shortfall, ...]
    missing: tuple[tuple[str, Kw], ...]
    """Contract id and the kilowatts that its own devices cannot make up."""
    reason: str


class OrderStopped(OrderFact, frozen=True, kw_only=True):
    """Somebody ended an order before its time: nothing is instructed from `at` on."""

    at: datetime
    by: str
    """Organisation."""
    reason: str = ""


class OrderRejected(OrderFact, frozen=True, kw_only=True):
    """No contract can serve the order."""

    reason: str


class OrderAwarded(OrderFact, frozen=True, kw_only=True):
    """The merit order over the contracts says who is called for how much."""

    calls: tuple[Call, ...]
    shortfall_kw: Kw
    """Part of the order that no contract covers."""


class OrderInfeasible(OrderFact, frozen=True, kw_only=True):
    """No device can deliver any part of what was called."""

    missing_kw: Kw
    excluded: tuple[Exclusion, ...]


class OrderPlanned(OrderFact, frozen=True, kw_only=True):
    """Contract kilowatts became each device's kilowatts."""

    interval: Interval
    allocations: tuple[Allocation, ...]
    missing_kw: Kw
    """Part of the calls that no device could take."""
    excluded: tuple[Exclusion, ...]


class SetpointsIssued(OrderFact, frozen=True, kw_only=True):
    """Written before anything goes on the wire: what we are about to ask of devices."""

    setpoints: tuple[Setpoint, ...]


class SetpointsApplied(OrderFact, frozen=True, kw_only=True):
    """Devices acknowledged, and read back the value where they can."""

    outcomes: tuple[Applied, ...]


class SetpointsRefused(OrderFact, frozen=True, kw_only=True):
    """Devices, profiles or owners said no."""

    outcomes: tuple[Refused, ...]


class SetpointsUnreachable(OrderFact, frozen=True, kw_only=True):
    """Devices that could not be talked to: nothing was written."""

    outcomes: tuple[Unreachable, ...]


class SetpointsUnconfirmed(OrderFact, frozen=True, kw_only=True):
    """Setpoints that may or may not be in force, or expired unanswered. Never repeated."""

    outcomes: tuple[Unconfirmed, ...]


class WindowClosed(OrderFact, frozen=True, kw_only=True):
    """All readings of one settlement period of one contract that will be waited for are in."""

    contract_id: str
    period: Interval
    version: int
    instructed_kw: Kw
    """Flexibility called for in this period, positive."""
    measured_kw: Kw
    """Mean power at the measurement point, injection positive, over what is covered."""
    coverage: float
    """Share of the period (0..1) that readings cover, over all series of the contract."""
    gaps: int
    """Count of spans without readings."""
    series: tuple[str, ...]
    """Reading series that the figure was computed from."""


class DeliveryVerified(OrderFact, frozen=True, kw_only=True):
    """Measured against the contract's baseline."""

    contract_id: str
    period: Interval
    version: int
    instructed_kw: Kw
    measured_kw: Kw
    baseline_kw: Kw | None
    """None when the method refused; then nothing is delivered and `note` says why."""
    delivered_kwh: Kwh
    """direction.sign * (measured - baseline) * hours; negative when it went the wrong way."""
    coverage: float
    baseline_method: str
    baseline_days: tuple[str, ...]
    """ISO dates of the days the baseline used."""
    note: str = ""


class ReboundMeasured(DeliveryVerified, frozen=True, kw_only=True):
    """A settlement period after the order: what its devices take back. Nothing is owed for it."""


class OrderSettled(OrderFact, frozen=True, kw_only=True):
    """Statement lines and their double entries."""

    version: int
    lines: tuple[StatementLine, ...]
    postings: tuple[Posting, ...]


class MarketFact(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind"):
    """A fact beside the street: needs, bids and contracts."""


class AssetsRegistered(MarketFact, frozen=True, kw_only=True):
    """An organisation registered assets."""

    organisation: str
    assets: tuple[Asset, ...]


class NeedPublished(MarketFact, frozen=True, kw_only=True):
    """A buyer asks the market for flexibility."""

    need: Need


class BidPlaced(MarketFact, frozen=True, kw_only=True):
    """A seller made an offer."""

    bid: Bid


class AuctionCleared(MarketFact, frozen=True, kw_only=True):
    """Every bid of a need has its outcome and its reason."""

    clearing: Clearing
    contracts: tuple[Contract, ...]
    """Contracts offered for signature."""


class ContractSigned(MarketFact, frozen=True, kw_only=True):
    """One side signed."""

    contract_id: str
    organisation: str
    at: datetime


class DeviceFlagged(MarketFact, frozen=True, kw_only=True):
    """Something is wrong with a device; a person decides what follows from it."""

    flag: Flag


class LocationsPlaced(MarketFact, frozen=True, kw_only=True):
    """An operator drew part of the network tree."""

    locations: tuple[Location, ...]


class OrganisationRegistered(MarketFact, frozen=True, kw_only=True):
    """An operator let an organisation in."""

    organisation: str
    name: str
    by: str


class OrganisationSuspended(MarketFact, frozen=True, kw_only=True):
    """An operator shut an organisation out until further notice."""

    organisation: str
    reason: str
    by: str


class OrganisationReinstated(MarketFact, frozen=True, kw_only=True):
    """An operator let a suspended organisation in again."""

    organisation: str
    by: str


class DisputeOpened(MarketFact, frozen=True, kw_only=True):
    """A side of a statement line says that it is wrong."""

    dispute: Dispute


class DisputeResolved(MarketFact, frozen=True, kw_only=True):
    """An operator decided a dispute."""

    dispute: Dispute


class EmergencyStopped(MarketFact, frozen=True, kw_only=True):
    """Somebody stopped devices past every queue. Written while the devices are being told."""

    emergency_id: str
    by: str
    """Organisation."""
    scope: str
    reason: str
    at: datetime
    devices: tuple[tuple[str, str], ...]
    """Device id and what stop means for it: `release`, `zero` or `fallback`."""
    orders: tuple[str, ...]
    """Orders that end with it."""


class EmergencyAnswered(MarketFact, frozen=True, kw_only=True):
    """What became of an emergency stop at each device."""

    emergency_id: str
    outcomes: tuple[StopOutcome, ...]
    latency_s: float
    """Wall seconds from the request until the last device had answered or was given up."""


StreetFact = (
    OrderSubmitted
    | OrderRevised
    | OrderStopped
    | OrderRejected
    | OrderAwarded
    | OrderInfeasible
    | OrderPlanned
    | SetpointsIssued
    | SetpointsApplied
    | SetpointsRefused
    | SetpointsUnreachable
    | SetpointsUnconfirmed
    | WindowClosed
    | DeliveryVerified
    | ReboundMeasured
    | OrderSettled
)
AnyMarketFact = (
    AssetsRegistered
    | NeedPublished
    | BidPlaced
    | AuctionCleared
    | ContractSigned
    | DeviceFlagged
    | LocationsPlaced
    | OrganisationRegistered
    | OrganisationSuspended
    | OrganisationReinstated
    | DisputeOpened
    | DisputeResolved
    | EmergencyStopped
    | EmergencyAnswered
)
Fact = StreetFact | AnyMarketFact

STREET: Final[tuple[tuple[type[OrderFact], ...], ...]] = (
    (OrderSubmitted, OrderRevised, OrderStopped),
    (OrderAwarded, OrderRejected),
    (OrderPlanned, OrderInfeasible),
    (SetpointsIssued,),
    (SetpointsApplied, SetpointsRefused, SetpointsUnreachable, SetpointsUnconfirmed),
    (WindowClosed,),
    (DeliveryVerified, ReboundMeasured),
    (OrderSettled,),
)
"""Left to right; facts of one tuple stand side by side."""

RANK: Final[dict[type[OrderFact], int]] = {
    kind: rank for rank, kinds in enumerate(STREET) for kind in kinds
}
"""Rank of each street fact, 0 = leftmost."""

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_DECODER: Final = msgspec.json.Decoder(Fact)


def encode_fact(fact: Fact) -> bytes:
    """Canonical JSON of a fact: the bytes that the journal hashes."""
    return _ENCODER.encode(fact)


def decode_fact(data: bytes) -> Fact:
    """Parse what `encode_fact` wrote; raises msgspec.ValidationError."""
    fact: Fact = _DECODER.decode(data)
    return fact
