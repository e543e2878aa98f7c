"""Reading sinks for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading


class ListSink:
    """Keeps readings; `gate` holds back the commit while it is clear."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.quarantined: list[tuple[str, str, bytes]] = []
        self.notices: list[tuple[str, FlagKind]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0

    async def store(self, readings: Sequence[Reading]) -> None:
        self.asked += 1
        await self.gate.wait()
        self.readings.extend(readings)

    def quarantine(self, *, source: str, reason: str, evidence: bytes, device_id: str = "") -> None:
        self.quarantined.append((source, reason, evidence))

    def noticed(self, *, device_id: str, kind: FlagKind, since: datetime, evidence: str) -> None:
        self.notices.append((device_id, kind))
