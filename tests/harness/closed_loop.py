"""The closed loop over fakes: a tracker, a clock that goes where it is told, and who is asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from gateway.flags import Flags
from gateway.live import LiveState
from gateway.observability.metrics import Metrics
from gateway.stages.intake import Intake
from gateway.store.writer import Writer
from gateway.tracking import Tracker
from marketplace_core.commands import RevisePlan
from marketplace_core.events import EmergencyStopped, OrderFact
from marketplace_core.ports import Record
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading
from tests.harness.running_order import MINUTE, ORDER_ID, START, begun, profiles, reading


class Over(Exception):  # noqa: N818 - the end of the test's time
    pass


class Clock:
    """Market time that goes from one deadline to the next; what happens at one happens there."""

    def __init__(self, until: datetime) -> None:
        self.at = START
        self._until = until
        self.happens: dict[datetime, list[Callable[[], None]]] = defaultdict(list)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - START).total_seconds()

    def wall_seconds(self, market_seconds: float) -> float:
        return market_seconds

    async def sleep_until(self, at: datetime) -> None:
        assert at > self.at
        self.at = at
        for event in self.happens.pop(at, []):
            event()
        if at >= self._until:
            raise Over


class Asked:
    """In place of writer and intake: notes what is asked for."""

    def __init__(self, *, grants: bool = True) -> None:
        self.commands: list[RevisePlan] = []
        self.emits: Any = None
        self._grants = grants

    async def transact(self, work: Callable[[Any], bool], *, emits: Any) -> bool:
        self.emits = emits
        return work(None)

    def revise(self, _transaction: Any, command: RevisePlan) -> bool:
        self.commands.append(command)
        return self._grants


class Found:
    """In place of the flags: notes findings."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def found(self, **finding: Any) -> None:
        self.said.append(finding)

    def restore(self, known: list[Any]) -> None:
        assert known == []


class Loop:
    """A tracker, and everything around it."""

    def __init__(self, engine: Engine, minutes: int = 10, *, grants: bool = True) -> None:
        self.clock = Clock(START + minutes * MINUTE)
        self.asked = Asked(grants=grants)
        self.flags = Found()
        self.metrics = Metrics()
        self.live = LiveState(profiles(), self.clock)
        self.tracker = Tracker(
            engine=engine, writer=cast("Writer", self.asked), intake=cast("Intake", self.asked),
            live=self.live, flags=cast("Flags", self.flags),
            profiles=profiles(), clock=self.clock, metrics=self.metrics,
        )  # fmt: skip

    def hear(self, *facts: OrderFact | EmergencyStopped) -> None:
        """The writer committed facts of the order."""
        self.tracker.heard(
            Record(shard=0, sequence=n, at=self.clock.now(), stream=ORDER_ID, fact=fact)
            for n, fact in enumerate(facts)
        )

    def begin(self, *more: OrderFact | EmergencyStopped) -> None:
        """Within the first minute the order runs: what was before a start is for `restore`."""
        self.clock.happens[START + MINUTE].append(lambda: self.hear(*begun(), *more))

    def measure(self, device: str, first: int, *powers: float) -> None:
        """Readings of so many minutes in a row are stored, each when its minute is over."""
        for minute, kw in enumerate(powers, first):
            one = reading(device, minute, kw)
            self.clock.happens[one.end].append(lambda one=one: self._stored(one))

    def _stored(self, one: Reading) -> None:
        self.live.update([one])
        self.tracker.stored([one])

    async def run(self) -> list[RevisePlan]:
        with pytest.raises(Over):
            await self.tracker.run()
        return self.asked.commands

    def kinds(self) -> list[tuple[str, FlagKind]]:
        return [(said["device_id"], said["kind"]) for said in self.flags.said]
