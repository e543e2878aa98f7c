"""The entry of a tested device: made from what was measured, appended without harm."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from adapters.modbus.bench import Place
from adapters.modbus.lines import Line
from config.findings import Finding, Severity
from config.loading import Loaded, read_settings
from config.rules import devices_of
from config.settings import ModbusDeviceSettings
from config.writing import to_toml
from gateway.bindings import modbus_line
from gateway.edge.judging import Record
from marketplace_core.errors import ConfigError

_TELEMETRY_SHARE: Final = 4.0
"""A lease is at least so many telemetry intervals, where it has to be a short one."""


def entry(
    record: Record, place: Place, known: ModbusDeviceSettings | None, *, device_id: str,
    organisation: str, lease_s: float, telemetry_s: float, capacity_kwh: float | None,
) -> dict[str, Any]:  # fmt: skip
    """Keys of `[[modbus.devices]]`: what was there already, and what was measured over it."""
    verdict, offered = record.verdict, record.offered
    if verdict.longest_lease_s is not None:
        lease_s = min(lease_s, float(int(verdict.longest_lease_s)))
        telemetry_s = min(telemetry_s, lease_s / _TELEMETRY_SHARE)
    before = {} if known is None else known.model_dump(mode="json", exclude_unset=True)
    profile = {
        "min_kw": 0.0 - record.rating.absorb_kw, "max_kw": record.rating.inject_kw,
        "capacity_kwh": capacity_kwh, "telemetry_s": telemetry_s,
        **before.pop("profile", {}),
        "control": offered.kind, "lease": verdict.lease,
    }  # fmt: skip
    if verdict.lease == "none":  # with a fallback it would be dispatched all the same
        profile |= {"lease_s": None, "fallback_kw": None, "refresh": None}
    else:
        profile |= {
            "lease_s": lease_s, "refresh": "long" if verdict.long_lease else None,
            "longest_lease_s": profile.get("longest_lease_s") if verdict.long_lease else None,
        }  # fmt: skip
    if verdict.fallback_kw is not None:
        profile["fallback_kw"] = round(verdict.fallback_kw, 2)
    return {
        "device_id": device_id, "organisation": organisation or None, **_line(place.line),
        "unit": place.unit, "role": "battery" if offered.storage else "inverter",
        **before,
        "serial": record.nameplate.serial, "control": offered.control,
        "lease_restarts_on": verdict.restarts_on if verdict.lease == "revert_timer" else None,
        "negative_rates": place.negative_rates or None,
        "profile": profile,
    }  # fmt: skip


def toml_of(keys: dict[str, Any], record: Record) -> str:
    """The entry as it is appended, with a word on where it comes from."""
    told = to_toml({"modbus": {"devices": [keys]}})
    # [modbus] itself may stand in the file already.
    lines = [line for line in told.strip().splitlines() if line != "[modbus]"]
    text = "\n".join(lines).lstrip("\n")
    lease = f'# lease = "{record.verdict.lease}": {record.verdict.because}.'
    return f"# Commissioned {record.tested_at} with {record.tool}.\n{lease}\n{text}\n"


def append(file: Path, text: str, device_id: str, place: Place) -> None:
    """Append an entry in one step; nothing is written where it would not go together.

    Raises ConfigError: the file cannot be read, has the device already, or would be wrong.
    """
    before = still_free(file, device_id, place)
    whole = f"{file.read_text('utf-8').rstrip()}\n\n{text}"
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    candidate = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(whole)
            out.flush()
            os.fsync(out.fileno())
        after = read_settings(candidate, os.environ)
        known = {(each.location, each.message) for each in before.findings}
        wrong = [each for each in after.findings if _stops(each, known)]
        if wrong:
            listed = "; ".join(f"{each.key}: {each.message} ({each.remedy})" for each in wrong)
            raise ConfigError(f"{file} was left as it is, because with this entry: {listed}")
        _like(candidate, file)
        candidate.replace(file)
    finally:
        candidate.unlink(missing_ok=True)


def _stops(finding: Finding, known: set[tuple[Any, str]]) -> bool:
    return finding.severity is Severity.ERROR and (finding.location, finding.message) not in known


def still_free(file: Path, device_id: str, place: Place) -> Loaded:
    """The file, read; ConfigError when it cannot be read, or has the device or unit already."""
    loaded = read_settings(file, os.environ)
    settings = loaded.settings
    if settings is None:
        raise ConfigError("\n".join(map(loaded.sources.explain, loaded.findings)))
    for bound in devices_of(settings):
        if bound.device_id == device_id:
            where = loaded.sources.place_of(bound.location)
            raise ConfigError(
                f"{where}: {device_id!r} has an entry already, which is left as it is: take it "
                "out first"
            )
    for number, device in enumerate(settings.modbus.devices):
        if (modbus_line(device).key, device.unit) == (place.line.key, place.unit):
            where = loaded.sources.place_of(("modbus", "devices", number))
            raise ConfigError(
                f"{where}: this unit has an entry already, as {device.device_id!r}, which is left "
                f"as it is: take it out of {file} first"
            )
    return loaded


def _like(candidate: Path, file: Path) -> None:
    """Mode and owner of the file that it replaces."""
    shutil.copymode(file, candidate)
    there = file.stat()
    with suppress(PermissionError):
        os.chown(candidate, there.st_uid, there.st_gid)


def _line(line: Line) -> dict[str, Any]:
    if line.serial is not None:
        port = line.serial
        return {
            "transport": "rtu",
            "serial_line": {
                "port": port.device, "baudrate": port.baudrate, "parity": port.parity,
                "stopbits": port.stopbits,
            },
        }  # fmt: skip
    kind = None if line.transport == "tcp" else line.transport
    return {"transport": kind, "host": line.host, "port": line.port}
