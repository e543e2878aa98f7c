"""The service, put together from its parts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from config.settings import Settings
from gateway.api.application import create_application
from gateway.api.services import Services
from gateway.app import Application
from gateway.bootstrap.adapters import (
    check_time,
    faults,
    field_adapters,
    links,
    make_adapters,
    restore_adapters,
)
from gateway.bootstrap.backends import open_live
from gateway.bootstrap.basis import Basis, JournalFactory, make_basis, prepare, time_map_of
from gateway.bootstrap.interface import api_parts, make_emergency, make_gauges, make_streams
from gateway.bootstrap.shards import make_shards
from gateway.bootstrap.webhooks import Hooks, make_hooks
from gateway.flags import Flags
from gateway.ingest import Ingest
from gateway.live import Live
from gateway.notifications import Notify
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
from gateway.store.journal import Journal
from gateway.store.readings import Quarantined
from gateway.store.roots import RootLog, load_or_create_key
from gateway.street import Carrier, Stage
from gateway.surroundings import Surroundings, of_this_machine
from gateway.tracking import Tracker
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.sharing import Fairness
from marketplace_core.errors import ConfigError
from marketplace_core.ports import Bus, DeviceAdapter
from marketplace_core.verification.reading import Reading

_QUARANTINE_QUEUE = 10_000


def build(
    settings: Settings,
    *,
    journal: JournalFactory = Journal,
    bus: Bus | None = None,
    around: Surroundings | None = None,
    workers: bool = False,
) -> Application:
    """Make the service from its settings; `workers` beside it take MQTT telemetry in.

    Fault tests hand in another journal or bus, a virtual day other surroundings.
    """
    around = around or of_this_machine(time_map_of(settings))
    basis = make_basis(settings, journal, bus, around)
    hooks = make_hooks(basis)
    adapters = _adapters(basis, hooks, around, workers=workers)
    profiles = {p.device_id: p for adapter in adapters.values() for p in adapter.profiles()}
    check_time(settings, profiles)
    live = open_live(settings.bus, profiles, basis.metrics, around)
    observe = _observe(basis, around.idle_s)
    streams = make_streams(basis)
    flags = Flags(writer=basis.writer, clock=basis.clock, profiles=profiles, metrics=basis.metrics)
    intake = Intake(clock=basis.clock, grid=basis.grid, new_id=basis.new_id)
    tracker = _tracker(basis, intake, live, flags, profiles)

    quarantine: asyncio.Queue[Quarantined] = asyncio.Queue(_QUARANTINE_QUEUE)
    listeners = (observe.stored, tracker.stored, streams.stored)
    ingest = _ingest(basis, live, flags, quarantine, listeners)
    conductor = _conductor(basis, adapters, profiles, around.idle_s)
    key = load_or_create_key(settings.store.signing_key)
    roots = RootLog(settings.store.roots, key)
    health = Health({"api", *adapters}, links(adapters), faults(adapters))
    shards = make_shards(
        basis, adapters, health, live=live, flags=flags, stored=listeners, workers=workers
    )
    gauges = make_gauges(
        basis, live=live, adapters=adapters, health=health, conductor=conductor, roots=roots
    )
    services = Services(
        ingest=ingest, live=live, intake=intake, profiles=profiles, leases=conductor.leases,
        health=health, streams=streams, refresh_gauges=gauges.refresh, webhooks=hooks.webhooks,
        emergency=make_emergency(basis, adapters, conductor, intake),
        **api_parts(basis, key, inline=around.inline),
    )  # fmt: skip
    notify = Notify(wall=basis.wall, waiting=hooks.relay.wake)
    stages = _stages(
        basis, live, profiles=profiles, conductor=conductor, observe=observe, notify=notify
    )
    return Application(
        engine=basis.engine, writer=basis.writer, readings=basis.readings, bus=basis.bus,
        live=live, ingest=ingest, quarantine=quarantine, adapters=adapters,
        carriers=[_carrier(basis, stage, live) for stage in stages],
        conductor=conductor, observe=observe, flags=flags, tracker=tracker, roots=roots,
        root_every_s=settings.store.root_every_s, clock=basis.clock, metrics=basis.metrics,
        health=health, api=create_application(services), tls=_tls(settings),
        listener=None if around.inline else _listener(settings),
        reads=services.reads, prepare=lambda: prepare(basis),
        restore=lambda rows: restore_adapters(adapters, rows),
        background=[hooks.relay.run, shards.run], claim=shards.claim,
    )  # fmt: skip


def _adapters(
    basis: Basis, hooks: Hooks, around: Surroundings, *, workers: bool
) -> dict[str, DeviceAdapter]:
    if around.adapters is None:
        return make_adapters(basis, hooks, telemetry_elsewhere=workers)
    return field_adapters(basis.settings, around.adapters)


def _ingest(
    basis: Basis,
    live: Live,
    flags: Flags,
    quarantine: asyncio.Queue[Quarantined],
    listeners: Sequence[Callable[[Sequence[Reading]], None]],
) -> Ingest:
    def stored(readings: Sequence[Reading]) -> None:
        for listener in listeners:
            listener(readings)

    return Ingest(
        basis.readings, live=live, clock=basis.clock, metrics=basis.metrics,
        spawn=lambda message: _keep(quarantine, message, basis.metrics), stored=stored,
        flags=flags,
    )  # fmt: skip


def _stages(
    basis: Basis,
    live: Live,
    *,
    profiles: Mapping[str, DeviceProfile],
    conductor: Conductor,
    observe: Observe,
    notify: Notify,
) -> list[Stage]:
    """The street, in the order in which a contract passes it."""
    dispatch = Dispatch(
        profiles=profiles, new_id=basis.new_id, planned=conductor.planned,
        stopped=conductor.stopped,
    )  # fmt: skip
    verify = Verify(basis.readings, basis.grid, _rebound(basis.settings))
    settings = basis.settings.plan
    plan = Plan(live, Fairness(settings.fairness), looks_back=timedelta(days=settings.rotate_days))
    return [Award(), plan, dispatch, observe, verify, Settle(basis.new_id), notify]


def _tracker(
    basis: Basis, intake: Intake, live: Live, flags: Flags, profiles: Mapping[str, DeviceProfile]
) -> Tracker:
    tracker = Tracker(
        engine=basis.engine, writer=basis.writer, intake=intake, live=live, flags=flags,
        profiles=profiles, clock=basis.clock, metrics=basis.metrics,
    )  # fmt: skip
    basis.heard.append(tracker.heard)
    return tracker


def _carrier(basis: Basis, stage: Stage, live: Live) -> Carrier:
    """Plans wait until devices were heard: right after a start all that is known may be old."""
    return Carrier(
        stage, engine=basis.engine, writer=basis.writer, bus=basis.bus, metrics=basis.metrics,
        after=live.warmed if stage.name == "plan" else None,
    )  # fmt: skip


def _rebound(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.observe.rebound_s)


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
