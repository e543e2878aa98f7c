"""Many seeds of the day in virtual time: `python -m tests.days [FIRST] LAST`.

For each: which checks of the report do not hold, and, counted here from truth.jsonl, faults
that nobody flagged and flags without a fault. Exit code 1 unless every day is clean.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from tests.harness.played_day import Played, play


def _say(line: str) -> None:
    Console(soft_wrap=True, highlight=False).print(line, markup=False)


def _percent(share: float | None, sign: str = "") -> str:
    """A share of nothing is none."""
    return "-" if share is None else f"{share:{sign}.1f} %"


def is_clean(seed: int, day: Played) -> bool:
    """Say how a day went, in a line."""
    if not (day.folder / "report.json").exists():
        _say(f"{seed:4d}  exit code {day.code}\n{day.output}")
        return False
    broken = [name for name, held in day.report["checks"].items() if held is not True]
    missed, false = len(day.missed()), len(day.false_alarms())
    truth = day.report["truth"]
    net, absolute = _percent(truth["error_pct"], "+"), _percent(truth["abs_error_pct"])
    _say(
        f"{seed:4d}  {len(day.faults):6d}  {missed:6d}  {false:12d}  {net:>11s}  {absolute:>9s}  "
        f"{'; '.join(broken) or 'every check holds'}"
    )
    return day.code == 0 and not (broken or missed or false)


def main(arguments: Sequence[str]) -> int:
    first, last = ["1", *(arguments or ["20"])][-2:]
    seeds = range(int(first), int(last) + 1)
    _say("seed  faults  missed  false alarms  settled off   absolute  checks")
    with (
        tempfile.TemporaryDirectory(prefix="flexway-days-") as folder,
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):
        days = pool.map(lambda n: play(Path(folder) / str(n), "--seed", str(n)), seeds)
        clean = [is_clean(seed, day) for seed, day in zip(seeds, days, strict=True)]
    _say(f"{sum(clean)} of {len(clean)} days are clean")
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
