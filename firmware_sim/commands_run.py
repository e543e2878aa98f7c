"""Commands that run the devices: behind real servers, or in lockstep over a pipe."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import click

from config.beginning import awaited_time
from firmware_sim.dataset import DataSet
from firmware_sim.lockstep import Lockstep
from firmware_sim.options import (
    EXISTING,
    FILE,
    FOLDER,
    NEW_FOLDER,
    Instant,
    data_option,
    scenario_option,
    world_option,
)
from firmware_sim.pipe import serve
from firmware_sim.plant import Plant
from firmware_sim.records import Truth
from firmware_sim.scenario import load
from firmware_sim.world import load_world
from marketplace_core.errors import ConfigError
from marketplace_core.ports import TimeMap
from marketplace_core.simtime import AffineTime, from_unix


@click.command(
    name="lockstep",
    epilog="Example:  python -m firmware_sim lockstep --scenario scenario.json "
    "--world world.json --truth build/run",
)
@scenario_option
@world_option
@data_option
@click.option("--truth", "truth_folder", type=NEW_FOLDER, help="Folder of truth.jsonl.")
def lockstep_command(
    *, scenario_file: Path, world_file: Path, data: Path | None, truth_folder: Path | None
) -> None:
    """Step the devices as told by requests on standard input; no sockets, no clock.

    Ends with code 0 at the end of the input or when told to.
    """
    scenario, world = load(scenario_file), load_world(world_file)
    plant = Plant(scenario, world, DataSet(data or Path(world.data)))
    with ExitStack() as stack:
        truth = None
        if truth_folder is not None:
            truth = stack.enter_context(Truth(truth_folder, world.faults)).minute
        lockstep = Lockstep(scenario, world, plant, truth or (lambda _readings: None))
        serve(lockstep, sys.stdin.buffer, sys.stdout.buffer)


@click.command(
    name="run",
    epilog="Example:  python -m firmware_sim run --scenario scenario.json --world world.json "
    "--ready ready.json --market-epoch 2017-07-20T17:00:00Z --wall-epoch 1800000000 "
    "--speed 240 --broker-port 1883 --vtn-url https://127.0.0.1:8443/OpenADR2/Simple/2.0b "
    "--log build/run",
)
@scenario_option
@world_option
@data_option
@click.option("--ready", required=True, type=FILE, help="Written once every server listens.")
@click.option("--market-epoch", required=True, type=Instant(), help="Market time at --wall-epoch.")
@click.option("--wall-epoch", type=float, help="Unix seconds.")
@click.option(
    "--begins-by", type=FILE, help="File that will hold --wall-epoch; until then time stands."
)
@click.option("--speed", default=1.0, show_default=True, help="Market seconds per wall second.")
@click.option("--broker-host", default="127.0.0.1", show_default=True)
@click.option("--broker-port", type=click.IntRange(1, 65535), help="MQTT broker of the chargers.")
@click.option(
    "--uplink-port", type=click.IntRange(0, 65535),
    help="Loopback port that relays the gateway to the broker; 0 = a free one.",
)  # fmt: skip
@click.option("--vtn-url", help="OpenADR VTN of the car parks.")
@click.option(
    "--tls", "tls_folder", type=FOLDER,
    help="Folder of the car parks' certificates: ca.pem, <ven>.pem, <ven>.key.",
)  # fmt: skip
@click.option("--api-url", help="API to which the fleet's backend posts its readings.")
@click.option("--api-token-file", type=EXISTING, help="File with the backend's bearer token.")
@click.option(
    "--webhook-port", type=click.IntRange(1, 65535), help="Port on which the fleet is dispatched."
)
@click.option(
    "--webhook-secret-file", type=FILE,
    help="File of the webhook's secret; may come later, with the registration.",
)  # fmt: skip
@click.option("--until", type=Instant(), help="Market time of the end; default: SIGTERM.")
@click.option("--truth", "truth_folder", type=NEW_FOLDER,
              help="Folder of truth.jsonl; default: as --log.")  # fmt: skip
@click.option("--log", "folder", required=True, type=NEW_FOLDER, help="Folder of wire.jsonl.")
def run_command(
    *,
    scenario_file: Path,
    world_file: Path,
    data: Path | None,
    ready: Path,
    market_epoch: datetime,
    wall_epoch: float | None,
    begins_by: Path | None,
    speed: float,
    broker_host: str,
    broker_port: int | None,
    uplink_port: int | None,
    vtn_url: str | None,
    tls_folder: Path | None,
    api_url: str | None,
    api_token_file: Path | None,
    webhook_port: int | None,
    webhook_secret_file: Path | None,
    until: datetime | None,
    truth_folder: Path | None,
    folder: Path,
) -> None:
    """Run the devices behind their protocols until SIGTERM or --until.

    Batteries, inverters and meters listen as SunSpec Modbus TCP servers on free ports,
    chargers connect to the broker, car parks to the VTN; all come back when it goes away.
    """
    from firmware_sim.host import HostOptions, run_host  # noqa: PLC0415 - others need no servers

    scenario, world = load(scenario_file), load_world(world_file)
    options = HostOptions(
        data=data or Path(world.data), ready=ready, log=folder, truth=truth_folder or folder,
        time_map=_time_map(market_epoch, speed, wall_epoch, begins_by),
        broker_host=broker_host, broker_port=broker_port,
        uplink_port=uplink_port, vtn_url=vtn_url, tls=tls_folder, api_url=api_url,
        api_token_file=api_token_file, webhook_port=webhook_port,
        webhook_secret_file=webhook_secret_file, until=until,
    )  # fmt: skip
    run_host(scenario, world, options)


def _time_map(
    market_epoch: datetime, speed: float, wall_epoch: float | None, begins_by: Path | None
) -> TimeMap:
    if (wall_epoch is None) == (begins_by is None):
        raise ConfigError("say when time begins: either --wall-epoch or --begins-by")
    try:
        if begins_by is not None:
            return awaited_time(market_epoch, speed, begins_by)
        return AffineTime(market_epoch, from_unix(wall_epoch or 0.0), speed)
    except ValueError as error:
        raise ConfigError(str(error)) from error
