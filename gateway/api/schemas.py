"""Request bodies. Unknown fields are refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.api.instants import Instant
from gateway.emergency import Scope
from marketplace_core.commands import PlaceBid, PublishNeed, SubmitOrder
from marketplace_core.dispatch.stop import StopMeaning
from marketplace_core.intervals import Interval
from marketplace_core.registry.asset import Asset, MeasurementPoint
from marketplace_core.registry.location import Level, Location
from marketplace_core.units import Direction, Kw
from marketplace_core.verification.reading import Reading

_Name = Annotated[str, Field(min_length=1, max_length=64, pattern="^[A-Za-z0-9_.:-]+$")]
_Power = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
_Text = Annotated[str, Field(max_length=2_000)]
_Price = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=4)]


class Body(BaseModel):
    """Base of every request body."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SpanBody(Body):
    """A half-open span of time; instants carry an offset."""

    start: Instant
    end: Instant

    @model_validator(mode="after")
    def _ends_after_start(self) -> SpanBody:
        if self.end <= self.start:
            raise ValueError("end must be after start")
        return self

    def interval(self) -> Interval:
        """As a core interval."""
        return Interval(self.start, self.end)


class AssetBody(Body):
    """One asset to register."""

    id: _Name
    feeder: _Name
    technology: _Name
    devices: tuple[_Name, ...] = Field(min_length=1)
    meter: _Name
    measurement_point: Literal["site_net", "gross_load", "device"]
    up_kw: float = Field(default=0.0, ge=0, le=1e6)
    down_kw: float = Field(default=0.0, ge=0, le=1e6)

    def asset(self, organisation: str) -> Asset:
        """As the register's asset, owned by `organisation`."""
        fields = self.model_dump(exclude={"measurement_point", "up_kw", "down_kw"})
        return Asset(
            organisation=organisation,
            measurement_point=MeasurementPoint(self.measurement_point),
            up_kw=Kw(self.up_kw),
            down_kw=Kw(self.down_kw),
            **fields,
        )


class NeedBody(Body):
    """A need to publish."""

    feeder: _Name
    direction: Literal["UP", "DOWN"]
    kw: _Power
    window: SpanBody
    price_cap: _Price
    currency: str = Field(pattern="^[A-Z]{3}$")
    min_bid_kw: float = Field(default=0.0, ge=0)
    baseline: _Name = "caiso_10_of_10"
    allowed_baselines: tuple[_Name, ...] = ()

    def command(self) -> PublishNeed:
        """As a command."""
        return PublishNeed(
            feeder=self.feeder,
            direction=Direction(self.direction),
            kw=Kw(self.kw),
            window=self.window.interval(),
            price_cap=self.price_cap,
            currency=self.currency,
            min_bid_kw=Kw(self.min_bid_kw),
            baseline=self.baseline,
            allowed_baselines=self.allowed_baselines,
        )


class BidBody(Body):
    """A bid to place."""

    assets: tuple[_Name, ...] = Field(min_length=1)
    kw: _Power
    utilisation_price: _Price
    divisible: bool = True
    min_kw: float = Field(default=0.0, ge=0)
    baseline: str = ""

    def command(self, need_id: str) -> PlaceBid:
        """As a command."""
        return PlaceBid(
            need_id=need_id,
            assets=self.assets,
            kw=Kw(self.kw),
            utilisation_price=self.utilisation_price,
            divisible=self.divisible,
            min_kw=Kw(self.min_kw),
            baseline=self.baseline,
        )


class DryRunBody(Body):
    """An order to try out."""

    need_id: _Name
    kw: _Power
    interval: SpanBody

    def command(self) -> SubmitOrder:
        """As a command."""
        return SubmitOrder(need_id=self.need_id, kw=Kw(self.kw), interval=self.interval.interval())


class OrderBody(DryRunBody):
    """An order to submit."""

    confirm: str | None = Field(default=None, max_length=2_000)
    """Token of the dry run that showed this order."""


class StopBody(Body):
    """Why an order is ended early."""

    reason: _Text = ""


class ScopeBody(Body):
    """Which devices are meant."""

    kind: Literal["feeder", "organisation", "all"]
    id: Annotated[str, Field(max_length=64)] = ""

    @model_validator(mode="after")
    def _names_it(self) -> ScopeBody:
        if (self.kind == "all") != (self.id == ""):
            raise ValueError("give the id of a feeder or organisation, and none for all")
        return self

    def scope(self) -> Scope:
        """As a scope."""
        return Scope(kind=self.kind, id=self.id)


class EmergencyBody(Body):
    """What to stop at once."""

    scope: ScopeBody
    meaning: StopMeaning = StopMeaning.RELEASE
    """What stop means for a device."""
    devices: dict[_Name, StopMeaning] = Field(default_factory=dict, max_length=100_000)
    """Devices for which it means something else."""
    reason: _Text


class OrganisationBody(Body):
    """An organisation to let in."""

    id: _Name
    name: str = Field(min_length=1, max_length=200)


class SuspensionBody(Body):
    """Why an organisation is shut out."""

    reason: _Text


class LocationBody(Body):
    """One place of the network tree."""

    id: _Name
    name: str = Field(min_length=1, max_length=200)
    level: Level
    parent: _Name | None = None

    def location(self) -> Location:
        """As a place of the tree."""
        return Location(id=self.id, name=self.name, level=self.level, parent=self.parent)


class ReadingBody(Body):
    """One reading of a meter: mean power over a span."""

    series: _Name
    start: Instant
    seconds: float = Field(ge=1.0, le=86_400.0)
    power_kw: float = Field(ge=-1e6, le=1e6)

    def reading(self) -> Reading:
        """As a reading."""
        return Reading(
            series=self.series, start=self.start, seconds=self.seconds, power_kw=Kw(self.power_kw)
        )


class DisputeBody(Body):
    """An objection to a statement line."""

    line_id: _Name
    reason: Annotated[str, Field(min_length=1, max_length=2_000)]


class ResolutionBody(Body):
    """How a dispute is decided."""

    accept: bool
    """Whether the line is wrong."""
    reason: Annotated[str, Field(min_length=1, max_length=2_000)]
