"""`flexway serve`: the service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path

import click
import structlog
import uvloop

from config.files import file_findings
from config.loading import read_settings
from config.settings import Settings
from gateway.app import Application
from gateway.bootstrap import build, build_worker
from gateway.collector import settle
from gateway.observability.logs import configure_logs
from gateway.observability.systemd import Systemd, systemd
from marketplace_core.errors import ConfigError, FlexwayError
from marketplace_core.shards import EVERY_SHARD, ShardRange, shard_range

_log = structlog.get_logger(__name__)


class Role(StrEnum):
    """What a process of the service does."""

    ALL = "all"
    DISPATCH = "dispatch"
    INGEST = "ingest"


def _shards(_context: click.Context, _option: click.Parameter, text: str | None) -> object:
    try:
        return None if text is None else shard_range(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(
    epilog="""\b
Examples:
  flexway serve --config /etc/flexway/flexway.toml
  flexway serve --config FILE --role dispatch
  flexway serve --config FILE --role ingest --shards 00-7f --port 9101
  flexway serve --config FILE --role ingest --shards 80-ff --port 9102
""",
)
@click.option(
    "--config", "config_file", required=True,
    type=click.Path(dir_okay=False, path_type=Path), help="Settings, TOML.",
)  # fmt: skip
@click.option(
    "--ready-file", type=click.Path(dir_okay=False, path_type=Path),
    help="Written with the API's address once requests are taken.",
)  # fmt: skip
@click.option(
    "--role", type=click.Choice([role.value for role in Role]), default=Role.ALL.value,
    show_default=True,
    help="dispatch: everything but MQTT telemetry, which ingest workers take in.",
)  # fmt: skip
@click.option(
    "--shards", callback=_shards, default=None, metavar="80-ff",
    help="Of an ingest worker: the shards of the topic tree that it takes in.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(0, 65535), default=None,
    help="Of an ingest worker: /healthz, /readyz and /metrics on loopback; 0 = any free port.",
)  # fmt: skip
def serve(
    config_file: Path,
    ready_file: Path | None,
    role: str,
    shards: ShardRange | None,
    port: int | None,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C.

    With --role ingest it takes in the MQTT telemetry of whole shards only; any number of such
    workers share the readings in PostgreSQL with one gateway of --role dispatch.

    A device or broker that is away does not stop the start: it is shown by /readyz, logged
    and retried. Under systemd (Type=notify) it says when it is ready and feeds the watchdog.
    """
    if role != Role.INGEST and (shards is not None or port is not None):
        raise click.UsageError("--shards and --port are for --role ingest")
    settings = usable_settings(config_file)
    if role == Role.INGEST:
        service = run_worker(settings, ready_file, shards or EVERY_SHARD, port)
    else:
        make = partial(build, workers=role == Role.DISPATCH)
        service = run_service(settings, ready_file, make)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(service)
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
    stop = _stop_signal()
    application = make(settings)
    settle()

    def started() -> None:
        _log.info("serving", url=application.url)
        _write_ready(ready_file, application.url)

    supervisor = systemd()
    async with _supervised(supervisor, stop, lambda: application.writer.alive):
        await application.run(stop, started, lambda: supervisor.ready(f"serving {application.url}"))


async def run_worker(
    settings: Settings, ready_file: Path | None, shards: ShardRange, port: int | None
) -> None:
    """Run an ingest worker until SIGTERM or SIGINT."""
    stop = _stop_signal()
    worker = build_worker(settings, shards, port)
    settle()

    def started() -> None:
        _log.info("taking_in", shards=str(shards), url=worker.url)
        _write_ready(ready_file, worker.url)

    supervisor = systemd()
    async with _supervised(supervisor, stop, lambda: worker.readings.alive):
        await worker.run(stop, started, lambda: supervisor.ready(f"taking in shards {shards}"))


def _stop_signal() -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


@asynccontextmanager
async def _supervised(
    supervisor: Systemd, stop: asyncio.Event, alive: Callable[[], bool]
) -> AsyncIterator[None]:
    """Feed systemd's watchdog while `alive`, and say when it stops."""
    async with asyncio.TaskGroup() as tasks:
        beside = [
            tasks.create_task(supervisor.feed_watchdog(alive)),
            tasks.create_task(_say_stopping(supervisor, stop)),
        ]
        yield
        for task in beside:
            task.cancel()
    _log.info("stopped")


async def _say_stopping(supervisor: Systemd, stop: asyncio.Event) -> None:
    await stop.wait()
    supervisor.stopping()


def _write_ready(ready_file: Path | None, url: str) -> None:
    if ready_file is None:
        return
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
