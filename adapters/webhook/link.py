"""One HTTP exchange with an endpoint: resolved once, checked, connected to what was checked.

No redirects, no proxies from the environment, no connection kept for the next message (a
kept one could carry a message of one host to another behind the same address).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeAlias

import httpx
import msgspec
import structlog

from adapters.webhook.address import PORTS, address_fault, url_fault
from adapters.webhook.config import WebhookPolicy
from adapters.webhook.wire import MAX_BODY_BYTES

_log = structlog.get_logger(__name__)
_RESOLVING: Final = 32
"""Names that are looked up at once."""
_MOST_ADDRESSES: Final = 3
"""Addresses of one name that are tried in turn."""
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Addresses of a host name, as text; raises OSError."""


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint answered."""

    status: int
    body: bytes
    latency_s: float


class NotSent(msgspec.Struct, frozen=True):
    """Nothing reached the endpoint."""

    reason: str


class NoAnswer(msgspec.Struct, frozen=True):
    """The request may have reached the endpoint; there is no answer to it."""

    reason: str


Exchange: TypeAlias = Answered | NotSent | NoAnswer


class SystemNames:
    """The system's resolver, in threads of its own: a name that hangs keeps no one else waiting."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVING, thread_name_prefix="webhook-names")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Addresses of a name; raises OSError."""
        loop = asyncio.get_running_loop()
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await loop.run_in_executor(self._threads, look_up)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        """Let the threads end; who hangs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Link:
    """Makes exchanges; use it as an async context manager, or close it."""

    def __init__(
        self,
        policy: WebhookPolicy,
        *,
        resolver: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls` verifies endpoints; the default trusts the public authorities.

        `resolver` is asked once per exchange; the default asks the system.
        """
        self._policy = policy
        self._names = SystemNames()
        self._resolve = resolver or self._names
        self._client = httpx.AsyncClient(
            verify=tls or ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(policy.answer_timeout_s, connect=policy.connect_timeout_s),
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def __aenter__(self) -> Self:
        """The link itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Close what is open."""
        self._names.close()
        await self._client.aclose()

    async def exchange(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b""
    ) -> Exchange:
        """Send one request and read its answer; never raises for what the endpoint does."""
        if fault := url_fault(url, self._policy):
            return NotSent(f"the URL is refused: {fault}")
        target = httpx.URL(url)
        found = await self._addresses(target)
        if isinstance(found, NotSent):
            return found
        result: Exchange = NotSent(f"{target.host} has no address")
        for address in found:
            result = await self._once(method, target, address, headers, body)
            if not isinstance(result, NotSent):
                break
        return result

    async def _addresses(self, target: httpx.URL) -> Sequence[str] | NotSent:
        """Addresses to connect to, or why there is none: one that is refused refuses all."""
        host = target.raw_host.decode()
        port = target.port or PORTS[target.scheme]
        try:
            async with asyncio.timeout(self._policy.connect_timeout_s):
                addresses = await self._resolve(host, port)
        except TimeoutError:
            return NotSent(f"{target.host} was not resolved in time")
        except (OSError, UnicodeError) as error:
            return NotSent(f"{target.host} is not resolved: {error}")
        plain = target.scheme == "http"
        for address in addresses:
            if fault := address_fault(address, self._policy, plain=plain):
                _log.warning("webhook_address_refused", host=host, address=address)
                return NotSent(f"{target.host} is refused: {fault}")
        return addresses[:_MOST_ADDRESSES]

    async def _once(
        self, method: str, target: httpx.URL, address: str, headers: Mapping[str, str], body: bytes
    ) -> Exchange:
        request = self._client.build_request(
            method,
            target.copy_with(host=address),
            headers={
                **headers,
                "Host": target.netloc.decode(),
                "User-Agent": "Flexway-Webhook/1",
                "Accept-Encoding": "identity",
                "Connection": "close",
            },
            content=body,
            extensions={"sni_hostname": target.raw_host.decode()},
        )
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._policy.answer_timeout_s):
                status, answer = await self._send(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return NotSent(f"no connection to {address}: {_words(error)}")
        except TimeoutError:
            return NoAnswer(f"no answer within {self._policy.answer_timeout_s:g} s")
        except httpx.HTTPError as error:
            return NoAnswer(f"the connection failed before the answer: {_words(error)}")
        return Answered(status=status, body=answer, latency_s=time.monotonic() - began)

    async def _send(self, request: httpx.Request) -> tuple[int, bytes]:
        """Status and body; of a body that is too long only one byte more than allowed."""
        response = await self._client.send(request, stream=True)
        try:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    break
            return response.status_code, bytes(body[: MAX_BODY_BYTES + 1])
        finally:
            await response.aclose()


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
