"""Data of as many homes as a test wants, made of those that are shipped."""

from __future__ import annotations

import gzip
import shutil
from datetime import timedelta
from itertools import cycle, islice
from pathlib import Path

from firmware_sim.dataset import shipped
from marketplace_core.intervals import instant


def write_data(folder: Path, homes: int, *, weeks_later: int = 0) -> Path:
    """A folder with the shipped sessions and so many homes: each repeat is a little larger."""
    folder.mkdir(parents=True, exist_ok=True)
    (sessions,) = shipped().glob("ev_sessions*.csv.gz")
    shutil.copy(sessions, folder)
    (source,) = shipped().glob("homes*.csv.gz")
    head, *lines = gzip.decompress(source.read_bytes()).decode().splitlines()
    own: dict[str, list[list[str]]] = {}
    for line in lines:
        name, *values = line.split(",")
        own.setdefault(name, []).append(values)
    rows = [
        _row(number, len(own), values, weeks_later)
        for number, name in enumerate(islice(cycle(sorted(own)), homes))
        for values in own[name]
    ]
    text = "\n".join([head, *rows]) + "\n"
    (folder / "homes_made_up.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    return folder


def _row(number: int, different: int, values: list[str], weeks_later: int) -> str:
    start, load, pv, *rest = values
    later = instant(start) + timedelta(weeks=weeks_later)
    scale = 1.0 + 0.07 * (number // different)
    at = later.strftime("%Y-%m-%dT%H:%M:%SZ")
    kws = (f"{scale * float(load):.4f}", f"{scale * float(pv):.4f}")
    return ",".join([f"made-up-{number + 1:03d}", at, *kws, *rest])
