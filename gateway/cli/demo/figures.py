"""The report's document, made from what the service said of itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from gateway.cli.demo.evidence import Evidence, Told
from gateway.cli.demo.first_told import first_reading, first_told
from gateway.cli.demo.minutes import minute_means

Json = Mapping[str, Any]
Elapsed = Callable[[datetime], float | None]
_LEAD_S = 1800.0
_REBOUND_S = 3600.0


def compose(evidence: Evidence, *, settings: Json, elapsed: Elapsed) -> dict[str, Any]:
    """Everything but `truth` and `checks`; `settings` says how the day was run.

    `elapsed`: wall seconds of the run until a market instant, None where time is virtual.
    """
    market = evidence.scenario["market"]
    told = evidence.orders
    return {
        **settings,
        "market": {
            "day": market["day"], "timezone": market["timezone"], "feeder": market["feeder"],
            "grid_minutes": market["grid_minutes"], "currency": market["currency"],
            "speed": settings["speed"], "history_rows": evidence.day.imported["accepted"],
        },
        "imported": evidence.day.imported,
        "sellers": [dict(seller) for seller in evidence.scenario["sellers"]],
        "incidents": evidence.day.incidents,
        "awards": [row for name in evidence.day.needs for row in _awards(evidence, name)],
        "orders": [_order(order, elapsed) for order in told],
        "setpoints": _counts(told),
        "devices": [row for order in told for row in _devices(evidence, order)],
        "windows": [row for order in told for row in _windows(order, rebound=False)],
        "rebound": [row for order in told for row in _windows(order, rebound=True)],
        "trace": [row for order in told for row in _trace(evidence, order)],
        "flags": [_flag(flag) for flag in evidence.flags],
        "statement": [row for order in told for row in _statement(order)],
        "ledger": _ledger(told),
        "journal": {
            "events": evidence.journal["events"], "head_hash": evidence.journal["head_hash"],
            "verified": evidence.journal["verified"],
        },
        "dead_letters": evidence.health["dead_letters"],
        "quarantined": len(evidence.quarantine["messages"]),
    }  # fmt: skip


def _awards(evidence: Evidence, event: str) -> list[dict[str, Any]]:
    keys = ("seller", "kw", "price", "accepted", "reason")
    order_id = evidence.day.orders.get(event, "")
    return [
        {"order": order_id, "event": event, **{key: award[key] for key in keys}}
        for award in evidence.needs[event]["clearing"]["awards"]
    ]


def _order(told: Told, elapsed: Elapsed) -> Json:
    order = told.order["order"]
    revisions = [
        {"revision": each["fact"]["revision"], "at": each["at"], "reason": each["fact"]["reason"]}
        for each in told.facts
        if each["fact"]["kind"] == "OrderRevised"
    ]
    return {
        "id": order["id"], "direction": order["direction"], "kw": order["kw"],
        "need_kw": told.need["need"]["kw"], "event": told.event["name"],
        "start": order["interval"]["start"], "end": order["interval"]["end"],
        "state": told.order["state"], "revisions": revisions,
        "events": [
            {"kind": e["kind"], "at": e["at"], "wall_s": elapsed(datetime.fromisoformat(e["at"]))}
            for e in told.order["events"]
        ],
    }  # fmt: skip


def _counts(told: Iterable[Told]) -> Json:
    """Setpoints by what became of each in the end."""
    rows = [row for order in told for row in order.order["setpoints"]]
    counts = Counter(row["outcome"]["type"] for row in rows if row["outcome"] is not None)
    names = ("applied", "refused", "unreachable", "unconfirmed")
    return {"issued": len(rows), **{name: counts[name] for name in names}}


def _devices(evidence: Evidence, told: Told) -> list[dict[str, Any]]:
    """Commanded, acknowledged and measured: one row per device and order, its last setpoint."""
    sellers = {
        device: asset["organisation"]
        for asset in evidence.assets.values()
        for device in asset["devices"]
    }
    references = {
        each["device_id"]: each["reference_kw"]
        for fact in told.facts
        for each in fact["fact"].get("allocations", ())
    }
    last: dict[str, Json] = {}
    for row in told.order["setpoints"]:
        known = last.get(row["setpoint"]["device_id"])
        if known is None or row["setpoint"]["revision"] > known["setpoint"]["revision"]:
            last[row["setpoint"]["device_id"]] = row
    issued, applied = first_told(told.facts)
    rows = []
    for device, row in sorted(last.items()):
        setpoint, outcome = row["setpoint"], row["outcome"] or {}
        rows.append(
            {
                "order": told.id,
                "device": device,
                "protocol": evidence.devices[device]["profile"]["protocol"],
                "control": evidence.devices[device]["profile"]["control"],
                "seller": sellers[device],
                "reference_kw": references.get(device),
                "setpoint_kw": setpoint["power_kw"],
                "revision": setpoint["revision"],
                "acknowledged": outcome.get("type", "none"),
                "read_back_kw": outcome.get("read_back_kw"),
                "measured_kw": _mean(evidence, device, setpoint, told),
                "lease_s": setpoint["lease_s"],
                "issued_at": issued.get(device),
                "in_force_at": applied.get(device),
                "first_reading_at": first_reading(evidence.series[device], applied.get(device)),
            }
        )
    return rows


def _mean(evidence: Evidence, series: str, setpoint: Json, told: Told) -> float | None:
    """Mean power while the setpoint stood."""
    start = datetime.fromisoformat(setpoint["valid_from"]).timestamp()
    end = told.interval[1].timestamp()
    inside = [(s, kw) for at, s, kw in evidence.series[series] if start <= at and at + s <= end]
    seconds = sum(s for s, _ in inside)
    return sum(s * kw for s, kw in inside) / seconds if seconds else None


def _windows(told: Told, *, rebound: bool) -> list[dict[str, Any]]:
    """Settlement windows of an order, or those after it."""
    rows = []
    end_of_order = told.interval[1]
    for window in told.order["windows"]:
        delivery = window["delivery"]
        start, end = (datetime.fromisoformat(window["period"][k]) for k in ("start", "end"))
        if delivery is None or (start >= end_of_order) is not rebound:
            continue
        rows.append(
            {
                "order": window["order_id"],
                "contract": window["contract_id"],
                "seller": told.contracts[window["contract_id"]]["seller"],
                "start": window["period"]["start"],
                "instructed_kw": delivery["instructed_kw"],
                "baseline_kw": delivery["baseline_kw"],
                "measured_kw": delivery["measured_kw"],
                "delivered_kw": delivery["delivered_kwh"] / ((end - start) / timedelta(hours=1)),
                "coverage": delivery["coverage"],
                "baseline_method": delivery["baseline_method"],
                "baseline_days": delivery["baseline_days"],
                "version": window["version"],
                "note": delivery["note"],
            }
        )
    return rows


def _trace(evidence: Evidence, told: Told) -> Iterable[Json]:
    """Minute points per contract: the sum over its meters, and what it was asked for then."""
    step = evidence.scenario["market"]["grid_minutes"] * 60.0
    windows = {
        (w["contract"], datetime.fromisoformat(w["start"]).timestamp()): w
        for kind in (False, True)
        for w in _windows(told, rebound=kind)
    }
    start, end = (at.timestamp() for at in told.interval)
    for contract in told.contracts.values():
        meters = evidence.meters(contract)
        points: dict[float, list[float]] = defaultdict(list)
        for meter in meters:
            for minute, kw in minute_means(evidence.series[meter]).items():
                if start - _LEAD_S <= minute < end + _REBOUND_S:
                    points[minute].append(kw)
        for minute in sorted(points):
            if len(points[minute]) < len(meters):
                continue  # a meter is missing in this minute: a sum would mislead
            window = windows.get((contract["id"], minute - minute % step), {})
            yield {
                "at": minute, "order": told.id, "contract": contract["id"],
                "seller": contract["seller"], "measured_kw": round(sum(points[minute]), 4),
                "instructed_kw": window.get("instructed_kw"),
                "baseline_kw": window.get("baseline_kw"),
            }  # fmt: skip


def _flag(flag: Json) -> Json:
    return {
        "device": flag["device_id"], "kind": flag["kind"], "at": flag["at"],
        "after_intervals": flag["after_intervals"], "order": flag["order_id"],
        "evidence": flag["evidence"],
    }  # fmt: skip


def _statement(told: Told) -> list[dict[str, Any]]:
    lines = told.order["lines"]
    newest = max((line["version"] for line in lines), default=0)
    return [
        {
            "order": told.id, "contract": line["contract_id"], "seller": line["seller"],
            "line": line["item"], "quantity": line["quantity"], "unit": line["unit"],
            "price": line["price"], "amount": line["amount"], "currency": line["currency"],
            "explains": line["explains"],
        }
        for line in lines
        if line["version"] == newest
    ]  # fmt: skip


def _ledger(told: Iterable[Told]) -> list[dict[str, Any]]:
    balances: dict[str, Decimal] = defaultdict(Decimal)
    for order in told:
        for posting in order.order["postings"]:
            balances[posting["account"]] += Decimal(posting["amount"])
    return [
        {"account": account, "debit": str(max(amount, Decimal())),
         "credit": str(max(-amount, Decimal()))}
        for account, amount in sorted(balances.items())
    ]  # fmt: skip
