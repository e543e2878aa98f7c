"""The only place that names concrete classes and reads the configuration."""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine

from adapters.modbus.adapter import ModbusAdapter
from adapters.mqtt.adapter import MqttAdapter
from adapters.mqtt.link import MqttBroker
from adapters.openadr.adapter import OpenAdrAdapter
from adapters.openadr.config import OpenAdrVtn
from adapters.webhook.adapter import WebhookAdapter
from adapters.webhook.config import WebhookPolicy, networks
from adapters.webhook.courier import Courier
from adapters.webhook.link import Link
from config.settings import Settings
from gateway.api.application import create_application
from gateway.api.auth import Authenticator, Principal
from gateway.api.services import Services
from gateway.app import Application
from gateway.bindings import (
    check_unique,
    modbus_endpoints,
    mqtt_devices,
    openadr_vens,
    webhook_devices,
)
from gateway.bus.local import LocalBus
from gateway.clock import SystemClock
from gateway.delivery_book import DeliveryBook
from gateway.ingest import Ingest
from gateway.live import LiveState
from gateway.market import Market
from gateway.notifications import Notify, Relay
from gateway.observability.health import Health
from gateway.observability.metrics import Metrics
from gateway.stages.award import Award
from gateway.stages.dispatch.conductor import Conductor
from gateway.stages.dispatch.driver import Driver
from gateway.stages.dispatch.outcomes import OutcomeJournal
from gateway.stages.dispatch.stage import Dispatch
from gateway.stages.intake import Intake
from gateway.stages.observe import Observe
from gateway.stages.plan import Plan
from gateway.stages.settle import Settle
from gateway.stages.verify import Verify
from gateway.store.engine import open_engine
from gateway.store.journal import Journal
from gateway.store.readings import Quarantined, SqliteReadings
from gateway.store.roots import RootLog, load_or_create_key, read_roots
from gateway.store.sealing import Sealer, load_or_create_sealing_key
from gateway.store.setpoints import SetpointRow, SetpointState
from gateway.store.verify import Verdict, verify_journal
from gateway.store.writer import Writer
from gateway.street import Carrier, Stage
from gateway.webhooks import Webhooks
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.ids import IdSource
from marketplace_core.intervals import SettlementGrid
from marketplace_core.ports import Bus, DeviceAdapter, TimeMap
from marketplace_core.simtime import AffineTime, check_speed, from_unix, identity

_QUARANTINE_QUEUE = 10_000
_SLOWEST_TIMER_WALL_S = 1.0
"""A revert timer counts whole seconds: a lease must last at least one on the wall."""
_MAY_BE_KNOWN = (SetpointState.ISSUED, SetpointState.APPLIED, SetpointState.UNCONFIRMED)
"""States in which a VEN may hold an event; what is only planned is not sent before its fact."""
JournalFactory = Callable[[SystemClock, int], Journal]


@dataclass(frozen=True)
class Basis:
    """What everything else stands on."""

    settings: Settings
    clock: SystemClock
    time_map: TimeMap
    grid: SettlementGrid
    engine: Engine
    bus: Bus
    metrics: Metrics
    writer: Writer
    readings: SqliteReadings
    new_id: Callable[[str], str]

    def wall(self) -> datetime:
        """Wall time now: what goes to other clocks, and into signatures."""
        return self.time_map.to_wall(self.clock.now())


@dataclass(frozen=True)
class Hooks:
    """What webhooks stand on: one link and one courier for dispatch and notifications."""

    book: DeliveryBook
    courier: Courier
    policy: WebhookPolicy
    relay: Relay
    webhooks: Webhooks


def build(
    settings: Settings, *, journal: JournalFactory = Journal, bus: Bus | None = None
) -> Application:
    """Make the service from its settings; fault tests hand in another journal or bus."""
    basis = _basis(settings, journal, bus or LocalBus())
    hooks = _hooks(basis)
    adapters = _adapters(basis, hooks)
    profiles = {p.device_id: p for adapter in adapters.values() for p in adapter.profiles()}
    _check_time(settings, profiles)
    live = LiveState(profiles, basis.clock)
    observe = _observe(basis)
    quarantine: asyncio.Queue[Quarantined] = asyncio.Queue(_QUARANTINE_QUEUE)
    ingest = Ingest(
        basis.readings, live=live, clock=basis.clock, metrics=basis.metrics,
        spawn=lambda message: _keep(quarantine, message), stored=observe.stored,
    )  # fmt: skip
    conductor = _conductor(basis, adapters, profiles)
    roots = RootLog(settings.store.roots, load_or_create_key(settings.store.signing_key))
    health = Health({"api", *adapters})
    intake = Intake(clock=basis.clock, grid=basis.grid, new_id=basis.new_id)
    services = Services(
        engine=basis.engine, writer=basis.writer, market=Market(basis.clock, basis.new_id),
        intake=intake, ingest=ingest, readings=basis.readings, live=live,
        leases=conductor.leases, profiles=profiles, authenticator=_authenticator(settings),
        metrics=basis.metrics, health=health, webhooks=hooks.webhooks,
        max_body_bytes=settings.api.max_body_bytes, verify_journal=lambda: _verify(basis),
    )  # fmt: skip
    stages: list[Stage] = [
        Award(), Plan(live),
        Dispatch(profiles=profiles, new_id=basis.new_id, planned=conductor.planned),
        observe, Verify(basis.readings, basis.grid), Settle(basis.new_id),
        Notify(wall=basis.wall, waiting=hooks.relay.wake),
    ]  # fmt: skip
    return Application(
        engine=basis.engine, writer=basis.writer, readings=basis.readings, live=live,
        ingest=ingest, quarantine=quarantine, adapters=adapters,
        carriers=[
            Carrier(stage, engine=basis.engine, writer=basis.writer, bus=basis.bus,
                    metrics=basis.metrics, after=live.warmed if stage.name == "plan" else None)
            for stage in stages
        ],
        conductor=conductor, observe=observe, roots=roots,
        root_every_s=settings.store.root_every_s, clock=basis.clock, health=health,
        api=create_application(services), listener=_listener(settings), tls=_tls(settings),
        restore=lambda rows: _restore(adapters, rows), background=[hooks.relay.run],
    )  # fmt: skip


def _basis(settings: Settings, journal: JournalFactory, bus: Bus) -> Basis:
    time_map = _time_map(settings)
    clock = SystemClock(time_map)
    engine = open_engine(settings.store.database)
    market = settings.market
    ids = IdSource(lambda: time.time_ns() // 1_000_000, secrets.randbits)
    return Basis(
        settings=settings,
        clock=clock,
        time_map=time_map,
        grid=SettlementGrid(market.settlement_minutes, market.timezone),
        engine=engine,
        bus=bus,
        metrics=Metrics(),
        writer=Writer(engine, journal(clock, settings.store.journal_shards), bus.publish),
        readings=SqliteReadings(settings.store.readings),
        new_id=ids.new,
    )


def _time_map(settings: Settings) -> TimeMap:
    simulated = settings.time
    if simulated.market_epoch is None or simulated.wall_epoch is None:
        return identity()
    return AffineTime(simulated.market_epoch, from_unix(simulated.wall_epoch), simulated.speed)


def _check_time(settings: Settings, profiles: Mapping[str, DeviceProfile]) -> None:
    leases = [p.lease_s for p in profiles.values() if p.lease_s > 0]
    if leases:
        check_speed(
            settings.time.speed, _SLOWEST_TIMER_WALL_S, span_market_s=min(leases),
            timer="the shortest lease",
        )  # fmt: skip


def _adapters(basis: Basis, hooks: Hooks) -> dict[str, DeviceAdapter]:
    settings = basis.settings
    adapters: dict[str, DeviceAdapter] = {}
    if settings.modbus.devices:
        adapters["modbus"] = ModbusAdapter(
            modbus_endpoints(settings), clock=basis.clock, time_map=basis.time_map,
            timeout_s=settings.modbus.timeout_s,
        )  # fmt: skip
    if settings.mqtt.devices:
        adapters["mqtt"] = MqttAdapter(
            _broker(settings), mqtt_devices(settings), clock=basis.clock,
            time_map=basis.time_map, ack_timeout_s=settings.mqtt.ack_timeout_s,
        )  # fmt: skip
    if settings.openadr.vens:
        adapters["openadr"] = OpenAdrAdapter(
            _vtn(settings), openadr_vens(settings), clock=basis.clock, time_map=basis.time_map
        )
    if settings.webhook.devices:
        adapters["webhook"] = WebhookAdapter(
            webhook_devices(settings), courier=hooks.courier,
            directory=hooks.book.dispatch_endpoint, policy=hooks.policy, clock=basis.clock,
            time_map=basis.time_map, new_id=basis.new_id,
        )  # fmt: skip
    check_unique(adapters.values())
    return adapters


def _broker(settings: Settings) -> MqttBroker:
    mqtt = settings.mqtt
    password = ""
    if mqtt.password_file is not None:
        password = mqtt.password_file.read_text(encoding="utf-8").strip()
    tls = None
    if mqtt.tls:
        tls = ssl.create_default_context(cafile=mqtt.ca_certificate)
    return MqttBroker(
        host=mqtt.host, port=mqtt.port, client_id=mqtt.client_id, username=mqtt.username,
        password=password, tls=tls, version=5 if mqtt.protocol == "5" else 4,
    )  # fmt: skip


def _vtn(settings: Settings) -> OpenAdrVtn:
    openadr = settings.openadr
    return OpenAdrVtn(
        host=openadr.host, port=openadr.port, vtn_id=openadr.vtn_id, state=openadr.state,
        tls_certificate=openadr.tls_certificate, tls_key=openadr.tls_key,
        ca_certificate=openadr.ca_certificate, lab=settings.lab, poll_s=openadr.poll_s,
        answer_timeout_s=openadr.answer_timeout_s,
    )  # fmt: skip


def _hooks(basis: Basis) -> Hooks:
    settings = basis.settings.webhook
    policy = _webhook_policy(basis.settings)
    key = settings.key or basis.settings.store.signing_key.with_name("webhook.key")
    sealer = Sealer(load_or_create_sealing_key(key))
    book = DeliveryBook(engine=basis.engine, writer=basis.writer, sealer=sealer, wall=basis.wall)
    link = Link(policy, tls=ssl.create_default_context(cafile=settings.ca_certificate))

    def count(outcome: str) -> None:
        basis.metrics.webhook_attempts.labels(outcome=outcome).inc()

    courier = Courier(
        link, book, policy=policy, monotonic=basis.clock.monotonic,
        unix=lambda: basis.wall().timestamp(), jitter=random.SystemRandom().random, count=count,
    )  # fmt: skip
    relay = Relay(
        book, engine=basis.engine, writer=basis.writer, link=link, courier=courier,
        clock=basis.clock, wall=basis.wall, count=count, first_retry_s=policy.trial_every_s,
        give_up=timedelta(seconds=settings.give_up_s),
    )  # fmt: skip
    webhooks = Webhooks(
        book, engine=basis.engine, writer=basis.writer, sealer=sealer, link=link,
        courier=courier, policy=policy, wall=basis.wall, new_id=basis.new_id,
        new_secret=lambda: f"fxw_{secrets.token_urlsafe(32)}",
        overlap=timedelta(seconds=settings.rotation_overlap_s),
    )  # fmt: skip
    return Hooks(book=book, courier=courier, policy=policy, relay=relay, webhooks=webhooks)


def _webhook_policy(settings: Settings) -> WebhookPolicy:
    webhook = settings.webhook
    return WebhookPolicy(
        lab=settings.lab, allow_addresses=networks(webhook.allow_addresses),
        connect_timeout_s=webhook.connect_timeout_s, answer_timeout_s=webhook.answer_timeout_s,
        attempts=webhook.attempts, backoff_s=webhook.backoff_s,
        broken_after=webhook.broken_after, trial_every_s=webhook.trial_every_s,
        ping_s=webhook.ping_s,
    )  # fmt: skip


def _observe(basis: Basis) -> Observe:
    settings = basis.settings.observe
    return Observe(
        engine=basis.engine, writer=basis.writer, readings=basis.readings, clock=basis.clock,
        grid=basis.grid, grace=timedelta(seconds=settings.grace_s),
        late_for=timedelta(seconds=settings.late_for_s),
    )  # fmt: skip


def _conductor(
    basis: Basis, adapters: Mapping[str, DeviceAdapter], profiles: Mapping[str, DeviceProfile]
) -> Conductor:
    outcomes = OutcomeJournal(basis.writer, basis.metrics)
    driver = Driver(adapters, journal=outcomes, clock=basis.clock, metrics=basis.metrics)
    return Conductor(driver, profiles, basis.clock)


def _authenticator(settings: Settings) -> Authenticator:
    return Authenticator(
        (client.token_sha256, Principal(client.organisation, client.role))
        for client in settings.api.clients
    )


def _restore(adapters: Mapping[str, DeviceAdapter], rows: Sequence[SetpointRow]) -> None:
    """Tell adapters what devices may know; OpenADR's VTN may answer nobody before."""
    told = [row for row in rows if row.state in _MAY_BE_KNOWN]
    openadr, webhook = adapters.get("openadr"), adapters.get("webhook")
    if isinstance(openadr, OpenAdrAdapter):
        openadr.restore([row.setpoint for row in told])
    if isinstance(webhook, WebhookAdapter):
        webhook.restore(
            acknowledged=[r.setpoint for r in told if r.state is SetpointState.APPLIED],
            doubtful=[r.setpoint for r in told if r.state is not SetpointState.APPLIED],
        )


def _verify(basis: Basis) -> Verdict:
    store = basis.settings.store
    key = load_or_create_key(store.signing_key).public_key()
    signed = list(read_roots(store.roots, key)) if store.roots.exists() else []
    with basis.engine.connect() as connection:
        return verify_journal(connection, signed)


def _keep(quarantine: asyncio.Queue[Quarantined], message: Quarantined) -> None:
    """Queue a message for keeping; under a flood its evidence is dropped, its count is not."""
    if not quarantine.full():
        quarantine.put_nowait(message)


def _listener(settings: Settings) -> socket.socket:
    listener = socket.create_server((settings.api.host, settings.api.port))
    listener.setblocking(False)
    return listener


def _tls(settings: Settings) -> tuple[str, str] | None:
    api = settings.api
    if api.tls_certificate is None or api.tls_key is None:
        return None
    return str(api.tls_certificate), str(api.tls_key)
