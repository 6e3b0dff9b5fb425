"""Load control of terminals on a real wire: what leaves, what the terminal does, what the record says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fuhe.control import audit, incidents, releases
from fuhe.control.rules.states import State
from fuhe.protocols.qgdw1376.edition import edition
from fuhe.protocols.qgdw1376.frame import cut
from fuhe.protocols.qgdw1376.message import Message, parse

Make = Callable[..., Any]
Rows = list[dict[str, str]]
PASSWORD = "31323334"


def terminal(number: int = 1, kw: tuple[float, ...] = (300.0,), **changes: object) -> dict[str, object]:
    """A terminal that dials in, with one meter and rounds of `kw`, and a checked password."""
    site = {"shape": "cement", "base_kw": 60, "rounds": [{"kw": one} for one in kw]}
    floor = [{"fn": 17, "data": {"limit_kw": 20}}]
    own = {"redial_s": 0.5, "auth": "cleartext", "heartbeat_s": 5, "parameters": floor} | dict(
        changes.pop("terminal", {})
    )  # type: ignore[call-overload]
    relay = {"delay_s": 0.1, "human_s": 0.3} | dict(changes.pop("relay", {}))  # type: ignore[call-overload]
    return {
        "name": f"mill-{number}", "bus": "terminals", "profile": "qgdw1376-2013", "address": f"3301-{9000 + number}",
        "password": PASSWORD, "points": [{"pn": 1, "ct_ratio": 100, "site": site}], "terminal": own, "relay": relay,
        **changes,
    }  # fmt: skip


def sent(c: Any) -> list[Message]:
    """Every command and setting that the wire saw, in order (AFN 04, 05)."""
    data = b"".join(f.data for f in list(c.field.sim.observer.frames("terminals")) if f.direction == "in")
    frames, _ = cut(data)
    found = [parse(f, edition("2013")) for f in frames]
    return [m for m in found if m.afn in (4, 5)]


def orders(c: Any) -> list[tuple[int, int]]:
    """(Fn, pn) of the commands among them."""
    return [(u.fn, u.pn) for m in sent(c) if m.afn == 5 for u in m.units]


def one(rows: Rows, **changes: str) -> None:
    """A plan of the first row only, changed."""
    del rows[1:]
    rows[0] |= changes


def test_a_trip_is_verified_by_contact_and_power_and_a_person_closes_after_the_permit(county: Make) -> None:
    c = county([terminal()], live_s=3)
    c.ready()
    c.execute()
    c.until_state(State.EFFECTIVE)
    assert c.field.relay_open("mill-1") and orders(c) == [(1, 1)]
    (trip,) = sent(c)
    assert trip.tp is not None and trip.tp.delay_min == 5 and not trip.address.group
    assert trip.pw == bytes.fromhex(PASSWORD).ljust(16, b"\0")
    record = c.command
    assert record.read_back is not None and record.read_back["open"] is True, "the contact of round 1, input 1"
    assert record.read_back["tripped"] == [1] and record.read_back["protected"] is False
    frames = [r[0] for r in c.conn.execute("SELECT hex FROM command_frame ORDER BY id")]
    assert frames and all(PASSWORD not in f for f in frames) and "**" in frames[0], "PW is never kept"
    c.release()
    c.until_state(State.CLOSED)
    assert orders(c) == [(1, 1), (2, 1)] and not c.field.relay_open("mill-1")
    assert not incidents.incidents(c.conn) and audit.verify(audit.read(c.conn))[1] is None


def test_the_alarm_sounds_for_its_minutes_before_the_trip(county: Make) -> None:
    """One minute of alarm: acknowledged at once, ALARMING, and not a kilowatt less before the minute is over."""
    c = county([terminal()], live_s=3)
    c.ready(lambda rows: one(rows, alarm_min="1", params="limit_half_hours=4"))
    assert c.command.limit_half_hours == 4
    c.execute()
    c.until_state(State.ALARMING)
    assert c.command.acknowledged is True and not c.field.relay_open("mill-1")
    c.until("the relay opens", lambda: c.field.relay_open("mill-1"), limit_s=90)
    assert c.now_us - c.command.act_us < 5_000_000
    c.until_state(State.EFFECTIVE)
    (trip,) = sent(c)
    assert trip.units[0].data == {"alarm_delay_min": 1, "limit_half_hours": 4}


def limited(c: Any) -> Callable[[Rows], None]:
    """Both rounds under period control, the limit 80 kW below what the mill draws now; 76 kW are expected of it."""

    def edit(rows: Rows) -> None:
        one(
            rows, kind="period", measure="limit", round="1", limit_kw=f"{c.field.kw('mill-1') - 80:.0f}",
            reducible_kw="70", alarm_min="0", params="rounds=1,2; windows=0:00-24:00; slip_min=1",
        )  # fmt: skip

    return edit


def test_power_control_is_set_read_back_engaged_and_brings_the_group_below_its_limit(county: Make) -> None:
    c = county([terminal(kw=(200.0, 150.0))], live_s=3)
    c.ready(limited(c), share=1.0)
    record = c.command
    assert record.kind == "period" and record.rounds == (1, 2) and record.limit_kw is not None
    c.execute()
    c.until("engaged", lambda: orders(c) == [(9, 1)])
    assert [u.fn for m in sent(c) if m.afn == 4 for u in m.units] == [18, 19, 41, 43, 45, 49, 49]
    assert all(r["equal"] for r in c.command.set_results)
    c.until("a round is opened", lambda: c.field.kw("mill-1") < record.limit_kw, limit_s=200)
    c.until_state(State.EFFECTIVE)
    back = c.command.read_back
    assert back is not None and back["engaged"] == ["period"] and back["limit_kw"] == record.limit_kw
    c.release()
    c.until_state(State.CLOSED)
    assert orders(c) == [(9, 1), (17, 1)]
    c.until("a person closes what was opened", lambda: not c.field.relay_open("mill-1", 1))


@pytest.mark.parametrize("case", ["protected", "refuses", "wrong password", "another clock"])
def test_what_is_not_obeyed_is_told_and_never_tried_again(county: Make, case: str) -> None:
    c = county([terminal(relay={"protected": case == "protected"})], live_s=3)
    if case == "wrong password":
        secrets = c.home / "sim/secrets.yaml"
        secrets.write_text(secrets.read_text(encoding="utf-8").replace(PASSWORD, "99999999"), encoding="utf-8")
        secrets.chmod(0o600)
    if case == "another clock":
        c.field.fault("clock_offset", "mill-1", value=200)
    c.ready()
    if case == "refuses":
        c.field.fault("refuse", "mill-1")
    c.execute()
    blocked = case in ("protected", "another clock")
    c.until_state(State.BLOCKED if blocked else State.FAILED)
    refused = {i["number"]: i["text"] for i in c.command.interlocks if i["verdict"] != "pass"}
    if blocked:
        assert list(refused) == [2 if case == "protected" else 10] and orders(c) == [], refused
    else:
        assert (c.command.sent, c.command.acknowledged) == (True, False) and orders(c) == [(1, 1)]
        assert c.command.attention
    assert not c.field.relay_open("mill-1")


def test_carried_out_without_an_answer_is_found_by_reading(county: Make) -> None:
    c = county([terminal()], live_s=3)
    c.ready()
    c.field.fault("no_ack", "mill-1")
    c.execute()
    c.until_state(State.EFFECTIVE)
    steps = c.history(c.command.id)
    assert steps.index("silence") < steps.index("ack") and orders(c) == [(1, 1)]
    assert c.command.acknowledged is None and c.command.sent is True


def test_a_broken_relay_is_ineffective_and_an_incident(county: Make) -> None:
    c = county([terminal()], live_s=3)
    c.ready()
    c.field.fault("broken_relay", "mill-1")
    c.execute()
    c.until_state(State.INEFFECTIVE)
    assert c.command.acknowledged is True and orders(c) == [(1, 1)] and not c.field.relay_open("mill-1")
    assert [i.what for i in incidents.incidents(c.conn)] == ["ineffective"]


def test_a_terminal_that_comes_back_is_read_before_anything_else(county: Make) -> None:
    """Its connection breaks twice: once it kept the control (confirmed), once it had forgotten it (an incident)."""
    c = county([terminal()], live_s=3)
    c.ready()
    c.execute()
    c.until_state(State.EFFECTIVE)
    c.field.fault("restart", "mill-1", end_s=2)

    def confirmed() -> int:
        return sum(1 for r in audit.read(c.conn, object_=c.command.object) if r.action == "command.confirm")

    before = confirmed()
    c.until("it is confirmed", lambda: confirmed() > before)
    assert c.command.state == "EFFECTIVE" and not incidents.incidents(c.conn)

    station = c.field.sim.terminals["mill-1"].application.terminal
    c.field.do(lambda: station.control.remote.permit(1, c.field.sim.clock.now_us()))
    c.field.fault("restart", "mill-1", end_s=2)
    c.until("it is an incident", lambda: incidents.incidents(c.conn))
    (found,) = incidents.incidents(c.conn)
    assert found.what == "reconcile" and found.command_id == c.command.id
    assert c.command.state == "INEFFECTIVE" and orders(c) == [(1, 1)], "nobody trips again"
    releases.release_danger(c.conn, c.now_us, c.people["guard"], c.command.id, "tidy up")
    c.until_state(State.CLOSED)


def test_a_daemon_killed_between_the_parameters_and_the_engagement_engages_nothing(county: Make) -> None:
    c = county([terminal(kw=(200.0, 150.0))], live_s=3)
    c.ready(limited(c), share=1.0)
    c.field.fault("silent", "mill-1", match="0A")
    c.execute()
    c.until("parameters are on the wire", lambda: any(m.afn == 4 for m in sent(c)))
    c.kill_daemon()
    assert c.command.state is State.SETTING
    c.start_daemon()
    c.until_state(State.BLOCKED)
    assert orders(c) == [] and "interrupted" in c.command.attention
