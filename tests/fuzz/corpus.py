"""Frames that are kept: see corpus/README.md for where they come from."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "corpus"


def load(name: str) -> list[bytes]:
    """Frames of a codec; none when none are kept."""
    path = FOLDER / f"{name}.txt"
    if not path.exists():
        return []
    lines = path.read_text(encoding="ascii").splitlines()
    return [zlib.decompress(base64.b64decode(line)) for line in lines]


def save(name: str, frames: Iterable[bytes]) -> None:
    """Keep frames, the shortest first, one a line."""
    kept = sorted(set(frames), key=lambda frame: (len(frame), frame))
    lines = [base64.b64encode(zlib.compress(frame, 9)).decode() + "\n" for frame in kept]
    (FOLDER / f"{name}.txt").write_text("".join(lines), encoding="ascii")
