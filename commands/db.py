"""`fuhe db`: state of the database, migration, backup and restore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..model.lang import tr
from ..storage import backup as backups
from ..storage import migrate as migrations
from ..storage.database import Database
from .common import App, json_option, pass_app, print_json, reported


@click.group(help=tr("The database: state, migration, backup, restore.", "数据库：状态、迁移、备份、恢复。"))
def db() -> None:
    """The group of database verbs."""


def _facts(database: Database) -> dict[str, Any]:
    with database.connect("app", autocommit=True) as connection:
        now = migrations.current(connection)
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        partitions = connection.execute(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass('sample')"
        ).fetchone()
        return {
            "server": connection.info.parameter_status("server_version"),
            "embedded": database.embedded,
            "migration": now,
            "newest_migration": migrations.head(),
            "up_to_date": now == migrations.head(),
            "timescaledb": database.timescale,
            "size_bytes": row[0] if row else None,
            "sample_partitions": partitions[0] if partitions else 0,
        }


@db.command(help=tr("Show server, schema version and size.", "显示服务器、架构版本与大小。"))
@json_option
@pass_app
@reported
def status(app: App, as_json: bool) -> None:
    """State of the database; changes nothing."""
    with Database.open(app.config.storage, migrate=False) as database:
        facts = _facts(database)
    if as_json:
        print_json(facts)
        return
    where = tr("embedded", "内置") if facts["embedded"] else "DSN"
    click.echo(f"PostgreSQL {facts['server']} ({where})" + (", TimescaleDB" if facts["timescaledb"] else ""))
    state = tr("up to date", "最新") if facts["up_to_date"] else tr("run: fuhe db migrate", "请执行: fuhe db migrate")
    click.echo(tr("schema ", "架构 ") + f"{facts['migration'] or '-'} / {facts['newest_migration']} ({state})")
    click.echo(tr("size ", "大小 ") + f"{(facts['size_bytes'] or 0) / 1e6:.1f} MB")


@db.command(help=tr("Bring the schema up to date.", "升级数据库架构。"))
@json_option
@pass_app
@reported
def migrate(app: App, as_json: bool) -> None:
    """Apply the migrations that are missing."""
    with Database.open(app.config.storage, migrate=False) as database:
        database.prepare(app.config.storage)
        applied = migrations.migrate(database.conninfo("owner"))
    if as_json:
        print_json({"applied": applied, "migration": migrations.head()})
    elif applied:
        click.echo(tr("applied: ", "已执行: ") + ", ".join(applied))
    else:
        click.echo(tr("nothing to do", "无需升级"))


def _report(report: backups.BackupReport, as_json: bool) -> None:
    if as_json:
        print_json({"path": str(report.path), "size_bytes": report.size_bytes, "tables": report.tables})
    else:
        click.echo(f"{report.path}: {report.size_bytes / 1e6:.1f} MB, {report.tables} " + tr("tables", "张表"))


@db.command(help=tr("Write a verified backup to a new file.", "备份到新文件并校验。"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
@pass_app
@reported
def backup(app: App, file: Path, as_json: bool) -> None:
    """Back up the whole database."""
    with Database.open(app.config.storage, migrate=False) as database:
        _report(backups.backup(database, file), as_json)


@db.command(help=tr("Restore a backup into an empty database.", "将备份恢复到空库。"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@json_option
@pass_app
@reported
def restore(app: App, file: Path, as_json: bool) -> None:
    """Restore a backup, then migrate it to this program's schema."""
    with Database.open(app.config.storage, migrate=False) as database:
        database.prepare(app.config.storage)
        report = backups.restore(database, file)
        migrations.migrate(database.conninfo("owner"))
    _report(report, as_json)
