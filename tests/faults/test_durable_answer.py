"""A 202 comes after fdatasync: seen in the system calls of the real process.

Kill -9 cannot show this (the kernel keeps what was written), so strace has to.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.harness.lab import Lab, contract, next_period, wait_for

pytestmark = [pytest.mark.process]
CALLS = "fdatasync,fsync,read,recvfrom,recvmsg,write,writev,sendto,sendmsg"


def test_fdatasync_of_the_journal_comes_before_the_202(tmp_path: Path) -> None:
    assert shutil.which("strace"), "strace is missing: scripts/services.sh strace installs it"
    lab = Lab(tmp_path, datetime(2017, 7, 20, 22, 0, tzinfo=UTC), speed=1.0)
    lab.wall_epoch = time.time()
    lab.write_settings()
    trace, ready = tmp_path / "trace.txt", tmp_path / "gateway.ready.json"
    process = subprocess.Popen(
        ["strace", "-f", "-y", "-s", "120", "-e", f"trace={CALLS}", "-o", str(trace),
         sys.executable, "-m", "gateway", "serve", "--config", str(lab.settings_file),
         "--ready-file", str(ready)],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(ready.exists, seconds=60, what="the service under strace")
        lab.url = re.search(r"http://[^\"]+", ready.read_text())[0]  # type: ignore[index]
        start = next_period(lab.market_now() + timedelta(minutes=30), 5)
        window = {"start": start.isoformat(),
                  "end": (start + timedelta(minutes=5)).isoformat()}  # fmt: skip
        asset = {"id": "ast-1", "feeder": "F-114", "technology": "any", "devices": ["nobody"],
                 "meter": "nobody", "measurement_point": "device", "up_kw": 5.0}  # fmt: skip
        need = contract(lab, [asset], kw=5.0, window=window)
        order = {"need_id": need, "kw": 5.0, "interval": window}
        lab.client("org_buyer").submit_order(order, key="traced")
    finally:
        if ready.exists():  # strace itself would leave the service running
            os.kill(json.loads(ready.read_text())["pid"], signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
        lab.close()
    check_trace(trace.read_text(errors="replace").splitlines())


def check_trace(lines: list[str]) -> None:
    asked = next(n for n, line in enumerate(lines) if "POST /v1/orders HTTP" in line)
    answered = next(n for n, line in enumerate(lines) if "HTTP/1.1 202" in line)
    between = lines[asked:answered]
    written = [n for n, line in enumerate(between)
               if re.search(r"(p?write\w*)\(\d+<[^>]*market\.db-wal>", line)]  # fmt: skip
    synced = [n for n, line in enumerate(between) if finished_sync(between, n)]
    assert synced, "the answer came without an fdatasync of the journal"
    assert not written or max(written) < max(synced)


def finished_sync(lines: list[str], number: int) -> bool:
    """Whether an fdatasync of the write-ahead log returned 0 on this line."""
    line = lines[number]
    if re.search(r"fdatasync\(\d+<[^>]*market\.db-wal>\)\s+= 0", line):
        return True
    resumed = re.match(r"(\d+)\s+<\.\.\. fdatasync resumed>\)\s+= 0", line)
    if resumed is None:
        return False
    thread = resumed[1]
    return any(
        before.startswith(thread) and "fdatasync(" in before and "market.db-wal" in before
        for before in lines[:number]
    )
