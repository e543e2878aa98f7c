"""`python -m firmware_sim`: plan a day, its history, run its devices, judge it; run a fleet."""

from __future__ import annotations

import sys

import click

from firmware_sim.commands_fleet import fleet_group
from firmware_sim.commands_plan import (
    counterfactual_command,
    history_command,
    judge_command,
    plan_command,
)
from firmware_sim.commands_run import lockstep_command, run_command
from marketplace_core.errors import ConfigError, FlexwayError

_CONFIG_EXIT = 3


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def simulator() -> None:
    """Devices that behave: batteries, inverters, meters, chargers and car parks on real data."""


for _command in (
    plan_command,
    history_command,
    run_command,
    lockstep_command,
    counterfactual_command,
    judge_command,
    fleet_group,
):
    simulator.add_command(_command)


def main() -> None:
    """Entry point: expected failures become one clear line and an exit code."""
    try:
        simulator.main()
    except ConfigError as error:
        click.echo(f"configuration: {error}", err=True)
        sys.exit(_CONFIG_EXIT)
    except FlexwayError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
