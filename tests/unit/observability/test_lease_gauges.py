"""Who ends the setpoints that devices hold, and how long they have left, whoever ends them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from gateway.live import LiveState
from gateway.observability.health import Health
from gateway.observability.metrics import Metrics
from gateway.observability.state import StateGauges, Watched
from gateway.store.engine import migrate, open_engine
from gateway.store.setpoints import SetpointState, add_setpoints, ends_in_force, set_states
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.units import Kw
from tests.harness.clocks import WallClock

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


class Still(WallClock):
    def now(self) -> datetime:
        return NOW


class Fleet:
    """As much of an adapter as gauges look at."""

    protocol = "openadr"

    def profiles(self) -> Sequence[DeviceProfile]:
        kinds = {
            "site": LeaseKind.EVENT_END, "bat": LeaseKind.REVERT_TIMER, "bare": LeaseKind.NONE,
        }  # fmt: skip
        return [
            DeviceProfile(
                device_id=name, protocol="openadr", min_kw=Kw(-7), max_kw=Kw(0), lease=kind
            )
            for name, kind in kinds.items()
        ]

    def connected(self, _device_id: str) -> bool:
        return True


def told(device: str, minutes: int, *, starts: int = -1) -> Setpoint:
    return Setpoint(
        id=f"spt_{device}_{minutes}", order_id="ord_1", revision=0, device_id=device,
        power_kw=Kw(-1.0), valid_from=NOW + timedelta(minutes=starts),
        valid_until=NOW + timedelta(minutes=minutes), lease_s=60.0,
    )  # fmt: skip


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'market.db'}")
    migrate(engine)
    setpoints = [
        told("site", 5), told("bat", 10), told("bare", 3), told("later", 9, starts=2),
        told("refused", 8),
    ]  # fmt: skip
    with engine.begin() as connection:
        add_setpoints(connection, setpoints)
        applied = [each.id for each in setpoints if each.device_id != "refused"]
        set_states(connection, applied, SetpointState.APPLIED)
        set_states(connection, [told("refused", 8).id], SetpointState.REFUSED)
    yield engine
    engine.dispose()


def test_only_what_is_in_force_has_an_end(engine: Engine) -> None:
    with engine.connect() as connection:
        ends = ends_in_force(connection, NOW)
    assert ends == {
        "site": NOW + timedelta(minutes=5), "bat": NOW + timedelta(minutes=10),
        "bare": NOW + timedelta(minutes=3),
    }  # fmt: skip


def test_devices_are_counted_by_what_ends_their_setpoint(engine: Engine) -> None:
    fleet, clock, metrics = Fleet(), Still(), Metrics()
    profiles = {profile.device_id: profile for profile in fleet.profiles()}
    watched = Watched(
        engine=engine, clock=clock, live=LiveState(profiles, clock), health=Health(set(), {}),
        adapters={"openadr": fleet}, leases=lambda: {"bat": 41.0},  # type: ignore[dict-item]
        setpoints=dict, running=dict, instructions=list, roots_current_at=lambda: None, queues={},
    )  # fmt: skip
    StateGauges(metrics, watched, per_device=True).refresh()
    text = metrics.exposition().decode()
    for line in (
        'flexway_devices_by_lease{lease="event_end"} 1.0',
        'flexway_devices_by_lease{lease="watchdog"} 0.0',
        'flexway_devices_holding{lease="event_end"} 1.0',
        'flexway_devices_holding{lease="revert_timer"} 1.0',
        "flexway_devices_without_lease 1.0",
        'flexway_device_lease_seconds_left{device_id="bat",protocol="openadr"} 41.0',
        'flexway_device_lease_seconds_left{device_id="site",protocol="openadr"} 300.0',
    ):
        assert line in text
    # What nobody refreshes ends when it is meant to: no alert comes of it.
    assert "flexway_lease_seconds_left_min 41.0" in text
