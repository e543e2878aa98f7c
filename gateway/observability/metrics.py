"""Prometheus metrics, named by its conventions: base units, `_total`, no label per device.

Every combination of labels is there from the start, so that zero is seen and an alert on
something that never happened can fire. docs/monitoring.md says what each one means.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

from adapters.mqtt.reasons import REASONS, UNKNOWN
from marketplace_core.dispatch.profile import LeaseKind
from marketplace_core.verification.flags import FlagKind

PROTOCOLS: Final = ("modbus", "mqtt", "openadr", "sparkplug", "webhook")
OPEN_SETPOINTS: Final = (
    "planned", "issued", "applied", "refused", "unreachable", "unconfirmed",
)  # fmt: skip
SERVERS: Final = ("bus", "live_state")
WRITERS: Final = ("market", "readings")
_LATENCY: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_PREFILLED: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "orders": {
        "state": (
            "submitted",
            "rejected",
            "awarded",
            "planned",
            "infeasible",
            "settled",
            "stopped",
        ),
    },
    "setpoints": {"outcome": ("issued", "applied", "refused", "unreachable", "unconfirmed")},
    "lease_refreshes": {"outcome": ("applied", "refused", "unreachable", "unconfirmed")},
    "flags": {"kind": tuple(kind.value for kind in FlagKind)},
    "dead_letters": {
        "stage": ("award", "plan", "dispatch", "observe", "verify", "settle", "notify")
    },
    "webhook_attempts": {
        "outcome": ("accepted", "refused", "unreachable", "unconfirmed", "broken", "dead"),
    },
}


class Metrics:
    """Every series of the gateway, in a registry of its own."""

    def __init__(self, protocols: Iterable[str] = PROTOCOLS) -> None:
        """`protocols` label what is counted per protocol, whether or not devices speak it."""
        self.registry = CollectorRegistry()
        self._protocols = tuple(protocols)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = Info("flexway_build", "Version that runs", registry=self.registry)
        build.info({"version": version("flexway"), "python": platform.python_version()})
        self._make_counters()
        self._make_device_gauges()
        self._make_dispatch_gauges()
        self._make_service_gauges()
        self._prefill()

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _make_counters(self) -> None:
        self.orders = self._counter("orders", "Orders by what became of them", "state")
        self.setpoints = self._counter("setpoints", "Setpoints by outcome", "outcome")
        self.readings = self._counter("readings_stored", "Readings committed")
        self.duplicates = self._counter("readings_duplicate", "Readings seen before")
        self.quarantined = self._counter("messages_quarantined", "Malformed messages put aside")
        self.evidence_dropped = self._counter(
            "quarantine_evidence_dropped", "Malformed messages counted but not kept, in a flood"
        )
        self.dead_letters = self._counter(
            "dead_letters", "Facts that a stage could not handle", "stage"
        )
        self.lease_refreshes = self._counter(
            "lease_refreshes", "Lease refreshes by outcome", "outcome"
        )
        self.flags = self._counter("device_flags", "Findings about devices by kind", "kind")
        self.revisions = self._counter("plan_revisions", "Plans made anew while an order ran")
        self.streams_dropped = self._counter(
            "streams_dropped", "Live streams ended because their reader was too slow"
        )
        self.webhook_attempts = self._counter(
            "webhook_attempts",
            "Attempts to deliver by outcome, and endpoints marked broken or messages given up",
            "outcome",
        )
        self.server_failures = self._counter(
            "server_failures", "Failed calls to a server that is done without", "server"
        )
        self.root_failures = self._counter(
            "journal_root_failures", "Signed roots that could not be written"
        )
        self.mqtt_reasons = self._counter(
            "mqtt_reason_codes", "Reason codes that the MQTT broker gave", "packet", "reason"
        )
        self.lateness = self._histogram(
            "setpoint_lateness_seconds",
            "Wall seconds from a setpoint being due to its being handed to its adapter",
        )
        self.emergency = self._histogram(
            "emergency_stop_seconds",
            "Wall seconds from an emergency stop being asked for to the answer of each device",
        )
        self.loop_lag = self._histogram(
            "event_loop_lag_seconds", "Seconds that the event loop was late to wake a timer"
        )

    def _make_device_gauges(self) -> None:
        by = "protocol"
        self.devices = self._gauge("devices", "Devices that are bound", by)
        self.devices_connected = self._gauge(
            "devices_connected", "Devices heard of recently enough to be believed present", by
        )
        self.never_reported = self._gauge(
            "devices_never_reported", "Devices without a single reading, ever", by
        )
        self.devices_stale = self._gauge(
            "devices_stale", "Devices whose newest reading is too old or missing"
        )
        self.reading_age = self._gauge(
            "reading_age_seconds_max",
            "Greatest age of a device's newest reading; without one, seconds since the start", by,
        )  # fmt: skip
        self.adapter_up = self._gauge(
            "adapter_up", "1 while the link is up: broker session, VTN listening, a unit answers",
            by,
        )  # fmt: skip

    def _make_dispatch_gauges(self) -> None:
        by = "protocol"
        self.orders_running = self._gauge("orders_running", "Orders whose interval contains now")
        self.instructed = self._gauge(
            "dispatch_instructed_watts", "Flexibility that running orders ask of devices", by
        )
        self.measured = self._gauge(
            "dispatch_measured_watts", "Flexibility that these devices measure now", by
        )
        self.compliance = self._gauge(
            "dispatch_compliance_ratio", "Measured over instructed; NaN while nothing runs", by
        )
        self.setpoints_open = self._gauge(
            "setpoints_open", "Setpoints whose time is not over, by state", "state"
        )
        self.leases_held = self._gauge("leases_held", "Devices under a lease that we refresh")
        self.lease_seconds = self._gauge(
            "lease_seconds_left_min",
            "Least market seconds left on any lease in force; NaN without one",
        )

        self.devices_by_lease = self._gauge(
            "devices_by_lease", "Devices that are bound, by what ends a setpoint of theirs", "lease"
        )
        self.devices_holding = self._gauge(
            "devices_holding", "Devices that hold a setpoint, by what ends it", "lease"
        )
        self.devices_refused = self._gauge(
            "devices_without_lease", "Devices that are refused for unattended dispatch"
        )

    def _make_service_gauges(self) -> None:
        self.ready = self._gauge("ready", "1 once the service takes requests and dispatches")
        self.journal_records = self._gauge("journal_records", "Records in the journal")
        self.root_age = self._gauge(
            "journal_root_age_seconds", "Seconds since the signed root was last known up to date"
        )
        self.shards_unclaimed = self._gauge(
            "shards_unclaimed", "Device shards whose telemetry nobody takes in, of 256"
        )
        self.server_away = self._gauge("server_away", "1 while a server is done without", "server")
        self.writer_queue = self._gauge(
            "writer_queue_depth", "Units of work that wait for a commit", "writer"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"flexway_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"flexway_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"flexway_{name}", text, buckets=_LATENCY, registry=self.registry)

    def mqtt_reason(self, packet: str, reason: str) -> None:
        """Count a reason code of the MQTT broker."""
        self.mqtt_reasons.labels(packet=packet, reason=reason).inc()

    def show_server(self, server: str, *, away: bool) -> None:
        """Count a failure of a server that is done without, or note that it is back."""
        self.server_away.labels(server=server).set(away)
        if away:
            self.server_failures.labels(server=server).inc()

    def _prefill_mqtt(self) -> None:
        for packet, reasons in REASONS.items():
            for reason in {*reasons.values(), UNKNOWN}:
                self.mqtt_reasons.labels(packet=packet, reason=reason)

    def _prefill(self) -> None:
        for server in SERVERS:
            self.show_server(server, away=False)
            self.server_failures.labels(server=server)
        self._prefill_mqtt()
        for name, labels in _PREFILLED.items():
            for label, values in labels.items():
                for value in values:
                    getattr(self, name).labels(**{label: value})
        for protocol in self._protocols:
            for gauge in (
                self.devices, self.devices_connected, self.never_reported, self.reading_age,
                self.adapter_up, self.instructed, self.measured,
            ):  # fmt: skip
                gauge.labels(protocol=protocol)
            self.compliance.labels(protocol=protocol).set(math.nan)
        for kind in LeaseKind:
            self.devices_by_lease.labels(lease=kind.value)
            self.devices_holding.labels(lease=kind.value)
        for state in OPEN_SETPOINTS:
            self.setpoints_open.labels(state=state)
        for writer in WRITERS:
            self.writer_queue.labels(writer=writer)
        self.lease_seconds.set(math.nan)
