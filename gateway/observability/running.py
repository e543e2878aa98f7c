"""What running orders ask of devices, read from their plans in the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection, Engine

from gateway.observability.compliance import Instruction
from gateway.store.engine import run_read
from gateway.store.journal import read_streams
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.events import OrderPlanned


class RunningPlans:
    """Plans of orders that run now; each is read once and forgotten when it is over."""

    def __init__(
        self,
        engine: Engine,
        profiles: Mapping[str, DeviceProfile],
        running: Callable[[], Mapping[str, int]],
    ) -> None:
        """`running` gives the newest revision of every order whose interval contains now."""
        self._engine = engine
        self._profiles = profiles
        self._running = running
        self._known: dict[tuple[str, int], Sequence[Instruction]] = {}

    def instructions(self) -> list[Instruction]:
        """What every device of a running order was told."""
        running = set(self._running().items())
        known = {key: plan for key, plan in self._known.items() if key in running}
        if missing := running - set(known):
            known |= run_read(
                self._engine, lambda at: {key: self._read(at, *key) for key in missing}
            )
        self._known = known
        return [instruction for plan in known.values() for instruction in plan]

    def _read(self, connection: Connection, order_id: str, revision: int) -> Sequence[Instruction]:
        for record in read_streams(connection, [order_id]):
            fact = record.fact
            if isinstance(fact, OrderPlanned) and fact.revision == revision:
                return [
                    Instruction(
                        device_id=allocation.device_id,
                        protocol=self._profiles[allocation.device_id].protocol,
                        reference_kw=allocation.reference_kw,
                        power_kw=allocation.power_kw,
                    )
                    for allocation in fact.allocations
                    if allocation.device_id in self._profiles
                ]
        return ()
