"""Commands and their exit codes.

0 done, and every check that was stated holds; 1 something asked for does not hold;
2 the command line is wrong; 3 the configuration is wrong.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Final

import click

from marketplace_core.errors import ConfigError, FlexwayError

CONFIG_EXIT = 3
_COMMANDS: Final = (
    "auction", "broker", "check", "client", "commission", "demo", "journal", "modbus",
    "programmes", "serve",
)  # fmt: skip
"""Each is a module of its own, imported when it is called: the service starts without plots."""


class _Commands(click.Group):
    """Commands found by name; those added otherwise are found as well."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command."""
        return sorted({*super().list_commands(ctx), *_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command; None when there is none of that name."""
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        # Modules are made once and stay: looking them through for garbage again and again is a
        # fifth of the start. Frozen, they are left out of every collection while it runs, too.
        gc.disable()
        command: click.Command = getattr(import_module(f"gateway.cli.{cmd_name}"), cmd_name)
        gc.freeze()
        gc.enable()
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flexway")
def flexway() -> None:
    """Buy and deliver flexibility from distributed energy resources."""


def main() -> None:
    """Entry point: expected failures become one clear line and an exit code."""
    try:
        flexway.main()
    except ConfigError as error:
        click.echo(f"configuration: {error}", err=True)
        sys.exit(CONFIG_EXIT)
    except FlexwayError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
