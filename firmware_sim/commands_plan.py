"""Commands that make files: the plan of a day, its history, and what was true of it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from firmware_sim import counterfactual, judge
from firmware_sim import history as meter_history
from firmware_sim.dataset import DataSet, shipped
from firmware_sim.options import (
    EXISTING,
    FILE,
    FOLDER,
    data_option,
    scenario_option,
    world_option,
)
from firmware_sim.planning import Request, plan
from firmware_sim.scenario import load, save
from firmware_sim.world import load_world


@click.command(
    name="plan",
    epilog="Example:  python -m firmware_sim plan --homes 12 --chargers 40 --sites 3 --seed 1 "
    "--out scenario.json --world world.json",
)
@click.option("--homes", type=click.IntRange(0), help="Default: all in the data.")
@click.option("--chargers", type=click.IntRange(0), help="Default: all in the data, up to 40.")
@click.option("--sites", default=3, show_default=True, type=click.IntRange(0))
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0))
@click.option("--day", default="2017-07-20", show_default=True, metavar="YYYY-MM-DD",
              type=click.DateTime(["%Y-%m-%d"]), help="Local day of the events.")  # fmt: skip
@click.option("--data", type=FOLDER, help="Folder of the real data; default: what is shipped.")
@click.option("--out", required=True, type=FILE, help="The scenario, as JSON: for everybody.")
@click.option(
    "--world", "world_file", required=True, type=FILE,
    help="Seed, faults and what is behind the devices, as JSON: for the simulator.",
)  # fmt: skip
def plan_command(
    *,
    homes: int | None,
    chargers: int | None,
    sites: int,
    seed: int,
    day: datetime,
    data: Path | None,
    out: Path,
    world_file: Path,
) -> None:
    """Make a day from real data and a seed: devices, owners, assets, needs, bids and faults."""
    local_day = day.date().isoformat()
    request = Request(seed=seed, homes=homes, chargers=chargers, sites=sites, day=local_day)
    scenario, world = plan(request, DataSet(data or shipped()))
    save(scenario, out)
    save(world, world_file)
    stations = len(scenario.chargers) + sum(fleet.stations for fleet in scenario.fleets)
    counts = f"{len(scenario.homes)} homes, {stations} chargers, {len(scenario.sites)} car parks"
    click.echo(f"{out}: {counts}")
    for need in scenario.needs:
        offered = sum(bid.kw for bid in scenario.bids if bid.event == need.event)
        click.echo(
            f"  {need.event}: {offered:g} kW {need.direction.value} offered, {need.kw:g} kW needed"
        )
    click.echo(f"{world_file}: {len(world.faults)} faults")


@click.command(
    name="history",
    epilog="Example:  python -m firmware_sim history --scenario scenario.json "
    "--world world.json --out history.csv --spoil 1234",
)
@scenario_option
@world_option
@data_option
@click.option("--out", required=True, type=FILE, help="CSV: series,start_utc,seconds,power_kw")
@click.option(
    "--spoil", type=click.IntRange(2), metavar="LINE",
    help="Write one wrong value into this line, to see the import report it.",
)  # fmt: skip
def history_command(
    *, scenario_file: Path, world_file: Path, data: Path | None, out: Path, spoil: int | None
) -> None:
    """Write what every meter read before the simulation starts."""
    scenario, world = load(scenario_file), load_world(world_file)
    count = meter_history.write(scenario, world, DataSet(data or Path(world.data)), out, spoil)
    click.echo(f"{out}: {count} rows of {len(scenario.series())} meters")


@click.command(
    name="counterfactual",
    epilog="Example:  python -m firmware_sim counterfactual --scenario scenario.json "
    "--world world.json --out counterfactual.jsonl",
)
@scenario_option
@world_option
@data_option
@click.option("--out", required=True, type=FILE, help="As truth.jsonl, without faults.")
def counterfactual_command(
    *, scenario_file: Path, world_file: Path, data: Path | None, out: Path
) -> None:
    """Write what every device would have done that day had nobody commanded it."""
    scenario, world = load(scenario_file), load_world(world_file)
    count = counterfactual.write(scenario, world, DataSet(data or Path(world.data)), out)
    click.echo(f"{out}: {count} rows")


@click.command(
    name="judge",
    epilog="Example:  python -m firmware_sim judge --scenario scenario.json --world world.json "
    "--report report.json --truth truth.jsonl --counterfactual counterfactual.jsonl "
    "--out truth_section.json",
)
@scenario_option
@world_option
@click.option("--report", "report_file", required=True, type=EXISTING)
@click.option("--truth", "truth_place", required=True,
              type=click.Path(exists=True, path_type=Path),
              help="truth.jsonl, or the folder that it is in.")  # fmt: skip
@click.option("--counterfactual", "counterfactual_file", required=True, type=EXISTING)
@click.option("--out", required=True, type=FILE)
def judge_command(
    *,
    scenario_file: Path,
    world_file: Path,
    report_file: Path,
    truth_place: Path,
    counterfactual_file: Path,
    out: Path,
) -> None:
    """Hold a report against what was true: energy delivered, and faults that were flagged."""
    verdict = judge.judge(
        load(scenario_file),
        load_world(world_file),
        judge.read_report(report_file),
        (judge.read_truth(_truth_file(truth_place)), judge.read_truth(counterfactual_file)),
    )
    judge.save(verdict, out)
    click.echo(judge.summary(verdict))


def _truth_file(place: Path) -> Path:
    return place / "truth.jsonl" if place.is_dir() else place
