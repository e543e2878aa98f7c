"""What the API takes beside the street."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from config.rules import devices_of
from config.settings import Settings
from gateway.api.auth import Authenticator, FailedLogins, Principal
from gateway.bootstrap.basis import Basis
from gateway.confirm import Confirmations
from gateway.credentials import Signer, derived_secret
from gateway.emergency import Emergency
from gateway.live import Live
from gateway.market import Market
from gateway.observability.gaps import GapCollector
from gateway.observability.health import Health
from gateway.observability.running import RunningPlans
from gateway.observability.state import StateGauges, Watched
from gateway.reads import Reads
from gateway.stages.dispatch.conductor import Conductor
from gateway.stages.dispatch.emergency import EmergencyLane
from gateway.stages.intake import Intake
from gateway.store.engine import snapshot
from gateway.store.roots import RootLog, load_or_create_key, read_roots
from gateway.store.verify import Verdict, verify_journal
from gateway.streams import OrderStreams
from marketplace_core.ports import DeviceAdapter


def api_parts(basis: Basis, key: Ed25519PrivateKey, *, inline: bool) -> dict[str, Any]:
    """What the API takes from the basis alone."""
    reads = Reads(basis.engine, inline=inline)
    return {
        "engine": basis.engine, "reads": reads, "writer": basis.writer, "clock": basis.clock,
        "grid": basis.grid, "readings": basis.readings, "metrics": basis.metrics,
        "market": Market(basis.clock, basis.new_id, owners_in(basis.settings)),
        "confirmations": _confirmations(basis, key),
        "authenticator": _authenticator(basis.settings, reads, key),
        "max_body_bytes": basis.settings.api.max_body_bytes,
        "verify_journal": lambda: _verify(basis),
    }  # fmt: skip


def make_streams(basis: Basis) -> OrderStreams:
    """Live streams of orders, fed from committed facts."""
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


def make_emergency(
    basis: Basis, adapters: Mapping[str, DeviceAdapter], conductor: Conductor, intake: Intake
) -> Emergency:
    """The lane past every queue."""
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


def owners_in(settings: Settings) -> dict[str, str]:
    """Organisations that the configuration binds devices to."""
    return {bound.device_id: bound.organisation for bound in devices_of(settings)
            if bound.organisation}  # fmt: skip


def _verify(basis: Basis) -> Verdict:
    store = basis.settings.store
    key = load_or_create_key(store.signing_key).public_key()
    signed = list(read_roots(store.roots, key)) if store.roots.exists() else []
    with snapshot(basis.engine) as connection:
        return verify_journal(connection, signed)


def make_gauges(
    basis: Basis,
    *,
    live: Live,
    adapters: Mapping[str, DeviceAdapter],
    health: Health,
    conductor: Conductor,
    roots: RootLog,
) -> StateGauges:
    """What is computed when somebody scrapes."""
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
    basis.metrics.registry.register(GapCollector(basis.readings.gaps, adapters))
    return StateGauges(basis.metrics, watched, per_device=basis.settings.metrics.per_device)
