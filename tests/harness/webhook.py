"""Endpoints for webhook tests: foreign ones that misbehave byte by byte, and what is around."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from adapters.webhook.adapter import WebhookAdapter
from adapters.webhook.config import (
    Attempt,
    Delivery,
    DeliveryStatus,
    Endpoint,
    WebhookDevice,
    WebhookPolicy,
)
from adapters.webhook.courier import Courier
from adapters.webhook.link import Link
from adapters.webhook.wire import Dispatch
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint, SetpointOutcome
from marketplace_core.units import Kw
from tests.harness.clocks import IdentityTime, WallClock
from tests.harness.sinks import ListSink

SECRET = "fxw_test-secret"
ACCEPTED = b'{"status":"accepted"}'
# the connection is given time enough for a machine that is busy with other things
FAST = WebhookPolicy(
    lab=True, connect_timeout_s=1.4, answer_timeout_s=3.0, attempts=3, backoff_s=0.02,
    broken_after=100, trial_every_s=0.2, ping_s=0.2,
)  # fmt: skip


def http(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Request:
    head: str
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.split("\r\n")[1:]
        return {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines) if k}


Behave = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Foreign:
    """A server of our own making that answers as it is told to."""

    behave: Behave
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client went away, which is what some tests are about
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request = Request(head, b"")
        length = int(request.headers.get("content-length", "0"))
        request.body = await reader.readexactly(length)
        self.requests.append(request)
        await self.behave(request, writer)
        await writer.drain()


@contextlib.asynccontextmanager
async def foreign(behave: Behave, **options: Any) -> AsyncIterator[Foreign]:
    server = Foreign(behave)
    async with asyncio.TaskGroup() as tasks:
        serving: list[asyncio.Task[None]] = []

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving.append(tasks.create_task(server.serve(reader, writer)))

        listening = await asyncio.start_server(accept, "127.0.0.1", 0, **options)
        server.port = listening.sockets[0].getsockname()[1]
        try:
            yield server
        finally:
            listening.close()
            for task in serving:
                task.cancel()


def says(*answers: bytes) -> Behave:
    """Give each request the next answer, and the last one to all that follow."""
    left = list(answers)

    async def behave(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])

    return behave


class MemoryLog:
    """The DeliveryLog port, in memory."""

    def __init__(self) -> None:
        self.attempts: dict[str, int] = {}
        self.bodies: dict[str, bytes] = {}
        self.ends: list[tuple[str, DeliveryStatus, str]] = []

    async def attempting(self, delivery: Delivery) -> Attempt:
        self.attempts[delivery.id] = self.attempts.get(delivery.id, 0) + 1
        body = self.bodies.setdefault(delivery.id, delivery.body)
        return Attempt(number=self.attempts[delivery.id], body=body)

    async def ended(
        self, delivery: Delivery, status: DeliveryStatus, *, detail: str, latency_s: float | None
    ) -> None:
        assert latency_s is None or latency_s >= 0
        self.ends.append((delivery.kind, status, detail))


@dataclass
class Rig:
    """An adapter with one link, and the endpoints of its organisations."""

    adapter: WebhookAdapter
    courier: Courier
    log: MemoryLog
    endpoints: dict[str, Endpoint]
    counts: dict[str, int]


def endpoint(url: str, organisation: str = "org_s", **more: Any) -> Endpoint:
    identity = {"id": f"whk_{organisation}", "secrets": (SECRET,), **more}
    return Endpoint(organisation=organisation, url=url, **identity)


@contextlib.asynccontextmanager
async def rig(
    endpoints: Sequence[Endpoint],
    *,
    policy: WebhookPolicy = FAST,
    devices: Sequence[tuple[str, str]] = (("agg-1", "org_s"),),
    running: bool = False,
    **link: Any,
) -> AsyncIterator[Rig]:
    known = {one.organisation: one for one in endpoints}
    bound = [device(name, organisation) for name, organisation in devices]
    async with _around(bound, known, policy, **link) as here, asyncio.TaskGroup() as tasks:
        task = None
        if running:
            task = tasks.create_task(here.adapter.run(ListSink(), ready=lambda: None))
        yield here
        if task is not None:
            task.cancel()


@contextlib.asynccontextmanager
async def adapter(
    devices: Sequence[WebhookDevice], endpoints: dict[str, Endpoint]
) -> AsyncIterator[WebhookAdapter]:
    """An adapter over endpoints by organisation, for its caller to run."""
    async with _around(devices, endpoints, FAST) as here:
        yield here.adapter


@contextlib.asynccontextmanager
async def _around(
    devices: Sequence[WebhookDevice], known: dict[str, Endpoint], policy: WebhookPolicy, **link: Any
) -> AsyncIterator[Rig]:
    counts: dict[str, int] = {}
    log = MemoryLog()

    def count(outcome: str) -> None:
        counts[outcome] = counts.get(outcome, 0) + 1

    async def directory(organisation: str) -> Endpoint | None:
        return known.get(organisation)

    numbers = iter(range(1_000_000))
    async with Link(policy, **link) as wire:
        courier = Courier(
            wire, log, policy=policy, monotonic=time.monotonic, unix=time.time,
            jitter=lambda: 1.0, count=count,
        )  # fmt: skip
        made = WebhookAdapter(
            devices, courier=courier, directory=directory, policy=policy, clock=WallClock(),
            time_map=IdentityTime(), new_id=lambda prefix: f"{prefix}_{next(numbers)}",
        )  # fmt: skip
        yield Rig(made, courier, log, known, counts)


async def issue(here: Rig, *setpoints: Setpoint) -> list[SetpointOutcome]:
    return [outcome async for batch in here.adapter.issue(setpoints) for outcome in batch]


def yes(_: Dispatch) -> tuple[bool, str]:
    return True, ""


async def silent(_: Request, __: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


def device(device_id: str = "agg-1", organisation: str = "org_s") -> WebhookDevice:
    profile = DeviceProfile(
        device_id=device_id, protocol="webhook", min_kw=Kw(-400.0), max_kw=Kw(100.0),
        lease=LeaseKind.EVENT_END, fallback_kw=Kw(-50.0),
    )  # fmt: skip
    return WebhookDevice(device_id=device_id, organisation=organisation, profile=profile)


def setpoint(number: int = 1, **changes: Any) -> Setpoint:
    """For now and the next minute unless `starts_in` or `seconds` say otherwise."""
    start = datetime.now(UTC) + timedelta(seconds=changes.pop("starts_in", -1.0))
    length = changes.pop("seconds", 60.0)
    fields: dict[str, Any] = {
        "id": f"spt_{number}", "order_id": "ord_1", "revision": 0, "device_id": "agg-1",
        "power_kw": Kw(25.0), "valid_from": start,
        "valid_until": start + timedelta(seconds=length), "lease_s": length,
    }  # fmt: skip
    return Setpoint(**{**fields, **changes})
