"""Frames that are nearly right: seeds that are cut, joined, repeated and overwritten."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

LONGEST: Final = 8_192
"""Bytes of a frame, unless `Mutator.stretched` made it."""
_MOST_CHANGES: Final = 4
_STRETCHED: Final = 65_536
_NUMBERS: Final = (
    b"\x00",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\x00\x00",
    b"\x7f\xff",
    b"\x80\x00",
    b"\xff\xff",
    b"\xff\xfe",
    b"\x00\x00\x00\x00",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x80" * 9 + b"\x01",
    b"0",
    b"-1",
    b"1e999",
    b"9" * 20,
    b"9" * 400,
    b"\xc3\x28",
    b"\xed\xa0\x80",
)
"""Where counts, lengths, varints, decimals and UTF-8 have their edges."""


class Mutator:
    """Makes frames from seeds; the same from the same generator of random numbers."""

    def __init__(self, rng: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> None:
        """`tokens`: pieces that mean something in the format; brackets, names, headers."""
        self._rng = rng
        self._seeds = list(seeds)
        self._tokens = (*tokens, *_NUMBERS)
        self._changes: tuple[Callable[[bytearray, int], None], ...] = (
            self._flip,
            self._flip,
            self._overwrite,
            self._overwrite,
            self._put,
            self._put,
            self._drop,
            self._double,
            self._cut,
            self._join,
        )

    def frame(self) -> bytes:
        """The next frame: one of fifty is a seed as it is, one is noise, one is stretched."""
        rng = self._rng
        what = rng.random()
        seed = self._seeds[int(rng.random() * len(self._seeds))]
        if what < 0.02:
            return seed
        if what < 0.04:
            return rng.randbytes(int(rng.random() * 64))
        if what < 0.041:
            return self._stretched(bytearray(seed))
        data = bytearray(seed)
        for _ in range(1 + int(rng.random() * _MOST_CHANGES)):
            change = self._changes[int(rng.random() * len(self._changes))]
            change(data, int(rng.random() * (len(data) + 1)))
        return bytes(data[:LONGEST])

    def _token(self) -> bytes:
        return self._tokens[int(self._rng.random() * len(self._tokens))]

    def _flip(self, data: bytearray, at: int) -> None:
        if at < len(data):
            data[at] ^= 1 << int(self._rng.random() * 8)

    def _overwrite(self, data: bytearray, at: int) -> None:
        token = self._token()
        data[at : at + len(token)] = token

    def _put(self, data: bytearray, at: int) -> None:
        data[at:at] = self._token()

    def _drop(self, data: bytearray, at: int) -> None:
        del data[at : at + 1 + int(self._rng.random() * 16)]

    def _double(self, data: bytearray, at: int) -> None:
        data[at:at] = data[at : at + 1 + int(self._rng.random() * 64)]

    def _cut(self, data: bytearray, at: int) -> None:
        del data[at:]

    def _join(self, data: bytearray, at: int) -> None:
        other = self._seeds[int(self._rng.random() * len(self._seeds))]
        data[at:] = other[int(self._rng.random() * len(other)) :]

    def _stretched(self, data: bytearray) -> bytes:
        """One piece many times over: deep nesting, long names, long lists."""
        at = int(self._rng.random() * (len(data) + 1))
        size = 1 + int(self._rng.random() * 32)
        piece = self._token() if self._rng.random() < 0.5 else bytes(data[at : at + size])
        data[at:at] = (piece or b"[") * int(_STRETCHED * self._rng.random() / (len(piece) or 1))
        return bytes(data)
