"""The pipe to a virtual day's devices: what is said of a child that is gone or talks nonsense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.lockstep.pipe import DevicePipe, PipeError

pytestmark = pytest.mark.process
NOW = datetime(2017, 7, 20, 16, 0, tzinfo=UTC)
_CHILD = """
import struct, sys
import msgspec

def ask():
    head = sys.stdin.buffer.read(4)
    if not head:
        sys.exit(0)
    return msgspec.msgpack.decode(sys.stdin.buffer.read(struct.unpack(">I", head)[0]))

def answer(value):
    body = msgspec.msgpack.encode(value)
    sys.stdout.buffer.write(struct.pack(">I", len(body)) + body)
    sys.stdout.buffer.flush()

"""
MakePipe = Callable[[str], DevicePipe]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "devices.log"


@pytest.fixture
def pipe_to(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePipe]:
    """A pipe to a child that runs a few lines of Python."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started: list[DevicePipe] = []

    def make(lines: str) -> DevicePipe:
        (tmp_path / "child_of_a_test.py").write_text(_CHILD + lines)
        pipe = DevicePipe(["child_of_a_test"], log, lambda: NOW)
        pipe.start()
        started.append(pipe)
        return pipe

    yield make
    for pipe in started:
        pipe.end()


def test_a_request_carries_the_market_time_and_brings_its_answer(pipe_to: MakePipe) -> None:
    pipe = pipe_to("while True: answer({'heard': ask()})")
    heard = pipe.ask("set", device="bat-1", power_kw=1.5)["heard"]
    now_us = round(NOW.timestamp() * 1e6)
    assert heard == {"op": "set", "now_us": now_us, "device": "bat-1", "power_kw": 1.5}
    assert pipe.ask("hello")["heard"] == {"op": "hello", "now_us": now_us}
    assert pipe.end() == 0


def test_a_child_that_ended_is_reported_with_where_it_says_why(
    pipe_to: MakePipe, log: Path
) -> None:
    pipe = pipe_to("ask(); sys.exit('out of fuel')")
    with pytest.raises(PipeError, match="the devices' process ended") as caught:
        pipe.ask("step")
    assert str(log) in str(caught.value)
    assert "out of fuel" in log.read_text()


def test_a_child_that_ends_within_an_answer_is_reported(pipe_to: MakePipe) -> None:
    half = "ask(); sys.stdout.buffer.write(struct.pack('>I', 100) + bytes(10))"
    with pytest.raises(PipeError, match="ended within an answer"):
        pipe_to(half).ask("step")


def test_an_answer_that_is_none_is_reported(pipe_to: MakePipe) -> None:
    with pytest.raises(PipeError, match="no answer"):
        pipe_to("ask(); sys.stdout.buffer.write(struct.pack('>I', 1) + b'\\xc1')").ask("step")


def test_a_refusal_says_what_was_refused_and_the_next_request_is_served(pipe_to: MakePipe) -> None:
    pipe = pipe_to("ask(); answer({'error': 'there is no device'}); ask(); answer({'fine': 1})")
    with pytest.raises(PipeError, match="the devices refuse set: there is no device"):
        pipe.ask("set")
    assert pipe.ask("step") == {"fine": 1}


def test_an_answer_longer_than_any_day_is_not_waited_for(pipe_to: MakePipe) -> None:
    huge = "ask(); sys.stdout.buffer.write(struct.pack('>I', 2**31)); sys.stdout.buffer.flush()"
    with pytest.raises(PipeError, match="an answer of 2147483648 bytes"):
        pipe_to(huge + "; ask()").ask("step")


def test_a_pipe_that_was_not_started_says_so(log: Path) -> None:
    with pytest.raises(PipeError, match="was not started"):
        DevicePipe(["nothing"], log, lambda: NOW).ask("hello")


def test_a_child_that_is_gone_is_ended_like_any_other(pipe_to: MakePipe) -> None:
    """Whoever tidies up after the error must not lose it to another one."""
    pipe = pipe_to("import os; ask(); os.close(0); answer({}); os._exit(4)")
    pipe.ask("step")
    with pytest.raises(PipeError, match="the devices' process is gone"):
        pipe.ask("step")
    assert pipe.end() == 4


def test_the_exit_code_of_the_child_is_handed_on(pipe_to: MakePipe) -> None:
    assert pipe_to("sys.stdin.buffer.read(); sys.exit(3)").end() == 3
