"""The verbs end to end on a real PostgreSQL, a fake field behind the executor: order to closed, then tampering."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner

from fuhe.cli import root
from fuhe.control import commands, orders
from fuhe.control.config import ControlConfig
from fuhe.control.executor import Executor
from fuhe.control.records import scalar
from fuhe.model.quantities import quantity
from fuhe.model.times import DAY_US, from_us
from fuhe.storage.config import StorageConfig

CONTROL = {
    "environment": "test", "county_load_kw": 100000.0, "verify_at_s": [0, 1], "restore_wait_s": 0, "min_off_min": 0,
    "unknown_read_s": 0, "supervise_s": 0,
}  # fmt: skip


class Desk:
    """Runs `fuhe` as one of several people, each with a session file of their own."""

    def __init__(self, world: Any, storage: StorageConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch, self.world = folder, monkeypatch, world
        self.config = folder / "config.yaml"
        fields = {"data_dir": storage.data_dir, "dsn": storage.dsn, "admin_dsn": storage.admin_dsn}
        self.config.write_text(yaml.safe_dump({"storage": fields, "control": CONTROL}))
        monkeypatch.setenv("FUHE_PASSWORD", "correct horse")

    def run(self, who: str, *words: str, code: int = 0) -> Any:
        """Output of one verb with --json, decoded (or the error text)."""
        self.monkeypatch.setenv("FUHE_SESSION", str(self.folder / f"{who}.session"))
        result = CliRunner().invoke(root, ["--config", str(self.config), *words, "--json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, (words, result.output)
        return json.loads(result.stdout) if code == 0 or result.stdout.startswith("{") else result.output

    def file(self, name: str, data: bytes) -> str:
        """A file to import."""
        path = self.folder / name
        path.write_bytes(data)
        return str(path)


@pytest.fixture
def desk(world: Any, storage_config: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The populated world with real time and stored power of the last minutes."""
    world.now_us = time.time_ns() // 1000 - 120_000_000
    world.field.clock = lambda: time.time_ns() // 1000
    world.field.log.clear()
    power = quantity("active_power_total")
    with world.database.connect("owner", autocommit=True) as owner:
        for i, device in enumerate((world.alpha, world.beta)):
            point = owner.execute(
                "INSERT INTO point (name, device_id, ct_ratio) VALUES (%s, %s, 100) RETURNING id", (f"p{i}", device)
            ).fetchone()
            assert point is not None
            for back in (110, 60, 5):
                owner.execute(
                    "INSERT INTO sample (time, received, value, point, quantity, source, quality) "
                    "VALUES (%s, now(), %s, %s, %s, 1, 0)",
                    (from_us(time.time_ns() // 1000 - back * 1_000_000), world.field.devices[device].kw / 100, point[0],
                     power.id),
                )  # fmt: skip
    return Desk(world, storage_config, tmp_path, monkeypatch)


async def test_the_main_job_by_the_command_line(desk: Desk, world: Any) -> None:
    now = time.time_ns() // 1000
    day = from_us(now - 10 * DAY_US).date().isoformat()
    for who in ("inside", "dispatcher", "guard", "leading", "auditor"):
        assert desk.run(who, "user", "login", who)["role"] == who
    rounds = world.rounds_csv(last_test=day)
    assert "may not" in desk.run("auditor", "control", "round", "import", desk.file("r.csv", rounds), code=1)
    assert desk.run("inside", "control", "round", "import", desk.file("r.csv", rounds)) == {"rounds": 3}

    def dated(rows: list[dict[str, object]]) -> None:
        for row in rows:
            row["last_test"] = day

    header = [
        "--name", "2026", "--area", "east", "--body", "county", "--document", "7", "--target-kw", "500",
        "--valid-from", from_us(now - DAY_US).isoformat(), "--valid-to", from_us(now + DAY_US).isoformat(),
    ]  # fmt: skip
    plan = desk.run("inside", "control", "plan", "import", desk.file("p.csv", world.plan_csv(dated)), *header)
    number = str(plan["id"])
    assert desk.run("inside", "control", "plan", "check", number) == {"fit": True, "faults": []}
    assert "second person" in desk.run("inside", "control", "plan", "review", number, code=1)
    for who, step in (("guard", "review"), ("leading", "approve"), ("dispatcher", "activate")):
        desk.run(who, "control", "plan", step, number)
    end = from_us(now + 2 * 3600 * 1_000_000).isoformat()
    desk.run(
        "dispatcher", "control", "order", "receive", "--number", "D-1", "--issuer", "province", "--area", "east",
        "--level", "II", "--gap-kw", "450", "--start", from_us(now).isoformat(), "--end", end,
    )  # fmt: skip
    said = ["--number", "D-1", "--gap-kw", "450", "--end", end]
    assert desk.run("guard", "control", "order", "confirm", "D-1", *said)["state"] == "CONFIRMED"
    dry = desk.run("inside", "control", "propose", "D-1")
    assert dry["proposal"] is None and dry["feasible"] and [r["chosen"] for r in dry["rows"]] == [True, True, False]
    assert all(r["reason"] for r in dry["rows"])
    assert "propose" in desk.run("inside", "control", "submit", "D-1", code=1)
    desk.run("inside", "control", "propose", "D-1", "--commit")
    assert [c["state"] for c in desk.run("inside", "control", "submit", "D-1")] == ["SUBMITTED"] * 2
    assert "may not" in desk.run("inside", "control", "approve", "D-1", "--digits", "alpha=0012", code=1)
    digits = ["--digits", "alpha=9999", "--digits", "beta=0034"]
    assert "digits" in desk.run("dispatcher", "control", "approve", "D-1", *digits, code=1)
    typed = ["--digits-file", desk.file("digits.csv", b"device,digits\nalpha,0012\nbeta,0034\n")]
    assert "row 1" in desk.run("dispatcher", "control", "approve", "D-1", "--digits-file",
                               desk.file("bad.csv", b"alpha\n"), code=1)  # fmt: skip
    assert [c["state"] for c in desk.run("dispatcher", "control", "approve", "D-1", *typed)] == ["APPROVED"] * 2
    assert desk.run("dispatcher", "control", "order", "notice", "D-1") == {"notices": 2}
    assert desk.run("dispatcher", "control", "order", "activate", "D-1")["state"] == "ACTIVE"

    executor = Executor(
        lambda: world.database.connect("app", autocommit=True),
        world.field,
        msgspec.convert(CONTROL, ControlConfig),
        elapsed=lambda: 0.0,
    )

    async def until(state: str) -> None:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            world.field.tick()
            await executor.step(time.time_ns() // 1000)
            if {str(c.state) for c in commands.commands(world.conn)} == {state}:
                return
        await executor.close()
        pytest.fail(f"never {state}: {[(c.state, c.attention) for c in commands.commands(world.conn)]}")

    world.kill(world.executor)
    await until("APPROVED")
    assert [c["state"] for c in desk.run("inside", "control", "execute", "D-1", "--yes")] == ["CHECKING"] * 2
    await until("EFFECTIVE")
    status = desk.run("guard", "control", "status", "D-1")
    assert status["measured_kw"] == pytest.approx(500.0) and not status["frozen"]
    shown = desk.run("guard", "control", "cmd", "show", str(status["commands"][0]["id"]))
    assert len(shown["interlocks"]) == 16 and {s[0] for s in shown["signatures"]} == {"draft", "approve"}
    assert "margin" in desk.run("dispatcher", "control", "release", "D-1", code=1)
    assert len(desk.run("dispatcher", "control", "release", "D-1", "--margin-kw", "5000")) == 2
    await until("CLOSED")
    assert desk.run("dispatcher", "control", "order", "end", "D-1")["state"] == "ENDED"
    page = desk.folder / "event.html"
    assert "is ENDED" in desk.run("dispatcher", "control", "order", "archive", "D-1", code=1)
    report = desk.run("inside", "report", "event", "D-1", "--record", "--html", str(page))
    assert report["state"] == "EVALUATED" and report["totals"]["verified"] == 2 and "D-1" in page.read_text()
    assert desk.run("dispatcher", "control", "order", "archive", "D-1")["state"] == "ARCHIVED"
    await executor.close()

    sound = desk.run("auditor", "audit", "verify")
    assert sound["sound"] and sound["records"] > 60
    assert desk.run("auditor", "audit", "export", str(desk.folder / "a.jsonl"))["records"] == sound["records"] + 1
    assert desk.run("auditor", "audit", "verify", "--file", str(desk.folder / "a.jsonl"))["sound"]
    with world.database.connect("owner", autocommit=True) as owner:
        seq = scalar(owner, "SELECT seq FROM audit WHERE action = 'command.send' LIMIT 1")
        owner.execute("ALTER TABLE audit DISABLE TRIGGER audit_append_only")
        owner.execute("UPDATE audit SET actor = 'nobody' WHERE seq = %s", (seq,))
    found = desk.run("auditor", "audit", "verify", code=1)
    assert not found["sound"] and found["break"]["seq"] == seq and found["break"]["kind"] == "changed"


def test_every_page_prints_for_people_in_both_languages(desk: Desk, world: Any) -> None:
    from fuhe.model.lang import lang, set_lang

    before = lang()
    desk.run("dispatcher", "user", "login", "dispatcher")
    pages = (["control", "status"], ["control", "plan", "list"], ["control", "round", "list"], ["user", "list"],
             ["control", "order", "status"], ["control", "incident", "list"], ["control", "device", "protections"],
             ["audit", "tail"], ["audit", "verify"], ["user", "whoami"])  # fmt: skip
    try:
        for words in pages:
            for language in ("en", "zh"):
                result = CliRunner().invoke(root, ["--config", str(desk.config), "--lang", language, *words])
                assert result.exit_code == 0, (words, result.output)
                assert result.output
    finally:
        set_lang(before)


async def test_questions_of_a_dispatcher_are_one_command_each(
    world: Any, storage_config: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(world, storage_config, tmp_path, monkeypatch)
    await world.step()
    made = world.submitted()
    world.approve(made)
    desk.run("dispatcher", "user", "login", "dispatcher")
    assert [t["told"] for t in desk.run("dispatcher", "control", "order", "told", "D-1")] == [False, False]
    told: list[tuple[list[tuple[str, str]], str, bool]] = [
        ([("alpha", "1")], "phone", True),
        ([("beta", "1")], "sms", False),
    ]
    for customers, channel, given in told:
        orders.give_notice(
            world.conn, world.now_us, world.people["dispatcher"], world.order_id, customers, channel=channel,
            note="no answer" if not given else "", given=given,
        )  # fmt: skip
    answers = desk.run("dispatcher", "control", "order", "told", "D-1")
    assert [(t["customer"], t["told"]) for t in answers] == [("beta", False), ("alpha", True)], "who was not, and why"
    assert answers[0]["tries"] == ["sms: not reached (no answer)"]
    orders.activate(world.conn, world.now_us, world.people["dispatcher"], world.order_id)
    world.pass_(1)
    world.execute(made)
    await world.run(180)
    status = desk.run("dispatcher", "control", "status")
    cut = {c["customer"]: c for c in status["commands"]}
    assert (cut["alpha"]["state"], cut["beta"]["state"]) == ("EFFECTIVE", "BLOCKED"), "nobody is cut untold"
    assert cut["alpha"]["order_id"] and cut["alpha"]["sent_at"] and cut["alpha"]["not_after"]
    assert status["promised_kw"] > 0 and round(status["measured_kw"]) == 300
    assert desk.run("dispatcher", "control", "device", "protections") == []
    span = ["--from", from_us(world.now_us - 600_000_000).isoformat(), "--to", from_us(world.now_us).isoformat()]
    assert "command.send" in str(desk.run("dispatcher", "audit", "show", *span))
    assert desk.run("dispatcher", "audit", "verify")["sound"]


def test_nobody_without_login_and_no_verb_without_person(desk: Desk) -> None:
    assert "not logged in" in desk.run("stranger", "control", "status", code=1)
    assert "not logged in" in desk.run("stranger", "audit", "tail", code=1)
    assert "wrong" in desk.run("stranger", "user", "login", "nobody", code=1)


def test_tables_are_wide_where_nobody_says_how_wide(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    desk.run("dispatcher", "user", "login", "dispatcher")
    words = ["--config", str(desk.config), "control", "status"]
    wide = CliRunner().invoke(root, words).output.splitlines()
    assert max(map(len, wide)) > 80 and "attention" in "".join(wide)
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, CliRunner().invoke(root, words).output.splitlines())) <= 80


def test_a_broken_exported_chain_names_its_first_bad_record(desk: Desk) -> None:
    desk.run("auditor", "user", "login", "auditor")
    file = desk.folder / "a.jsonl"
    desk.run("auditor", "audit", "export", str(file))
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*lines[:3], lines[3].replace('"login"', '"logout"', 1), *lines[4:]]) + "\n")
    forged = next(i for i, (a, b) in enumerate(zip(lines, file.read_text().splitlines(), strict=True), 1) if a != b)
    result = CliRunner().invoke(root, ["--config", str(desk.config), "audit", "verify", "--file", str(file)])
    assert result.exit_code == 1 and f"BROKEN at record {forged}" in result.stdout
    file.write_text("\n".join([*lines[:2], *lines[3:]]) + "\n")
    result = CliRunner().invoke(root, ["--config", str(desk.config), "audit", "verify", "--file", str(file)])
    assert result.exit_code == 1 and "record 3 is missing" in result.stdout
