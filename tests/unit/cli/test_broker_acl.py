"""`flexway broker acl`: what it writes, keeps, takes away, refuses and never says."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from adapters.mqtt.access import device_login, gateway_login
from gateway.cli import CONFIG_EXIT, flexway
from gateway.cli.broker.passwords import entries_of, hashed, matches
from marketplace_core.errors import ConfigError
from tests.harness.access import GATEWAY, password_of, run_acl, settings_file

FLEET = {"ev-1": "org_a", "ev-2": "org_b"}
MADE_BY_MOSQUITTO_PASSWD = (
    "$7$101$0TTfofBH7o6l35eY$c1sMpgOkXHtX+97h8J7vBDbmnvlP7qvq5rulkoyEZwEBlcA7ruP5CNx3"
    "5y9MxB6dDHLEUwV2MRfsVxbIZQB1dA=="
)
"""`mosquitto_passwd -b FILE gateway correct-horse` of Mosquitto 2.0.11."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder after a first run for two devices."""
    folder = tmp_path / "access"
    done = run_acl(settings_file(tmp_path, FLEET), folder)
    assert done.exit_code == 0, done.output
    return folder


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


def entries(folder: Path) -> dict[str, str]:
    return entries_of((folder / "passwords").read_text())


def test_mosquittos_own_entry_is_read_and_ours_has_its_form() -> None:
    assert matches("correct-horse", MADE_BY_MOSQUITTO_PASSWD)
    assert not matches("correct-horsf", MADE_BY_MOSQUITTO_PASSWD)
    ours = hashed("correct-horse")
    assert matches("correct-horse", ours)
    theirs = MADE_BY_MOSQUITTO_PASSWD.split("$")
    assert [len(part) for part in ours.split("$")] == [len(part) for part in theirs]
    assert ours.split("$")[:3] == theirs[:3]
    assert hashed("correct-horse") != ours  # a salt of its own


@pytest.mark.parametrize(
    "entry", ["", "plain", "$6$a$b", "$7$x$AAAA$AAAA", "$7$101$*$*", "$7$0$AAAAAAAAAAAAAAAA$AA=="]
)
def test_an_entry_that_cannot_be_read_is_nobodys(entry: str) -> None:
    assert not matches("", entry)


def test_the_rules_name_every_topic_and_no_wildcard_for_a_device(out: Path) -> None:
    text = (out / "acl").read_text()
    device = text.partition("\nuser ev-1\n")[2].partition("\nuser ")[0].split("\n")
    assert [line.replace("flexway/v1/org_a/a7/ev-1/", "") for line in device if line] == [
        "topic write telemetry", "topic write ack", "topic write status",
        "topic read command", "topic read stored",
    ]  # fmt: skip
    assert "#" not in text.split("\n", 1)[1]
    assert "pattern" not in text.split("\n", 1)[1]


def test_files_are_for_their_owner_alone_and_hold_no_plain_password(out: Path) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert stat.S_IMODE((out / "handout").stat().st_mode) == 0o700
    handed = {name: password_of(out, name) for name in (GATEWAY, *FLEET)}
    assert len(set(handed.values())) == len(handed)
    assert min(map(len, handed.values())) >= 32
    for name, password in handed.items():
        assert matches(password, entries(out)[name])
        assert password not in (out / "passwords").read_text() + (out / "acl").read_text()


def test_files_belong_to_the_folders_owner_and_get_their_mode_back(
    tmp_path: Path, out: Path
) -> None:
    owner = 12_345 if os.geteuid() == 0 else os.geteuid()
    os.chown(out, owner, -1)
    (out / "passwords").chmod(0o644)
    assert run_acl(tmp_path / "flexway.toml", out).exit_code == 0
    for name in ("acl", "passwords"):
        found = (out / name).stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (owner, 0o600)


def test_no_secret_is_said(tmp_path: Path) -> None:
    settings, folder = settings_file(tmp_path, FLEET), tmp_path / "access"
    said = ""
    for options in ((), ("--dry-run",), ("--rotate", "ev-1", "--dynamic-security")):
        said += run_acl(settings, folder, *options).output
        for name in (GATEWAY, *FLEET):
            assert password_of(folder, name) not in said
    assert "$7$" not in said


def test_a_second_run_changes_nothing(tmp_path: Path, out: Path) -> None:
    before = files(out)
    assert run_acl(tmp_path / "flexway.toml", out).exit_code == 0
    assert files(out) == before
    for path in (out / "handout").iterdir():
        path.unlink()  # taken to the devices
    assert run_acl(tmp_path / "flexway.toml", out).exit_code == 0
    assert files(out) == {name: before[name] for name in ("acl", "passwords")}


def test_a_device_that_left_is_taken_away_and_a_new_one_added(tmp_path: Path, out: Path) -> None:
    before = entries(out)
    done = run_acl(settings_file(tmp_path, {"ev-2": "org_b", "ev-3": "org_b"}), out)
    assert "1 were added: ev-3" in done.output
    assert "1 were removed: ev-1" in done.output
    after = entries(out)
    assert set(after) == {GATEWAY, "ev-2", "ev-3"}
    assert after["ev-2"] == before["ev-2"]
    assert "ev-1" not in (out / "acl").read_text()
    assert {path.name for path in (out / "handout").iterdir()} == {
        f"{name}.password" for name in after
    }


def test_rotation_renews_one_password(tmp_path: Path, out: Path) -> None:
    before, old = entries(out), password_of(out, "ev-1")
    done = run_acl(tmp_path / "flexway.toml", out, "--rotate", "ev-1")
    assert "1 were renewed: ev-1" in done.output
    after, new = entries(out), password_of(out, "ev-1")
    assert [name for name in before if before[name] != after[name]] == ["ev-1"]
    assert matches(new, after["ev-1"])
    assert not matches(old, after["ev-1"])


def test_a_dry_run_shows_the_difference_and_writes_nothing(tmp_path: Path, out: Path) -> None:
    before = files(out)
    settings = settings_file(tmp_path, {"ev-2": "org_b", "ev-3": "org_b"})
    done = run_acl(settings, out, "--dry-run", "--rotate", "ev-2")
    assert done.exit_code == 0
    for line in (
        "-user ev-1", "+user ev-3", "+topic write flexway/v1/org_b/c5/ev-3/telemetry",
        "+ login ev-3", "~ login ev-2", "- login ev-1", "nothing was written",
    ):  # fmt: skip
        assert line in done.output.splitlines(), done.output
    assert files(out) == before
    run_acl(settings, tmp_path / "elsewhere", "--dry-run")
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_that_died_after_the_hand_out_is_finished_by_the_next(
    tmp_path: Path, out: Path
) -> None:
    before = password_of(out, "ev-1")
    (out / "passwords").unlink()
    (out / "handout" / "ev-2.password").write_text("what-a-rotation-wrote-before-it-died\n")
    assert run_acl(tmp_path / "flexway.toml", out).exit_code == 0
    assert password_of(out, "ev-1") == before
    assert matches(before, entries(out)["ev-1"])
    assert matches("what-a-rotation-wrote-before-it-died", entries(out)["ev-2"])


def test_the_gateways_own_password_file_counts(tmp_path: Path) -> None:
    own = tmp_path / "mqtt-password"
    own.write_text("the-gateways-own\n")
    settings = settings_file(tmp_path, FLEET, {"password_file": str(own)})
    out = tmp_path / "access"
    assert run_acl(settings, out).exit_code == 0
    assert matches("the-gateways-own", entries(out)[GATEWAY])
    assert not (out / "handout" / f"{GATEWAY}.password").exists()
    refused = run_acl(settings, out, "--rotate", GATEWAY)
    assert refused.exit_code == 2
    assert "write a new one there" in " ".join(refused.output.split())
    own.write_text("another")
    done = run_acl(settings, out)
    assert f"1 were renewed: {GATEWAY}" in done.output
    assert matches("another", entries(out)[GATEWAY])


def test_with_certificates_no_password_is_made(tmp_path: Path) -> None:
    out = tmp_path / "access"
    assert run_acl(settings_file(tmp_path, FLEET), out, "--certificates").exit_code == 0
    assert set(files(out)) == {"acl"}
    both = run_acl(tmp_path / "flexway.toml", out, "--certificates", "--rotate", "ev-1")
    assert both.exit_code == 2


def test_requests_to_dynamic_security_can_be_sent_again(tmp_path: Path, out: Path) -> None:
    run_acl(tmp_path / "flexway.toml", out, "--dynamic-security")
    lines = (out / "dynamic-security.jsonl").read_text().splitlines()
    commands = [one for line in lines for one in json.loads(line)["commands"]]
    kinds = [one["command"] for one in commands]
    assert kinds == ["setDefaultACLAccess", *["createRole", "createClient"] * 3]
    allowed = {one["acltype"] for one in commands[0]["acls"] if one["allow"]}
    assert allowed == {"unsubscribe"}
    (device,) = (one for one in commands if one.get("username") == "ev-1")
    assert (device["clientid"], device["roles"]) == ("ev-1", [{"rolename": "flexway-ev-1"}])
    moved = settings_file(tmp_path, {"ev-1": "org_other", "ev-3": "org_a"})
    run_acl(moved, out, "--dynamic-security")
    first = json.loads((out / "dynamic-security.jsonl").read_text().splitlines()[0])["commands"]
    gone = [one["username"] for one in first if one["command"] == "deleteClient"]
    assert gone == ["ev-2"]  # the other changed hands: its login and password stay


@pytest.mark.parametrize("count", [1, 100, 101, 250])
def test_requests_are_split(tmp_path: Path, count: int) -> None:
    fleet = {f"ev-{number}": "org_a" for number in range(count)}
    out = tmp_path / "access"
    run_acl(settings_file(tmp_path, fleet), out, "--dynamic-security")
    lines = (out / "dynamic-security.jsonl").read_text().splitlines()
    made = [
        one["username"] for line in lines for one in json.loads(line)["commands"]
        if one["command"] == "createClient"
    ]  # fmt: skip
    assert sorted(made) == sorted([GATEWAY, *fleet])
    assert len(lines) == 1 + -(-(count + 1) // 100)


@pytest.mark.parametrize(
    "name", ["", ".hidden", "a b", "a:b", "a%u", "$SYS", "-x", "a\nb", "ü", "x" * 129, "a/b", "+"]
)
def test_names_that_could_mean_something_else_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a login"):
        device_login("org_a", name)
    with pytest.raises(ConfigError, match="cannot be a login"):
        gateway_login(name)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "#", "%c", "a\ntopic readwrite #"])
def test_organisations_that_would_widen_a_rule_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot stand in an access rule"):
        device_login(name, "ev-1")


@pytest.mark.parametrize(
    ("devices", "mqtt", "words"),
    [
        (FLEET, {"username": ""}, "mqtt.username is missing"),
        ({GATEWAY: "org_a"}, {}, "the name of two logins"),
        ({"gw-control": "org_a"}, {"client_id": "gw"}, "a client id of the gateway"),
        ({"ev:1": "org_a"}, {}, "'ev:1' cannot be a login"),
        (FLEET, {"password_file": "empty"}, "is empty"),
    ],
)
def test_settings_that_cannot_be_served_are_refused(
    tmp_path: Path, devices: dict[str, str], mqtt: dict[str, str], words: str
) -> None:
    (tmp_path / "empty").touch()
    done = run_acl(settings_file(tmp_path, devices, mqtt), tmp_path / "access")
    assert isinstance(done.exception, ConfigError)  # which `main` says with exit code 3
    assert words in str(done.exception)
    assert CONFIG_EXIT == 3
    assert not (tmp_path / "access").exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "access"
    out.mkdir()
    (out / "acl").write_text("user admin\ntopic readwrite #\n")
    done = run_acl(settings_file(tmp_path, FLEET), out)
    assert "was not written by this command" in str(done.exception)
    assert files(out) == {"acl": "user admin\ntopic readwrite #\n"}
    shut = tmp_path / "shut"
    shut.write_text("a file")
    assert run_acl(tmp_path / "flexway.toml", shut / "in").exception is not None


def test_an_unknown_device_is_not_rotated(tmp_path: Path, out: Path) -> None:
    done = run_acl(tmp_path / "flexway.toml", out, "--rotate", "ev-9")
    assert done.exit_code == 2
    assert "'ev-9' is no login" in done.output


def test_help_has_examples() -> None:
    shown = CliRunner().invoke(flexway, ["broker", "acl", "--help"])
    assert "--dry-run" in shown.output
    assert "--rotate ev-17" in shown.output
