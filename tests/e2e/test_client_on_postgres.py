"""`flexway client` reaches the database as the service does: with its password from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.client import client
from tests.harness.servers import PASSWORD, postgres

pytestmark = [pytest.mark.process]


def test_a_client_is_added_with_the_password_from_a_file(tmp_path: Path) -> None:
    secret, config = tmp_path / "password", tmp_path / "flexway.toml"
    secret.write_text(PASSWORD)
    with postgres() as server:
        config.write_text(
            f'lab = true\n[store]\ndatabase = "{server.database()}"\n'
            f'database_password_file = "{secret}"\n'
        )
        who = ["--organisation", "org_x", "--role", "seller"]
        made = CliRunner().invoke(client, ["add", "--config", str(config), *who])
        assert made.exit_code == 0, made.output
        listed = CliRunner().invoke(client, ["list", "--config", str(config)])
        assert "org_x" in listed.output
        assert PASSWORD not in made.output + listed.output
