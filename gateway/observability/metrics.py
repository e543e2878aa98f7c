"""Prometheus metrics, named by its conventions: base units, `_total`, no label per device."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Every series of the gateway, in a registry of its own; seeded so that zero is visible."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.orders = Counter(
            "flexway_orders", "Orders by what became of them", ["state"], registry=self.registry
        )
        self.setpoints = Counter(
            "flexway_setpoints", "Setpoints by outcome", ["outcome"], registry=self.registry
        )
        self.readings = Counter(
            "flexway_readings_stored", "Readings committed", registry=self.registry
        )
        self.duplicates = Counter(
            "flexway_readings_duplicate", "Readings seen before", registry=self.registry
        )
        self.quarantined = Counter(
            "flexway_messages_quarantined", "Malformed messages put aside", registry=self.registry
        )
        self.dead_letters = Counter(
            "flexway_dead_letters", "Facts a stage could not handle", ["stage"],
            registry=self.registry,
        )  # fmt: skip
        self.lease_refreshes = Counter(
            "flexway_lease_refreshes", "Lease refreshes by outcome", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.journal_records = Gauge(
            "flexway_journal_records", "Records in the journal", registry=self.registry
        )
        self.devices_stale = Gauge(
            "flexway_devices_stale", "Devices whose newest reading is too old",
            registry=self.registry,
        )  # fmt: skip
        self.lease_seconds = Gauge(
            "flexway_lease_seconds_left_min", "Least market seconds left on any lease in force",
            registry=self.registry,
        )  # fmt: skip
        self.lateness = Histogram(
            "flexway_setpoint_lateness_seconds",
            "Wall seconds from a setpoint being due to its being handed to its adapter",
            buckets=_LATENCY, registry=self.registry,
        )  # fmt: skip
        self.emergency = Histogram(
            "flexway_emergency_stop_seconds",
            "Wall seconds from an emergency stop being asked for to the answer of each device",
            buckets=_LATENCY, registry=self.registry,
        )  # fmt: skip
        self.streams_dropped = Counter(
            "flexway_streams_dropped", "Live streams ended because their reader was too slow",
            registry=self.registry,
        )  # fmt: skip
        self._seed()

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _seed(self) -> None:
        for outcome in ("issued", "applied", "refused", "unreachable", "unconfirmed"):
            self.setpoints.labels(outcome=outcome)
        for outcome in ("applied", "refused", "unreachable", "unconfirmed"):
            self.lease_refreshes.labels(outcome=outcome)
        for state in ("submitted", "rejected", "awarded", "planned", "infeasible", "settled"):
            self.orders.labels(state=state)
        for stage in ("award", "plan", "dispatch", "observe", "verify", "settle"):
            self.dead_letters.labels(stage=stage)
