"""Telling systemd how the service does, over the socket it names (see sd_notify(3)).

The watchdog is fed from the event loop: when the loop hangs, systemd hears nothing and
starts the service anew, and devices fall back meanwhile by their leases.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

_log = structlog.get_logger(__name__)
_MICROSECONDS = 1e6
_FED_PER_PERIOD = 2.0
"""systemd advises to feed the watchdog at half its time."""


@dataclass(frozen=True)
class Systemd:
    """Where to notify; without an address every message goes nowhere."""

    address: str = ""
    watchdog_s: float = 0.0
    """Seconds within which systemd wants to hear from us; 0 = never."""

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int) -> Systemd:
        """What systemd asked of this process in its environment."""
        address = environ.get("NOTIFY_SOCKET", "")
        period = environ.get("WATCHDOG_USEC", "")
        meant = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        watchdog_s = int(period) / _MICROSECONDS if period.isdecimal() and meant else 0.0
        return cls(address, watchdog_s)

    def ready(self, status: str) -> None:
        """The service does its work."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """The service ends on purpose."""
        self._send("STOPPING=1\nSTATUS=stopping")

    async def feed_watchdog(self, healthy: Callable[[], bool]) -> None:
        """Feed the watchdog until cancelled, as long as `healthy` holds; return when unwanted."""
        if not self.address or not self.watchdog_s:
            return
        while True:
            if healthy():
                self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / _FED_PER_PERIOD)

    def _send(self, message: str) -> None:
        if not self.address:
            return
        # A leading @ stands for the zero byte of an abstract socket.
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.connect(address)
                sender.send(message.encode())
        except OSError as error:
            # Nobody's work depends on it; systemd acts by itself when it hears nothing.
            _log.warning("systemd_not_notified", error=str(error))


def systemd() -> Systemd:
    """Systemd as this process' environment describes it."""
    return Systemd.of(os.environ, os.getpid())
