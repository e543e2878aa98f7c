"""A lab of real processes: Mosquitto, the service, and a market with one contract."""

from __future__ import annotations

import hashlib
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from config.writing import to_toml
from gateway.children import Child
from gateway.client import Client
from tests.harness.preloaded import PreloadedChild

HOST = "127.0.0.1"
ROLES = {"org_buyer": "buyer", "org_seller": "seller", "org_operator": "operator"}


_LASTING = range(20_000, 32_000)
"""Ports that no connection takes as its own end meanwhile (Linux gives those from 32768 on)."""


def free_port(*, lasting: bool = False) -> int:
    """A port that is free now; `lasting`: and will be when its server dies and comes back."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, random.choice(_LASTING) if lasting else 0))
            port: int = probe.getsockname()[1]
            return port


def token_of(organisation: str) -> str:
    return f"token-of-{organisation}"


def client_settings() -> list[dict[str, str]]:
    return [
        {
            "organisation": name,
            "role": role,
            "token_sha256": hashlib.sha256(token_of(name).encode()).hexdigest(),
        }
        for name, role in ROLES.items()
    ]


@contextmanager
def mosquitto(folder: Path, *extra: str, port: int = 0) -> Iterator[int]:
    """A real broker on a loopback port: a free one, or the one that is asked for."""
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    port = port or free_port()
    settings = [f"listener {port} {HOST}", "allow_anonymous true", "max_inflight_messages 0",
                "max_queued_messages 0", *extra]  # fmt: skip
    path = folder / "mosquitto.conf"
    path.write_text("\n".join(settings) + "\n")
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([binary, "-c", str(path)], stdout=log, stderr=log)
    try:
        wait_for_port(port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def wait_for_port(port: int, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.01)
    raise TimeoutError(f"nothing listens on port {port}")


@dataclass
class Lab:
    """Settings of one service and the clients of its organisations."""

    folder: Path
    market_epoch: datetime
    speed: float = 60.0
    minutes: int = 5
    sections: dict[str, Any] = field(default_factory=dict)
    wall_epoch: float = field(default_factory=time.time)
    url: str = ""
    clients: dict[tuple[str, str], Client] = field(default_factory=dict)

    @property
    def settings_file(self) -> Path:
        return self.folder / "flexway.toml"

    def write_settings(self) -> Path:
        self.settings_file.write_text(
            to_toml(
                {
                    "lab": True,
                    "market": {
                        "timezone": "America/Los_Angeles",
                        "settlement_minutes": self.minutes,
                        "currency": "USD",
                    },
                    "time": {
                        "market_epoch": self.market_epoch.isoformat(),
                        "wall_epoch": self.wall_epoch,
                        "speed": self.speed,
                    },
                    "store": {"root_every_s": 0.2},
                    "api": {"port": 0, "clients": client_settings()},
                    **self.sections,
                }
            )
        )
        return self.settings_file

    def start(
        self, *, module: str = "gateway", arguments: Sequence[str] = ("serve",), wait: bool = True
    ) -> Child:  # fmt: skip
        """Start a service; `wait`: and return once its API answers."""
        ready = self.folder / "gateway.ready.json"
        child = PreloadedChild(
            "gateway",
            [module, *arguments, "--config", str(self.settings_file), "--ready-file", str(ready)],
            self.folder,
        )
        if wait:
            self.url = child.wait_ready(60)["url"]
        return child

    def client(self, organisation: str) -> Client:
        """One client per service and organisation; `close` closes them."""
        key = (self.url, organisation)
        if key not in self.clients:
            self.clients[key] = Client(self.url, token_of(organisation))
        return self.clients[key]

    def close(self) -> None:
        for client in self.clients.values():
            client.close()

    def market_now(self) -> datetime:
        elapsed = (time.time() - self.wall_epoch) * self.speed
        return self.market_epoch + timedelta(seconds=elapsed)


def contract(
    lab: Lab,
    assets: Sequence[Mapping[str, Any]],
    *,
    kw: float,
    window: Mapping[str, str],
    baseline: str = "meter_before_after",
) -> str:
    """Register assets, publish a need, bid, clear and sign; return the need's id."""
    buyer, seller = lab.client("org_buyer"), lab.client("org_seller")
    seller.register_assets(assets)
    need: str = buyer.publish_need({
        "feeder": "F-114", "direction": "UP", "kw": kw, "window": window, "price_cap": "600",
        "currency": "USD", "baseline": baseline,
    })["id"]  # fmt: skip
    names = [asset["id"] for asset in assets]
    seller.bid(need, {"assets": names, "kw": kw, "utilisation_price": "300"})
    buyer.clear(need)
    for agreed in buyer.contracts(need):
        buyer.sign(agreed["id"])
        seller.sign(agreed["id"])
    return need


def wait_for(condition: Any, *, seconds: float, what: str, every_s: float = 0.02) -> Any:
    """Poll until a condition gives something true; TimeoutError names what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(every_s)
    raise TimeoutError(f"waited {seconds:g} s for {what}")


def next_period(at: datetime, minutes: int) -> datetime:
    step = timedelta(minutes=minutes)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + -(-(at - epoch) // step) * step
