"""What everything else of the service stands on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from config.beginning import awaited_time
from config.settings import Settings
from gateway.bootstrap.backends import open_bus, open_database, open_readings
from gateway.observability.metrics import Metrics
from gateway.observability.tally import count_facts
from gateway.store.journal import Journal
from gateway.store.organisations import add_configured
from gateway.store.readings import Readings
from gateway.store.writer import Writer
from gateway.surroundings import Surroundings
from marketplace_core.intervals import SettlementGrid
from marketplace_core.ports import Bus, Clock, Record, TimeMap
from marketplace_core.simtime import AffineTime, from_unix, identity

JournalFactory = Callable[[Clock, int], Journal]


@dataclass(frozen=True)
class Basis:
    """What everything else stands on."""

    settings: Settings
    clock: Clock
    time_map: TimeMap
    grid: SettlementGrid
    engine: Engine
    bus: Bus
    metrics: Metrics
    writer: Writer
    readings: Readings
    new_id: Callable[[str], str]
    heard: list[Callable[[list[Record]], None]]
    """Who else hears of committed facts in this process, after the bus."""

    def wall(self) -> datetime:
        """Wall time now: what goes to other clocks, and into signatures."""
        return self.time_map.to_wall(self.clock.now())


def make_basis(
    settings: Settings, journal: JournalFactory, bus: Bus | None, around: Surroundings
) -> Basis:
    """Database, journal, readings, bus and clock."""
    clock, store = around.clock, settings.store
    engine = open_database(store)
    market, metrics = settings.market, Metrics()
    carrying = bus or open_bus(settings.bus, metrics, around)
    heard: list[Callable[[list[Record]], None]] = []

    def publish(records: list[Record]) -> None:
        count_facts(metrics, records)
        carrying.publish(records)
        for each in heard:
            each(records)

    return Basis(
        settings=settings,
        clock=clock,
        time_map=around.time_map,
        grid=SettlementGrid(market.settlement_minutes, market.timezone),
        engine=engine,
        bus=carrying,
        metrics=metrics,
        writer=Writer(
            engine,
            journal(clock, store.journal_shards),
            publish,
            inline=around.inline,
            patience_s=store.patience_s,
        ),
        readings=open_readings(store, inline=around.inline),
        new_id=around.new_id,
        heard=heard,
    )


def time_map_of(settings: Settings) -> TimeMap:
    """The map from wall time to market time; the identity in production."""
    simulated = settings.time
    if simulated.market_epoch is None:
        return identity()
    if simulated.begins_by is not None:
        return awaited_time(simulated.market_epoch, simulated.speed, simulated.begins_by)
    if simulated.wall_epoch is None:
        return identity()
    return AffineTime(simulated.market_epoch, from_unix(simulated.wall_epoch), simulated.speed)


def prepare(basis: Basis) -> None:
    """Enter organisations that the configuration names."""
    names = [client.organisation for client in basis.settings.api.clients]
    with basis.engine.begin() as connection:
        add_configured(connection, names, basis.clock.now())
