"""What takes an aggregator's dispatches: the signed webhook of the market."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from adapters.webhook.wire import Dispatch
from firmware_sim.records import Recorder
from firmware_sim.servers.webhook import Aggregator


class FleetReceiver:
    """Implements Receiver over the webhook's server.

    The secret comes with the registration, which is made once the server answers: it is
    read from its file when it is there.
    """

    def __init__(self, device_id: str, *, port: int, secret_file: Path, record: Recorder) -> None:
        """Port 0 takes a free one."""
        self._device_id = device_id
        self._secret_file = secret_file
        self._record = record
        self._server = _Keyed(self._decide, port=port, secret_file=secret_file)

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        return self._server.port

    def commanded_kw(self, at: datetime) -> float | None:
        """Aggregate power that was accepted for a wall instant."""
        return self._server.commanded_kw(at, self._device_id)

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until cancelled."""
        async with self._server:
            started()
            await asyncio.Event().wait()

    def _decide(self, message: Dispatch) -> tuple[bool, str]:
        self._record(
            self._device_id, "command", received="dispatch", id=message.id,
            power_kw=message.power_kw, revision=message.revision,
        )  # fmt: skip
        return True, ""


class _Keyed(Aggregator):
    """Knows its secret from the moment that its file is there."""

    def __init__(
        self, decide: Callable[[Dispatch], tuple[bool, str]], *, port: int, secret_file: Path
    ) -> None:
        super().__init__(decide, port=port)
        self._secret_file = secret_file

    def keys(self) -> list[str]:
        """The secret, once there is one."""
        if not self.secrets and self._secret_file.exists():
            self.secrets.append(self._secret_file.read_text(encoding="utf-8").strip())
        return self.secrets
