"""The real service, whose event loop hangs at SIGUSR1: `python -m tests.harness.hanger`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from pathlib import Path

from config.loading import load_settings
from config.settings import Settings
from gateway.app import Application
from gateway.bootstrap import build
from gateway.cli.serve import run_service
from gateway.observability.logs import configure_logs


def build_hanging(settings: Settings) -> Application:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, time.sleep, 3600)
    return build(settings)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    options = parser.parse_args()
    settings = load_settings(options.config)
    configure_logs(settings.log_level)
    asyncio.run(run_service(settings, options.ready_file, build_hanging))


if __name__ == "__main__":
    main()
