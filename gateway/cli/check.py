"""`flexway check`: what is wrong with a configuration, before anything starts."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from config.files import file_findings
from config.findings import Finding, Severity, Sources
from config.loading import read_settings
from config.settings import Settings
from gateway.cli.probes import Probe, run_probes

_EXAMPLES: Final = """\b
Examples:
  flexway check --config /etc/flexway/flexway.toml
  sudo -u flexway flexway check --config /etc/flexway/flexway.toml --probe
  flexway check --config flexway.toml --json | jq .findings
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "--config", "config_file", required=True,
    type=click.Path(dir_okay=False, path_type=Path), help="Settings, TOML.",
)  # fmt: skip
@click.option(
    "--probe", is_flag=True,
    help="Also connect, read only: broker, Modbus units, database, Redis, ports.",
)  # fmt: skip
@click.option(
    "--timeout", "timeout_s", default=5.0, show_default=True,
    type=click.FloatRange(min=0.1), help="Seconds that one probe may take.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON document for programs.")
def check(config_file: Path, timeout_s: float, *, probe: bool, as_json: bool) -> None:
    """Say everything that is wrong with a configuration, with line, key and remedy.

    Reads the settings and the files they name; touches no database, broker or device
    unless --probe is given. Exit code 0: nothing but warnings; 1: an error.
    """
    loaded = read_settings(config_file, os.environ)
    findings = list(loaded.findings)
    if loaded.settings is not None:
        findings += file_findings(loaded.settings, datetime.now(UTC))
    if not as_json:
        _print_findings(findings, loaded.sources)
    probes: list[Probe] = []
    if probe and loaded.settings is not None:
        probes = _probe(loaded.settings, timeout_s, quiet=as_json)
    ok = all(f.severity is not Severity.ERROR for f in findings) and all(p.ok for p in probes)
    if as_json:
        click.echo(json.dumps(_document(config_file, findings, loaded.sources, probes, ok=ok)))
    else:
        _print_verdict(findings, probes)
    sys.exit(0 if ok else 1)


def _probe(settings: Settings, timeout_s: float, *, quiet: bool) -> list[Probe]:
    probes: list[Probe] = []

    def report(found: Probe) -> None:
        probes.append(found)
        if not quiet:
            mark = click.style("ok    ", "green") if found.ok else click.style("failed", "red")
            click.echo(f"{mark} {found.name}: {found.detail}")
            if not found.ok:
                click.echo(f"       -> {found.remedy}")

    asyncio.run(run_probes(settings, timeout_s, report))
    return probes


def _print_findings(findings: Sequence[Finding], sources: Sources) -> None:
    for finding in findings:
        colour = "red" if finding.severity is Severity.ERROR else "yellow"
        mark = click.style(f"{finding.severity.value:<7}", colour)
        place = sources.place_of(finding.location)
        click.echo(f"{mark} {place} {'' if finding.key == place else finding.key}".rstrip())
        click.echo(f"        {finding.message}")
        if finding.remedy:
            click.echo(f"        -> {finding.remedy}")


def _print_verdict(findings: Sequence[Finding], probes: Sequence[Probe]) -> None:
    errors = sum(f.severity is Severity.ERROR for f in findings)
    failed = sum(not p.ok for p in probes)
    parts = [_count(errors, "error"), _count(len(findings) - errors, "warning")]
    if probes:
        parts.append(f"{failed} of {_count(len(probes), 'probe')} failed")
    click.echo(", ".join(parts))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _document(
    file: Path, findings: Sequence[Finding], sources: Sources, probes: Sequence[Probe], *, ok: bool
) -> dict[str, Any]:
    return {
        "file": str(file),
        "ok": ok,
        "findings": [
            {
                "severity": finding.severity.value,
                "key": finding.key,
                "line": None if variable else sources.line_of(finding.location),
                "variable": variable,
                "message": finding.message,
                "remedy": finding.remedy,
            }
            for finding in findings
            for variable in [sources.variable_of(finding.location)]
        ],
        "probes": [
            {"name": p.name, "ok": p.ok, "detail": p.detail, "remedy": p.remedy} for p in probes
        ],
    }
