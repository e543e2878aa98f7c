"""The AsyncAPI document: shipped as it is made, sound in itself, true to the decoders."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

from adapters.mqtt import wire
from adapters.mqtt.access import device_login
from adapters.mqtt.asyncapi import EXAMPLES, document
from gateway.cli import flexway

SHIPPED = Path(__file__).parents[4] / "docs/asyncapi.json"
DOCUMENT: Final = json.loads(json.dumps(document()))
KINDS: Final = ("telemetry", "command", "ack", "stored", "status")
DECODERS: Final[dict[str, Callable[[bytes], Any]]] = {
    "telemetry": wire.decode_telemetry, "command": wire.decode_command,
    "ack": wire.decode_acknowledgement, "stored": wire.decode_stored,
    "status": wire.decode_status,
}  # fmt: skip


def test_the_shipped_document_is_the_one_that_is_made() -> None:
    assert json.loads(SHIPPED.read_text(encoding="utf-8")) == DOCUMENT, (
        "python -m gateway broker asyncapi --out docs/asyncapi.json"
    )


def test_the_command_prints_and_writes_it(tmp_path: Path) -> None:
    printed = CliRunner().invoke(flexway, ["broker", "asyncapi"])
    assert json.loads(printed.output) == DOCUMENT
    file = tmp_path / "profile.json"
    assert CliRunner().invoke(flexway, ["broker", "asyncapi", "--out", str(file)]).exit_code == 0
    assert file.read_text() == printed.output
    away = CliRunner().invoke(flexway, ["broker", "asyncapi", "--out", str(tmp_path / "no/f")])
    assert away.exit_code == 1
    assert "cannot be written" in away.output


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def resolve(reference: str) -> Any:
    found: Any = DOCUMENT
    assert reference.startswith("#/")
    for level in reference[2:].split("/"):
        found = found[level]
    return found


def test_every_reference_resolves() -> None:
    found = list(references(DOCUMENT))
    assert len(found) > 20
    for reference in found:
        assert isinstance(resolve(reference), dict)


def test_the_document_has_the_form_of_asyncapi_3() -> None:
    """AsyncAPI 3.0.0: Info, Channel, Operation and Message Object, fixed fields."""
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(DOCUMENT["info"])
    fixed = {
        "channels": {"address", "messages", "title", "summary", "description", "servers",
                     "parameters", "tags", "externalDocs", "bindings"},
        "operations": {"action", "channel", "title", "summary", "description", "security", "tags",
                       "externalDocs", "bindings", "traits", "messages", "reply"},
    }  # fmt: skip
    for section, fields in fixed.items():
        for part in DOCUMENT[section].values():
            assert set(part) <= fields
    message = {"headers", "payload", "correlationId", "contentType", "name", "title", "summary",
               "description", "tags", "externalDocs", "bindings", "examples", "traits",
               "x-messagepack-hex"}  # fmt: skip
    for part in DOCUMENT["components"]["messages"].values():
        assert set(part) <= message
    for server in DOCUMENT["servers"].values():
        assert {"host", "protocol"} <= set(server)
        assert set(re.findall(r"{(\w+)}", server["host"])) == set(server["variables"])


def test_every_kind_is_a_channel_and_its_address_is_the_topic() -> None:
    assert set(DOCUMENT["channels"]) == set(KINDS) == set(wire.TYPES)
    for kind, channel in DOCUMENT["channels"].items():
        address = channel["address"]
        assert set(re.findall(r"{(\w+)}", address)) == set(channel["parameters"])
        values = {"organisation": "org_a", "shard": "a7", "device": "ev-1"}
        assert address.format(**values) == wire.topic("org_a", "ev-1", kind)


def test_every_operation_has_the_direction_of_the_access_rules() -> None:
    login = device_login("org_a", "ev-1")
    actions = {}
    for name, operation in DOCUMENT["operations"].items():
        kind = operation["channel"]["$ref"].removeprefix("#/channels/")
        assert name == operation["action"] + kind.capitalize()
        actions[kind] = operation["action"]
        mine = {
            f"#/channels/{kind}/messages/{one}" for one in DOCUMENT["channels"][kind]["messages"]
        }
        assert {one["$ref"] for one in operation["messages"]} <= mine
        binding = operation["bindings"]["mqtt"]
        assert (binding["qos"], binding["retain"]) == (1, kind == "status")
    assert set(actions) == set(KINDS)
    for kind, action in actions.items():
        written = wire.topic("org_a", "ev-1", kind) in login.writes  # by the device
        assert action == ("receive" if written else "send")
    assert DOCUMENT["operations"]["sendCommand"]["reply"]["channel"] == {"$ref": "#/channels/ack"}


@pytest.mark.parametrize("kind", KINDS)
def test_examples_decode_in_both_encodings(kind: str) -> None:
    message = DOCUMENT["components"]["messages"][kind]
    (example,) = message["examples"]
    as_json = DECODERS[kind](json.dumps(example["payload"]).encode())
    as_msgpack = DECODERS[kind](bytes.fromhex(message["x-messagepack-hex"]))
    assert as_json == as_msgpack == EXAMPLES[kind]


def numbers(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for one in schema.get("anyOf", [schema]):
        if one.get("type") in {"integer", "number"}:
            yield one


def beyond(schema: dict[str, Any]) -> Iterator[float]:
    """The nearest values that a schema refuses."""
    step = 1 if schema["type"] == "integer" else 1e-3
    for key, value in (
        ("minimum", -step), ("maximum", step), ("exclusiveMinimum", 0), ("exclusiveMaximum", 0),
    ):  # fmt: skip
        if key in schema:
            limit = schema[key]
            yield limit + (value if abs(limit) < 1e6 or value == 0 else value * abs(limit))


@pytest.mark.parametrize("kind", KINDS)
def test_limits_that_are_stated_are_kept(kind: str) -> None:
    """What a schema refuses, the decoder refuses: field by field, one step beyond."""
    message = DOCUMENT["components"]["messages"][kind]
    schema, payload = resolve(message["payload"]["$ref"]), message["examples"][0]["payload"]
    tried = 0
    for name, field in schema["properties"].items():
        for part in numbers(field):
            for value in beyond(part):
                wrong = json.dumps({**payload, name: value}).encode()
                with pytest.raises(wire.WireError):
                    DECODERS[kind](wrong)
                tried += 1
    assert tried >= 2
    for name in schema["required"]:
        less = {key: value for key, value in payload.items() if key != name}
        with pytest.raises(wire.WireError):
            DECODERS[kind](json.dumps(less).encode())


def test_limits_of_a_reading_are_kept() -> None:
    schema = DOCUMENT["components"]["schemas"]["WireReading"]
    assert [item["title"] for item in schema["items"]] == list(wire.WireReading.__struct_fields__)
    row = [1, 1_767_225_600_000_000, 60.0, -1.0, -1.0, 1.0, True, 1.0, 1_767_225_600_000_000]

    def decode(readings: list[Any]) -> wire.Telemetry:
        return wire.decode_telemetry(json.dumps({"boot": 1, "readings": readings}).encode())

    assert len(decode([row]).readings) == 1
    for place, item in enumerate(schema["items"]):
        for part in numbers(item):
            for value in beyond(part):
                with pytest.raises(wire.WireError):
                    decode([[*row[:place], value, *row[place + 1 :]]])
    with pytest.raises(wire.WireError):
        decode([row[: schema["minItems"] - 1]])


def test_units_are_said_where_the_types_say_them() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert "Wall seconds" in schemas["Command"]["properties"]["lease_s"]["description"]
    texts = {item["title"]: item.get("description", "") for item in schemas["WireReading"]["items"]}
    assert "injection positive" in texts["power_w"]
