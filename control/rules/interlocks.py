"""The sixteen interlocks (domain 9.4) as a table over the checks of checks.py.

UNKNOWN refuses exactly as FAIL does: data that nobody recorded, did not arrive or belong to a later part of the product
never let a command through. All rows that apply are always evaluated and stored.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from ...model.lang import tr
from . import checks as c
from .checks import OVERRIDE_AGE_S, Check, Evidence, Limits, Verdict, power_age_s
from .kinds import Use


@dataclass(frozen=True, slots=True, kw_only=True)
class Interlock:
    """One row of the table. overridable: by a dispatcher and a second person, with a reason; never otherwise."""

    number: int
    en: str
    zh: str
    check: Check
    uses: frozenset[Use]
    overridable: bool = False

    @property
    def title(self) -> str:
        """The title in the language in force."""
        return tr(self.en, self.zh)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The stored result of one row. overridden: not passed, but overridden by two people."""

    number: int
    title: str
    verdict: Verdict
    text: str
    overridden: bool = False

    @property
    def lets_through(self) -> bool:
        """True if this row does not stop the command."""
        return self.verdict is Verdict.PASS or self.overridden


_TRIP = frozenset({Use.TRIP})
_BOTH = frozenset({Use.TRIP, Use.RELEASE})
_ALL = frozenset(Use)
_CHANGES = frozenset({Use.TRIP, Use.LIFT, Use.PARAMETER})
_LOAD = frozenset({Use.TRIP, Use.RELEASE, Use.CLEAR})
_FROZEN = frozenset({Use.TRIP, Use.RELEASE, Use.CLEAR, Use.LIFT, Use.PARAMETER})

TABLE: Final[tuple[Interlock, ...]] = (
    Interlock(number=1, en="authority: plan row, level, order", zh="方案行、等级、指令", check=c.authority, uses=_TRIP),
    Interlock(number=2, en="not protected", zh="非保电", check=c.protected, uses=_TRIP),
    Interlock(number=3, en="security-load floor", zh="保安负荷", check=c.floor, uses=_TRIP),
    Interlock(number=4, en="dual supply", zh="双电源", check=c.dual_supply, uses=_TRIP),
    Interlock(number=5, en="switching times and trips a day", zh="停送时间与日次数", check=c.wear, uses=_BOTH),
    Interlock(number=6, en="no maintenance tag, nobody at work", zh="无挂牌无人工作", check=c.tags, uses=_LOAD),
    Interlock(number=7, en="time window", zh="时间窗", check=c.window, uses=_TRIP),
    Interlock(number=8, en="notice given", zh="已通知", check=c.notice, uses=_TRIP, overridable=True),
    Interlock(number=9, en="power and contacts fresh", zh="功率触点新鲜", check=c.fresh, uses=_TRIP, overridable=True),
    Interlock(number=10, en="terminal in order", zh="终端状态", check=c.terminal, uses=_CHANGES),
    Interlock(number=11, en="step limit", zh="步长限制", check=c.step, uses=_TRIP, overridable=True),
    Interlock(number=12, en="single address", zh="单点地址", check=c.single, uses=_ALL),
    Interlock(number=13, en="no conflicting command", zh="无冲突命令", check=c.conflict, uses=_LOAD | _CHANGES),
    Interlock(number=14, en="environment match", zh="环境一致", check=c.environment, uses=_ALL),
    Interlock(number=15, en="restore: cause ended, margin", zh="恢复: 原因结束、裕度", check=c.restore, uses=_BOTH),
    Interlock(number=16, en="no CONTROL-FREEZE", zh="未总闭锁", check=c.freeze, uses=_FROZEN),
)  # fmt: skip

OVERRIDABLE: Final = frozenset(row.number for row in TABLE if row.overridable)


def _may_override(row: Interlock, e: Evidence) -> bool:
    """Whether an override counts here: 9 only for good power of known age up to 15 min and a switch that was read."""
    if not row.overridable:
        return False
    if row.number != 9:
        return True
    age = power_age_s(e)
    return age is not None and age <= OVERRIDE_AGE_S and bool(e.power_good) and c.position_known(e)


def check_all(evidence: Evidence, limits: Limits, overrides: Collection[int] = ()) -> tuple[Checked, ...]:
    """Every row that applies to this use, evaluated; never stops at the first failure (9.4: the result is stored)."""
    results = []
    for row in TABLE:
        if evidence.use not in row.uses:
            continue
        verdict, text = row.check(evidence, limits)
        overridden = verdict is not Verdict.PASS and row.number in overrides and _may_override(row, evidence)
        results.append(Checked(number=row.number, title=row.title, verdict=verdict, text=text, overridden=overridden))
    return tuple(results)


def failed(results: Sequence[Checked]) -> tuple[Checked, ...]:
    """The rows that stop the command; empty = it may go."""
    return tuple(r for r in results if not r.lets_through)
