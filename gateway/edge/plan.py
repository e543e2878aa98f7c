"""What a safe test will do, and why it must not be done now. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from adapters.commissioning import RESTARTS, Offered, Rating, Sample, Standing

Direction = Literal["auto", "up", "down"]
LEAST_TIMER_S: Final = 2
"""A timer counts whole seconds: one of a single second cannot be told from none."""
_SHARE: Final = 0.1
_DEFAULT_KW: Final = 0.5
_SAFE_SOC: Final = (20.0, 90.0)
"""Per cent: below it is not discharged for a test, above it is not charged."""
_HALF_FULL: Final = 50.0
_BEATEN_S: Final = 5.0
"""Seconds for which a heartbeat is kept up before it stops."""
_ROUNDING_KW: Final = 1e-6


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the person at the keyboard asked for."""

    step_kw: float | None = None
    """None = a tenth of the rating, at most half a kilowatt."""
    direction: Direction = "auto"
    timer_s: int = 20
    """Revert time that is written, whole seconds."""
    heartbeat_wait_s: float = 60.0
    """Longest wait for the fallback of a device without a heartbeat."""
    restore_s: float = 120.0
    """How long a device that cannot be reached is tried, to restore it."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A test that may be run."""

    offered: Offered
    rating: Rating
    reference_kw: float
    """Its power before the test."""
    noise_kw: float
    """By how much that moved by itself."""
    target_kw: float
    wanted: Wanted
    soc_percent: float | None
    notes: tuple[str, ...] = ()

    @property
    def step_kw(self) -> float:
        """By how much its power is moved, signed."""
        return self.target_kw - self.reference_kw

    @property
    def grace_s(self) -> float:
        """Seconds past its timer that it is given to revert."""
        return max(2.0, 0.5 * self.wanted.timer_s)

    @property
    def settle_s(self) -> float:
        """Seconds that its power is given to come back after a reversion or a release."""
        return max(2.0, 0.5 * self.wanted.timer_s)

    @property
    def most_s(self) -> float:
        """Seconds that the whole takes at most while the device can be reached."""
        timer = self.wanted.timer_s
        lease_s = timer + self.grace_s + self.settle_s
        renewals_s = len(RESTARTS) * 1.5 * timer if self.offered.timer else 0.0
        beats_s = _BEATEN_S + self.wanted.heartbeat_wait_s if self.offered.beats else 0.0
        return lease_s + renewals_s + 2 * self.settle_s + beats_s

    @property
    def worst_kwh(self) -> float:
        """Energy if the step is in force from the first second to the last."""
        return abs(self.step_kw) * self.most_s / 3600.0

    @property
    def beaten_s(self) -> float:
        """Seconds for which a heartbeat is kept up before it stops."""
        return _BEATEN_S


class Unfit(msgspec.Struct, frozen=True):
    """Why the test must not be run now."""

    reason: str
    remedy: str


def choose(
    offered: Offered, rating: Rating, samples: Sequence[Sample], standing: Standing,
    wanted: Wanted,
) -> Plan | Unfit:  # fmt: skip
    """The step and its direction, or why there is none; `samples`: at least one."""
    powers = [sample.power_kw for sample in samples]
    reference, noise = sum(powers) / len(powers), max(powers) - min(powers)
    size = _size(rating, wanted)
    if isinstance(size, Unfit):
        return size
    unfit = _unfit(standing, noise, size)
    if unfit is not None:
        return unfit
    soc = samples[-1].soc_percent
    if offered.kind == "limit":
        target = _limited(offered, reference, size)
    else:
        target = _driven(offered, rating, reference, size, soc, wanted.direction)
    if isinstance(target, Unfit):
        return target
    blind = offered.storage and offered.kind == "setpoint" and soc is None
    return Plan(
        offered=offered, rating=rating, reference_kw=reference, noise_kw=noise, target_kw=target,
        wanted=wanted, soc_percent=soc,
        notes=("its state of charge is not known: it was not checked",) if blind else (),
    )  # fmt: skip


def _unfit(standing: Standing, noise: float, size: float) -> Unfit | None:
    """What forbids any step of that size now."""
    if standing.active:
        power = "" if standing.power_kw is None else f" of {standing.power_kw:g} kW"
        return Unfit(
            f"a setpoint or limit{power} is in force that this test did not write",
            "end it in the other master (portal, home automation, gateway), then test again",
        )
    if noise > size / 2 + _ROUNDING_KW:
        return Unfit(
            f"its power moves by {noise:.3g} kW by itself: a step of {size:g} kW would not show",
            "wait for a steadier moment, or give a larger --step-kw",
        )
    if standing.step_kw > size / 2 + _ROUNDING_KW:
        return Unfit(
            f"its registers hold steps of {standing.step_kw:.3g} kW: {size:g} kW is no more than "
            "two of them", f"give --step-kw of at least {2 * standing.step_kw:.3g}",
        )  # fmt: skip
    return None


def _size(rating: Rating, wanted: Wanted) -> float | Unfit:
    most = max(rating.inject_kw, rating.absorb_kw)
    if wanted.step_kw is None:
        return min(_SHARE * most, _DEFAULT_KW)
    if wanted.step_kw > most:
        return Unfit(
            f"a step of {wanted.step_kw:g} kW is more than its rating of {most:g} kW",
            "give a smaller --step-kw",
        )
    return wanted.step_kw


def _driven(  # noqa: PLR0917 - plain values, each of another kind
    offered: Offered, rating: Rating, reference: float, size: float, soc: float | None,
    direction: Direction,
) -> float | Unfit:  # fmt: skip
    """Up or down from where it is, wherever there is room; the fuller way round if both."""
    why = {
        way: _no_room(offered, rating, reference + sign * size, way, soc)
        for way, sign in (("up", 1), ("down", -1))
    }
    full = soc if soc is not None else (_HALF_FULL if offered.storage and reference <= 0 else 0.0)
    order = ("up", "down") if full >= _HALF_FULL else ("down", "up")
    ways = order if direction == "auto" else (direction,)
    for way in ways:
        if not why[way]:
            return reference + (size if way == "up" else -size)
    return Unfit(
        f"no step of {size:g} kW can be taken from {reference:.3g} kW: "
        + "; ".join(f"{way}: {why[way]}" for way in ways),
        "wait until it is elsewhere, or give another --direction or --step-kw",
    )


def _no_room(offered: Offered, rating: Rating, target: float, way: str, soc: float | None) -> str:
    low, high = -rating.absorb_kw - _ROUNDING_KW, rating.inject_kw + _ROUNDING_KW
    if not low <= target <= high:
        return f"{target:.3g} kW is beyond its rating"
    least, most = _SAFE_SOC
    if offered.storage and soc is not None:
        if way == "up" and soc < least:
            return f"its state of charge of {soc:g} % is below {least:g} %"
        if way == "down" and soc > most:
            return f"its state of charge of {soc:g} % is above {most:g} %"
    return ""


def _limited(offered: Offered, reference: float, size: float) -> float | Unfit:
    """A limit a step below what it does now: it shows only when there is more than that."""
    both_ways = offered.storage and offered.control == "storage_124"
    used = abs(reference) if both_ways else reference
    if used < 1.5 * size:
        return Unfit(
            f"its power is {reference:.3g} kW: a limit {size:g} kW below it could not be seen",
            "wait until it does more (sun, charging, discharging), or give a smaller --step-kw",
        )
    return reference - size if reference > 0 else reference + size
