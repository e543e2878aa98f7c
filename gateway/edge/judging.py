"""What the samples of a test mean, and which lease they allow to be claimed. Pure.

What was not seen is not claimed: a revert timer is one only when its device was seen to revert,
and where its power followed, when that came back as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from adapters.commissioning import RESTARTS, Nameplate, Offered, Rating, Restart

Following = Literal["follows", "partly", "not at all", "the wrong way", "not seen"]
Lease = Literal["revert_timer", "heartbeat", "watchdog", "none"]
Ended = Literal["done", "interrupted", "link lost", "another master", "runaway", "refused"]
_LEAST_SAMPLES: Final = 3
_THERE: Final = 0.25
"""Share of the step by which its power may miss the target and still follow."""
_BACK: Final = 0.5
"""Share of the step by which its power has to leave the target to be back."""
_EARLY: Final = 0.8
"""Share of the time written below which a reversion is early."""


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """How the measured power followed."""

    following: Following
    reference_kw: float
    asked_kw: float
    settled_kw: float | None = None
    error_kw: float | None = None
    """Settled less asked."""
    response_s: float | None = None
    """From the write until it stayed within a quarter of the step; None = it never did."""


class Timer(msgspec.Struct, frozen=True, kw_only=True):
    """What the device's own timer did when nobody refreshed it."""

    written_s: int
    counts_down: bool | None = None
    """None = it does not tell what is left."""
    reverted_after_s: float | None = None
    """None = it did not within the time it was given."""
    uncertain_s: float = 0.0
    """By how much that may be too long: the pause between two looks."""
    waited_s: float = 0.0
    power_after_kw: float | None = None
    power_returned: bool | None = None
    """None = its power had not followed, so that nothing can be said."""

    @property
    def reverts(self) -> bool:
        """Whether silence was seen to end what it was told, in registers and in power."""
        return self.reverted_after_s is not None and self.power_returned is not False

    @property
    def early(self) -> bool:
        """Whether it reverts well before the time that was written."""
        after = self.reverted_after_s
        return self.reverts and after is not None and after < _EARLY * self.written_s


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """What it did when the controller's heartbeat stopped."""

    held: bool
    """Whether it held the setpoint while the heart beat."""
    fell_back_after_s: float | None = None
    waited_s: float = 0.0
    fallback_kw: float | None = None
    """Measured once it had fallen back."""


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Whether it can be let go of."""

    reads_back: bool
    power_returned: bool | None = None

    @property
    def works(self) -> bool:
        """Whether nothing was left of what it had been told."""
        return self.reads_back and self.power_returned is not False


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """How the device was left."""

    released: bool
    """Nothing of the test is in force."""
    differs: tuple[str, ...] = ()
    """Registers that hold something else than before the test."""
    in_force: str = ""
    """What is, and for how long, where it could not be released."""

    @property
    def whole(self) -> bool:
        """Everything is as it was."""
        return self.released and not self.differs


class Findings(msgspec.Struct, kw_only=True):
    """Everything that was measured; None = it was not."""

    ended: Ended = "done"
    problem: str = ""
    requests: int = 0
    """Write requests, those that restored it included."""
    read_back_s: float | None = None
    read_back_kw: float | None = None
    power: Power | None = None
    timer: Timer | None = None
    restarts: dict[Restart, bool] = {}
    heartbeat: Beat | None = None
    release: Release | None = None
    restored: Restored | None = None
    """None = nothing was written."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What may be claimed of the device."""

    lease: Lease
    because: str
    restarts_on: Restart = "enable"
    long_lease: bool = False
    """Its timer cannot be restarted: one lease has to last to the end of a setpoint."""
    longest_lease_s: float | None = None
    """It reverts earlier than it is told: no lease may be longer."""
    fallback_kw: float | None = None
    """Measured, under a heartbeat."""
    remarks: tuple[str, ...] = ()


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a test."""

    tested_at: str
    tool: str
    where: str
    nameplate: Nameplate
    offered: Offered
    rating: Rating
    step_kw: float
    findings: Findings
    verdict: Verdict


def followed(
    samples: Sequence[tuple[float, float]], reference_kw: float, target_kw: float, noise_kw: float
) -> Power:
    """Judge (seconds since the write, kW) samples against what was asked."""
    step = target_kw - reference_kw
    if len(samples) < _LEAST_SAMPLES:
        return Power(following="not seen", reference_kw=reference_kw, asked_kw=target_kw)
    settled = sum(power for _, power in samples[-_LEAST_SAMPLES:]) / _LEAST_SAMPLES
    share = (settled - reference_kw) / step
    near = max(_THERE * abs(step), noise_kw)
    response = None
    for at, power in reversed(samples):
        if abs(power - target_kw) > near:
            break
        response = at
    return Power(
        following=_following(share), reference_kw=reference_kw, asked_kw=target_kw,
        settled_kw=settled, error_kw=settled - target_kw, response_s=response,
    )  # fmt: skip


def _following(share: float) -> Following:
    if share <= -_THERE:
        return "the wrong way"
    if share < _THERE:
        return "not at all"
    return "follows" if abs(share - 1.0) <= _THERE else "partly"


def returned(power_kw: float, seen: Power) -> bool | None:
    """Whether its power left what it was told; None where it had not gone there."""
    if seen.following not in {"follows", "partly"} or seen.settled_kw is None:
        return None
    way = seen.settled_kw - seen.reference_kw
    return abs(power_kw - seen.settled_kw) >= _BACK * abs(way)


def judge(found: Findings) -> Verdict:
    """Which lease the device may be given, and why no better one."""
    why_not = _undrivable(found)
    if why_not:
        return Verdict(lease="none", because=why_not, remarks=tuple(_remarks(found)))
    remarks = tuple(_remarks(found))
    timer, beat = found.timer, found.heartbeat
    if timer is not None and timer.reverts:
        restart = next((on for on in RESTARTS if found.restarts.get(on)), None)
        return Verdict(
            lease="revert_timer", because="it was seen to revert by itself",
            restarts_on=restart or "enable", long_lease=restart is None,
            longest_lease_s=timer.reverted_after_s if timer.early else None, remarks=remarks,
        )  # fmt: skip
    if beat is not None and beat.held and beat.fell_back_after_s is not None:
        return Verdict(
            lease="heartbeat",
            because="it was seen to fall back without a heartbeat",
            fallback_kw=beat.fallback_kw,
            remarks=remarks,
        )
    return Verdict(
        lease="watchdog", remarks=remarks,
        because=f"{_no_lease(timer)}; the gateway has to release it, and release was seen to work",
    )  # fmt: skip


def _undrivable(found: Findings) -> str:
    if found.ended != "done":
        return f"the test did not come to its end: {found.problem or found.ended}"
    if found.read_back_s is None:
        return "what is written does not read back"
    power = found.power
    if power is None or power.following in {"not at all", "the wrong way", "not seen"}:
        seen = "was not seen to follow" if power is None else f"follows {power.following}"
        return f"its measured power {seen}".replace("follows not seen", "was not seen to follow")
    if found.release is None or not found.release.works:
        return "it was not seen to let go when it is released"
    if found.restored is None or not found.restored.released:
        return "it was not restored"
    return ""


def _no_lease(timer: Timer | None) -> str:
    if timer is None:
        return "it has no revert timer"
    if timer.reverted_after_s is not None:
        return "its registers say that it reverted, and its power stayed where it was"
    if timer.counts_down:
        return "its timer counts down and it does not revert"
    if timer.counts_down is False:
        return "its timer is taken and does not count down"
    return f"it did not revert within {timer.waited_s:.0f} s"


def _remarks(found: Findings) -> list[str]:
    remarks: list[str] = []
    power, timer = found.power, found.timer
    if power is not None and power.following == "partly" and power.settled_kw is not None:
        remarks.append(
            f"it settled at {power.settled_kw:.3g} kW of {power.asked_kw:.3g} kW: it clamps, or "
            "something else drives it too"
        )
    if timer is not None and timer.reverts and not any(found.restarts.values()):
        remarks.append("no single write restarts its timer: its lease is written in full length")
    if timer is not None and timer.early:
        remarks.append(
            f"it reverts {timer.reverted_after_s:.1f} s after a time of {timer.written_s} s was "
            "written"
        )
    if timer is not None and timer.counts_down is False and timer.reverts:
        remarks.append("what its timer has left does not count down, although it reverts")
    return remarks
