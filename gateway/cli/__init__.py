"""Commands and their exit codes.

0 done, and every check that was stated holds; 1 something asked for does not hold;
2 the command line is wrong; 3 the configuration is wrong.
"""

from __future__ import annotations

import sys

import click

from gateway.cli.client import client
from gateway.cli.demo import demo
from gateway.cli.journal import journal
from gateway.cli.serve import serve
from marketplace_core.errors import ConfigError, FlexwayError

CONFIG_EXIT = 3


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flexway")
def flexway() -> None:
    """Buy and deliver flexibility from distributed energy resources."""


flexway.add_command(client)
flexway.add_command(demo)
flexway.add_command(journal)
flexway.add_command(serve)


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
