"""The database as the product sees it: where it is, two roles, one schema version. Sync psycopg 3; callers use threads.

`app` connections always work as the role fuhe_app, which cannot change or delete raw readings and audit; `owner`
connections work as fuhe_owner, which owns the tables (migrations, retention). Session time zone is UTC everywhere.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..model.lang import tr
from ..protocols.common.errors import LinkError, UsageError
from . import migrate as migrations
from .config import StorageConfig
from .server import EmbeddedServer

log = logging.getLogger(__name__)

Role = Literal["app", "owner"]
MINIMUM_VERSION = 150000


class Database:
    """An open database: migrated, its roles in place. Thread-safe: every `connect` makes a connection of its own."""

    def __init__(
        self, app: str, owner: str, *, server: EmbeddedServer | None = None, bin_dir: Path | None = None
    ) -> None:
        """`app`, `owner`: connection strings; `server`: the embedded server to leave on close; `bin_dir`: pg_dump."""
        self._conninfo: dict[Role, str] = {
            "app": _with_option(app, "timezone=UTC"),
            "owner": _with_option(owner, "timezone=UTC"),
        }
        self._server = server
        self.bin_dir = bin_dir
        self.timescale = False

    @classmethod
    def open(cls, storage: StorageConfig, *, migrate: bool = True) -> Database:
        """Start or find the embedded server, or use the DSN; bring the schema up to date unless `migrate` is False.

        LinkError: the server cannot be reached. UsageError: something an operator must change, with what to do.
        """
        if pq.__impl__ == "python":
            log.warning("psycopg runs without its C implementation: COPY is about four times slower")
        if storage.dsn is None:
            area = Path(storage.data_dir).expanduser().absolute() / "postgres"
            server = EmbeddedServer(
                area,
                shared_buffers=storage.shared_buffers,
                extension_dir=storage.extension_dir,
                service_user=storage.service_user,
            ).start()
            database = cls(
                server.conninfo("fuhe_app"), server.conninfo("fuhe_owner"), server=server, bin_dir=server.bin_dir
            )
        else:
            database = cls(_as_role(storage.dsn, "fuhe_app"), _as_role(storage.admin_dsn or storage.dsn, "fuhe_owner"))
        try:
            if migrate:
                database.prepare(storage)
                migrations.migrate(database.conninfo("owner"))
            database._look()
        except BaseException:
            database.close()
            raise
        return database

    @property
    def embedded(self) -> bool:
        """Whether the server is the embedded one."""
        return self._server is not None

    @staticmethod
    def prepare(storage: StorageConfig) -> None:
        """On an operator's server: make the two roles where they are missing (the embedded server has them)."""
        if storage.dsn is not None:
            _prepare(storage.admin_dsn or storage.dsn, storage.dsn)

    def _look(self) -> None:
        with self.connect("app") as connection:
            self.timescale = connection.execute(
                "SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'"
            ).fetchone() is not None  # fmt: skip

    def conninfo(self, role: Role = "app") -> str:
        """Connection string of a role, with the session's settings."""
        return self._conninfo[role]

    def connect(self, role: Role = "app", autocommit: bool = False) -> psycopg.Connection[Any]:
        """A new connection; LinkError when the server does not answer."""
        try:
            return psycopg.connect(self._conninfo[role], autocommit=autocommit, connect_timeout=10)
        except psycopg.OperationalError as error:
            raise LinkError(tr(f"the database does not answer: {error}", f"数据库没有响应: {error}")) from error

    def close(self) -> None:
        """Leave the embedded server (the last user stops it). Connections are their makers' to close."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _with_option(conninfo: str, setting: str) -> str:
    """The connection string with a server setting for its sessions (once)."""
    before = conninfo_to_dict(conninfo).get("options") or ""
    return conninfo if setting in str(before) else make_conninfo(conninfo, options=f"{before} -c {setting}".strip())


def _as_role(dsn: str, role: str) -> str:
    """The connection string with `role` switched on after login (nothing to do when it logs in as that role)."""
    try:
        fields = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise UsageError(tr(f"storage.dsn: {error}", f"storage.dsn 有误: {error}")) from error
    if fields.get("user") == role:
        return dsn
    return _with_option(dsn, f"role={role}")


def _prepare(admin_dsn: str, app_dsn: str) -> None:
    """Make the two roles on an operator's server if they are missing, and let both logins act as theirs."""
    try:
        admin, app = psycopg.connect(admin_dsn, autocommit=True), psycopg.connect(app_dsn, autocommit=True)
    except psycopg.OperationalError as error:
        raise LinkError(tr(f"the database does not answer: {error}", f"数据库没有响应: {error}")) from error
    with admin, app:
        if admin.info.server_version < MINIMUM_VERSION:
            found = admin.info.parameter_status("server_version")
            raise UsageError(
                tr(
                    f"PostgreSQL 15 or newer is needed, the server of storage.dsn is {found}",
                    f"需要 PostgreSQL 15 或更新，storage.dsn 的服务器是 {found}",
                )
            )
        try:
            _prepare_roles(admin, app.info.user)
        except psycopg.errors.InsufficientPrivilege as error:
            raise UsageError(
                tr(
                    f"{error.diag.message_primary}: let an administrator run once, in database {admin.info.dbname}:\n",
                    f"{error.diag.message_primary}: 请管理员在数据库 {admin.info.dbname} 中执行一次:\n",
                )
                + "  CREATE ROLE fuhe_owner; CREATE ROLE fuhe_app;\n"
                f"  GRANT fuhe_owner TO {admin.info.user}; GRANT fuhe_app TO {app.info.user};\n"
                "  GRANT CREATE, USAGE ON SCHEMA public TO fuhe_owner;"
            ) from error


def _prepare_roles(admin: psycopg.Connection[Any], app_user: str) -> None:
    def allowed(query: str, *values: str) -> bool:
        row = admin.execute(query, values).fetchone()
        return bool(row and row[0])

    for role in ("fuhe_owner", "fuhe_app"):
        if not allowed("SELECT count(*) > 0 FROM pg_roles WHERE rolname = %s", role):
            admin.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
    member = "SELECT rolsuper OR pg_has_role(%s, %s, 'USAGE') FROM pg_roles WHERE rolname = %s"
    for user, role in ((admin.info.user, "fuhe_owner"), (app_user, "fuhe_app")):
        if user != role and not allowed(member, user, role, user):
            admin.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(user)))
    if not allowed("SELECT has_schema_privilege('fuhe_owner', 'public', 'CREATE')"):
        admin.execute("GRANT CREATE, USAGE ON SCHEMA public TO fuhe_owner")
