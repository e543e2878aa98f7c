"""What a gateway's settings say of a fleet: its devices, as `[[mqtt.devices]]` and so on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firmware_sim.fleet.population import BATTERY, CHARGER, Population

_LEASE_S = 600.0


def mqtt_devices(
    population: Population, *, organisation: str, telemetry_s: float
) -> list[dict[str, Any]]:  # fmt: skip
    """Entries of `[[mqtt.devices]]`."""
    return [
        {
            "device_id": device,
            "organisation": organisation,
            "profile": {**_profile(population, n, telemetry_s), "lease": "time_to_live"},
        }
        for n, device in enumerate(population.ids)
    ]


def modbus_devices(
    population: Population, places: Mapping[str, Mapping[str, Any]], *, organisation: str,
    telemetry_s: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """Entries of `[[modbus.devices]]`; `places` as in the ready file of `fleet modbus`."""
    return [
        {
            "device_id": device,
            "organisation": organisation,
            "role": "battery" if population.kinds[n] == BATTERY else "inverter",
            **places[device],
            "profile": {**_profile(population, n, telemetry_s), "lease": "revert_timer"},
        }
        for n, device in enumerate(population.ids)
    ]


def _profile(population: Population, n: int, telemetry_s: float) -> dict[str, Any]:
    kind, capacity = population.kinds[n], float(population.capacity_kwh[n])
    found: dict[str, Any] = {
        "min_kw": float(population.low_kw[n]), "max_kw": float(population.high_kw[n]),
        "control": "setpoint" if kind == BATTERY else "limit",
        "lease_s": _LEASE_S, "telemetry_s": telemetry_s,
    }  # fmt: skip
    if kind == BATTERY:
        found |= {"fallback_kw": 0.0, "capacity_kwh": capacity}
    elif kind == CHARGER:
        found["capacity_kwh"] = capacity
    return found
