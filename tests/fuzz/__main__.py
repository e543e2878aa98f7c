"""`python -m tests.fuzz [--frames N] [--seed S] [--each] [--only CODEC ...]`.

A million frames go to all codecs together, each its share; with `--each` a million to each.
Every codec runs in a process of its own: one that kills it is found as well, and the frame
that did it is made again from the seed. Exit code 1 when anything was found.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.fuzz.judge import Fault, Verdict, batch, run
from tests.fuzz.targets import TARGETS, shares

_PLACE: Final = struct.Struct("<II")
_EVERY: Final = 50_000
_LINE: Final = "{:<16}{:>11}{:>12}{:>10}{:>10}{:>12}{:>10}{:>9}  {}"


def say(line: str) -> None:
    Console(soft_wrap=True, highlight=False).print(line, markup=False)


def fuzz_here(name: str, frames: int, seed: int, place: Path) -> int:
    """The work of one process: the verdict goes to standard output as JSON."""
    with place.open("r+b") as file, mmap.mmap(file.fileno(), _PLACE.size) as shared:

        def mark(number: int, index: int) -> None:
            _PLACE.pack_into(shared, 0, number, index)

        def said(done: int) -> None:
            if done % _EVERY == 0:
                sys.stderr.write(f"{name}: {done:,} of {frames:,}\n")

        verdict = run(TARGETS[name], frames, seed, mark=mark, said=said)
    faults = [{**asdict(fault), "frame": fault.frame.hex()} for fault in verdict.faults]
    sys.stdout.write(json.dumps({**asdict(verdict), "faults": faults}))
    return 0


def fuzz(name: str, frames: int, seed: int) -> Verdict:
    """Fuzz one codec in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="flexway-fuzz-") as folder:
        place = Path(folder) / "place"
        place.write_bytes(bytes(_PLACE.size))
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", "--only", name, "--frames", str(frames),
             "--seed", str(seed), "--place", str(place)],
            stdout=subprocess.PIPE, check=False, text=True,
        )  # fmt: skip
        number, index = _PLACE.unpack(place.read_bytes())
    if done.returncode != 0 or not done.stdout:
        frame = batch(TARGETS[name], seed, number)[index]
        words = f"the process ended with {done.returncode} (a signal when negative)"
        return Verdict(name, faults=[Fault("crash", frame, words)])
    found = json.loads(done.stdout)
    faults = [Fault(each["kind"], bytes.fromhex(each["frame"]), each["words"])
              for each in found.pop("faults")]  # fmt: skip
    return Verdict(**found, faults=faults)


def table(verdicts: Sequence[Verdict]) -> None:
    say(_LINE.format("codec", "frames", "understood", "CPU s", "us each", "slowest ms",
                     "blocks", "KiB", "faults"))  # fmt: skip
    for one in verdicts:
        each = one.cpu_s / one.frames * 1e6 if one.frames else 0.0
        say(_LINE.format(
            one.target, f"{one.frames:,}", f"{one.understood:,}", f"{one.cpu_s:.1f}", f"{each:.0f}",
            f"{one.slowest_ms:.1f}", f"{one.blocks:+,}", f"{one.resident // 1024:+,}",
            len(one.faults) or "none",
        ))  # fmt: skip
        for fault in one.faults:
            say(f"  {fault}")
    frames, cpu = sum(one.frames for one in verdicts), sum(one.cpu_s for one in verdicts)
    say(f"{frames:,} frames in {cpu:.0f} s of processor time")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--each", action="store_true", help="so many for each codec")
    parser.add_argument("--only", nargs="*", choices=sorted(TARGETS), default=None)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names = options.only or list(TARGETS)
    if options.place:
        return fuzz_here(names[0], options.frames, options.seed, options.place)
    of_each = (
        dict.fromkeys(names, options.frames)
        if options.each or options.only
        else shares(options.frames)
    )
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        verdicts = list(pool.map(lambda name: fuzz(name, of_each[name], options.seed), names))
    table(verdicts)
    return 1 if any(one.faults for one in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
