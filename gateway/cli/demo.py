"""`flexway demo`: one order through every stage, over real sockets, on real data."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from gateway.children import Child
from gateway.cli.demo_checks import state_checks
from gateway.cli.demo_config import (
    OPERATOR,
    Addresses,
    Timeline,
    gateway_settings,
    make_tokens,
    write_settings,
)
from gateway.cli.demo_report import Evidence, compose
from gateway.cli.report import print_report, write_report
from gateway.client import Client
from marketplace_core.errors import FlexwayError

_SETTLED_WITHIN_S: Final = 90.0
"""Wall seconds that the order may take once submitted."""
_HEAD_START_S: Final = 5.0
"""Wall seconds for everything to start in before the simulated devices do."""
_HOST: Final = "127.0.0.1"
Json = Mapping[str, Any]


@click.command(
    epilog="Examples:  flexway demo      flexway demo --seed 7 --speed 120 --report build/report",
)
@click.option("--seed", default=1, show_default=True, help="Seed of the simulated day.")
@click.option(
    "--speed", default=180.0, show_default=True, help="Market seconds per second of the wall."
)
@click.option(
    "--report", "report_dir", default=Path("report"), show_default=True,
    type=click.Path(file_okay=False, path_type=Path), help="Folder of the report.",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with homes*.csv.gz and ev_sessions*.csv.gz; default: what is shipped.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep database, logs and settings in the report folder.")
def demo(seed: int, speed: float, report_dir: Path, data: Path | None, *, keep: bool) -> None:
    """Run one order through every stage, over real sockets, on real homes and cars.

    Starts a broker, simulated devices and the gateway as child processes on loopback.
    Exit code 0 only if every check that it states holds.
    """
    console = Console(highlight=False)
    report_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="flexway-demo-"))
    try:
        report = Demo(folder, console, seed=seed, speed=speed, data=data).run()
    finally:
        if keep:
            shutil.copytree(folder, report_dir / "run", dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    write_report(report, report_dir)
    print_report(report, console)
    console.print(f"report: {report_dir / 'report.html'} and {report_dir / 'report.json'}")
    sys.exit(0 if all(report["checks"].values()) else 1)


class Demo:
    """The children of one run and the steps that drive them."""

    def __init__(
        self, folder: Path, console: Console, *, seed: int, speed: float, data: Path | None
    ) -> None:
        self._folder = folder
        self._console = console
        self._seed = seed
        self._speed = speed
        self._data = data
        self._children: list[Child] = []
        self._began = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Run everything; return the report. Children never outlive this."""
        try:
            scenario = self._prepare()
            tokens = make_tokens(scenario)
            url = self._start(scenario, tokens)
            clients = {name: Client(url, token) for name, token in tokens.items()}
            report, imported = self._trade(scenario, clients)
        except BaseException:
            for child in reversed(self._children):
                child.kill()
            raise
        exits = {child.name: child.stop() for child in reversed(self._children)}
        report["checks"] = state_checks(report, exits=exits, imported=imported)
        return report

    def _prepare(self) -> Json:
        self._say("planning the day from real homes and charging sessions")
        scenario_file = self._folder / "scenario.json"
        data = ["--data", str(self._data)] if self._data else []
        self._simulator("plan", "--seed", str(self._seed), *data, "--out", str(scenario_file))
        history_file = self._folder / "history.csv"
        self._simulator("history", "--scenario", str(scenario_file), "--out", str(history_file))
        scenario: Json = json.loads(scenario_file.read_text(encoding="utf-8"))
        return scenario

    def _start(self, scenario: Json, tokens: Mapping[str, str]) -> str:
        self._say("starting broker, devices and gateway on loopback")
        sim_start = datetime.fromisoformat(scenario["market"]["sim_start"])
        timeline = Timeline(sim_start, time.time() + _HEAD_START_S, self._speed)
        broker = self._child("broker", "gateway.broker", "--port", "0", "--lab")
        vtn_port = _free_port()
        broker_port = broker.wait_ready()["port"]
        devices = self._child(
            "devices", "firmware_sim", "run",
            "--scenario", str(self._folder / "scenario.json"),
            "--market-epoch", sim_start.isoformat(), "--wall-epoch", repr(timeline.wall_epoch),
            "--speed", repr(self._speed), "--broker-host", _HOST, "--broker-port",
            str(broker_port), "--vtn-url", f"http://{_HOST}:{vtn_port}/OpenADR2/Simple/2.0b",
            "--log", str(self._folder), ready_option="--ready",
        )  # fmt: skip
        where = Addresses(broker_port, vtn_port, devices.wait_ready()["modbus"])
        settings = gateway_settings(scenario, tokens, timeline, where)
        path = write_settings(self._folder, settings)
        gateway = self._child("gateway", "gateway", "serve", "--config", str(path))
        url: str = gateway.wait_ready()["url"]
        return url

    def _trade(self, scenario: Json, clients: Mapping[str, Client]) -> tuple[dict[str, Any], Json]:
        buyer = clients[scenario["need"]["buyer"]]
        imported = self._register(scenario, clients)
        need_id = self._auction(scenario, clients)
        contracts = buyer.contracts(need_id)
        order_id = self._order(scenario, clients, need_id, contracts)
        order = self._follow(buyer, order_id)
        evidence = Evidence(
            scenario=scenario, need=buyer.get(f"/v1/needs/{need_id}"), contracts=contracts,
            order=order, operator=clients[OPERATOR],
        )  # fmt: skip
        report = compose(evidence, seed=self._seed, speed=self._speed, imported=imported)
        return report, imported

    def _register(self, scenario: Json, clients: Mapping[str, Client]) -> Json:
        self._say("sellers register assets and import their meter history")
        lines = (self._folder / "history.csv").read_text(encoding="utf-8").splitlines()
        total = {"accepted": 0, "rejected": 0}
        for seller in scenario["sellers"]:
            own = [a for a in scenario["assets"] if a["organisation"] == seller["id"]]
            client = clients[seller["id"]]
            client.register_assets(
                [{k: v for k, v in asset.items() if k != "organisation"} for asset in own]
            )
            meters = {asset["meter"] for asset in own}
            rows = [line for line in lines[1:] if line.split(",", 1)[0] in meters]
            answer = client.import_readings("\n".join([lines[0], *rows]))
            for name in total:
                total[name] += answer[name]
        self._say(f"  {total['accepted']} rows of history, {total['rejected']} refused")
        return total

    def _auction(self, scenario: Json, clients: Mapping[str, Client]) -> str:
        wanted, market = scenario["need"], scenario["market"]
        ask = f"{wanted['kw']:g} kW {wanted['direction']} on {market['feeder']}"
        self._say(f"the buyer needs {ask}")
        buyer = clients[wanted["buyer"]]
        need = buyer.publish_need({
            "feeder": market["feeder"], "direction": wanted["direction"], "kw": wanted["kw"],
            "window": market["event"], "price_cap": wanted["price_cap"],
            "currency": market["currency"], "baseline": wanted["baseline"],
            "allowed_baselines": wanted["allowed_baselines"],
        })  # fmt: skip
        need_id: str = need["id"]
        for bid in scenario["bids"]:
            clients[bid["seller"]].bid(need_id, {
                "assets": bid["assets"], "kw": bid["kw"], "utilisation_price": bid["price"],
                "divisible": bid["divisible"], "min_kw": bid["min_kw"],
                "baseline": bid["baseline"],
            })  # fmt: skip
        for award in buyer.clear(need_id)["clearing"]["awards"]:
            self._say(f"  {award['seller']}: {award['reason']}")
        return need_id

    def _order(
        self,
        scenario: Json,
        clients: Mapping[str, Client],
        need_id: str,
        contracts: list[Json],
    ) -> str:
        for contract in contracts:
            clients[contract["buyer"]].sign(contract["id"])
            clients[contract["seller"]].sign(contract["id"])
        kw = sum(contract["kw"] for contract in contracts)
        order = {"need_id": need_id, "kw": kw, "interval": scenario["market"]["event"]}
        self._await_telemetry(clients[OPERATOR], scenario)
        answer = clients[scenario["need"]["buyer"]].submit_order(order, key="demo-order-1")
        self._say(f"order {answer['id']}: {kw:g} kW for an hour, accepted and durable")
        order_id: str = answer["id"]
        return order_id

    def _await_telemetry(self, operator: Client, scenario: Json) -> None:
        """A plan needs to know what each device does now."""
        wanted = {device for asset in scenario["assets"] for device in asset["devices"]}
        deadline = time.monotonic() + _SETTLED_WITHIN_S
        while time.monotonic() < deadline:
            rows = operator.get("/v1/devices")
            fresh = {row["device_id"] for row in rows if row["newest"] and not row["stale"]}
            if wanted <= fresh:
                return
            time.sleep(0.1)
        raise FlexwayError(f"no telemetry from {', '.join(sorted(wanted - fresh))}")

    def _follow(self, buyer: Client, order_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + _SETTLED_WITHIN_S
        shown = ""
        while time.monotonic() < deadline:
            order: dict[str, Any] = buyer.get(f"/v1/orders/{order_id}")
            if order["state"] != shown:
                shown = order["state"]
                self._say(f"  {shown}")
            if shown in {"rejected", "infeasible"}:
                raise FlexwayError(f"the order is {shown}: {order['events']}")
            if shown == "settled":
                return {**order, "facts": buyer.get(f"/v1/orders/{order_id}/facts")}
            time.sleep(0.2)
        raise FlexwayError(f"the order is {shown} after {_SETTLED_WITHIN_S:g} s")

    def _simulator(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "firmware_sim", *arguments], capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise FlexwayError(f"firmware_sim {arguments[0]}: {done.stderr.strip()}")

    def _child(
        self, name: str, module: str, *arguments: str, ready_option: str = "--ready-file"
    ) -> Child:
        ready = str(self._folder / f"{name}.ready.json")
        child = Child(name, [module, *arguments, ready_option, ready], self._folder)
        self._children.append(child)
        return child

    def _say(self, text: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._began:5.1f} s[/] {text}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
