"""An aggregator's backend: it receives dispatches, drives its own cars, posts its readings."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import httpx

from firmware_sim.links.base import HOST, Addresses, Moments, Readings
from firmware_sim.records import Recorder, iso
from firmware_sim.scenario import Fleet
from marketplace_core.errors import ConfigError

_BATCH: Final = 500
"""Readings in one request."""
_TIMEOUT_S: Final = 10.0
_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 5.0
Row = dict[str, Any]


class Receiver(Protocol):
    """Takes the market's dispatches."""

    @property
    def port(self) -> int:
        """Where it listens, once it does."""

    def commanded_kw(self, at: datetime) -> float | None:
        """Aggregate power that it agreed to for a wall instant; None = its own behaviour."""

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until cancelled; call `started` once it listens."""


class WebhookLink:
    """One fleet: its receiver, and the readings that wait for the market's API."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        api_url: str,
        token_file: Path,
        record: Recorder,
        tls: Path | None = None,
        receiver: Receiver | None = None,
    ) -> None:
        """`tls` holds the `ca.pem` that an https API is trusted by.

        Raises: ConfigError when the file with the token cannot be read.
        """
        self._fleet = fleet
        self._receiver = receiver
        self._record = record
        self._url = f"{api_url.rstrip('/')}/v1/readings"
        self._token = _token(token_file)
        self._trust = _trust(api_url, tls)
        self._waiting: deque[Row] = deque()
        self._fresh = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Readings that the API has not accepted yet."""
        return len(self._waiting)

    def disturb(self, at: datetime) -> None:
        """A backend has no faults of its own."""

    def commands(self) -> Mapping[str, float | None]:
        """What the backend agreed to."""
        if self._receiver is None:
            return {self._fleet.id: None}
        return {self._fleet.id: self._receiver.commanded_kw(datetime.now(UTC))}

    def show(self, moments: Moments) -> None:
        """The backend reports means only."""

    def report(self, readings: Readings) -> None:
        """Queue a minute's mean, in market time."""
        one = readings[self._fleet.id]
        self._waiting.append(
            {
                "series": one.series, "start": iso(one.start), "seconds": one.seconds,
                "power_kw": one.power_kw,
            }
        )  # fmt: skip
        self._fresh.set()

    def addresses(self) -> Addresses:
        """Where dispatches are received, if anywhere."""
        if self._receiver is None:
            return {}
        return {"webhook": {self._fleet.id: {"host": HOST, "port": self._receiver.port}}}

    async def run(self, started: Callable[[], None]) -> None:
        """Receive dispatches and post readings."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._post())
            if self._receiver is None:
                started()
            else:
                tasks.create_task(self._receiver.run(started))

    async def _post(self) -> None:
        """Post what waits, oldest first; it leaves when the API has it."""
        headers = {"Authorization": f"Bearer {self._token}"}
        wait_s = _FIRST_WAIT_S
        async with httpx.AsyncClient(
            headers=headers, timeout=_TIMEOUT_S, verify=self._trust, trust_env=False
        ) as client:
            while True:
                if not self._waiting:
                    self._fresh.clear()
                    await self._fresh.wait()
                if await self._post_batch(client):
                    wait_s = _FIRST_WAIT_S
                    continue
                await asyncio.sleep(random.uniform(wait_s / 2, wait_s))  # noqa: S311 - jitter
                wait_s = min(_LONGEST_WAIT_S, 2 * wait_s)

    async def _post_batch(self, client: httpx.AsyncClient) -> bool:
        batch = [self._waiting[index] for index in range(min(_BATCH, len(self._waiting)))]
        try:
            answer = await client.post(self._url, json=batch)
        except httpx.HTTPError as error:
            self._record(self._fleet.id, "device", post=repr(error), readings=len(batch))
            return False
        if not answer.is_success:
            self._record(
                self._fleet.id, "device", post=answer.status_code, readings=len(batch),
                answer=answer.text[:200],
            )  # fmt: skip
            return False
        for _ in batch:
            self._waiting.popleft()
        return True


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-token-file cannot be read: {error}") from error
    if not token:
        raise ConfigError(f"{path} holds no token: --api-token-file needs one")
    return token


def _trust(api_url: str, tls: Path | None) -> ssl.SSLContext | bool:
    if tls is None or not api_url.startswith("https:"):
        return True
    return ssl.create_default_context(cafile=str(tls / "ca.pem"))
