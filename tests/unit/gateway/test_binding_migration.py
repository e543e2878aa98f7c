"""The schema is what the tables say, and assets of before are bound by the migration."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, insert, select

import gateway.store
from gateway.store.engine import NEWEST_REVISION, migrate, open_engine
from gateway.store.tables import asset_devices, asset_meters, assets, metadata
from marketplace_core.registry.asset import Asset, MeasurementPoint


def at_revision(engine: Engine, revision: str) -> None:
    config = Config()
    folder = Path(gateway.store.__file__).with_name("migrations")
    config.set_main_option("script_location", str(folder))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_migrations_lead_to_the_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []


def test_a_database_of_the_newest_revision_is_left_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ScriptDirectory(str(Path(gateway.store.__file__).with_name("migrations")))
    assert script.get_current_head() == NEWEST_REVISION
    migrate(engine)

    def upgrade(*_: object) -> None:
        raise AssertionError("a start that has nothing to migrate waits for the tools of it")

    monkeypatch.setattr(command, "upgrade", upgrade)
    migrate(engine)


def test_what_was_registered_before_is_bound(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'old.db'}")
    at_revision(engine, "0001")
    with engine.begin() as connection:
        for name, owner, devices in (("ast-1", "org_s", ("d-1", "d-2")),
                                     ("ast-2", "org_t", ("d-2", "d-3"))):  # fmt: skip
            asset = Asset(
                id=name, organisation=owner, feeder="F", technology="any", devices=devices,
                meter="m-1", measurement_point=MeasurementPoint.DEVICE,
            )  # fmt: skip
            document = msgspec.json.encode(asset).decode()
            row = {"id": name, "organisation": owner, "feeder": "F", "document": document}
            connection.execute(insert(assets).values(row))
    migrate(engine)
    with engine.connect() as connection:
        bound = {
            row.device_id: row.organisation for row in connection.execute(select(asset_devices))
        }
        meters = {(row.series, row.asset_id) for row in connection.execute(select(asset_meters))}
    engine.dispose()
    # Two had claimed one device, which nothing forbade then: the older claim stands.
    assert bound == {"d-1": "org_s", "d-2": "org_s", "d-3": "org_t"}
    assert meters == {("m-1", "ast-1"), ("m-1", "ast-2")}
