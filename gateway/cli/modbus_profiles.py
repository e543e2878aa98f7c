"""`flexway modbus profiles`: the device profiles that come with Flexway, and checking one's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from config.findings import Severity
from config.profile_model import ControlEntry, PointEntry, ProfileDocument
from config.profiles import LoadedProfile, read_profile, shipped
from marketplace_core.errors import ConfigError

_EXAMPLES: Final = """\b
Examples:
  flexway modbus profiles
  flexway modbus profiles sungrow-sh
  flexway modbus profiles --check mine.yaml
"""


@click.command(epilog=_EXAMPLES)
@click.argument("names", nargs=-1, metavar="[NAME | FILE]...")
@click.option("--check", is_flag=True, help="Check profiles of your own, with line numbers.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document for programs.")
def profiles(names: tuple[str, ...], *, check: bool, as_json: bool) -> None:
    """List device profiles: what they are for, where they come from, what they can drive.

    With a name everything that a profile says. Exit code of --check 0: nothing but warnings;
    1: an error.
    """
    if check:
        _check(names, as_json=as_json)
        return
    try:
        found = {name: read_profile(name).required() for name in names or shipped()}
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({n: one.model_dump(mode="json") for n, one in found.items()}))
    elif names:
        click.echo("\n\n".join("\n".join(_whole(name, one)) for name, one in found.items()))
    else:
        click.echo("\n".join(line for name, one in found.items() for line in _short(name, one)))


def _check(names: Sequence[str], *, as_json: bool) -> None:
    if not names:
        raise click.UsageError("--check needs the files to check")
    loaded = [read_profile(name) for name in names]
    if as_json:
        click.echo(json.dumps([_document(one) for one in loaded]))
    else:
        for one in loaded:
            click.echo("\n".join(_findings(one)))
    sys.exit(1 if any(one.errors for one in loaded) else 0)


def _findings(loaded: LoadedProfile) -> Iterator[str]:
    for finding in loaded.findings:
        colour = "red" if finding.severity is Severity.ERROR else "yellow"
        mark = click.style(f"{finding.severity.value:<7}", colour)
        yield f"{mark} {loaded.sources.place_of(finding.location)} {finding.key}".rstrip()
        yield f"        {finding.message}"
        if finding.remedy:
            yield f"        -> {finding.remedy}"
    if not loaded.errors:
        yield f"{click.style('ok     ', 'green')} {loaded.name}"


def _document(loaded: LoadedProfile) -> dict[str, Any]:
    return {
        "file": loaded.name, "ok": not loaded.errors,
        "findings": [
            {"severity": f.severity.value, "key": f.key, "line": loaded.sources.line_of(f.location),
             "message": f.message, "remedy": f.remedy}
            for f in loaded.findings
        ],
    }  # fmt: skip


def _short(name: str, profile: ProfileDocument) -> Iterator[str]:
    yield f"{click.style(name, bold=True)}  {profile.title}  ({profile.role}, {_standing(profile)})"
    for control, entry in profile.controls.items():
        yield f"    control   {control}: {_control(entry)}"
    if not profile.controls and profile.role != "meter":
        yield "    control   none: it is only read"
    for document in profile.documents.values():
        origin = "" if document.origin == "manufacturer" else "third party: "
        yield f"    document  {origin}{document.title}, {document.revision}"


def _whole(name: str, profile: ProfileDocument) -> Iterator[str]:
    yield from _short(name, profile)
    for document in profile.documents.values():
        yield f"    where     {document.where}"
        if document.note:
            yield f"              {' '.join(document.note.split())}"
    yield f"    models    {', '.join(profile.models)}"
    power = profile.measurements.power
    sign = "injects" if power.meter_sign > 0 else "consumes"
    yield f"    power     {' + '.join(power.points)}, positive {sign}"
    if profile.flash_wear is not None:
        budget = profile.flash_wear.writes_per_day
        words = f"{budget} writes a day" if budget else "no limit"
        yield f"    wear      {words}: {' '.join(profile.flash_wear.why.split())}"
    for control, entry in profile.controls.items():
        if entry.note:
            yield f"    {control}: {' '.join(entry.note.split())}"
    if profile.note:
        yield f"    note      {' '.join(profile.note.split())}"
    for point, told in profile.points.items():
        yield f"    {told.address:>5} {told.table:<7} {point:<24} {_kind(told)}  [{told.cite}]"


def _control(entry: ControlEntry) -> str:
    lease = entry.lease
    if lease.kind == "none":
        held = "no lease, the gateway's watchdog has to end it"
    else:
        timer = "timer" if lease.kind == "timer" else "fixed time"
        held = f"{timer} up to {lease.longest_s:g} s, restarts on {entry.lease_restarts_on}"
        held += f", then {entry.fallback.replace('_', ' ')}"
    return f"{entry.kind}, {held}"


def _kind(point: PointEntry) -> str:
    scale = "" if point.scale == 1.0 else f" x {point.scale:g}"
    written = ", written" if point.access == "read_write" else ""
    return f"{point.type}{scale} {point.unit}".rstrip() + written


def _standing(profile: ProfileDocument) -> str:
    return "verified" if profile.verified else "unverified: not run on hardware yet"
