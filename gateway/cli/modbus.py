"""`flexway modbus`: what an installer asks the units beside an edge box. Reads only."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import click

from adapters.modbus.errors import PointError
from adapters.modbus.lines import Line
from adapters.modbus.link import LineLink, LinkError, UnitDown
from adapters.modbus.sunspec import NoMarkerError
from adapters.modbus.survey import Report, merge, present, survey
from adapters.modbus.unit import SunSpecUnit
from gateway.cli import modbus_arguments as given
from gateway.cli.modbus_arguments import DETAIL_S
from gateway.cli.modbus_profiles import profiles
from gateway.cli.modbus_profiles_read import (
    MappedPoints,
    mapped_document,
    mapped_table,
    mapped_unit,
)
from gateway.cli.modbus_tables import (
    ModelPoints,
    compared,
    points_document,
    points_table,
    read_models,
    scan_document,
    scan_table,
)

T = TypeVar("T")
_AGAIN_S: Final = (0.1, 0.2, 0.4, 0.8)
"""Seconds before a connection is tried anew: many devices take one at a time, and are slow to
notice that it has gone."""
_LONG_S: Final = 5.0
"""Seconds from which on it is said beforehand how long a scan takes."""
_REFUSALS: Final = {
    1: "it does not know this function",
    2: "it has no registers there",
    3: "it does not take this request",
    4: "it failed while answering",
    6: "it is busy: ask again",
    10: "the gateway has no way to that unit",
    11: "the gateway hears nothing from that unit",
}
"""Modbus Application Protocol 1.1b3, section 7."""
_EXAMPLES: Final = """\b
Examples:
  flexway modbus scan 192.168.1.40
  flexway modbus scan 192.168.1.40:1502 --units 1-10,126 --json
  flexway modbus scan --serial /dev/ttyUSB0 --baudrate 9600 --parity none --units 1-20
  flexway modbus scan 192.168.1.50:4001 --transport rtu_over_tcp
  flexway modbus read 192.168.1.40 --unit 1 --model 103 --model 123
  flexway modbus watch 192.168.1.40 --unit 1 --model 704 --every 2
  flexway modbus profiles
  flexway modbus read 192.168.1.41 --unit 1 --profile sungrow-sh
"""


@click.group(epilog=_EXAMPLES)
def modbus() -> None:
    """Find units behind an address or on a serial line and read them; never writes."""


modbus.add_command(profiles)


@modbus.command(epilog=_EXAMPLES)
@given.line
@given.units
@given.absence
@given.as_json
def scan(line: Line, units: tuple[int, ...], timeout_s: float, *, as_json: bool) -> None:
    """Find the units on a line: what each is, measures now, and can be driven by.

    Each number is asked once for two registers; who answers is then read in full, with
    three seconds per request. Exit code 1: nobody answers.
    """
    if line.framed_by_silence:
        units = tuple(unit for unit in units if unit)  # 0 is a broadcast: nobody answers
    reports = _run(line, _scan(line, units, timeout_s))
    if as_json:
        click.echo(json.dumps(scan_document(line, reports)))
    elif reports:
        click.echo(scan_table(reports))
    if not reports:
        click.echo(
            f"{line.name} can be reached, but no unit answers within {timeout_s:g} s: check "
            f"{_check(line)}, --units, and a longer --timeout", err=True,
        )  # fmt: skip
        sys.exit(1)


@modbus.command(epilog=_EXAMPLES)
@given.line
@given.unit
@given.models
@given.device_profile
@given.patience
@given.as_json
def read(
    line: Line, unit: int, wanted: tuple[int, ...], device_profile: str,
    timeout_s: float, *, as_json: bool,
) -> None:  # fmt: skip
    """Print a unit's points with their units, scale factors applied."""
    if device_profile:
        found = _run(line, _mapped(line, unit, timeout_s, wanted, device_profile), timeout_s)
        document = mapped_document(line, unit, found)
        click.echo(json.dumps(document) if as_json else mapped_table(found))
        return

    async def work(asked: SunSpecUnit) -> list[ModelPoints]:
        return await read_models(asked, wanted)

    models = _run(line, _with_unit(line, unit, timeout_s, work), timeout_s)
    if as_json:
        click.echo(json.dumps(points_document(line, unit, models)))
    else:
        click.echo(points_table(models))


@modbus.command(epilog=_EXAMPLES)
@given.line
@given.unit
@given.models
@given.device_profile
@given.patience
@given.every
@given.times
def watch(
    line: Line, unit: int, wanted: tuple[int, ...], device_profile: str,
    timeout_s: float, *, every_s: float, times: int | None,
) -> None:  # fmt: skip
    """Read a unit again and again; what changed is marked with a star."""

    async def work(asked: SunSpecUnit) -> None:
        async def once() -> list[ModelPoints]:
            return await read_models(asked, wanted)

        await _watch(once, compared, points_table, every_s, times)

    if device_profile:
        mapped = _watch_mapped(
            line, unit, timeout_s, wanted, device_profile, every_s=every_s, times=times
        )
        _run(line, mapped, timeout_s)
        return
    _run(line, _with_unit(line, unit, timeout_s, work), timeout_s)


async def _scan(line: Line, units: Sequence[int], timeout_s: float) -> list[Report]:
    """Who answers, by a short wait each; then everybody who did, in full."""
    answering: list[int] = []
    free_s = timeout_s + line.exchange_s + line.silence_s
    if len(units) * free_s >= _LONG_S:
        _progress(
            f"asking {len(units)} numbers on {line.name}: about {in_words(len(units) * free_s)} at "
            f"most, {free_s:.2f} s for each that is free", lasting=True,
        )  # fmt: skip
    link = _link(line, timeout_s)
    try:
        for number, unit in enumerate(units, start=1):
            if await _answers(link, unit, reached=number > 1):
                answering.append(unit)
                _progress(f"unit {unit} answers", lasting=True)
            left = in_words((len(units) - number) * free_s)
            _progress(
                f"unit {number} of {len(units)} asked, {len(answering)} answer, {left} at most"
            )
    finally:
        link.close()
    reports: list[Report] = []
    link = _link(line, DETAIL_S)
    try:
        for unit in answering:
            _progress(f"reading unit {unit}")
            if await _answers(link, unit, reached=True):
                reports.append(await survey(link, unit, reports))
            else:
                reports.append(Report(unit=unit, problem="it answered once and not again"))
    finally:
        link.close()
    _progress("")
    return merge(reports)


async def _answers(link: LineLink, unit: int, *, reached: bool) -> bool:
    """Whether a unit answers; UnitDown when the address cannot be reached.

    `reached`: it could be before, so that a refused connection is tried anew for a while.
    """
    for pause_s in _AGAIN_S if reached else ():
        try:
            return await present(link, unit)
        except UnitDown:
            await asyncio.sleep(pause_s)
    return await present(link, unit)


async def _watch(
    read_once: Callable[[], Awaitable[T]], differ: Callable[[T, T], set[Any]],
    table: Callable[[T, Collection[Any]], str], every_s: float, times: int | None,
) -> None:  # fmt: skip
    loop = asyncio.get_running_loop()
    before = await read_once()
    click.echo(table(before, ()))
    done, due = 1, loop.time()
    while times is None or done < times:
        due = max(due + every_s, loop.time())
        await asyncio.sleep(due - loop.time())
        done += 1
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            now = await read_once()
        except (LinkError, PointError) as error:
            click.echo(f"\n{stamp}  no reading: {error}")
            continue
        changed = differ(before, now)
        if sys.stdout.isatty():
            click.clear()
        click.echo(f"\n{stamp}  {len(changed)} changed\n{table(now, changed)}")
        before = now


async def _mapped(
    line: Line, unit: int, timeout_s: float, wanted: Sequence[int], profile: str
) -> MappedPoints:
    link = _link(line, timeout_s)
    try:
        return await mapped_unit(link, unit, profile, wanted).read()
    finally:
        link.close()


async def _watch_mapped(
    line: Line, unit: int, timeout_s: float, wanted: Sequence[int], profile: str,
    *, every_s: float, times: int | None,
) -> None:  # fmt: skip
    link = _link(line, timeout_s)
    try:
        asked = mapped_unit(link, unit, profile, wanted)
        await _watch(asked.read, MappedPoints.changed, mapped_table, every_s, times)
    finally:
        link.close()


async def _with_unit(
    line: Line, unit: int, timeout_s: float,
    work: Callable[[SunSpecUnit], Awaitable[T]],
) -> T:  # fmt: skip
    given.not_a_broadcast(line, unit)
    link = _link(line, timeout_s)
    try:
        asked = SunSpecUnit(link, unit)
        await asked.discover()
        return await work(asked)
    finally:
        link.close()


def _link(line: Line, timeout_s: float) -> LineLink:
    loop = asyncio.get_running_loop()
    return LineLink(line, timeout_s=timeout_s, monotonic=loop.time)


def in_words(seconds: float) -> str:
    """`45 s`, `3 min 18 s`."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _run(line: Line, work: Awaitable[T], timeout_s: float = 0.0) -> T:
    """Run until done; what a unit or the network says becomes one clear line."""

    async def whole() -> T:
        return await work

    # The library tells every lost frame in a line of its own: here it is the answer itself.
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
    try:
        return asyncio.run(whole())
    except (LinkError, PointError) as error:
        raise click.ClickException(said(line, error, timeout_s)) from error


def said(line: Line, error: LinkError | PointError, timeout_s: float) -> str:
    """What went wrong, and what to do about it."""
    if isinstance(error, UnitDown):
        return f"{error}: check {_check(line)}"
    if isinstance(error, NoMarkerError):
        return f"{error}: it is no SunSpec device, or SunSpec is switched off in its settings"
    if isinstance(error, PointError):
        return str(error)
    if error.exception_code is not None:
        return f"{error}: {_REFUSALS.get(error.exception_code, 'for a reason of its own')}"
    return (
        f"{error}: there is no such unit, or it takes longer than {timeout_s:g} s; "
        "`flexway modbus scan` shows who answers"
    )


def _check(line: Line) -> str:
    if line.serial is not None:
        port = line.serial
        return (
            f"that {port.device} is there and yours to use, the cable (A and B swapped?), and "
            f"{port.baudrate} baud, parity {port.parity}, {port.stopbits} stop bits"
        )
    passed_on = "the serial server" if line.framed_by_silence else "Modbus TCP"
    return (
        f"that the device is on, the address, and that {passed_on} is switched on there and takes "
        f"connections at port {line.port}"
    )


def _progress(text: str, *, lasting: bool = False) -> None:
    """One line on stderr that is written over; where nobody looks on, only what lasts."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", err=True, nl=lasting)
    elif lasting:
        click.echo(text, err=True)
