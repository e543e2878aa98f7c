"""The commands themselves: options, refusals, and what is said on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from adapters.mqtt.access import (
    Login,
    device_login,
    edge_node_login,
    gateway_login,
    monitor_login,
)
from adapters.mqtt.asyncapi import document
from config.certificates import common_name
from config.loading import load_settings
from config.settings import MqttSettings
from gateway.cli.broker.folder import (
    ACL,
    COMMANDS,
    HANDOUT,
    PASSWORDS,
    Change,
    Wanted,
    compare,
    write,
)
from marketplace_core.errors import ConfigError

_NAMED: Final = 20
"""Logins that are named in a summary; of more, their number is said."""
_EXAMPLES: Final = """\b
Examples:
  flexway broker acl --config flexway.toml --out /etc/mosquitto/flexway --dry-run
  flexway broker acl --config flexway.toml --out /etc/mosquitto/flexway
  flexway broker acl --config flexway.toml --out DIR --rotate ev-17
  flexway broker acl --config flexway.toml --out DIR --dynamic-security
  mosquitto_pub ... -q 1 -t '$CONTROL/dynamic-security/v1' -l < DIR/dynamic-security.jsonl
"""


@click.group()
def broker() -> None:
    """Access rules and documents for the MQTT broker."""


@broker.command(epilog=_EXAMPLES)
@click.option(
    "--config", "config_file", required=True,
    type=click.Path(dir_okay=False, path_type=Path), help="Settings, TOML.",
)  # fmt: skip
@click.option(
    "--out", "folder", required=True, type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files; made when it is missing.",
)  # fmt: skip
@click.option(
    "--dynamic-security",
    is_flag=True,
    help=f"Also write {COMMANDS}: requests to Mosquitto's dynamic security plugin.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@click.option(
    "--rotate", multiple=True, metavar="DEVICE", help="Give a device a new password; repeatable."
)
@click.option(
    "--monitor", multiple=True, metavar="NAME",
    help="A login that may read $SYS, the broker's own figures; repeatable.",
)  # fmt: skip
@click.option(
    "--certificates",
    is_flag=True,
    help="Logins prove themselves with client certificates (use_identity_as_username): "
    "no passwords are made.",
)
def acl(
    config_file: Path, folder: Path, rotate: Sequence[str], monitor: Sequence[str], *,
    dynamic_security: bool, dry_run: bool, certificates: bool,
) -> None:  # fmt: skip
    """Write the broker's access rules and passwords, for the gateway and every MQTT device.

    A device may publish its own telemetry, ack and status and hear its own command and
    stored, a Sparkplug edge node (login GROUP.EDGE_NODE) what it and its devices say and its
    own commands; the gateway the other ends of them; nobody anything else. Passwords that exist
    are kept; those of devices that left are taken away. New ones are written once, one
    file per device, into DIR/handout: take them to the devices, then delete them.
    """
    if certificates and (rotate or dynamic_security):
        raise click.UsageError("--certificates knows no passwords: leave the other option out")
    mqtt = load_settings(config_file).mqtt
    logins = _logins(mqtt, monitor)
    _check_rotation(mqtt, logins, rotate)
    wanted = Wanted(
        logins=logins, given=_given(mqtt), rotate=frozenset(rotate),
        passwords=not certificates, dynamic_security=dynamic_security,
    )  # fmt: skip
    change = compare(folder, wanted)
    if dry_run:
        for line in change.difference():
            click.echo(line)
    else:
        write(folder, change, passwords=not certificates)
    _summary(folder, change, wanted, dry_run=dry_run)


@broker.command(
    epilog="""\b
Examples:
  flexway broker asyncapi
  flexway broker asyncapi --out docs/asyncapi.json
"""
)
@click.option(
    "--out", "file", type=click.Path(dir_okay=False, path_type=Path),
    help="Write it here instead of to the terminal.",
)  # fmt: skip
def asyncapi(file: Path | None) -> None:
    """Describe what devices and the gateway say to each other, as AsyncAPI 3.0.

    For makers of devices: every topic, message, field and limit, with examples.
    """
    text = json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from error
    click.echo(f"{file} was written")


def _logins(mqtt: MqttSettings, monitors: Sequence[str]) -> list[Login]:
    """The gateway, the monitors, then every device; ConfigError when two have one name."""
    gateway = mqtt.username or _certified(mqtt)
    if not gateway:
        raise ConfigError(
            "mqtt.username is missing: the gateway needs a login of its own; give one, such as"
            " flexway-gateway, or a client_certificate whose CN is one"
        )
    host_id = mqtt.sparkplug_host
    nodes = list(
        dict.fromkeys((d.group, d.edge_node) for d in mqtt.devices if d.dialect == "sparkplug")
    )
    logins = [
        gateway_login(gateway, nodes=nodes, host_id=host_id),
        *(monitor_login(name) for name in monitors),
        *(
            device_login(d.organisation, d.device_id)
            for d in mqtt.devices
            if d.dialect == "flexway"
        ),
        *(edge_node_login(group, edge_node, host_id) for group, edge_node in nodes),
    ]
    # A login whose name is a client id of the gateway, or begins like those of its commands, of
    # Sparkplug and of its ingest workers, could end the gateway's session.
    taken = {mqtt.client_id} - {gateway}
    for number, login in enumerate(logins):
        if login.name in taken or (number and login.name.startswith(f"{mqtt.client_id}-")):
            raise ConfigError(
                f"{login.name!r} is the name of two logins, or a client id of the gateway:"
                " give the device, the monitor or the gateway another one"
            )
        taken.add(login.name)
    return logins


def _certified(mqtt: MqttSettings) -> str:
    """The CN of the gateway's certificate; "" when it has none."""
    if mqtt.client_certificate is None:
        return ""
    try:
        return common_name(mqtt.client_certificate)
    except (OSError, ValueError) as error:
        raise ConfigError(f"mqtt.client_certificate: {error}") from error


def _check_rotation(mqtt: MqttSettings, logins: Sequence[Login], rotate: Sequence[str]) -> None:
    names = {login.name for login in logins}
    for name in rotate:
        if name not in names:
            raise click.BadParameter(
                f"{name!r} is no login of these settings: give a device_id of [[mqtt.devices]], or"
                " GROUP.EDGE_NODE",
                param_hint="--rotate",
            )
        if name in _given(mqtt):
            raise click.BadParameter(
                f"the gateway's password is the one in {mqtt.password_file}: write a new one"
                " there and run this command without --rotate",
                param_hint="--rotate",
            )


def _given(mqtt: MqttSettings) -> dict[str, str]:
    """The password that the gateway will say, where its file exists already."""
    path = mqtt.password_file
    if path is None or not path.exists():
        return {}
    try:
        password = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"mqtt.password_file: {path} cannot be read: {error}") from error
    if not password:
        raise ConfigError(f"mqtt.password_file: {path} is empty: write the password into it")
    return {mqtt.username: password}


def _summary(folder: Path, change: Change, wanted: Wanted, *, dry_run: bool) -> None:
    verb = "would be" if dry_run else "were"
    for what, names in (
        ("added", change.added), ("renewed", change.renewed), ("removed", change.removed),
    ):  # fmt: skip
        if names:
            shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            click.echo(f"{len(names)} {verb} {what}: {shown}")
    if dry_run:
        click.echo("nothing was written")
        return
    files = [ACL, *([PASSWORDS] if wanted.passwords else ())]
    files += [COMMANDS] if wanted.dynamic_security else []
    click.echo(f"{len(wanted.logins)} logins in {folder}: {', '.join(files)}")
    if change.hand_out:
        click.echo(
            f"{len(change.hand_out)} new passwords in {folder / HANDOUT}: take them to where they"
            " belong, then delete them"
        )
    if (folder / ACL).stat().st_uid == 0:
        click.echo(
            f"they belong to root: give {folder} to the broker's user first, such as"
            f" `chown mosquitto {folder}`, then run this again"
        )
    if wanted.dynamic_security:
        click.echo(f"{COMMANDS} holds passwords: delete it once the broker took it")
        if change.untold:
            click.echo(
                f"{change.untold} logins have no hand-out file any more: they are not made anew"
                " at the broker"
            )
    elif change.acl != change.acl_before or change.added or change.renewed:
        click.echo("the broker reads them again after: kill -HUP $(pidof mosquitto)")
