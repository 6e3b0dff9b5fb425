"""Collects what the interlocks look at for one command: database, measured power, and the state read from the device.

Reads only. Whatever cannot be found out stays None, and None refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ..model.control import SwitchState
from ..model.times import BUSINESS_ZONE, DAY_US, US, business_day, day_start_us, from_us, to_us
from . import orders, plans
from .commands import Command
from .config import ControlConfig
from .freeze import frozen
from .ports import DeviceFacts, PowerWindow, target_of
from .records import Conn, fetch_one, scalar
from .rounds import get_round
from .rules.interlocks import Evidence, Use
from .rules.states import FINAL, HELD, PENDING, State

MIN15_S: Final = 900
_PENDING: Final = [s.value for s in PENDING | {State.SELECTED}]
_HELD: Final = [s.value for s in HELD | {State.SELECTED, State.CHECKING}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the field says about a device at `now_us`: power of the last 15 min, switch state, online, clock, facts."""

    now_us: int
    power: PowerWindow
    switch: SwitchState | None
    online: bool | None
    clock_offset_s: float | None
    facts: DeviceFacts | None


def _us(stamp: datetime | None) -> int | None:
    return None if stamp is None else to_us(stamp)


def collect(conn: Conn, command: Command, use: Use, seen: Seen, config: ControlConfig) -> Evidence:
    """The evidence for a trip, a release or a danger release of this command now.

    In the transaction that commits SENT the caller holds the command's lock and the device's lock; the flags read here
    are held against change (FOR SHARE), so that a freeze is either seen or comes after.
    """
    device = conn.execute("SELECT address, options, link FROM device WHERE id = %s", (command.device_id,)).fetchone()
    address, options = (str(device[0]), dict(device[1])) if device else (None, {})
    target = target_of(str(device[2]), str(device[0])) if device else None
    simulated = None if device is None else str(options.get("simulated", "0")).lower() in ("1", "true", "yes")
    test = command.environment == "test" and config.environment == "test"
    environment_known = command.environment == config.environment
    round_ = get_round(conn, command.device_id, command.round)
    order = orders.get(conn, command.order_id)
    facts = seen.facts or DeviceFacts()
    window = seen.power.good(seen.now_us - MIN15_S * US, seen.now_us)
    values: dict[str, object] = {}
    if use is Use.TRIP:
        values = _authority(conn, command, order, seen.now_us) | _step(conn, command, order)
    plan_row = fetch_one(
        conn, plans.PlanRow, plans.ROW_SQL + " WHERE plan_id = %s AND row = %s", (command.plan_id, command.plan_row)
    )
    if plan_row is not None:
        values |= {
            "customer_class": plan_row.class_,
            "server_protected": plan_row.class_ == "P",
            "security_kw": max(plan_row.security_kw, command.floor_kw),
            "supply": plan_row.supply,
            "max_hours_day": plan_row.max_hours_day,
            "live_test_us": day_start_us(plan_row.last_test),
        }
    if round_ is not None:
        values |= {
            "round_kw": round_.load_kw,
            "tag": round_.tag,
            "live_test_ok": round_.last_test_ok,
            "live_test_us": _us(round_.last_test_at),
            "min_on_min": config.min_on_min if round_.min_on_min is None else round_.min_on_min,
            "min_off_min": config.min_off_min if round_.min_off_min is None else round_.min_off_min,
            "max_trips_day": config.max_trips_day if round_.max_trips_day is None else round_.max_trips_day,
        }
    return Evidence(
        use=use,
        now_us=seen.now_us,
        has_protection=facts.has_protection,
        switch=seen.switch,
        p_min15_kw=window.min_kw,
        pending_kw=_pending_kw(conn, command),
        setpoint_kw=facts.setpoint_kw,
        has_setpoint=facts.has_setpoint,
        not_before_us=to_us(command.not_before),
        not_after_us=min(to_us(command.not_after), to_us(order.end_at)),
        notice_given=_notice(conn, command),
        power_us=seen.power.last_us,
        power_good=seen.power.last_good if seen.power.last_us is not None else None,
        online=seen.online,
        clock_offset_s=seen.clock_offset_s,
        has_clock=facts.has_clock,
        keys_ok=facts.keys_ok,
        model_known=None if facts.model_known is None else facts.model_known and bool(facts.can_control),
        address=address,
        targets=(_approved_target(conn, command), target, facts.target),
        conflicts=_conflicts(conn, command),
        test_environment=test if environment_known else None,
        simulated=simulated,
        cause_ended=order.state in ("RELEASING", "ENDED"),
        margin_kw=command.release_margin_kw,
        pickup_kw=command.release_pickup_kw,
        frozen=frozen(conn, share=True),
        **values,  # type: ignore[arg-type]
        **_history(conn, command, seen.now_us),  # type: ignore[arg-type]
    )


def _authority(conn: Conn, command: Command, order: orders.Order, now_us: int) -> dict[str, object]:
    plan = plans.plan(conn, command.plan_id)
    rows = plans.plan_rows(conn, command.plan_id)
    row = next((r for r in rows if r.row == command.plan_row), None)
    matches = row is not None and (row.device_id, row.round) == (command.device_id, command.round)
    return {
        "plan_active": plan.status == "active" and plan.area == order.area,
        "plan_hash_ok": plans.rows_hash(rows) == plan.rows_hash,
        "plan_from_us": to_us(plan.valid_from),
        "plan_to_us": to_us(plan.valid_to),
        "row_in_level": matches and row is not None and plans.level_reaches(row.level, order.level),
        "order_active": order.state == "ACTIVE" and to_us(order.start_at) <= now_us < to_us(order.end_at),
        "order_number": order.number,
    }


def _pending_kw(conn: Conn, command: Command) -> float:
    """Round loads of other commands to this device whose drop the lowest power of 15 min may not show yet."""
    return float(
        scalar(
            conn,
            "SELECT coalesce(sum(greatest(c.round_kw, r.typical_kw, coalesce(r.last_measured_kw, 0))), 0) "
            "FROM command c JOIN round r USING (device_id, round) "
            "WHERE c.device_id = %s AND c.id <> %s AND c.state = ANY(%s)",
            (command.device_id, command.id, _PENDING),
        )
    )


def _step(conn: Conn, command: Command, order: orders.Order) -> dict[str, object]:
    """Expected drop and terminals of this step; everything else this order already cuts counts toward its kW too."""
    row = conn.execute(
        "SELECT sum(expected_kw) FILTER (WHERE step = %(step)s), "
        "count(DISTINCT device_id) FILTER (WHERE step = %(step)s), "
        "coalesce(sum(CASE WHEN state = 'INEFFECTIVE' THEN 0 ELSE coalesce(measured_kw, expected_kw) END) "
        "FILTER (WHERE step IS DISTINCT FROM %(step)s AND order_id = %(order)s AND sent_at IS NOT NULL), 0) "
        "FROM command WHERE state = ANY(%(held)s)",
        {"step": command.step, "order": order.id, "held": _HELD},
    ).fetchone()
    last = scalar(conn, "SELECT max(sent_at) FROM command WHERE step IS DISTINCT FROM %s", (command.step,))
    if row is None or command.step is None or row[0] is None:
        return {"order_kw": order.gap_kw, "last_step_us": _us(last)}
    return {
        "step_kw": float(row[0]) + float(row[2]),
        "step_terminals": int(row[1]),
        "order_kw": order.gap_kw,
        "last_step_us": _us(last),
    }


def _notice(conn: Conn, command: Command) -> bool:
    """Given = reached once, or two channels tried with a call among them (8.9)."""
    rows = conn.execute(
        "SELECT given, channel FROM notice WHERE order_id = %s AND customer = %s", (command.order_id, command.customer)
    ).fetchall()
    tried = {channel for _, channel in rows}
    return any(given for given, _ in rows) or (len(tried) >= 2 and "phone" in tried)


def _approved_target(conn: Conn, command: Command) -> str | None:
    """What the second person of this attempt confirmed."""
    query = "SELECT seen ->> 'target' FROM approval WHERE command_id = %s AND attempt = %s AND signature = 'approve'"
    found = scalar(conn, query, (command.id, command.attempt))
    return None if found is None else str(found)


def _conflicts(conn: Conn, command: Command) -> int:
    return int(
        scalar(
            conn,
            "SELECT count(*) FROM command WHERE device_id = %s AND round = %s AND id <> %s AND state = ANY(%s)",
            (command.device_id, command.round, command.id, [*_HELD, State.AUTO_RELEASED.value]),
        )
    )


def _history(conn: Conn, command: Command, now_us: int) -> dict[str, object]:
    """Trips and hours of the business day and the last restore of this round, from our own commands."""
    today = from_us(day_start_us(business_day(now_us, BUSINESS_ZONE)))
    now = from_us(now_us)
    row = conn.execute(
        "SELECT count(*) FILTER (WHERE sent_at >= %(today)s AND id <> %(id)s), "
        "max(greatest(released_at, restored_at)) FILTER (WHERE id <> %(id)s), "
        "coalesce(sum(extract(epoch FROM "
        "least(ended, %(now)s) - greatest(sent_at, %(today)s))) "
        "FILTER (WHERE id <> %(id)s AND ended > %(today)s), 0) / 3600 "
        # what ended without a release (alarm cancelled, abandoned, closed by itself) ended with its last change
        "FROM command, LATERAL (SELECT coalesce(released_at, restored_at, "
        "CASE WHEN state = ANY(%(final)s) THEN changed_at END, %(now)s) AS ended) e "
        "WHERE device_id = %(device)s AND round = %(round)s AND sent_at IS NOT NULL "
        "AND state NOT IN ('FAILED', 'NACKED') AND sent_at > %(week)s",
        {
            "today": today,
            "now": now,
            "id": command.id,
            "device": command.device_id,
            "round": command.round,
            "week": from_us(now_us - 7 * DAY_US),
            "final": [s.value for s in FINAL],
        },
    ).fetchone()
    assert row is not None
    return {
        "history_known": True,
        "trips_today": int(row[0]),
        "last_restored_us": _us(row[1]),
        "hours_today": max(0.0, float(row[2])),
        "last_trip_us": _us(command.sent_at),
    }
