"""The codecs that are fuzzed."""

from __future__ import annotations

from typing import Final

from tests.fuzz.judge import Target
from tests.fuzz.targets import modbus, mqtt, openadr, sparkplug, webhook

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for target in (*mqtt.TARGETS, *sparkplug.TARGETS, *modbus.TARGETS, *openadr.TARGETS,
                   *webhook.TARGETS)
}  # fmt: skip


def shares(frames: int) -> dict[str, int]:
    """How many of `frames` each codec takes: cheap ones take more, the sum is no less."""
    whole = sum(target.share for target in TARGETS.values())
    return {name: -(-frames * target.share // whole) for name, target in TARGETS.items()}
