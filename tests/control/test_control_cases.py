"""`fuhe cases` as people type it: who may do what, what is told, what stands in the audit."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner

from fuhe.analytics.rules.table import rules
from fuhe.cli import root
from fuhe.control import audit
from fuhe.storage import cases
from fuhe.storage.cases import Finding

from .test_control_cli import Desk, desk  # noqa: F401 - fixture


def found(world: Any, rule: str, **changes: Any) -> int:
    r = rules()[rule]
    values: dict[str, Any] = {
        "rule": rule, "severity": r.severity, "told": r.told, "device_id": world.alpha, "point": None,
        "first_us": world.now_us - 60_000_000, "last_us": world.now_us, "note_s": r.note_s, "close_s": r.close_s,
        "hidden": r.hidden, "evidence": {"event": "ERC37"},
    } | changes  # fmt: skip
    with world.conn.transaction():
        return cases.open_or_repeat(world.conn, world.now_us, Finding(**values))[0]


def test_a_case_from_the_list_to_its_end(desk: Desk, world: Any) -> None:  # noqa: F811
    for who in ("inside", "auditor", "leading"):
        desk.run(who, "user", "login", who)
    cover, minor = found(world, "T1"), found(world, "P4")
    listed = desk.run("auditor", "cases", "list")
    assert [(c["id"], c["rule"]) for c in listed] == [(cover, "T1"), (minor, "P4")], "the urgent one first"
    assert [c["id"] for c in desk.run("auditor", "cases", "list", "--rule", "P4")] == [minor]
    assert "no rule" in desk.run("auditor", "cases", "list", "--rule", "XX", code=1)
    assert "no metering point" in desk.run("auditor", "cases", "list", "--point", "nowhere", code=1)

    number = str(cover)
    assert "may not" in desk.run("leading", "cases", "confirm", number, code=1)
    assert desk.run("inside", "cases", "ack", number)["state"] == "confirmed"
    assert "--to" in desk.run("inside", "cases", "assign", number, code=1)
    assert desk.run("inside", "cases", "assign", number, "--to", "zhao")["assignee"] == "zhao"
    assert desk.run("inside", "cases", "on-site", number)["state"] == "on_site"
    assert desk.run("inside", "cases", "note", number, "--note", "seal broken")["state"] == "on_site"
    assert "--note" in desk.run("inside", "cases", "close", number, code=1)
    assert desk.run("inside", "cases", "close", number, "--note", "bypass removed")["state"] == "closed"
    assert "is closed" in desk.run("inside", "cases", "false", number, "--note", "x", code=1)
    assert desk.run("inside", "cases", "false", str(minor), "--note", "test bench")["state"] == "false"
    assert "no case" in desk.run("inside", "cases", "show", "999", code=1)

    shown = desk.run("auditor", "cases", "show", number)
    assert [s["step"] for s in shown["steps"]] == ["open", "ack", "assign", "on-site", "note", "close"]
    assert shown["finding"] == "bypass removed" and shown["evidence"] == {"event": "ERC37"}
    actions = [(r.action, r.result) for r in audit.read(world.conn) if r.object == f"case:{cover}"]
    assert ("case.close", "ok") in actions and audit.verify(audit.read(world.conn))[1] is None
    stats = {c["rule"]: c for c in desk.run("auditor", "cases", "stats")}
    assert (stats["T1"]["confirmed"], stats["P4"]["false"]) == (1, 1)
    assert "month" in desk.run("auditor", "cases", "stats", "--month", "2026-13", code=1)

    for page in (("list", "--all"), ("show", number), ("rules",), ("stats",)):
        result = CliRunner().invoke(root, ["--config", str(desk.config), "cases", *page])
        assert result.exit_code == 0 and len(result.output.splitlines()) > 2, result.output
