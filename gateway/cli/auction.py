"""`flexway auction`: clearing an auction from a file, and checking one that was cleared."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from marketplace_core.procurement.auction.checks import (
    Recorded,
    broken_rules,
    differences,
    recorded,
)
from marketplace_core.procurement.auction.clearing import clear_auction, clear_greedily
from marketplace_core.procurement.auction.instance import Instance
from marketplace_core.procurement.auction.parsing import MOST_FAULTS, parse_instance
from marketplace_core.procurement.auction.result import Method, Outcome
from marketplace_core.procurement.auction.stages import Limits

LARGEST_FILE: Final = 256 * 1024 * 1024
"""Bytes of an instance or a result."""
REASON_S: Final = 3.0
"""For reasons that are computed bid by bid, beyond the time limit."""
TIME_LIMIT_S: Final = 8.5
UNMET_TIME_LIMIT_S: Final = 120.0
_REPORT_EVERY_S: Final = 0.5
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_METHODS: Final = click.Choice([each.value for each in Method])


@click.group()
def auction() -> None:
    """Clear auctions from files, and check clearings again."""


@auction.command(
    epilog="Examples:\n\n  flexway auction solve instance.json --out result.json\n\n"
    "  flexway auction solve instance.json --out result.json --time-limit 600 --details more.json"
    "\n\n  flexway auction solve instance.json --out greedy.json --method greedy\n\n"
    "Formats and rules: docs/auction.md.",
)
@click.argument("instance", type=_FILE)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path),
              help="Where the result goes, JSON.")  # fmt: skip
@click.option("--details", type=click.Path(dir_okay=False, path_type=Path),
              help="Where bounds, prices, proofs and the comparison go, JSON.")  # fmt: skip
@click.option("--method", type=_METHODS, default="exact", show_default=True,
              help="exact: least unmet, least cost; greedy: by price.")  # fmt: skip
@click.option("--time-limit", type=click.FloatRange(0.1, 1e6), default=TIME_LIMIT_S,
              show_default=True, help="Seconds for the least cost.")  # fmt: skip
@click.option("--unmet-time-limit", type=click.FloatRange(0.1, 1e6), default=UNMET_TIME_LIMIT_S,
              show_default=True, help="Seconds for the proof of least unmet.")  # fmt: skip
@click.option("--gap", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="Good enough: (cost - bound) / cost.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def solve(  # noqa: PLR0917 - the names of its options
    instance: Path, out: Path, details: Path | None, method: str, time_limit: float,
    unmet_time_limit: float, gap: float, *, quiet: bool,
) -> None:  # fmt: skip
    """Clear INSTANCE: least unmet energy, proven, then least cost; every loser gets a reason.

    Exit code 1 when the instance is malformed, or when the least unmet energy could not be
    proven in its time (the result is written all the same).
    """
    began = time.monotonic()
    content = _content(instance)
    read = _instance(instance, content)
    limits = _limits(began, time_limit, unmet_time_limit, gap, _progress(began, quiet=quiet))
    greedy = clear_greedily(read)
    outcome = greedy if method == Method.GREEDY.value else clear_auction(read, limits)
    _write(out, msgspec.to_builtins(recorded(outcome)))
    spent = time.monotonic() - began
    if details is not None:
        _write(details, _details(content, outcome, greedy, time_limit, gap, spent))
    for line in _summary(outcome, greedy, spent):
        click.echo(line, err=True)
    if outcome.method is Method.EXACT and not outcome.unmet_proven:
        click.echo(
            f"the least unmet energy is not proven: at least {outcome.unmet_bound_kwh:g} kWh."
            " Give more --unmet-time-limit.", err=True,
        )  # fmt: skip
        sys.exit(1)


@auction.command(
    epilog="Examples:\n\n  flexway auction verify instance.json result.json\n\n"
    "  flexway auction verify --database sqlite:///data/market.db --need need_01\n\n"
    "  flexway auction verify --config flexway.toml",
)
@click.argument("instance", type=_FILE, required=False)
@click.argument("result", type=_FILE, required=False)
@click.option("--method", type=_METHODS, default="exact", show_default=True,
              help="How the result was cleared.")  # fmt: skip
@click.option("--time-limit", type=click.FloatRange(0.1, 1e6), default=TIME_LIMIT_S,
              show_default=True, help="Seconds for clearing again.")  # fmt: skip
@click.option("--config", "config_file", type=click.Path(dir_okay=False, path_type=Path),
              help="Check auctions of the store that these settings name.")  # fmt: skip
@click.option("--database", help="Check auctions of this store; PGPASSWORD counts.")
@click.option("--need", "needs", multiple=True, help="Only the auction of this need; repeatable.")
def verify(  # noqa: PLR0917 - the names of its options
    instance: Path | None, result: Path | None, method: str, time_limit: float,
    config_file: Path | None, database: str | None, needs: tuple[str, ...],
) -> None:  # fmt: skip
    """Clear again from the recorded inputs and compare; exit code 1 when anything differs.

    Of files: INSTANCE and RESULT as `solve` reads and writes them. Of a store: every need that
    was cleared, from the bids that are recorded.
    """
    if config_file is not None or database is not None:
        # The store and its settings take longer to import than most instances take to clear.
        stored = import_module("gateway.cli.auction_stored")
        checked, wrong = stored.stored_differences(config_file, database, needs)
    elif instance is not None and result is not None:
        checked, wrong = 1, _differences(instance, result, Method(method), time_limit)
    else:
        raise click.UsageError("give INSTANCE and RESULT, or --config or --database")
    for line in wrong:
        click.echo(line)
    click.echo(f"{checked} auctions cleared again, {len(wrong)} contradictions")
    sys.exit(1 if wrong else 0)


def _differences(instance: Path, result: Path, method: Method, time_limit: float) -> list[str]:
    read = _instance(instance, _content(instance))
    try:
        filed = msgspec.json.decode(_content(result), type=Recorded)
    except msgspec.DecodeError as error:
        raise click.ClickException(f"{result} is no result of `auction solve`: {error}") from error
    wrong = broken_rules(read, filed)
    if wrong:
        return wrong
    limits = _limits(
        time.monotonic(), time_limit, UNMET_TIME_LIMIT_S, 0.0, lambda _stage, _value, _bound: None
    )
    greedy = method is Method.GREEDY
    return differences(read, filed, clear_greedily(read) if greedy else clear_auction(read, limits))


def _content(file: Path) -> bytes:
    if file.stat().st_size > LARGEST_FILE:
        raise click.ClickException(
            f"{file} is larger than {LARGEST_FILE // 1024**2} MiB: clear places that share no"
            " bids in files of their own"
        )
    return file.read_bytes()


def _instance(file: Path, content: bytes) -> Instance:
    """The instance of a file; every fault on a line of its own."""
    try:
        document = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise click.ClickException(f"{file} is not JSON: {error}") from error
    parsed = parse_instance(document)
    if parsed.instance is None:
        lines = [
            f"{fault.field or 'instance'}: {fault.message}; rule: {fault.rule}; {fault.remedy}"
            for fault in parsed.faults[:MOST_FAULTS]
        ]
        if more := len(parsed.faults) - len(lines):
            lines.append(f"and {more} more")
        raise click.ClickException("\n".join([f"{file} cannot be cleared:", *lines]))
    if parsed.ignored:
        known = ", ".join(parsed.ignored[:MOST_FAULTS])
        click.echo(f"passed over, no such field: {known}", err=True)
    return parsed.instance


def _limits(
    began: float, cost_s: float, unmet_s: float, gap: float,
    report: Callable[[str, float, float], None],
) -> Limits:  # fmt: skip
    return Limits(
        seconds_left=lambda: began + cost_s - time.monotonic(),
        unmet_seconds_left=lambda: began + unmet_s - time.monotonic(),
        reason_seconds_left=lambda: began + cost_s + REASON_S - time.monotonic(),
        gap=gap,
        report=report,
    )


def _progress(began: float, *, quiet: bool) -> Callable[[str, float, float], None]:
    """Writes the best value and the bound to stderr, now and then."""
    last = [-_REPORT_EVERY_S]

    def report(stage: str, value: float, bound: float) -> None:
        now = time.monotonic() - began
        if quiet or now - last[0] < _REPORT_EVERY_S:
            return
        last[0] = now
        gap = f"gap {(value - bound) / value:.3%}" if value > 0 and bound >= 0 else "no bound yet"
        unit = " kWh" if stage == "unmet" else ""
        click.echo(f"{now:7.1f} s  {stage} {value:,.2f}{unit}  {gap}", err=True)

    return report


def _summary(outcome: Outcome, greedy: Outcome, spent: float) -> list[str]:
    gap = "no certificate" if outcome.gap is None else f"gap {outcome.gap:.3%}"
    first = (
        f"{outcome.method.value}: {len(outcome.awards)} awarded, {len(outcome.rejected)} rejected,"
        f" cost {outcome.objective:,.2f} ({gap}), unmet {outcome.unmet_kwh:,.2f} kWh"
        f"{', proven least' if outcome.unmet_proven else ''}, {spent:.1f} s"
    )
    second = (
        f"greedy would have cost {greedy.objective:,.2f} and left {greedy.unmet_kwh:,.2f} kWh unmet"
    )
    return [first, second] if outcome.method is Method.EXACT else [first]


def _details(  # noqa: PLR0917 - what is written
    content: bytes, outcome: Outcome, greedy: Outcome, time_limit: float, gap: float, spent: float
) -> dict[str, Any]:
    return {
        "instance_sha256": sha256(content).hexdigest(),
        "method": outcome.method.value,
        "time_limit_s": time_limit,
        "gap_wanted": gap,
        "seconds": round(spent, 3),
        "bound": outcome.bound,
        "unmet_kwh": outcome.unmet_kwh,
        "unmet_bound_kwh": outcome.unmet_bound_kwh,
        "unmet_proven": outcome.unmet_proven,
        "ties_settled": outcome.ties_settled,
        "clearing_price_per_mwh": list(outcome.prices),
        "reasons": [msgspec.to_builtins(each) for each in outcome.rejected],
        "comparison": {
            "method": greedy.method.value,
            "objective": greedy.objective,
            "unmet_kwh": greedy.unmet_kwh,
            "awarded": len(greedy.awards),
        },
    }


def _write(file: Path, document: object) -> None:
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
