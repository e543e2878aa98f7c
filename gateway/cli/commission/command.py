"""The command itself: options, the question before anything is written, what is kept."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, get_args

import click
import msgspec

from adapters.modbus.bench import SunSpecBench
from adapters.modbus.link import LinkError
from adapters.modbus.offer import ControlName
from adapters.modbus.sunspec import SunSpecError
from gateway.cli import modbus_arguments as given
from gateway.cli.commission.entry import append, entry, still_free, toml_of
from gateway.cli.commission.session import Ready, prepare, refused, run, still
from gateway.cli.commission.tables import findings_table, plan_table
from gateway.cli.commission.target import Target, at_line, in_configuration
from gateway.cli.modbus import said
from gateway.edge.judging import Findings, Record, judge
from gateway.edge.plan import LEAST_TIMER_S, Direction, Plan, Unfit, Wanted
from gateway.edge.trial import Progress
from gateway.edge.watching import WallPace
from marketplace_core.errors import ConfigError

_NO_NAME: Final = re.compile("[^A-Za-z0-9_.-]+")
"""What a serial number may hold and an id, which is also a file's name, may not."""
_EXAMPLES: Final = """\b
Examples:
  flexway commission 192.168.1.40 --unit 1
  flexway commission 192.168.1.40 --unit 1 --yes --device-id bat-1 --organisation org_seller \\
      --write /etc/flexway/flexway.toml
  flexway commission --serial /dev/ttyUSB0 --baudrate 9600 --unit 3 --control wmaxlim_123
  flexway commission 192.168.1.50:4001 --transport rtu_over_tcp --unit 3 --step-kw 0.3
  flexway commission bat-1 --config /etc/flexway/flexway.toml --yes --json
"""


@click.command(epilog=_EXAMPLES)
@click.argument("target", metavar="[HOST[:PORT]|DEVICE]", required=False)
@given.line_options
@click.option("--unit", type=click.IntRange(0, 247), help="Unit number of an address or line.")
@click.option(
    "--config", "config_file", type=click.Path(dir_okay=False, path_type=Path),
    help="Settings, TOML, in which DEVICE stands.",
)  # fmt: skip
@click.option(
    "--control", type=click.Choice(get_args(ControlName)),
    help="Control to be tested; as it is configured, or as suits the device, when left out.",
)  # fmt: skip
@click.option(
    "--negative-rates", is_flag=True,
    help="storage_124: its maker's manual allows negative rates, so that it can be forced.",
)  # fmt: skip
@click.option(
    "--step-kw", type=click.FloatRange(min=0.0, min_open=True),
    help="Step; a tenth of the rating, at most 0.5 kW, when left out.",
)  # fmt: skip
@click.option(
    "--direction", type=click.Choice(get_args(Direction)), default="auto", show_default=True,
    help="Of the step: up injects more.",
)  # fmt: skip
@click.option(
    "--timer-s", type=click.IntRange(LEAST_TIMER_S, 3600), default=20, show_default=True,
    help="Revert time to be written: long enough for its power to follow.",
)  # fmt: skip
@click.option(
    "--heartbeat-wait-s", type=click.FloatRange(min=1.0), default=60.0, show_default=True,
    help="Longest wait for the fallback without a heartbeat (model 715).",
)  # fmt: skip
@click.option(
    "--restore-s", type=click.FloatRange(min=1.0), default=120.0, show_default=True,
    help="How long a device that cannot be reached any more is tried, to restore it.",
)  # fmt: skip
@click.option(
    "--rating-kw", type=click.FloatRange(min=0.0, min_open=True),
    help="Rated power, where the device does not say it.",
)  # fmt: skip
@given.patience
@click.option("--yes", is_flag=True, help="Run it without asking; else only the plan is shown.")
@click.option("--device-id", default="", help="Its name in the entry; made of its serial number.")
@click.option("--organisation", default="", help="Whose it is, for the entry.")
@click.option(
    "--lease-s", type=click.FloatRange(min=1.0), default=60.0, show_default=True,
    help="Lease in the entry.",
)  # fmt: skip
@click.option(
    "--telemetry-s", type=click.FloatRange(min=0.1), default=10.0, show_default=True,
    help="Seconds between two readings in the entry.",
)  # fmt: skip
@click.option(
    "--write", "write_to", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Append the entry to this settings file.",
)  # fmt: skip
@click.option(
    "--record", "record_file", type=click.Path(dir_okay=False, path_type=Path),
    help="Where the record is kept; beside the settings, in commissioning/, when left out.",
)  # fmt: skip
@given.as_json
def commission(target: str | None, **options: Any) -> None:
    """Test what a device really does, safely, and write the entry that the result allows.

    Without --yes, or a yes on the terminal, nothing is written to the device: the plan is shown.
    The test takes a small step under a short revert time, reads back, watches the measured power
    follow and the device revert by itself, finds out which write renews its lease, releases it,
    and leaves every register as it was: also after Ctrl-C, an error or a lost link.

    Exit code 0: it may be dispatched unattended, and it was restored; 1: not, or it was not tested.
    """
    asked = msgspec.convert(options, Options)
    chosen = _target(target, asked)
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
    try:
        tested = asyncio.run(_commission(chosen, asked))
    except (LinkError, SunSpecError) as error:
        raise click.ClickException(said(chosen.place.line, error, asked.timeout_s)) from error
    if tested is None:
        return
    ready, findings = tested
    _conclude(chosen, asked, ready, findings)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Words of the command line."""

    unit: int | None
    config_file: Any
    control: ControlName | None
    negative_rates: bool
    step_kw: float | None
    direction: Direction
    timer_s: int
    heartbeat_wait_s: float
    restore_s: float
    rating_kw: float | None
    timeout_s: float
    yes: bool
    device_id: str
    organisation: str
    lease_s: float
    telemetry_s: float
    write_to: Any
    record_file: Any
    as_json: bool
    serial: str | None
    baudrate: int | None
    parity: Any
    stopbits: str | None
    transport: Any

    def wanted(self) -> Wanted:
        """What concerns the test."""
        return Wanted(
            step_kw=self.step_kw, direction=self.direction, timer_s=self.timer_s,
            heartbeat_wait_s=self.heartbeat_wait_s, restore_s=self.restore_s,
        )  # fmt: skip


def _target(words: str | None, asked: Options) -> Target:
    if asked.config_file is not None:
        if words is None:
            raise click.UsageError("--config needs the DEVICE of it that is meant")
        return in_configuration(asked.config_file, words, timeout_s=asked.timeout_s)
    line = given.line_of(
        None if words is None else given.endpoint(words), serial=asked.serial,
        baudrate=asked.baudrate, parity=asked.parity, stopbits=asked.stopbits,
        transport=asked.transport,
    )  # fmt: skip
    return at_line(line, asked.unit, timeout_s=asked.timeout_s, negative_rates=asked.negative_rates)


async def _commission(target: Target, asked: Options) -> tuple[Ready, Findings] | None:
    """Plan, ask, run; None when nobody said yes."""
    loop, pace = asyncio.get_running_loop(), WallPace()
    bench = SunSpecBench(target.place, monotonic=loop.time)
    try:
        ready = await prepare(
            bench, target, asked.wanted(), pace, control=asked.control, rating_kw=asked.rating_kw
        )
        if isinstance(ready, Unfit):
            raise refused(ready)
        _show_plan(ready, target, asked)
        if asked.write_to is not None:  # said before the test, not after it
            still_free(asked.write_to, _device_id(target, asked, ready), target.place)
        plan: Plan | Unfit = ready.plan
        if not asked.yes:
            if not _agreed(asked):
                return None
            plan = await still(bench, ready.plan, pace)
        if isinstance(plan, Unfit):
            raise refused(plan)
        return ready, await run(bench, plan, pace, _Screen().show)
    finally:
        bench.close()


def _show_plan(ready: Ready, target: Target, asked: Options) -> None:
    table = plan_table(ready.nameplate, _where(target), ready.plan, ready.phases)
    if not asked.as_json:
        click.echo(table)
    elif not asked.yes:
        plan = ready.plan
        click.echo(json.dumps({
            "dry_run": True, "where": _where(target), "plan": msgspec.to_builtins(plan),
            "nameplate": msgspec.to_builtins(ready.nameplate), "most_s": plan.most_s,
            "worst_kwh": plan.worst_kwh, "writes": msgspec.to_builtins(ready.phases),
        }))  # fmt: skip


def _agreed(asked: Options) -> bool:
    if sys.stdin.isatty() and not asked.as_json and click.confirm("Run this test now?"):
        return True
    click.echo("nothing was written; --yes runs it", err=True)
    return False


def _conclude(target: Target, asked: Options, ready: Ready, findings: Findings) -> None:
    """Show, keep, and write the entry; exits 1 where the device may not be driven unattended."""
    record = Record(
        tested_at=datetime.now(UTC).isoformat(timespec="seconds"),
        tool=f"flexway {version('flexway')}", where=_where(target), nameplate=ready.nameplate,
        offered=ready.plan.offered, rating=ready.plan.rating, step_kw=ready.plan.step_kw,
        findings=findings, verdict=judge(findings),
    )  # fmt: skip
    device_id = _device_id(target, asked, ready)
    _keep(record, device_id, asked)  # first: the terminal may be gone
    restored = findings.restored is None or findings.restored.whole
    text = ""
    if record.verdict.lease != "none" and restored:
        text = _entry(target, asked, ready, record)
    if asked.as_json:
        click.echo(json.dumps({**msgspec.to_builtins(record), "entry": text or None}))
    else:
        click.echo(findings_table(record))
        why_not = "it may not be driven unattended" if restored else "it was not left as it was"
        click.echo(f"\n{text}" if text else f"no entry: {why_not}")
    if not text:
        sys.exit(1)
    if asked.write_to is not None:
        append(asked.write_to, text, device_id, target.place)
        click.echo(f"appended to {asked.write_to}; restart the service to drive it", err=True)


def _entry(target: Target, asked: Options, ready: Ready, record: Record) -> str:
    capacity = ready.found.figures.get("capacity_wh")
    keys = entry(
        record, target.place, target.device, device_id=_device_id(target, asked, ready),
        organisation=asked.organisation, lease_s=asked.lease_s, telemetry_s=asked.telemetry_s,
        capacity_kwh=None if capacity is None else capacity / 1000.0,
    )  # fmt: skip
    return toml_of(keys, record)


def _keep(record: Record, device_id: str, asked: Options) -> None:
    file: Path | None = asked.record_file
    beside = asked.write_to or asked.config_file
    if file is None and beside is not None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        file = beside.parent / "commissioning" / f"{device_id}-{stamp}.json"
    if file is None:
        click.echo("the record is not kept: give --record, --write or --config", err=True)
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
    except OSError as error:
        raise ConfigError(f"the record cannot be kept: {file}: {error.strerror}") from error
    click.echo(f"record: {file}", err=True)


def _device_id(target: Target, asked: Options, ready: Ready) -> str:
    if target.device is not None:
        return target.device.device_id
    kind = "bat" if ready.plan.offered.storage else "pv"
    name = asked.device_id or f"{kind}-{ready.nameplate.serial or target.place.unit}"
    return _NO_NAME.sub("-", name)


def _where(target: Target) -> str:
    return f"{target.place.line.name} unit {target.place.unit}"


class _Screen:
    """One line on stderr that is written over; where nobody looks on, only what lasts."""

    def __init__(self) -> None:
        self._written_over = sys.stderr.isatty()

    def show(self, progress: Progress) -> None:
        """Never raises: a terminal that is gone must not keep a device from being restored."""
        left = "" if progress.left_s is None else f" ({progress.left_s:.0f} s left at most)"
        with suppress(OSError, ValueError):
            if self._written_over:
                click.echo(f"\r\x1b[K{progress.step}{left}", err=True, nl=progress.lasting)
            elif progress.lasting:
                click.echo(f"{progress.step}{left}", err=True)
