"""Group commit: whatever waits shares one durable transaction.

On a thread of its own (the service), or inline in the caller's coroutine, where a
lockstep run must not depend on how threads are scheduled.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import structlog

from marketplace_core.errors import StoreError

R = TypeVar("R")
W = TypeVar("W", bound="Waiting[Any]")
_log = structlog.get_logger(__name__)


class Waiting(Generic[R]):
    """Work that somebody awaits; made on the event loop, done by whoever commits."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[R] = self.loop.create_future()
        self.result: R
        self.error: BaseException | None = None

    def resolve(self) -> None:
        """Tell whoever awaits; on the event loop, after the commit."""
        if self.future.cancelled():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class GroupCommit(Generic[W]):
    """Collects what waits, has it committed together, then has it finished on the event loop."""

    def __init__(
        self,
        commit: Callable[[list[W]], None],
        finish: Callable[[list[W]], None],
        *,
        name: str,
        most: int,
        close: Callable[[], None],
        inline: bool = False,
    ) -> None:
        """`commit` and `close` run where the work is done, `finish` on the event loop.

        `commit` never raises: it leaves the error with the work that failed. `most` is how
        much work shares one commit at most.
        """
        self._commit = commit
        self._finish = finish
        self._most = most
        self._close = close
        self._inline = inline
        self._stopped = False
        self._queue: queue.SimpleQueue[W | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def waiting(self) -> int:
        """How much work waits for its commit."""
        return self._queue.qsize()

    @property
    def alive(self) -> bool:
        """Whether work that is handed in is done."""
        return not self._stopped and (self._inline or self._thread.is_alive())

    def start(self) -> None:
        """Begin to take work."""
        if not self._inline:
            self._thread.start()

    def stop(self) -> None:
        """Finish what is queued, then end; work that comes later is refused."""
        if self._stopped:
            return
        self._stopped = True
        if self._inline:
            self._close()
            return
        self._queue.put(None)
        self._thread.join()

    def submit(self, work: W) -> None:
        """Queue work, or do it at once when inline. Raises StoreError after the stop."""
        if self._stopped:
            raise StoreError("the store is closed: the service is stopping")
        if self._inline:
            self._commit([work])
            self._finish([work])
        else:
            self._queue.put(work)

    def _run(self) -> None:
        try:
            while (group := self._take()) is not None:
                self._commit(group)
                try:
                    group[0].loop.call_soon_threadsafe(self._finish, group)
                except RuntimeError:  # the loop closed while we committed: nobody waits any more
                    _log.warning("commit_without_audience", waiting=len(group))
        finally:
            self._close()

    def _take(self) -> list[W] | None:
        first = self._queue.get()
        if first is None:
            return None
        group = [first]
        while len(group) < self._most and not self._queue.empty():
            work = self._queue.get()
            if work is None:
                self._queue.put(None)
                break
            group.append(work)
        return group
