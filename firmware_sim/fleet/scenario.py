"""What goes wrong in a fleet and when: plain data; `scenario_file.py` reads it from YAML.

The comments under the fields are the reference: they stand in the JSON Schema too.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

Span = Annotated[
    float | str,
    Meta(description="Seconds, or a number with ms, s, m or h: 90, '1.5m', '200ms'."),
]
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)")
_LONGEST_S: Final = 366 * 86_400.0
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


def seconds(span: float | str) -> float:
    """A span in seconds; ValueError when it is none."""
    found = _SPAN.fullmatch(span.strip()) if isinstance(span, str) else None
    if isinstance(span, str) and found is None:
        raise ValueError(f"{span!r} is no span of time")
    value = span if isinstance(span, float | int) else _number(found)
    if not 0 <= value <= _LONGEST_S:
        raise ValueError(f"{span!r} is not within 0 and a year")
    return float(value)


def _number(found: re.Match[str] | None) -> float:
    return 0.0 if found is None else float(found[1]) * _UNITS[found[2]]


class Selector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which devices: those to which everything that is given applies, then a part of them."""

    protocol: Annotated[
        Literal["mqtt", "modbus"] | None, Meta(description="Only devices of this protocol.")
    ] = None
    prefix: Annotated[str, Meta(description="Ids begin with it: 'mq-ev-'.")] = ""
    ids: Annotated[tuple[str, ...], Meta(description="These ids.")] = ()
    without: Annotated[tuple[str, ...], Meta(description="Not these ids.")] = ()
    share: Annotated[
        Annotated[float, Meta(gt=0.0, le=1.0)] | None,
        Meta(description="Part of them, drawn from the seed."),
    ] = None
    count: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="So many of them, of each protocol, drawn from the seed."),
    ] = None


class Entry(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault"
):
    """One line of the timeline."""

    at: Annotated[Span, Meta(description="Since the fleet started.")]
    devices: Annotated[
        Literal["all"] | Selector, Meta(description="Which devices; left out: all.")
    ] = "all"

    @property
    def kind(self) -> str:
        """Name of the fault."""
        return str(type(self).__struct_config__.tag)

    def parameters(self) -> dict[str, Any]:
        """What is special to the fault."""
        known = {"at", "until", "devices"}
        return {
            name: getattr(self, name) for name in self.__struct_fields__ if name not in known
        }  # fmt: skip


class Lasting(Entry, frozen=True, kw_only=True):
    """A fault that begins and ends."""

    until: Annotated[Span, Meta(description="When it ends, since the fleet started.")]


class Drop(Lasting, frozen=True, kw_only=True, tag="drop"):
    """Messages are lost on their way from the device; Modbus requests get no answer."""

    share: Annotated[Share, Meta(description="Of the messages or answers.")] = 1.0


class Delay(Lasting, frozen=True, kw_only=True, tag="delay"):
    """Messages and answers of the device come late."""

    by: Annotated[Span, Meta(description="How late.")]


class Stick(Lasting, frozen=True, kw_only=True, tag="stick"):
    """Something does not move from where it is."""

    part: Annotated[
        Literal["power", "reading"],
        Meta(description="`power`: it acknowledges and does not move; `reading`: the meter."),
    ] = "power"


class Lie(Lasting, frozen=True, kw_only=True, tag="lie"):
    """The device reports what is not true."""

    factor: Annotated[
        Annotated[float, Meta(ge=-100.0, le=100.0)] | None,
        Meta(
            description="It reports so many times its power; left out: it goes on by itself and"
            " reports the power that it was told to hold.",
        ),
    ] = None


class Clamp(Lasting, frozen=True, kw_only=True, tag="clamp"):
    """It acknowledges, and goes only part of the way from its own power to the setpoint."""

    share: Annotated[Share, Meta(description="Of the way.")] = 0.4


class ClockSkew(Lasting, frozen=True, kw_only=True, tag="clock_skew"):
    """The clock behind a device's time stamps is wrong (MQTT: Modbus shows no clock)."""

    by: Annotated[float, Meta(ge=-1e8, le=1e8, description="Seconds; ahead when positive.")]


class Replay(Lasting, frozen=True, kw_only=True, tag="replay"):
    """Old data comes again: MQTT sends messages dropped as stored, Modbus old registers."""

    every: Annotated[Span, Meta(description="Between two old messages (MQTT).")] = 10.0


class Reboot(Entry, frozen=True, kw_only=True, tag="reboot"):
    """Gone without a goodbye, then back: setpoint forgotten, a new boot number."""

    down: Annotated[Span, Meta(description="How long it is gone.")] = 5.0
    forgets_readings: Annotated[
        bool, Meta(description="Readings that were not stored yet are lost too.")
    ] = False


class ReconnectStorm(Entry, frozen=True, kw_only=True, tag="reconnect_storm"):
    """All connections are lost at once, without a goodbye; full jitter until they are back."""


Fault = Drop | Delay | Stick | Lie | Clamp | ClockSkew | Replay | Reboot | ReconnectStorm


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Faults on a timeline."""

    name: Annotated[str, Meta(min_length=1, max_length=80)]
    description: str = ""
    timeline: tuple[Fault, ...] = ()


NOTHING: Final = Scenario(name="nothing")
"""Every device works."""


def bounds(entry: Fault) -> tuple[float, float]:
    """When an entry begins and ends, in seconds; a momentary one ends as it begins."""
    begins = seconds(entry.at)
    return begins, seconds(entry.until) if isinstance(entry, Lasting) else begins


def json_schema() -> dict[str, Any]:
    """The form of a scenario file as JSON Schema (2020-12)."""
    found = msgspec.json.schema(Scenario)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
