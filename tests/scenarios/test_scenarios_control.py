"""What an operator wants to see proved about control: real wires, the real daemon, and the field itself as the witness.

`relay_frames()` is what the serial line has really carried: 1A = trip, 1B = permit to close, each with the address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fuhe.control import audit, orders, releases
from fuhe.control.rules.states import State

Make = Callable[..., Any]


def test_an_order_is_cut_proved_by_the_meter_and_restored(county: Make, meter: Make) -> None:
    """From the order to CLOSED: one trip, proved by metering, one permit, load back, every step on record."""
    c = county([meter("spinning", 1)])
    c.ready()
    before = c.field.kw("spinning")
    # Two people have signed and the level is in force: still nothing has been sent.
    assert c.field.relay_frames() == [] and c.command.state is State.APPROVED

    c.execute()
    c.until_state(State.EFFECTIVE)
    # The relay is open, the load is gone, and the number that is shown is what the meter measured.
    lost = before - c.field.kw("spinning")
    assert c.field.relay_open("spinning") and c.command.measured_kw is not None
    assert abs(c.command.measured_kw - lost) < 0.1 * lost
    assert (c.command.sent, c.command.acknowledged, c.command.read_back["open"]) == (True, True, True)

    c.release()
    c.until_state(State.CLOSED)
    # The customer pressed the button after the permit; the contact is closed again.
    assert not c.field.relay_open("spinning")
    assert c.field.relay_frames() == [("202600000901", "1A"), ("202600000901", "1B")]
    assert orders.end(c.conn, c.now_us, c.people["dispatcher"], c.order_id).state == "ENDED"
    # The record was written before the frame, and the chain is sound.
    steps = c.history(c.command.id)
    assert steps.index("send") < steps.index("ack") < steps.index("proven") < steps.index("release") < len(steps) - 1
    assert steps[-1] == "close"
    assert audit.verify(audit.read(c.conn))[1] is None


def test_a_broken_relay_that_acknowledges_is_never_called_cut(county: Make, meter: Make) -> None:
    """The meter says "accepted" and nothing moves: INEFFECTIVE, never EFFECTIVE, and somebody is told."""
    c = county([meter("spinning", 1)])
    c.ready()
    c.field.fault("broken_relay", "spinning")
    c.execute()
    c.until_state(State.INEFFECTIVE)
    assert c.command.acknowledged is True and not c.field.relay_open("spinning")
    assert "proven" not in c.history(c.command.id) and c.command.attention
    # Nobody tries once more by himself; the only way out is a release.
    assert c.field.relay_frames() == [("202600000901", "1A")]
    c.release()
    c.until_state(State.CLOSED)


def test_an_answer_that_got_lost_is_found_out_by_reading_not_by_sending_again(county: Make, meter: Make) -> None:
    """The meter trips and its acknowledgement is lost: unknown, then the state is read. One trip frame on the wire."""
    c = county([meter("spinning", 1)])
    c.ready()
    c.field.fault("no_ack", "spinning")
    c.execute()
    c.until_state(State.EFFECTIVE)
    steps = c.history(c.command.id)
    assert "silence" in steps, "without an answer nothing was known"
    assert steps.index("silence") < steps.index("ack") < steps.index("proven")
    # It was never acknowledged, and the record says so although the cut is proved.
    assert c.command.acknowledged is None and c.command.sent is True
    assert c.field.relay_frames() == [("202600000901", "1A")]


def test_a_daemon_killed_behind_the_trip_reads_back_and_never_trips_twice(county: Make, meter: Make) -> None:
    """kill -9 between the trip and its answer. The next daemon reads the state; the wire has one trip frame."""
    c = county([meter("spinning", 1)])
    c.ready()
    c.field.fault("no_ack", "spinning")
    c.execute()
    c.until("the trip is on the wire", c.field.relay_frames)
    c.kill_daemon()
    # What the dead daemon left behind claims no more than "may have been sent".
    assert c.command.state is State.SENT and c.command.acknowledged is None

    c.start_daemon()
    c.until_state(State.EFFECTIVE)
    steps = c.history(c.command.id)
    assert "recover" in steps and steps.count("send") == 1
    assert c.field.relay_frames() == [("202600000901", "1A")] and c.field.relay_open("spinning")
    # The held round is released by the new daemon as if nothing had been.
    c.release()
    c.until_state(State.CLOSED)
    assert c.field.relay_frames()[1:] == [("202600000901", "1B")]


def test_somebody_who_closes_by_hand_while_held_is_seen_and_not_tripped_again(county: Make, meter: Make) -> None:
    """The customer closes without permission: the operator is told to look at the site; the program trips nobody."""
    c = county([meter("spinning", 1)])
    c.ready()
    c.execute()
    c.until_state(State.EFFECTIVE)
    assert c.command.attention == ""
    c.field.fault("reclose", "spinning")
    c.until("the reclosing is seen", lambda: "reclosed while held" in c.command.attention)
    assert c.command.state is State.EFFECTIVE
    assert "command.attention" in {r.action for r in audit.read(c.conn)}
    assert c.field.relay_frames() == [("202600000901", "1A")]


def test_in_read_only_mode_no_write_leaves_on_any_wire(county: Make, meter: Make) -> None:
    """A daemon set to read-only: it reads on, refuses to trip and to release, and no wire carries a write."""
    key = "DKvCN6jB1vQcCHdJADuUXILNRc2+fPRm"
    mqtt = {"bus": "broker", "profile": "mqtt-v1", "address": "press-1", "key": key, "publish_s": 1.0, "ct_ratio": 1}
    c = county([meter("spinning", 1), meter("press", 2, kw=200.0, **mqtt)])
    c.ready()
    # First in normal mode: both are cut, by one trip each.
    c.execute()
    c.until_state(State.EFFECTIVE)
    assert c.field.relay_open("spinning") and c.field.relay_open("press")
    c.stop_daemon()

    # The same daemon in read-only mode: the release is wanted, and not a byte of it leaves.
    c.configure(read_only=True)
    trips = c.field.writes()
    c.start_daemon()
    c.release()
    c.until(
        "both releases were refused below the drivers",
        lambda: all(x.release_acked is None and "read-only" in x.attention for x in c.all()),
    )
    assert c.field.writes() == trips, "no write on the serial line, nothing published to the broker"
    assert c.field.relay_open("spinning") and c.field.relay_open("press")
    # A trip is refused before any of that: the mode stands in the way.
    row = c.conn.execute("SELECT mode FROM daemon_state").fetchone()
    assert row is not None and row[0] == "READ_ONLY"
    assert {x.state for x in c.all()} == {State.RELEASING}

    # Back to normal, a person repeats what never left: the customers get their supply back.
    c.stop_daemon()
    c.configure()
    c.start_daemon()
    for x in c.all():
        releases.repeat_release(c.conn, c.now_us, c.people["dispatcher"], x.id, "back to normal mode")
    c.until_state(State.CLOSED)


def test_a_trip_in_read_only_mode_is_blocked_with_the_reason(county: Make, meter: Make) -> None:
    """Everything is signed, the daemon is read-only: the command is BLOCKED and says why; the wire saw only reads."""
    c = county([meter("spinning", 1)])
    c.configure(read_only=True)
    c.ready()
    c.execute()
    c.until_state(State.BLOCKED)
    assert "read_only" in c.command.attention and c.field.writes() == []
    assert c.command.sent is None and c.command.sent_at is None
