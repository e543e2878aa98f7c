"""What memory and time a fleet costs at least: one subscriber, one dict, nothing else.

Keeps of every device its presence and its newest message, decoded; confirms nothing, writes
nothing. Prints the number of messages and of devices each second.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import msgpack
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

_TOPICS = ("flexway/v1/+/+/+/telemetry", "flexway/v1/+/+/+/status")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    latest: dict[str, dict[str, Any]] = {}
    count = 0

    def keep(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        nonlocal count
        _, _, _, _, device, kind = message.topic.split("/")
        decode = json.loads if kind == "status" else msgpack.unpackb
        latest.setdefault(device, {})[kind] = decode(message.payload)
        count += 1

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_message = keep
    client.on_connect = lambda *_: client.subscribe([(topic, 1) for topic in _TOPICS])
    client.connect("127.0.0.1", port)
    printed = 0.0
    while client.loop(timeout=0.2) == paho.MQTT_ERR_SUCCESS:
        if time.monotonic() - printed >= 1.0:
            printed = time.monotonic()
            sys.stdout.write(f"{count} {len(latest)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
