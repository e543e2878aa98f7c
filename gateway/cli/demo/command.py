"""`flexway demo`: a whole day on a feeder, everything going wrong on purpose."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from gateway.cli.demo.checks import state_checks
from gateway.cli.demo.evidence import Evidence
from gateway.cli.demo.figures import compose
from gateway.cli.demo.script import Day, Script
from gateway.cli.demo.settings import gateway_settings, make_tokens, nowhere, write_settings
from gateway.cli.demo.simulator import Simulator
from gateway.cli.demo.sockets import SocketWorld
from gateway.cli.demo.virtual import VirtualWorld
from gateway.cli.demo.world import Json, World
from gateway.cli.report import write_report
from gateway.cli.report_terminal import print_report

_SPOILED: Final = 1
"""Rows of the meter history that are wrong on purpose."""
_SPOILED_LINE: Final = 1234
_DAY: Final = date(2017, 7, 20)
"""The day of the shipped data that is played."""


@click.command(
    epilog="Examples:  flexway demo      flexway demo --lockstep --seed 7"
    "      flexway demo --speed 120 --report build/report --keep",
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0),
              help="Seed of the simulated day.")  # fmt: skip
@click.option(
    "--speed", default=360.0, show_default=True, help="Market seconds per second of the wall."
)
@click.option(
    "--report", "report_dir", default=Path("report"), show_default=True,
    type=click.Path(file_okay=False, path_type=Path), help="Folder of the report.",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with homes*.csv.gz and ev_sessions*.csv.gz; default: what is shipped.",
)  # fmt: skip
@click.option(
    "--day", default=_DAY.isoformat(), show_default=True, metavar="YYYY-MM-DD",
    type=click.DateTime(["%Y-%m-%d"]), help="Day of the data that is played.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep database, logs and settings in the report folder.")
@click.option("--lockstep", is_flag=True,
              help="The same day in virtual time, without sockets: reproducible.")  # fmt: skip
@click.option("--no-dispatch", "dispatch", is_flag=True, default=True, flag_value=False,
              help="The counterfactual: the market is set up and nobody is called.")  # fmt: skip
def demo(
    *,
    seed: int,
    speed: float,
    report_dir: Path,
    data: Path | None,
    day: datetime,
    keep: bool,
    lockstep: bool,
    dispatch: bool,
) -> None:
    """Run a summer day on one feeder: two orders, real homes and cars, faults on purpose.

    Starts a broker, simulated devices and the gateway as child processes on loopback (or,
    with --lockstep, everything in virtual time). Exit code 0 only if every check that it
    states holds.
    """
    console = Console(highlight=False)
    report_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="flexway-demo-"))
    try:
        run = DemoRun(
            folder, console, report_dir, seed=seed, speed=speed, data=data, day=day.date()
        )
        report = run.run(lockstep=lockstep, dispatch=dispatch)
    finally:
        if keep:
            shutil.copytree(folder, report_dir / "run", dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    write_report(report, report_dir)
    print_report(report, console)
    console.print(f"report: {report_dir / 'report.html'}; data: report.json, statement.csv")
    sys.exit(0 if all(report["checks"].values()) else 1)


class DemoRun:
    """One run: plan the day, let it happen, hold the report against the truth."""

    def __init__(
        self, folder: Path, console: Console, report_dir: Path,
        *, seed: int, speed: float, data: Path | None, day: date = _DAY,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._console = console
        self._report_dir = report_dir
        self._seed = seed
        self._speed = speed
        self._simulator = Simulator(folder, data)
        self._day = day
        self._began, self._began_at = time.monotonic(), time.time()

    def run(self, *, lockstep: bool, dispatch: bool) -> dict[str, Any]:
        """Run everything; return the report. Children never outlive this."""
        try:
            return self._run(lockstep=lockstep, dispatch=dispatch)
        finally:
            self._simulator.abort()

    def _run(self, *, lockstep: bool, dispatch: bool) -> dict[str, Any]:
        scenario = self._plan()
        tokens = make_tokens(scenario)
        world = self._virtual(scenario, tokens) if lockstep else self._sockets(scenario, tokens)
        try:
            self._say("starting devices and gateway")
            world.start()
            self._simulator.finish("history")
            script = Script(world, scenario, self._simulator.history, self._say)
            day = script.run(dispatch=dispatch)
            self._simulator.begin_counterfactual()
            report = self._compose(world, scenario, day, lockstep=lockstep)
        except BaseException:
            world.abort()
            raise
        exits = world.stop()
        self._say("comparing the settlement with what really happened")
        report["truth"] = self._simulator.judge(report, self._report_dir)
        report["checks"] = state_checks(report, exits=exits, spoiled=_SPOILED)
        return report

    def _plan(self) -> Json:
        """The day; its history is written while devices and gateway start."""
        self._say("planning the day from real homes and charging sessions")
        scenario = self._simulator.plan(self._seed, self._day)
        self._simulator.begin_history(_SPOILED_LINE)
        return scenario

    def _sockets(self, scenario: Json, tokens: dict[str, str]) -> World:
        return SocketWorld(
            self._folder, scenario, tokens, speed=self._speed, truth=self._report_dir
        )

    def _virtual(self, scenario: Json, tokens: dict[str, str]) -> World:
        text = gateway_settings(scenario, tokens, None, nowhere(scenario))
        devices = [
            "firmware_sim", "lockstep", "--scenario", str(self._folder / "scenario.json"),
            "--world", str(self._folder / "world.json"), "--truth", str(self._report_dir),
        ]  # fmt: skip
        start = datetime.fromisoformat(scenario["market"]["sim_start"])
        return VirtualWorld(write_settings(self._folder, text), devices, tokens, start)

    def _compose(self, world: World, scenario: Json, day: Day, *, lockstep: bool) -> dict[str, Any]:
        settings = {
            "seed": self._seed, "speed": None if lockstep else self._speed,
            "transport": "lockstep" if lockstep else "sockets",
        }  # fmt: skip

        def elapsed(at: datetime) -> float | None:
            seconds = world.seconds_until(at, self._began_at)
            return None if seconds is None else round(seconds, 1)

        return compose(Evidence(world, scenario, day), settings=settings, elapsed=elapsed)

    def _say(self, text: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._began:5.1f} s[/] {text}")
