"""Keeps this process's claim fresh, and knows which shards nobody takes in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError

from gateway.observability.metrics import Metrics
from gateway.store.claims import Claim, unclaimed
from marketplace_core.shards import EVERY_SHARD

_EVERY_S: Final = 2.0
"""Wall seconds between two looks: a claim is stale after five of them."""
_log = structlog.get_logger(__name__)


class ShardWatch:
    """Asks, again and again, which claims are alive."""

    def __init__(self, ask: Callable[[], Sequence[Claim]], metrics: Metrics) -> None:
        """`ask` says the living claims, and that this process lives; it may block."""
        self._ask = ask
        self._metrics = metrics
        self._open: str = ""

    def degraded(self) -> list[str]:
        """What is wrong, in words."""
        return [f"shards {self._open} are taken in by nobody"] if self._open else []

    async def run(self) -> None:
        """Look until cancelled; FencedError once another process took our claim over."""
        while True:
            try:
                self._look(await asyncio.to_thread(self._ask))
            except DBAPIError as error:  # the readings themselves say so as well, and wait
                _log.warning("claims_not_read", error=str(error.orig))
            await asyncio.sleep(_EVERY_S)

    def _look(self, claims: Sequence[Claim]) -> None:
        free = unclaimed(claims)
        count = sum(each.last - each.first + 1 for each in free)
        self._metrics.shards_unclaimed.set(count)
        said = "all" if free == [EVERY_SHARD] else ", ".join(map(str, free))
        if said != self._open and said:
            _log.warning("shards_unclaimed", shards=said)
        self._open = said
