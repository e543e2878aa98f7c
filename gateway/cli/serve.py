"""`flexway serve`: the service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import structlog
import uvloop

from config.files import file_findings
from config.loading import read_settings
from config.settings import Settings
from gateway.app import Application
from gateway.bootstrap import build
from gateway.collector import settle
from gateway.observability.logs import configure_logs
from gateway.observability.systemd import Systemd, systemd
from marketplace_core.errors import ConfigError, FlexwayError

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
    """Run the gateway until SIGTERM or Ctrl-C.

    A device or broker that is away does not stop the start: it is shown by /readyz, logged
    and retried. Under systemd (Type=notify) it says when it is ready and feeds the watchdog.
    """
    settings = usable_settings(config_file)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_service(settings, ready_file))
    except BaseExceptionGroup as group:
        raise _expected(group) from group


def usable_settings(config_file: Path) -> Settings:
    """Settings and the files they name, checked; warnings go to the log.

    Raises: ConfigError with everything that keeps the service from starting.
    """
    loaded = read_settings(config_file, os.environ)
    loaded.refuse(loaded.findings)
    if loaded.settings is None:
        raise ConfigError(f"{config_file}: it cannot be used")
    configure_logs(loaded.settings.log_level)
    files = file_findings(loaded.settings, datetime.now(UTC))
    loaded.refuse(files)
    for finding in (*loaded.findings, *files):
        _log.warning("configuration", finding=loaded.sources.explain(finding))
    return loaded.settings


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
    settle()
    supervisor = systemd()

    def started() -> None:
        _log.info("serving", url=application.url)
        if ready_file is not None:
            _write_ready(ready_file, application.url)

    async with asyncio.TaskGroup() as tasks:
        beside = [
            tasks.create_task(supervisor.feed_watchdog(lambda: application.writer.alive)),
            tasks.create_task(_say_stopping(supervisor, stop)),
        ]
        await application.run(stop, started, lambda: supervisor.ready(f"serving {application.url}"))
        for task in beside:
            task.cancel()
    _log.info("stopped")


async def _say_stopping(supervisor: Systemd, stop: asyncio.Event) -> None:
    await stop.wait()
    supervisor.stopping()


def _write_ready(ready_file: Path, url: str) -> None:
    partial = ready_file.with_suffix(".partial")
    partial.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
    partial.replace(ready_file)


def _expected(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one expected failure in a group, or the group when something else failed too."""
    expected, rest = group.split(FlexwayError)
    if expected is None or rest is not None:
        return group
    failure: BaseException = expected
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
