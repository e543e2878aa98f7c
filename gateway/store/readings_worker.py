"""Readings that one ingest worker stores: fenced, and passed on to the one who dispatches."""

from __future__ import annotations

from gateway.store.claims import HELD, Claims
from gateway.store.passed_on import INSERT_PASSED, Passed, packed
from gateway.store.readings_grouped import Group
from gateway.store.readings_postgres import PostgresReadings
from marketplace_core.errors import FencedError


class WorkerReadings(PostgresReadings):
    """Stores only while its worker's claim stands: both are in one transaction."""

    claims: Claims
    """Set before the start."""

    def _write(self, group: Group) -> None:
        held = self._driver.execute(HELD, (self.claims.worker, self.claims.epoch)).fetchone()
        if held is None:
            raise FencedError(f"shards {self.claims.shards} were taken over by another worker")
        super()._write(group)
        if group.fresh:
            self._driver.execute(INSERT_PASSED, (packed(Passed(readings=group.fresh)),))
