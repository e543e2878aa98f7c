"""The day over real sockets: a broker, the devices and the gateway as child processes."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from config.beginning import awaited_time, begin
from gateway.children import Child
from gateway.cli.demo.lab_ca import LabCa
from gateway.cli.demo.settings import Addresses, Timeline, gateway_settings, write_settings
from gateway.cli.demo.world import Json
from gateway.client import Client

_HOST: Final = "127.0.0.1"
_NAP_S: Final = 0.2
_CHILD_PATIENCE_S: Final = 60.0


class SocketWorld:
    """Implements World over child processes on free loopback ports."""

    def __init__(
        self, folder: Path, scenario: Json, tokens: Mapping[str, str], *, speed: float,
        truth: Path,
    ) -> None:  # fmt: skip
        """`truth` is the folder in which the devices write what really happened."""
        self._folder = folder
        self._scenario = scenario
        self._tokens = tokens
        self._truth = truth
        start = datetime.fromisoformat(scenario["market"]["sim_start"])
        self._timeline = Timeline(start, folder / "begun", speed)
        self._map = awaited_time(start, speed, self._timeline.begins_by)
        self._children: dict[str, Child] = {}
        self._clients: dict[str, Client] = {}
        self._url = ""
        self._api_port, self._hook_port = _free_port(), _free_port()
        self._secret = folder / "fleet.secret"

    def start(self) -> None:
        """Broker and devices side by side, then the gateway, which has to know their ports."""
        broker_port = _free_port()
        broker = self._child("broker", "gateway.broker", "--port", str(broker_port), "--lab")
        ca = LabCa(self._folder / "tls")
        ca.issue_server("vtn", _HOST)
        fingerprints = {
            site["id"]: ca.issue_client(site["ven_name"]) for site in self._scenario["sites"]
        }
        vtn_port, uplink_port = _free_port(), _free_port()
        devices = self._devices(broker_port, vtn_port, uplink_port)
        broker.wait_ready(_CHILD_PATIENCE_S)
        modbus = devices.wait_ready(_CHILD_PATIENCE_S)["modbus"]
        where = Addresses(
            uplink_port, vtn_port, modbus, fingerprints, ca.folder, api_port=self._api_port
        )
        settings = gateway_settings(self._scenario, self._tokens, self._timeline, where)
        write_settings(self._folder, settings)
        self.start_gateway()
        self._register_webhooks()

    def begin(self) -> None:
        """Let market time run, for devices and gateway alike."""
        begin(self._timeline.begins_by, time.time())

    def seconds_until(self, at: datetime, since: float) -> float | None:
        """Wall seconds from a Unix instant to a market one."""
        return self._map.to_wall(at).timestamp() - since

    def client(self, organisation: str) -> Client:
        """A connection to the gateway that runs now."""
        if organisation not in self._clients:
            self._clients[organisation] = Client(self._url, self._tokens[organisation])
        return self._clients[organisation]

    def now(self) -> datetime:
        """Market time."""
        return self._map.to_market(datetime.now(UTC))

    def wait_until(self, at: datetime) -> None:
        """Sleep until the wall is there."""
        time.sleep(max(0.0, (self._map.to_wall(at) - datetime.now(UTC)).total_seconds()))

    def pause(self) -> None:
        """A moment."""
        time.sleep(_NAP_S)

    def cut_uplink(self) -> None:
        """The relay in front of the broker does that by itself, at the incident's time."""

    def mend_uplink(self) -> None:
        """The same."""

    def kill_gateway(self) -> None:
        """SIGKILL."""
        self._forget_clients()
        self._children.pop("gateway").kill()

    def start_gateway(self) -> None:
        """Start the service and wait until it takes requests."""
        config = str(self._folder / "flexway.toml")
        gateway = self._child("gateway", "gateway", "serve", "--config", config)
        self._url = gateway.wait_ready(_CHILD_PATIENCE_S)["url"]

    def stop(self) -> Mapping[str, int]:
        """Ask every child to end, the last one first."""
        self._forget_clients()
        return {name: child.stop() for name, child in reversed(self._children.items())}

    def abort(self) -> None:
        """Kill every child."""
        self._forget_clients()
        for child in reversed(self._children.values()):
            child.kill()

    def _register_webhooks(self) -> None:
        """A fleet's backend says where it is dispatched, and learns its secret."""
        for fleet in self._scenario["fleets"]:
            url = f"http://{_HOST}:{self._hook_port}/hook"
            answer = self.client(fleet["seller"]).register_webhook(url, ["dispatch"])
            part = self._secret.with_suffix(".part")
            part.touch(0o600)
            part.write_text(answer["secret"], encoding="utf-8")
            part.replace(self._secret)

    def _devices(self, broker_port: int, vtn_port: int, uplink_port: int) -> Child:
        folder, timeline = self._folder, self._timeline
        token = folder / "fleet.token"
        token.touch(0o600)
        fleets = self._scenario["fleets"]
        token.write_text(self._tokens[fleets[0]["seller"]] if fleets else "none", encoding="utf-8")
        return self._child(
            "devices", "firmware_sim", "run",
            "--scenario", str(folder / "scenario.json"), "--world", str(folder / "world.json"),
            "--market-epoch", timeline.market_epoch.isoformat(),
            "--begins-by", str(timeline.begins_by), "--speed", repr(timeline.speed),
            "--broker-host", _HOST, "--broker-port", str(broker_port),
            "--uplink-port", str(uplink_port),
            "--vtn-url", f"https://{_HOST}:{vtn_port}/OpenADR2/Simple/2.0b",
            "--api-url", f"http://{_HOST}:{self._api_port}", "--api-token-file", str(token),
            "--webhook-port", str(self._hook_port), "--webhook-secret-file", str(self._secret),
            "--tls", str(folder / "tls"), "--log", str(folder), "--truth", str(self._truth),
            ready_option="--ready",
        )  # fmt: skip

    def _child(
        self, name: str, module: str, *arguments: str, ready_option: str = "--ready-file"
    ) -> Child:
        ready = str(self._folder / f"{name}.ready.json")
        child = Child(name, [module, *arguments, ready_option, ready], self._folder)
        self._children[name] = child
        return child

    def _forget_clients(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
