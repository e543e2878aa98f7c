"""The real service, killed at a chosen fact: `python -m tests.harness.killer`.

`--when before` ends the process inside the transaction of the n-th street fact, before its
commit; `--when after` right after the commit, before anybody hears of it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from config.loading import load_settings
from gateway.bootstrap import build
from gateway.bus.local import LocalBus
from gateway.cli.serve import run_service
from gateway.clock import SystemClock
from gateway.observability.logs import configure_logs
from gateway.store.journal import Journal
from marketplace_core.events import Fact, OrderFact
from marketplace_core.ports import Record


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillingJournal(Journal):
    """Dies when the n-th street fact was appended and is not committed yet."""

    def __init__(self, clock: SystemClock, shards: int, *, at: int) -> None:
        super().__init__(clock, shards)
        self._left = at

    def append(self, connection: Connection, stream: str, fact: Fact) -> Record:
        record = super().append(connection, stream, fact)
        if isinstance(fact, OrderFact):
            self._left -= 1
            if self._left == 0:
                die()
        return record


class KillingBus(LocalBus):
    """Dies when the n-th street fact is committed and not published yet."""

    def __init__(self, *, at: int) -> None:
        super().__init__()
        self._left = at

    def publish(self, records: list[Record]) -> None:
        before, facts = self._left, sum(isinstance(r.fact, OrderFact) for r in records)
        self._left -= facts
        if before > 0 >= self._left:
            die()
        super().publish(records)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    parser.add_argument("--at", type=int, required=True)
    parser.add_argument("--when", choices=["before", "after"], required=True)
    options = parser.parse_args()
    settings = load_settings(options.config)
    configure_logs(settings.log_level)
    if options.when == "before":
        make = partial(build, journal=partial(KillingJournal, at=options.at))
    else:
        make = partial(build, bus=KillingBus(at=options.at))
    asyncio.run(run_service(settings, options.ready_file, make))


if __name__ == "__main__":
    main()
