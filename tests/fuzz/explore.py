"""`python -m tests.fuzz.explore CODEC [SECONDS]`: look for frames that reach new lines.

Needs atheris (Apache 2.0), which measures coverage and is no dependency: install it by hand.
A frame that reached something new when it was found goes into the corpus, where every later
run of the fuzzer begins. See corpus/README.md.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

LONGEST = 1_024
SECONDS = "60"
MOST = 200
"""Frames that are kept of one codec."""


def explore(name: str, options: Sequence[str]) -> None:
    """In a process of its own: libFuzzer ends the one that it runs in."""
    import atheris  # noqa: PLC0415 - the modules under test are imported under its eyes

    with atheris.instrument_imports(include=["adapters"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    target = TARGETS[name]

    def feed(data: bytes) -> None:
        try:
            target.feed(data)
        except target.errors:
            return

    atheris.Setup([sys.argv[0], *options], feed)
    atheris.Fuzz()


def main(arguments: Sequence[str]) -> int:
    """Explore from what is known; keep the shortest of what reached something new."""
    from tests.fuzz.corpus import load, save  # noqa: PLC0415
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    name, seconds = [*arguments, SECONDS][:2]
    kept = set(load(name))
    known = set(TARGETS[name].seeds)
    with tempfile.TemporaryDirectory(prefix=f"flexway-explore-{name}-") as place:
        found = Path(place)
        for number, seed in enumerate(sorted(known)):
            (found / f"seed-{number:04d}").write_bytes(seed)
        options = [
            place,
            f"-max_total_time={seconds}",
            f"-max_len={LONGEST}",
            "-seed=7",
            "-timeout=5",
        ]
        subprocess.run([sys.executable, "-m", __spec__.name, name, "--", *options], check=True)
        new = {path.read_bytes() for path in found.iterdir()} - known
    frames = sorted(kept | {frame for frame in new if len(frame) <= LONGEST}, key=len)[:MOST]
    save(name, frames)
    sys.stdout.write(f"{name}: {len(frames)} frames are kept\n")
    return 0


if __name__ == "__main__":
    if "--" in sys.argv:
        explore(sys.argv[1], sys.argv[3:])
    else:
        sys.exit(main(sys.argv[1:]))
