"""A device by its registers, as a device profile describes it. No I/O.

The names are those of the profile's keys; what each means stands in its JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from adapters.modbus.errors import PointError

Kind = Literal[
    "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "bitfield16",
    "bitfield32", "enum16", "string",
]  # fmt: skip
Order = Literal["big", "little"]
Table = Literal["holding", "input"]
FORMATS: Final[Mapping[str, str]] = {
    "uint16": "H", "int16": "h", "uint32": "I", "int32": "i", "uint64": "Q", "int64": "q",
    "float32": "f", "float64": "d", "bitfield16": "H", "bitfield32": "I", "enum16": "H",
}  # fmt: skip
"""`struct` codes; a string has none."""
_SIZES: Final = {"H": 1, "h": 1, "I": 2, "i": 2, "Q": 4, "q": 4, "f": 2, "d": 4}


class RegisterError(PointError):
    """Registers that do not fit the map, or a value that a point cannot hold."""


class DevicePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One register, or several that are one value."""

    address: int
    type: Kind
    table: Table = "holding"
    length: int = 0
    word_order: Order = "big"
    byte_order: Order = "big"
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    missing: tuple[int, ...] = ()
    meanings: dict[int, str] = {}
    access: Literal["read", "read_write"] = "read"
    kept_in: Literal["ram", "flash", "unknown"] = "unknown"

    @property
    def size(self) -> int:
        """Registers."""
        return self.length if self.type == "string" else _SIZES[FORMATS[self.type]]


class Expected(msgspec.Struct, frozen=True):
    """A point that tells the device from others."""

    point: str
    values: tuple[int, ...]


class Identity(msgspec.Struct, frozen=True):
    """What is checked before a write."""

    serial: str | None = None
    expect: tuple[Expected, ...] = ()


class Power(msgspec.Struct, frozen=True):
    """Active power: the sum of some points."""

    points: tuple[str, ...]
    meter_sign: Literal[-1, 1]


class Measurements(msgspec.Struct, frozen=True, kw_only=True):
    """What the device measures."""

    power: Power
    soc: str | None = None
    capacity: str | None = None
    energy_import: str | None = None
    energy_export: str | None = None


class ControlValue(msgspec.Struct, frozen=True, kw_only=True):
    """The point that takes the power."""

    point: str
    sign: Literal[-1, 1] = 1
    magnitude: bool = False
    volts: float = 0.0
    full: str | None = None
    least: float = 0.0
    most: float | None = None


class Direction(msgspec.Struct, frozen=True):
    """The point that says which way a number without sign goes."""

    point: str
    injects: int
    consumes: int
    idle: int


class Enable(msgspec.Struct, frozen=True, kw_only=True):
    """The point that puts the control in force."""

    point: str
    active: int
    released: int
    idle: int | None = None


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What ends the control."""

    kind: Literal["timer", "fixed", "heartbeat", "none"]
    point: str | None = None
    every_s: float = 1.0
    longest_s: float = 0.0
    remaining: str | None = None


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One write that ends the control."""

    point: str
    value: float | None = None
    copy_of: str | None = None


class MapControl(msgspec.Struct, frozen=True, kw_only=True):
    """One way to drive the device."""

    kind: Literal["limit", "setpoint"]
    value: ControlValue
    lease: Lease
    direction: Direction | None = None
    enable: Enable | None = None
    lease_restarts_on: Literal["timer", "value", "enable"] | None = None
    release: tuple[Release, ...] = ()
    settle_s: float = 0.0

    @property
    def points(self) -> tuple[str, ...]:
        """Every point that it writes, reads back or takes for a reference."""
        beat = self.lease.point if self.lease.kind == "heartbeat" else None
        parts = (self.value.point, self.value.full, self.lease.remaining, beat,
                 self.direction and self.direction.point, self.enable and self.enable.point,
                 *(write.point for write in self.release),
                 *(write.copy_of for write in self.release))  # fmt: skip
        return tuple(dict.fromkeys(name for name in parts if name))

    @property
    def restarts(self) -> str | None:
        """The point whose write restarts its lease."""
        if self.lease_restarts_on == "timer":
            return self.lease.point
        if self.lease_restarts_on == "enable":
            return self.enable.point if self.enable is not None else None
        return self.value.point if self.lease_restarts_on == "value" else None


class RegisterMap(msgspec.Struct, frozen=True, kw_only=True):
    """A device that is not SunSpec."""

    title: str
    role: Literal["battery", "inverter", "charger", "meter"]
    points: dict[str, DevicePoint]
    measurements: Measurements
    identity: Identity = Identity()
    controls: dict[str, MapControl] = {}
    write_function: Literal[6, 16] = 16
    pause_s: float = 0.0

    def control(self, name: str | None) -> MapControl | None:
        """A control by name; without a name the first, None where there is none.

        Raises:
            RegisterError: there is none of that name.
        """
        if name is None:
            return next(iter(self.controls.values()), None)
        if name not in self.controls:
            listed = ", ".join(self.controls) or "none"
            raise RegisterError(f"{self.title} has no control {name!r}; it has {listed}")
        return self.controls[name]
