"""Whether the process is alive and can do its work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping


class Health:
    """Collects what keeps the service from being ready, and what degrades it."""

    def __init__(
        self,
        waiting_for: set[str],
        links: Mapping[str, Callable[[], bool]] | None = None,
        faults: Mapping[str, Callable[[], str]] | None = None,
    ) -> None:
        """`waiting_for` names the parts that have to report before the service is ready.

        `links` says of each protocol whether its link is up now, `faults` of those that
        know it why not, in words ("" for nothing).
        """
        self._waiting = set(waiting_for)
        self._links = links or {}
        self._faults = faults or {}
        self._watched: list[Callable[[], list[str]]] = []
        self._all_ready = asyncio.Event()
        self._look()

    def ready(self, part: str) -> None:
        """A part reports that it is ready."""
        self._waiting.discard(part)
        self._look()

    def start_without(self, parts: Iterable[str]) -> None:
        """Nobody waits for these any longer: the service runs degraded until they are up."""
        self._waiting.difference_update(parts)
        self._look()

    def watch(self, degraded: Callable[[], list[str]]) -> None:
        """Ask this as well what degrades the service, in words."""
        self._watched.append(degraded)

    def degraded(self) -> list[str]:
        """What degrades the service besides links, in words."""
        return [said for ask in self._watched for said in ask()]

    async def all_ready(self) -> None:
        """Return once nobody is waited for."""
        await self._all_ready.wait()

    def _look(self) -> None:
        if not self._waiting:
            self._all_ready.set()

    @property
    def waiting_for(self) -> list[str]:
        """Parts that have not reported yet; empty = ready."""
        return sorted(self._waiting)

    @property
    def down(self) -> list[str]:
        """Protocols whose link is not up now; they are retried."""
        return sorted(protocol for protocol, up in self._links.items() if not up())

    def fault(self, protocol: str) -> str:
        """Why a link is down, as far as its adapter knows; "" otherwise."""
        says = self._faults.get(protocol)
        return "" if says is None else says()
