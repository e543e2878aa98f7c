"""What an MQTT device's firmware does with commands: leases, revisions, late arrivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Log = Callable[[Mapping[str, Any]], None]
Command = dict[str, Any]


class _Held:
    """A setpoint and its spans on the device's monotonic clock, in seconds."""

    def __init__(self, command: Command, now: float) -> None:
        self.command = command
        self.starts = now + command.get("starts_in_s", 0.0)
        lease_ends = self.starts + command["lease_s"]
        valid_until = now + command.get("valid_for_s", float("inf"))
        self.ends = min(lease_ends, valid_until)
        self.ending = "fallback" if lease_ends < valid_until else "ended"
        """What it is called in the log when it ends: silence, or its time is over."""


class Control:
    """Holds the setpoint in force and the one that comes next."""

    def __init__(
        self,
        device_id: str,
        *,
        monotonic: Callable[[], float],
        log: Log,
        accepts: Callable[[float], str],
    ) -> None:
        """`accepts` gives the owner's or the hardware's reason to refuse kilowatts, or ""."""
        self.device_id = device_id
        self.accepts = accepts
        self._monotonic = monotonic
        self._log = log
        self._held: _Held | None = None
        self._next: _Held | None = None
        self._newest: dict[str, int] = {}

    def commanded_kw(self) -> float | None:
        """Power to hold now; None = the device's own fallback."""
        held = self._in_force()
        return None if held is None else held.command["power_w"] / 1000.0

    @property
    def waiting(self) -> bool:
        """Whether a setpoint is held that takes effect later."""
        return self._next is not None

    def state(self) -> dict[str, Any]:
        """The setpoint in force: its id, power and remaining lease; None three times without."""
        held = self._in_force()
        return {
            "setpoint_id": held and held.command["id"],
            "power_w": held and held.command["power_w"],
            "lease_s": held and max(0.0, held.ends - self._monotonic()),
        }

    def answer(self, command: Command, arrived: float) -> dict[str, Any]:
        """Obey a command that arrived at a monotonic time; return the acknowledgement."""
        self._log({"device": self.device_id, "received": command["kind"], "id": command["id"]})
        status, reason = self._obey(command, arrived)
        return {"v": 1, "id": command["id"], "status": status, "reason": reason, **self.state()}

    def _obey(self, command: Command, arrived: float) -> tuple[str, str]:
        if command["kind"] == "query":
            return "applied", ""
        order, revision = command["order_id"], command["revision"]
        if revision < self._newest.get(order, 0):
            return "stale", f"revision {self._newest[order]} is in force"
        if command["kind"] == "release":
            self._newest[order] = revision
            self._release(order)
            return "applied", ""
        if self._monotonic() - arrived > command["ttl_s"]:
            return "refused", "it waited longer than its time to live"
        if reason := self.accepts(command["power_w"] / 1000.0):
            return "refused", reason
        self._newest[order] = revision
        self._hold(command)
        return "applied", ""

    def _hold(self, command: Command) -> None:
        before = {one.command["id"] for one in (self._in_force(), self._next) if one is not None}
        if command["id"] not in before:
            self._log({
                "device": self.device_id, "effect": "set", "id": command["id"],
                "power_w": command["power_w"],
            })  # fmt: skip
        now = self._monotonic()
        held = _Held(command, now)
        if self._next is not None and _supersedes(command, self._next.command):
            self._next = None
        if held.starts <= now:
            self._held = held
        else:
            self._next = held

    def _release(self, order: str) -> None:
        if self._next is not None and self._next.command["order_id"] == order:
            self._next = None
        if self._held is not None and self._held.command["order_id"] == order:
            self._log({"device": self.device_id, "effect": "release"})
            self._held = None

    def _in_force(self) -> _Held | None:
        now = self._monotonic()
        if self._next is not None and now >= self._next.starts:
            self._held, self._next = self._next, None
        if self._held is not None and now >= self._held.ends:
            ended, self._held = self._held, None
            self._log({
                "device": self.device_id, "effect": ended.ending, "id": ended.command["id"],
            })  # fmt: skip
        return self._held


def _supersedes(command: Command, other: Command) -> bool:
    """Whether a command is of a newer plan of the same order."""
    same = bool(command["order_id"] == other["order_id"])
    return same and bool(command["revision"] > other["revision"])
