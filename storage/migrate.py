"""Schema migrations: `migrations/NNNN_name.sql`, plain SQL run in order by Alembic, one transaction a file.

Alembic (upgrade.py) is only loaded when something is missing: importing it takes longer than all the rest of a start.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import psycopg

FOLDER: Final = Path(__file__).parent / "migrations"
LOCK: Final = 0x6675_6865  # advisory lock number of a migration, "fuhe"
_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")


def revisions() -> dict[str, Path]:
    """Number -> file of every migration this program knows, ascending."""
    files = sorted(FOLDER.glob("*.sql"))
    wrong = [p.name for p in files if not _NAME.fullmatch(p.name)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: migrations are called NNNN_name.sql")
    numbers = [p.name[:4] for p in files]
    twice = [p.name for p, number in zip(files, numbers, strict=True) if numbers.count(number) > 1]
    if twice:
        raise ValueError(f"{', '.join(twice)}: two migrations have one number; give the newer one the next free number")
    return {p.name[:4]: p for p in files}


def head() -> str:
    """Number of the newest migration this program knows."""
    return max(revisions())


def current(connection: psycopg.Connection[Any]) -> str | None:
    """Number of the newest migration applied to the database, None for an empty one."""
    if not connection.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone()[0]:  # type: ignore[index]
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return row[0] if row else None


def migrate(conninfo: str) -> list[str]:
    """Bring the database to `head`, under an advisory lock; returns the numbers applied. Nothing half-way."""
    with psycopg.connect(conninfo) as connection:
        if current(connection) == head():
            return []
    from .upgrade import upgrade

    return upgrade(conninfo)
