"""Fixtures for every area: one real PostgreSQL a session, a fresh migrated database a test, a fake clock."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from fuhe.model.lang import set_lang
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.migrate import migrate
from fuhe.storage.server import EmbeddedServer

# Temporary files in memory where the machine has room: every test copies a database, a file a table. What
# happens when a disk refuses or lies is tested with injected faults, not by the disk.
MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 << 30
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
    tempfile.tempdir = str(MEMORY)
    os.environ.update(TMPDIR=str(MEMORY), PYTEST_DEBUG_TEMPROOT=str(MEMORY))

BASE = "fuhe"
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "60"}


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test begins in English, whatever the machine speaks and whatever language a test before it chose."""
    monkeypatch.setenv("FUHE_LANG", "en")
    set_lang("en")
    yield
    set_lang("en")


@pytest.fixture(scope="session")
def pg_server() -> Iterator[EmbeddedServer]:
    """One embedded server for the session, quick and careless; its database `fuhe` is migrated and is the template."""
    home = Path(tempfile.mkdtemp(prefix="fuhe-test-"))
    home.chmod(0o711)
    server = EmbeddedServer(home / "pg", shared_buffers="64MB", settings=FAST, sync=False)
    try:
        with server:
            migrate(server.conninfo("fuhe_owner", BASE))
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


_numbers = itertools.count(1)


@pytest.fixture
def database_name(pg_server: EmbeddedServer) -> Iterator[str]:
    """Name of a fresh, migrated database of the session's server; dropped after the test."""
    name = sql.Identifier(f"test_{next(_numbers)}")
    with psycopg.connect(pg_server.conninfo(dbname="postgres"), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy OWNER fuhe_owner").format(
                name, sql.Identifier(BASE)
            )
        )
        yield name._obj[0]
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def server_url(pg_server: EmbeddedServer, database_name: str) -> Callable[[str], str]:
    """`server_url(role)`: connection string to the test's database as fuhe (superuser), fuhe_owner or fuhe_app."""

    def url(role: str = "fuhe_app") -> str:
        return pg_server.conninfo(role, database_name)

    return url


@pytest.fixture
def storage_config(server_url: Callable[[str], str], tmp_path: Path) -> StorageConfig:
    """A configuration that names the test's database by DSN (what Database.open and the daemon take)."""
    return StorageConfig(
        data_dir=str(tmp_path / "data"), dsn=server_url("fuhe_app"), admin_dsn=server_url("fuhe_owner")
    )


@pytest.fixture
def database(pg_server: EmbeddedServer, server_url: Callable[[str], str]) -> Iterator[Database]:
    """The test's own database, migrated and empty."""
    with Database(server_url("fuhe_app"), server_url("fuhe_owner"), bin_dir=pg_server.bin_dir) as opened:
        yield opened


@pytest.fixture
def db(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """An autocommit connection of the ordinary role to the test's database."""
    with database.connect("app", autocommit=True) as connection:
        yield connection


@dataclass
class FakeClock:
    """A clock stepped by hand: seconds for deadlines (`monotonic`), UTC µs for stamps (`now_us`); `sleep` steps it."""

    seconds: float = 1000.0
    start_us: int = 1_790_000_000_000_000  # 2026-09-21T14:13:20Z

    def monotonic(self) -> float:
        """Monotonic seconds."""
        return self.seconds

    def now_us(self) -> int:
        """UTC microseconds."""
        return self.start_us + round((self.seconds - 1000.0) * 1_000_000)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds

    sleep = advance


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that only moves when told to."""
    return FakeClock()
