"""What the demo reports, read back from the service that did it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from gateway.cli.report_trace import minute_means
from gateway.client import Client

Json = Mapping[str, Any]
_LEAD = timedelta(minutes=30)
"""Time before and after the order that the plots show."""


class Evidence:
    """Everything that the demo read from the API about its one order."""

    def __init__(
        self, *, scenario: Json, need: Json, contracts: list[Json], order: Json, operator: Client
    ) -> None:
        self.scenario = scenario
        self.need = need
        self.contracts = {contract["id"]: contract for contract in contracts}
        self.order = order
        self.devices = {row["device_id"]: row for row in operator.get("/v1/devices")}
        self.quarantine = operator.get("/v1/quarantine")
        self.journal = operator.get("/v1/journal/verification")
        self.series = self._read_series(operator)

    def _read_series(self, operator: Client) -> dict[str, list[list[float]]]:
        interval = self.order["order"]["interval"]
        start = datetime.fromisoformat(interval["start"]) - _LEAD
        end = datetime.fromisoformat(interval["end"]) + _LEAD
        names = {asset["meter"] for asset in self.scenario["assets"]}
        names |= {row["setpoint"]["device_id"] for row in self.order["setpoints"]}
        return {
            name: operator.get(
                f"/v1/readings/{name}", start=start.isoformat(), end=end.isoformat()
            )["rows"]
            for name in sorted(names)
        }


def compose(evidence: Evidence, *, seed: int, speed: float, imported: Json) -> dict[str, Any]:
    """The report's document; `checks` are filled in by `checks.py`."""
    market, order = evidence.scenario["market"], evidence.order
    return {
        "seed": seed,
        "market": {
            "day": market["day"], "timezone": market["timezone"], "feeder": market["feeder"],
            "grid_minutes": market["grid_minutes"], "speed": speed,
            "currency": market["currency"], "history_rows": imported["accepted"],
        },
        "awards": _awards(evidence),
        "orders": [_order(evidence)],
        "setpoints": _setpoint_counts(order),
        "devices": _devices(evidence),
        "windows": _windows(evidence),
        "trace": list(_trace(evidence)),
        "flags": [],
        "statement": _statement(order),
        "ledger": _ledger(order),
        "journal": {
            "events": evidence.journal["events"], "head_hash": evidence.journal["head_hash"],
            "verified": evidence.journal["verified"],
        },
        "quarantined": len(evidence.quarantine["messages"]),
    }  # fmt: skip


def _awards(evidence: Evidence) -> list[dict[str, Any]]:
    keys = ("seller", "kw", "price", "accepted", "reason")
    order_id = evidence.order["order"]["id"]
    return [
        {"order": order_id, **{key: award[key] for key in keys}}
        for award in evidence.need["clearing"]["awards"]
    ]


def _order(evidence: Evidence) -> Json:
    order = evidence.order["order"]
    events = [{"kind": e["kind"], "at": e["at"]} for e in evidence.order["events"]]
    return {
        "id": order["id"], "direction": order["direction"], "kw": order["kw"],
        "need_kw": evidence.need["need"]["kw"], "start": order["interval"]["start"],
        "end": order["interval"]["end"], "state": evidence.order["state"], "events": events,
    }  # fmt: skip


def _setpoint_counts(order: Json) -> Json:
    counts = Counter(
        row["outcome"]["type"] for row in order["setpoints"] if row["outcome"] is not None
    )
    names = ("applied", "refused", "unreachable", "unconfirmed")
    return {"issued": len(order["setpoints"]), **{name: counts[name] for name in names}}


def _devices(evidence: Evidence) -> list[dict[str, Any]]:
    sellers = _sellers_of_devices(evidence.scenario)
    allocations = _allocations(evidence)
    rows = []
    for row in evidence.order["setpoints"]:
        setpoint, outcome = row["setpoint"], row["outcome"] or {}
        device = setpoint["device_id"]
        rows.append(
            {
                "device": device,
                "protocol": evidence.devices[device]["profile"]["protocol"],
                "seller": sellers[device],
                "reference_kw": allocations.get(device),
                "setpoint_kw": setpoint["power_kw"],
                "acknowledged": outcome.get("type", "none"),
                "read_back_kw": outcome.get("read_back_kw"),
                "measured_kw": _mean_during(evidence, device),
                "lease_s": setpoint["lease_s"],
            }
        )
    return rows


def _allocations(evidence: Evidence) -> dict[str, float]:
    references: dict[str, float] = {}
    for fact in evidence.order["facts"]:
        for allocation in fact["fact"].get("allocations", ()):
            references[allocation["device_id"]] = allocation["reference_kw"]
    return references


def _mean_during(evidence: Evidence, series: str) -> float | None:
    interval = evidence.order["order"]["interval"]
    start = datetime.fromisoformat(interval["start"]).timestamp()
    end = datetime.fromisoformat(interval["end"]).timestamp()
    inside = [(s, kw) for at, s, kw in evidence.series[series] if start <= at and at + s <= end]
    seconds = sum(s for s, _ in inside)
    return sum(s * kw for s, kw in inside) / seconds if seconds else None


def _windows(evidence: Evidence) -> list[dict[str, Any]]:
    rows = []
    for window in evidence.order["windows"]:
        delivery = window["delivery"]
        if delivery is None:
            continue
        start, end = (datetime.fromisoformat(window["period"][k]) for k in ("start", "end"))
        hours = (end - start) / timedelta(hours=1)
        rows.append(
            {
                "order": window["order_id"],
                "contract": window["contract_id"],
                "seller": evidence.contracts[window["contract_id"]]["seller"],
                "start": window["period"]["start"],
                "instructed_kw": delivery["instructed_kw"],
                "baseline_kw": delivery["baseline_kw"],
                "measured_kw": delivery["measured_kw"],
                "delivered_kw": delivery["delivered_kwh"] / hours,
                "coverage": delivery["coverage"],
                "baseline_method": delivery["baseline_method"],
                "baseline_days": delivery["baseline_days"],
                "version": window["version"],
                "note": delivery["note"],
            }
        )
    return rows


def _trace(evidence: Evidence) -> Iterable[Json]:
    """Minute points per seller: the sum over its meters, and what it was asked for then."""
    by_seller: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    meters: Counter[str] = Counter()
    for asset in evidence.scenario["assets"]:
        meters[asset["organisation"]] += 1
        for minute, kw in minute_means(evidence.series[asset["meter"]]).items():
            by_seller[asset["organisation"]][minute].append(kw)
    step = timedelta(minutes=evidence.scenario["market"]["grid_minutes"]).total_seconds()
    windows = {
        (w["seller"], datetime.fromisoformat(w["start"]).timestamp()): w for w in _windows(evidence)
    }
    for seller, points in by_seller.items():
        for minute in sorted(points):
            if len(points[minute]) < meters[seller]:
                continue  # a meter is missing in this minute: a sum would mislead
            window = windows.get((seller, minute - minute % step), {})
            yield {
                "at": minute, "seller": seller, "measured_kw": sum(points[minute]),
                "instructed_kw": window.get("instructed_kw"),
                "baseline_kw": window.get("baseline_kw"),
            }  # fmt: skip


def _statement(order: Json) -> list[dict[str, Any]]:
    newest = max((line["version"] for line in order["lines"]), default=0)
    return [
        {
            "seller": line["seller"], "line": line["item"], "quantity": line["quantity"],
            "unit": line["unit"], "price": line["price"], "amount": line["amount"],
            "currency": line["currency"], "explains": line["explains"],
        }
        for line in order["lines"]
        if line["version"] == newest
    ]  # fmt: skip


def _ledger(order: Json) -> list[dict[str, Any]]:
    balances: dict[str, Decimal] = defaultdict(Decimal)
    for posting in order["postings"]:
        balances[posting["account"]] += Decimal(posting["amount"])
    return [
        {"account": account, "debit": str(max(amount, Decimal())),
         "credit": str(max(-amount, Decimal()))}
        for account, amount in sorted(balances.items())
    ]  # fmt: skip


def _sellers_of_devices(scenario: Json) -> dict[str, str]:
    return {
        device: asset["organisation"] for asset in scenario["assets"] for device in asset["devices"]
    }
