"""What a log shows at its most talkative: our own lines, and nobody's headers."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.observability.logs import configure_logs
from tests.harness.api import service

TOKEN = "a-token-of-nobody"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    text, root = io.StringIO(), logging.getLogger()
    before, level = list(root.handlers), root.level
    configure_logs("debug", text)
    yield text
    configure_logs()
    root.handlers[:] = before
    root.setLevel(level)


def test_a_debug_level_shows_our_own_lines(log: io.StringIO) -> None:
    structlog.get_logger("gateway.stages.plan").debug("looked_at")
    structlog.get_logger("websockets.server").debug("headers")
    assert "looked_at" in log.getvalue()
    assert "headers" not in log.getvalue()


async def test_no_token_of_a_live_stream_is_logged(tmp_path: Path, log: io.StringIO) -> None:
    async with service(tmp_path) as http:
        url = str(http.base_url).replace("http", "ws", 1)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with pytest.raises(InvalidStatus):
            await connect(f"{url}/v1/orders/ord_1/stream", additional_headers=headers)
        await http.get("/v1/orders", headers=headers)
    assert "ord_1/stream" in log.getvalue()
    assert TOKEN not in log.getvalue()
