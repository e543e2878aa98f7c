"""What ingest workers stored and noticed, heard by the process that dispatches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from gateway.flags import Flags
from gateway.live import Live
from gateway.store.passed_on import Passed, forget_old, take
from gateway.store.readings_postgres import missing_in
from marketplace_core.verification.reading import Reading

T = TypeVar("T")
_EVERY_S: Final = 0.1
"""Wall seconds between two looks while nothing comes."""
_MOST: Final = 50
"""Commits that are heard of at once."""
_GAPS_EVERY_S: Final = 2.0
"""Wall seconds between two looks at what is missing."""
_RETRY_S: Final = 1.0
_log = structlog.get_logger(__name__)


class Following:
    """Hears of every reading that a worker stored, once, as if it had been stored here."""

    def __init__(
        self,
        engine: Engine,
        *,
        live: Live,
        flags: Flags,
        stored: Sequence[Callable[[Sequence[Reading]], None]],
        missing: Callable[[dict[str, int]], None],
    ) -> None:
        """`engine` of the readings; `stored` hear of readings, after `live`.

        `missing` hears how many readings are missing per series: workers know it, we do not.
        """
        self._engine = engine
        self._live = live
        self._flags = flags
        self._stored = stored
        self._missing = missing

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._watch_gaps())

    async def _watch_gaps(self) -> None:
        while True:
            self._missing(await self._patiently(missing_in))
            await asyncio.sleep(_GAPS_EVERY_S)

    async def _listen(self) -> None:
        await self._patiently(forget_old)
        while True:
            found = await self._patiently(lambda engine: take(engine, _MOST))
            for passed in found:
                self._hear(passed)
                await asyncio.sleep(0)  # commands have their turn in between
            if len(found) < _MOST:
                await asyncio.sleep(_EVERY_S)

    async def _patiently(self, work: Callable[[Engine], T]) -> T:
        while True:
            try:
                return await asyncio.to_thread(work, self._engine)
            except DBAPIError as error:
                _log.warning("nothing_heard_of_workers", error=str(error.orig))
                await asyncio.sleep(_RETRY_S)

    def _hear(self, passed: Passed) -> None:
        if passed.readings:
            self._live.update(passed.readings)
            for listener in self._stored:
                listener(passed.readings)
        for finding in passed.findings:
            self._flags.found(
                device_id=finding.device_id, kind=finding.kind, since=finding.since,
                evidence=finding.evidence,
            )  # fmt: skip
