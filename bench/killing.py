"""The kill drill: `kill -9` of a polling daemon at seeded random moments; afterwards every witness is heard.

    simulator (serial, TCP, RTU, Modbus TCP, MQTT) <-> `fuhe run` <-> embedded PostgreSQL     all real processes
    kill -9, the journal's witness reads the segments, start again, …; a last run settles and is stopped in good order

What must hold: whatever was whole in the journal, and every message acknowledged to the broker, is in the database
exactly once with its value; nothing else is there; the embedded server outlived every kill; recall items are not stuck;
the audit chain is sound; nothing is left running.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg
import yaml

from fuhe.model.quality import Source
from fuhe.model.quantities import by_id, quantity
from fuhe.model.times import SLOT_15MIN_US, to_us
from fuhe.protocols.mqtt.payload import parse_readings, split_topic
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.server import EmbeddedServer

from .witness import JournalWitness, Numbers, SampleKey, SlotKey, Tap

FUHE: Final = (sys.executable, "-c", "from fuhe.cli import main; main()")
READY: Final = '"message":"running"'
NUMBERS: Final = "numbers"
ROOT: Final = "fuhe/v1"
RECALLED: Final = ("a1", "a2", "s1", "s2", "s3")  # meters with load records, whose past the simulator states
START_LIMIT_S: Final = 120.0
IN_START: Final = 0.15  # share of the kills that hit a daemon that is still starting
STUCK: Final = 0.3  # share of the other kills before which the database takes nothing, so that the journal holds much
FACTOR: Final = {"live": Source.LIVE, "daily": Source.DAILY, "monthly": Source.MONTHLY, "hourly": Source.HOURLY}


class Failure(AssertionError):
    """A promise was broken; the text says which and where the evidence lies."""


def scenario(broker_port: int, days: int, builtin: bool) -> dict[str, Any]:
    """Twelve meters on five kinds of line; some days lie behind them, so that recall runs between the live cycles."""

    def meter(name: str, bus: str, profile: str, address: str, **more: object) -> dict[str, Any]:
        site = {"shape": "textile", "base_kw": 20, "rounds": [{"kw": 63}]}
        return {"name": name, "bus": bus, "profile": profile, "address": address, "ct_ratio": 60, "site": site, **more}

    dlt, modbus = "dlt645-2007-3p4w", "eastron-sdm630"
    return {
        "name": "kill-drill",
        "seed": 9,
        "past_days": days,
        "buses": [
            {"name": "serial-a", "kind": "pty", "protocol": "dlt645", "td_s": 0.005},
            {"name": "serial-b", "kind": "pty", "protocol": "dlt645", "td_s": 0.005},
            {"name": "server", "kind": "tcp", "protocol": "dlt645", "td_s": 0.005},
            {"name": "serial-r", "kind": "pty", "protocol": "modbus-rtu", "td_s": 0.005},
            {"name": "plant", "kind": "tcp", "protocol": "modbus-tcp", "td_s": 0.002},
            {"name": "broker", "kind": "mqtt", "protocol": "mqtt", "port": broker_port, "broker": builtin},
        ],
        "devices": [
            *(meter(f"a{n}", "serial-a", dlt, str(n)) for n in range(1, 3)),
            meter("b1", "serial-b", "dlt645-1997-3p", "11"),
            *(meter(f"s{n}", "server", dlt, str(20 + n)) for n in range(1, 4)),
            meter("r1", "serial-r", modbus, "1"),
            meter("r2", "serial-r", modbus, "2"),
            *(meter(f"p{n}", "plant", modbus, str(n)) for n in range(1, 4)),
            meter("m1", "broker", "mqtt-v1", "m1", publish_s=0.5),
        ],
    }


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for(what: str, found: Callable[[], bool], limit_s: float, pause_s: float = 0.02) -> None:
    """Until `found`; Failure after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not found():
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {limit_s:.0f} s")
        time.sleep(pause_s)


def listening(port: int) -> bool:
    """Whether somebody listens on loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Drill:
    """One directory, one fleet, one daemon after the other. Close it to end every process that it started."""

    def __init__(self, folder: Path, seed: int, days: int) -> None:
        self.folder, self.rng, self.days = folder, random.Random(seed), days
        self.data = folder / "data"
        self.config = folder / "config.yaml"
        self.log = folder / "daemon.log"
        self.journal = JournalWitness(self.data / "journal")
        self.mosquitto = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        self.servers: set[int] = set()
        self.starts_s: list[float] = []
        self.undrained: list[int] = []
        self._stack = contextlib.ExitStack()
        self._daemon: subprocess.Popen[bytes] | None = None
        self._environment = {
            **os.environ, "FUHE_PASSWORD": "soak-Drill-2026", "FUHE_SESSION": str(folder / "session"),
        }  # fmt: skip

    # --- the stage ------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Broker, simulator, wire-tap, configuration, device list, a person for the audit."""
        port = free_port()
        if self.mosquitto:
            text = f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n"
            (self.folder / "mosquitto.conf").write_text(text)
            self._spawn("mosquitto", (self.mosquitto, "-c", str(self.folder / "mosquitto.conf")))
            wait_for("mosquitto listens", lambda: listening(port), 10)
        tree = scenario(port, self.days, builtin=not self.mosquitto)
        (self.folder / "scenario.yaml").write_text(yaml.safe_dump(tree))
        out = self.folder / "fleet"
        self._control = free_port()
        where = (str(self.folder / "scenario.yaml"), "--emit", str(out), "--control", str(self._control))
        self._spawn("simulator", (*FUHE, "sim", "run", *where))
        wait_for("the simulator is up", (out / "truth.json").exists, 60)
        self.tap = Tap(port)
        self._stack.callback(self.tap.close)
        links = yaml.safe_load((out / "links.yaml").read_text())["links"]
        for link in links:
            if link["kind"] == "mqtt":
                link |= {"port_no": self.tap.port, "reconnect_max_s": 1.0}
        self.config.write_text(
            yaml.safe_dump(
                {
                    "storage": {"data_dir": str(self.data), "shared_buffers": "64MB"},
                    "links": links,
                    "cycles": {"live_s": 1, "curve_s": 60, "gap_scan_s": 2, "spread_s": 1, "event_s": 20},
                    "http": {"port": 0},
                }
            )
        )
        with (out / "devices.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        model = next(r for r in rows if r["name"] == "m1")
        rows.append({**model, "name": NUMBERS, "address": NUMBERS, "point": NUMBERS})
        with (self.folder / "devices.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(model))
            writer.writeheader()
            writer.writerows(rows)
        self.fuhe("device", "import", "--overload", str(self.folder / "devices.csv"))
        self.fuhe("user", "add", "chief")
        self.fuhe("user", "login", "chief")
        self.truth = json.loads((out / "truth.json").read_text())
        self.numbers = Numbers(port, NUMBERS, ROOT)
        self._stack.callback(self.numbers.stop)

    def _spawn(self, name: str, command: tuple[str, ...]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder)
        self._stack.callback(_end, process)

    def publish_backlog(self) -> None:
        """The MQTT meter sends its whole memory again: days of curves that may be there already."""
        with socket.create_connection(("127.0.0.1", self._control), timeout=10) as link, link.makefile("rwb") as lines:
            lines.write(b'{"op":"backlog"}\n')
            lines.flush()
            if not json.loads(lines.readline())["ok"]:
                raise Failure("the simulator refused to publish its backlog")

    def fuhe(self, *words: str) -> str:
        """Run a verb to its end; its standard output. Failure with its message."""
        done = subprocess.run(
            (*FUHE, "--lang", "en", "-c", str(self.config), *words),
            capture_output=True, text=True, env=self._environment, cwd=self.folder, timeout=300,
        )  # fmt: skip
        if done.returncode:
            raise Failure(f"fuhe {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    # --- the daemon -----------------------------------------------------------------------------------------------

    def launch(self) -> float:
        """Start the daemon without waiting; its log goes on in one file. Returns now (monotonic)."""
        self._seen = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                (*FUHE, "--lang", "en", "-c", str(self.config), "run"),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder,
            )  # fmt: skip
        return time.monotonic()

    def start(self) -> None:
        """Start the daemon and wait until it says that it runs."""
        begun = self.launch()
        assert self._daemon is not None
        daemon = self._daemon

        def up() -> bool:
            if daemon.poll() is not None:
                raise Failure(f"the daemon ended with status {daemon.returncode}: {self.log_since()[-2000:]}")
            return READY in self.log_since()

        wait_for("the daemon runs", up, START_LIMIT_S)
        self.starts_s.append(time.monotonic() - begun)

    def log_since(self) -> str:
        """What the running daemon has logged."""
        with self.log.open("rb") as file:
            file.seek(self._seen)
            return file.read().decode(errors="replace")

    def kill(self) -> None:
        """SIGKILL to this one process; then the journal is read as it lies there."""
        assert self._daemon is not None
        if self._daemon.poll() is not None:
            raise Failure(f"the daemon had ended by itself: {self.log_since()[-2000:]}")
        self._daemon.kill()
        self._daemon.wait()
        self.journal.look()
        self.servers.add(self.server())
        with psycopg.connect(self.conninfo()) as connection:
            row = connection.execute("SELECT segment, position FROM journal_position").fetchone()
        self.undrained.append(self.journal.behind(row or (0, 0)))

    def conninfo(self, role: str = "fuhe_app") -> str:
        """The embedded server's socket, without a hold on it: whoever uses this starts and stops nothing."""
        return EmbeddedServer(self.data / "postgres").conninfo(role)

    @contextlib.contextmanager
    def database_stuck(self) -> Iterator[None]:
        """Somebody holds a lock and nothing can be committed; the daemon goes on reading into its journal."""
        with psycopg.connect(self.conninfo("fuhe_owner")) as connection:
            connection.execute("LOCK TABLE journal_position IN ROW EXCLUSIVE MODE")
            connection.execute("SELECT 1 FROM journal_position FOR UPDATE")
            yield
            connection.rollback()

    def stop(self) -> float:
        """SIGTERM and a good end; seconds it took."""
        assert self._daemon is not None
        begun = time.monotonic()
        self._daemon.send_signal(signal.SIGTERM)
        if self._daemon.wait(120) != 0:
            raise Failure(f"the daemon ended with status {self._daemon.returncode}: {self.log_since()[-2000:]}")
        self.journal.look()
        return time.monotonic() - begun

    def server(self) -> int:
        """Process of the embedded server, which must be alive although the daemon is not."""
        pids = self.postmasters()
        if len(pids) != 1:
            raise Failure(f"{len(pids)} embedded servers run after a kill")
        return pids[0]

    def postmasters(self) -> list[int]:
        """Parent processes of servers that work in this drill's cluster."""
        cluster = self.data / "postgres" / "data"
        inside: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if (entry / "cwd").readlink() == cluster:
                    inside[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        return [pid for pid, parent in inside.items() if parent not in inside]

    def close(self) -> None:
        """End what is still running and was started here."""
        if self._daemon is not None:
            _end(self._daemon)
        self._stack.close()
        for pid in self.postmasters():
            os.kill(pid, signal.SIGQUIT)

    # --- hearing the witnesses ------------------------------------------------------------------------------------

    def settle(self, limit_s: float) -> dict[str, int]:
        """Until every published number is stored and no recall item is due or leased; the simulator keeps running."""
        with Database.open(self.storage) as database, database.connect("app", autocommit=True) as connection:
            points = _points(connection)
            slots = self._past_slots()

            def left() -> dict[str, int]:
                stored = _one(
                    connection,
                    "SELECT count(*) FROM sample WHERE point = %s AND quantity = %s",
                    points[NUMBERS], quantity("active_power_total").id,
                )  # fmt: skip
                there = _one(
                    connection,
                    "SELECT count(*) FROM curve WHERE point = ANY(%s) AND quantity = %s"
                    " AND time BETWEEN to_timestamp(%s) AND to_timestamp(%s)",
                    [points[name] for name in RECALLED], quantity("active_power_total").id,
                    slots[0] / 1e6, slots[-1] / 1e6,
                )  # fmt: skip
                waiting = _one(
                    connection,
                    "SELECT count(*) FROM recall_item WHERE state = 'open'"
                    " AND (next_us <= %s OR leased_us IS NOT NULL)",
                    time.time_ns() // 1000,
                )
                return {
                    "numbers": (self.numbers.published - stored) if self.mosquitto else 0,
                    "recalls": waiting,
                    "slots": len(slots) * len(RECALLED) - there,
                }

            deadline = time.monotonic() + limit_s
            found = left()
            while any(found.values()) and time.monotonic() < deadline:
                time.sleep(0.25)
                found = left()
            return found

    def _past_slots(self) -> list[int]:
        """Labels of the quarter-hours of the days that lie wholly behind the start, as the simulator states them."""
        first = to_us(datetime.fromisoformat(self.truth["first"]))
        return [first + i * SLOT_15MIN_US for i in range(self.days * 96)]

    @property
    def storage(self) -> StorageConfig:
        """Where the daemon keeps its database."""
        return StorageConfig(data_dir=str(self.data), shared_buffers="64MB")

    def examine(self) -> dict[str, Any]:
        """Compare the database with every witness. Failure names the first thing that is not as it must be."""
        with Database.open(self.storage) as database, database.connect("app", autocommit=True) as connection:
            points = _points(connection)
            samples = _samples(connection)
            slots = _slots(connection)
            states = dict(connection.execute("SELECT state, count(*) FROM recall_item GROUP BY state").fetchall())
            journals = _one(connection, "SELECT count(*) FROM journal_position")
        report: dict[str, Any] = {"journals": journals, "recall_items": states}
        report |= self._against_journal(samples, slots)
        report |= self._against_broker(points, samples, slots)
        report |= self._against_numbers(points, samples)
        report |= self._against_truth(points, slots)
        if journals != 1:
            raise Failure(f"the journal was taken for {journals} different ones")
        return report

    def _against_journal(self, samples: dict[SampleKey, float], slots: dict[SlotKey, float]) -> dict[str, Any]:
        wanted = self.journal.samples
        lost = [k for k in wanted if k not in samples]
        odd = [k for k in samples if k not in wanted]
        wrong = [k for k, v in samples.items() if k in wanted and wanted[k] != v]
        lost_slots = [k for k in self.journal.slots if k not in slots]
        odd_slots = [k for k in slots if k not in self.journal.slots]
        wrong_slots = [k for k, v in slots.items() if abs(self.journal.slots.get(k, v) - v) > _rounding(k[1])]
        report = {
            "journal_records": self.journal.records, "torn_bytes": self.journal.torn_bytes,
            "samples": len(samples), "samples_lost": len(lost), "samples_unknown": len(odd),
            "samples_wrong": len(wrong), "journalled_twice": self.journal.repeated,
            "curve_slots": len(slots), "curve_slots_lost": len(lost_slots), "curve_slots_unknown": len(odd_slots),
            "curve_slots_wrong": len(wrong_slots), "curve_conflicts": self.journal.conflicts,
        }  # fmt: skip
        first = (*lost, *odd, *wrong, *lost_slots, *odd_slots, *wrong_slots)
        if first or self.journal.conflicts:
            raise Failure(f"journal and database differ, first at {first[:1]}: {report}")
        return report

    def _against_broker(
        self, points: dict[str, int], samples: dict[SampleKey, float], slots: dict[SlotKey, float]
    ) -> dict[str, Any]:
        """Every acknowledged message, value by value."""
        values = 0
        for name, payload in self.tap.acknowledged:
            device, kind = split_topic(ROOT, name)
            if kind != "readings":
                continue
            message = parse_readings(payload)
            for sample in message.samples:
                for what, value in sample.values.items():
                    key = (points[device], quantity(what).id, to_us(sample.time), int(FACTOR[sample.source]))
                    values += 1
                    if value is not None and samples.get(key) != value:
                        raise Failure(f"acknowledged to the broker, but stored as {samples.get(key)}: {key} {value}")
            for curve in message.curves:
                for i, value in enumerate(curve.values):
                    slot = (points[device], quantity(curve.quantity).id, to_us(curve.start) + i * curve.step_s * 10**6)
                    values += 1
                    if value is not None and abs(slots.get(slot, 1e99) - value) > _rounding(slot[1]):
                        raise Failure(f"acknowledged to the broker, but stored as {slots.get(slot)}: {slot} {value}")
        return {
            "broker": "mosquitto" if self.mosquitto else "built-in", "mqtt_delivered": self.tap.delivered,
            "mqtt_acknowledged": len(self.tap.acknowledged), "mqtt_values": values,
            "mqtt_sent_again": self.tap.delivered - len(self.tap.acknowledged),
            "mqtt_connections": self.tap.connections,
        }  # fmt: skip

    def _against_numbers(self, points: dict[str, int], samples: dict[SampleKey, float]) -> dict[str, Any]:
        """Each number once, whatever key it might have got; with a real broker all that it had taken."""
        report: dict[str, Any] = {"numbers_published": self.numbers.published}
        for what in ("active_power_total", "voltage_a"):
            number = quantity(what).id
            found = [v for (p, q, _, _), v in samples.items() if p == points[NUMBERS] and q == number]
            if len(found) != len(set(found)):
                raise Failure(f"{len(found) - len(set(found))} numbers of {what} are stored twice")
            missing = set(range(1, self.numbers.published + 1)) - {int(v) for v in found}
            report["numbers_stored"] = len(found)
            if missing and self.mosquitto:
                raise Failure(f"{len(missing)} numbers of {what} never arrived, the first is {min(missing)}")
        return report

    def _against_truth(self, points: dict[str, int], slots: dict[SlotKey, float]) -> dict[str, Any]:
        """Recalled power curves beside what the simulator says was consumed (primary kW; ratio 60, 4 decimals)."""
        power, labels = quantity("active_power_total").id, self._past_slots()
        for name in RECALLED:
            for label, kw in zip(labels, self.truth["power_kw"][name], strict=False):
                stored = slots.get((points[name], power, label))
                if stored is None or abs(stored * 60 - kw) > 0.01:
                    raise Failure(f"{name} at {label}: {stored} x 60 kW stored, {kw} kW consumed")
        return {"recalled_slots_right": len(labels) * len(RECALLED)}


def _rounding(number: int) -> float:
    """How far a curve's value may be from its reading: half of the last digit that the quantity keeps."""
    return 0.5001 * 10.0 ** -by_id()[number].decimals


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _one(connection: psycopg.Connection[Any], query: str, *values: object) -> int:
    row = connection.execute(query.encode(), values).fetchone()
    assert row is not None
    return int(row[0])


def _points(connection: psycopg.Connection[Any]) -> dict[str, int]:
    return dict(connection.execute("SELECT name, id FROM point").fetchall())


def _samples(connection: psycopg.Connection[Any]) -> dict[SampleKey, float]:
    rows = connection.execute(
        "SELECT point, quantity, (extract(epoch FROM time) * 1000000)::int8, source, value FROM sample"
    ).fetchall()
    found = {(p, q, t, s): v for p, q, t, s, v in rows}
    if len(found) != len(rows):
        raise Failure(f"{len(rows) - len(found)} rows of sample stand twice")
    return found


def _slots(connection: psycopg.Connection[Any]) -> dict[SlotKey, float]:
    rows = connection.execute(
        "SELECT point, quantity, (extract(epoch FROM time) * 1000000)::int8, value FROM curve"
    ).fetchall()
    found = {(p, q, t): v for p, q, t, v in rows}
    if len(found) != len(rows):
        raise Failure(f"{len(rows) - len(found)} slots of curves stand twice")
    return found


@contextlib.contextmanager
def stage(seed: int, days: int, keep: bool = False) -> Iterator[Drill]:
    """A drill in a directory of its own; on a failure (or `keep`) the directory stays and its name is in the error."""
    folder = Path(tempfile.mkdtemp(prefix="fuhe-kill-"))
    folder.chmod(0o711)
    drill = Drill(folder, seed, days)
    try:
        try:
            drill.prepare()
            yield drill
        finally:
            drill.close()
    except Exception as error:
        error.add_note(f"evidence is kept in {folder}")
        raise
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


def run(
    kills: int, seed: int, *, days: int = 2, settle_s: float = 180, say: Callable[[str], object] = print
) -> dict[str, Any]:
    """The whole drill; the report, or Failure."""
    begun = time.monotonic()
    with stage(seed, days) as drill:
        drill.start()
        if drill.mosquitto:  # what is published before the first subscription, a broker keeps for nobody
            wait_for("the daemon has subscribed", lambda: drill.tap.subscribed > 0, START_LIMIT_S)
        drill.numbers.start()
        starting = stuck = 0
        for number in range(1, kills + 1):
            how = "polling"
            with contextlib.ExitStack() as around:
                if number > 1 and drill.rng.random() < IN_START:
                    how, starting = "starting", starting + 1
                    drill.launch()
                    time.sleep(drill.rng.uniform(0.0, sorted(drill.starts_s)[len(drill.starts_s) // 2]))
                else:
                    if number > 1:
                        drill.start()
                    if number % 10 == 0:  # something for the audit while the daemon works
                        drill.fuhe("user", "add", f"person-{number}")
                    if number % 5 == 3:
                        drill.publish_backlog()
                    if drill.rng.random() < STUCK:
                        how, stuck = "polling, the database stuck", stuck + 1
                        around.enter_context(drill.database_stuck())
                    time.sleep(drill.rng.uniform(0.3, 4.0))
                drill.kill()
            say(
                f"kill {number}/{kills} while {how}: {drill.journal.records} records, {len(drill.journal.samples)} "
                f"samples, {len(drill.journal.slots)} slots journalled, {drill.undrained[-1]} records undrained, "
                f"{len(drill.tap.acknowledged)} messages acknowledged, last start {drill.starts_s[-1]:.1f} s"
            )
        drill.start()
        drill.numbers.stop()
        left = drill.settle(settle_s)
        stop_s = drill.stop()
        if drill.postmasters():
            raise Failure("the daemon ended in good order but left its embedded server behind")
        report = drill.examine()
        if any(left.values()):
            raise Failure(f"still waiting after {settle_s:.0f} s: {left}; {report}")
        audit = json.loads(drill.fuhe("audit", "verify", "--json"))
        if not audit["sound"]:
            raise Failure(f"audit: {audit}")
        wrong = [
            line for line in drill.log.read_text().splitlines() if '"level":"ERROR"' in line or "Traceback" in line
        ]
        if wrong:
            raise Failure(f"{len(wrong)} errors in the daemon's log, first: {wrong[0][:600]}")
        if drill.postmasters():
            raise Failure("an embedded server is left behind")
        starts = sorted(drill.starts_s)
        return {
            "kills": kills, "kills_while_starting": starting, "kills_with_database_stuck": stuck,
            "kills_with_undrained_journal": sum(n > 0 for n in drill.undrained), "seed": seed,
            "embedded_servers_seen": len(drill.servers), "audit_records": audit["records"],
            "start_median_s": round(starts[len(starts) // 2], 2), "start_longest_s": round(starts[-1], 2),
            "stop_s": round(stop_s, 2), "left": left, **report, "seconds": round(time.monotonic() - begun, 1),
        }  # fmt: skip
