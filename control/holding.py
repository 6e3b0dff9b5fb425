"""What the daemon does to commands that the device has accepted: alarm, verification, holding, release, restoring.

The same form as steps.py: one transaction for many commands, each moved at most once. Nothing here talks to a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Final

from ..model.control import ControlAnswer, SwitchState
from ..model.lang import tr
from ..model.times import BUSINESS_ZONE, US, from_us, to_us
from . import orders
from .audit import DAEMON, Entry
from .command import LIVE_SQL, Command, Work
from .config import ControlConfig
from .evidence import Seen, wired
from .records import Conn, fetch_all, scalar
from .rounds import get_round, measured
from .rules.interlocks import failed
from .rules.kinds import Effect, Use, acts_at, limit_kw
from .rules.reconcile import Finding, Held, reconcile
from .rules.states import Event, State
from .rules.verify import (
    BACK_SHARE,
    Drop,
    DropEvidence,
    LimitEvidence,
    limit_is_off,
    load_is_back,
    shows,
    verify_drop,
    verify_limit,
    verify_shown,
)
from .steps import Items, judged, lift_protection, names, read_back
from .trip_events import trip_event

END_REMINDER_US: Final = 30 * 60 * US
LOST_SUPERVISION_S: Final = 900
LIMIT_GRACE_S: Final = 900
_HOLDING: Final = (State.EFFECTIVE, State.PARTIAL, State.INEFFECTIVE)


# -- alarm ------------------------------------------------------------------------------------------------------------


def begin_alarm(work: Work, items: Items) -> None:
    """ACKED -> ALARMING (an alarm of zero minutes ends at once)."""
    for command_id, _ in items:
        if work[command_id].state is State.ACKED:
            work.move(work[command_id], Event.ALARM)


def end_alarm(work: Work, items: Items, config: ControlConfig) -> None:
    """ALARMING -> VERIFYING when the alarm is over."""
    for command_id, _ in items:
        command = work[command_id]
        if command.state is State.ALARMING and work.now_us >= command.act_us:
            first = from_us(command.act_us) + timedelta(seconds=check_times(command, config)[0])
            work.move(command, Event.VERIFY, {"next_check_at": first, "check_no": 0})


def check_times(command: Command, config: ControlConfig) -> tuple[int, ...]:
    """Seconds behind the act at which it is verified; what needs no load to fall is looked at once."""
    at_once = command.rule.effect in (Effect.STATE, Effect.ENERGY)
    return (0, *config.verify_at_s) if at_once and config.verify_at_s[0] else config.verify_at_s


def commit_cancel(work: Work, items: Items) -> None:
    """Write-ahead of the frame that stops an alarm, once; it leaves behind the commit."""
    for command_id, _ in items:
        command = work[command_id]
        if command.state is State.ALARMING and command.cancel_wanted_at and command.cancel_sent_at is None:
            work.note(command, "cancel_send", {"cancel_sent_at": from_us(work.now_us)})


def record_cancel(work: Work, items: Items) -> None:
    """CANCELLED only if the frame was acknowledged and the device was read free; else UNKNOWN.

    Item: (answer or None, state or None, fault).
    """
    for command_id, (answer, switch, fault) in items:
        command = work[command_id]
        if answer is not None:
            work.keep_frames(command, "cancel", answer.frames)
        if command.state is not State.ALARMING:
            continue
        if answer is not None and answer.acknowledged and _is_free(command, switch):
            work.move(command, Event.ALARM_STOPPED, read_back(switch))
            continue
        text = fault or tr("not known whether the alarm was stopped", "不知告警是否已停")
        work.move(command, Event.SILENCE, {"attention": text, "next_check_at": None} | read_back(switch), text)


def _is_free(command: Command, switch: SwitchState | None) -> bool:
    if command.rule.effect is not Effect.CUT:
        return limit_is_off(command.rule, command.rounds, switch) is not None
    if switch is None or switch.command_trip or switch.alarm:
        return False
    return switch.open is False or (switch.open is None and switch.command_trip is False)


# -- verification -----------------------------------------------------------------------------------------------------


def _now_kw(command: Command, seen: Seen, now_us: int, config: ControlConfig, since_us: int) -> float | None:
    """Newest power of quality A after `since_us`, if fresh."""
    return seen.power.good(max(since_us + 1, now_us - config.freshness_s * US), now_us).last_kw


def _others_kw(conn: Conn, command: Command, config: ControlConfig) -> float:
    """How much of the fall of this device's power other commands to its other rounds may have caused, primary kW.

    A round counts as far as it was still on in the `power_before_s` before this command's send: with nothing if it was
    read closed, else with its whole load, so that no kW proves two rounds at once.
    """
    assert command.sent_at is not None
    total, span_us = 0.0, config.power_before_s * US
    query = (
        "SELECT * FROM command WHERE device_id = %s AND id <> %s AND sent_at IS NOT NULL AND takes_supply(kind) "
        f"AND {LIVE_SQL}"
    )
    for other in fetch_all(conn, Command, query, (command.device_id, command.id)):
        still_on = (other.act_us - to_us(command.sent_at) + span_us) / span_us if span_us else 1.0
        closed = (other.read_back or {}).get("open") is False
        kw = 0.0 if closed else max(other.round_kw, other.measured_kw or 0.0)
        total += min(1.0, max(0.0, still_on)) * kw
    return total


def judge(work: Work, command: Command, seen: Seen, config: ControlConfig) -> Drop:
    """What metering, contact, events and control state say of this command now."""
    shown = shows(command.rule, command.round, seen.switch)
    if command.rule.effect in (Effect.STATE, Effect.ENERGY):
        return verify_shown(shown)
    now_kw = _now_kw(command, seen, work.now_us, config, command.act_us)
    if command.rule.effect is Effect.LIMIT:
        return _judge_limit(work.now_us, command, seen, shown, now_kw)
    round_ = get_round(work.conn, command.device_id, command.round)
    return verify_drop(
        DropEvidence(
            before_kw=command.before_kw,
            now_kw=None if now_kw is None else now_kw + _others_kw(work.conn, command, config),
            quantum_kw=seen.power.quantum_kw,
            round_kw=command.round_kw,
            floor_kw=command.floor_kw,
            has_contact=wired(seen.facts, round_),
            switch=seen.switch,
            event=trip_event(work.conn, command),
        )
    )


def _judge_limit(now_us: int, command: Command, seen: Seen, shown: bool | None, now_kw: float | None) -> Drop:
    local = from_us(now_us).astimezone(BUSINESS_ZONE)
    half = local.hour * 2 + local.minute // 30
    grace_us = (command.alarm_min * 60 + LIMIT_GRACE_S) * US
    then = from_us(now_us - grace_us).astimezone(BUSINESS_ZONE)
    acted_then = acts_at(command.rule, command.params, then.hour * 2 + then.minute // 30, then.date())
    assert command.sent_at is not None
    told = seen.switch.limit_kw if seen.switch is not None else None
    fallback = limit_kw(command.rule, command.params, command.limit_kw or 0.0, command.before_kw)
    return verify_limit(
        LimitEvidence(
            engaged=shown,
            limit_kw=told or command.limit_kw or fallback,
            before_kw=command.before_kw,
            now_kw=now_kw,
            acts=acts_at(command.rule, command.params, half, local.date()),
            grace_over=acted_then and now_us - to_us(command.sent_at) >= grace_us,
        )
    )


def verify(work: Work, items: Items, config: ControlConfig) -> None:
    """VERIFYING: one check; EFFECTIVE at once, a worse verdict only at the last check, none at all without evidence.

    Item: Seen.
    """
    for command_id, seen in items:
        command = work[command_id]
        if command.state is State.VERIFYING:
            _verify(work, command, seen, config)


def _verify(work: Work, command: Command, seen: Seen, config: ControlConfig) -> None:
    times = check_times(command, config)
    drop = judge(work, command, seen, config)
    found = {"at_s": round((work.now_us - command.act_us) / US, 1)} | asdict(drop)
    values: dict[str, object] = {
        "checks": [*command.checks, found], "check_no": command.check_no + 1, "measured_kw": drop.drop_kw,
        "attention": drop.reason if drop.ticket or drop.event is None else "",
    } | read_back(seen.switch)  # fmt: skip
    last = command.check_no + 1 >= len(times)
    if drop.event is Event.PROVEN or (last and drop.event is not None):
        _conclude(work, command, drop, values, config)
    elif last:
        if command.checks and command.checks[-1]["reason"] == drop.reason:  # the same words again: not one more record
            again = config.unknown_read_s if command.rule.effect is Effect.STATE else config.supervise_s
            work.look_again(command, str(values["attention"]), again)
            return
        values["next_check_at"] = from_us(work.now_us + config.supervise_s * US)
        work.note(command, "check", values, drop.reason)
    else:
        values["next_check_at"] = from_us(command.act_us + times[command.check_no + 1] * US)
        work.note(command, "check", values, drop.reason)


def _conclude(work: Work, command: Command, drop: Drop, values: dict[str, object], config: ControlConfig) -> None:
    assert drop.event is not None
    values["next_check_at"] = from_us(work.now_us + config.supervise_s * US)
    state = command.rule.effect is Effect.STATE
    if drop.event is Event.NOT_PROVEN:
        values["attention"] = drop.reason
        if not state:
            work.incident(command.device_id, command.id, "ineffective", drop.reason)
    moved = work.move(
        command, Event.FAIL if state and drop.event is Event.NOT_PROVEN else drop.event, values, drop.reason
    )
    if drop.event is not Event.PROVEN:
        return
    if state:
        work.move(moved, Event.CLOSE, {"next_check_at": None}, summary(moved))
        lift_protection(work, command)
    elif drop.drop_kw is not None and command.rule.effect is Effect.CUT:
        measured(work.conn, command.device_id, command.round, drop.drop_kw)


# -- holding ----------------------------------------------------------------------------------------------------------


def supervise(work: Work, items: Items, config: ControlConfig) -> None:
    """EFFECTIVE, PARTIAL, INEFFECTIVE: watch what is held; automatic release, reclose, lost supervision. Item: Seen."""
    for command_id, seen in items:
        command = work[command_id]
        if command.state in _HOLDING:
            _supervise(work, command, seen, config)


def _supervise(work: Work, command: Command, seen: Seen, config: ControlConfig) -> None:
    switch = seen.switch
    over = command.ends_us is not None and work.now_us >= command.ends_us
    if over and command.state is not State.INEFFECTIVE and _let_go(command, switch):
        work.move(command, Event.TIME_OVER, {"next_check_at": None} | read_back(switch))
        return
    kw = _now_kw(command, seen, work.now_us, config, command.act_us)
    text = _notable(work, command, seen, kw)
    if not text and work.now_us >= to_us(command.not_after):
        text = tr("past its end: control release", "已过结束时间: 请恢复")
        work.incident(command.device_id, command.id, "overdue", text)
    work.look_again(command, text, min(config.supervise_s, LOST_SUPERVISION_S))


def _let_go(command: Command, switch: SwitchState | None) -> bool:
    """The device released by itself."""
    if command.rule.effect is not Effect.CUT:
        return shows(command.rule, command.round, switch) is False
    if switch is None:
        return False
    return switch.open is False or (switch.open is None and switch.command_trip is False)


def _notable(work: Work, command: Command, seen: Seen, kw: float | None) -> str:
    """What an operator must know of a held command, or ''."""
    switch = seen.switch
    cut = command.rule.effect is Effect.CUT
    if command.state is State.INEFFECTIVE:
        return command.attention
    if cut and switch is not None and switch.open is False:
        return tr("reclosed while held: look at the site", "保持期间合闸: 现场核查")
    if cut and _power_is_back(work.conn, command, kw):
        return tr(
            f"power is back while held ({kw:.1f} kW): look at the site", f"保持期间负荷恢复 ({kw:.1f} kW): 现场核查"
        )
    if not cut and shows(command.rule, command.round, switch) is False:
        return tr("the terminal no longer shows it engaged", "终端不再显示投入")
    if kw is None and switch is None:
        return tr("supervision lost: neither power nor switch state", "失去监视: 无功率无开关状态")
    if kw is not None and command.floor_kw > 0 and kw < command.floor_kw:
        return tr(
            f"{kw:.1f} kW is below the security load {command.floor_kw:.1f} kW",
            f"{kw:.1f} kW 低于保安负荷 {command.floor_kw:.1f} kW",
        )
    if command.rule.effect is Effect.LIMIT and kw is not None:
        drop = _judge_limit(work.now_us, command, seen, True, kw)
        if drop.event in (Event.NOT_PROVEN, Event.PROVEN_PART):
            return tr(f"above the limit while held: {kw:.1f} kW", f"保持期间超限: {kw:.1f} kW")
    return ""


def _power_is_back(conn: Conn, command: Command, kw: float | None) -> bool:
    """Less than half of the proven drop is left, and no other round of the device was moved since (9.7, Z3)."""
    if kw is None or command.before_kw is None or not command.measured_kw:
        return False
    others = scalar(
        conn,
        "SELECT count(*) FROM command WHERE device_id = %s AND id <> %s AND takes_supply(kind) "
        "AND greatest(sent_at, released_at) >= %s",
        (command.device_id, command.id, command.sent_at),
    )
    return not others and command.before_kw - kw < BACK_SHARE * command.measured_kw


# -- a device that came back ------------------------------------------------------------------------------------------


def held_of(work: Work, found: Sequence[Command]) -> list[Held]:
    """What the commands of a device say that it should hold."""
    result = []
    for c in found:
        if not c.rule.takes_supply or c.sent_at is None:
            continue
        over = c.ends_us is not None and work.now_us >= c.ends_us
        holds = c.state in (State.EFFECTIVE, State.PARTIAL, State.VERIFYING, State.ALARMING, State.ACKED) and not over
        settled = c.state in (State.EFFECTIVE, State.PARTIAL, State.VERIFYING, State.RELEASED, State.AUTO_RELEASED) or (
            c.state is State.ALARMING and work.now_us >= c.act_us
        )
        result.append(Held(command=c.id, kind=c.rule, number=c.round, rounds=c.rounds, holds=holds, settled=settled))
    return result


def reconcile_device(work: Work, device_id: int, switch: SwitchState | None, why: str) -> tuple[Finding, ...]:
    """Compare what the device holds with its commands (locked in `work`): confirm, or an incident for people.

    A command that the device no longer holds becomes INEFFECTIVE; nothing is sent, and nothing is released by itself.
    """
    found = reconcile(held_of(work, list(work.commands.values())), switch, why)
    for f in found:
        if f.command is None:
            if work.incident(device_id, None, f"stray {f.what}", f.text):
                work.entry(Entry(actor=DAEMON, action="device.stray", object=f"device:{device_id}", reason=f.text))
            continue
        command = work[f.command]
        if f.same is None:
            work.look_again(command, f.text, 0)
        elif f.same:
            work.record("command.confirm", command, {}, {"state": command.state} | read_back(switch), f.text)
        else:
            work.incident(device_id, command.id, "reconcile", f.text)
            values: dict[str, object] = {"attention": f.text} | read_back(switch)
            if command.state in (State.EFFECTIVE, State.PARTIAL, State.VERIFYING):
                work.move(command, Event.LOST, values, f.text)
            else:
                work.note(command, "reconcile", values, f.text)
    return found


# -- release ----------------------------------------------------------------------------------------------------------


def commit_release(work: Work, items: Items, config: ControlConfig) -> None:
    """Write-ahead of a release frame, once: its interlocks. It leaves if `release_sent_at` is set now. Item: Seen."""
    found = []
    for command_id, seen in items:
        command = work[command_id]
        waiting = command.state is State.RELEASING and command.release_sent_at is None
        if waiting and release_due(work.conn, work.now_us, command, config):
            found.append((command, Use.DANGER if command.release_danger else Use.RELEASE, seen))
    for (command, _, _), (_, results) in zip(found, judged(work, found, config), strict=True):
        if failed(results):
            text = tr("release waits: ", "恢复等待: ") + names(failed(results))
            work.look_again(command, text, config.unknown_read_s)
            continue
        values: dict[str, object] = {
            "release_sent_at": from_us(work.now_us),
            "next_check_at": from_us(work.now_us + config.unknown_read_s * US),
            "attention": "",
        }
        work.note(command, "release_send", values)


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


def record_release(work: Work, items: Items) -> None:
    """What came of the release frame; without an answer the state is read, the frame is repeated by a person only.

    Item: (answer or None, fault).
    """
    for command_id, (answer, fault) in items:
        _record_release(work, work[command_id], answer, fault)


def _record_release(work: Work, command: Command, answer: ControlAnswer | None, fault: str) -> None:
    if answer is not None:
        work.keep_frames(command, "release", answer.frames)
    if command.state is not State.RELEASING:
        return
    if answer is not None and answer.acknowledged:
        values: dict[str, object] = {
            "release_acked": True, "released_at": from_us(work.now_us), "next_check_at": None,
        }  # fmt: skip
        work.move(command, Event.RELEASE_ACK, values | read_back(answer.state))
        return
    text = fault or (answer.refusal if answer else "") or tr("no answer", "无应答")
    text = (
        tr("release not acknowledged: ", "恢复未确认: ")
        + text
        + tr("; control release --again", "; control release --again")
    )
    refused = answer is not None and answer.acknowledged is False
    work.note(command, "release_answer", {"release_acked": False if refused else None, "attention": text}, text)


def resolve_release(work: Work, items: Items, config: ControlConfig) -> None:
    """RELEASING without an answer: a device read free of our command counts as released. Item: the state or None."""
    for command_id, switch in items:
        command = work[command_id]
        if command.state is not State.RELEASING or command.release_sent_at is None:
            continue
        if _is_released(command, switch):
            text = tr("state read back: released", "回读: 已解除")
            values: dict[str, object] = {
                "released_at": from_us(work.now_us), "attention": "", "next_check_at": None,
            }  # fmt: skip
            work.move(command, Event.RELEASE_ACK, values | read_back(switch), text)
            continue
        # Also after a restart between the commit and the answer: whether the frame left is not known, a person decides.
        waiting = tr("release not confirmed: control release --again", "恢复未证实: control release --again")
        work.look_again(command, command.attention or waiting, config.unknown_read_s)


def _is_released(command: Command, switch: SwitchState | None) -> bool:
    if command.rule.effect is not Effect.CUT:
        return shows(command.rule, command.round, switch) is False
    return switch is not None and (switch.open is False or switch.command_trip is False)


def restored(work: Work, items: Items, config: ControlConfig) -> None:
    """RELEASED or AUTO_RELEASED -> RESTORED -> CLOSED once load, contact or control state is back. Item: Seen.

    A reminder when it is late.
    """
    for command_id, seen in items:
        command = work[command_id]
        if command.state in (State.RELEASED, State.AUTO_RELEASED):
            _restored(work, command, seen, config)


def _restored(work: Work, command: Command, seen: Seen, config: ControlConfig) -> None:
    since = to_us(command.released_at) if command.released_at else command.act_us
    if command.rule.effect is Effect.CUT:
        kw = _now_kw(command, seen, work.now_us, config, since)
        text = load_is_back(
            before_kw=command.before_kw,
            now_kw=kw,
            round_kw=command.round_kw,
            switch=seen.switch,
            has_contact=wired(seen.facts, get_round(work.conn, command.device_id, command.round)),
        )
    else:
        text = limit_is_off(command.rule, command.rounds, seen.switch)
    if may_yet_act(command, work.now_us):
        words = tr("its trip was never seen and may yet act", "跳闸从未证实, 仍可能动作")
        if shows(command.rule, command.round, seen.switch):
            words = tr("it acted after the release: control release --again", "恢复后才动作: control release --again")
        work.look_again(command, words, config.unknown_read_s)
        return
    if text is None:
        late = work.now_us - since > config.restore_reminder_s * US
        words = tr("not collected: call the customer", "未合闸: 致电用户") if late else command.attention
        work.look_again(command, words, config.unknown_read_s)
        return
    values: dict[str, object] = {"restored_at": from_us(work.now_us), "attention": "", "next_check_at": None}
    back = work.move(command, Event.LOAD_BACK, values | read_back(seen.switch), text)
    work.move(back, Event.CLOSE, reason=summary(back))


def may_yet_act(command: Command, now_us: int) -> bool:
    """Whether the frame that takes supply away may still be on its way: nobody acknowledged it, it was never seen to
    act, and its time is not over. A customer released meanwhile would be cut by it."""
    if command.acknowledged is not None or command.checks or not command.rule.takes_supply:
        return False
    back = command.read_back
    if back is not None and shows(command.rule, command.round, SwitchState(**back)):
        return False
    return now_us < command.last_act_us


def close(work: Work, items: Items) -> None:
    """RESTORED -> CLOSED (left over from an interrupted step)."""
    for command_id, _ in items:
        command = work[command_id]
        if command.state is State.RESTORED:
            work.move(command, Event.CLOSE, reason=summary(command))


def summary(command: Command) -> str:
    """One line of the finished command for the record."""
    if not command.rule.takes_supply:
        return command.rule.title
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
