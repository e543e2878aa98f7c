"""What a VTN must still know after a restart: registrations, report points, events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
import structlog

from adapters.durable import DurableFile
from adapters.openadr.mapping import ReportPoint, event_id
from marketplace_core.dispatch.setpoint import Setpoint

_log = structlog.get_logger(__name__)


class EventRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One event as VENs are told of it."""

    ven_id: str
    setpoint: Setpoint
    modification: int
    created: datetime
    """Wall time."""
    cancelled: bool = False
    opt_in: bool | None = None
    """The VEN's answer to this modification; None = not answered yet."""
    code: str = ""
    """Response code that came with the answer."""
    delivered: bool = False
    """Whether it may have reached the VEN."""

    @property
    def id(self) -> str:
        """Event id."""
        return event_id(self.setpoint.order_id, self.setpoint.device_id)

    @property
    def accepted(self) -> bool:
        """Whether the VEN said that it follows this modification."""
        return self.opt_in is True and not self.cancelled


class VenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A registered VEN."""

    registration_id: str
    points: dict[str, ReportPoint] = {}
    """Data points we asked for, by rID."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    version: int = 1
    vens: dict[str, VenRecord] = {}
    events: tuple[EventRecord, ...] = ()


def load(path: Path) -> State | None:
    """Read the state; None when there is none that can be read (VENs then register again)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        _log.warning("openadr_state_unreadable", path=str(path), error=str(error))
        return None


class StateFile(DurableFile):
    """Writes the latest state."""

    def __init__(self, path: Path, snapshot: Callable[[], State]) -> None:
        """`snapshot` gives the state as it is now."""
        super().__init__(path, "openadr.state", lambda: msgspec.json.encode(snapshot()))
