"""The allocation kernel once more, device by device in plain Python.

Written from what the kernel promises and not from its code: no arrays, no shared functions.
What both say is compared, and the kernel's speed is measured against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

EFFICIENCY = 0.9**0.5
RAMP_S = 60.0
WATT = 1e-3
SLACK = 1e-7
Stretch = tuple[float, float]


class Device(NamedTuple):
    """What the kernel has in a row of its columns; None where it has nan."""

    min_kw: float
    max_kw: float
    reference_kw: float
    limit: bool = False
    capacity_kwh: float | None = None
    soc_kwh: float | None = None
    least_kwh: float | None = None
    most_kwh: float | None = None
    ramp_kw_per_s: float | None = None
    min_on_kw: float = 0.0
    tier: int = 0
    usable: bool = True
    weight: float = 1.0
    rank: float = 0.0


class _Claim(NamedTuple):
    row: int
    device: Device
    stretches: list[Stretch]

    @property
    def top(self) -> float:
        return self.stretches[-1][1]


def room_of(device: Device, sign: int, hours: float) -> float:
    """What a device could move by if it could run at any power."""
    if not device.usable:
        return 0.0
    reference = device.reference_kw
    low, high = device.min_kw, device.max_kw
    if device.limit:
        low, high = max(low, min(reference, 0.0)), min(high, max(reference, 0.0))
    if device.least_kwh is not None and device.most_kwh is not None:
        low, high = max(low, -device.most_kwh / hours), min(high, -device.least_kwh / hours)
    if device.capacity_kwh is not None and device.soc_kwh is not None:
        free = max(0.0, device.capacity_kwh - device.soc_kwh)
        high = min(high, device.soc_kwh * EFFICIENCY / hours)
        low = max(low, -free / EFFICIENCY / hours)
    room = max(0.0, high - reference if sign > 0 else reference - low)
    return room if device.ramp_kw_per_s is None else min(room, device.ramp_kw_per_s * RAMP_S)


def stretches_of(room: float, toward: float, min_on: float) -> list[Stretch]:
    """Shares up to the room that leave a device at 0, or at `min_on` or more either way."""
    if min_on <= 0 or toward >= min_on:
        return [(0.0, room)]
    found = [(0.0, min(room, max(0.0, -min_on - toward)))]
    if toward < 0 and -toward <= room + SLACK:
        found.append((min(room, -toward), min(room, -toward)))
    if min_on - toward <= room + SLACK:
        found.append((min(room, min_on - toward), room))
    return found


def divide(
    target: float, devices: Sequence[Device], sign: int, hours: float, fairness: str
) -> list[float]:
    """The share of each device."""
    claims = []
    for row, device in enumerate(devices):
        room = room_of(device, sign, hours)
        able = stretches_of(room, sign * device.reference_kw, device.min_on_kw)
        if able[-1][1] >= WATT:
            claims.append(_Claim(row, device, able))
    shares = [0.0] * len(devices)
    claims.sort(key=lambda claim: claim.device.tier)
    for _, group in groupby(claims, key=lambda claim: claim.device.tier):
        members = list(group)
        for claim, share in zip(members, _tier(target, members, fairness), strict=True):
            shares[claim.row] = share
            target -= share
        target = max(0.0, target)
    return shares


def _tier(target: float, claims: list[_Claim], fairness: str) -> list[float]:
    tops = [claim.top for claim in claims]
    if target >= sum(tops):
        return tops
    if fairness == "proportional" and all(
        claim.device.weight == 1 and len(claim.stretches) == 1 for claim in claims
    ):
        part = target / sum(tops)
        return [top * part for top in tops]
    spread, key = _way(claims, fairness)
    if all(len(claim.stretches) == 1 for claim in claims):
        return spread(target, [0.0] * len(claims), tops)
    whole = spread(target, [0.0] * len(claims), tops)
    reached = max(
        (key(index, share) for index, share in enumerate(whole) if share > 0), default=0.0
    )
    if fairness in {"priority", "rotate"}:
        reached = target
    at = _settle(target, claims, key, reached)
    low = [claim.stretches[chosen][0] for claim, chosen in zip(claims, at, strict=True)]
    high = [claim.stretches[chosen][1] for claim, chosen in zip(claims, at, strict=True)]
    if target >= sum(high):
        return high
    return spread(target, low, high)


def _settle(
    target: float, claims: list[_Claim], key: Callable[[int, float], float], reached: float
) -> list[int]:
    steps = []
    for index, claim in enumerate(claims):
        for number, (here, above) in enumerate(
            zip(claim.stretches, claim.stretches[1:], strict=False)
        ):
            level = key(index, above[0])
            steps.append((level, number, above[0] - here[0], above[1] - here[1], index))
    steps.sort()
    at = [0] * len(claims)
    least, most = 0.0, sum(claim.stretches[0][1] for claim in claims)
    refused = False
    for level, number, low, high, index in steps:
        wanted = most < target - SLACK or (level <= reached and not refused)
        if not wanted:
            break
        if at[index] != number or least + low > target + SLACK:
            refused = True
            continue
        at[index] += 1
        least, most = least + low, most + high
    return at


def _way(
    claims: list[_Claim], fairness: str
) -> tuple[Callable[[float, list[float], list[float]], list[float]], Callable[[int, float], float]]:
    if fairness in {"proportional", "equal"}:
        weights = [
            claim.device.weight * (claim.top if fairness == "proportional" else 1.0)
            for claim in claims
        ]
        return (
            lambda target, low, high: _level(target, weights, low, high),
            lambda index, share: share / weights[index],
        )
    ranked = sorted(range(len(claims)), key=lambda index: claims[index].device.rank)
    groups = (
        [[index] for index in ranked]
        if fairness == "rotate"
        else [list(g) for _, g in groupby(ranked, key=lambda index: claims[index].device.rank)]
    )
    before: dict[int, tuple[float, float]] = {}
    total = 0.0
    for group in groups:
        room = sum(claims[index].top for index in group)
        before.update((index, (total, room)) for index in group)
        total += room
    return (
        lambda target, low, high: _fill(target, groups, low, high),
        lambda index, share: before[index][0] + before[index][1] * (share / claims[index].top),
    )


def _level(target: float, weights: list[float], low: list[float], high: list[float]) -> list[float]:
    """Sweep upwards over every point at which a device begins or stops to rise."""
    events = sorted(
        [(low[i] / weight, weight) for i, weight in enumerate(weights)]
        + [(high[i] / weight, -weight) for i, weight in enumerate(weights)]
    )
    level, slope, total = 0.0, 0.0, sum(low)
    for at, change in events:
        if slope > 0 and total + slope * (at - level) >= target:
            level += (target - total) / slope
            break
        total += slope * (at - level)
        level, slope = at, slope + change
    return [
        min(max(level * weight, low[i]), high[i]) for i, weight in enumerate(weights)
    ]  # fmt: skip


def _fill(
    target: float, groups: list[list[int]], low: list[float], high: list[float]
) -> list[float]:
    shares = list(low)
    left = target - sum(low)
    for group in groups:
        above = sum(high[index] - low[index] for index in group)
        part = min(1.0, max(0.0, left) / above) if above > 0 else 0.0
        for index in group:
            shares[index] = low[index] + part * (high[index] - low[index])
        left -= part * above
    return shares
