"""Modbus lines: what several units may share, and how it is spoken to. No I/O.

Source of the serial figures: MODBUS over Serial Line, Specification and Implementation Guide
V1.02, sections 2.5.1 (eleven bits a character, even parity by default) and 2.5.1.1 (3.5
characters of silence between frames, 1.750 ms above 19200 baud).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Transport = Literal["tcp", "rtu", "rtu_over_tcp"]
Parity = Literal["even", "odd", "none"]
Sharing = Literal["hold", "release"]

_SILENT_CHARACTERS: Final = 3.5
_FAST_BAUD: Final = 19_200
_FAST_SILENCE_S: Final = 0.001_75
_EXCHANGE_CHARACTERS: Final = 8 + 5 + 2 * 125
"""A read of 125 registers and its answer, checksums included."""


class SerialPort(msgspec.Struct, frozen=True, kw_only=True):
    """A serial device of this machine and how its line is set."""

    device: str
    """Such as `/dev/ttyUSB0`."""
    baudrate: int = 19_200
    parity: Parity = "even"
    stopbits: int = 1

    @property
    def character_s(self) -> float:
        """Seconds that one character takes: a start bit, eight of data, parity, stop bits."""
        return (1 + 8 + (self.parity != "none") + self.stopbits) / self.baudrate


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One connection that units share: requests on it go one at a time."""

    transport: Transport = "tcp"
    host: str = ""
    port: int = 502
    serial: SerialPort | None = None
    """Of `rtu`; the others have host and port."""
    sharing: Sharing = "hold"
    """`release`: the connection is given up when nothing is to be done, for another master."""
    release_after_s: float = 2.0
    """Wall seconds of idleness after which it is given up."""
    gap_s: float = 1.0
    """Wall seconds that another master has before the connection is made again."""

    @property
    def key(self) -> tuple[str, int]:
        """What makes it one line: a serial device, or host and port."""
        return (self.serial.device, 0) if self.serial is not None else (self.host, self.port)

    @property
    def name(self) -> str:
        """As a person calls it: `192.0.2.10:502`, `/dev/ttyUSB0`."""
        return self.serial.device if self.serial is not None else f"{self.host}:{self.port}"

    @property
    def framed_by_silence(self) -> bool:
        """RTU: an answer carries no transaction number that would tell it from another's."""
        return self.transport != "tcp"

    @property
    def silence_s(self) -> float:
        """Seconds that a serial line has to be silent between two frames."""
        if self.serial is None:
            return 0.0  # a gateway on the network keeps the silence on its own side
        if self.serial.baudrate > _FAST_BAUD:
            return _FAST_SILENCE_S
        return _SILENT_CHARACTERS * self.serial.character_s

    @property
    def exchange_s(self) -> float:
        """Seconds that the longest request and its answer are on a serial line."""
        return 0.0 if self.serial is None else _EXCHANGE_CHARACTERS * self.serial.character_s
