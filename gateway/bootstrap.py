"""The only place that names concrete classes and reads the configuration."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from adapters.modbus.adapter import ModbusAdapter
from adapters.mqtt.adapter import MqttAdapter
from adapters.mqtt.link import MqttBroker
from adapters.openadr.adapter import OpenAdrAdapter
from adapters.openadr.config import OpenAdrVtn
from config.settings import Settings
from gateway.api.application import create_application
from gateway.api.auth import Authenticator, FailedLogins, Principal
from gateway.api.services import Services
from gateway.app import Application
from gateway.bindings import check_unique, modbus_endpoints, mqtt_devices, openadr_vens
from gateway.bus.local import LocalBus
from gateway.clock import SystemClock
from gateway.confirm import Confirmations
from gateway.credentials import Signer, derived_secret
from gateway.emergency import Emergency
from gateway.ingest import Ingest
from gateway.live import LiveState
from gateway.market import Market
from gateway.observability.health import Health
from gateway.observability.metrics import Metrics
from gateway.reads import Reads
from gateway.stages.award import Award
from gateway.stages.dispatch.conductor import Conductor
from gateway.stages.dispatch.driver import Driver
from gateway.stages.dispatch.emergency import EmergencyLane
from gateway.stages.dispatch.outcomes import OutcomeJournal
from gateway.stages.dispatch.stage import Dispatch
from gateway.stages.intake import Intake
from gateway.stages.observe import Observe
from gateway.stages.plan import Plan
from gateway.stages.settle import Settle
from gateway.stages.verify import Verify
from gateway.store.engine import open_engine
from gateway.store.journal import Journal
from gateway.store.organisations import add_configured
from gateway.store.readings import Quarantined, SqliteReadings
from gateway.store.roots import RootLog, load_or_create_key, read_roots
from gateway.store.setpoints import SetpointRow, SetpointState
from gateway.store.verify import Verdict, verify_journal
from gateway.store.writer import Writer
from gateway.streams import OrderStreams
from gateway.street import Carrier, Stage
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.ids import IdSource
from marketplace_core.intervals import SettlementGrid
from marketplace_core.ports import Bus, DeviceAdapter, Record, TimeMap
from marketplace_core.simtime import AffineTime, check_speed, from_unix, identity
from marketplace_core.verification.reading import Reading

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
    heard: list[Callable[[list[Record]], None]]
    """Who else hears of committed facts in this process, after the bus."""


def build(
    settings: Settings, *, journal: JournalFactory = Journal, bus: Bus | None = None
) -> Application:
    """Make the service from its settings; fault tests hand in another journal or bus."""
    basis = _basis(settings, journal, bus or LocalBus())
    adapters = _adapters(basis)
    profiles = {p.device_id: p for adapter in adapters.values() for p in adapter.profiles()}
    _check_time(settings, profiles)
    live = LiveState(profiles, basis.clock)
    observe = _observe(basis)
    streams = _streams(basis)

    def stored(readings: Sequence[Reading]) -> None:
        observe.stored(readings)
        streams.stored(readings)

    quarantine: asyncio.Queue[Quarantined] = asyncio.Queue(_QUARANTINE_QUEUE)
    ingest = Ingest(
        basis.readings, live=live, clock=basis.clock, metrics=basis.metrics,
        spawn=lambda message: _keep(quarantine, message), stored=stored,
    )  # fmt: skip
    conductor = _conductor(basis, adapters, profiles)
    key = load_or_create_key(settings.store.signing_key)
    roots = RootLog(settings.store.roots, key)
    health = Health({"api", *adapters})
    intake = Intake(clock=basis.clock, grid=basis.grid, new_id=basis.new_id)
    services = Services(
        ingest=ingest, live=live, intake=intake, profiles=profiles, leases=conductor.leases,
        health=health, streams=streams, **_api_parts(basis, key),
        emergency=_emergency(basis, adapters, conductor, intake),
    )  # fmt: skip
    stages: list[Stage] = [
        Award(), Plan(live),
        Dispatch(profiles=profiles, new_id=basis.new_id, planned=conductor.planned,
                 stopped=conductor.stopped),
        observe, Verify(basis.readings, basis.grid), Settle(basis.new_id),
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
        reads=services.reads, prepare=lambda: _prepare(basis),
        restore=lambda rows: _restore(adapters, rows),
    )  # fmt: skip


def _basis(settings: Settings, journal: JournalFactory, bus: Bus) -> Basis:
    time_map = _time_map(settings)
    clock = SystemClock(time_map)
    engine = open_engine(settings.store.database)
    market = settings.market
    heard: list[Callable[[list[Record]], None]] = []

    def publish(records: list[Record]) -> None:
        bus.publish(records)
        for each in heard:
            each(records)

    ids = IdSource(lambda: time.time_ns() // 1_000_000, secrets.randbits)
    return Basis(
        settings=settings,
        clock=clock,
        time_map=time_map,
        grid=SettlementGrid(market.settlement_minutes, market.timezone),
        engine=engine,
        bus=bus,
        metrics=Metrics(),
        writer=Writer(engine, journal(clock, settings.store.journal_shards), publish),
        readings=SqliteReadings(settings.store.readings),
        new_id=ids.new,
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


def _adapters(basis: Basis) -> dict[str, DeviceAdapter]:
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


def _api_parts(basis: Basis, key: Ed25519PrivateKey) -> dict[str, Any]:
    """What the API takes from the basis alone."""
    reads = Reads(basis.engine)
    return {
        "engine": basis.engine, "reads": reads, "writer": basis.writer, "clock": basis.clock,
        "grid": basis.grid, "readings": basis.readings, "metrics": basis.metrics,
        "market": Market(basis.clock, basis.new_id, _owners(basis.settings)),
        "confirmations": _confirmations(basis, key),
        "authenticator": _authenticator(basis.settings, reads, key),
        "max_body_bytes": basis.settings.api.max_body_bytes,
        "verify_journal": lambda: _verify(basis),
    }  # fmt: skip


def _streams(basis: Basis) -> OrderStreams:
    streams = OrderStreams(
        basis.clock, basis.grid, queue=basis.settings.api.stream_queue,
        dropped=basis.metrics.streams_dropped.inc,
    )  # fmt: skip
    basis.heard.append(streams.heard)
    return streams


def _confirmations(basis: Basis, key: Ed25519PrivateKey) -> Confirmations:
    api = basis.settings.api
    return Confirmations(
        Signer(derived_secret(key, "confirm tokens")), basis.clock,
        valid_for_s=api.confirm_for_s, required=api.confirm_orders,
    )  # fmt: skip


def _emergency(
    basis: Basis, adapters: Mapping[str, DeviceAdapter], conductor: Conductor, intake: Intake
) -> Emergency:
    lane = EmergencyLane(adapters, conductor=conductor, clock=basis.clock, metrics=basis.metrics)
    return Emergency(
        lane, writer=basis.writer, clock=basis.clock, new_id=basis.new_id, halt=intake.halt
    )


def _authenticator(settings: Settings, reads: Reads, key: Ed25519PrivateKey) -> Authenticator:
    api = settings.api
    return Authenticator(
        (
            (client.token_sha256, Principal(client.organisation, client.role))
            for client in api.clients
        ),
        reads=reads,
        signer=Signer(derived_secret(key, "access tokens")),
        unix_now=time.time,
        failures=FailedLogins(api.failed_logins, time.monotonic),
        token_for_s=api.token_for_s,
    )


def _owners(settings: Settings) -> dict[str, str]:
    """Organisations that the configuration binds devices to."""
    return {device.device_id: device.organisation for device in settings.mqtt.devices}


def _prepare(basis: Basis) -> None:
    names = [client.organisation for client in basis.settings.api.clients]
    with basis.engine.begin() as connection:
        add_configured(connection, names, basis.clock.now())


def _restore(adapters: Mapping[str, DeviceAdapter], rows: Sequence[SetpointRow]) -> None:
    """OpenADR's VTN may answer nobody before it knows its events again."""
    openadr = adapters.get("openadr")
    if isinstance(openadr, OpenAdrAdapter):
        openadr.restore([row.setpoint for row in rows if row.state in _MAY_BE_KNOWN])


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
