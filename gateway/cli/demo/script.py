"""The day's script: what the market's people do, and what is done to them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from gateway.cli.demo.settings import OPERATOR
from gateway.cli.demo.world import Json, Say, World
from marketplace_core.errors import FlexwayError

_AHEAD: Final = timedelta(minutes=30)
"""Orders are given so long before they begin."""
_DOWN: Final = timedelta(minutes=3)
"""How long the gateway stays dead; a restart over sockets takes as long as it takes."""
_PATIENCE: Final = timedelta(minutes=45)
"""Market time that something may be late."""
_LAST: Final = timedelta(minutes=5)
"""How long before the end of the day everything is measured."""


@dataclass
class Day:
    """What the script did and has to show for it."""

    imported: dict[str, Any] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)
    """Need id by event name."""
    orders: dict[str, str] = field(default_factory=dict)
    """Order id by event name."""
    incidents: list[dict[str, str]] = field(default_factory=list)


class Script:
    """Runs the day in any world."""

    def __init__(self, world: World, scenario: Json, history: Path, say: Say) -> None:
        self._world = world
        self._scenario = scenario
        self._history = history
        self._say = say
        self.day = Day()

    def run(self, *, dispatch: bool) -> Day:
        """From registration to settlement; without `dispatch` nobody is called."""
        self._register()
        for need in self._scenario["needs"]:
            self._auction(need)
        self._say("the day begins")
        self._world.begin()
        self._await_telemetry()
        for at, act in sorted(self._agenda(dispatch=dispatch), key=lambda each: each[0]):
            self._world.wait_until(at)
            act()
        # Some of what was measured after the last order is still on its way.
        self._world.wait_until(_instant(self._scenario["market"]["sim_end"]) - _LAST)
        return self.day

    def _agenda(self, *, dispatch: bool) -> list[tuple[datetime, Callable[[], None]]]:
        agenda: list[tuple[datetime, Callable[[], None]]] = []
        if not dispatch:
            return [(_instant(self._scenario["market"]["sim_end"]), lambda: None)]
        for event in self._scenario["market"]["events"]:
            at = _instant(event["interval"]["start"]) - _AHEAD
            agenda.append((at, partial(self._order, event)))
            over = _instant(event["interval"]["end"])
            agenda.append((over, partial(self._await_settled, event)))
        for incident in self._scenario["incidents"]:
            agenda += self._incident(incident)
        return agenda

    def _incident(self, incident: Json) -> list[tuple[datetime, Callable[[], None]]]:
        at = _instant(incident["at"])
        if incident["kind"] == "uplink_lost":
            until = _instant(incident["until"])
            return [
                (at, lambda: self._note("uplink_lost", self._world.cut_uplink)),
                (until, lambda: self._note("uplink_mended", self._world.mend_uplink)),
            ]
        return [
            (at, lambda: self._note("gateway_killed", self._world.kill_gateway)),
            (at + _DOWN, lambda: self._note("gateway_started", self._world.start_gateway)),
        ]

    def _note(self, kind: str, act: Callable[[], None]) -> None:
        self.day.incidents.append({"kind": kind, "at": self._world.now().isoformat()})
        self._say(f"{self._clock()} {kind.replace('_', ' ')}")
        act()

    def _register(self) -> None:
        self._say("sellers register assets and import their meter history")
        with self._history.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.reader(stream))
        total: dict[str, Any] = {"accepted": 0, "rejected": 0, "errors": []}
        for seller in self._scenario["sellers"]:
            own = [a for a in self._scenario["assets"] if a["organisation"] == seller["id"]]
            client = self._world.client(seller["id"])
            client.register_assets(
                [{k: v for k, v in asset.items() if k != "organisation"} for asset in own]
            )
            meters = {asset["meter"] for asset in own}
            rows = [",".join(line) for line in lines[1:] if line[0] in meters]
            answer = client.import_readings("\n".join([",".join(lines[0]), *rows]))
            for name in ("accepted", "rejected"):
                total[name] += answer[name]
            for error in answer["errors"]:
                total["errors"].append({"seller": seller["id"], **error})
                self._say(f"  {seller['name']}, line {error['line']}, {error['field']}:"
                          f" {error['error']} ({error['rule']})")  # fmt: skip
        self._say(f"  {total['accepted']} rows of history, {total['rejected']} refused")
        self.day.imported = total

    def _auction(self, wanted: Json) -> None:
        market = self._scenario["market"]
        event = next(e for e in market["events"] if e["name"] == wanted["event"])
        ask = f"{wanted['kw']:g} kW {wanted['direction']} on {market['feeder']}"
        self._say(f"the buyer needs {ask}")
        buyer = self._world.client(wanted["buyer"])
        need_id: str = buyer.publish_need({
            "feeder": market["feeder"], "direction": wanted["direction"], "kw": wanted["kw"],
            "window": event["interval"], "price_cap": wanted["price_cap"],
            "currency": market["currency"], "baseline": wanted["baseline"],
            "allowed_baselines": wanted["allowed_baselines"],
        })["id"]  # fmt: skip
        for bid in self._scenario["bids"]:
            if bid["event"] != wanted["event"]:
                continue
            self._world.client(bid["seller"]).bid(need_id, {
                "assets": bid["assets"], "kw": bid["kw"], "utilisation_price": bid["price"],
                "divisible": bid["divisible"], "min_kw": bid["min_kw"],
                "baseline": bid["baseline"],
            })  # fmt: skip
        for award in buyer.clear(need_id)["clearing"]["awards"]:
            self._say(f"  {award['seller']}: {award['reason']}")
        for contract in buyer.contracts(need_id):
            for side in (contract["buyer"], contract["seller"]):
                self._world.client(side).sign(contract["id"])
        self.day.needs[wanted["event"]] = need_id

    def _order(self, event: Json) -> None:
        wanted = next(n for n in self._scenario["needs"] if n["event"] == event["name"])
        buyer, need_id = self._world.client(wanted["buyer"]), self.day.needs[event["name"]]
        kw = min(wanted["kw"], sum(each["kw"] for each in buyer.contracts(need_id)))
        order = {"need_id": need_id, "kw": kw, "interval": event["interval"]}
        answer = buyer.submit_order(order, key=f"demo-{event['name']}")
        self.day.orders[event["name"]] = answer["id"]
        self._say(f"{self._clock()} order {answer['id']}: {kw:g} kW {event['direction']},"
                  " accepted and durable")  # fmt: skip

    def _await_telemetry(self) -> None:
        """A plan needs to know what each device does now."""
        wanted = {d for asset in self._scenario["assets"] for d in asset["devices"]}
        deadline = max(self._world.now(), _instant(self._scenario["market"]["sim_start"]))
        missing: set[str] = wanted
        while self._world.now() < deadline + _PATIENCE:
            rows = self._world.client(OPERATOR).get("/v1/devices")
            missing = wanted - {r["device_id"] for r in rows if r["newest"] and not r["stale"]}
            if not missing:
                return
            self._world.pause()
        raise FlexwayError(f"no telemetry from {', '.join(sorted(missing))}")

    def _await_settled(self, event: Json) -> None:
        """An order that is over has its last window verified and paid within a while."""
        order_id = self.day.orders[event["name"]]
        wanted = next(n for n in self._scenario["needs"] if n["event"] == event["name"])
        deadline = _instant(event["interval"]["end"]) + _PATIENCE
        while (state := self._state(wanted["buyer"], order_id)) != "settled":
            if state in {"rejected", "infeasible"} or self._world.now() > deadline:
                raise FlexwayError(f"order {order_id} is {state}")
            self._world.pause()
        self._say(f"{self._clock()} order {order_id} is settled")

    def _state(self, buyer: str, order_id: str) -> str:
        state: str = self._world.client(buyer).get(f"/v1/orders/{order_id}")["state"]
        return state

    def _clock(self) -> str:
        zone = self._scenario["market"]["timezone"]
        return f"{local(self._world.now(), zone):%H:%M}"


def local(at: datetime, zone: str) -> datetime:
    """An instant in the market's time zone."""
    return at.astimezone(ZoneInfo(zone))


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
