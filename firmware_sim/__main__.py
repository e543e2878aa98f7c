"""`python -m firmware_sim`: plan a day, write its meter history, run its devices."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import click

from firmware_sim import history as meter_history
from firmware_sim.dataset import shipped
from firmware_sim.planning import Request, plan
from firmware_sim.scenario import load, save
from marketplace_core.errors import ConfigError, FlexwayError
from marketplace_core.intervals import instant
from marketplace_core.simtime import AffineTime, from_unix

_CONFIG_EXIT = 3
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def simulator() -> None:
    """Devices that behave: batteries, inverters, meters, chargers and car parks on real data."""


@simulator.command(
    name="plan",
    epilog="Example:  python -m firmware_sim plan --homes 3 --chargers 4 --sites 1 --seed 1 "
    "--out scenario.json",
)
@click.option("--homes", default=3, show_default=True, type=click.IntRange(0))
@click.option("--chargers", default=4, show_default=True, type=click.IntRange(0))
@click.option("--sites", default=1, show_default=True, type=click.IntRange(0))
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0))
@click.option("--day", default="2017-07-20", show_default=True, metavar="YYYY-MM-DD",
              type=click.DateTime(["%Y-%m-%d"]), help="Local day of the event.")  # fmt: skip
@click.option("--data", type=_FOLDER, help="Folder of the real data; default: what is shipped.")
@click.option("--out", required=True, type=_FILE, help="The scenario, as JSON.")
def plan_command(
    *, homes: int, chargers: int, sites: int, seed: int, day: datetime, data: Path | None, out: Path
) -> None:
    """Make a scenario from real data and a seed: devices, owners, assets, a need and bids."""
    local_day = day.date().isoformat()
    request = Request(seed=seed, homes=homes, chargers=chargers, sites=sites, day=local_day)
    scenario = plan(request, data or shipped())
    save(scenario, out)
    counts = f"{homes} homes, {chargers} chargers, {sites} car parks"
    offered = sum(bid.kw for bid in scenario.bids)
    click.echo(f"{out}: {counts}; {offered:g} kW offered, {scenario.need.kw:g} kW needed")


@simulator.command(
    name="history",
    epilog="Example:  python -m firmware_sim history --scenario scenario.json --out history.csv",
)
@click.option("--scenario", "scenario_file", required=True, type=_EXISTING)
@click.option("--data", type=_FOLDER, help="Default: the folder that the scenario was made from.")
@click.option("--out", required=True, type=_FILE, help="CSV: series,start_utc,seconds,power_kw")
def history_command(*, scenario_file: Path, data: Path | None, out: Path) -> None:
    """Write what every meter read before the simulation starts."""
    scenario = load(scenario_file)
    count = meter_history.write(scenario, data or Path(scenario.data), out)
    click.echo(f"{out}: {count} rows of {len(scenario.series())} meters")


@simulator.command(
    name="run",
    epilog="Example:  python -m firmware_sim run --scenario scenario.json --ready ready.json "
    "--market-epoch 2017-07-20T23:30:00Z --wall-epoch 1800000000 --speed 180 "
    "--broker-port 1883 --log build/run",
)
@click.option("--scenario", "scenario_file", required=True, type=_EXISTING)
@click.option("--data", type=_FOLDER, help="Default: the folder that the scenario was made from.")
@click.option("--ready", required=True, type=_FILE, help="Written once every server listens.")
@click.option("--market-epoch", required=True, type=Instant(), help="Market time at --wall-epoch.")
@click.option("--wall-epoch", required=True, type=float, help="Unix seconds.")
@click.option("--speed", default=1.0, show_default=True, help="Market seconds per wall second.")
@click.option("--broker-host", default="127.0.0.1", show_default=True)
@click.option("--broker-port", type=click.IntRange(1, 65535), help="MQTT broker of the chargers.")
@click.option("--vtn-url", help="OpenADR VTN of the car parks.")
@click.option("--until", type=Instant(), help="Market time of the end; default: SIGTERM.")
@click.option("--log", "folder", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder of truth.jsonl and wire.jsonl.")  # fmt: skip
def run_command(
    *,
    scenario_file: Path,
    data: Path | None,
    ready: Path,
    market_epoch: datetime,
    wall_epoch: float,
    speed: float,
    broker_host: str,
    broker_port: int | None,
    vtn_url: str | None,
    until: datetime | None,
    folder: Path,
) -> None:
    """Run the devices behind their protocols until SIGTERM or --until.

    Batteries, inverters and meters listen as SunSpec Modbus TCP servers on free ports,
    chargers connect to the broker, car parks to the VTN; both come back when it goes away.
    """
    from firmware_sim.host import HostOptions, run_host  # noqa: PLC0415 - plan needs no servers

    scenario = load(scenario_file)
    try:
        time_map = AffineTime(market_epoch, from_unix(wall_epoch), speed)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    options = HostOptions(
        data=data or Path(scenario.data), ready=ready, log=folder, time_map=time_map,
        broker_host=broker_host, broker_port=broker_port, vtn_url=vtn_url, until=until,
    )  # fmt: skip
    run_host(scenario, options)


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
