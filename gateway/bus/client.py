"""The Redis client, its failures, and what it does to a cancellation."""

from __future__ import annotations

import asyncio
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

FAILURES: Final = (RedisError, OSError, TimeoutError)
"""What a call raises when the server is away, refuses, or lost its data."""


def open_redis(url: str, *, password: str | None, timeout_s: float) -> Redis:
    """A client that gives up after `timeout_s` and leaves trying again to its user."""
    client: Redis = Redis.from_url(
        url, password=password, socket_timeout=timeout_s, socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0), protocol=2,
    )  # fmt: skip
    return client


def heed_cancellation() -> None:
    """Raise the CancelledError that a call to the client may have swallowed.

    The client sends through `asyncio.wait_for`, which before Python 3.12 forgets a
    cancellation that arrives in the moment the inner call is done.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
