"""What a device profile may say: the one source of its keys, their checks and its JSON Schema.

A device profile describes a Modbus device that is not SunSpec: its points (a register, or several
that belong together), each with the place where it is documented, what they measure, and how the
device is driven. Addresses are as
on the wire, counted from 0. Power injects when it is positive, whatever a point's own sign.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from config.sections import Section


def _numbered(value: Any) -> Any:
    """Keys of a map as numbers, hexadecimal as well: in JSON and in YAML they are text."""
    if not isinstance(value, dict):
        return value
    return {_number(key): name for key, name in value.items()}


def _number(key: Any) -> Any:
    try:
        return int(key, 0) if isinstance(key, str) else key
    except ValueError:
        return key


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Address = Annotated[int, Field(ge=0, le=0xFFFF, strict=True)]
Whole = Annotated[int, Field(strict=True)]
Kind = Literal[
    "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "bitfield16",
    "bitfield32", "enum16", "string",
]  # fmt: skip
Order = Literal["big", "little"]
Unit = Literal["", "W", "kW", "VA", "var", "Wh", "kWh", "V", "A", "Hz", "%", "s", "C"]
Role = Literal["battery", "inverter", "charger", "meter"]


class SourceDocument(Section):
    """A document that registers were taken from, as it was really read."""

    title: str = Field(min_length=1)
    revision: str = Field(min_length=1)
    """Version and date, or the commit of a repository."""
    where: str = Field(min_length=1)
    """Where anybody can read it: an address, or repository and file."""
    origin: Literal["manufacturer", "third_party"]
    """`third_party`: somebody else's map of the device; it may be wrong where the maker is not."""
    note: str = ""


class PointEntry(Section):
    """One value: one register or several that belong together."""

    address: Address
    """Of its first register, as on the wire, from 0; a manual may count from 1, or add 30001."""
    table: Literal["holding", "input"] = "holding"
    """`holding` is read by function 3, `input` by function 4."""
    type: Kind
    length: int = Field(default=0, ge=0, le=120)
    """Registers of a string; of other types their own."""
    word_order: Order | None = None
    """Which register of several comes first; without it the profile's."""
    byte_order: Order | None = None
    """Which byte of a register comes first; without it the profile's."""
    scale: float = Field(default=1.0, gt=0)
    """The raw number times this, plus `offset`, is in `unit`."""
    offset: float = 0.0
    unit: Unit = ""
    missing: tuple[Whole, ...] = ()
    """Raw numbers that mean "not available"; a float that is no number always does."""
    meanings: Annotated[dict[int, str], BeforeValidator(_numbered)] = Field(default_factory=dict)
    """Names of an enumeration's raw numbers, or of a bit field's bits."""
    access: Literal["read", "read_write"] = "read"
    kept_in: Literal["ram", "flash", "unknown"] = "unknown"
    """Where the device keeps what is written. What is not known to be RAM is written only when
    it changes (or restarts a lease), and counts against `flash_wear`."""
    document: str = ""
    """Name of one of `documents`; without it the first."""
    cite: str = Field(min_length=1)
    """Page, section or line of the document."""
    note: str = ""


class ExpectedValue(Section):
    """A point that tells the device from others."""

    point: Name
    values: tuple[Whole, ...] = Field(min_length=1)
    """Raw numbers, any of which is right."""


class IdentityRule(Section):
    """What is checked before the first write on every connection."""

    serial: Name | None = None
    """Point with the serial number."""
    expect: tuple[ExpectedValue, ...] = ()


class PowerMeasurement(Section):
    """Active power of the device: the sum of some points in W or kW."""

    points: tuple[Name, ...] = Field(min_length=1)
    meter_sign: Literal[-1, 1]
    """1: a positive number injects into the grid; -1: it consumes, or charges."""


class Measurements(Section):
    """What the device measures of itself."""

    power: PowerMeasurement
    soc: Name | None = None
    """Point with the state of charge, in %."""
    capacity: Name | None = None
    """Point with the usable energy of a full battery, in kWh or Wh; without it the
    `capacity_kwh` of the settings counts."""
    energy_import: Name | None = None
    """Point with the energy taken from the grid, in Wh or kWh."""
    energy_export: Name | None = None
    """Point with the energy given to the grid, in Wh or kWh."""


class ControlValue(Section):
    """The point that takes the power."""

    point: Name
    sign: Literal[-1, 1] = 1
    """1: a positive number injects; -1: it consumes."""
    magnitude: bool = False
    """The number has no sign: `direction` says which way."""
    volts: float = Field(default=0.0, ge=0)
    """Of a number in A: nominal volts between phase and neutral; the settings say how many
    phases. A grid above them gives more power than was asked."""
    full: Name | None = None
    """Of a number in %: the point that says what 100 % is, in W or kW."""
    least: float = Field(default=0.0, ge=0)
    """Smallest number besides 0, in the point's unit; below it a setpoint is refused."""
    most: float | None = Field(default=None, gt=0)
    """Largest number, in the point's unit; above it a setpoint is refused."""


class ControlDirection(Section):
    """The point that says which way a number without sign goes."""

    point: Name
    injects: Whole
    consumes: Whole
    idle: Whole
    """At 0 kW."""


class ControlEnable(Section):
    """The point that puts the control in force, written last, and takes it out again."""

    point: Name
    active: Whole
    idle: Whole | None = None
    """At 0 kW, where that is another number than `active`."""
    released: Whole
    """The device's own behaviour."""


class ControlLease(Section):
    """What ends the control when nobody refreshes it."""

    kind: Literal["timer", "fixed", "heartbeat", "none"]
    """`timer`: seconds are written before the value. `fixed`: the device's own time, which a
    write restarts. `heartbeat`: a number that is counted up for as long as the lease holds.
    `none`: nothing does; the gateway's watchdog has to."""
    point: Name | None = None
    """Of `timer`: takes the seconds; of `heartbeat`: takes the count."""
    every_s: float = Field(default=1.0, gt=0)
    """Of `heartbeat`: wall seconds from one beat to the next."""
    longest_s: float = Field(default=0.0, ge=0)
    """Longest time that the timer takes, or the device's own time without a write or a beat."""
    remaining: Name | None = None
    """Point with the seconds that are left, where the device tells."""
    cite: str = ""
    """Where it is documented what the device does then."""


class ReleaseWrite(Section):
    """One write that returns the device to its own behaviour."""

    point: Name
    value: float | None = None
    """In the point's unit."""
    copy_of: Name | None = None
    """Point whose value is written instead."""


class ControlEntry(Section):
    """One way to drive the device.

    It is written in this order: timer, value, direction, enable; then read back.
    """

    kind: Literal["limit", "setpoint"]
    """`setpoint`: it drives its power to the number; `limit`: it keeps within it."""
    value: ControlValue
    direction: ControlDirection | None = None
    enable: ControlEnable | None = None
    lease: ControlLease
    lease_restarts_on: Literal["timer", "value", "enable"] | None = None
    """The write that restarts the device's timer; of a control with one."""
    fallback: Literal["own_behaviour", "zero", "keeps"]
    """What the device does when its lease ends; `keeps`: what it was told last, for ever."""
    release: tuple[ReleaseWrite, ...] = ()
    """Writes besides `enable.released`, in their order, before it."""
    settle_s: float = Field(default=0.0, ge=0, le=10)
    """Wall seconds after a write until the registers show it."""
    cite: str = Field(min_length=1)
    note: str = ""


class FlashWear(Section):
    """What writing wears."""

    writes_per_day: int = Field(default=0, ge=0)
    """Budget of writes, in any 24 hours, to points that are not known to be RAM; 0 = none."""
    why: str = Field(min_length=1)
    """Where the figure comes from."""


class ProfileDocument(Section):
    """A Modbus device that is not SunSpec."""

    title: str = Field(min_length=1)
    manufacturer: str = Field(min_length=1)
    models: tuple[str, ...] = Field(min_length=1)
    role: Role
    verified: bool
    """Whether somebody ran it on the hardware; false = from the document alone."""
    documents: dict[Name, SourceDocument] = Field(min_length=1)
    word_order: Order = "big"
    """`big`: the register with the lower address holds the higher half."""
    byte_order: Order = "big"
    """`big`, as the Modbus protocol has it: the higher byte of a register comes first."""
    write_function: Literal[6, 16] = 16
    """6 writes one register at a time, for devices that do not know 16."""
    max_registers: int = Field(default=120, ge=1, le=125)
    """Registers of one read."""
    max_gap: int = Field(default=0, ge=0, le=125)
    """Registers that nobody wants and that are read along rather than asking twice; 0 where the
    device refuses addresses that it does not document."""
    unreadable: tuple[tuple[Address, Address], ...] = ()
    """First and last register of ranges that no read may touch."""
    pause_s: float = Field(default=0.0, ge=0, le=60)
    """Least wall seconds between two requests to the device."""
    write_every_s: float = Field(default=0.0, ge=0)
    """Least wall seconds between two setpoints."""
    flash_wear: FlashWear | None = None
    """Required where the device is driven."""
    points: dict[Name, PointEntry] = Field(min_length=1)
    identity: IdentityRule = IdentityRule()
    measurements: Measurements
    controls: dict[Name, ControlEntry] = Field(default_factory=dict)
    """The first is taken where the settings name none."""
    note: str = ""
