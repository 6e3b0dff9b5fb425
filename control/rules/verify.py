"""Did the load really fall? (domain 9.7). Metering decides; an acknowledgement is never evidence of a cut.

Not proven (None) where metering is missing or stale: an unknown drop is neither a success nor a failure.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...model.control import SwitchState
from ...model.lang import tr
from .states import Event

EFFECTIVE_SHARE = 0.8
PARTIAL_SHARE = 0.3
QUANTA = 3
BACK_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DropEvidence:
    """What is known at one check. Powers in primary kW; None = not measured or stale.

    before_kw: mean of the 5 min before the send; now_kw: newest fresh power after the trip; quantum_kw: least step of
    the metering; round_kw: load that the round carries; floor_kw: security load; has_contact: a feedback contact is
    wired; switch: state read back at this check.
    """

    before_kw: float | None
    now_kw: float | None
    quantum_kw: float
    round_kw: float
    floor_kw: float
    has_contact: bool
    switch: SwitchState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """The judgement. event None = not proven either way. ticket: contact and metering contradict each other."""

    event: Event | None
    drop_kw: float | None
    share: float | None
    contact_open: bool | None
    ticket: bool
    reason: str


def verify_drop(e: DropEvidence) -> Drop:
    """EFFECTIVE / PARTIAL / INEFFECTIVE / ABANDONED or not proven, with the numbers that say so."""
    contact = e.switch.open if e.switch is not None and e.has_contact else None
    if e.before_kw is None or e.now_kw is None:
        what = tr("before the trip", "跳闸前") if e.before_kw is None else tr("after the trip", "跳闸后")
        reason = tr(f"not proven: no fresh power {what}", f"未证实: {what}无新鲜功率")
        return Drop(event=None, drop_kw=None, share=None, contact_open=contact, ticket=False, reason=reason)
    drop = e.before_kw - e.now_kw
    share = drop / e.round_kw if e.round_kw > 0 else 0.0
    enough = max(EFFECTIVE_SHARE * e.round_kw, QUANTA * e.quantum_kw)
    seen = drop >= enough
    some = not seen and share >= PARTIAL_SHARE and drop > e.quantum_kw
    numbers = tr(
        f"drop {drop:.1f} kW of {e.round_kw:.1f} kW ({share:.0%})",
        f"下降 {drop:.1f} kW / {e.round_kw:.1f} kW ({share:.0%})",
    )

    def judged(event: Event | None, text: str, *, ticket: bool = False) -> Drop:
        return Drop(
            event=event, drop_kw=drop, share=share, contact_open=contact, ticket=ticket, reason=f"{text}; {numbers}"
        )

    if e.has_contact and contact is None:
        return judged(None, tr("not proven: contact not read", "未证实: 未读到触点"))
    if contact is False:
        released = e.switch is not None and e.switch.command_trip is False
        if released and e.now_kw <= e.floor_kw:
            text = tr("abandoned by the terminal: load fell to the floor by itself", "终端放弃: 负荷自行降至保安负荷")
            return judged(Event.FELL_BY_ITSELF, text)
        text = tr("contact closed", "触点闭合")
        if seen or some:
            return judged(
                Event.NOT_PROVEN, text + tr(", yet power fell: check the wiring", ", 但功率下降: 查线"), ticket=True
            )
        return judged(Event.NOT_PROVEN, text)
    opened = tr("contact open", "触点断开") if contact else tr("no feedback contact", "无反馈触点")
    if seen:
        return judged(Event.PROVEN, opened)
    if some:
        return judged(Event.PROVEN_PART, opened)
    return judged(
        Event.NOT_PROVEN,
        opened + (tr(", but power did not fall: check the wiring", ", 但功率未降: 查线") if contact else ""),
        ticket=bool(contact),
    )


def load_is_back(
    *, before_kw: float | None, now_kw: float | None, round_kw: float, switch: SwitchState | None
) -> str | None:
    """Why a released round counts as restored, or None: its contact closed, or (contact not known) power at least half
    of before and at least half of the round's load back.

    The second half is stricter than 9.7: where other load hides the round, half of the total proves nothing. A contact
    that is read open is never restored, whatever the power.
    """
    if switch is not None and switch.open is not None:
        return None if switch.open else tr("contact closed", "触点闭合")
    if before_kw is None or now_kw is None or before_kw <= 0:
        return None
    if now_kw >= BACK_SHARE * before_kw and before_kw - now_kw <= BACK_SHARE * round_kw:
        return tr(f"load back: {now_kw:.1f} of {before_kw:.1f} kW", f"负荷恢复: {now_kw:.1f} / {before_kw:.1f} kW")
    return None


def resolve_unknown(switch: SwitchState | None, *, now_us: int, last_act_us: int) -> tuple[Event | None, str]:
    """What a state read back says about a command that nobody answered (9.3).

    last_act_us: the latest instant at which the device could still act on the frame (its validity plus the alarm).
    A closed switch before that instant proves nothing, so the command stays unknown.
    """
    if switch is None:
        return None, tr("state could not be read; still unknown", "状态读取失败, 仍未知")
    if switch.open or switch.command_trip or switch.alarm:
        return Event.ACK, tr("state read back: the device acted", "回读: 装置已动作")
    if switch.open is None and switch.command_trip is None:
        return None, tr("the device does not tell its switch state; still unknown", "装置不报开关状态, 仍未知")
    if now_us < last_act_us:
        return None, tr("still closed, but the command may yet act", "仍闭合, 但命令可能稍后动作")
    return Event.FAIL, tr("state read back: closed after the command's validity", "回读: 命令失效后仍闭合")
