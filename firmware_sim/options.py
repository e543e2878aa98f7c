"""Options and value types that several commands share."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from marketplace_core.intervals import instant

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)

scenario_option = click.option("--scenario", "scenario_file", required=True, type=EXISTING)
world_option = click.option(
    "--world", "world_file", required=True, type=EXISTING,
    help="What is behind the scenario; the market must not see it.",
)  # fmt: skip
data_option = click.option(
    "--data", type=FOLDER, help="Default: the folder that the scenario was made from."
)


class Instant(click.ParamType[datetime]):
    """An ISO 8601 instant with an offset."""

    name = "instant"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Parse it, or say what is missing."""
        if isinstance(value, datetime):
            return value
        try:
            return instant(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
