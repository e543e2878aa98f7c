"""The demo's script: the market first, then the day, each order settled before the next."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.cli.demo.evidence import Told
from gateway.cli.demo.figures import _order as order_shown
from gateway.cli.demo.script import Script
from gateway.cli.demo.sockets import SocketWorld
from gateway.client import Client
from marketplace_core.errors import FlexwayError

NINE = datetime(2017, 7, 20, 16, tzinfo=UTC)
Json = dict[str, Any]


def event(name: str, hour: int, direction: str) -> Json:
    start = NINE + timedelta(hours=hour)
    interval = {"start": start.isoformat(), "end": (start + timedelta(hours=1)).isoformat()}
    return {"name": name, "direction": direction, "interval": interval}


EVENTS = [event("midday", 3, "DOWN"), event("evening", 8, "UP")]
SCENARIO: Json = {
    "market": {
        "timezone": "UTC", "feeder": "F-1", "currency": "USD", "sim_start": NINE.isoformat(),
        "sim_end": (NINE + timedelta(hours=12)).isoformat(), "events": EVENTS,
    },
    "sellers": [], "assets": [], "bids": [], "incidents": [],
    "needs": [
        {
            "event": each["name"], "buyer": "org_b", "kw": 10.0, "direction": each["direction"],
            "price_cap": "400", "baseline": "zero", "allowed_baselines": ["zero"],
        }
        for each in EVENTS
    ],
}  # fmt: skip


class Buyer(Client):
    """What the API would say; an order is settled a while after its end, if ever."""

    def __init__(self, world: VirtualTime) -> None:
        super().__init__("http://127.0.0.1:1", "none")
        self._world = world

    def get(self, path: str, **_query: Any) -> Any:
        if path == "/v1/devices":
            return []
        order_id = path.rpartition("/")[2]
        end = datetime.fromisoformat(self._world.ends[order_id])
        over = self._world.time >= end + self._world.settles_after
        return {"state": "settled" if over else "delivering"}

    def publish_need(self, need: Mapping[str, Any]) -> Any:
        self._world.said.append(f"need {need['direction']}")
        return {"id": f"need_{need['direction']}"}

    def clear(self, _need_id: str) -> Any:
        return {"clearing": {"awards": []}}

    def contracts(self, _need_id: str) -> Any:
        return [{"id": "con_1", "kw": 10.0, "buyer": "org_b", "seller": "org_s"}]

    def sign(self, _contract_id: str) -> Any:
        return {}

    def submit_order(self, order: Mapping[str, Any], *, key: str) -> Any:
        self._world.ends[key] = order["interval"]["end"]
        return {"id": key}


class VirtualTime:
    """A world in which time passes only when somebody waits for it."""

    def __init__(self, settles_after: timedelta) -> None:
        self.time = NINE
        self.settles_after = settles_after
        self.said: list[str] = []
        self.ends: dict[str, str] = {}

    def start(self) -> None: ...

    def begin(self) -> None:
        self.said.append("begins")

    def seconds_until(self, _at: datetime, _since: float) -> float | None:
        return None

    def client(self, _organisation: str) -> Client:
        return Buyer(self)

    def now(self) -> datetime:
        return self.time

    def wait_until(self, at: datetime) -> None:
        self.time = max(self.time, at)

    def pause(self) -> None:
        self.time += timedelta(minutes=1)

    def cut_uplink(self) -> None: ...

    def mend_uplink(self) -> None: ...

    def kill_gateway(self) -> None: ...

    def start_gateway(self) -> None: ...

    def stop(self) -> Mapping[str, int]:
        return {}

    def abort(self) -> None: ...


def played(world: VirtualTime, folder: Path) -> list[str]:
    history = folder / "history.csv"
    history.write_text("series,start_utc,seconds,power_kw\n")
    Script(world, SCENARIO, history, world.said.append).run(dispatch=True)
    return world.said


def test_the_day_begins_when_the_market_is_set_up_and_each_order_settles_before_the_next(
    tmp_path: Path,
) -> None:
    said = played(VirtualTime(timedelta(minutes=3)), tmp_path)
    told = [each for each in said if "order" in each or each == "begins" or "need " in each]
    assert told == [
        "need DOWN", "need UP", "begins",
        "18:30 order demo-midday: 10 kW DOWN, accepted and durable",
        "20:03 order demo-midday is settled",
        "23:30 order demo-evening: 10 kW UP, accepted and durable",
        "01:03 order demo-evening is settled",
    ]  # fmt: skip


def test_an_order_that_never_settles_ends_the_demo(tmp_path: Path) -> None:
    with pytest.raises(FlexwayError, match="order demo-midday is delivering"):
        played(VirtualTime(timedelta(hours=9)), tmp_path)


def test_over_sockets_market_time_stands_until_the_day_begins(tmp_path: Path) -> None:
    began = time.time()
    world = SocketWorld(tmp_path, SCENARIO, {}, speed=360.0, truth=tmp_path)
    assert world.now() == world.now() == NINE
    world.begin()
    hour = world.seconds_until(NINE + timedelta(hours=1), began)
    assert hour is not None
    assert 10.0 <= hour <= 10.0 + (time.time() - began)
    world.wait_until(NINE + timedelta(minutes=1))
    assert NINE + timedelta(minutes=1) <= world.now()


def test_the_report_says_after_how_many_wall_seconds_each_fact_stood() -> None:
    interval = EVENTS[0]["interval"]
    at = [f"2017-07-20T{hour}:00:00Z" for hour in (18, 20)]
    told = SimpleNamespace(
        order={
            "order": {"id": "ord_1", "direction": "DOWN", "kw": 10.0, "interval": interval},
            "state": "settled",
            "events": [
                {"kind": "OrderSubmitted", "at": at[0]}, {"kind": "OrderSettled", "at": at[1]},
            ],
        },
        need={"need": {"kw": 12.0}}, event=EVENTS[0], facts=[],
    )  # fmt: skip

    def elapsed(instant: datetime) -> float:
        return 12.0 + (instant - NINE) / timedelta(seconds=360)

    shown = order_shown(cast("Told", told), elapsed)
    assert shown["events"] == [
        {"kind": "OrderSubmitted", "at": at[0], "wall_s": 32.0},
        {"kind": "OrderSettled", "at": at[1], "wall_s": 52.0},
    ]
    virtual = order_shown(cast("Told", told), lambda _at: None)
    assert [each["wall_s"] for each in virtual["events"]] == [None, None]
