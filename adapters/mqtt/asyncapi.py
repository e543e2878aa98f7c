"""The device profile as an AsyncAPI document, made from the types that decode it. No I/O.

AsyncAPI 3.0.0 and its MQTT binding 0.2.0, seen from the gateway: it receives what devices
say and sends commands. Schemas are JSON Schema draft-07, the format that AsyncAPI takes
where none is named.
"""

from __future__ import annotations

import ast
import inspect
from typing import Any, Final

import msgspec

from adapters.mqtt import wire

_BINDING: Final = "0.2.0"
_CONTENT: Final = "application/vnd.msgpack"
_PARAMETERS: Final = {
    "organisation": "Id of the organisation that the device belongs to.",
    "shard": "Two hex digits: SHA-256 of the device id, its first four bytes, big-endian, mod 256.",
    "device": "Id of the device, which is its login at the broker as well.",
}
_SAYS: Final[dict[str, str]] = {
    "telemetry": "Readings. A device keeps them, and sends them again, until `stored` comes.",
    "command": "Set, release or query; never retained. Over MQTT 5 it carries a message expiry, "
    "the id as correlation data and the `ack` topic as response topic.",
    "ack": "What became of a command, and what is in force now.",
    "stored": "Readings that are on disk: the device may forget them.",
    "status": "Presence; retained, and set offline by the Will.",
}
_START_US: Final = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z."""
EXAMPLES: Final[dict[str, msgspec.Struct]] = {
    "telemetry": wire.Telemetry(
        boot=2, oldest=41,
        readings=[
            wire.WireReading(41, _START_US, 60.0, -6600.0, -6580.0),
            wire.WireReading(42, _START_US + 60_000_000, 60.0, -2000.0, -2000.0, 12_500.0),
        ],
    ),
    "command": wire.Command(
        kind="set", id="spt_1", order_id="ord_1", revision=1, power_w=-2000.0, lease_s=600.0,
        ttl_s=5.0, valid_for_s=1800.0,
    ),
    "ack": wire.Acknowledgement(
        id="spt_1", status="applied", setpoint_id="spt_1", power_w=-2000.0, lease_s=599.8
    ),
    "stored": wire.Stored(boot=2, through=42),
    "status": wire.Status(online=True, boot=2),
}  # fmt: skip
"""One message of each kind."""


def document() -> dict[str, Any]:
    """The whole document, ready for JSON."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Flexway device profile over MQTT",
            "version": f"{wire.VERSION}.0.0",
            "description": "What a Flexway gateway and its devices say to each other by way of "
            "a broker. Payloads are MessagePack maps; a device may send the same as JSON. "
            "Power is in watts, positive when it injects; times are Unix microseconds.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": _CONTENT,
        "servers": {"broker": _server()},
        "channels": {kind: _channel(kind) for kind in wire.TYPES},
        "operations": dict(_operation(kind) for kind in wire.TYPES),
        "components": {
            "messages": {kind: _message(kind) for kind in wire.TYPES},
            "schemas": _schemas(),
            "securitySchemes": {
                "password": {"type": "userPassword", "description": "The device id and its own."},
                "certificate": {"type": "X509", "description": "Its CN is the device id."},
            },
        },
    }


def _server() -> dict[str, Any]:
    return {
        "host": "{host}:{port}",
        "protocol": "secure-mqtt",
        "protocolVersion": "5",
        "description": "MQTT 5; 3.1.1 does as well, without expiry, correlation and response "
        "topic.",
        "variables": {"host": {"description": "The site's broker."}, "port": {"default": "8883"}},
        "security": [
            {"$ref": "#/components/securitySchemes/password"},
            {"$ref": "#/components/securitySchemes/certificate"},
        ],
    }


def _channel(kind: str) -> dict[str, Any]:
    levels = "/".join(f"{{{name}}}" for name in _PARAMETERS)
    return {
        "address": f"flexway/v{wire.VERSION}/{levels}/{kind}",
        "description": _SAYS[kind],
        "parameters": {name: {"description": text} for name, text in _PARAMETERS.items()},
        "messages": {kind: {"$ref": f"#/components/messages/{kind}"}},
    }


def _operation(kind: str) -> tuple[str, dict[str, Any]]:
    action = "receive" if kind in wire.FROM_DEVICES else "send"
    made: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": f"#/channels/{kind}"},
        "summary": _SAYS[kind],
        "messages": [{"$ref": f"#/channels/{kind}/messages/{kind}"}],
        "bindings": {
            "mqtt": {"qos": 1, "retain": kind == "status", "bindingVersion": _BINDING},
        },
    }
    if kind == "command":
        made["bindings"]["mqtt"]["messageExpiryInterval"] = {
            "type": "integer", "minimum": 1, "description": "Seconds, as `ttl_s` says.",
        }  # fmt: skip
        made["reply"] = {
            "channel": {"$ref": "#/channels/ack"},
            "messages": [{"$ref": "#/channels/ack/messages/ack"}],
        }
    return f"{action}{kind.capitalize()}", made


def _message(kind: str) -> dict[str, Any]:
    form, example = wire.TYPES[kind], EXAMPLES[kind]
    made: dict[str, Any] = {
        "name": kind,
        "title": form.__name__,
        "summary": _first_line(form),
        "contentType": _CONTENT,
        "payload": {"$ref": f"#/components/schemas/{form.__name__}"},
        "examples": [{"name": kind, "payload": msgspec.to_builtins(example)}],
        "x-messagepack-hex": msgspec.msgpack.encode(example).hex(),
    }
    if "id" in form.__struct_fields__:
        made["correlationId"] = {
            "location": "$message.payload#/id",
            "description": "The command that is answered.",
        }
    return made


def _schemas() -> dict[str, Any]:
    forms: list[type[msgspec.Struct]] = [*wire.TYPES.values(), wire.WireReading]
    _, made = msgspec.json.schema_components(forms, ref_template="#/components/schemas/{name}")
    texts = _field_texts()
    for form in forms:
        schema = made[form.__name__]
        names = form.__struct_encode_fields__
        if "prefixItems" in schema:  # draft-07 calls it `items`
            schema["items"] = schema.pop("prefixItems")
            for name, item in zip(names, schema["items"], strict=True):
                item["title"] = name
        fields = schema.get("properties") or dict(zip(names, schema["items"], strict=True))
        for name, field in fields.items():
            if text := texts.get((form.__name__, name)):
                field["description"] = text
    return made


def _first_line(form: type) -> str:
    return (inspect.getdoc(form) or "").partition("\n")[0]


def _field_texts() -> dict[tuple[str, str], str]:
    """What stands under each field of the wire's types, which Python does not keep."""
    found: dict[tuple[str, str], str] = {}
    classes = [
        node for node in ast.parse(inspect.getsource(wire)).body if isinstance(node, ast.ClassDef)
    ]
    for node in classes:
        for field, text in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):  # fmt: skip
                found[node.name, field.target.id] = " ".join(text.value.value.split())
    return found
