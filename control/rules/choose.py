"""Whom to cut (domain 8.8): from measured power and the approved sequence, with a reason for every row.

Decisions, where the rule leaves room:
* rows are walked in order of measure, sequence number and rotation; a round is cut only behind the lower-numbered
  rounds of its own terminal;
* a row that would lift the sum above 115 % of the gap is passed over and later rows of the same measure may still fit;
  a later measure is opened only when the measures before it are exhausted;
* if that does not reach 105 %, one passed-over row that covers the gap alone may be the whole proposal (a single
  indivisible row) if no earlier measure is skipped by it; interlock 11 then still needs two people to override the step
  limit;
* a row that limits power counts with what the limit takes off the measured power, never more than its rounds carry;
* a row that acts at an amount of energy promises no power: it is taken only when a person names it, and counts 0 kW;
* otherwise the proposal is refused and names what binds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ...model.lang import tr
from .checks import rounds_within_floor
from .kinds import Effect

TAKE_SHARE: Final = 1.05
REFUSE_SHARE: Final = 1.15


class Measure(IntEnum):
    """先错峰、后避峰、再限电、最后拉闸 (8.3); the order may not be skipped."""

    SHIFT = 1
    AVOID = 2
    LIMIT = 3
    TRIP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One plan row with what is measured now. Powers in primary kW, None = not known.

    round_kw: larger of typical and last measured load of the round, or of all rounds that take part (largest_kw: of the
    largest); limit_kw: a cut goes down to it, a LIMIT keeps it; eta: proven delivery ratio (0.95 direct, 0.8
    voluntary); curtailed_kwh and last_used_us: rotation; age_s: age of p_now_kw; is_open: the round is off already;
    obstacles: further reasons why this row cannot be used now (offline, tagged, dual supply, ...).
    """

    row: int
    measure: Measure
    seq: int
    device: int
    round: int
    customer_class: str
    round_kw: float | None
    p_now_kw: float | None
    p_min15_kw: float | None
    age_s: float | None
    floor_kw: float | None
    effect: Effect = Effect.CUT
    largest_kw: float | None = None
    limit_kw: float | None = 0.0
    eta: float = 0.95
    curtailed_kwh: float = 0.0
    last_used_us: int = 0
    is_open: bool = False
    obstacles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChoice:
    """What was decided for one row: expected_kw counts toward the sum only if chosen."""

    row: int
    chosen: bool
    expected_kw: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The proposal. feasible False = refused, `binding` names why. over: a single indivisible row above 115 %."""

    rows: tuple[RowChoice, ...]
    total_kw: float
    target_kw: float
    feasible: bool
    over: bool
    binding: tuple[str, ...]


def sequence_key(c: Candidate) -> tuple[int, int, float, int, int]:
    """Order of use: measure, sequence number, least curtailed first, longest unused first, row number."""
    return (int(c.measure), c.seq, c.curtailed_kwh, c.last_used_us, c.row)


@dataclass(slots=True)
class _Terminal:
    """What has been taken from one terminal so far: rounds (kW), whether by a row that acts by itself, and the lowest
    round that had to stay on."""

    taken: list[float]
    limited: bool = False
    stays_on: int | None = None


def _obstacle(c: Candidate, terminal: _Terminal, freshness_s: float) -> str | None:
    """Why this row cannot be cut at all, or None."""
    if c.customer_class == "P":
        return tr("protected customer, never cut", "受保护用户, 永不切")
    if c.is_open:
        return tr("already off", "已断开")
    if c.obstacles:
        return "; ".join(c.obstacles)
    if c.p_now_kw is None or c.p_min15_kw is None or c.age_s is None:
        return tr("no measured power", "无实测功率")
    if c.age_s > freshness_s:
        return tr(
            f"power is {c.age_s:.0f} s old, at most {freshness_s:.0f}",
            f"功率已 {c.age_s:.0f} s, 上限 {freshness_s:.0f}",
        )
    if c.round_kw is None or c.round_kw <= 0:
        return tr("load of the round is not known", "轮次负荷未知")
    if c.floor_kw is None:
        return tr("security load is not known", "保安负荷未知")
    if terminal.limited or (terminal.taken and c.effect is not Effect.CUT):
        return tr("another row of this terminal is taken already", "本终端已取另一行")
    if c.effect is not Effect.CUT:
        return _limit_obstacle(c)
    if terminal.stays_on is not None and c.round > terminal.stays_on:
        return tr(
            f"round {terminal.stays_on} of this terminal stays on, so round {c.round} does too",
            f"第 {terminal.stays_on} 轮未切, 第 {c.round} 轮不切",
        )
    if rounds_within_floor(c.p_min15_kw, [*terminal.taken, c.round_kw], c.floor_kw) <= len(terminal.taken):
        left = c.p_min15_kw - sum(terminal.taken) - c.round_kw
        return tr(
            f"floor: lowest power {c.p_min15_kw:.1f} kW would leave {left:.1f} kW, floor {c.floor_kw:.1f} kW",
            f"保安负荷: 最低功率 {c.p_min15_kw:.1f} kW 切后余 {left:.1f} kW, 下限 {c.floor_kw:.1f} kW",
        )
    return None


def _limit_obstacle(c: Candidate) -> str | None:
    """The same for what limits power or energy: the terminal opens rounds by itself, one at a time, above the limit."""
    assert c.p_min15_kw is not None and c.round_kw is not None and c.floor_kw is not None
    if rounds_within_floor(c.p_min15_kw, [c.round_kw], c.floor_kw):
        return None
    if c.effect is Effect.LIMIT:
        if c.limit_kw is None or c.largest_kw is None:
            return tr("limit not known", "定值未知")
        if c.limit_kw - c.largest_kw >= c.floor_kw:
            return None
        left = c.limit_kw - c.largest_kw
    else:
        left = c.p_min15_kw - c.round_kw
    return tr(
        f"floor: the last round to open would leave {left:.1f} kW, floor {c.floor_kw:.1f} kW",
        f"保安负荷: 末轮跳闸后余 {left:.1f} kW, 下限 {c.floor_kw:.1f} kW",
    )


def _reduction(c: Candidate, terminal: _Terminal) -> float:
    """a = η · min(rounds, P − already taken − max(limit, floor)), never negative, kW."""
    assert c.p_now_kw is not None and c.round_kw is not None and c.floor_kw is not None  # _obstacle saw to it
    if c.effect is Effect.ENERGY or c.limit_kw is None:
        return 0.0
    room = c.p_now_kw - sum(terminal.taken) - max(c.limit_kw, c.floor_kw)
    return c.eta * max(0.0, min(c.round_kw, room))


def choose(
    candidates: Sequence[Candidate], *, gap_kw: float, freshness_s: float = 300.0, named: Collection[int] = ()
) -> Choice:
    """The rows to cut for a gap of gap_kw (kW): sum of expected reductions from 105 % to 115 % of it, or refused.

    named: energy rows that a person wants besides; they count nothing toward the gap.
    """
    target, most = gap_kw * TAKE_SHARE, gap_kw * REFUSE_SHARE
    terminals: dict[int, _Terminal] = {}
    decided: dict[int, RowChoice] = {}
    large: list[tuple[Candidate, float]] = []
    blocked = 0
    total = 0.0
    ordered = sorted(candidates, key=sequence_key)
    for c in ordered:
        if c.effect is Effect.ENERGY and c.row in named:
            decided[c.row] = _named(c, terminals.setdefault(c.device, _Terminal(taken=[])), freshness_s)
            continue
        if total >= target:
            decided[c.row] = RowChoice(
                row=c.row, chosen=False, expected_kw=0.0, reason=tr("not needed: target reached", "已达目标, 无需")
            )
            continue
        terminal = terminals.setdefault(c.device, _Terminal(taken=[]))
        obstacle = _obstacle(c, terminal, freshness_s)
        if obstacle is None and large and large[0][0].measure < c.measure:
            obstacle = tr(
                f"measure {large[0][0].measure.name.lower()} is not exhausted (row {large[0][0].row})",
                f"措施 {large[0][0].measure.name.lower()} 未用尽 (行 {large[0][0].row})",
            )
        expected = 0.0 if obstacle else _reduction(c, terminal)
        if obstacle is None and c.effect is Effect.ENERGY:
            obstacle = tr(
                "acts at an amount of energy, promises no power: name it to take it", "按电量控制, 不计压降: 须指名"
            )
        if obstacle is None and expected <= 0:
            obstacle = tr("nothing to cut above limit and floor", "限额与保安负荷以上无可切")
        if obstacle is None and total + expected > most:
            large.append((c, expected))
            obstacle = tr(
                f"too large: {total + expected:.1f} kW would exceed {most:.1f} kW (115 % of the gap)",
                f"过大: 合计 {total + expected:.1f} kW 超 {most:.1f} kW (缺口115%)",
            )
        if obstacle is not None:
            blocked += 1
            if not c.is_open and c.effect is Effect.CUT:
                terminal.stays_on = min(c.round, terminal.stays_on or c.round)
            decided[c.row] = RowChoice(row=c.row, chosen=False, expected_kw=expected, reason=obstacle)
            continue
        assert c.round_kw is not None
        terminal.taken.append(c.round_kw)
        terminal.limited = c.effect is not Effect.CUT
        total += expected
        reason = tr(
            f"sequence {c.seq}: {expected:.1f} kW of measured {c.p_now_kw:.1f} kW; sum {total:.1f} of {target:.1f} kW",
            f"序位 {c.seq}: 实测 {c.p_now_kw:.1f} kW 可切 {expected:.1f} kW; 累计 {total:.1f} / {target:.1f} kW",
        )
        decided[c.row] = RowChoice(row=c.row, chosen=True, expected_kw=expected, reason=reason)
    rows = tuple(decided[c.row] for c in ordered)
    if total >= target:
        return Choice(rows=rows, total_kw=total, target_kw=target, feasible=True, over=False, binding=())
    alone = next(((c, kw) for c, kw in large if kw >= target and not terminals[c.device].taken), None)
    first = min((c.measure for c in ordered if decided[c.row].chosen), default=Measure.TRIP)
    if alone is not None and alone[0].measure <= first:
        return _single(rows, alone[0], alone[1], target)
    binding = [
        tr(
            f"usable sum {total:.1f} kW is below {target:.1f} kW (105 % of the gap {gap_kw:.1f} kW)",
            f"可切合计 {total:.1f} kW 低于 {target:.1f} kW (缺口 {gap_kw:.1f} kW 的105%)",
        )
    ]
    if blocked:
        binding += sorted({r.reason for r in rows if not r.chosen})
    return Choice(rows=rows, total_kw=total, target_kw=target, feasible=False, over=False, binding=tuple(binding))


def _named(c: Candidate, terminal: _Terminal, freshness_s: float) -> RowChoice:
    obstacle = _obstacle(c, terminal, freshness_s)
    if obstacle is None and c.round_kw is not None:
        terminal.taken.append(c.round_kw)
        terminal.limited = True
    return RowChoice(row=c.row, chosen=obstacle is None, expected_kw=0.0, reason=obstacle or tr("named", "指名"))


def _single(rows: Sequence[RowChoice], only: Candidate, expected: float, target: float) -> Choice:
    """The proposal of one indivisible row above 115 %: everything else stays on."""
    reason = tr(
        f"single indivisible row of {expected:.1f} kW: nothing smaller in the sequence covers the gap",
        f"单一不可分行 {expected:.1f} kW: 序位中无更小组合可覆盖缺口",
    )
    other = tr("not needed: one indivisible row covers the gap", "无需: 单一不可分行已覆盖缺口")
    new = tuple(
        RowChoice(row=r.row, chosen=True, expected_kw=expected, reason=reason)
        if r.row == only.row
        else RowChoice(row=r.row, chosen=False, expected_kw=r.expected_kw, reason=other if r.chosen else r.reason)
        for r in rows
    )
    return Choice(rows=new, total_kw=expected, target_kw=target, feasible=True, over=True, binding=())
