"""SIGTERM ends the service cleanly: exit code 0, no task, thread or lock left behind."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import httpx
import pytest

from config.loading import load_settings
from gateway.bootstrap import build
from tests.harness.street import street

pytestmark = [pytest.mark.process]


async def test_no_task_and_no_thread_is_left_behind(tmp_path: Path) -> None:
    with street(tmp_path) as here:
        threads = set(threading.enumerate())
        application = build(load_settings(here.lab.settings_file))
        stop, started = asyncio.Event(), asyncio.Event()
        url = "http://{}:{}".format(*application.listener.getsockname())
        running = asyncio.get_running_loop().create_task(application.run(stop, started.set))
        await asyncio.wait_for(started.wait(), 20)
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/healthz")).status_code == 200
        stop.set()
        await asyncio.wait_for(running, 20)
        await asyncio.sleep(0)  # done callbacks of the last tasks
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, [task.get_name() for task in left]
        ours = {t.name for t in set(threading.enumerate()) - threads}
        assert not ours & {"market-writer", "readings-writer"}


def test_sigterm_exits_zero_and_says_so_in_json(tmp_path: Path) -> None:
    with street(tmp_path) as here:
        gateway = here.lab.start()
        here.await_telemetry()
        assert gateway.stop() == 0
        lines = gateway.tail(200).splitlines()
    events = [json.loads(line)["event"] for line in lines]  # not a terminal: one JSON a line
    assert events[-1] == "stopped"
