"""Arguments and options of `flexway modbus` and `flexway commission`."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from typing import Any, Final

import click

from adapters.modbus.lines import Line, Parity, SerialPort, Transport

DETAIL_S: Final = 3.0
"""Seconds that one request to a unit that is there may take: a serial line at 9600 baud needs a
third of a second for the longest answer."""
_UNITS: Final = range(248)
_PORTS: Final = range(1, 0x1_0000)
_PORT: Final = "502"


def _endpoint(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> tuple[str, int] | None:
    """HOST or HOST:PORT; an IPv6 address with a port stands in brackets."""
    return None if text is None else endpoint(text)


def endpoint(text: str) -> tuple[str, int]:
    """Host and port of HOST or HOST:PORT; click.BadParameter where it is neither."""
    host, colon, port = text.rpartition(":")
    bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not colon or bare_ipv6 or text.endswith("]"):
        host, port = text, _PORT
    host = host.removeprefix("[").removesuffix("]")
    if (
        not host
        or (":" in host and not _is_ipv6(host))
        or not port.isdecimal()
        or int(port) not in _PORTS
    ):
        raise click.BadParameter(f"{text!r} is no HOST or HOST:PORT, such as 192.168.1.40:502")
    return host, int(port)


def _numbers(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[int, ...]:
    """1-10,126: every number once, in the order given."""
    units: dict[int, None] = {}
    for part in map(str.strip, text.split(",")):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal()):
            raise click.BadParameter(f"{part!r} is no unit number or range, such as 1-10")
        if not int(first) <= int(last) < len(_UNITS):
            raise click.BadParameter(f"{part!r}: units go from 0 to 247, the lower first")
        units |= dict.fromkeys(range(int(first), int(last) + 1))
    return tuple(units)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def line_of(
    address: tuple[str, int] | None, *, serial: str | None, baudrate: int | None,
    parity: Parity | None, stopbits: str | None, transport: Transport | None,
) -> Line:  # fmt: skip
    """The line that the words on the command line mean; click.UsageError where they clash."""
    if (address is None) == (serial is None):
        raise click.UsageError("give HOST[:PORT], or --serial DEVICE: one of the two")
    if address is not None:
        if (baudrate, parity, stopbits) != (None, None, None):
            raise click.UsageError(
                "--baudrate, --parity and --stopbits go with --serial: a serial server on the "
                "network has its own"
            )
        if transport == "rtu":
            raise click.UsageError("--transport rtu needs --serial DEVICE instead of a host")
        return Line(transport=transport or "tcp", host=address[0], port=address[1])
    if transport not in {None, "rtu"}:
        raise click.UsageError(f"--transport {transport} needs HOST[:PORT] instead of --serial")
    default = SerialPort(device=serial or "")
    return Line(
        transport="rtu",
        serial=SerialPort(
            device=default.device, baudrate=baudrate or default.baudrate,
            parity=parity or default.parity,
            stopbits=default.stopbits if stopbits is None else int(stopbits),
        ),
    )  # fmt: skip


Command = Callable[..., Any]
_LINE_OPTIONS: Final = (
    click.option(
        "--serial", metavar="DEVICE", help="A serial line instead of a host, such as /dev/ttyUSB0."
    ),
    click.option(
        "--baudrate", type=click.IntRange(300, 1_000_000),
        help="Of the serial line; 19200 when left out.",
    ),
    click.option(
        "--parity", type=click.Choice(["even", "odd", "none"]),
        help="Of the serial line; even when left out.",
    ),
    click.option(
        "--stopbits", type=click.Choice(["1", "2"]), help="Of the serial line; 1 when left out."
    ),
    click.option(
        "--transport", type=click.Choice(["tcp", "rtu", "rtu_over_tcp"]),
        help="rtu_over_tcp: a serial server that passes the bytes on; tcp when left out, rtu "
        "with --serial.",
    ),
)  # fmt: skip


def line_options(command: Command) -> Command:
    """Options that say what kind of line it is, for `line_of`."""
    for option in reversed(_LINE_OPTIONS):
        command = option(command)
    return command


def line(command: Command) -> Command:
    """HOST[:PORT] or --serial and its options, handed to the command as `line`."""

    @click.argument("address", callback=_endpoint, metavar="[HOST[:PORT]]", required=False)
    @line_options
    @functools.wraps(command)
    def with_line(address: tuple[str, int] | None, **words: Any) -> Any:
        names = ("serial", "baudrate", "parity", "stopbits", "transport")
        return command(line_of(address, **{name: words.pop(name) for name in names}), **words)

    return with_line


def not_a_broadcast(line: Line, unit: int) -> None:
    """Refuse unit 0 on a serial line; click.UsageError."""
    if line.framed_by_silence and unit == 0:
        raise click.UsageError("unit 0 is a broadcast on a serial line: nobody answers it")


units = click.option(
    "--units", default="1-247", show_default=True, callback=_numbers,
    help="Which numbers to ask, as 1-10,126.",
)  # fmt: skip
unit = click.option(
    "--unit", required=True, type=click.IntRange(0, 255),
    help="Unit number; `flexway modbus scan` finds it.",
)  # fmt: skip
models = click.option(
    "--model", "wanted", multiple=True, type=click.IntRange(1, 0xFFFE),
    help="SunSpec model; again for more. Without it: all that the unit has.",
)  # fmt: skip
patience = click.option(
    "--timeout", "timeout_s", default=DETAIL_S, show_default=True,
    type=click.FloatRange(min=0.05), help="Seconds that one request may take.",
)  # fmt: skip
absence = click.option(
    "--timeout", "timeout_s", default=0.5, show_default=True, type=click.FloatRange(min=0.05),
    help="Seconds after which a unit number counts as free. Half a second is enough for a unit "
    "behind a serial gateway; 247 free numbers then cost two minutes. A device on the network "
    "itself answers within 0.1.",
)  # fmt: skip
device_profile = click.option(
    "--profile", "device_profile", default="", metavar="NAME",
    help="Of a device that is not SunSpec: a profile of `flexway modbus profiles`, or a file.",
)  # fmt: skip
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document for programs.")
every = click.option(
    "--every", "every_s", default=1.0, show_default=True, type=click.FloatRange(min=0.1),
    help="Seconds between two reads.",
)  # fmt: skip
times = click.option("--times", type=click.IntRange(min=1), help="End after so many reads.")
