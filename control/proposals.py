"""Proposals: the pure choice of rules/choose.py over measured power, stored with a reason for every row."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ..model.lang import tr
from ..model.times import DAY_US, US, from_us
from ..protocols.common.errors import UsageError
from . import orders, plans
from .archive_safety import NOTHING, safety
from .audit import Actor, Entry, append, recorded
from .config import ControlConfig
from .permissions import require
from .ports import PowerWindow
from .records import Conn, scalar
from .rounds import Round, rounds
from .rules.choose import Candidate, Choice, choose
from .rules.kinds import Effect, Scope, limit_kw
from .rules.states import HELD, State

# Power (primary kW) of a device's group over the last `back_s` seconds: the daemon's memory, or the stored readings.
PowerSource = Callable[[int, int, int, int], PowerWindow]
SEASON_US = 120 * DAY_US
WINDOW_S = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A choice with what it was made of. id None = dry run."""

    id: int | None
    order: orders.Order
    plan: plans.Plan
    rows: tuple[plans.PlanRow, ...]
    candidates: dict[int, Candidate]
    choice: Choice


def _rotation(conn: Conn, now_us: int) -> dict[tuple[int, str, int], tuple[float, int]]:
    """(device, kind's scope, number) -> (kWh curtailed this season, last use in µs), from our own commands."""
    found = conn.execute(
        "SELECT device_id, scope, round, "
        "sum(coalesce(measured_kw, 0) * extract(epoch FROM coalesce(released_at, %(now)s) - sent_at))::float8 / 3600, "
        "(extract(epoch FROM max(sent_at)) * 1000000)::int8 FROM command "
        "WHERE sent_at > %(since)s AND takes_supply(kind) GROUP BY device_id, scope, round",
        {"now": from_us(now_us), "since": from_us(now_us - SEASON_US)},
    ).fetchall()
    return {(int(d), str(s), int(r)): (float(kwh), int(last)) for d, s, r, kwh, last in found}


def _held(conn: Conn) -> set[tuple[int, int]]:
    """(device, round) of everything that our commands hold or are about to."""
    states = [s.value for s in HELD | {State.CHECKING, State.SELECTED, State.SETTING, State.SET}]
    rows = conn.execute(
        "SELECT device_id, unnest(rounds) FROM command WHERE state = ANY(%s) AND takes_supply(kind)", (states,)
    ).fetchall()
    return {(int(d), int(r)) for d, r in rows}


def build_candidates(
    conn: Conn, now_us: int, rows: list[plans.PlanRow], level: str, power: PowerSource, config: ControlConfig
) -> list[Candidate]:
    """The rows of this level with measured power, rounds, rotation and obstacles (kW primary)."""
    known: dict[tuple[int, int], Round] = {(r.device_id, r.round): r for r in rounds(conn)}
    rotation, held = _rotation(conn, now_us), _held(conn)
    states = {
        int(d): (bool(on), bool(q))
        for d, on, q in conn.execute("SELECT device, online, quarantined FROM device_state").fetchall()
    }
    protected = {
        int(r[0])
        for r in conn.execute(
            "SELECT device_id FROM protection WHERE lifted_at IS NULL AND (until IS NULL OR until > %s)",
            (from_us(now_us),),
        ).fetchall()
    }
    spared = safety(conn, now_us, {r.device_id for r in rows}, sorted({(r.device_id, r.customer) for r in rows}))
    windows: dict[tuple[int, int], PowerWindow] = {}
    candidates = []
    for row in rows:
        if not plans.level_reaches(row.level, level):
            continue
        place = (row.device_id, row.round if row.rule.scope is Scope.GROUP else 1)
        if place not in windows:
            windows[place] = power(row.device_id, now_us, WINDOW_S, place[1])
        window = windows[place].good(now_us - WINDOW_S * US, now_us)
        own = [known.get((row.device_id, n)) for n in row.rounds]
        found = [r for r in own if r is not None]
        obstacles = [tr(f"tagged: {r.tag}", f"挂牌: {r.tag}") for r in found if r.tag]
        if row.device_id in protected:
            obstacles.append(tr("supply protection (保电)", "保电"))
        archived = spared.get(row.device_id, NOTHING)
        if archived.protected:
            obstacles.append(tr("protected by the archive (保电用户)", "档案: 保电用户"))
        if row.supply != "single" or archived.dual:
            obstacles.append(tr("dual supply: other source not known", "双电源: 另一路状态未知"))
        online = states.get(row.device_id)
        if online is not None and (not online[0] or online[1]):
            obstacles.append(tr("terminal offline or quarantined", "终端离线或隔离"))
        kwh, last = rotation.get((row.device_id, row.rule.scope.value, row.round), (0.0, 0))
        complete = bool(found) and len(found) == len(own)
        cut = row.rule.effect is Effect.CUT
        candidates.append(
            Candidate(
                row=row.row,
                measure=plans.MEASURES[row.measure],
                seq=row.seq,
                device=row.device_id,
                round=row.round,
                customer_class=row.class_,
                effect=row.rule.effect,
                round_kw=sum(r.load_kw for r in found) if complete else None,
                largest_kw=max(r.load_kw for r in found) if complete else None,
                p_now_kw=window.last_kw,
                p_min15_kw=window.min_kw,
                age_s=None if window.last_us is None else (now_us - window.last_us) / US,
                floor_kw=max(row.security_kw, archived.security_kw),
                limit_kw=row.limit_kw if cut else limit_kw(row.rule, row.params, row.limit_kw, window.last_kw),
                eta=config.eta_voluntary if row.voluntary else config.eta_direct,
                curtailed_kwh=kwh,
                last_used_us=last,
                is_open=any((row.device_id, n) in held for n in row.rounds),
                obstacles=tuple(obstacles),
            )
        )
    return candidates


def propose(
    conn: Conn,
    now_us: int,
    actor: Actor,
    order_id: int,
    power: PowerSource,
    config: ControlConfig,
    *,
    commit: bool = False,
    named: Collection[int] = (),
) -> Proposal:
    """Choose rows for an order from measured power; a dry run unless `commit`, which stores it (order -> PLANNED).

    named: energy rows of the plan that are wanted besides.
    """
    with recorded(conn, now_us, actor, "command.propose", f"order:{order_id}"):
        require(actor, "command.propose")
        order = orders.lock(conn, order_id) if commit else orders.get(conn, order_id)
        if order.state not in ("CONFIRMED", "PLANNED", "APPROVED"):
            raise UsageError(
                tr(
                    f"order {order.number} is {order.state}: it must be confirmed and not yet active",
                    f"指令 {order.number} 为 {order.state}: 须已复诵且未生效",
                )
            )
        plan = plans.active_plan(conn, order.area)
        rows = plans.plan_rows(conn, plan.id)
        candidates = build_candidates(conn, now_us, rows, order.level, power, config)
        choice = choose(candidates, gap_kw=order.gap_kw, freshness_s=config.freshness_s, named=named)
        by_row = {c.row: c for c in candidates}
        proposal_id = None
        if commit:
            proposal_id = _store(conn, now_us, actor, order, plan, by_row, choice)
        return Proposal(id=proposal_id, order=order, plan=plan, rows=tuple(rows), candidates=by_row, choice=choice)


def _store(
    conn: Conn,
    now_us: int,
    actor: Actor,
    order: orders.Order,
    plan: plans.Plan,
    candidates: dict[int, Candidate],
    choice: Choice,
) -> int:
    if scalar(conn, "SELECT count(*) FROM command WHERE order_id = %s AND state = 'APPROVED'", (order.id,)):
        raise UsageError(
            tr("approved commands of this order are waiting: cancel them first", "本指令已有批准命令: 先取消")
        )
    values: dict[str, object] = {
        "order_id": order.id, "plan_id": plan.id, "gap_kw": order.gap_kw, "target_kw": choice.target_kw,
        "total_kw": choice.total_kw, "feasible": choice.feasible, "over": choice.over, "author": actor.account_id,
        "created_at": from_us(now_us),
    }  # fmt: skip
    append(
        conn,
        now_us,
        [
            Entry(
                actor=actor,
                action="command.propose",
                object=f"order:{order.number}",
                after=values | {"rows": [r.row for r in choice.rows if r.chosen]},
            )
        ],
    )
    row = conn.execute(
        "INSERT INTO proposal (order_id, plan_id, gap_kw, target_kw, total_kw, feasible, over, author, created_at, "
        "binding) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        [*values.values(), list(choice.binding)],
    ).fetchone()
    assert row is not None
    rows = []
    for position, decided in enumerate(choice.rows, 1):
        c = candidates[decided.row]
        rows.append(
            (
                row[0], position, c.row, c.device, c.round, decided.chosen, decided.expected_kw, c.p_now_kw,
                c.p_min15_kw, c.age_s, c.round_kw, c.floor_kw, c.limit_kw, decided.reason,
            )
        )  # fmt: skip
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO proposal_row (proposal_id, position, plan_row, device_id, round, chosen, expected_kw, "
            "power_kw, power_min_kw, power_age_s, round_kw, floor_kw, limit_kw, reason) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            rows,
        )
    if choice.feasible:
        orders.move(conn, now_us, actor, order, "plan")
    return int(row[0])
