"""The same seed and scenario give the same bytes; what a device says is what the profile says."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from adapters.mqtt.wire import decode_acknowledgement, decode_status, decode_telemetry
from firmware_sim.fleet.virtual import Said
from tests.harness.fleets import EPOCH_US, play, readings, told, unpacked, virtual

ROOT = Path(__file__).parents[4]
EVERYTHING = ROOT / "firmware_sim/scenarios/bad_afternoon.yaml"
FAULTS = (
    "fault: drop, at: 20, until: 60, devices: {share: 0.3}, share: 0.5",
    "fault: delay, at: 30, until: 90, devices: {share: 0.3}, by: 3.5",
    "fault: replay, at: 40, until: 100, devices: {share: 0.3}, every: 20",
    "fault: reboot, at: 60, devices: {share: 0.3}, down: 7",
    "fault: reconnect_storm, at: 80",
)


def digest(said: list[Said]) -> str:
    return hashlib.sha256(repr(said).encode()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    def run(seed: int) -> list[Said]:
        fleet = virtual(*FAULTS, count=200, seed=seed, old_share=0.1)
        names = fleet.population.ids
        return play(fleet, 120.0, commands=[told(15.0, names[3], 1.0), told(25.0, names[9], -2.0)])

    first = run(7)
    assert len(first) > 2_000
    assert digest(first) == digest(run(7))
    assert digest(first) != digest(run(8))


def test_two_processes_say_the_same() -> None:
    """Whatever the hash seed of the interpreter is."""
    command = [
        sys.executable, "-m", "firmware_sim", "fleet", "play", "--devices", "20", "--seed", "7",
        "--scenario", str(EVERYTHING), "--for", "600", "--interval", "30",
    ]  # fmt: skip
    said = [
        subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": number}, check=True,
            capture_output=True, text=True,
        ).stdout
        for number in ("1", "2")
    ]  # fmt: skip
    assert said[0] == said[1]
    assert "messages in 600 s, SHA-256 " in said[0]


def test_a_fault_touches_nobody_else() -> None:
    """What the others say is the same to the byte."""
    calm = virtual(count=40)
    car = next(name for name in calm.population.ids if "-ev-" in name)
    entry = f"at: 20, until: 60, devices: {{ids: [{car}]}}"
    quiet = play(calm, 100.0)
    for fault in ("drop", "delay, by: 2", "lie, factor: 3", "clock_skew, by: 60"):
        troubled = play(virtual(f"fault: {fault}, {entry}", count=40), 100.0)
        assert [one for one in troubled if one.device != car] == [
            one for one in quiet if one.device != car
        ]
        assert troubled != quiet, fault


def test_telemetry_is_spread_over_the_interval_and_covers_all_time() -> None:
    fleet = virtual(count=400)
    said = play(fleet, 100.0)
    per_second = Counter(int(one.at) for one in said if one.at >= 20.0)
    assert max(per_second.values()) < 2.5 * min(per_second.values())
    for device in fleet.population.ids[:20]:
        rows = readings(said, device)
        assert [row.sequence for row in rows] == list(range(len(rows)))
        assert rows[0].start_us == EPOCH_US
        for before, after in pairwise(rows):
            assert after.start_us == before.start_us + round(before.seconds * 1e6)
        assert all(row.seconds == 10.0 for row in rows[1:])


def test_a_setpoint_is_obeyed_until_its_lease_ends() -> None:
    fleet = virtual(count=30)
    name = next(name for name in fleet.population.ids if "-bat-" in name)
    commands = [told(12.0, name, 2.0, lease_s=30.0, starts_in_s=10.0)]
    said = play(fleet, 80.0, commands=commands)
    [(at, answer)] = unpacked(said, "ack", name)
    assert at == 12.0
    assert answer["status"] == "applied"
    assert decode_acknowledgement(
        next(one.payload for one in said if one.kind == "ack")
    ).id == f"spt-{name}-12"  # fmt: skip
    in_force = [
        (row.start_us - EPOCH_US) / 1e6 + row.seconds
        for row in readings(said, name)
        if row.sample_w == 2_000.0
    ]
    assert in_force
    assert min(in_force) >= 24.0, "it starts ten seconds later and takes two to get there"
    assert max(in_force) <= 53.0, "and its lease ends thirty seconds after that"
    assert readings(said, name)[-1].sample_w == 0.0
    assert fleet.commanded_kw(fleet.population.ids.index(name)) is None


def test_a_setpoint_outside_of_what_it_can_do_is_refused() -> None:
    fleet = virtual(count=30)
    name = next(name for name in fleet.population.ids if "-ev-" in name)
    said = play(fleet, 20.0, commands=[told(12.0, name, 3.0)])
    [(_, answer)] = unpacked(said, "ack", name)
    assert answer["status"] == "refused"
    assert "3 kW is outside of" in answer["reason"]


def test_readings_are_kept_until_they_are_stored() -> None:
    unheard = virtual(count=10)
    said = play(unheard, 100.0, stores=False)
    for number, name in enumerate(unheard.population.ids):
        sent = readings(said, name)
        waiting = unheard.kept(number) - 1 - max(row.sequence for row in sent)
        assert waiting in {0, 1}, "the newest may still be on its way"
        counts = Counter(row.sequence for row in sent)
        assert counts[0] >= 3, "it doubts every thirty seconds"
    heard = virtual(count=10)
    said = play(heard, 105.0)
    assert max(heard.kept(number) for number in range(10)) <= 1
    for name in heard.population.ids:
        assert set(Counter(row.sequence for row in readings(said, name)).values()) == {1}


def test_more_than_it_keeps_is_lost_and_it_says_so() -> None:
    fleet = virtual(count=1, interval_s=1.0)
    fleet._buffers[0][0]._kept = type(fleet._buffers[0][0]._kept)(maxlen=20)
    said = play(fleet, 60.0, stores=False)
    newest = decode_telemetry([one.payload for one in said if one.kind == "telemetry"][-1])
    assert newest.oldest is not None
    assert newest.oldest >= 30


@pytest.mark.parametrize("kind", ["status", "telemetry"])
def test_everything_is_what_the_gateways_codec_reads(kind: str) -> None:
    said = play(virtual(*FAULTS, count=50), 120.0)
    decode = {"status": decode_status, "telemetry": decode_telemetry}[kind]
    found = [decode(one.payload) for one in said if one.kind == kind]
    assert len(found) > 50
