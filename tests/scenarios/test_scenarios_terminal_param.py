"""Parameters and states of a terminal by the verbs of people, on a real wire with the real daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from fuhe.cli import root
from fuhe.control import accounts, audit, terminals
from fuhe.control.rules.states import State
from fuhe.protocols.qgdw1376.message import Message

from .conftest import PASSWORD
from .test_scenarios_terminal_control import orders, sent, terminal

Make = Callable[..., Any]
POINT = "pt_ratio=1; ct_ratio=40; rated_v=220; rated_a=1.5; rated_kva=6.6; phase=0; wiring=2"


class Verbs:
    """`fuhe` as people type it, each with a session file of their own, against a county whose daemon runs."""

    def __init__(self, county: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.county, self.folder, self.monkeypatch = county, folder, monkeypatch
        monkeypatch.setenv("FUHE_PASSWORD", PASSWORD)

    def run(self, who: str, *words: str, code: int = 0) -> Any:
        """The answer of a verb: JSON, or its text where it failed."""
        self.monkeypatch.setenv("FUHE_SESSION", str(self.folder / f"{who}.session"))
        config = str(self.county.home / "config.yaml")
        result = CliRunner().invoke(root, ["--config", config, *words, "--json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, (words, result.output)
        return json.loads(result.stdout) if result.stdout.startswith(("{", "[")) else result.output

    def say(self, who: str, *words: str) -> str:
        """The same for people."""
        self.monkeypatch.setenv("FUHE_SESSION", str(self.folder / f"{who}.session"))
        return CliRunner().invoke(root, ["--config", str(self.county.home / "config.yaml"), *words]).output

    def online(self, since_us: int) -> None:
        """Wait until the terminal has dialled in (after `since_us`, Unix microseconds) and nothing of that is old."""

        def state() -> bool:
            found = self.run("guard", "device", "show", "mill-1")["state"]
            return bool(found and found["online"] and (found["detail"].get("online_since_us") or 0) >= since_us)

        self.county.until("it is online", state)

    def file(self, text: str) -> str:
        """A list to import."""
        path = self.folder / "list.csv"
        path.write_text(text, encoding="utf-8")
        return str(path)


@pytest.fixture
def verbs(county: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verbs:
    """One terminal, the daemon, and two people of metering beside the others."""
    c = county([terminal()], live_s=3)
    c.start_daemon()
    c.hire()
    boss, _ = accounts.login(c.conn, c.now_us, "root", PASSWORD, "desk")
    made = Verbs(c, tmp_path, monkeypatch)
    for name in ("meterman", "metershe"):
        accounts.add_account(c.conn, c.now_us, boss, name, "metering", PASSWORD)
    for name in ("meterman", "metershe", "guard", "dispatcher", "inside"):
        made.run(name, "user", "login", name)
    made.online(0)
    return made


def written(c: Any) -> list[tuple[int, int]]:
    """(Fn, pn) of every parameter that was written."""
    return [(u.fn, u.pn) for m in sent(c) if m.afn == 4 for u in m.units]


def test_get_set_diff_import_and_the_second_person(verbs: Verbs) -> None:
    c = verbs.county
    got = verbs.run("nobody", "param", "get", "mill-1", "F17")
    assert [p["item"] for p in got["parameters"]] == ["0A:F17"]
    assert "limit_kw" in verbs.say("nobody", "param", "get", "mill-1", "F17")

    # preview writes nothing and needs nobody; nothing at all without a login or the role
    one = ("param", "set", "mill-1", "F9", "valid=1-8", "important=none")
    wrong = verbs.run("meterman", *one, "--commit", "--reason", "x", code=1)
    assert "F9 has no field" in wrong, "every fault is named before anything happens"
    floor = ("param", "set", "mill-1", "F17", "limit_kw=30")
    shown = verbs.run("meterman", *floor)
    assert shown == {"batch": None, "devices": 1, "settings": 1, "two": {"mill-1": []}}, "a higher floor: one person"
    assert "may not" in verbs.run("inside", *floor, "--commit", "--reason", "x", code=1)
    assert "reason" in verbs.run("meterman", *floor, "--commit", code=1)
    assert written(c) == []
    done = verbs.run("meterman", *floor, "--commit", "--reason", "security load grew")
    (command,) = done["commands"]
    assert command["state"] == "CLOSED" and command["set_results"][0]["equal"] and written(c) == [(17, 0)]

    # a ratio and a lower floor: the second person signs with the digits, and only then it leaves
    path = verbs.file(f"device,parameter,pn,values\nmill-1,F25,1,{POINT}\nmill-1,F17,,limit_kw=10\n")
    assert verbs.run("nobody", "param", "diff", path, code=1)["mill-1"][0]["unlike"]
    batch = verbs.run("meterman", "param", "import", path, "--commit", "--reason", "new transformers")["batch"]
    assert written(c) == [(17, 0)]
    assert "signed already" in verbs.run("meterman", "param", "approve", str(batch), "--digits", "mill-1=9001", code=1)
    assert "digits" in verbs.run("metershe", "param", "approve", str(batch), "--digits", "mill-1=1111", code=1)
    done = verbs.run("metershe", "param", "approve", str(batch), "--digits", "mill-1=9001")
    assert [r["equal"] for r in done["commands"][0]["set_results"]] == [True, True]
    assert written(c) == [(17, 0), (25, 1), (17, 0)]
    assert all(not row["unlike"] for row in verbs.run("nobody", "param", "diff", path)["mill-1"])
    assert "written and read back" in verbs.say("meterman", "param", "status", str(batch))
    steps = c.history(done["commands"][0]["id"])
    assert steps.index("approve") < steps.index("set") < steps.index("equal")

    # refused: told, nothing else tried
    c.field.fault("refuse", "mill-1")
    done = verbs.run("meterman", *floor, "--commit", "--reason", "again", code=1)
    assert done["commands"][0]["state"] == "FAILED" and done["commands"][0]["acknowledged"] is False
    assert audit.verify(audit.read(c.conn))[1] is None


def test_a_password_in_a_parameter_is_a_name_everywhere_but_on_the_wire(verbs: Verbs) -> None:
    c = verbs.county
    secrets = c.home / "sim/secrets.yaml"
    book = yaml.safe_load(secrets.read_text(encoding="utf-8")) | {"meter-7": {"password": "00004a5b6c7d"}}
    secrets.write_text(yaml.safe_dump(book), encoding="utf-8")
    c.stop_daemon()
    c.start_daemon()
    c.until("it answers", lambda: "0A:F17" in verbs.say("nobody", "param", "get", "mill-1", "F17", "--json"))
    head = (
        "device,parameter,device_no,pn,port,address,baud_code,protocol,password_hex,tariffs,int_digits,dec_digits,"
        "collector,user_class"
    )
    rows = [
        f'mill-1,F10,{no},{no},2,00000000000{no},3,30,{password},4,6,2,0,"1,2"'
        for no, password in ((2, "secret:meter-7"), (3, "000000000000"))
    ]
    path = verbs.file("\n".join([head, *rows]) + "\n")
    done = verbs.run("meterman", "param", "import", path, "--commit", "--reason", "two meters")
    (command,) = done["commands"]
    assert command["state"] == "CLOSED", command["attention"]
    (frame,) = [m for m in sent(c) if m.afn == 4]
    assert "4a5b6c7d" in json.dumps(frame.units[0].data, default=str).lower(), "on the wire it is the password"
    everything = json.dumps(
        [[str(v) for v in r] for table in ("command", "audit", "command_frame", "approval", "parameter")
         for r in c.conn.execute(f"SELECT * FROM {table}").fetchall()]
    ).lower()  # fmt: skip
    assert "4a5b6c7d" not in everything and "secret:meter-7" in everything
    log = (c.home / "daemon.log").read_text(encoding="utf-8").lower()
    assert "4a5b6c7d" not in log
    bad = verbs.file("\n".join([head, rows[0].replace("secret:meter-7", "00001b2c3d4e")]) + "\n")
    refused = verbs.run("meterman", "param", "import", bad, "--commit", "--reason", "x", code=1)
    assert "secrets file" in refused and "1b2c3d4e" not in refused


def test_read_only_mode_writes_no_parameter(verbs: Verbs) -> None:
    c = verbs.county
    c.stop_daemon()
    c.configure(read_only=True)
    began_us = c.now_us
    c.start_daemon()
    verbs.online(began_us)
    assert verbs.run("nobody", "param", "get", "mill-1", "F17")["parameters"], "reading goes on"
    floor = ("param", "set", "mill-1", "F17", "limit_kw=30", "--commit", "--reason", "x")
    done = verbs.run("meterman", *floor, code=1)
    assert done["commands"][0]["state"] in ("FAILED", "BLOCKED") and done["commands"][0]["attention"]
    assert written(c) == []


def test_protection_by_one_person_at_once_and_its_end_by_two(verbs: Verbs) -> None:
    c = verbs.county
    made = verbs.run("guard", "control", "device", "protect", "mill-1", "--reason", "oxygen plant", "--half-hours", "4")
    c.until("closed", lambda: c.command.state is State.CLOSED)
    assert orders(c) == [(25, 0)] and made["signatures"] == 1
    (found,) = verbs.run("guard", "control", "device", "protections")
    assert found["device"] == "mill-1" and found["reason"] == "oxygen plant" and found["until"]
    asked = verbs.run("dispatcher", "control", "device", "unprotect", "mill-1", "--reason", "over")
    assert asked["state"] == "SUBMITTED"
    confirm = ("control", "device", "confirm", str(asked["id"]), "--digits", "9001")
    assert "signed already" in verbs.run("dispatcher", *confirm, code=1)
    verbs.run("guard", *confirm)
    c.until("closed", lambda: all(x.state is State.CLOSED for x in c.all()))
    assert orders(c) == [(25, 0), (33, 0)] and not terminals.protections(c.conn)
    last: Message = sent(c)[-1]
    assert last.tp is not None and last.pw is not None and not last.address.group
    for page in (
        ("incident", "list"),
        ("device", "protections"),
        ("cmd", "show", str(asked["id"])),
        ("status", "--all"),
    ):
        assert verbs.say("guard", "control", *page)
