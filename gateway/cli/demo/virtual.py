"""The day in virtual time: no sockets, no waiting, the same every time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import structlog

from adapters.mqtt.exchange import MqttDevice
from config.loading import load_settings
from gateway.app import Application
from gateway.bootstrap import build
from gateway.client import Client
from gateway.lockstep.adapter import LockstepAdapter
from gateway.lockstep.clock import LockstepClock
from gateway.lockstep.field import Field
from gateway.lockstep.loop import VirtualLoop
from gateway.lockstep.mqtt import LockstepMqtt
from gateway.lockstep.pipe import DevicePipe
from gateway.lockstep.redis import LockstepRedis
from gateway.observability.logs import configure_logs
from gateway.surroundings import Surroundings
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.ids import IdSource
from marketplace_core.ports import DeviceAdapter
from marketplace_core.simtime import identity

_MINUTE: Final = timedelta(minutes=1)
_IDLE_S: Final = 300.0
"""Virtual time has no steps to be noticed."""
_STOPS_IN_S: Final = 60.0
"""Virtual seconds that the service has to stop."""
_BEFORE: Final = timedelta(hours=1)
"""Market time before the devices run, in which the market is set up."""
_log = structlog.get_logger(__name__)


class VirtualWorld:
    """Implements World over a virtual event loop and a pipe to the devices."""

    def __init__(
        self, settings: Path, devices: Sequence[str], tokens: Mapping[str, str], start: datetime
    ) -> None:
        """`devices` is the command line of the devices' process, `start` when they begin."""
        self._loop = VirtualLoop()
        asyncio.set_event_loop(self._loop)
        self._settings = load_settings(settings)
        self._tokens = tokens
        self._clock = LockstepClock(self._loop, start - _BEFORE)
        self._pipe = DevicePipe(devices, settings.with_name("devices.log"), self._clock.now)
        self._log = settings.with_name("gateway.log").open("a", encoding="utf-8")
        self._field: Field | None = None
        self._application: Application | None = None
        self._running: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._redis = LockstepRedis()
        self._clients: dict[str, VirtualClient] = {}
        # Not for secrets: ids that are the same in every run of the same day.
        dice = random.Random(0)  # noqa: S311 - see above
        self._ids = IdSource(lambda: round(self._clock.now().timestamp() * 1000), dice.getrandbits)

    def start(self) -> None:
        """Start the devices' process and the service."""
        configure_logs("info", self._log)
        self._pipe.start()
        self._field = Field(self._pipe, self._clock)
        self.start_gateway()

    def begin(self) -> None:
        """Virtual time runs whenever somebody waits for it."""

    def seconds_until(self, _at: datetime, _since: float) -> float | None:
        """Virtual seconds are nobody's."""
        return None

    def client(self, organisation: str) -> Client:
        """Calls the API in the process, within one instant."""
        if organisation not in self._clients:
            token = self._tokens[organisation]
            self._clients[organisation] = VirtualClient(self._loop, self._api(), token)
        return self._clients[organisation]

    def now(self) -> datetime:
        """Market time."""
        return self._clock.now()

    def wait_until(self, at: datetime) -> None:
        """Let the day run."""
        self._loop.run_until_complete(self._started().run_until(at))

    def pause(self) -> None:
        """A minute."""
        self.wait_until(self.now() + _MINUTE)

    def cut_uplink(self) -> None:
        """The broker takes nothing to the gateway and nothing from it."""
        self._started().uplink(up=False)

    def mend_uplink(self) -> None:
        """It does again."""
        self._started().uplink(up=True)

    def kill_gateway(self) -> None:
        """Take everything from the service that it has not committed."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._running)
        self._forget_clients()

    def start_gateway(self) -> None:
        """Build the service anew over its database, and wait until it takes requests."""
        self._stop = asyncio.Event()
        around = Surroundings(
            clock=self._clock, time_map=identity(), new_id=self._ids.new,
            adapters=self._adapters, redis=self._redis.open, inline=True, idle_s=_IDLE_S,
        )  # fmt: skip
        application = self._application = build(self._settings, around=around)
        started = asyncio.Event()
        self._running = self._loop.create_task(application.run(self._stop, started.set))
        self._loop.run_until_complete(_either(started, self._running))

    def stop(self) -> Mapping[str, int]:
        """Ask the service to stop, then the devices; 0 stands for a clean end of each."""
        self._stop.set()
        self._forget_clients()
        gateway = 1 if self._running is None else end_of(self._loop, self._running)
        devices = self._pipe.end()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._close()
        return {"gateway": gateway, "devices": devices}

    def abort(self) -> None:
        """Cancel the service, end the devices."""
        with suppress(Exception):
            self.kill_gateway()
        self._pipe.end()
        self._close()

    def _close(self) -> None:
        self._loop.close()
        configure_logs()
        self._log.close()

    def _adapters(
        self, profiles: Mapping[str, Sequence[DeviceProfile]], devices: Sequence[MqttDevice]
    ) -> dict[str, DeviceAdapter]:
        field, found = self._started(), dict[str, DeviceAdapter]()
        for protocol, bound in profiles.items():
            if protocol == "mqtt":
                found[protocol] = LockstepMqtt(devices, field, self._clock)
            else:
                found[protocol] = LockstepAdapter(protocol, bound, field, self._clock)
        return found

    def _forget_clients(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _started(self) -> Field:
        if self._field is None:
            msg = "the world was not started"
            raise RuntimeError(msg)
        return self._field

    def _api(self) -> Application:
        if self._application is None:
            msg = "the gateway was not started"
            raise RuntimeError(msg)
        return self._application


class VirtualClient(Client):
    """One organisation's view of an API that is called in the process."""

    def __init__(self, loop: VirtualLoop, application: Application, token: str) -> None:
        super().__init__("http://flexway", token)
        self._loop = loop
        self._inside = httpx.AsyncClient(
            transport=httpx.ASGITransport(application.api), base_url="http://flexway",
            headers={"Authorization": f"Bearer {token}"},
        )  # fmt: skip

    def close(self) -> None:
        """Close both ends."""
        super().close()
        self._loop.run_until_complete(self._inside.aclose())

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        with self._loop.holding_time():
            return self._loop.run_until_complete(self._inside.request(method, path, **arguments))


def end_of(loop: VirtualLoop, running: asyncio.Task[None]) -> int:
    """Exit code of a service that was asked to stop: 0 when it ended and left nothing running."""
    loop.run_until_complete(asyncio.wait({running}, timeout=_STOPS_IN_S))
    ended = running.done() and not running.cancelled()
    error = running.exception() if ended else None
    left = asyncio.all_tasks(loop)
    if ended and error is None and not left:
        return 0
    _log.error("stopped_uncleanly", error=repr(error), left=sorted(map(repr, left)))
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=_STOPS_IN_S))
    return 1


async def _either(started: asyncio.Event, running: asyncio.Task[None]) -> None:
    """Return once the service has started; raise what ended it before."""
    waiting = asyncio.ensure_future(started.wait())
    await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        waiting.cancel()
        running.result()
