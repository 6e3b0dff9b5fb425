"""Bringing load back (domain 8.11): reverse order, in blocks, each within 20 % of what was cut and the spare margin.

After an outage load returns larger than it left (cold-load pickup, CLPU); the planning factor grows with the time off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...model.lang import tr


@dataclass(frozen=True, slots=True, kw_only=True)
class CutRow:
    """One cut round: `order` = place in the cutting order (1 = first cut, least important); off_min: minutes without
    supply; kw: what it carried."""

    command: int
    order: int
    kw: float
    off_min: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreStep:
    """One round in one block (from 1); block None = it does not fit and stays off, `reason` says why."""

    command: int
    block: int | None
    expected_kw: float
    reason: str


def clpu_factor(off_min: float) -> float:
    """Cold-load pickup planning factor; a bound belongs to the severer side."""
    if off_min < 15:
        return 1.0
    return 1.5 if off_min <= 60 else 2.0


def restore_plan(rows: Sequence[CutRow], *, margin_kw: float, block_share: float) -> list[RestoreStep]:
    """Blocks in reverse cutting order (most important first), while the margin lasts.

    A block holds at most block_share of everything that was cut (one larger round makes a block of its own); the
    expected pickup of all blocks stays within margin_kw. The first row that does not fit ends the plan: nobody less
    important comes back before somebody more important.
    """
    cut = sum(row.kw for row in rows)
    limit = block_share * cut
    steps: list[RestoreStep] = []
    block, in_block, used, full = 1, 0.0, 0.0, False
    for row in sorted(rows, key=lambda r: -r.order):
        expected = row.kw * clpu_factor(row.off_min)
        full = full or used + expected > margin_kw
        if full:
            reason = tr(
                f"stays off: {used + expected:.1f} kW expected with pickup, margin {margin_kw:.1f} kW",
                f"暂不恢复: 计冷负荷 {used + expected:.1f} kW, 裕度 {margin_kw:.1f} kW",
            )
            steps.append(RestoreStep(command=row.command, block=None, expected_kw=expected, reason=reason))
            continue
        if in_block and in_block + row.kw > limit:
            block, in_block = block + 1, 0.0
        in_block += row.kw
        used += expected
        reason = tr(
            f"block {block}: {row.kw:.1f} kW x pickup {clpu_factor(row.off_min):.1f}",
            f"第 {block} 批: {row.kw:.1f} kW x 冷负荷系数 {clpu_factor(row.off_min):.1f}",
        )
        steps.append(RestoreStep(command=row.command, block=block, expected_kw=expected, reason=reason))
    return steps
