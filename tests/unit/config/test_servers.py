"""Addresses of servers: no password in them, no plain text off this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.loading import load_settings
from config.settings import Settings
from gateway.bootstrap.backends import open_bus, open_database
from gateway.bus.local import LocalBus
from gateway.observability.metrics import Metrics
from gateway.surroundings import of_this_machine
from marketplace_core.errors import ConfigError
from marketplace_core.simtime import identity

TLS = "?sslmode=verify-full&sslrootcert=ca.pem"


def load(folder: Path, text: str) -> Settings:
    path = folder / "flexway.toml"
    path.write_text("lab = true\n" + text)
    return load_settings(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[store]\ndatabase = "postgresql://u:secret@127.0.0.1/f"', "database_password_file"),
        ('[store]\ndatabase = "postgresql://u@127.0.0.1/f?password=secret"', "holds a password"),
        ('[store]\nreadings = "postgresql://u:secret@127.0.0.1/f"', "readings_password_file"),
        ('[store]\nreadings = "sqlite:///r.db"', "give the file's path alone"),
        ('[store]\ndatabase = "mysql://u@127.0.0.1/f"', "give sqlite or postgresql"),
        ('[store]\ndatabase = "data/market.db"', "no scheme"),
        ('[store]\ndatabase = "postgresql://u@db.example/f"', "sslmode=verify-full"),
        ('[store]\ndatabase = "postgresql://u@db.example/f?sslmode=require"', "verify-full"),
        ('[store]\ndatabase = "postgresql://u@/f?host=db.example"', "another machine"),
        ('[bus]\nkind = "redis"\nurl = "redis://:secret@127.0.0.1"', "bus.password_file"),
        ('[bus]\nkind = "redis"\nurl = "redis://redis.example"', "use rediss"),
        ('[bus]\nlive_state = "redis"\nurl = "http://127.0.0.1"', "give redis, rediss or unix"),
        ('[bus]\nkind = "kafka"', "bus.kind"),
        ('[bus]\nprefix = "a b"', "bus.prefix"),
        ("[bus]\nqueue = 0", "bus.queue"),
    ],
)
def test_an_address_that_is_not_safe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '[store]\ndatabase = "postgresql://u@localhost/f"',
        f'[store]\ndatabase = "postgresql://u@db.example/f{TLS}"',
        f'[store]\nreadings = "postgresql+psycopg://u@db.example/f{TLS}"',
        '[store]\ndatabase = "postgresql://u@/f?host=/run/postgresql"',
        '[store]\ndatabase = "postgresql:///f"',
        '[bus]\nkind = "redis"\nurl = "rediss://redis.example:6380/1"',
        '[bus]\nkind = "redis"\nurl = "unix:///run/redis.sock"',
        '[bus]\nurl = "redis://unused.example"',
    ],
)
def test_an_address_that_is_safe_is_taken(tmp_path: Path, text: str) -> None:
    load(tmp_path, text)


def test_a_password_file_that_is_missing_is_named(tmp_path: Path) -> None:
    text = '[store]\ndatabase = "postgresql://u@127.0.0.1/f"\ndatabase_password_file = "gone"'
    with pytest.raises(ConfigError, match=r"store\.database_password_file: .*gone cannot be read"):
        open_database(load(tmp_path, text).store)


def test_the_default_is_one_process_with_nothing_installed(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    assert isinstance(open_bus(settings.bus, Metrics(), of_this_machine(identity())), LocalBus)
    assert settings.store.database.startswith("sqlite:///")
