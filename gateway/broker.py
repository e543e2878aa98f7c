"""The embedded MQTT broker, for demos and small sites: nothing to install.

It speaks MQTT 3.1.1 only, keeps nothing on disk and carries a few hundred messages a
second; a fleet wants Mosquitto. Run as a process of its own it survives a restart of
the gateway.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import click
import uvloop
from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig

from marketplace_core.errors import ConfigError

_LISTENER = "default"
_LONGEST_CLOSE_S = 5.0


def broker_settings(password_file: Path | None, *, lab: bool) -> dict[str, object]:
    """Settings of the broker; connections are accepted by `serve_broker` itself.

    Raises: ConfigError when neither a password file nor the lab switch is given.
    """
    if password_file is not None:
        plugins: dict[str, dict[str, object]] = {
            "amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(password_file)}
        }
    elif lab:
        plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    else:
        raise ConfigError("give the broker a password file, or the lab switch on loopback")
    return {
        "listeners": {_LISTENER: {"type": "external"}},
        "timeout_disconnect_delay": 2,
        "plugins": plugins,
    }


async def serve_broker(
    host: str,
    port: int,
    started: Callable[[int], None],
    *,
    password_file: Path | None = None,
    lab: bool = False,
) -> None:
    """Serve until cancelled; `started` is told the port (0 asks for any free one).

    Raises: ConfigError without a password file, unless `lab` is set on a loopback address.
    """
    if password_file is None and not (lab and _is_loopback(host)):
        raise ConfigError("give the broker a password file, or the lab switch on loopback")
    broker = Broker(BrokerConfig.from_dict(broker_settings(password_file, lab=lab)))
    await broker.start()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await broker.external_connected(
            StreamReaderAdapter(reader), StreamWriterAdapter(writer), _LISTENER
        )

    try:
        server = await asyncio.start_server(accept, host, port)
        async with server:
            started(server.sockets[0].getsockname()[1])
            await server.serve_forever()
    finally:
        async with asyncio.timeout(_LONGEST_CLOSE_S):
            await broker.shutdown()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def _serve_until_signal(
    host: str, port: int, password_file: Path | None, ready_file: Path | None, *, lab: bool
) -> None:
    def started(real_port: int) -> None:
        if ready_file is not None:
            partial = ready_file.with_suffix(".partial")
            partial.write_text(json.dumps({"host": host, "port": real_port}), encoding="utf-8")
            partial.replace(ready_file)
        else:
            click.echo(json.dumps({"host": host, "port": real_port}))

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(
            serve_broker(host, port, started, password_file=password_file, lab=lab)
        )
        await stop.wait()
        serving.cancel()


@click.command(epilog="Example: python -m gateway.broker --port 1883 --password-file passwords")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=1883, show_default=True, help="0 = any free port.")
@click.option("--password-file", type=click.Path(exists=True, path_type=Path))
@click.option("--lab", is_flag=True, help="Let anybody connect; loopback only.")
@click.option("--ready-file", type=click.Path(path_type=Path))
def main(
    host: str, port: int, password_file: Path | None, ready_file: Path | None, *, lab: bool
) -> None:
    """Run the embedded broker until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.ERROR)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve_until_signal(host, port, password_file, ready_file, lab=lab))
    except* ConfigError as errors:
        raise click.UsageError(str(errors.exceptions[0])) from None


if __name__ == "__main__":
    main()
