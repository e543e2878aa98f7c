"""What is read back from the service about its orders, before anything is stopped."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from gateway.cli.demo.script import Day
from gateway.cli.demo.settings import OPERATOR
from gateway.cli.demo.world import Json, World

_LEAD = timedelta(minutes=30)
"""Time before the first order and after the last rebound that the plots show."""


class Told:
    """One order as the service tells it."""

    def __init__(self, world: World, buyer: str, event: Json, need_id: str, order_id: str) -> None:
        client = world.client(buyer)
        self.event = event
        self.id = order_id
        self.need: Json = client.get(f"/v1/needs/{need_id}")
        self.contracts: dict[str, Json] = {
            each["id"]: each for each in client.get(f"/v1/needs/{need_id}/contracts")
        }
        self.order: Json = client.get(f"/v1/orders/{order_id}")
        self.facts: list[Json] = client.get(f"/v1/orders/{order_id}/facts")

    @property
    def interval(self) -> tuple[datetime, datetime]:
        """Start and end."""
        span = self.order["order"]["interval"]
        return datetime.fromisoformat(span["start"]), datetime.fromisoformat(span["end"])


class Evidence:
    """Everything that the report is made from."""

    def __init__(self, world: World, scenario: Json, day: Day) -> None:
        operator = world.client(OPERATOR)
        self.scenario = scenario
        self.day = day
        self.orders = [
            Told(world, _need(scenario, event)["buyer"], event, day.needs[event["name"]],
                 day.orders[event["name"]])
            for event in scenario["market"]["events"]
            if event["name"] in day.orders
        ]  # fmt: skip
        self.needs = {
            name: world.client(_need(scenario, {"name": name})["buyer"]).get(f"/v1/needs/{need_id}")
            for name, need_id in day.needs.items()
        }
        self.devices = {row["device_id"]: row for row in operator.get("/v1/devices")}
        self.flags: list[Json] = operator.get("/v1/flags")
        self.quarantine = operator.get("/v1/quarantine")
        self.journal = operator.get("/v1/journal/verification")
        self.health = operator.get("/readyz")
        self.assets = {asset["id"]: asset for asset in scenario["assets"]}
        self.series = self._read_series(operator)

    def meters(self, contract: Json) -> list[str]:
        """Series that a contract is measured by."""
        return sorted(self.assets[asset]["meter"] for asset in contract["assets"])

    def _read_series(self, operator: Any) -> dict[str, list[list[float]]]:
        spans = [order.interval for order in self.orders]
        if not spans:
            return {}
        start = min(start for start, _ in spans) - _LEAD
        end = max(end for _, end in spans) + timedelta(hours=1) + _LEAD
        names = {asset["meter"] for asset in self.assets.values()}
        names |= {
            row["setpoint"]["device_id"] for order in self.orders
            for row in order.order["setpoints"]
        }  # fmt: skip
        return {
            name: operator.get(
                f"/v1/readings/{name}", start=start.isoformat(), end=end.isoformat()
            )["rows"]
            for name in sorted(names)
        }


def _need(scenario: Json, event: Json) -> Json:
    found: Json = next(need for need in scenario["needs"] if need["event"] == event["name"])
    return found
