"""Who may say and hear what at the broker: the rights, and the forms brokers take. No I/O.

A login is a user name. A device's is its id, so that a broker that makes the user name the
client id (`use_username_as_clientid`) leaves no device to take another's session over.
What no line grants is denied: Mosquitto's manual, mosquitto.conf(5), `acl_file`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from adapters.mqtt import sparkplug_topic, wire
from marketplace_core.errors import ConfigError

ACL_HEADER: Final = "# Written by `flexway broker acl`: changes made by hand are lost.\n"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@=~-]{0,127}")
"""What stands in a topic, a password file, a file name and a client id alike."""
_LEVEL: Final = re.compile(r"[^\s/+#%\x00-\x1f\x7f]{1,128}")
_EVERY: Final = f"flexway/v{wire.VERSION}/+/+/+"
_AT_ONCE: Final = 100
"""Logins in one message of commands."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """One user name and all that it may do."""

    name: str
    writes: tuple[str, ...] = ()
    """Topics that it may publish to."""
    reads: tuple[str, ...] = ()
    """Topic filters that it may subscribe to and be sent."""
    within: tuple[str, ...] = ()
    """Topic filters within which it may subscribe to any and be sent all."""
    client_id: str = ""
    """The only client id that it may have; empty = any (the gateway has two sessions)."""


def device_login(organisation: str, device_id: str) -> Login:
    """A device's own topics and nothing else.

    Raises: ConfigError when a name cannot be a login or stand in a topic.
    """
    _check_name(device_id)
    _check_level("organisation", organisation, device_id)
    return Login(
        name=device_id, client_id=device_id,
        writes=tuple(wire.topic(organisation, device_id, kind) for kind in wire.FROM_DEVICES),
        reads=tuple(wire.topic(organisation, device_id, kind) for kind in wire.TO_DEVICES),
    )  # fmt: skip


def edge_node_login(group: str, edge_node: str, host_id: str) -> Login:
    """A Sparkplug edge node: what it and its devices say, its commands, the state of its host.

    It is one client for all of its devices, and its messages are numbered through: one that
    the broker dropped, of a device that nobody registered, would look like a lost one. So it
    speaks for whatever device is behind it.

    Raises: ConfigError when a name cannot be a login or stand in an access rule.
    """
    name = f"{group}.{edge_node}"
    _check_name(name)
    _check_level("group", group, name)
    _check_level("edge node", edge_node, name)
    own = f"{sparkplug_topic.NAMESPACE}/{group}"
    return Login(
        name=name, client_id=name,
        writes=(
            *(f"{own}/{verb}/{edge_node}" for verb in ("NBIRTH", "NDATA", "NDEATH")),
            *(f"{own}/{verb}/{edge_node}/+" for verb in ("DBIRTH", "DDATA", "DDEATH")),
        ),
        reads=(sparkplug_topic.state_topic(host_id),),
        within=tuple(f"{own}/{verb}/{edge_node}/#" for verb in ("NCMD", "DCMD")),
    )  # fmt: skip


def gateway_login(name: str, *, nodes: Sequence[tuple[str, str]] = (), host_id: str = "") -> Login:
    """The other end of every device's topics, and of those of Sparkplug edge nodes.

    `nodes`: group and edge node of each. Raises: ConfigError as for a device.
    """
    _check_name(name)
    state = (sparkplug_topic.state_topic(host_id),) if nodes else ()
    told = [
        f"{sparkplug_topic.NAMESPACE}/{group}/{command}"
        for group, edge_node in nodes
        for command in (f"NCMD/{edge_node}", f"DCMD/{edge_node}/+")
    ]
    return Login(
        name=name,
        writes=(*(f"{_EVERY}/{kind}" for kind in wire.TO_DEVICES), *told, *state),
        reads=(
            *(f"{_EVERY}/{kind}" for kind in wire.FROM_DEVICES),
            *(sparkplug_topic.every_message_of(*node) for node in nodes), *state,
        ),
    )  # fmt: skip


def monitor_login(name: str) -> Login:
    """Reads the broker's own figures, `$SYS/#`, and nothing of any device."""
    _check_name(name)
    return Login(name=name, reads=("$SYS/#",))


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{name!r} cannot be a login at the broker: give letters, digits and _ . - @ = ~,"
            " 1 to 128, the first one a letter, a digit or _"
        )


def _check_level(what: str, level: str, login: str) -> None:
    if _LEVEL.fullmatch(level) is None:
        raise ConfigError(
            f"{what} {level!r} of {login} cannot stand in an access rule: no space, /, +, # or %,"
            " 1 to 128 characters"
        )


def acl_text(logins: Iterable[Login]) -> str:
    """Mosquitto's ACL file: one block per login, no pattern and no wildcard for a device."""
    return ACL_HEADER + "".join(chain.from_iterable(_block(login) for login in logins))


def _block(login: Login) -> Iterator[str]:
    yield f"\nuser {login.name}\n"
    for topic in login.writes:
        yield f"topic write {topic}\n"
    for topic in (*login.reads, *login.within):
        yield f"topic read {topic}\n"


def blocks_of(text: str) -> dict[str, str]:
    """Of each login in an ACL file of ours its block."""
    parts = text.split("\nuser ")[1:]
    return {part.partition("\n")[0]: part.strip() for part in parts}


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What dynamic security has to be told beside the logins themselves."""

    passwords: dict[str, str]
    """Of each login the plain password where it is known; others are left as they are."""
    gone: Sequence[str] = ()
    """Logins that are taken away."""
    moved: frozenset[str] = frozenset()
    """Logins whose topics are others than before; their passwords stay."""
    renewed: frozenset[str] = frozenset()
    """Logins that get their password anew."""


def security_commands(logins: Sequence[Login], told: Told) -> Iterator[str]:
    """Requests to Mosquitto's dynamic security, one JSON document each, in their order.

    What exists already is refused by the plugin and stays, so they may be sent again.
    """
    first = [_defaults(), *chain.from_iterable(_removal(name) for name in told.gone)]
    yield _request(first)
    for start in range(0, len(logins), _AT_ONCE):
        group = logins[start : start + _AT_ONCE]
        yield _request([one for login in group for one in _grants(login, told)])


def _request(commands: list[dict[str, Any]]) -> str:
    return json.dumps({"commands": commands}, separators=(",", ":"))


def _defaults() -> dict[str, Any]:
    denied = ("publishClientSend", "publishClientReceive", "subscribe")
    return {
        "command": "setDefaultACLAccess",
        "acls": [
            *({"acltype": kind, "allow": False} for kind in denied),
            {"acltype": "unsubscribe", "allow": True},
        ],
    }


def _removal(name: str) -> Iterator[dict[str, Any]]:
    yield {"command": "deleteClient", "username": name}
    yield {"command": "deleteRole", "rolename": _role(name)}


def _grants(login: Login, told: Told) -> Iterator[dict[str, Any]]:
    name, role = login.name, {"rolename": _role(login.name)}
    rights = {**role, "acls": list(_rules(login))}
    yield {"command": "createRole", **rights}
    if name in told.moved:
        yield {"command": "modifyRole", **rights}
    if (password := told.passwords.get(name)) is None:
        return
    client = {"username": name, "password": password}
    if name in told.renewed:
        yield {"command": "setClientPassword", **client}
    only = {"clientid": login.client_id} if login.client_id else {}
    yield {"command": "createClient", **client, **only, "roles": [role]}


def _rules(login: Login) -> Iterator[dict[str, Any]]:
    for topic in login.writes:
        yield {"acltype": "publishClientSend", "topic": topic, "allow": True}
    for topic in login.reads:
        # "Literal" compares the filter itself: what a device asks for is what is granted.
        yield {"acltype": "subscribeLiteral", "topic": topic, "allow": True}
        yield {"acltype": "publishClientReceive", "topic": topic, "allow": True}
    for topic in login.within:
        yield {"acltype": "subscribePattern", "topic": topic, "allow": True}
        yield {"acltype": "publishClientReceive", "topic": topic, "allow": True}


def _role(name: str) -> str:
    return f"flexway-{name}"
