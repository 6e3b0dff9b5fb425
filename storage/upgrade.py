"""Runs the migrations that a database lacks: Alembic keeps the book (table `alembic_version`) and the chain.

The SQL files themselves are the revisions, so that a reader sees exactly the SQL that runs. No alembic.ini, no current
directory: works from the installed package. Imported only when there is something to do (see migrate.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import sqlalchemy
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory

from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .migrate import FOLDER, LOCK, revisions

log = logging.getLogger(__name__)


def _revision(path: Path, number: str, previous: str | None) -> Script:
    def upgrade() -> None:
        from alembic import op

        connection: Any = op.get_bind().connection.driver_connection
        connection.execute(path.read_bytes())

    module = ModuleType(f"migration_{number}")
    module.revision = number  # type: ignore[attr-defined]
    module.down_revision = previous  # type: ignore[attr-defined]
    module.upgrade = upgrade  # type: ignore[attr-defined]
    module.__doc__ = path.stem
    return Script(module, number, str(path))


class SqlScripts(ScriptDirectory):
    """Alembic's script directory whose revisions are the SQL files, each following the one before it by number."""

    def _load_revisions(self) -> Iterator[Script]:
        previous = None
        for number, path in revisions().items():
            yield _revision(path, number, previous)
            previous = number


def _engine(conninfo: str) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo), poolclass=sqlalchemy.pool.NullPool
    )


def upgrade(conninfo: str) -> list[str]:
    """Bring the database to the newest migration, under an advisory lock; returns the numbers applied."""
    scripts = SqlScripts(str(FOLDER))
    applied: list[str] = []
    engine = _engine(conninfo)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({LOCK})")
            connection.commit()
            now = MigrationContext.configure(connection).get_current_revision()
            connection.rollback()
            if now is not None and now not in {s.revision for s in scripts.walk_revisions()}:
                raise UsageError(
                    tr(
                        f"the database is at migration {now}, newer than this program: install the newer fuhe",
                        f"数据库的迁移版本 {now} 比本程序新：请安装新版 fuhe",
                    )
                )

            def steps(revision: Any, _: MigrationContext) -> list[Any]:
                found = scripts._upgrade_revs("head", revision)
                applied.extend(str(step.revision.revision) for step in found)
                return list(found)

            with EnvironmentContext(Config(), scripts, fn=steps) as environment:
                environment.configure(connection=connection, transaction_per_migration=True)
                with environment.begin_transaction():
                    environment.run_migrations()
            connection.commit()
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({LOCK})")
            connection.commit()
    finally:
        engine.dispose()
    if applied:
        log.info("database migrated: %s", ", ".join(applied))
    return applied
