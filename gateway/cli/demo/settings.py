"""Settings of the demo's gateway, made from a scenario and the addresses of its devices."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from config.writing import to_toml

Json = Mapping[str, Any]
OPERATOR = "org_operator"
_ROLES = ("battery", "inverter", "meter")


@dataclass(frozen=True)
class Timeline:
    """The demo's simulated time."""

    market_epoch: datetime
    begins_by: Path
    """File that says when market time begins to run."""
    speed: float


@dataclass(frozen=True)
class Addresses:
    """Where the demo's servers listen; all on loopback."""

    broker_port: int
    vtn_port: int
    modbus: Mapping[str, Json]
    """Per device id: host, port, unit, serial number and the sign of a meter."""
    fingerprints: Mapping[str, str]
    """Per device id of a site: of its VEN's certificate."""
    tls: Path | None
    """Folder of the lab CA's certificates; None = nothing is reached over a network."""
    api_port: int = 0


def nowhere(scenario: Json) -> Addresses:
    """Addresses of a virtual day: nothing is listened on and nobody is called."""
    units = [(home, role) for home in scenario["homes"] for role in _ROLES]
    modbus = {
        home[role]: {"host": "127.0.0.1", "port": 1 + index, "unit": 1}
        for index, (home, role) in enumerate(units)
    }
    return Addresses(1, 0, modbus, {}, None)


def make_tokens(scenario: Json) -> dict[str, str]:
    """A fresh bearer token for every organisation of the scenario and the operator."""
    sellers = [seller["id"] for seller in scenario["sellers"]]
    names = [OPERATOR, *_buyers(scenario), *sellers]
    return {name: secrets.token_urlsafe(32) for name in names}


def _buyers(scenario: Json) -> list[str]:
    return sorted({need["buyer"] for need in scenario["needs"]})


def gateway_settings(
    scenario: Json, tokens: Mapping[str, str], timeline: Timeline | None, where: Addresses
) -> str:
    """TOML of a lab gateway that drives the scenario's devices."""
    market = scenario["market"]
    return to_toml(
        {
            "lab": True,
            "market": {
                "timezone": market["timezone"],
                "settlement_minutes": market["grid_minutes"],
                "currency": market["currency"],
            },
            "time": _time(timeline),
            # Roots come by the wall; a virtual day has one every quarter of an hour.
            "store": {"root_every_s": 1.0 if timeline else 900.0},
            "api": {"port": where.api_port, "clients": _clients(scenario, tokens)},
            "observe": {"rebound_s": 3600.0},
            "modbus": {"timeout_s": 0.8, "devices": _modbus(scenario, where)},
            "mqtt": {
                "port": where.broker_port,
                "tls": False,
                "protocol": "3.1.1",
                "devices": _mqtt(scenario),
            },
            "webhook": {"devices": _fleets(scenario)},
            "openadr": {
                "port": where.vtn_port, "poll_s": 0.5, "vens": _vens(scenario, where),
                **_certificates(where.tls),
            },
        }
    )  # fmt: skip


def _time(timeline: Timeline | None) -> Json:
    if timeline is None:
        return {}
    return {
        "market_epoch": timeline.market_epoch.isoformat(),
        "begins_by": str(timeline.begins_by),
        "speed": timeline.speed,
    }


def _certificates(folder: Path | None) -> Json:
    if folder is None:
        return {}
    return {
        "tls_certificate": str(folder / "vtn.pem"),
        "tls_key": str(folder / "vtn.key"),
        "ca_certificate": str(folder / "ca.pem"),
    }


def write_settings(folder: Path, text: str) -> Path:
    """Write the settings where `flexway serve` will read them."""
    path = folder / "flexway.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _clients(scenario: Json, tokens: Mapping[str, str]) -> Sequence[Json]:
    def role(name: str) -> str:
        if name == OPERATOR:
            return "operator"
        return "buyer" if name in _buyers(scenario) else "seller"

    return [
        {
            "organisation": name,
            "role": role(name),
            "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
        }
        for name, token in tokens.items()
    ]


def _profiles(scenario: Json) -> dict[str, Json]:
    left_out = {"device_id", "protocol"}
    return {
        profile["device_id"]: {k: v for k, v in profile.items() if k not in left_out}
        for profile in scenario["profiles"]
    }


def _modbus(scenario: Json, where: Addresses) -> Sequence[Json]:
    profiles = _profiles(scenario)
    return [
        {
            "device_id": home[role],
            "organisation": home["seller"],
            "role": role,
            "meter_sign": -1 if role == "meter" else None,
            **where.modbus[home[role]],
            "profile": profiles.get(home[role], {"min_kw": -100.0, "max_kw": 100.0}),
        }
        for home in scenario["homes"]
        for role in _ROLES
    ]


def _mqtt(scenario: Json) -> Sequence[Json]:
    profiles = _profiles(scenario)
    return [
        {
            "device_id": charger["id"],
            "organisation": charger["seller"],
            "profile": profiles[charger["id"]],
        }
        for charger in scenario["chargers"]
    ]


def _fleets(scenario: Json) -> Sequence[Json]:
    profiles = _profiles(scenario)
    return [
        {
            "device_id": fleet["id"],
            "organisation": fleet["seller"],
            "profile": {**profiles[fleet["id"]], "aggregate": True},
        }
        for fleet in scenario["fleets"]
    ]


def _vens(scenario: Json, where: Addresses) -> Sequence[Json]:
    profiles = _profiles(scenario)
    return [
        {
            "device_id": site["id"], "organisation": site["seller"],
            "ven_name": site["ven_name"], "profile": profiles[site["id"]],
            "fingerprint": where.fingerprints.get(site["id"], ""),
        }
        for site in scenario["sites"]
    ]  # fmt: skip
