"""A device that comes back (login, restart) against what our commands say (domain 9.6): confirm, or tell people.

Some terminals return to the control state before the break, some forget it. Nothing is ever tripped again here: what
differs is an incident, and people release it explicitly or begin a new command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...model.control import SwitchState
from ...model.lang import tr
from .kinds import ENGAGED, Effect, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One command of the device. holds: by its state the device should hold it; else it should hold it no longer.

    settled: it is known to have been carried out (an answer or a state said so); else the state of the device decides.
    """

    command: int
    kind: Kind
    number: int
    rounds: tuple[int, ...]
    holds: bool
    settled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found for one command, or (command None) for something no command of ours accounts for.

    same True: the device holds what it should; False: it does not, or holds what it should not; None: not told.
    """

    command: int | None
    same: bool | None
    what: str
    text: str


def reconcile(commands: Sequence[Held], switch: SwitchState | None, why: str) -> tuple[Finding, ...]:
    """One finding a command, and one for each control or output that nobody holds. why: what made us look."""
    if switch is None:
        text = tr(f"{why}: the state could not be read", f"{why}: 状态读取失败")
        return tuple(Finding(command=c.command, same=None, what=_name(c), text=text) for c in commands)
    found = [_one(c, switch, why) for c in commands if c.settled]
    ours = {r for c in commands for r in c.rounds}
    for number in switch.outputs or ():
        if number not in ours:
            what = tr(f"round {number}", f"第 {number} 轮")
            text = tr(f"{why}: the terminal holds round {number} open, no command of ours does",
                      f"{why}: 终端保持第 {number} 轮跳闸, 非本站命令")  # fmt: skip
            found.append(Finding(command=None, same=False, what=what, text=text))
    mine = {c.kind.name for c in commands}
    for name in switch.engaged or ():
        # energy controls are routine business of the customer's contract, not of an order
        if name in ENGAGED and name not in mine and name not in ("month", "purchase"):
            text = tr(f"{why}: {name} control is engaged, no command of ours holds it",
                      f"{why}: 终端投入 {name} 控制, 非本站命令")  # fmt: skip
            found.append(Finding(command=None, same=False, what=name, text=text))
    return tuple(found)


def _name(c: Held) -> str:
    return f"{c.kind.name} {c.number}"


def _one(c: Held, switch: SwitchState, why: str) -> Finding:
    here = _is_held(c, switch)
    if here is None:
        text = tr(f"{why}: the terminal does not tell its control state", f"{why}: 终端不报控制状态")
        return Finding(command=c.command, same=None, what=_name(c), text=text)
    if here == c.holds:
        text = tr(f"{why}: the terminal confirms it", f"{why}: 终端状态一致")
        return Finding(command=c.command, same=True, what=_name(c), text=text)
    if c.holds:
        text = tr(f"{why}: the terminal no longer holds it; nothing is sent again, decide: release or a new command",
                  f"{why}: 终端不再保持; 不重发, 请决定恢复或新命令")  # fmt: skip
    else:
        text = tr(f"{why}: the terminal holds it again although it was released; release it again",
                  f"{why}: 已恢复的控制又生效; 请再次恢复")  # fmt: skip
    return Finding(command=c.command, same=False, what=_name(c), text=text)


def _is_held(c: Held, switch: SwitchState) -> bool | None:
    if c.kind.effect is Effect.CUT:
        if switch.tripped is not None:
            return c.number in switch.tripped
        return switch.command_trip
    return None if switch.engaged is None else c.kind.name in switch.engaged
