"""Terminals that dial in (Q/GDW 376.1) at the real daemon (`fuhe run`, embedded PostgreSQL), beside a bare server.

The bare server is asyncio.Protocol with slots that confirms logins and heartbeats and does nothing else: no device
list, no journal, no history. The terminals are one process on bare sockets (terminals_client.py); at most 19,900 of
them, because a process here may hold 20,000 files. Memory and CPU are the server process's own. All cycles are off.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from fuhe.model.devices import Device, Point
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.devices import apply_devices

from .daemon import FUHE, LIMIT_S, _cpu, _Log, _postgres, _Process
from .killing import free_port
from .links import Row

HEARTBEAT_S = 300.0
STORM = 5_000
ROUNDS = 3
SETTLE_S = 3.0
PROFILE = """title_en = "Bench terminal"
title_zh = "测试终端"
protocol = "qgdw1376"
version = "2013"
max_points = 64
"""


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = (sys.executable, "-m", *arguments)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _order(client: subprocess.Popen[str], *words: object) -> dict[str, float]:
    assert client.stdin is not None and client.stdout is not None
    print(*words, file=client.stdin, flush=True)
    answer: dict[str, float] = json.loads(client.stdout.readline())
    return answer


# -- one server, one fleet --------------------------------------------------------------------------------------------


def _drive(port: int, server: _Process, count: int, idle_s: float) -> dict[str, float]:
    """The whole fleet idle with heartbeats, then storms of logins (best and worst of some)."""
    found: dict[str, float] = {"rss_before": server.memory_mb("VmRSS")}
    with _process("bench.terminals_client", "127.0.0.1", str(port)) as client:
        for first in range(1, count + 1, STORM):
            answer = _order(client, "login", first, min(STORM, count + 1 - first))
        assert answer["open"] == count, answer
        time.sleep(SETTLE_S)  # the logins are written down
        cpu, begin = server.cpu_s(), time.monotonic()
        beats = _order(client, "beat", idle_s, HEARTBEAT_S)
        found["idle"] = (server.cpu_s() - cpu) / (time.monotonic() - begin)
        assert beats["answered"] == beats["sent"], beats
        found["beats"], found["worst_ms"] = beats["sent"], beats["worst_ms"]
        found["rss"], found["peak"] = server.memory_mb("VmRSS"), server.memory_mb("VmHWM")
    time.sleep(SETTLE_S)
    with _process("bench.terminals_client", "127.0.0.1", str(port)) as client:
        times, storm, cpu_s = [], min(STORM, count), []
        for _ in range(ROUNDS):
            cpu = server.cpu_s()
            answer = _order(client, "login", 1, storm)
            cpu_s.append(server.cpu_s() - cpu)
            assert answer["answered"] == storm and not answer["lost"], answer
            times.append(answer["s"])
            _order(client, "close")
            time.sleep(SETTLE_S)
        found["storm_s"], found["storm_worst_s"] = min(times), max(times)
        found["login_us"] = 1e6 * min(cpu_s) / storm
    return found


def _devices(count: int) -> Iterator[Device]:
    for n in range(1, count + 1):
        yield Device(
            id=0, name=f"t{n}", link="field", profile="bench", address=f"3301-{n}",
            points=(Point(id=0, name=f"p{n}"),), options={"heartbeat_s": "300"},
        )  # fmt: skip


def _daemon(folder: Path, count: int, idle_s: float) -> dict[str, float]:
    data, port = folder / "data", free_port()
    (data / "profiles").mkdir(parents=True)
    data.chmod(0o711)
    (data / "profiles" / "bench.toml").write_text(PROFILE, encoding="utf-8")
    listener = {
        "name": "field", "kind": "listen-tcp", "host": "127.0.0.1", "port_no": port, "protocol": "qgdw1376",
        "admission_per_s": 0,
    }  # fmt: skip
    off = {"live_s": 0, "curve_s": 0, "event_s": 0, "daily_at": "", "monthly_at": "", "clock_at": "", "gap_scan_s": 0}
    config = folder / "config.yaml"
    config.write_text(
        yaml.safe_dump({"storage": {"data_dir": str(data)}, "links": [listener], "cycles": off, "http": {"port": 0}})
    )
    with Database.open(StorageConfig(data_dir=str(data))) as database, database.connect() as connection:
        apply_devices(connection, list(_devices(count)))
        log = folder / "daemon.log"
        with log.open("wb") as file:
            process = subprocess.Popen((*FUHE, "-c", str(config), "run"), stderr=file, stdout=file)
        try:
            _Log(log, process).wait("running")
            time.sleep(2.0)
            server = _postgres(data)
            cpu, begin = _cpu(server), time.monotonic()
            found = _drive(port, _Process(process.pid), count, idle_s)
            found["server"] = (_cpu(server) - cpu) / (time.monotonic() - begin)
            query = "SELECT count(*) FROM event WHERE code = 'link.online'"
            deadline = time.monotonic() + 30
            wanted = count + ROUNDS * min(STORM, count)
            while (rows := (connection.execute(query).fetchone() or (0,))[0]) < wanted and time.monotonic() < deadline:
                time.sleep(0.2)
            assert rows == wanted, f"{rows} of {wanted} logins are in the history"
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0
        except Exception:
            Path("/tmp/io_bench.log").write_bytes(log.read_bytes())
            raise
        finally:
            process.kill()
            process.wait()
    return found


def _row(name: str, value: float, unit: str, peer: str = "", ratio: float | None = None, target: str = "") -> Row:
    return {
        "bench": "terminals", "name": name, "value": value, "unit": unit, "peer": peer, "ratio": ratio,
        "target": target,
    }  # fmt: skip


def run(quick: bool = False) -> list[Row]:
    """All figures; `quick`: a tenth of the terminals and a short idle time."""
    count, idle_s = (2_000, 10.0) if quick else (19_900, 90.0)
    with _process("bench.terminals_bare") as bare_server:
        assert bare_server.stdout is not None
        bare = _drive(int(bare_server.stdout.readline()), _Process(bare_server.pid), count, idle_s)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # the embedded server runs as another user when we are root
        found = _daemon(folder, count, idle_s)
    fleet, storm = f"{count:,} idle terminals", min(STORM, count)
    kib, bare_kib = ((f["rss"] - f["rss_before"]) * 1024 / count for f in (found, bare))
    return [
        _row(f"{storm:,} logins offered at once, all answered", found["storm_s"], "s",
             f"bare asyncio.Protocol server {bare['storm_s']:.2f} s (worst of {ROUNDS}: "
             f"{found['storm_worst_s']:.2f} against {bare['storm_worst_s']:.2f})",
             found["storm_s"] / bare["storm_s"], "1.5 s"),
        _row("CPU of a login, until its confirmation is out", found["login_us"], "µs",
             f"bare server {bare['login_us']:.0f} µs", found["login_us"] / bare["login_us"]),
        _row(f"{fleet}: resident memory of the whole daemon", found["rss"], "MiB",
             f"bare server {bare['rss']:.0f} MiB; peak {found['peak']:.0f}", found["rss"] / bare["rss"], "300 MiB"),
        _row(f"{fleet}: memory that a connection adds", kib, "KiB", f"bare server {bare_kib:.1f} KiB",
             kib / bare_kib if bare_kib > 0 else None),
        _row(f"{fleet}, a heartbeat each 5 minutes: CPU of one core", 100 * found["idle"], "%",
             f"bare server {100 * bare['idle']:.2f} %; the database's processes {100 * found['server']:.1f} %",
             found["idle"] / bare["idle"] if bare["idle"] else None, "5 %"),
        _row(f"{fleet}: longest wait for the confirmation of a heartbeat", found["worst_ms"], "ms",
             f"bare server {bare['worst_ms']:.1f} ms; {found['beats']:,.0f} heartbeats",
             found["worst_ms"] / bare["worst_ms"]),
    ]  # fmt: skip
