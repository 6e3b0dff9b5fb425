"""What the daemon does to a command in one transaction: the database's half of the executor.

Every function locks the command, looks whether it still stands where the caller believed, and moves it at most once
along rules/states.py. Nothing here talks to a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

from ..model.control import ActionKind, ControlAction, ControlAnswer, FrameLog, SwitchState
from ..model.lang import tr
from ..model.times import US, from_us, to_us
from . import orders
from .audit import DAEMON, Entry, append
from .commands import DEVICE_LOCK, LIVE_SQL, Command, lock, move, note, overrides
from .config import ControlConfig
from .evidence import Seen, collect
from .ports import DeviceFacts
from .records import Conn, fetch_all, insert, scalar, update
from .rounds import measured
from .rules.interlocks import Checked, Use, check_all, failed
from .rules.states import Event, State
from .rules.verify import BACK_SHARE, Drop, DropEvidence, load_is_back, resolve_unknown, verify_drop

END_REMINDER_US: Final = 30 * 60 * US
LOST_SUPERVISION_S: Final = 900
# States that `recover` looks at: orphans of an interruption, and what may expire.
RECOVERABLE: Final = frozenset(
    {State.SENT, State.SELECTED, State.CHECKING, State.ALARMING, State.NACKED, State.SUBMITTED, State.APPROVED}
    | {State.BLOCKED, State.RELEASED_SELECT}
)


def action_id(command: Command, purpose: str) -> str:
    """Idempotency key of a frame: the command's number; every wish to release has a key of its own."""
    if purpose == "release" and command.release_wanted_at is not None:
        return f"{command.environment}-{command.id}-release-{to_us(command.release_wanted_at)}"
    return f"{command.environment}-{command.id}" + ("" if purpose == "trip" else f"-{purpose}")


def trip_action(command: Command) -> ControlAction:
    """The trip of a command that has just been moved to SENT."""
    assert command.valid_until is not None
    return ControlAction(
        id=action_id(command, "trip"),
        kind=ActionKind.TRIP,
        round=command.round,
        valid_until_us=to_us(command.valid_until),
        alarm_min=command.alarm_min,
        limit_half_hours=command.limit_half_hours,
    )


def close_action(command: Command, purpose: str, now_us: int, config: ControlConfig) -> ControlAction:
    """Permit or direct close, as the round says; stopping an alarm is always a permit."""
    kind = (
        ActionKind(command.release_kind) if purpose == "release" and command.release_kind else ActionKind.PERMIT_CLOSE
    )
    valid = now_us + config.command_valid_s * US
    return ControlAction(id=action_id(command, purpose), kind=kind, round=command.round, valid_until_us=valid)


def act_us(command: Command) -> int:
    """Instant at which the relay opens: the send plus the alarm."""
    assert command.sent_at is not None
    return to_us(command.sent_at) + command.alarm_min * 60 * US


def recover(conn: Conn, now_us: int, command_id: int, config: ControlConfig, *, first: bool) -> Command:
    """Bring a command that nobody is driving to a state that does not claim more than is known; or let it expire.

    first: the first look after a start, when also CHECKING and ALARMING belong to an earlier life.
    """
    command = lock(conn, command_id)
    state = command.state
    orphans = {State.SENT, State.SELECTED} | ({State.CHECKING, State.ALARMING} if first else set())
    if state in orphans:
        text = tr("the daemon was interrupted; nothing is sent again", "守护进程中断; 不重发任何命令")
        values: dict[str, object] = {"attention": text} if state is not State.SELECTED else {}
        return move(conn, now_us, DAEMON, command, Event.RECOVER, values | {"next_check_at": None}, text)
    if state is State.NACKED:
        return move(conn, now_us, DAEMON, command, Event.FAIL)
    late = now_us >= to_us(command.not_after)
    unsigned = (
        state is State.SUBMITTED
        and command.submitted_at is not None
        and now_us - to_us(command.submitted_at) > config.approval_within_s * US
    )
    if unsigned or (late and state in (State.SUBMITTED, State.APPROVED, State.BLOCKED, State.RELEASED_SELECT)):
        text = tr("not signed in time", "未及时签署") if unsigned and not late else tr("its time is over", "已过时限")
        return move(conn, now_us, DAEMON, command, Event.EXPIRE, reason=text)
    return command


def _stored(results: Sequence[Checked]) -> list[dict[str, Any]]:
    return [asdict(r) for r in results]


def _names(results: Sequence[Checked]) -> str:
    return "; ".join(f"{r.number} {r.title}: {r.text}" for r in results)


def check(conn: Conn, now_us: int, command_id: int, seen: Seen, config: ControlConfig, no_control: str) -> Command:
    """CHECKING: all interlocks, freshly; -> SELECTED or BLOCKED. no_control: why nothing may be tripped now, or ''."""
    command = lock(conn, command_id)
    if command.state is not State.CHECKING:
        return command
    if no_control:
        return move(conn, now_us, DAEMON, command, Event.BLOCK, {"attention": no_control}, no_control)
    results = check_all(collect(conn, command, Use.TRIP, seen, config), config.limits, overrides(conn, command))
    values: dict[str, object] = {"interlocks": _stored(results)}
    if failed(results):
        text = _names(failed(results))
        return move(conn, now_us, DAEMON, command, Event.BLOCK, values | {"attention": text}, text)
    return move(conn, now_us, DAEMON, command, Event.PASS, values | {"selected_at": from_us(now_us)})


def commit_send(
    conn: Conn, now_us: int, command_id: int, seen: Seen, config: ControlConfig, no_control: str
) -> Command:
    """SELECTED -> SENT: everything is checked once more on the state just read back. The frame leaves only behind this
    transaction's commit, and only if the command came back as SENT."""
    conn.execute("SELECT pg_advisory_xact_lock(%s, %s)", (DEVICE_LOCK, seen_device(conn, command_id)))
    command = lock(conn, command_id)
    if command.state is not State.SELECTED:
        return command
    assert command.selected_at is not None
    if now_us - to_us(command.selected_at) > config.select_s * US or now_us < to_us(command.selected_at):
        text = tr(f"not sent within {config.select_s} s of the select", f"选择后 {config.select_s} s 内未发出")
        return move(conn, now_us, DAEMON, command, Event.DROP_SELECT, {"attention": text}, text)
    results = check_all(collect(conn, command, Use.TRIP, seen, config), config.limits, overrides(conn, command))
    values: dict[str, object] = {"interlocks": _stored(results)}
    if no_control or failed(results):
        text = no_control or _names(failed(results))
        return move(conn, now_us, DAEMON, command, Event.BLOCK, values | {"attention": text}, text)
    valid = min(now_us + config.command_valid_s * US, to_us(command.not_after))
    before = seen.power.good(now_us - config.power_before_s * US, now_us).mean_kw
    values |= {"sent_at": from_us(now_us), "valid_until": from_us(valid), "before_kw": before, "attention": ""}
    return move(conn, now_us, DAEMON, command, Event.SEND, values)


def seen_device(conn: Conn, command_id: int) -> int:
    """Device of a command."""
    return int(scalar(conn, "SELECT device_id FROM command WHERE id = %s", (command_id,)))


def _keep_frames(conn: Conn, command: Command, purpose: str, frames: Sequence[FrameLog]) -> None:
    for frame in frames:
        row = {
            "command_id": command.id,
            "time": from_us(frame.time_us),
            "purpose": purpose,
            "direction": frame.direction,
            "hex": frame.hex,
        }
        insert(conn, "command_frame", row)


def _read_back(state: SwitchState | None) -> dict[str, object]:
    return {} if state is None else {"read_back": asdict(state)}


def record_trip(conn: Conn, now_us: int, command_id: int, answer: ControlAnswer | None, fault: str) -> Command:
    """What came of the trip frame. answer None = the conversation broke off: nothing is known (UNKNOWN)."""
    command = lock(conn, command_id)
    if answer is not None:
        _keep_frames(conn, command, "trip", answer.frames)
    if command.state is State.UNKNOWN and answer is not None and answer.acknowledged:
        values: dict[str, object] = {"sent": True, "acknowledged": True, "attention": ""}
        return move(conn, now_us, DAEMON, command, Event.ACK, values | _read_back(answer.state))
    if command.state is not State.SENT:
        return command
    if answer is None or (answer.acknowledged is None and answer.sent):
        text = (
            fault
            or (answer.refusal if answer else "")
            or tr("no answer: not known whether it tripped", "无应答: 不知是否跳闸")
        )
        return move(
            conn,
            now_us,
            DAEMON,
            command,
            Event.SILENCE,
            {"sent": answer.sent if answer else None, "attention": text, "next_check_at": None},
            text,
        )
    if answer.acknowledged:
        return move(
            conn, now_us, DAEMON, command, Event.ACK, {"sent": True, "acknowledged": True} | _read_back(answer.state)
        )
    if answer.sent:
        text = answer.refusal or tr("refused by the device", "装置拒绝")
        refused = move(
            conn, now_us, DAEMON, command, Event.NACK, {"sent": True, "acknowledged": False, "attention": text}, text
        )
        return move(conn, now_us, DAEMON, refused, Event.FAIL, reason=text)
    text = answer.refusal or tr("the frame did not leave", "报文未发出")
    return move(conn, now_us, DAEMON, command, Event.NOT_SENT, {"sent": False, "attention": text}, text)


def resolve(conn: Conn, now_us: int, command_id: int, switch: SwitchState | None, config: ControlConfig) -> Command:
    """UNKNOWN: the state just read decides, or it stays unknown and is read again."""
    command = lock(conn, command_id)
    if command.state is not State.UNKNOWN:
        return command
    assert command.sent_at is not None and command.valid_until is not None
    last_act = to_us(command.valid_until) + command.alarm_min * 60 * US
    event, text = resolve_unknown(switch, now_us=now_us, last_act_us=last_act)
    if event is not None:
        return move(
            conn,
            now_us,
            DAEMON,
            command,
            event,
            {"attention": "" if event is Event.ACK else text} | _read_back(switch),
            text,
        )
    return _look_again(conn, now_us, command, text, config.unknown_read_s)


def _look_again(conn: Conn, now_us: int, command: Command, text: str, after_s: int) -> Command:
    """Remember when to look again; a new text for the operator is audited, the mere time is not."""
    if text != command.attention:
        command = note(conn, now_us, command, "attention", {"attention": text}, text)
    update(conn, "command", command.id, {"next_check_at": from_us(now_us + after_s * US)})
    return command


def begin_alarm(conn: Conn, now_us: int, command_id: int) -> Command:
    """ACKED -> ALARMING (an alarm of zero minutes ends at once)."""
    command = lock(conn, command_id)
    return command if command.state is not State.ACKED else move(conn, now_us, DAEMON, command, Event.ALARM)


def end_alarm(conn: Conn, now_us: int, command_id: int, config: ControlConfig) -> Command:
    """ALARMING -> VERIFYING when the alarm is over."""
    command = lock(conn, command_id)
    if command.state is not State.ALARMING or now_us < act_us(command):
        return command
    first = from_us(act_us(command)) + timedelta(seconds=config.verify_at_s[0])
    return move(conn, now_us, DAEMON, command, Event.VERIFY, {"next_check_at": first, "check_no": 0})


def commit_cancel(conn: Conn, now_us: int, command_id: int) -> Command:
    """Write-ahead of the permit that stops an alarm, once; the frame leaves behind the commit."""
    command = lock(conn, command_id)
    if command.state is not State.ALARMING or command.cancel_wanted_at is None or command.cancel_sent_at is not None:
        return command
    return note(conn, now_us, command, "cancel_send", {"cancel_sent_at": from_us(now_us)})


def record_cancel(
    conn: Conn, now_us: int, command_id: int, answer: ControlAnswer | None, switch: SwitchState | None, fault: str
) -> Command:
    """CANCELLED only if the permit was acknowledged and the switch was read closed and free; else UNKNOWN."""
    command = lock(conn, command_id)
    if answer is not None:
        _keep_frames(conn, command, "cancel", answer.frames)
    if command.state is not State.ALARMING:
        return command
    free = switch is not None and switch.open is False and not switch.command_trip and not switch.alarm
    if answer is not None and answer.acknowledged and free:
        return move(conn, now_us, DAEMON, command, Event.ALARM_STOPPED, _read_back(switch))
    text = fault or tr("not known whether the alarm was stopped", "不知告警是否已停")
    return move(
        conn,
        now_us,
        DAEMON,
        command,
        Event.SILENCE,
        {"attention": text, "next_check_at": None} | _read_back(switch),
        text,
    )


def _now_kw(command: Command, seen: Seen, config: ControlConfig, since_us: int) -> float | None:
    """Newest power of quality A after `since_us`, if fresh."""
    return seen.power.good(max(since_us + 1, seen.now_us - config.freshness_s * US), seen.now_us).last_kw


def _others_kw(conn: Conn, command: Command, config: ControlConfig) -> float:
    """How much of the fall of this device's power other commands to its other rounds may have caused, primary kW.

    A round counts as far as it was still on in the `power_before_s` before this command's send: with nothing if it was
    read closed, else with its whole load, so that no kW proves two rounds at once.
    """
    assert command.sent_at is not None
    total, span_us = 0.0, config.power_before_s * US
    query = f"SELECT * FROM command WHERE device_id = %s AND id <> %s AND sent_at IS NOT NULL AND {LIVE_SQL}"
    for other in fetch_all(conn, Command, query, (command.device_id, command.id)):
        still_on = (act_us(other) - to_us(command.sent_at) + span_us) / span_us if span_us else 1.0
        closed = (other.read_back or {}).get("open") is False
        kw = 0.0 if closed else max(other.round_kw, other.measured_kw or 0.0)
        total += min(1.0, max(0.0, still_on)) * kw
    return total


def judge(conn: Conn, command: Command, seen: Seen, config: ControlConfig) -> Drop:
    """The drop of this command's round as metering and contact show it now."""
    now_kw = _now_kw(command, seen, config, act_us(command))
    return verify_drop(
        DropEvidence(
            before_kw=command.before_kw,
            now_kw=None if now_kw is None else now_kw + _others_kw(conn, command, config),
            quantum_kw=seen.power.quantum_kw,
            round_kw=command.round_kw,
            floor_kw=command.floor_kw,
            has_contact=(seen.facts or DeviceFacts()).has_contact,
            switch=seen.switch,
        )
    )


def verify(conn: Conn, now_us: int, command_id: int, seen: Seen, config: ControlConfig) -> Command:
    """VERIFYING: one check; EFFECTIVE at once, a worse verdict only at the last check, none at all without metering."""
    command = lock(conn, command_id)
    if command.state is not State.VERIFYING:
        return command
    drop = judge(conn, command, seen, config)
    found = {"at_s": round((now_us - act_us(command)) / US, 1)} | asdict(drop)
    values: dict[str, object] = {
        "checks": [*command.checks, found], "check_no": command.check_no + 1, "measured_kw": drop.drop_kw,
        "attention": drop.reason if drop.ticket or drop.event is None else "",
    } | _read_back(seen.switch)  # fmt: skip
    last = command.check_no + 1 >= len(config.verify_at_s)
    if drop.event is Event.PROVEN or (last and drop.event is not None):
        values["next_check_at"] = from_us(now_us + config.supervise_s * US)
        if drop.event is Event.NOT_PROVEN:
            values["attention"] = drop.reason
        moved = move(conn, now_us, DAEMON, command, drop.event, values, drop.reason)
        if drop.event is Event.PROVEN and drop.drop_kw is not None:
            measured(conn, command.device_id, command.round, drop.drop_kw)
        return moved
    if last:
        if command.checks and command.checks[-1]["reason"] == drop.reason:  # the same words again: not one more record
            return _look_again(conn, now_us, command, str(values["attention"]), config.supervise_s)
        values["next_check_at"] = from_us(now_us + config.supervise_s * US)
    else:
        values["next_check_at"] = from_us(act_us(command) + config.verify_at_s[command.check_no + 1] * US)
    return note(conn, now_us, command, "check", values, drop.reason)


def supervise(conn: Conn, now_us: int, command_id: int, seen: Seen, config: ControlConfig) -> Command:
    """EFFECTIVE, PARTIAL, INEFFECTIVE: watch the held round; find automatic release, reclose, lost supervision."""
    command = lock(conn, command_id)
    if command.state not in (State.EFFECTIVE, State.PARTIAL, State.INEFFECTIVE):
        return command
    switch = seen.switch
    over = act_us(command) + command.limit_half_hours * 1800 * US
    closed = switch is not None and switch.open is False
    if command.limit_half_hours and now_us >= over and closed and command.state is not State.INEFFECTIVE:
        return move(conn, now_us, DAEMON, command, Event.TIME_OVER, {"next_check_at": None} | _read_back(switch))
    kw = _now_kw(command, seen, config, act_us(command))
    if command.state is State.INEFFECTIVE:
        text = command.attention
    elif closed:
        text = tr("reclosed while held: look at the site", "保持期间合闸: 现场核查")
    elif _power_is_back(conn, command, kw):
        text = tr(
            f"power is back while held ({kw:.1f} kW): look at the site", f"保持期间负荷恢复 ({kw:.1f} kW): 现场核查"
        )
    elif kw is None and switch is None:
        text = tr("supervision lost: neither power nor switch state", "失去监视: 无功率无开关状态")
    elif kw is not None and command.floor_kw > 0 and kw < command.floor_kw:
        text = tr(
            f"{kw:.1f} kW is below the security load {command.floor_kw:.1f} kW",
            f"{kw:.1f} kW 低于保安负荷 {command.floor_kw:.1f} kW",
        )
    else:
        text = ""
    return _look_again(conn, now_us, command, text, min(config.supervise_s, LOST_SUPERVISION_S))


def _power_is_back(conn: Conn, command: Command, kw: float | None) -> bool:
    """Less than half of the proven drop is left, and no other round of the device was moved since (9.7, Z3)."""
    if kw is None or command.before_kw is None or not command.measured_kw:
        return False
    others = scalar(
        conn,
        "SELECT count(*) FROM command WHERE device_id = %s AND id <> %s AND greatest(sent_at, released_at) >= %s",
        (command.device_id, command.id, command.sent_at),
    )
    return not others and command.before_kw - kw < BACK_SHARE * command.measured_kw


def commit_release(conn: Conn, now_us: int, command_id: int, seen: Seen, config: ControlConfig) -> bool:
    """Write-ahead of a release frame, once: its block's turn, its interlocks. True = the frame may leave now."""
    conn.execute("SELECT pg_advisory_xact_lock(%s, %s)", (DEVICE_LOCK, seen_device(conn, command_id)))
    command = lock(conn, command_id)
    if command.state is not State.RELEASING or command.release_sent_at is not None:
        return False
    use = Use.DANGER if command.release_danger else Use.RELEASE
    results = check_all(collect(conn, command, use, seen, config), config.limits)
    if failed(results):
        text = tr("release waits: ", "恢复等待: ") + _names(failed(results))
        _look_again(conn, now_us, command, text, config.unknown_read_s)
        return False
    values: dict[str, object] = {
        "release_sent_at": from_us(now_us),
        "next_check_at": from_us(now_us + config.unknown_read_s * US),
        "attention": "",
    }
    note(conn, now_us, command, "release_send", values)
    return True


def release_due(conn: Conn, now_us: int, command: Command, config: ControlConfig) -> bool:
    """Whether this command's block has its turn: every earlier block was sent at least restore_wait_s ago."""
    if command.release_not_before is not None and now_us < to_us(command.release_not_before):
        return False
    if command.release_block is None:
        return True
    waiting = scalar(
        conn,
        "SELECT count(*) FROM command WHERE order_id = %s AND release_block < %s AND release_wanted_at = %s "
        "AND (release_sent_at IS NULL OR release_sent_at > %s) "
        "AND state IN ('RELEASING', 'RELEASED', 'RESTORED', 'CLOSED')",
        (
            command.order_id,
            command.release_block,
            command.release_wanted_at,
            from_us(now_us - config.restore_wait_s * US),
        ),
    )
    return not waiting


def record_release(conn: Conn, now_us: int, command_id: int, answer: ControlAnswer | None, fault: str) -> Command:
    """What came of the release frame; without an answer the state is read, the frame is repeated by a person only."""
    command = lock(conn, command_id)
    if answer is not None:
        _keep_frames(conn, command, "release", answer.frames)
    if command.state is not State.RELEASING:
        return command
    if answer is not None and answer.acknowledged:
        values: dict[str, object] = {"release_acked": True, "released_at": from_us(now_us), "next_check_at": None}
        return move(conn, now_us, DAEMON, command, Event.RELEASE_ACK, values | _read_back(answer.state))
    text = fault or (answer.refusal if answer else "") or tr("no answer", "无应答")
    text = (
        tr("release not acknowledged: ", "恢复未确认: ")
        + text
        + tr("; control release --again", "; control release --again")
    )
    refused = answer is not None and answer.acknowledged is False
    return note(
        conn, now_us, command, "release_answer", {"release_acked": False if refused else None, "attention": text}, text
    )


def resolve_release(
    conn: Conn, now_us: int, command_id: int, switch: SwitchState | None, config: ControlConfig
) -> Command:
    """RELEASING without an answer: a switch read closed, or read free of our block, counts as released."""
    command = lock(conn, command_id)
    if command.state is not State.RELEASING or command.release_sent_at is None:
        return command
    if switch is not None and (switch.open is False or switch.command_trip is False):
        text = tr("state read back: released", "回读: 已允许合闸")
        values: dict[str, object] = {"released_at": from_us(now_us), "attention": "", "next_check_at": None}
        return move(conn, now_us, DAEMON, command, Event.RELEASE_ACK, values | _read_back(switch), text)
    # Also after a restart between the commit and the answer: whether the frame left is not known, a person decides.
    waiting = tr("release not confirmed: control release --again", "恢复未证实: control release --again")
    return _look_again(conn, now_us, command, command.attention or waiting, config.unknown_read_s)


def restored(conn: Conn, now_us: int, command_id: int, seen: Seen, config: ControlConfig) -> Command:
    """RELEASED or AUTO_RELEASED -> RESTORED -> CLOSED once load or contact is back; a reminder when it is late."""
    command = lock(conn, command_id)
    if command.state not in (State.RELEASED, State.AUTO_RELEASED):
        return command
    since = to_us(command.released_at) if command.released_at else act_us(command)
    kw = _now_kw(command, seen, config, since)
    text = load_is_back(before_kw=command.before_kw, now_kw=kw, round_kw=command.round_kw, switch=seen.switch)
    if text is None:
        late = now_us - since > config.restore_reminder_s * US
        words = tr("not collected: call the customer", "未合闸: 致电用户") if late else command.attention
        return _look_again(conn, now_us, command, words, config.unknown_read_s)
    values: dict[str, object] = {"restored_at": from_us(now_us), "attention": "", "next_check_at": None}
    back = move(conn, now_us, DAEMON, command, Event.LOAD_BACK, values | _read_back(seen.switch), text)
    return move(conn, now_us, DAEMON, back, Event.CLOSE, reason=summary(back))


def close(conn: Conn, now_us: int, command_id: int) -> Command:
    """RESTORED -> CLOSED (left over from an interrupted step)."""
    command = lock(conn, command_id)
    return (
        command
        if command.state is not State.RESTORED
        else move(conn, now_us, DAEMON, command, Event.CLOSE, reason=summary(command))
    )


def summary(command: Command) -> str:
    """One line of the finished command for the record."""
    kw = tr("not measured", "未测得") if command.measured_kw is None else f"{command.measured_kw:.1f} kW"
    return tr(f"expected {command.expected_kw:.1f} kW, measured {kw}", f"预期 {command.expected_kw:.1f} kW, 实测 {kw}")


def ending_orders(conn: Conn, now_us: int) -> list[tuple[int, str]]:
    """(order, reminder) 30 min before the end and after it. The program extends nothing and releases nothing itself."""
    found = []
    for order in orders.orders(conn, active=True):
        left = to_us(order.end_at) - now_us
        if left <= 0:
            text = tr(
                "the order has ended: release now (fuhe control release)", "指令到期: 请恢复 (fuhe control release)"
            )
        elif left <= END_REMINDER_US:
            text = tr("ends within 30 min: ask for an extension or release", "30 分钟内到期: 请示延长或恢复")
        else:
            continue
        if text != order.attention:
            found.append((order.id, text))
    return found


def record_mode(conn: Conn, now_us: int, mode: str, reason: str) -> None:
    """One record of a change of the control mode."""
    append(
        conn,
        now_us,
        [Entry(actor=DAEMON, action="control.mode", object="control", after={"mode": mode}, reason=reason)],
    )
