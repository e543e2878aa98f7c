"""Random numbers without a state: the same for the same numbers, whoever asks when."""

from __future__ import annotations

from typing import Final

_MASK: Final = 2**64 - 1
_GOLDEN: Final = 0x9E37_79B9_7F4A_7C15


def uniform(*numbers: int) -> float:
    """At least 0 and below 1; SplitMix64 (Steele, Lea, Flood 2014) over the numbers."""
    state = 0
    for number in numbers:
        state = _mixed((state ^ (number & _MASK)) + _GOLDEN & _MASK)
    return (state >> 11) / 2.0**53


def _mixed(value: int) -> int:
    value = (value ^ value >> 30) * 0xBF58_476D_1CE4_E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D0_49BB_1331_11EB & _MASK
    return value ^ value >> 31


def full_jitter(failures: int, base_s: float, cap_s: float, *numbers: int) -> float:
    """Seconds until the next try: anywhere between nothing and a cap that doubles.

    `failures`: tries in a row that failed, 0 after a connection that stood. `numbers` draw.
    """
    return uniform(*numbers) * min(cap_s, base_s * 2.0 ** min(failures, 32))
