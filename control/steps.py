"""What the daemon does to commands on their way to the device, in one transaction for many: the database's half.

Every function finds its commands locked in the `Work`, looks whether each still stands where the caller believed, and
moves it at most once along rules/states.py. Nothing here talks to a device. What comes after the answer is holding.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from ..model.control import ActionKind, ControlAction, ControlAnswer, Setting, SettingResult, SwitchState
from ..model.lang import tr
from ..model.times import US, from_us, to_us
from .audit import DAEMON, Entry
from .command import Command, Work
from .config import ControlConfig
from .evidence import Question, Seen, collect
from .overrides import overrides
from .rules.checks import Evidence
from .rules.interlocks import Checked, check_all, failed
from .rules.kinds import Effect, Use
from .rules.states import Event, State
from .rules.verify import resolve_unknown, shows

# States that `recover` looks at: orphans of an interruption, and what may expire.
RECOVERABLE: Final = frozenset(
    {State.SENT, State.SELECTED, State.SETTING, State.SET, State.CHECKING, State.ALARMING, State.NACKED}
    | {State.SUBMITTED, State.APPROVED, State.BLOCKED, State.RELEASED_SELECT}
)
_WAITING: Final = frozenset({State.SUBMITTED, State.APPROVED, State.BLOCKED, State.RELEASED_SELECT})

# What is stopped while control is not in order; what gives supply back or protects goes on.
_STOPPED: Final = frozenset({Use.TRIP, Use.LIFT, Use.PARAMETER})

READ_LATELY_US: Final = 10 * US
"""So old a state may be that was read before the transaction which commits SENT."""

Items = Sequence[tuple[int, Any]]
"""(command id, what the step was told about it) of the commands of one transaction."""


# -- actions ----------------------------------------------------------------------------------------------------------


def action_id(command: Command, purpose: str) -> str:
    """Idempotency key of a frame: the command's number; every wish to release has a key of its own."""
    if purpose == "release" and command.release_wanted_at is not None:
        return f"{command.environment}-{command.id}-release-{to_us(command.release_wanted_at)}"
    if purpose == "set":
        return f"{command.environment}-{command.id}-set-{command.attempt}"
    return f"{command.environment}-{command.id}" + ("" if purpose == "trip" else f"-{purpose}")


def engage_action(command: Command) -> ControlAction:
    """What a command that has just been moved to SENT asks of the device."""
    assert command.valid_until is not None
    cut = command.rule.effect is Effect.CUT
    return command.action(
        id=action_id(command, "trip"),
        kind=command.rule.engage,
        valid_until_us=to_us(command.valid_until),
        alarm_min=command.alarm_min,
        limit_half_hours=command.limit_half_hours if cut else 0,
    )


def plan_action(command: Command, now_us: int) -> ControlAction:
    """The question which parameters must stand before a command engages; its limit in kW is among the params."""
    return command.action(
        id=action_id(command, "plan"),
        kind=command.rule.engage,
        valid_until_us=now_us,
        alarm_min=command.alarm_min,
        params=command.params | {"limit_kw": command.limit_kw},
    )


def set_action(command: Command, now_us: int, config: ControlConfig) -> ControlAction:
    """Writing a command's parameters and reading them back."""
    return command.action(
        id=action_id(command, "set"),
        kind=ActionKind.WRITE_SETTINGS,
        valid_until_us=now_us + config.command_valid_s * US,
        alarm_min=command.alarm_min,
        settings=tuple(Setting(**s) for s in command.settings),
    )


def close_action(command: Command, purpose: str, now_us: int, config: ControlConfig) -> ControlAction:
    """The release as the command wants it; stopping an alarm is always a permit or the control's own release."""
    assert command.rule.release is not None
    kind = ActionKind(command.release_kind) if purpose == "release" and command.release_kind else command.rule.release
    valid = now_us + config.command_valid_s * US
    return command.action(id=action_id(command, purpose), kind=kind, valid_until_us=valid)


# -- recovery and expiry ----------------------------------------------------------------------------------------------


def recover(work: Work, items: Items, config: ControlConfig) -> None:
    """Bring commands that nobody is driving to a state that does not claim more than is known; or let them expire.

    The item: the first look after a start, when also CHECKING and ALARMING belong to an earlier life.
    """
    for command_id, first in items:
        _recover(work, work[command_id], config, first=bool(first))


def _recover(work: Work, command: Command, config: ControlConfig, *, first: bool) -> None:
    state = command.state
    orphans = {State.SENT, State.SELECTED, State.SETTING, State.SET}
    safe = command.rule.use is Use.SAFE and work.now_us < to_us(command.not_after)
    if safe and state is State.CHECKING:
        return  # what protects was asked for before the daemon came up, and nothing of it has left: it goes on
    if state in orphans | ({State.CHECKING, State.ALARMING} if first else set()):
        text = tr("the daemon was interrupted; nothing is sent again", "守护进程中断; 不重发任何命令")
        values: dict[str, object] = {"attention": text} if state is not State.SELECTED else {}
        work.move(command, Event.RECOVER, values | {"next_check_at": None}, text)
    elif state is State.NACKED:
        work.move(command, Event.FAIL)
    elif state in _WAITING:
        late = work.now_us >= to_us(command.not_after)
        unsigned = (
            state is State.SUBMITTED
            and command.submitted_at is not None
            and work.now_us - to_us(command.submitted_at) > config.approval_within_s * US
        )
        if unsigned or late:
            text = tr("its time is over", "已过时限") if late else tr("not signed in time", "未及时签署")
            work.move(command, Event.EXPIRE, reason=text)


# -- interlocks -------------------------------------------------------------------------------------------------------


def _stored(results: Sequence[Checked]) -> list[dict[str, Any]]:
    return [
        {"number": r.number, "title": r.title, "verdict": r.verdict.value, "text": r.text, "overridden": r.overridden}
        for r in results
    ]


def names(results: Sequence[Checked]) -> str:
    """Results as one line for an operator."""
    return "; ".join(f"{r.number} {r.title}: {r.text}" for r in results)


def judged(
    work: Work, found: Sequence[tuple[Command, Use, Seen]], config: ControlConfig
) -> list[tuple[Evidence, tuple[Checked, ...]]]:
    """Evidence and interlock results of these commands, judged now."""
    if not found:
        return []
    evidence = collect(work.conn, work.now_us, [Question(c, use, seen) for c, use, seen in found], config)
    lifted = overrides(work.conn, [c for c, _, _ in found])
    return [
        (e, check_all(e, config.limits, lifted.get(c.id, ()))) for (c, _, _), e in zip(found, evidence, strict=True)
    ]


def check(work: Work, items: Items, config: ControlConfig, no_control: str) -> None:
    """CHECKING: all interlocks, freshly; -> SELECTED or BLOCKED. no_control: why nothing may be sent now, or ''.

    Where no parameters come first and the device's state was read just now, it goes on to SENT on the same evidence in
    the same transaction; otherwise everything is looked at a second time before the frame (`commit_send`). What
    protects or gives free does not wait for control to be in order. A state that the device does not have is done here.
    """
    found = []
    for command_id, seen in items:
        command = work[command_id]
        if command.state is not State.CHECKING:
            continue
        if no_control and command.rule.use in _STOPPED:
            work.move(command, Event.BLOCK, {"attention": no_control}, no_control)
        elif _only_here(command, seen):
            text = tr("the device has no such state; the server keeps it", "装置无此状态; 由主站保持")
            work.move(command, Event.CLOSE, {"attention": ""}, text)
            lift_protection(work, command)
        else:
            found.append((command, command.rule.use, seen))
    ready = []
    for (command, _, seen), (evidence, results) in zip(found, judged(work, found, config), strict=True):
        values: dict[str, object] = {"interlocks": _stored(results)}
        if command.rule.effect is Effect.LIMIT:
            values["limit_kw"] = evidence.limit_kw
        if failed(results):
            text = names(failed(results))
            work.move(command, Event.BLOCK, values | {"attention": text}, text)
            continue
        selected = work.move(command, Event.PASS, values | {"selected_at": from_us(work.now_us)})
        read = seen.switch is not None and 0 <= work.now_us - seen.now_us <= READ_LATELY_US
        if read and not command.rule.settings:
            ready.append((selected, seen))
    if ready:
        work.flush()  # the database lets a command go to SENT from SELECTED only
        for selected, seen in ready:
            _send(work, selected, seen, config, {})


def _only_here(command: Command, seen: Seen) -> bool:
    """Protection of a device whose model is known and has none of its own."""
    facts = seen.facts
    return command.kind in ("protect", "unprotect") and facts is not None and facts.has_protection is False


def lift_protection(work: Work, command: Command) -> None:
    """The server's own protection ends with the proven end of the terminal's (or where there is none to end)."""
    if command.kind != "unprotect":
        return
    by = tr(f"command {command.id}", f"命令 {command.id}")
    work.entry(Entry(actor=DAEMON, action="protection.lift", object=f"device:{command.device_id}", reason=by))
    work.conn.execute(
        "UPDATE protection SET lifted_at = %s, lifted_by = %s WHERE device_id = %s AND lifted_at IS NULL",
        (from_us(work.now_us), by, command.device_id),
    )


def _reserved(work: Work, command: Command, config: ControlConfig) -> bool:
    """The reservation of select (9.3) still holds; from SET on it counts from the last answer."""
    at = command.changed_at if command.state is State.SET else command.selected_at
    return at is not None and 0 <= work.now_us - to_us(at) <= config.select_s * US


def _again(
    work: Work, items: Items, states: frozenset[State], config: ControlConfig, no_control: str
) -> list[tuple[Command, Any, dict[str, object]]]:
    """The second look at everything right before a frame leaves: what may go on, with what it was told and the results.

    The others are moved away from where they stood.
    """
    found, told = [], []
    for command_id, item in items:
        command = work[command_id]
        if command.state not in states:
            continue
        if not _reserved(work, command, config):
            text = tr(f"not sent within {config.select_s} s of the select", f"选择后 {config.select_s} s 内未发出")
            work.move(command, Event.DROP_SELECT, {"attention": text}, text)
            continue
        seen = item[0] if isinstance(item, tuple) else item
        found.append((command, command.rule.use, seen))
        told.append(item)
    ready = []
    for (command, use, _), item, (_, results) in zip(found, told, judged(work, found, config), strict=True):
        values: dict[str, object] = {"interlocks": _stored(results)}
        stop = no_control if use in _STOPPED else ""
        if stop or failed(results):
            text = stop or names(failed(results))
            work.move(command, Event.BLOCK, values | {"attention": text}, text)
        else:
            ready.append((command, item, values))
    return ready


def refuse(work: Work, items: Items) -> None:
    """SELECTED -> BLOCKED: the model cannot do what is asked. Item: why."""
    for command_id, why in items:
        if work[command_id].state is State.SELECTED:
            work.move(work[command_id], Event.BLOCK, {"attention": why}, why)


# -- parameters -------------------------------------------------------------------------------------------------------


def commit_set(work: Work, items: Items, config: ControlConfig, no_control: str) -> None:
    """SELECTED -> SETTING, with the parameters that are about to be written in the audit. Item: (Seen, settings)."""
    for command, (_, settings), values in _again(work, items, frozenset({State.SELECTED}), config, no_control):
        wanted = [{"item": s.item, "pn": s.pn, "values": dict(s.values)} for s in settings]
        if command.kind != "parameters":
            values["settings"] = wanted
        values |= {"set_at": from_us(work.now_us), "set_results": [], "attention": ""}
        work.move(command, Event.SET, values)


def record_set(work: Work, items: Items) -> None:
    """SETTING -> SET only if every parameter was read back and is as wanted; else FAILED, and nothing is ever engaged.

    Item: (answer or None, fault).
    """
    for command_id, (answer, fault) in items:
        command = work[command_id]
        if answer is not None:
            work.keep_frames(command, "set", answer.frames)
        if command.state is not State.SETTING:
            continue
        results = list(answer.settings) if answer is not None else []
        values: dict[str, object] = {"set_results": [_result(r) for r in results]}
        if command.rule.effect is Effect.SETTINGS:  # else these two speak of the frame that engages
            values["sent"] = answer.sent if answer is not None else None
            values["acknowledged"] = answer.acknowledged if answer is not None else None
        text = _wrong(command, results) or fault
        if text:
            refusal = answer.refusal if answer is not None else ""
            if command.rule.takes_supply:
                text += tr("; nothing was engaged", "; 未投入控制")
            text = f"{refusal}; {text}" if refusal and refusal not in text else text
            work.move(command, Event.DIFFERENT, values | {"attention": text}, text)
            continue
        ready = work.move(command, Event.EQUAL, values)
        if command.rule.effect is Effect.SETTINGS:
            work.move(ready, Event.CLOSE, reason=tr("read back and equal", "回读一致"))


def _result(r: SettingResult) -> dict[str, object]:
    return {
        "item": r.item, "pn": r.pn, "wanted": dict(r.wanted), "written": r.written,
        "read": None if r.read is None else dict(r.read), "differences": list(r.differences), "fault": r.fault,
        "equal": r.equal,
    }  # fmt: skip


def _wrong(command: Command, results: Sequence[SettingResult]) -> str:
    """Why the parameters do not stand as wanted, each named, or ''."""
    faults = []
    for number, setting in enumerate(command.settings):
        place = f"{setting['item']} pn {setting['pn']}"
        result = results[number] if number < len(results) else None
        if result is not None and (result.item, result.pn) != (setting["item"], setting["pn"]):
            result = None  # an answer to something else proves nothing
        if result is None or result.read is None:
            why = f" ({result.fault})" if result is not None and result.fault else ""
            faults.append(tr(f"{place}: not read back{why}", f"{place}: 未回读{why}"))
        elif result.differences:
            fields = ", ".join(result.differences)
            faults.append(tr(f"{place}: differs in {fields}", f"{place}: {fields} 不一致"))
    return "; ".join(faults)


# -- the frame --------------------------------------------------------------------------------------------------------


def commit_send(work: Work, items: Items, config: ControlConfig, no_control: str) -> None:
    """SELECTED or SET -> SENT: everything is checked once more on the state just read back. Item: Seen.

    The frame leaves only behind this transaction's commit, and only if the command came back as SENT.
    """
    for command, seen, values in _again(work, items, frozenset({State.SELECTED, State.SET}), config, no_control):
        _send(work, command, seen, config, values)


def _send(work: Work, command: Command, seen: Seen, config: ControlConfig, values: dict[str, object]) -> None:
    valid = min(work.now_us + config.command_valid_s * US, to_us(command.not_after))
    before = seen.power.good(work.now_us - config.power_before_s * US, work.now_us).mean_kw
    values |= {"sent_at": from_us(work.now_us), "valid_until": from_us(valid), "before_kw": before, "attention": ""}
    work.move(command, Event.SEND, values)


def read_back(state: SwitchState | None) -> dict[str, object]:
    """The field of a state that was read."""
    return {} if state is None else {"read_back": asdict(state)}


def record_answer(work: Work, items: Items) -> None:
    """What came of the frame. Item: (answer or None, fault); None = the conversation broke off, nothing is known."""
    for command_id, (answer, fault) in items:
        _record_answer(work, work[command_id], answer, fault)


def _record_answer(work: Work, command: Command, answer: ControlAnswer | None, fault: str) -> None:
    if answer is not None:
        work.keep_frames(command, "trip", answer.frames)
    if command.state is State.UNKNOWN and answer is not None and answer.acknowledged:
        values: dict[str, object] = {"sent": True, "acknowledged": True, "attention": ""}
        work.move(command, Event.ACK, values | read_back(answer.state))
        return
    if command.state is not State.SENT:
        return
    if answer is None or (answer.acknowledged is None and answer.sent):
        text = (
            fault
            or (answer.refusal if answer else "")
            or tr("no answer: not known whether it was carried out", "无应答: 不知是否已执行")
        )
        values = {"sent": answer.sent if answer else None, "attention": text, "next_check_at": None}
        work.move(command, Event.SILENCE, values, text)
    elif answer.acknowledged:
        done: dict[str, object] = {"sent": True, "acknowledged": True}
        work.move(command, Event.ACK, done | read_back(answer.state))
    elif answer.sent:
        text = answer.refusal or tr("refused by the device", "装置拒绝")
        refused = work.move(command, Event.NACK, {"sent": True, "acknowledged": False, "attention": text}, text)
        work.move(refused, Event.FAIL, reason=text)
    else:
        text = answer.refusal or tr("the frame did not leave", "报文未发出")
        work.move(command, Event.NOT_SENT, {"sent": False, "attention": text}, text)


def resolve(work: Work, items: Items, config: ControlConfig) -> None:
    """UNKNOWN: the state just read decides, or it stays unknown and is read again. Item: the state or None."""
    for command_id, switch in items:
        command = work[command_id]
        if command.state is not State.UNKNOWN:
            continue
        last_act = command.last_act_us
        shown = shows(command.rule, command.round, switch)
        event, text = resolve_unknown(shown, read=switch is not None, now_us=work.now_us, last_act_us=last_act)
        if event is None:
            if work.now_us >= last_act and command.rule.takes_supply:
                work.incident(command.device_id, command.id, "unknown", text)
            work.look_again(command, text, config.unknown_read_s)
            continue
        values: dict[str, object] = {"attention": "" if event is Event.ACK else text}
        work.move(command, event, values | read_back(switch), text)


def record_mode(work: Work, mode: str, reason: str) -> None:
    """One record of a change of the control mode."""
    work.entry(Entry(actor=DAEMON, action="control.mode", object="control", after={"mode": mode}, reason=reason))
