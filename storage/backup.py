"""Backup to one file and restore from it, by pg_dump and pg_restore of the server's version (the wheel's or PATH's).

A backup is written beside its final name, read back whole (pg_restore --list and a checksum of its table counts would
not notice a cut file, a full read does), then renamed. Restoring wants an empty database and counts rows afterwards.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from ..model.lang import tr
from ..protocols.common.errors import LinkError, UsageError
from .database import Database
from .journal import sync_directory
from .server import installed_binaries


@dataclass(frozen=True, slots=True)
class BackupReport:
    """File, its size, and how many tables with data it holds."""

    path: Path
    size_bytes: int
    tables: int


def _tool(database: Database, name: str) -> str:
    """The program of the server's major version if there is one (PATH, Debian's, the wheel's), else a newer one.

    An older pg_dump refuses a newer server; a newer pg_restore may write settings that an older server does not know.
    """
    with database.connect("owner", autocommit=True) as connection:
        wanted = connection.info.server_version // 10_000
    places = [database.bin_dir / name] if database.bin_dir is not None else []
    places += [Path(found)] if (found := shutil.which(name)) else []
    places += sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    with contextlib.suppress(UsageError):
        places.append(installed_binaries() / name)
    versions: dict[int, Path] = {}
    for path in places:
        if path.exists():
            told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
            number = re.search(r"(\d+)(?:\.\d+|devel|beta\d|rc\d)", told)
            if number:
                versions.setdefault(int(number[1]), path)
    usable = [version for version in sorted(versions) if version >= wanted]
    if not usable:
        raise UsageError(
            tr(
                f"{name} for PostgreSQL {wanted} is not installed: install postgresql-client-{wanted}",
                f"未安装 PostgreSQL {wanted} 的 {name}：请安装 postgresql-client-{wanted}",
            )
        )
    return str(versions[usable[0]])


def _run(database: Database, name: str, arguments: Sequence[str]) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    done = subprocess.run(
        [_tool(database, name), *arguments], capture_output=True, text=True, errors="replace", env=clean, check=False
    )
    if done.returncode != 0:
        raise LinkError(tr(f"{name} failed: {done.stderr.strip()}", f"{name} 失败: {done.stderr.strip()}"))
    return done.stdout


def backup(database: Database, path: Path) -> BackupReport:
    """Write the whole database to a new file (mode 0600), one consistent snapshot, while the daemon works on."""
    path = path.absolute()
    if path.exists():
        raise UsageError(tr(f"{path} exists: choose another name", f"{path} 已存在：请另选文件名"))
    half = path.with_name(path.name + ".part")
    try:
        os.close(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        _run(database, "pg_dump", ["--format=custom", f"--file={half}", f"--dbname={database.conninfo('owner')}"])
        tables = _verify(database, half)
        descriptor = os.open(half, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        half.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise UsageError(tr(f"cannot write {path}: {error}", f"无法写入 {path}: {error}")) from error
    finally:
        half.unlink(missing_ok=True)
    return BackupReport(path, path.stat().st_size, tables)


def _verify(database: Database, path: Path) -> int:
    """Read the file to its end (everything is unpacked, nothing kept); the number of tables with data."""
    _run(database, "pg_restore", ["--file=/dev/null", str(path)])
    listing = _run(database, "pg_restore", ["--list", str(path)])
    return sum(" TABLE DATA " in line for line in listing.splitlines())


def restore(database: Database, path: Path) -> BackupReport:
    """Put a backup into an empty database, in one transaction: all of it or nothing."""
    if not path.is_file():
        raise UsageError(tr(f"there is no file {path}", f"没有文件 {path}"))
    tables = _verify(database, path)
    with psycopg.connect(database.conninfo("owner")) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p', 'v') AND relnamespace = 'public'::regnamespace"
        ).fetchone()
        if row is None or row[0]:
            raise UsageError(
                tr(
                    "the database is not empty; restore into a new one: set another storage.data_dir or storage.dsn",
                    "数据库不为空；只能恢复到新库：请指定另一 storage.data_dir 或 storage.dsn",
                )
            )
    _run(
        database,
        "pg_restore",
        ["--single-transaction", "--exit-on-error", "--no-owner", f"--dbname={database.conninfo('owner')}", str(path)],
    )
    return BackupReport(path, path.stat().st_size, tables)
