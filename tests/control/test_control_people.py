"""Two people are two people: accounts, sessions, roles, digits, time; plans, orders and freeze need them too."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fuhe.control import accounts, audit, commands, freeze, orders, overrides, plans, proposals, rounds
from fuhe.control.audit import Actor
from fuhe.control.permissions import MAY, Role
from fuhe.model.times import US, from_us
from fuhe.protocols.common.errors import UsageError

PASSWORD = "correct horse"


def refused(world: Any, action: str) -> bool:
    """The refusal itself was recorded, and nothing else after it."""
    last = audit.read(world.conn, last=1)[0]
    return (last.action, last.result) == (action, "refused")


def test_permission_table_keeps_duties_apart() -> None:
    assert set().union(*MAY.values()) <= set(Role)
    control_verbs = {v for v in MAY if v.startswith(("command.", "order.", "plan.", "freeze."))}
    for role in (Role.ADMINISTRATOR, Role.AUDITOR, Role.PRODUCTION, Role.INSPECTION, Role.CUSTOMER, Role.METERING):
        assert not [v for v in control_verbs if role in MAY[v]], role
    assert Role.INSIDE not in MAY["command.approve"] and Role.LEADING not in MAY["command.execute"]
    assert MAY["user.manage"] == {Role.ADMINISTRATOR}


def test_drafter_never_approves_and_digits_must_fit(world: Any) -> None:
    dispatcher = world.people["dispatcher"]
    world.activate_plan()
    world.order_id = world.confirmed_order()
    made = proposals.propose(
        world.conn, world.now_us, dispatcher, world.order_id, world.field.power, world.config, commit=True
    )
    assert made.id is not None
    c, *_ = commands.submit_proposal(world.conn, world.now_us, dispatcher, made.id, world.config)

    def approve(who: Actor, digits: str = "0012") -> commands.Command:
        return commands.approve(world.conn, world.now_us, who, c.id, digits, world.config)

    with pytest.raises(UsageError, match="second person"):
        approve(dispatcher)
    assert refused(world, "command.approve")
    world.log_in("dispatcher")
    with pytest.raises(UsageError, match="second person"):
        approve(world.people["dispatcher"])
    guard = world.people["guard"]
    same_session = Actor(name="guard", role="guard", account_id=guard.account_id, session_id=dispatcher.session_id)
    with pytest.raises(UsageError, match="session"):
        approve(same_session)
    with pytest.raises(UsageError, match="may not"):
        approve(world.people["inside"])
    for digits in ("0034", "12", "", "000000000012"):
        with pytest.raises(UsageError, match="digits"):
            approve(guard, digits)
    assert approve(guard).state == "APPROVED"
    with pytest.raises(UsageError, match="APPROVED"):
        approve(guard)


def test_approval_in_time_only(world: Any) -> None:
    made = world.submitted()
    world.pass_(601)
    with pytest.raises(UsageError, match="600 s"):
        world.approve(made)
    assert world.states() == ["SUBMITTED"] * len(made)


async def test_unsigned_commands_expire(world: Any) -> None:
    world.submitted()
    world.pass_(601)
    await world.step()
    assert set(world.states()) == {"EXPIRED"}
    assert not world.field.frames


def test_indefinite_trip_needs_a_dispatchers_signature(world: Any) -> None:
    made = world.submitted()
    with pytest.raises(UsageError, match="dispatcher's signature"):
        commands.approve(world.conn, world.now_us, world.people["guard"], made[0].id, "0012", world.config)


def test_reject_and_cancel_want_reasons_and_are_final(world: Any) -> None:
    a, b = world.submitted()
    with pytest.raises(UsageError, match="reason"):
        commands.reject(world.conn, world.now_us, world.people["guard"], a.id, " ")
    with pytest.raises(UsageError, match="may not"):
        commands.reject(world.conn, world.now_us, world.people["inside"], a.id, "no")
    assert commands.reject(world.conn, world.now_us, world.people["guard"], a.id, "wrong customer").state == "REJECTED"
    assert commands.cancel(world.conn, world.now_us, world.people["inside"], b.id, "typo").state == "CANCELLED"
    with pytest.raises(UsageError, match="final"):
        commands.cancel(world.conn, world.now_us, world.people["inside"], b.id, "again")


@pytest.mark.parametrize("state", ["APPROVED", "CHECKING", "SELECTED", "SENT"])
def test_the_database_itself_refuses_shortcuts(world: Any, state: str) -> None:
    c = world.submitted()[0]
    if state == "SENT":
        with pytest.raises(psycopg.errors.RaiseException):
            world.conn.execute("UPDATE command SET state = 'SENT', sent_at = now() WHERE id = %s", (c.id,))
        world.conn.execute("UPDATE command SET state = 'SELECTED' WHERE id = %s", (c.id,))
        with pytest.raises(psycopg.errors.RaiseException, match="two people"):
            world.conn.execute("UPDATE command SET state = 'SENT', sent_at = now() WHERE id = %s", (c.id,))
        return
    with pytest.raises(psycopg.errors.RaiseException, match="DRAFT"):
        world.conn.execute(
            "INSERT INTO command (device_seq, environment, state, order_id, proposal_id, position, plan_id, "
            "plan_row, device_id, round, customer, expected_kw, round_kw, floor_kw, not_before, not_after, "
            "created_at, changed_at) "
            "SELECT 99, environment, %s, order_id, proposal_id, position, plan_id, plan_row, device_id, round, "
            "customer, 1, 1, 1, not_before, not_after, created_at, changed_at FROM command WHERE id = %s",
            (state, c.id),
        )


def test_database_refuses_sent_without_interlocks_or_audit_and_a_moved_target(world: Any) -> None:
    made = world.submitted()
    world.approve(made)
    c = made[0]
    world.conn.execute("UPDATE command SET state = 'SELECTED' WHERE id = %s", (c.id,))
    send = "UPDATE command SET state = 'SENT', sent_at = now(){} WHERE id = %s"
    with pytest.raises(psycopg.errors.RaiseException, match="interlocks"):
        world.conn.execute(send.format(""), (c.id,))
    passed = "[" + ",".join(f'{{"number":{n},"verdict":"pass","overridden":false}}' for n in range(1, 17)) + "]"
    with pytest.raises(psycopg.errors.RaiseException, match="audit"):
        world.conn.execute(send.format(f", interlocks = '{passed}'"), (c.id,))
    good3, good8 = (f'"number":{n},"verdict":"pass","overridden":false' for n in (3, 8))
    for bad in (
        passed.replace('"number":16', '"number":15'),
        passed.replace(good3, '"number":3,"verdict":"fail","overridden":true'),
        passed.replace(good8, '"number":8,"verdict":"fail","overridden":true'),
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="interlocks"):
            world.conn.execute(send.format(f", interlocks = '{bad}'"), (c.id,))
    with pytest.raises(psycopg.errors.RaiseException, match="target"):
        world.conn.execute("UPDATE command SET device_id = %s WHERE id = %s", (world.beta, c.id))
    world.conn.execute("UPDATE command SET state = 'FAILED' WHERE id = %s", (c.id,))
    with pytest.raises(psycopg.errors.RaiseException, match="final"):
        world.conn.execute("UPDATE command SET state = 'SUBMITTED' WHERE id = %s", (c.id,))


def test_override_needs_dispatcher_and_second_and_8_9_11(world: Any) -> None:
    c = world.submitted()[0]
    now, dispatcher, guard = world.now_us, world.people["dispatcher"], world.people["guard"]
    for never in (1, 2, 3, 4, 5, 6, 7, 10, 12, 13, 14, 15, 16):
        with pytest.raises(UsageError, match="never"):
            overrides.override(world.conn, now, dispatcher, c.id, never, "because")
    with pytest.raises(UsageError, match="may not"):
        overrides.override(world.conn, now, guard, c.id, 8, "because")
    with pytest.raises(UsageError, match="reason"):
        overrides.override(world.conn, now, dispatcher, c.id, 8, "")
    with pytest.raises(UsageError, match="first"):
        overrides.override_second(world.conn, now, guard, c.id, 8, world.config)
    overrides.override(world.conn, now, dispatcher, c.id, 8, "storm")
    assert not overrides.overrides(world.conn, [c]), "one signature is none"
    with pytest.raises(UsageError, match="second person"):
        overrides.override_second(world.conn, now, dispatcher, c.id, 8, world.config)
    overrides.override_second(world.conn, now, guard, c.id, 8, world.config)
    assert overrides.overrides(world.conn, [c]) == {c.id: {8}}


async def test_freeze_by_one_lift_by_two(world: Any) -> None:
    await world.step()
    made = world.ready()
    freeze.freeze(world.conn, world.now_us, world.people["guard"], "smoke")
    world.execute(made)
    await world.step()
    assert set(world.states()) == {"BLOCKED"} and "16" in world.all()[0].attention
    assert not world.field.frames
    with pytest.raises(UsageError, match="dispatcher"):
        freeze.unfreeze(world.conn, world.now_us, world.people["guard"], "ok", world.config)
    dispatcher = world.people["dispatcher"]
    assert freeze.unfreeze(world.conn, world.now_us, dispatcher, "ok", world.config) is False
    with pytest.raises(UsageError, match="second person"):
        freeze.unfreeze(world.conn, world.now_us, dispatcher, "ok", world.config)
    assert freeze.frozen(world.conn)
    assert freeze.unfreeze(world.conn, world.now_us, world.people["guard"], "ok", world.config) is True
    assert not freeze.frozen(world.conn)


def test_plan_needs_three_people_and_another_for_activation(world: Any) -> None:
    p, conn, now = world.people, world.conn, world.now_us
    rounds.import_rounds(conn, now, p["inside"], world.rounds_csv())
    plan = plans.import_plan(conn, now, p["inside"], world.plan_csv(), world.header)

    def step(who: str, what: str) -> plans.Plan:
        return plans.advance_plan(conn, now, p[who], plan.id, what, max_test_days=365)

    with pytest.raises(UsageError, match="second person"):
        step("inside", "review")
    with pytest.raises(UsageError, match="needs reviewed"):
        step("leading", "approve")
    step("guard", "review")
    with pytest.raises(UsageError, match="may not"):
        step("guard", "approve")
    step("leading", "approve")
    assert step("dispatcher", "activate").status == "active"
    assert {r.action for r in audit.read(conn, object_=f"plan:{plan.id}")} >= {
        "plan.review",
        "plan.approve",
        "plan.activate",
    }


def test_plan_faults_are_all_named_and_nothing_is_stored(world: Any) -> None:
    p, conn, now = world.people, world.conn, world.now_us
    rounds.import_rounds(conn, now, p["inside"], world.rounds_csv())

    def spoil(rows: list[dict[str, object]]) -> None:
        rows[0]["round"] = 9
        rows[0]["measure"] = "guess"
        rows[1]["reducible_kw"] = "nan"
        rows[1]["device"] = "gamma"
        rows[2]["last_test"] = "yesterday"
        rows.append(dict(rows[2], last_test="2026-09-01"))
        rows.append(dict(rows[2], last_test="2026-09-01"))

    with pytest.raises(UsageError) as caught:
        plans.import_plan(conn, now, p["inside"], world.plan_csv(spoil), world.header)
    text = str(caught.value)
    for expected in ("row 2, measure", "row 3, reducible_kw", "row 3, device", "row 4, last_test", "row 6, round"):
        assert expected in text, text
    assert plans.plans(conn) == []


def test_plan_checks_of_8_4(world: Any) -> None:
    p, conn, now = world.people, world.conn, world.now_us
    rounds.import_rounds(conn, now, p["inside"], world.rounds_csv())

    def spoil(rows: list[dict[str, object]]) -> None:
        rows[0] |= {"class": "P", "contact": ""}
        rows[1] |= {"class": "S", "security_kw": 0, "supply": "dual", "ufls": "yes"}
        rows[2] |= {"last_test": "2025-01-01", "seq": 1, "round": 2, "measure": "shift", "reducible_kw": 0}

    plan = plans.import_plan(conn, now, p["inside"], world.plan_csv(spoil), world.header)
    faults = "\n".join(plans.check_plan(plan, plans.plan_rows(conn, plan.id), now_us=now, max_test_days=365))
    for expected in (
        "110 %", "protected", "no contact", "live test", "class S", "dual", "under-frequency", "nothing to reduce",
        "before round",
    ):  # fmt: skip
        assert expected in faults, (expected, faults)
    with pytest.raises(UsageError, match="not fit"):
        plans.advance_plan(conn, now, p["guard"], plan.id, "review", max_test_days=365)


def test_rounds_import_is_all_or_nothing_and_keeps_tags(world: Any) -> None:
    p, conn, now = world.people, world.conn, world.now_us
    with pytest.raises(UsageError, match=r"row 2.*\n.*row 3"):
        head = b"device,round,description,importance,typical_kw,last_test\n"
        rounds.import_rounds(conn, now, p["inside"], head + b"x,1,,1,5,\nalpha,0,,1,5,\n")
    assert rounds.rounds(conn) == []
    rounds.import_rounds(conn, now, p["inside"], world.rounds_csv())
    rounds.set_tag(conn, now, p["guard"], world.alpha, 1, "people at work", "ticket 5")
    rounds.import_rounds(conn, now, p["inside"], world.rounds_csv())
    found = rounds.get_round(conn, world.alpha, 1)
    assert found is not None and found.tag == "people at work"


def test_order_needs_a_true_repeat_back_by_somebody_else(world: Any) -> None:
    conn, now, dispatcher, guard = world.conn, world.now_us, world.people["dispatcher"], world.people["guard"]
    end = from_us(now) + timedelta(hours=2)
    received = orders.Received(
        number="D-9", issuer="province", area="east", level="I", gap_kw=100.0, start_at=from_us(now), end_at=end
    )
    order = orders.receive(conn, now, dispatcher, received)

    def say(who: Actor, number: str = "D-9", gap_kw: float = 100.0, end_at: datetime = end) -> orders.Order:
        return orders.confirm(conn, now, who, order.id, number=number, gap_kw=gap_kw, end_at=end_at)

    with pytest.raises(UsageError, match="second person"):
        say(dispatcher)
    for wrong in (("D-8", 100.0, end), ("D-9", 110.0, end), ("D-9", 100.0, end + timedelta(minutes=1))):
        with pytest.raises(UsageError, match="differs"):
            say(guard, *wrong)
    assert orders.get(conn, order.id).state == "RECEIVED"
    assert say(guard).state == "CONFIRMED"
    with pytest.raises(UsageError, match="end must lie"):
        orders.receive(conn, now, dispatcher, orders.Received(
            number="D-10", issuer="p", area="e", level="I", gap_kw=1.0, start_at=end, end_at=end))  # fmt: skip


def test_three_wrong_passwords_lock_until_an_administrator(world: Any) -> None:
    conn, now = world.conn, world.now_us
    for _ in range(3):
        with pytest.raises(UsageError, match="wrong"):
            accounts.login(conn, now, "guard", "wrong password", "desk")
    with pytest.raises(UsageError, match="locked"):
        accounts.login(conn, now, "guard", PASSWORD, "desk")
    accounts.set_password(conn, now, world.people["root"], "guard", "another horse")
    accounts.login(conn, now, "guard", "another horse", "desk")
    assert {"user.lock", "login"} <= {r.action for r in audit.read(conn, object_="account:guard")}
    text = str(conn.execute("SELECT array_agg(a::text) FROM account a").fetchone())
    assert "argon2id" in text and "another horse" not in text


def test_sessions_idle_end_and_hide_the_token(world: Any, tmp_path: Path) -> None:
    conn, now = world.conn, world.now_us
    actor, token = accounts.login(conn, now, "guard", PASSWORD, "desk")
    assert accounts.resume(conn, now + 599 * US, token, 600).session_id == actor.session_id
    assert accounts.resume(conn, now + 1198 * US, token, 600).name == "guard"
    with pytest.raises(UsageError, match="logged in"):
        accounts.resume(conn, now + 1799 * US, token, 600)
    with pytest.raises(UsageError):
        accounts.resume(conn, now, "x" + token, 600)
    assert not conn.execute("SELECT 1 FROM session WHERE token_hash = %s", (token.encode(),)).fetchone()
    path = tmp_path / "state" / "session"
    accounts.save_token(path, token)
    assert accounts.load_token(path) == token and path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(UsageError, match="others"):
        accounts.load_token(path)
    accounts.disable(conn, now, world.people["root"], "guard")
    with pytest.raises(UsageError):
        accounts.resume(conn, now, token, 600)


def test_only_the_first_administrator_needs_no_administrator(world: Any) -> None:
    with pytest.raises(UsageError, match="already"):
        accounts.add_first_administrator(world.conn, world.now_us, "eve", PASSWORD)
    with pytest.raises(UsageError, match="may not"):
        accounts.add_account(world.conn, world.now_us, world.people["dispatcher"], "eve", "guard", PASSWORD)
    with pytest.raises(UsageError, match="own role"):
        accounts.set_role(world.conn, world.now_us, world.people["root"], "root", "dispatcher")
