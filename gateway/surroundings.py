"""What the service takes from the machine it runs on; a virtual day brings its own."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from adapters.mqtt.exchange import MqttDevice
from gateway.clock import SystemClock
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.ids import IdSource
from marketplace_core.ports import Clock, DeviceAdapter, TimeMap

if TYPE_CHECKING:
    from redis.asyncio import Redis

MakeAdapters = Callable[
    [Mapping[str, Sequence[DeviceProfile]], Sequence[MqttDevice]], dict[str, DeviceAdapter]
]
"""Adapters by protocol, from the profiles of each protocol and the names of MQTT devices."""


class OpenRedis(Protocol):
    """Makes a client of a server; gives up on an answer after `timeout_s`."""

    def __call__(self, url: str, *, password: str | None, timeout_s: float) -> Redis:
        """A client that tries nothing again by itself."""


@dataclass(frozen=True)
class Surroundings:
    """Time, ids, devices, and whether the service works with sockets and threads."""

    clock: Clock
    time_map: TimeMap
    new_id: Callable[[str], str]
    adapters: MakeAdapters | None = None
    """None = the real ones, over the network."""
    redis: OpenRedis | None = None
    """None = the asynchronous client."""
    idle_s: float = 1.0
    """Longest wall time between two looks at what is due, so that a stepped clock is noticed."""
    inline: bool = False
    """Storage works in the caller, without threads, and no port is listened on."""


def of_this_machine(time_map: TimeMap) -> Surroundings:
    """The machine's clock and randomness, the real adapters."""
    ids = IdSource(lambda: time.time_ns() // 1_000_000, secrets.randbits)
    return Surroundings(SystemClock(time_map), time_map, ids.new)
