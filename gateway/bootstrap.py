"""The only place that names concrete classes and reads the configuration."""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

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
from gateway.backends import open_bus, open_database, open_live, open_readings
from gateway.bindings import (
    check_unique,
    modbus_endpoints,
    mqtt_devices,
    openadr_vens,
    webhook_devices,
)
from gateway.delivery_book import DeliveryBook
from gateway.flags import Flags
from gateway.ingest import Ingest
from gateway.live import Live
from gateway.market import Market
from gateway.notifications import Notify, Relay
from gateway.observability.health import Health
from gateway.observability.metrics import Metrics
from gateway.observability.running import RunningPlans
from gateway.observability.state import StateGauges, Watched
from gateway.observability.tally import count_facts
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
from gateway.store.engine import snapshot
from gateway.store.journal import Journal
from gateway.store.readings import Quarantined, Readings
from gateway.store.roots import RootLog, load_or_create_key, read_roots
from gateway.store.sealing import Sealer, load_or_create_sealing_key
from gateway.store.setpoints import SetpointRow, SetpointState
from gateway.store.verify import Verdict, verify_journal
from gateway.store.writer import Writer
from gateway.street import Carrier, Stage
from gateway.surroundings import MakeAdapters, Surroundings, of_this_machine
from gateway.tracking import Tracker
from gateway.webhooks import Webhooks
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.errors import ConfigError
from marketplace_core.intervals import SettlementGrid
from marketplace_core.ports import Bus, Clock, DeviceAdapter, Record, TimeMap
from marketplace_core.simtime import AffineTime, check_speed, from_unix, identity
from marketplace_core.verification.reading import Reading

_QUARANTINE_QUEUE = 10_000
_SLOWEST_TIMER_WALL_S = 1.0
"""A revert timer counts whole seconds: a lease must last at least one on the wall."""
_MAY_BE_KNOWN = (SetpointState.ISSUED, SetpointState.APPLIED, SetpointState.UNCONFIRMED)
"""States in which a VEN may hold an event; what is only planned is not sent before its fact."""
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


@dataclass(frozen=True)
class Hooks:
    """What webhooks stand on: one link and one courier for dispatch and notifications."""

    book: DeliveryBook
    courier: Courier
    policy: WebhookPolicy
    relay: Relay
    webhooks: Webhooks


def build(
    settings: Settings,
    *,
    journal: JournalFactory = Journal,
    bus: Bus | None = None,
    around: Surroundings | None = None,
) -> Application:
    """Make the service from its settings.

    Fault tests hand in another journal or bus, a virtual day other surroundings.
    """
    around = around or of_this_machine(_time_map(settings))
    basis = _basis(settings, journal, bus, around)
    hooks = _hooks(basis)
    if around.adapters is None:
        adapters = _adapters(basis, hooks)
    else:
        adapters = _field(settings, around.adapters)
    profiles = {p.device_id: p for adapter in adapters.values() for p in adapter.profiles()}
    _check_time(settings, profiles)
    live = open_live(settings, profiles, basis.clock, basis.metrics)
    observe = _observe(basis, around.idle_s)
    flags = Flags(writer=basis.writer, clock=basis.clock, profiles=profiles, metrics=basis.metrics)
    intake = Intake(clock=basis.clock, grid=basis.grid, new_id=basis.new_id)
    tracker = Tracker(
        engine=basis.engine, writer=basis.writer, intake=intake, live=live, flags=flags,
        profiles=profiles, clock=basis.clock, metrics=basis.metrics,
    )  # fmt: skip
    basis.heard.append(tracker.heard)

    def stored(readings: Sequence[Reading]) -> None:
        observe.stored(readings)
        tracker.stored(readings)

    quarantine: asyncio.Queue[Quarantined] = asyncio.Queue(_QUARANTINE_QUEUE)
    metrics = basis.metrics
    ingest = Ingest(
        basis.readings, live=live, clock=basis.clock, metrics=basis.metrics,
        spawn=lambda message: _keep(quarantine, message, metrics), stored=stored, flags=flags,
    )  # fmt: skip
    conductor = _conductor(basis, adapters, profiles, around.idle_s)
    roots = RootLog(settings.store.roots, load_or_create_key(settings.store.signing_key))
    health = Health({"api", *adapters}, _links(adapters))
    gauges = _gauges(
        basis, live=live, adapters=adapters, health=health, conductor=conductor, roots=roots
    )
    services = Services(
        engine=basis.engine, writer=basis.writer, market=Market(basis.clock, basis.new_id),
        intake=intake, ingest=ingest, readings=basis.readings, live=live,
        leases=conductor.leases, profiles=profiles, authenticator=_authenticator(settings),
        metrics=metrics, refresh_gauges=gauges.refresh, health=health, webhooks=hooks.webhooks,
        max_body_bytes=settings.api.max_body_bytes,
        verify_journal=lambda: _verify(basis),
    )  # fmt: skip
    stages: list[Stage] = [
        Award(), Plan(live),
        Dispatch(profiles=profiles, new_id=basis.new_id, planned=conductor.planned),
        observe, Verify(basis.readings, basis.grid, _rebound(settings)), Settle(basis.new_id),
        Notify(wall=basis.wall, waiting=hooks.relay.wake),
    ]  # fmt: skip
    return Application(
        engine=basis.engine, writer=basis.writer, readings=basis.readings, bus=basis.bus,
        live=live, ingest=ingest, quarantine=quarantine, adapters=adapters,
        carriers=[
            Carrier(stage, engine=basis.engine, writer=basis.writer, bus=basis.bus,
                    metrics=basis.metrics, after=live.warmed if stage.name == "plan" else None)
            for stage in stages
        ],
        conductor=conductor, observe=observe, flags=flags, tracker=tracker, roots=roots,
        root_every_s=settings.store.root_every_s, clock=basis.clock, metrics=metrics, health=health,
        api=create_application(services), tls=_tls(settings),
        listener=None if around.inline else _listener(settings),
        restore=lambda rows: _restore(adapters, rows), background=[hooks.relay.run],
    )  # fmt: skip


def _basis(
    settings: Settings, journal: JournalFactory, bus: Bus | None, around: Surroundings
) -> Basis:
    clock, store = around.clock, settings.store
    engine = open_database(store)
    market, metrics = settings.market, Metrics()
    carrying = bus or open_bus(settings.bus, metrics)
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
            mqtt_broker(settings), mqtt_devices(settings), clock=basis.clock,
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


def _field(settings: Settings, make: MakeAdapters) -> dict[str, DeviceAdapter]:
    """Adapters that are handed in, for the devices that the settings bind."""
    devices = mqtt_devices(settings)
    bound: dict[str, Sequence[DeviceProfile]] = {
        "modbus": [endpoint.profile for endpoint in modbus_endpoints(settings)],
        "mqtt": [device.profile for device in devices],
        "openadr": [ven.profile for ven in openadr_vens(settings)],
        "webhook": [device.profile for device in webhook_devices(settings)],
    }
    adapters = make({name: found for name, found in bound.items() if found}, devices)
    check_unique(adapters.values())
    return adapters


def mqtt_broker(settings: Settings) -> MqttBroker:
    """The broker as the MQTT adapter takes it; reads the password and the CA's certificate."""
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


def _rebound(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.observe.rebound_s)


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


def _observe(basis: Basis, idle_s: float) -> Observe:
    settings = basis.settings.observe
    return Observe(
        engine=basis.engine, writer=basis.writer, readings=basis.readings, clock=basis.clock,
        grid=basis.grid, grace=timedelta(seconds=settings.grace_s),
        late_for=timedelta(seconds=settings.late_for_s), rebound=_rebound(basis.settings),
        idle_s=idle_s,
    )  # fmt: skip


def _conductor(
    basis: Basis,
    adapters: Mapping[str, DeviceAdapter],
    profiles: Mapping[str, DeviceProfile],
    idle_s: float,
) -> Conductor:
    outcomes = OutcomeJournal(basis.writer, basis.metrics)
    driver = Driver(adapters, journal=outcomes, clock=basis.clock, metrics=basis.metrics)
    return Conductor(driver, profiles, basis.clock, idle_s=idle_s)


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
    with snapshot(basis.engine) as connection:
        return verify_journal(connection, signed)


def _links(adapters: Mapping[str, DeviceAdapter]) -> dict[str, Callable[[], bool]]:
    """Whether each protocol's link is up: the broker's session, the VTN, any Modbus unit."""
    return {protocol: partial(_link_up, adapter) for protocol, adapter in adapters.items()}


def _link_up(adapter: DeviceAdapter) -> bool:
    if isinstance(adapter, MqttAdapter):
        return adapter.link_up
    if isinstance(adapter, OpenAdrAdapter):
        return adapter.port != 0
    return any(adapter.connected(profile.device_id) for profile in adapter.profiles())


def _gauges(
    basis: Basis,
    *,
    live: Live,
    adapters: Mapping[str, DeviceAdapter],
    health: Health,
    conductor: Conductor,
    roots: RootLog,
) -> StateGauges:
    profiles = {p.device_id: p for adapter in adapters.values() for p in adapter.profiles()}
    plans = RunningPlans(basis.engine, profiles, conductor.running)
    watched = Watched(
        engine=basis.engine, clock=basis.clock, live=live, adapters=adapters, health=health,
        leases=conductor.leases, setpoints=conductor.states, running=conductor.running,
        instructions=plans.instructions, roots_current_at=lambda: roots.current_at,
        queues={
            "market": lambda: basis.writer.waiting, "readings": lambda: basis.readings.waiting
        },
    )  # fmt: skip
    return StateGauges(basis.metrics, watched, per_device=basis.settings.metrics.per_device)


def _keep(quarantine: asyncio.Queue[Quarantined], message: Quarantined, metrics: Metrics) -> None:
    """Queue a message for keeping; under a flood its evidence is dropped and counted."""
    if quarantine.full():
        metrics.evidence_dropped.inc()
    else:
        quarantine.put_nowait(message)


def _listener(settings: Settings) -> socket.socket:
    host, port = settings.api.host, settings.api.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"api.port: cannot listen on {host}:{port}: {error.strerror}; "
            f"`ss -ltnp 'sport = :{port}'` names who does, or give another port"
        ) from error
    listener.setblocking(False)
    return listener


def _tls(settings: Settings) -> tuple[str, str] | None:
    api = settings.api
    if api.tls_certificate is None or api.tls_key is None:
        return None
    return str(api.tls_certificate), str(api.tls_key)
