"""The real daemon (`fuhe run`, embedded PostgreSQL) with 10,000 devices: memory, start, idle, the first gap scan.

Half of the 200 TCP links lead to one responder process that answers Modbus, the others to a port where nobody listens
(DL/T 645 meters, whose stored curves are all missing, so that the first scan finds the most that there can be). All
cycles are off: what is measured is what the daemon does by itself. Memory and CPU are the daemon process's own; the
database's are told apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from fuhe.model.devices import Device, Point
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.devices import apply_devices

from .killing import free_port
from .links import Row, far_end

LINKS = 200
IN_SERVICE_DAYS = 10  # as deep as the meters' load records
PROFILES = (
    ("siemens-pac3200", "eastron-sdm630", "schneider-pm5xxx", "acrel-adl400"),
    ("dlt645-2007-3p4w", "dlt645-2007-3p4w", "dlt645-2007-1p", "dlt645-1997-3p"),
)
ZONE_S = 8 * 3600
IDLE_S = 10.0
LIMIT_S = 240.0
TICKS = os.sysconf("SC_CLK_TCK")
FUHE = (sys.executable, "-c", "from fuhe.cli import main; main()")


def _devices(count: int) -> Iterator[Device]:
    """Even links are alive and Modbus, odd ones dead and DL/T 645."""
    since = (datetime.now(UTC) - timedelta(days=IN_SERVICE_DAYS)).strftime("%Y-%m-%d")
    for n in range(1, count + 1):
        link = n % LINKS
        unit = n // LINKS + 1
        yield Device(
            id=0,
            name=f"d{n}",
            link=f"l{link}",
            profile=PROFILES[link % 2][unit % 4],
            address=str(unit) if link % 2 == 0 else f"{n:012d}",
            points=(Point(id=0, name=f"p{n}"),),
            options={"since": since},
        )


def _config(folder: Path, port: int, scan_in_s: float) -> Path:
    """`gap_scan_s` is the age of the epoch at the moment wanted, so that the one scan begins exactly then."""
    dead = free_port()
    path = folder / "config.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "storage": {"data_dir": str(folder / "data")},
                "links": [
                    {"name": f"l{n}", "kind": "tcp", "port_no": port if n % 2 == 0 else dead} for n in range(LINKS)
                ],
                "cycles": {
                    "live_s": 0, "curve_s": 0, "event_s": 0, "daily_at": "", "monthly_at": "", "clock_at": "",
                    "gap_scan_s": int(time.time() + ZONE_S + scan_in_s),
                },
                "http": {"port": 0},
            }
        )
    )  # fmt: skip
    return path


class _Process:
    """What the kernel knows of a process."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def memory_mb(self, field: str) -> float:
        """VmRSS now, VmHWM at most until now."""
        lines = (self._folder / "status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))

    def cpu_s(self) -> float:
        """User and system time since its start, with that of its children that have ended."""
        fields = (self._folder / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS


class _Log:
    """Waits for messages of a JSON log that is being written."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        self._path, self._process = path, process

    def wait(self, message: str) -> float:
        """Wall-clock time of the first line with this message."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            for line in self._path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    entry: dict[str, Any] = json.loads(line)
                    if entry["message"] == message:
                        return datetime.fromisoformat(entry["time"]).timestamp()
            time.sleep(0.05)
        raise AssertionError(f"the daemon never said {message!r}: {self._path.read_text(encoding='utf-8')[-2000:]}")


def _postgres(data: Path) -> list[_Process]:
    """The server and its processes."""
    server = int((data / "postgres" / "data" / "postmaster.pid").read_text(encoding="ascii").splitlines()[0])
    found = [server]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"PPid:\t{server}\n" in (entry / "status").read_text(encoding="ascii", errors="replace"):
                    found.append(int(entry.name))
    return [_Process(pid) for pid in found]


def _cpu(processes: list[_Process]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(OSError):
            total += process.cpu_s()
    return total


def _measure(folder: Path, port: int, count: int) -> dict[str, float]:
    data = folder / "data"
    with Database.open(StorageConfig(data_dir=str(data))) as database, database.connect() as connection:
        begin = time.monotonic()
        apply_devices(connection, list(_devices(count)))
        result = {"import_s": time.monotonic() - begin}
        log = folder / "daemon.log"
        scan_in_s = 12 + count / 500 + IDLE_S
        config = _config(folder, port, scan_in_s)
        scan_at = int(time.time() + scan_in_s)
        begin = time.time()
        with log.open("wb") as file:
            process = subprocess.Popen((*FUHE, "-c", str(config), "run"), stderr=file, stdout=file)
        try:
            told, daemon = _Log(log, process), _Process(process.pid)
            result["start_s"] = told.wait("running") - begin
            time.sleep(2.0)  # the links open, the first states are written
            result["ready_mb"] = daemon.memory_mb("VmRSS")
            server = _postgres(data)
            cpu, cpu_server = daemon.cpu_s(), _cpu(server)
            window = time.monotonic()
            assert time.time() + IDLE_S < scan_at + 1, "too slow a start: the gap scan would disturb the idle window"
            time.sleep(IDLE_S - 1)
            window = time.monotonic() - window
            result["idle"] = (daemon.cpu_s() - cpu) / window
            result["idle_server"] = (_cpu(server) - cpu_server) / window
            result["idle_mb"] = daemon.memory_mb("VmHWM")
            time.sleep(max(0.0, scan_at - time.time()))
            cpu = daemon.cpu_s()
            result["scan_s"] = told.wait("gap scan") - scan_at
            result["scan_cpu_s"] = daemon.cpu_s() - cpu
            (result["opened"],) = connection.execute("SELECT count(*) FROM recall_item").fetchone() or (0,)
            (result["rows"],) = connection.execute("SELECT count(*) FROM completeness").fetchone() or (0,)
            time.sleep(5.0)  # the first recall items go to the links
            result["peak_mb"] = daemon.memory_mb("VmHWM")
            begin = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0
            result["stop_s"] = time.monotonic() - begin
        finally:
            process.kill()
            process.wait()
    return result


def _row(name: str, value: float, unit: str, peer: str = "", ratio: float | None = None, target: str = "") -> Row:
    return {
        "bench": "daemon", "name": name, "value": value, "unit": unit, "peer": peer, "ratio": ratio, "target": target,
    }  # fmt: skip


def run(quick: bool = False) -> list[Row]:
    """All figures; `quick`: a fifth of the devices."""
    count = 2_000 if quick else 10_000
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, far_end("modbus") as port:
        folder = Path(name)
        folder.chmod(0o711)  # the embedded server runs as another user when we are root
        bare = subprocess.run(
            (sys.executable, "-c", "import fuhe.daemon.runtime; print(open('/proc/self/statm').read().split()[1])"),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        program_mb = int(bare.stdout) * os.sysconf("SC_PAGE_SIZE") / 2**20
        found = _measure(folder, int(port), count)
    fleet = f"{count:,} devices on {LINKS} TCP links"
    kib = (found["ready_mb"] - program_mb) * 1024 / count
    slots = f"{found['opened']:,.0f} recall items and {found['rows']:,.0f} completeness rows written"
    return [
        _row(f"{fleet}: peak memory of the daemon, scan and recall included", found["peak_mb"], "MiB",
             f"{program_mb:.0f} MiB of the program without devices", found["peak_mb"] / program_mb),
        _row(f"{fleet}: memory when running", found["ready_mb"], "MiB", f"{kib:.1f} KiB a device",
             found["ready_mb"] / program_mb),
        _row(f"{fleet}: from start to running", found["start_s"], "s", f"{found['import_s']:.1f} s to import them"),
        _row(f"{fleet}: CPU when nothing is due, of one core", 100 * found["idle"], "%",
             f"{100 * found['idle_server']:.1f} % of the database's processes"),
        _row(f"{fleet}: first gap scan", found["scan_s"], "s",
             f"{found['scan_cpu_s']:.1f} s CPU of the daemon; {slots}"),
        _row(f"{fleet}: from SIGTERM to the end", found["stop_s"], "s"),
    ]  # fmt: skip
