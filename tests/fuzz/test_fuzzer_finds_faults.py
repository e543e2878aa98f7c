"""The fuzzer can fail: a planted fault of each kind is found, in the frame that shows it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

import tests.fuzz.__main__ as command
from tests.fuzz.judge import BATCH, SLOW_NS, Target, batch, run

FRAMES = 4 * BATCH
KEPT: list[bytes] = []
SEEDS = (b"\x01hello", b"\x02world, longer than the other")


def crash(frame: bytes) -> bool:
    return frame[:1] != b"\x03" or bool(frame[999])


def wrong_error(frame: bytes) -> bool:
    if frame.startswith(b"\x02"):
        raise KeyError("not what was promised")
    raise ValueError("as promised")


def slow(frame: bytes) -> bool:
    until = time.thread_time_ns() + (SLOW_NS * 2 if frame[:1] == b"\x03" else 0)
    while time.thread_time_ns() < until:
        pass
    return True


def hang(frame: bytes) -> bool:
    while frame[:1] == b"\x03":
        pass
    return True


def leak(frame: bytes) -> bool:
    KEPT.append(frame + b".")
    return True


def large_leak(frame: bytes) -> bool:
    """Few blocks, much memory: as a library written in C keeps it."""
    if len(frame) % 8 == 0:
        KEPT.append(bytes(100_000))
    return True


def sound(frame: bytes) -> bool:
    if not frame:
        raise ValueError("as promised")
    return len(frame) > 3


def planted(feed: Callable[[bytes], bool]) -> Target:
    return Target(feed.__name__, feed, (ValueError,), SEEDS, tokens=(b"\x03",))


@pytest.mark.parametrize(
    ("feed", "kind", "words"),
    [
        (crash, "crash", "IndexError at test_fuzzer_finds_faults.py"),
        (wrong_error, "crash", "KeyError"),
        (slow, "slow", "ms of processor time"),
        (hang, "hang", "no answer"),
    ],
)
def test_a_planted_fault_is_found_with_its_frame(
    feed: Callable[[bytes], bool], kind: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fuzz.judge.HANG_S", 0.2 if feed is hang else 5.0)
    verdict = run(planted(feed), FRAMES, seed=7)
    assert {fault.kind for fault in verdict.faults} == {kind}
    assert words in verdict.faults[0].words
    assert verdict.faults[0].frame[:1] in {b"\x02", b"\x03"}


@pytest.mark.parametrize("feed", [leak, large_leak])
def test_a_planted_leak_is_found_and_the_line_is_named(feed: Callable[[bytes], bool]) -> None:
    try:
        verdict = run(planted(feed), 3 * FRAMES, seed=7)
    finally:
        KEPT.clear()
    (fault,) = verdict.faults
    assert fault.kind == "leak"
    assert "test_fuzzer_finds_faults.py" in fault.words


def test_a_sound_codec_is_not_blamed() -> None:
    verdict = run(planted(sound), FRAMES, seed=7)
    assert verdict.faults == []
    assert (verdict.frames, verdict.understood > FRAMES // 2) == (FRAMES, True)


def test_the_same_seed_makes_the_same_frames_and_another_seed_others() -> None:
    target = planted(sound)
    assert batch(target, 7, 3) == batch(target, 7, 3)
    assert batch(target, 7, 3) != batch(target, 8, 3)
    assert batch(target, 7, 3) != batch(target, 7, 4)
    assert len(set(batch(target, 7, 3))) > BATCH // 2


def test_what_was_slow_once_and_is_not_again_is_no_fault() -> None:
    slept: list[bytes] = []

    def once(frame: bytes) -> bool:
        if not slept:
            slept.append(frame)
            return slow(b"\x03")
        return True

    assert run(planted(once), BATCH, seed=7).faults == []


@pytest.mark.process
def test_a_codec_that_takes_its_process_along_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As lxml did: the parent makes the frame again that the child died of."""
    target = planted(sound)
    monkeypatch.setitem(command.TARGETS, "planted", target)
    wanted = batch(target, 7, 2)[345]

    def dies(arguments: list[str], **_: object) -> object:
        pid = os.fork()
        if pid == 0:

            def last(frame: bytes) -> bool:
                if frame == wanted:
                    os.kill(os.getpid(), signal.SIGKILL)
                return True

            monkeypatch.setitem(command.TARGETS, "planted", planted(last))
            place = command.Path(arguments[arguments.index("--place") + 1])
            monkeypatch.setitem(
                command.TARGETS, "planted", Target("sound", last, (), SEEDS, tokens=(b"\x03",))
            )
            command.fuzz_here("planted", FRAMES, 7, place)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return command.subprocess.CompletedProcess(arguments, code, "", "")

    monkeypatch.setattr(command.subprocess, "run", dies)
    (fault,) = command.fuzz("planted", FRAMES, 7).faults
    assert (fault.kind, fault.frame) == ("crash", wanted)
    assert str(-signal.SIGKILL) in fault.words
