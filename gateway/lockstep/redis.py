"""Redis within one instant: the server really answers, and virtual time does not pass meanwhile.

A request is made here and now, as storage and threads are in lockstep. Only waiting differs: a
read that would block on the server waits in the loop until something is added to a stream, so
that virtual time can go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, cast

import redis
from redis.asyncio import Redis


class LockstepRedis:
    """Opens the clients of one virtual day."""

    def __init__(self) -> None:
        self._added = asyncio.Event()

    def open(self, url: str, *, password: str | None, timeout_s: float) -> Redis:
        """What the bus and the live state use as a client; `timeout_s` is real seconds."""
        inner = redis.Redis.from_url(
            url, password=password, socket_timeout=timeout_s, socket_connect_timeout=timeout_s,
            protocol=2,
        )  # fmt: skip
        return cast("Redis", _Client(inner, self._added))


class _Commands:
    """Every command of redis-py, awaitable, and done when it is called."""

    def __init__(self, inner: redis.Redis) -> None:
        self._inner = inner

    def __getattr__(self, command: str) -> Any:
        async def run(*arguments: Any, **options: Any) -> Any:
            return getattr(self._inner, command)(*arguments, **options)

        return run


class _Client(_Commands):
    def __init__(self, inner: redis.Redis, added: asyncio.Event) -> None:
        super().__init__(inner)
        self._added = added

    def pipeline(self, *, transaction: bool) -> _Pipeline:
        return _Pipeline(self._inner.pipeline(transaction=transaction), self._added)

    def register_script(self, text: str) -> Any:
        script = self._inner.register_script(text)

        async def run(keys: list[str], arguments: list[Any], client: _Pipeline) -> None:
            script(keys, arguments, client=client.inner)

        return run

    async def xreadgroup(
        self, group: str, consumer: str, streams: dict[Any, Any], *, count: int,
        block: int | None = None,
    ) -> Any:  # fmt: skip
        """Unlike the server, never gives up waiting: nothing is due while nothing is added."""

        def read() -> Any:
            return self._inner.xreadgroup(group, consumer, streams, count=count)

        return await self._until_there_is_some(read) if block else read()

    async def xread(self, streams: dict[Any, Any], *, count: int, block: int) -> Any:
        """As above; whoever asks always waits."""
        del block
        return await self._until_there_is_some(lambda: self._inner.xread(streams, count=count))

    async def aclose(self) -> None:
        self._inner.close()

    async def _until_there_is_some(self, read: Callable[[], Any]) -> Any:
        while True:
            self._added.clear()
            if found := read():
                return found
            await self._added.wait()


class _Pipeline:
    """Commands that go to the server together."""

    def __init__(self, inner: Any, added: asyncio.Event) -> None:
        self.inner = inner
        self._added = added

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.inner.reset()

    def __getattr__(self, command: str) -> Any:
        return getattr(self.inner, command)

    async def execute(self) -> list[Any]:
        answers: list[Any] = self.inner.execute()
        self._added.set()
        return answers
