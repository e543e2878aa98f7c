"""The embedded MQTT broker, for demos and small sites: nothing to install.

It speaks MQTT 3.1.1 only and carries a few thousand messages a second; a fleet wants
Mosquitto. Run as a process of its own it survives a restart of the gateway.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
from pathlib import Path

import click
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig

from marketplace_core.errors import ConfigError


def broker_settings(host: str, port: int, password_file: Path | None) -> dict[str, object]:
    """Settings of the broker; without a password file anybody may connect."""
    if password_file is None:
        plugins: dict[str, dict[str, object]] = {
            "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
        }
    else:
        plugins = {
            "amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(password_file)}
        }
    return {
        "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
        "timeout_disconnect_delay": 2,
        "plugins": plugins,
    }


async def serve_broker(
    host: str, port: int, password_file: Path | None, ready_file: Path | None
) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    settings = broker_settings(host, port, password_file)
    broker = Broker(BrokerConfig.from_dict(settings))
    await broker.start()
    if ready_file is not None:
        partial = ready_file.with_suffix(".partial")
        partial.write_text(json.dumps({"host": host, "port": port}), encoding="utf-8")
        partial.replace(ready_file)
    await stop.wait()
    await broker.shutdown()


@click.command(epilog="Example: python -m gateway.broker --port 1883 --password-file passwords")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=1883, show_default=True, help="0 = any free port.")
@click.option("--password-file", type=click.Path(exists=True, path_type=Path))
@click.option("--lab", is_flag=True, help="Let anybody connect; loopback only.")
@click.option("--ready-file", type=click.Path(path_type=Path))
def main(
    host: str, port: int, password_file: Path | None, ready_file: Path | None, *, lab: bool
) -> None:
    """Run the embedded broker."""
    if password_file is None and not (lab and host in {"127.0.0.1", "::1", "localhost"}):
        raise ConfigError("give --password-file, or --lab on a loopback address")
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(serve_broker(host, port or _free_port(host), password_file, ready_file))


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
