"""The real service, killed at a chosen fact: `python -m tests.harness.killer`.

`--when before` ends the process inside the transaction of the n-th fact of a kind, before its
commit; `--when after` right after the commit, before anybody hears of it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from config.loading import load_settings
from gateway.bootstrap import build
from gateway.bus.local import LocalBus
from gateway.cli.serve import run_service
from gateway.clock import SystemClock
from gateway.observability.logs import configure_logs
from gateway.store.journal import Journal
from marketplace_core.events import Fact
from marketplace_core.ports import Record


class Fuse:
    """Ends the process at the n-th fact of a kind that it is shown."""

    def __init__(self, kind: str, number: int) -> None:
        self._kind = kind
        self._left = number

    def show(self, facts: Sequence[Fact]) -> None:
        for fact in facts:
            self._left -= type(fact).__name__ == self._kind
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


class KillingJournal(Journal):
    """Dies when the fact was appended and is not committed yet."""

    def __init__(self, clock: SystemClock, shards: int, *, fuse: Fuse) -> None:
        super().__init__(clock, shards)
        self._fuse = fuse

    def append(self, connection: Connection, stream: str, fact: Fact) -> Record:
        record = super().append(connection, stream, fact)
        self._fuse.show([fact])
        return record


class KillingBus(LocalBus):
    """Dies when the fact is committed and not published yet."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self._fuse = fuse

    def publish(self, records: list[Record]) -> None:
        self._fuse.show([record.fact for record in records])
        super().publish(records)


def arguments(kind: str, number: int, when: str) -> list[str]:
    """Command line of a service that dies there."""
    return ["--fact", kind, "--number", str(number), "--when", when]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    parser.add_argument("--fact", required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--when", choices=["before", "after"], required=True)
    options = parser.parse_args()
    settings = load_settings(options.config)
    configure_logs(settings.log_level)
    fuse = Fuse(options.fact, options.number)
    make: Any = partial(build, bus=KillingBus(fuse))
    if options.when == "before":
        make = partial(build, journal=partial(KillingJournal, fuse=fuse))
    asyncio.run(run_service(settings, options.ready_file, make))


if __name__ == "__main__":
    main()
