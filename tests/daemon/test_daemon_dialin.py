"""The real daemon as a process and terminals on bare sockets: unknown, taken over, reported, killed, back again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from click.testing import CliRunner

from fuhe.cli import root
from fuhe.protocols.qgdw1376.frame import Address, Frame, cut
from fuhe.storage.config import StorageConfig

LOGIN, HEARTBEAT = "027100000100", "027200000400"
EVENT = "0E7300000100010300010206301225071601"
CONFIRMED, DENIED = bytes.fromhex("00000100"), bytes.fromhex("00000200")


def until(what: str, condition: Callable[[], Any], limit_s: float = 30.0) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)
    return found


class Caller:
    """A terminal on a bare socket."""

    def __init__(self, port: int, a2: int) -> None:
        self.a2 = a2
        self.socket = until("a connection", lambda: self._connect(port))
        self.socket.settimeout(10)

    @staticmethod
    def _connect(port: int) -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), 5)
        except OSError:
            return None

    def say(self, user: str, control: int = 0xC9) -> bytes:
        """Send a frame; the data unit identifier of what confirms it."""
        self.socket.sendall(Frame(control, Address("3301", self.a2), bytes.fromhex(user)).encode())
        frames, _ = cut(self.socket.recv(4096))
        return frames[0].user[2:6]


class Installation:
    """A configuration, its verbs and its daemon."""

    def __init__(self, home: Path, storage: StorageConfig) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        listener = {
            "name": "field", "kind": "listen-tcp", "port_no": self.port, "protocol": "qgdw1376", "unknown": "deny",
        }  # fmt: skip
        off = {"live_s": 0, "curve_s": 0, "event_s": 0, "daily_at": "", "monthly_at": "", "clock_at": "",
               "gap_scan_s": 0}  # fmt: skip
        tree = {
            "storage": {"data_dir": storage.data_dir, "dsn": storage.dsn, "admin_dsn": storage.admin_dsn},
            "links": [listener], "cycles": off, "http": {"port": 0},
        }  # fmt: skip
        (home / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        self.process: subprocess.Popen[bytes] | None = None
        self.callers: list[Caller] = []

    def call(self, a2: int) -> Caller:
        self.callers.append(Caller(self.port, a2))
        return self.callers[-1]

    def verb(self, *words: str) -> Any:
        done = CliRunner().invoke(root, ["--config", str(self.home / "config.yaml"), *words])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout) if "--json" in words else done.stdout

    def take_over(self, **addresses: str) -> None:
        rows = "".join(f"{name},field,qgdw1376-2013,{address}\n" for name, address in addresses.items())
        (self.home / "list.csv").write_text(f"name,link,profile,address\n{rows}", encoding="utf-8")
        self.verb("device", "import", str(self.home / "list.csv"))

    def start(self) -> None:
        with (self.home / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fuhe.cli", "--config", str(self.home / "config.yaml"), "run"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"FUHE_LANG": "en"},
            )  # fmt: skip

    def end(self, how: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(40)


@pytest.fixture
def installation(tmp_path: Path, storage_config: StorageConfig) -> Iterator[Installation]:
    made = Installation(tmp_path, storage_config)
    try:
        yield made
    finally:
        made.end(signal.SIGKILL)
        for caller in made.callers:
            caller.socket.close()


def test_terminals_call_are_taken_over_and_leave_their_history(
    installation: Installation, db: psycopg.Connection[Any]
) -> None:
    one = installation
    one.take_over(t0001="33010001")
    one.start()
    known, stranger = one.call(1), one.call(4660)
    assert known.say(LOGIN) == CONFIRMED
    assert stranger.say(LOGIN) == DENIED
    (row,) = one.verb("device", "unknown", "--json")["terminals"]
    assert (row["address"], row["hex"], row["held"], row["frames"]) == ("3301-4660", "33011234", True, 1)
    assert "3301-4660" in one.verb("device", "unknown")

    one.take_over(t0001="3301-1", t1234="33011234")  # both forms mean the same terminal
    until("it is served", lambda: stranger.say(LOGIN) == CONFIRMED)  # on the connection that it had already
    assert one.verb("device", "unknown", "--json")["terminals"] == []
    assert stranger.say(EVENT, 0xC4) == CONFIRMED
    until("the event", lambda: db.execute("SELECT code FROM event WHERE code = 'ERC2'").fetchall())
    shown = until("its state", lambda: one.verb("device", "show", "t1234", "--json")["state"])
    until("online", lambda: one.verb("device", "show", "t1234", "--json")["state"]["online"])
    assert shown["device"] == one.verb("device", "show", "t1234", "--json")["device"]["id"]
    assert "33011234" in one.verb("device", "show", "t1234")

    one.end(signal.SIGKILL)  # no offline could be written
    one.start()
    again = one.call(1)
    assert again.say(LOGIN) == CONFIRMED
    codes = "SELECT code FROM event WHERE device = %s AND code IN ('link.online', 'link.offline') ORDER BY time, id"
    ids = {r["name"]: r["id"] for r in one.verb("device", "list", "--json")}
    wanted = ["link.online", "link.offline"]
    until("ended", lambda: [c for (c,) in db.execute(codes, (ids["t1234"],))] == wanted)
    until("ended", lambda: [c for (c,) in db.execute(codes, (ids["t0001"],))] == [*wanted, "link.online"])
    online = one.verb("device", "online", "--json")
    assert {t["name"] for t in online["terminals"]} == {"t0001", "t1234"} and 0 < online["rate"] < 1
    assert "online rate" in one.verb("device", "online", "t0001")

    twins = one.call(4660), one.call(4660)  # a connection that takes another's place is in the audit
    assert [twin.say(LOGIN) for twin in twins] == [CONFIRMED, CONFIRMED]
    audited = "SELECT object, after_::jsonb->>'count' FROM audit WHERE action = 'link.replaced'"
    assert until("audited", lambda: db.execute(audited).fetchall()) == [(f"device:{ids['t1234']}", "1")]

    one.end(signal.SIGTERM)
    assert [c for (c,) in db.execute(codes, (ids["t0001"],))] == [*wanted, *wanted]
    traffic = one.verb("device", "show", "t0001", "--json")["traffic"]
    assert traffic and traffic[0]["rx_bytes"] >= 20 and traffic[0]["tx_bytes"] >= 20
