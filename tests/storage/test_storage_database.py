"""Opening, roles and migrations of the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from fuhe.storage import migrate
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database


def test_fresh_database_is_migrated_to_head(db: psycopg.Connection[Any]) -> None:
    assert migrate.current(db) == migrate.head()
    assert db.execute("SHOW timezone").fetchone() == ("UTC",)


def test_migrating_again_does_nothing(database: Database) -> None:
    assert migrate.migrate(database.conninfo("owner")) == []


def test_open_by_dsn(storage_config: StorageConfig) -> None:
    with Database.open(storage_config) as database, database.connect() as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("fuhe_app",)
        assert database.timescale is False


@pytest.mark.parametrize("statement", ["UPDATE sample SET value = 0", "DELETE FROM sample", "TRUNCATE sample"])
def test_the_working_role_cannot_change_raw_readings(db: psycopg.Connection[Any], statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.execute(statement)


def test_two_migrations_with_one_number_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("0001_core.sql", "0002_readings.sql", "0002_people.sql"):
        (tmp_path / name).write_text("SELECT 1")
    monkeypatch.setattr("fuhe.storage.migrate.FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"0002_people\.sql, 0002_readings\.sql: two migrations have one number"):
        migrate.revisions()
