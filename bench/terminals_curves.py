"""A day of curves from concentrators at the real daemon (`fuhe run`, embedded PostgreSQL): socket to database.

One day of 96 points of 8 quantities (P, Q, U, I) for 10,000 measuring points behind 500 concentrators that dial in from
one process (terminals_curves_client.py). The daemon finds the day missing, asks for it and stores it: what is measured
runs from the end of its gap scan to the last row committed. CPU is the daemon process's own, with journal and writer;
the database's is told apart. The peer is a bare epoll loop that sends the same requests and reads the same answers,
without decoding or storing anything.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import yaml

from fuhe.model.devices import Device, Point
from fuhe.protocols.qgdw1376.curves import curve_classes
from fuhe.protocols.qgdw1376.dadt import single
from fuhe.protocols.qgdw1376.frame import Address, Frame, Framer
from fuhe.protocols.qgdw1376.link import confirmation, head_of
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.devices import apply_devices
from fuhe.storage.partitions import pack_cold

from .daemon import FUHE, LIMIT_S, ZONE_S, _cpu, _Log, _postgres, _Process
from .killing import free_port
from .links import Row
from .terminals_curves_client import FNS, SLOTS

POINTS = 20
SCAN_IN_S = 25
EARLY_S = 2400
PROFILE = """inherits = "qgdw1376-2013"
without = ["read"]
title_en = "Bench concentrator"
title_zh = "测试集中器"
[terminal]
answer_bytes = {answer_bytes}
units_per_request = 512
[curve]
items = [{items}]
"""


@contextlib.contextmanager
def _concentrators(port: int, count: int) -> Iterator[None]:
    """The far end, logged in."""
    command = (sys.executable, "-m", "bench.terminals_curves_client", str(port), str(count))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "ready"
            yield
        finally:
            process.kill()


# --- the peer -------------------------------------------------------------------------------------------------------
def _request(a2: int, points: list[int], day: date) -> bytes:
    scale = (
        bytes((0x15, 0x00)) + bytes(n // 10 << 4 | n % 10 for n in (day.day, day.month, day.year % 100)) + b"\x01\x60"
    )
    user = b"\x0d\x60" + b"".join(single(pn, fn) + scale for pn in points for fn in FNS)
    return Frame(0x4B, Address("3301", a2, msa=1), user).encode()


def _bare(count: int, a_request: int) -> float:
    """CPU seconds of a loop that confirms logins, then asks all concentrators for the day and reads what they say."""
    server = socket.create_server(("127.0.0.1", 0), backlog=4096)
    day = datetime.now(UTC).date()
    with _concentrators_later(server.getsockname()[1], count):
        poll, peers = select.epoll(), dict[int, tuple[socket.socket, Framer, list[bytes]]]()
        while len(peers) < count:
            sock, _ = server.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            framer = Framer()
            framer.feed(sock.recv(4096))
            frame = framer.next_event()
            assert isinstance(frame, Frame)
            head = head_of(frame)
            assert head is not None
            sock.sendall(confirmation(frame, head))
            chunks = [list(range(i, min(i + a_request, POINTS + 1))) for i in range(1, POINTS + 1, a_request)]
            peers[sock.fileno()] = sock, framer, [_request(frame.address.a2, one, day) for one in chunks]
            poll.register(sock.fileno(), select.EPOLLIN)
        begin = time.process_time()
        waiting = set(peers)
        for sock, _, requests in peers.values():
            sock.sendall(requests.pop())
        while waiting:
            for fd, _ in poll.poll(1.0, 1024):
                sock, framer, requests = peers[fd]
                framer.feed(sock.recv(65536))
                while isinstance(framer.next_event(), Frame):
                    if requests:
                        sock.sendall(requests.pop())
                    else:
                        waiting.discard(fd)
        spent = time.process_time() - begin
        for sock, _, _ in peers.values():
            sock.close()
        poll.close()
    server.close()
    return spent


@contextlib.contextmanager
def _concentrators_later(port: int, count: int) -> Iterator[None]:
    """The far end, which will dial."""
    command = (sys.executable, "-m", "bench.terminals_curves_client", str(port), str(count))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


# --- the daemon -----------------------------------------------------------------------------------------------------
def _devices(count: int, since: date) -> Iterator[Device]:
    for n in range(1, count + 1):
        yield Device(
            id=0, name=f"c{n}", link="fleet", profile="bench-concentrator", address=f"3301-{n}",
            points=tuple(Point(id=0, name=f"c{n}-{pn}", pn=pn) for pn in range(1, POINTS + 1)),
            options={"since": str(since)},
        )  # fmt: skip


def _config(folder: Path, port: int, scan_at: int, curve_s: int) -> Path:
    """The one gap scan begins at `scan_at` (see bench/daemon.py); `curve_s` makes exactly the day before due then."""
    path = folder / "config.yaml"
    link = {"name": "fleet", "kind": "listen-tcp", "port_no": port, "protocol": "qgdw1376", "admission_per_s": 2000}
    cycles = {
        "live_s": 0, "event_s": 0, "daily_at": "", "monthly_at": "", "clock_at": "", "spread_s": 0, "curve_s": curve_s,
        "gap_scan_s": scan_at + ZONE_S,
    }  # fmt: skip
    tree = {"storage": {"data_dir": str(folder / "data")}, "links": [link], "cycles": cycles, "http": {"port": 0}}
    path.write_text(yaml.safe_dump(tree))
    return path


def _until_scanned(log: Path, daemon: _Process) -> float:
    """CPU of the daemon at the last look before its gap scan was over: what follows is counted rather too much."""
    deadline, cpu = time.monotonic() + LIMIT_S, daemon.cpu_s()
    while '"gap scan"' not in log.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, "the daemon never scanned"
        cpu = daemon.cpu_s()
        time.sleep(0.02)
    return cpu


def _measure(folder: Path, count: int, answer_bytes: int) -> dict[str, float]:
    data, port = folder / "data", free_port()
    (data / "profiles").mkdir(parents=True)
    items = ", ".join(f'"0D:F{fn}"' for fn in FNS)
    text = PROFILE.format(answer_bytes=answer_bytes, items=items)
    (data / "profiles" / "bench-concentrator.toml").write_text(text, encoding="utf-8")
    today = datetime.fromtimestamp(time.time() + ZONE_S, UTC).date()
    with Database.open(StorageConfig(data_dir=str(data))) as database, database.connect(autocommit=True) as connection:
        since = today - timedelta(days=1)
        with database.connect() as archive:
            apply_devices(archive, list(_devices(count, since)))
        scan_at = int(time.time()) + SCAN_IN_S
        second = (scan_at + ZONE_S) % 86_400
        if second < EARLY_S:
            raise SystemExit("too soon after midnight of the business zone: run it half an hour later")
        # slots count as missing curve_s + 720 s after their label: at the scan those up to 00:05 of today
        config = _config(folder, port, scan_at, second - 720 - 300)
        log = folder / "daemon.log"
        with log.open("wb") as file:
            process = subprocess.Popen((*FUHE, "-c", str(config), "run"), stderr=file, stdout=file)
        try:
            told, daemon = _Log(log, process), _Process(process.pid)
            told.wait("running")
            with _concentrators(port, count):
                server = _postgres(data)
                before = daemon.cpu_s()
                cpu = _until_scanned(log, daemon)
                begin, cpu_server = time.time(), _cpu(server)
                wanted, rows = count * POINTS * len(FNS), 0
                while rows < wanted and time.time() - begin < LIMIT_S:
                    time.sleep(0.1)
                    (rows,) = connection.execute(
                        "SELECT count(*) FROM curve_day WHERE day = %s", (since,)
                    ).fetchone() or (0,)
                assert rows == wanted, f"{rows} of {wanted} curve days: {log.read_text(encoding='utf-8')[-2000:]}"
                result = {
                    "wall_s": time.time() - begin,
                    "cpu_s": daemon.cpu_s() - cpu,
                    "scan_s": cpu - before,
                    "server_s": _cpu(server) - cpu_server,
                    "peak_mb": daemon.memory_mb("VmHWM"),
                }
                (values,) = connection.execute(
                    "SELECT count(*) FROM curve WHERE day = %s AND point IN (SELECT id FROM point LIMIT 50)", (since,)
                ).fetchone() or (0,)
                assert values == 50 * len(FNS) * SLOTS, f"only {values} values of 50 points"
                result["bytes"] = _size(connection, since) / (wanted * SLOTS)
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0
            pack_cold(database, today + timedelta(days=30), 7)  # what the daemon does a week later
            result["packed_bytes"] = _size(connection, since) / (wanted * SLOTS)
        finally:
            process.kill()
            process.wait()
    return result


def _size(connection: psycopg.Connection, day: date) -> float:
    """Bytes of a day's curves with their indexes."""
    (size,) = connection.execute(
        "SELECT pg_total_relation_size(tableoid) FROM curve_day WHERE day = %s LIMIT 1", (day,)
    ).fetchone() or (0,)
    return float(size)


def _row(name: str, value: float, unit: str, peer: str = "", ratio: float | None = None, target: str = "") -> Row:
    return {
        "bench": "terminals_curves", "name": name, "value": value, "unit": unit, "peer": peer, "ratio": ratio,
        "target": target,
    }  # fmt: skip


def run(quick: bool = False) -> list[Row]:
    """All figures; `quick`: a fifth of the concentrators and one size of buffer."""
    count = 100 if quick else 500
    values = count * POINTS * len(FNS) * SLOTS
    a_point = sum(11 + SLOTS * curve_classes()[fn].width for fn in FNS)
    found: list[Row] = []
    for points in (1,) if quick else (1, 7):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            folder.chmod(0o711)  # the embedded server runs as another user when we are root
            bare_s = _bare(count, points)
            got = _measure(folder, count, points * a_point + 100)
        fleet = f"{values:,} values from {count} concentrators, {points * a_point / 1000:.0f} kB an answer"
        found += [
            _row(f"{fleet}: values a second of one core, socket to committed", values / got["cpu_s"], "1/s",
                 f"bare epoll loop, nothing decoded or stored: {values / bare_s:,.0f}", bare_s / got["cpu_s"],
                 "≥ 1,000,000"),
            _row(f"{fleet}: values a second", values / got["wall_s"], "1/s",
                 "both cores, with the concentrators and the database"),
            _row(f"{fleet}: CPU of the database's processes", 1e6 * got["server_s"] / values, "µs/value",
                 f"{1e6 * got['cpu_s'] / values:.2f} µs of the daemon"),
            _row(f"{fleet}: size in the database", got["packed_bytes"], "bytes/value",
                 f"{got['bytes']:.3g} in the first week, with room for merging", None, "≤ 5"),
            _row(f"{fleet}: CPU of the gap scan before", got["scan_s"], "s"),
            _row(f"{fleet}: peak memory of the daemon", got["peak_mb"], "MiB"),
        ]  # fmt: skip
    return found
