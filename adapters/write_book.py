"""The governors of an adapter's devices, and their counts over a restart.

Only devices with a budget of writes are kept on disk: for the others a restart costs at most
one write that comes early. A count is on disk before the write goes out, so that a crash
between the two counts a write that never was, and never forgets one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import msgspec
import structlog

from adapters.durable import DurableFile
from adapters.governor import Governor, Writes
from marketplace_core.dispatch.profile import DeviceProfile

_log = structlog.get_logger(__name__)


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    version: int = 1
    devices: dict[str, Writes] = {}


class WriteBook:
    """One governor per device."""

    def __init__(
        self, profiles: Iterable[DeviceProfile], path: Path | None = None, *, key: str = "writes"
    ) -> None:
        """`path`: where counts are kept, None = nowhere; `key` names the setting in errors."""
        kept = {} if path is None else _load(path, key)
        self._governors = {
            p.device_id: Governor(p, kept.get(p.device_id) if p.writes_per_day else None)
            for p in profiles
        }
        self._file = None if path is None else DurableFile(path, key, self._content)

    def governor(self, device_id: str) -> Governor:
        """The governor of a device; KeyError when it is none of the adapter's."""
        return self._governors[device_id]

    async def charge(self, device_id: str, at: datetime, requests: int, *, setpoint: bool) -> None:
        """Count writes that are about to go out. Raises StoreError when they cannot be kept."""
        governor = self._governors[device_id]
        governor.charge(at, requests, setpoint=setpoint)
        if self._file is not None and governor.profile.writes_per_day:
            await self._file.save()

    def _content(self) -> bytes:
        kept = {
            name: governor.writes
            for name, governor in self._governors.items()
            if governor.profile.writes_per_day
        }
        return msgspec.json.encode(_State(devices=kept))


def _load(path: Path, key: str) -> dict[str, Writes]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_State).devices
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        _log.error("write_counts_lost", key=key, path=str(path), error=str(error))
        return {}
