"""`flexway serve`: the service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import click
import structlog
import uvloop

from config.loading import load_settings
from config.settings import Settings
from gateway.app import Application
from gateway.bootstrap import build
from gateway.observability.logs import configure_logs

_log = structlog.get_logger(__name__)


@click.command(
    epilog="Example: flexway serve --config /etc/flexway/flexway.toml",
)
@click.option(
    "--config", "config_file", required=True,
    type=click.Path(dir_okay=False, path_type=Path), help="Settings, TOML.",
)  # fmt: skip
@click.option(
    "--ready-file", type=click.Path(dir_okay=False, path_type=Path),
    help="Written with the API's address once requests are taken.",
)  # fmt: skip
def serve(config_file: Path, ready_file: Path | None) -> None:
    """Run the gateway until SIGTERM or Ctrl-C."""
    settings = load_settings(config_file)
    configure_logs(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_service(settings, ready_file))


async def run_service(
    settings: Settings,
    ready_file: Path | None,
    make: Callable[[Settings], Application] = build,
) -> None:
    """Make the service, run it, stop it cleanly on SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    application = make(settings)

    def started() -> None:
        _log.info("serving", url=application.url)
        if ready_file is not None:
            body = json.dumps({"url": application.url, "pid": os.getpid()})
            partial = ready_file.with_suffix(".partial")
            partial.write_text(body, encoding="utf-8")
            partial.replace(ready_file)

    await application.run(stop, started)
    _log.info("stopped")
