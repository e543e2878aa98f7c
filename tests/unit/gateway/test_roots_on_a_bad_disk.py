"""Signed roots when their disk fails: nothing else stops, and the file is whole again after."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from config.settings import ApiSettings, Settings, StoreSettings
from gateway.bootstrap import build
from gateway.store.roots import RootLog, load_or_create_key, read_roots

AT = datetime(2026, 1, 1, tzinfo=UTC)


def heads(sequence: int) -> dict[int, tuple[int, bytes]]:
    return {0: (sequence, bytes(32))}


def test_a_root_that_was_torn_by_a_full_disk_is_cut_off_before_the_next(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path / "key.pem")
    path = tmp_path / "roots.jsonl"
    log = RootLog(path, key)
    assert log.write(AT, heads(1))
    kept = path.rename(tmp_path / "kept")
    path.mkdir()  # the disk refuses
    with pytest.raises(OSError, match="directory"):
        log.write(AT, heads(2))
    path.rmdir()
    kept.rename(path)
    with path.open("ab") as file:
        file.write(b'{"at": "2026')  # what came onto the disk before it was full
    assert log.write(AT, heads(3))
    assert [root.heads["0"][0] for root in read_roots(path, key.public_key())] == [1, 3]


def test_what_is_not_written_is_not_current(tmp_path: Path) -> None:
    path = tmp_path / "roots.jsonl"
    log = RootLog(path, load_or_create_key(tmp_path / "key.pem"))
    assert log.current_at is None
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        log.write(AT, heads(1))
    assert log.current_at is None
    path.rmdir()
    log.write(AT, heads(1))
    assert log.current_at == AT


def database_away(_: Engine, __: object) -> None:
    raise OperationalError("SELECT", None, ConnectionError("the server is away"))


@pytest.mark.parametrize("away", ["disk", "database"])
async def test_the_service_goes_on_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    store = StoreSettings(
        database=f"sqlite:///{tmp_path}/m.db", readings=tmp_path / "r.db",
        roots=tmp_path / "roots", signing_key=tmp_path / "key.pem", root_every_s=0.02,
    )  # fmt: skip
    application = build(Settings(lab=True, store=store, api=ApiSettings(port=0)))
    if away == "disk":
        store.roots.mkdir()
    stop, started = asyncio.Event(), asyncio.Event()
    url = "http://{}:{}".format(*application.listener.getsockname())
    failures = application.metrics.registry.get_sample_value
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(application.run(stop, started.set))
        await started.wait()
        if away == "database":
            monkeypatch.setattr("gateway.app.run_read", database_away)
        async with asyncio.timeout(20), httpx.AsyncClient(base_url=url) as client:
            while (failures("flexway_journal_root_failures_total") or 0.0) < 3:
                assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).json()["status"] == "ready"
        stop.set()
