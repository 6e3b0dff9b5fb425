"""What a colour means, the same in every table and screen of control."""

from __future__ import annotations

from typing import Final

from ..control.rules.states import State

WAITING: Final = "grey62"  # for people
MOVING: Final = "cyan"  # something is under way
SOUNDING: Final = "bold magenta"  # the alarm sounds at the customer's
HOLDING: Final = "green"  # cut, and seen in the meter
DOUBT: Final = "bold yellow"  # nobody knows, a person looks
WRONG: Final = "bold red"  # it did not happen
BACK: Final = "blue"  # on the way back, or back
OVER: Final = "grey42"

_S = State
COLOURS: Final[dict[State, str]] = (
    dict.fromkeys((_S.DRAFT, _S.SUBMITTED, _S.APPROVED, _S.RELEASED_SELECT), WAITING)
    | dict.fromkeys((_S.CHECKING, _S.SELECTED, _S.SETTING, _S.SET, _S.SENT, _S.ACKED, _S.VERIFYING), MOVING)
    | {_S.ALARMING: SOUNDING, _S.EFFECTIVE: HOLDING}
    | dict.fromkeys((_S.UNKNOWN, _S.PARTIAL, _S.BLOCKED), DOUBT)
    | dict.fromkeys((_S.INEFFECTIVE, _S.FAILED, _S.NACKED), WRONG)
    | dict.fromkeys((_S.RELEASING, _S.RELEASED, _S.AUTO_RELEASED, _S.RESTORED), BACK)
    | dict.fromkeys((_S.CLOSED, _S.CANCELLED, _S.REJECTED, _S.EXPIRED, _S.SUPERSEDED, _S.ABANDONED), OVER)
)
MODES: Final = {"NORMAL": HOLDING, "NO-CONTROL": DOUBT, "READ-ONLY": DOUBT, "STOPPED": WRONG}
