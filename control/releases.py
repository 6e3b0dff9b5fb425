"""Giving supply back (domain 8.11): an order's commands in stages, one for danger to people, one frame again."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from ..model.control import ActionKind
from ..model.lang import tr
from ..model.times import US, from_us, to_us
from ..protocols.common.errors import UsageError
from . import orders
from .audit import Actor, recorded
from .command import LIVE_SQL, Command, Work
from .commands import needed
from .config import ControlConfig
from .permissions import require
from .records import Conn
from .rounds import Round, rounds
from .rules.kinds import Effect, Scope
from .rules.restore import CutRow, RestoreStep, restore_plan
from .rules.states import RELEASABLE, Event, State, next_state

Rounds = dict[tuple[int, int], Round]

# Under way to a trip: a release of the order would pass them by and they would stay cut.
FLYING: Final = frozenset(
    {State.CHECKING, State.SELECTED, State.SETTING, State.SET, State.SENT, State.ACKED, State.ALARMING}
)


def _release_values(now_us: int, command: Command, rounds: Rounds) -> dict[str, object]:
    """Fields every wish to release sets; what was known of an earlier release frame is cleared (the audit keeps it)."""
    kind = command.rule.release
    assert kind is not None
    if command.rule.scope is Scope.ROUND:
        round_ = rounds.get((command.device_id, command.round))
        kind = ActionKind.PERMIT_CLOSE if round_ is None or round_.manual_reclose else ActionKind.DIRECT_CLOSE
    return {
        "release_wanted_at": from_us(now_us), "release_kind": kind.value, "release_sent_at": None,
        "release_acked": None, "released_at": None, "attention": "", "next_check_at": None,
    }  # fmt: skip


def release_order(
    conn: Conn, now_us: int, actor: Actor, order_id: int, config: ControlConfig, margin_kw: float | None = None
) -> list[tuple[Command, RestoreStep]]:
    """Staged restoring of everything an order cut (8.11): blocks in reverse order within the spare margin.

    Rows that do not fit the margin stay off, with the reason; call again with a new margin for the rest.
    """
    with recorded(conn, now_us, actor, "command.release", f"order:{order_id}"):
        require(actor, "command.release")
        order = orders.lock(conn, order_id)
        margin = margin_kw if margin_kw is not None else config.restore_margin_kw
        if margin is None:
            raise UsageError(tr("name the spare margin: --margin-kw KW", "请给出恢复裕度: --margin-kw KW"))
        known = _rounds(conn)
        ids = [
            int(r[0]) for r in conn.execute(f"SELECT id FROM command WHERE order_id = %s AND {LIVE_SQL}", (order_id,))
        ]
        work = Work(conn, now_us, ids, actor)
        mine = list(work.commands.values())
        flying = [c.id for c in mine if c.state in FLYING]
        if flying:
            raise UsageError(
                tr(f"commands {flying} are on their way: cancel them or wait", f"命令 {flying} 正在执行: 取消或等待")
            )
        held = {
            c.id: c
            for c in mine
            if c.state in RELEASABLE and c.state is not State.RELEASED and c.release_sent_at is None
        }
        if not held:
            raise UsageError(tr("nothing of this order is cut", "本指令没有已切负荷"))
        rows = [
            CutRow(command=c.id, order=c.position or 0, kw=_cut_kw(c), off_min=_off_min(c, now_us))
            for c in held.values()
        ]
        steps = restore_plan(rows, margin_kw=margin, block_share=config.restore_block_share)
        if not any(step.block for step in steps):
            raise UsageError("; ".join(step.reason for step in steps))
        orders.move(conn, now_us, actor, order, "release", reason=f"margin {margin:g} kW")
        result = []
        with work:
            for step in steps:
                command = held[step.command]
                if step.block is not None:
                    wait = timedelta(seconds=config.restore_wait_s * (step.block - 1))
                    values = _release_values(now_us, command, known) | {
                        "release_block": step.block, "release_not_before": from_us(now_us) + wait,
                        "release_pickup_kw": step.expected_kw, "release_margin_kw": margin, "release_danger": False,
                    }  # fmt: skip
                    command = work.move(command, Event.RELEASE, values, step.reason)
                result.append((command, step))
        return result


def _rounds(conn: Conn) -> Rounds:
    return {(r.device_id, r.round): r for r in rounds(conn)}


def _cut_kw(command: Command) -> float:
    """What this command is taken to have cut: measured where proven, else the round's load (cautious)."""
    own = command.round_kw if command.rule.effect is Effect.CUT else command.expected_kw
    return max(command.measured_kw or 0.0, own)


def _off_min(command: Command, now_us: int) -> float:
    return (now_us - to_us(command.sent_at)) / US / 60 if command.sent_at else 0.0


def release_danger(conn: Conn, now_us: int, actor: Actor, command_id: int, reason: str) -> Command:
    """Early release of one customer for danger to people: one person, a reason, no notice, no waiting."""
    with recorded(conn, now_us, actor, "command.release_danger", f"command:{command_id}"):
        require(actor, "command.release_danger")
        text, work = needed(reason), Work(conn, now_us, [command_id], actor)
        command = work[command_id]
        next_state(command.state, Event.RELEASE, command.rule)
        values = _release_values(now_us, command, _rounds(conn)) | {
            "release_danger": True, "release_block": None, "release_not_before": from_us(now_us),
            "release_pickup_kw": command.round_kw, "release_margin_kw": None,
        }  # fmt: skip
        with work:
            return work.move(command, Event.RELEASE, values, text)


def repeat_release(conn: Conn, now_us: int, actor: Actor, command_id: int, reason: str) -> Command:
    """A release frame that nobody answered, once more, by a person's decision."""
    with recorded(conn, now_us, actor, "command.release", f"command:{command_id}"):
        require(actor, "command.release")
        work = Work(conn, now_us, [command_id], actor)
        command = work[command_id]
        if command.state not in (State.RELEASING, State.RELEASED):
            raise UsageError(
                tr(
                    "only a release under way is repeated: control release ORDER",
                    "仅可重发进行中的恢复: control release 指令",
                )
            )
        with work:
            return work.move(command, Event.RELEASE, _release_values(now_us, command, _rounds(conn)), needed(reason))
