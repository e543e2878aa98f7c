"""The lockstep as a real process: frames over a pipe, repeatable to the byte, robust."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgpack
import pytest

from firmware_sim.planning import Planned
from firmware_sim.scenario import save
from tests.harness.pipe_client import MINUTE_US, PipeClient

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def files(day: Planned, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("day")
    save(day.scenario, folder / "scenario.json")
    save(day.world, folder / "world.json")
    return folder / "scenario.json", folder / "world.json"


def play(files: tuple[Path, Path], truth: Path) -> tuple[str, Counter[str]]:
    """The whole day, everybody driven in both events; a hash of every answer."""
    digest, kinds = hashlib.sha256(), Counter[str]()
    with PipeClient(*files, "--truth", str(truth)) as client:
        hello = client.hello()
        digest.update(client.raw)
        start, minutes = client.now_us, (hello["end_us"] - hello["start_us"]) // MINUTE_US
        for minute in range(minutes):
            frames = client.step()
            digest.update(client.raw)
            kinds.update(frame["kind"] for frame in frames)
            client.confirm(frames)
            if minute in {120, 420}:
                kw = -2.0 if minute == 120 else 1.0
                for device in hello["devices"]:
                    client.set(device, kw, minutes=120, order_id=f"ord_{minute}")
                    digest.update(client.raw)
            if minute in {150, 152}:
                client.ask("link", protocol="mqtt", up=minute == 152)
        assert client.now_us == start + minutes * MINUTE_US
        assert client.ask("end") == {}
        assert client.process.wait(10) == 0
    return digest.hexdigest(), kinds


def test_the_same_inputs_give_the_same_bytes_and_the_same_truth(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    first, kinds = play(files, tmp_path / "one")
    second, _ = play(files, tmp_path / "two")
    assert first == second
    one, two = (tmp_path / name / "truth.jsonl" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert set(kinds) == {"mqtt", "sample", "silent"}


def test_truth_has_every_device_each_minute_every_fault_once_and_nothing_else(
    day: Planned, files: tuple[Path, Path], tmp_path: Path
) -> None:
    with PipeClient(*files, "--truth", str(tmp_path)) as client:
        hello = client.hello()
        client.step(630)
        client.ask("end")
    rows = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    powers = [row for row in rows if set(row) == {"at", "device", "power_kw"}]
    faults = [row for row in rows if set(row) == {"at", "until", "device", "fault"}]
    assert len(powers) + len(faults) == len(rows)
    assert Counter(row["device"] for row in powers) == dict.fromkeys(hello["devices"], 630)
    assert [(row["device"], row["fault"]) for row in faults] == [
        (fault.device, fault.kind.value) for fault in day.world.faults
    ]


def test_requests_that_make_no_sense_are_answered_and_the_next_one_is_served(
    files: tuple[Path, Path],
) -> None:
    with PipeClient(*files) as client:
        start = client.hello()["start_us"]
        for body, says in (
            (b"\xc1", "malformed"),
            (msgpack.packb({"op": "fly", "now_us": start}), "fly"),
            (msgpack.packb({"op": "step", "now_us": start}), "until_us"),
            (msgpack.packb({"op": "step", "now_us": start, "until_us": "soon"}), "until_us"),
            (msgpack.packb({"op": "step", "now_us": 2**62, "until_us": start}), "date"),
            (msgpack.packb({"op": "query", "now_us": start, "device": "x"}), "no device 'x'"),
            (msgpack.packb({"op": "step", "now_us": start, "until_us": start + 1}), "by whole"),
        ):  # fmt: skip
            client.send(body)
            answer = client.receive()
            assert set(answer) == {"error"}
            assert says in answer["error"]
        assert len(client.step()) > 60


def test_the_end_of_the_input_is_the_end_of_the_process(files: tuple[Path, Path]) -> None:
    with PipeClient(*files) as client:
        client.hello()
    assert client.process.returncode == 0


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"\x00\x00", "within the length"),
        (struct.pack(">I", 5) + b"ab", "2 of 5 bytes"),
        (struct.pack(">I", 2**31), "at most"),
    ],
)
def test_a_broken_stream_ends_the_process_with_the_reason(
    files: tuple[Path, Path], sent: bytes, says: str
) -> None:
    named = ["--scenario", str(files[0]), "--world", str(files[1])]
    done = subprocess.run(
        [sys.executable, "-m", "firmware_sim", "lockstep", *named],
        input=sent, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == b""
    assert says in done.stderr.decode()
