"""`flexway check` says everything, touches nothing and exits 1 for an error."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from config.files import database_file
from config.loading import load_settings
from gateway.cli import flexway
from tests.harness.certificates import make_certificate

SITE = """\
[api]
prot = 8443
tls_certificate = "api.pem"
tls_key = "api.key"
[store]
roots = "/proc/roots.jsonl"
"""
GOOD = SITE.replace("prot", "port").replace('[store]\nroots = "/proc/roots.jsonl"\n', "")


def check(folder: Path, text: str, *arguments: str) -> Result:
    path = folder / "flexway.toml"
    path.write_text(text, encoding="utf-8")
    return CliRunner().invoke(flexway, ["check", "--config", str(path), *arguments])


def test_an_error_has_place_key_and_remedy_and_the_exit_code_1(tmp_path: Path) -> None:
    done = check(tmp_path, SITE)
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        f"error   {tmp_path}/flexway.toml:2 api.prot",
        "        unknown key",
        "        -> did you mean 'port'?",
        "1 error, 0 warnings",
    ]


def test_warnings_alone_are_no_failure(tmp_path: Path) -> None:
    make_certificate(tmp_path, "api")
    done = check(tmp_path, GOOD)
    assert done.exit_code == 0
    assert "warning" in done.output  # the roots lie beside the database
    assert done.output.splitlines()[-1] == "0 errors, 1 warning"


def test_files_are_checked_with_the_rest(tmp_path: Path) -> None:
    make_certificate(tmp_path, "api", days=0.01)
    done = check(tmp_path, GOOD + "[time]\nspeed = 3")
    assert done.exit_code == 1
    assert "simulated time needs lab = true" in done.output
    assert f"{tmp_path}/api.pem expired on" in done.output


def test_json_is_for_programs(tmp_path: Path) -> None:
    done = check(tmp_path, SITE, "--json")
    document = json.loads(done.output)
    assert document["ok"] is False
    assert document["findings"] == [
        {
            "severity": "error", "key": "api.prot", "line": 2, "variable": None,
            "message": "unknown key", "remedy": "did you mean 'port'?",
        }
    ]  # fmt: skip
    assert done.exit_code == 1


def test_a_variable_is_named_instead_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificate(tmp_path, "api")
    monkeypatch.setenv("FLEXWAY_API__PORT", "99999")
    (finding,) = json.loads(check(tmp_path, GOOD, "--json").output)["findings"]
    assert (finding["key"], finding["variable"]) == ("api.port", "FLEXWAY_API__PORT")
    assert finding["line"] is None


def test_a_file_that_is_not_toml_names_its_line(tmp_path: Path) -> None:
    done = check(tmp_path, "lab = true\n[api\nport = 1")
    assert done.exit_code == 1
    assert f"{tmp_path}/flexway.toml:2" in done.output


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(flexway, ["check", "--config", str(tmp_path / "none.toml")])
    assert done.exit_code == 1
    assert "no such file" in done.output


def test_looking_makes_no_file_and_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificate(tmp_path, "api")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    before = sorted(tmp_path.rglob("*"))
    assert check(tmp_path, GOOD).exit_code == 0
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "flexway.toml"])
    database = database_file(load_settings(tmp_path / "flexway.toml", {}))
    assert database is not None
    assert not database.parent.exists()


def test_help_has_examples() -> None:
    done = CliRunner().invoke(flexway, ["check", "--help"])
    assert "Examples:" in done.output
    assert "--probe" in done.output
