"""Did the command do what it was for? (domain 9.3, 9.7). Metering decides; an acknowledgement is no evidence of a cut.

Evidence in order: feedback contact, the device's own trip event, metered power. Not proven (None) where metering is
missing or stale: an unknown drop is neither a success nor a failure.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...model.control import SwitchState
from ...model.lang import tr
from .kinds import ENGAGED, Effect, Kind
from .states import Event

EFFECTIVE_SHARE = 0.8
PARTIAL_SHARE = 0.3
QUANTA = 3
BACK_SHARE = 0.5
LIMIT_SHARE = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TripEvent:
    """What the device recorded of a trip by itself: power at the trip and two minutes later, primary kW."""

    time_us: int
    before_kw: float | None
    after_kw: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DropEvidence:
    """What is known at one check. Powers in primary kW; None = not measured or stale.

    before_kw: mean of the 5 min before the send; now_kw: newest fresh power after the trip; quantum_kw: least step of
    the metering; round_kw: load that the round carries; floor_kw: security load; has_contact: a feedback contact is
    wired; switch: state read back at this check; event: the device's own record of this trip.
    """

    before_kw: float | None
    now_kw: float | None
    quantum_kw: float
    round_kw: float
    floor_kw: float
    has_contact: bool
    switch: SwitchState | None
    event: TripEvent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """The judgement. event None = not proven either way. ticket: contact and metering contradict each other."""

    event: Event | None
    drop_kw: float | None
    share: float | None
    contact_open: bool | None
    ticket: bool
    reason: str


def _undecided(reason: str, contact: bool | None = None, drop_kw: float | None = None) -> Drop:
    return Drop(event=None, drop_kw=drop_kw, share=None, contact_open=contact, ticket=False, reason=reason)


def verify_drop(e: DropEvidence) -> Drop:
    """EFFECTIVE / PARTIAL / INEFFECTIVE / ABANDONED or not proven, with the numbers that say so."""
    contact = e.switch.open if e.switch is not None and e.has_contact else None
    before, now, source = e.before_kw, e.now_kw, ""
    if (before is None or now is None) and e.event is not None:
        # The device metered its own trip: better than nothing, worse than fresh power of ours.
        before, now = e.event.before_kw, e.event.after_kw
        source = tr(" by the terminal's trip event", " (终端跳闸事件)")
    if before is None or now is None:
        what = tr("before the trip", "跳闸前") if e.before_kw is None else tr("after the trip", "跳闸后")
        return _undecided(tr(f"not proven: no fresh power {what}", f"未证实: {what}无新鲜功率"), contact)
    drop = before - now
    share = drop / e.round_kw if e.round_kw > 0 else 0.0
    enough = max(EFFECTIVE_SHARE * e.round_kw, QUANTA * e.quantum_kw)
    seen = drop >= enough
    some = not seen and share >= PARTIAL_SHARE and drop > e.quantum_kw
    numbers = tr(
        f"drop {drop:.1f} kW of {e.round_kw:.1f} kW ({share:.0%}){source}",
        f"下降 {drop:.1f} kW / {e.round_kw:.1f} kW ({share:.0%}){source}",
    )

    def judged(event: Event | None, text: str, *, ticket: bool = False) -> Drop:
        return Drop(
            event=event, drop_kw=drop, share=share, contact_open=contact, ticket=ticket, reason=f"{text}; {numbers}"
        )

    if e.has_contact and contact is None:
        return judged(None, tr("not proven: contact not read", "未证实: 未读到触点"))
    released = e.switch is not None and e.switch.command_trip is False
    if contact is False or (released and not e.has_contact):
        if released and now <= e.floor_kw:
            text = tr("abandoned by the terminal: load fell to the floor by itself", "终端放弃: 负荷自行降至保安负荷")
            return judged(Event.FELL_BY_ITSELF, text)
        if contact is None:
            return judged(Event.NOT_PROVEN, tr("the terminal does not hold the round", "终端未保持该轮次跳闸"))
        text = tr("contact closed", "触点闭合")
        if seen or some:
            return judged(
                Event.NOT_PROVEN, text + tr(", yet power fell: check the wiring", ", 但功率下降: 查线"), ticket=True
            )
        return judged(Event.NOT_PROVEN, text)
    opened = tr("contact open", "触点断开") if contact else tr("no feedback contact", "无反馈触点")
    if e.event is not None:
        opened += tr(", trip event recorded", ", 有跳闸事件")
    if seen:
        return judged(Event.PROVEN, opened)
    if some:
        return judged(Event.PROVEN_PART, opened)
    return judged(
        Event.NOT_PROVEN,
        opened + (tr(", but power did not fall: check the wiring", ", 但功率未降: 查线") if contact else ""),
        ticket=bool(contact),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitEvidence:
    """What is known of an engaged limit at one check. Powers in primary kW, None = not known.

    engaged: the device shows it engaged; limit_kw: as the device tells it, else as it was set; acts: it is in force at
    this time of the day; grace_over: its alarms and the 15 min behind them are over.
    """

    engaged: bool | None
    limit_kw: float | None
    before_kw: float | None
    now_kw: float | None
    acts: bool
    grace_over: bool


def verify_limit(e: LimitEvidence) -> Drop:
    """EFFECTIVE: engaged and P at most 105 % of the limit; a worse verdict only when its time to act is over."""
    if e.engaged is None:
        return _undecided(tr("not proven: the terminal's control state was not read", "未证实: 未读到终端控制状态"))
    if not e.engaged:
        reason = tr("the terminal does not show it engaged", "终端未显示投入")
        return Drop(event=Event.NOT_PROVEN, drop_kw=None, share=None, contact_open=None, ticket=False, reason=reason)
    if not e.acts:
        return _undecided(tr("engaged; its hours have not come", "已投入; 未到控制时段"))
    if e.now_kw is None or e.limit_kw is None:
        return _undecided(tr("not proven: no fresh power or no limit", "未证实: 无新鲜功率或定值"))
    drop = None if e.before_kw is None else e.before_kw - e.now_kw
    wanted = None if e.before_kw is None else max(0.0, e.before_kw - e.limit_kw)
    share = None if drop is None or not wanted else drop / wanted
    numbers = tr(f"{e.now_kw:.1f} kW, limit {e.limit_kw:.1f} kW", f"{e.now_kw:.1f} kW, 定值 {e.limit_kw:.1f} kW")
    if e.now_kw <= LIMIT_SHARE * e.limit_kw:
        event, text = Event.PROVEN, tr("within the limit", "限额以内")
    elif not e.grace_over:
        return _undecided(tr(f"above the limit, alarms run; {numbers}", f"超限, 告警中; {numbers}"), None, drop)
    elif share is not None and share >= PARTIAL_SHARE:
        event, text = Event.PROVEN_PART, tr("still above the limit", "仍超限")
    else:
        event, text = Event.NOT_PROVEN, tr("above the limit", "超限")
    return Drop(event=event, drop_kw=drop, share=share, contact_open=None, ticket=False, reason=f"{text}; {numbers}")


def verify_shown(shown: bool | None) -> Drop:
    """A state that was set, or an energy control that was engaged: the device shows it or not."""
    if shown is None:
        return _undecided(tr("not proven: the state was not read", "未证实: 未读到状态"))
    event, text = (
        (Event.PROVEN, tr("the device shows it", "装置已显示"))
        if shown
        else (Event.NOT_PROVEN, tr("the device does not show it", "装置未显示"))
    )
    return Drop(event=event, drop_kw=None, share=None, contact_open=None, ticket=False, reason=text)


def shows(kind: Kind, number: int, switch: SwitchState | None) -> bool | None:
    """Whether the device shows what the command asked for; None: not read, or the device does not tell."""
    if switch is None:
        return None
    if kind.effect is Effect.CUT:
        if switch.open or switch.command_trip or switch.alarm or number in (switch.tripped or ()):
            return True
        return None if switch.open is None and switch.command_trip is None else False
    if kind.effect in (Effect.LIMIT, Effect.ENERGY):
        return None if switch.engaged is None else kind.name in switch.engaged
    if kind.name == "permit":
        if switch.open is False or switch.command_trip is False:
            return True
        return None if switch.open is None and switch.command_trip is None else False
    control = kind.name.removeprefix("un")
    if control in ENGAGED:
        return None if switch.engaged is None else control not in switch.engaged
    found = {"protect": switch.protected, "exclude": switch.excluded, "remind": switch.remind}.get(control)
    return None if found is None else found == (control == kind.name)


def load_is_back(
    *,
    before_kw: float | None,
    now_kw: float | None,
    round_kw: float,
    switch: SwitchState | None,
    has_contact: bool = False,
) -> str | None:
    """Why a released round counts as restored, or None: its contact closed, or (there is none) power at least half of
    before and at least half of the round's load back.

    The second half is stricter than 9.7: where other load hides the round, half of the total proves nothing. A contact
    that is read open is never restored, whatever the power; one that could not be read is waited for, because other
    load may have risen in the round's place.
    """
    if switch is not None and switch.open is not None:
        return None if switch.open else tr("contact closed", "触点闭合")
    if has_contact or before_kw is None or now_kw is None or before_kw <= 0:
        return None
    if now_kw >= BACK_SHARE * before_kw and before_kw - now_kw <= BACK_SHARE * round_kw:
        return tr(f"load back: {now_kw:.1f} of {before_kw:.1f} kW", f"负荷恢复: {now_kw:.1f} / {before_kw:.1f} kW")
    return None


def limit_is_off(kind: Kind, rounds: tuple[int, ...], switch: SwitchState | None) -> str | None:
    """Why a released limit counts as over, or None: the device shows neither the control nor any of its rounds held."""
    if switch is None or switch.engaged is None or switch.outputs is None:
        return None
    if kind.name in switch.engaged or set(rounds) & set(switch.outputs):
        return None
    return tr("the terminal shows the control off and holds no round", "终端显示控制已解除, 无轮次保持跳闸")


def resolve_unknown(shown: bool | None, *, read: bool, now_us: int, last_act_us: int) -> tuple[Event | None, str]:
    """What a state read back says about a command that nobody answered (9.3). shown: see `shows`; read: it was read.

    last_act_us: the latest instant at which the device could still act on the frame (its validity plus the alarm).
    A state that does not show it before that instant proves nothing, so the command stays unknown.
    """
    if not read:
        return None, tr("state could not be read; still unknown", "状态读取失败, 仍未知")
    if shown:
        return Event.ACK, tr("state read back: the device acted", "回读: 装置已动作")
    if shown is None:
        return None, tr("the device does not tell its switch state; still unknown", "装置不报开关状态, 仍未知")
    if now_us < last_act_us:
        return None, tr("not carried out so far, but the command may yet act", "未执行, 但命令可能稍后动作")
    return Event.FAIL, tr("state read back: not carried out within the command's validity", "回读: 命令失效前未执行")
