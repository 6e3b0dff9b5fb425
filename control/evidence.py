"""Collects what the interlocks look at, for many commands at once: database, measured power, state of the device.

Reads only. Whatever cannot be found out stays None, and None refuses. One set of queries serves any number of commands;
in the transaction that commits SENT the rows are locked and the flags read here are held against change (FOR SHARE), so
that a freeze is either seen or comes after.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from weakref import WeakKeyDictionary

from ..model.control import SwitchState
from ..model.times import BUSINESS_ZONE, DAY_US, US, business_day, day_start_us, from_us, to_us
from . import orders, plans
from .archive_safety import NOTHING, safety
from .command import Command, Signature, signatures
from .config import ControlConfig
from .freeze import frozen
from .ports import DeviceFacts, PowerWindow, target_of
from .records import Conn, fetch_all, scalar
from .rounds import Round
from .rules.checks import Evidence
from .rules.kinds import Effect, Use, limit_kw
from .rules.parameters import touches_control
from .rules.states import FINAL, HELD, PENDING, State

MIN15_S: Final = 900
_PENDING: Final = frozenset(PENDING | {State.SELECTED, State.SETTING, State.SET})
_HELD: Final = frozenset(HELD | {State.SELECTED, State.CHECKING, State.SETTING, State.SET})
_CONFLICT: Final = _HELD | {State.AUTO_RELEASED}
_NEVER_CUT: Final = frozenset({State.FAILED, State.NACKED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the field says about a device at `now_us`: power of the last 15 min, switch state, online, clock, facts."""

    now_us: int
    power: PowerWindow
    switch: SwitchState | None
    online: bool | None
    clock_offset_s: float | None
    facts: DeviceFacts | None


@dataclass(frozen=True, slots=True)
class Question:
    """One command, what its frame would do, and what was seen of its device."""

    command: Command
    use: Use
    seen: Seen


@dataclass(frozen=True, slots=True)
class Trip:
    """An earlier or present command of a device, as far as the interlocks ask for it."""

    id: int
    device: int
    state: State
    rounds: frozenset[int]
    takes_supply: bool
    round_kw: float
    sent_us: int | None
    ended_us: int | None
    back_us: int | None


def wired(facts: DeviceFacts | None, round_: Round | None) -> bool:
    """Whether the round's switch has a feedback contact that the device reports."""
    if facts is None:
        return True
    return facts.has_contact and (not facts.contact_inputs or bool(round_ is not None and round_.contact))


def _us(stamp: datetime | None) -> int | None:
    return None if stamp is None else to_us(stamp)


_HASHES: WeakKeyDictionary[Any, dict[tuple[object, ...], str]] = WeakKeyDictionary()


def _rows_hash(conn: Conn, plan_id: int) -> str:
    """Hash of a plan's rows as they stand; computed again only when a row was written since (its xmin)."""
    row = conn.execute(
        "SELECT count(*), max(xmin::text::int8), sum(xmin::text::int8) FROM plan_row WHERE plan_id = %s", (plan_id,)
    ).fetchone()
    known = _HASHES.setdefault(conn, {})
    key = (plan_id, *(row or ()))
    if key not in known:
        if len(known) > 16:
            known.clear()
        known[key] = plans.rows_hash(plans.plan_rows(conn, plan_id))
    return known[key]


class Archive:
    """Everything of the database that the evidence of these commands needs, read once."""

    def __init__(self, conn: Conn, now_us: int, found: Sequence[Command], config: ControlConfig) -> None:
        self.conn, self.now_us, self.config = conn, now_us, config
        devices = sorted({c.device_id for c in found})
        self.devices = {
            int(i): (str(address), dict(options), str(link))
            for i, address, options, link in conn.execute(
                "SELECT id, address, options, link FROM device WHERE id = ANY(%s)", (devices,)
            ).fetchall()
        }
        self.rounds = {
            (r.device_id, r.round): r
            for r in fetch_all(conn, Round, "SELECT * FROM round WHERE device_id = ANY(%s)", (devices,))
        }
        self.orders = {i: orders.get(conn, i) for i in sorted({c.order_id for c in found if c.order_id is not None})}
        self.plans = {i: plans.plan(conn, i) for i in sorted({c.plan_id for c in found if c.plan_id is not None})}
        self.plan_rows = {
            (r.plan_id, r.row): r
            for i in self.plans
            for r in fetch_all(
                conn, plans.PlanRow, plans.ROW_SQL + " WHERE plan_id = %s AND row = ANY(%s)",
                (i, [c.plan_row for c in found if c.plan_id == i]),
            )
        }  # fmt: skip
        self.protected = {
            int(r[0])
            for r in conn.execute(
                "SELECT device_id FROM protection WHERE device_id = ANY(%s) AND lifted_at IS NULL "
                "AND (until IS NULL OR until > %s)", (devices, from_us(now_us)),
            ).fetchall()
        }  # fmt: skip
        named = {(c.device_id, c.customer) for c in found if c.customer}
        self.safety = safety(conn, now_us, devices, sorted(named))
        self.frozen = frozen(conn, share=True)
        self._signed: dict[int, Signature] | None = None
        self._found = found
        self._trips: dict[int, list[Trip]] | None = None
        self._told: dict[tuple[int, str], list[tuple[bool, str]]] | None = None
        self._steps: dict[tuple[int | None, int], dict[str, object]] = {}
        self._hash_ok: dict[int, bool] = {}

    def round_of(self, command: Command) -> Round | None:
        """The (first) round of a command."""
        return self.rounds.get((command.device_id, command.rounds[0])) if command.rounds else None

    def target(self, device_id: int) -> str | None:
        """Where frames go by the archive."""
        found = self.devices.get(device_id)
        return target_of(found[2], found[0]) if found else None

    def signed_target(self, command: Command) -> str | None:
        """What the last signer of this attempt confirmed."""
        if self._signed is None:
            self._signed = {}
            for name in ("draft", "approve"):
                self._signed |= signatures(self.conn, self._found, name)
        signature = self._signed.get(command.id)
        found = signature[3].get("target") if signature else None
        return None if found is None else str(found)

    def trips(self, device_id: int) -> list[Trip]:
        """Commands that took supply away from a device's rounds in the last week, and the live ones."""
        if self._trips is None:
            self._trips = self._read_trips()
        return self._trips.get(device_id, [])

    def _read_trips(self) -> dict[int, list[Trip]]:
        result: dict[int, list[Trip]] = defaultdict(list)
        rows = self.conn.execute(
            "SELECT id, device_id, state, rounds, takes_supply(kind), round_kw, sent_at, released_at, restored_at, "
            "changed_at FROM command WHERE device_id = ANY(%s) AND (state <> ALL(%s) OR sent_at > %s)",
            (list(self.devices), [s.value for s in FINAL], from_us(self.now_us - 8 * DAY_US)),
        ).fetchall()
        for id_, device, state, rounds, takes, round_kw, sent, released, restored, changed in rows:
            # What ended without a release (alarm cancelled, abandoned, closed by itself) ended with its last change.
            ended = released or restored or (changed if State(state) in FINAL else None)
            back = max((s for s in (released, restored) if s is not None), default=None)
            result[int(device)].append(
                Trip(
                    int(id_), int(device), State(state), frozenset(rounds), bool(takes), float(round_kw), _us(sent),
                    _us(ended), _us(back),
                )
            )  # fmt: skip
        return result

    def notice_given(self, command: Command) -> bool:
        """As `orders.counts_as_told`."""
        if self._told is None:
            self._told = defaultdict(list)
            for order, customer, given, channel in self.conn.execute(
                "SELECT order_id, customer, given, channel FROM notice WHERE order_id = ANY(%s)", (list(self.orders),)
            ).fetchall():
                self._told[int(order), str(customer)].append((bool(given), str(channel)))
        found = self._told.get((command.order_id or 0, command.customer), [])
        return orders.counts_as_told(found)

    def plan_hash_ok(self, plan_id: int) -> bool:
        """The plan's rows are those that were approved."""
        if plan_id not in self._hash_ok:
            self._hash_ok[plan_id] = _rows_hash(self.conn, plan_id) == self.plans[plan_id].rows_hash
        return self._hash_ok[plan_id]

    def step(self, command: Command, order: orders.Order) -> dict[str, object]:
        """Expected drop and terminals of its step; everything else the order already cuts counts toward its kW too."""
        key = (command.step, order.id)
        if key not in self._steps:
            self._steps[key] = self._read_step(command.step, order)
        return self._steps[key]

    def _read_step(self, step: int | None, order: orders.Order) -> dict[str, object]:
        row = self.conn.execute(
            "SELECT sum(expected_kw) FILTER (WHERE step = %(step)s), "
            "count(DISTINCT device_id) FILTER (WHERE step = %(step)s), "
            "coalesce(sum(CASE WHEN state = 'INEFFECTIVE' THEN 0 ELSE coalesce(measured_kw, expected_kw) END) "
            "FILTER (WHERE step IS DISTINCT FROM %(step)s AND order_id = %(order)s AND sent_at IS NOT NULL), 0) "
            "FROM command WHERE state = ANY(%(held)s) AND takes_supply(kind)",
            {"step": step, "order": order.id, "held": [s.value for s in _HELD]},
        ).fetchone()
        last = scalar(
            self.conn,
            "SELECT max(sent_at) FROM command WHERE step IS DISTINCT FROM %s AND takes_supply(kind)",
            (step,),
        )
        values: dict[str, object] = {"order_kw": order.gap_kw, "last_step_us": _us(last)}
        if row is not None and step is not None and row[0] is not None:
            values |= {"step_kw": float(row[0]) + float(row[2]), "step_terminals": int(row[1])}
        return values


def collect(conn: Conn, now_us: int, questions: Sequence[Question], config: ControlConfig) -> list[Evidence]:
    """The evidence for each question, judged at `now_us`."""
    archive = Archive(conn, now_us, [q.command for q in questions], config)
    return [_evidence(archive, q) for q in questions]


def _evidence(archive: Archive, question: Question) -> Evidence:
    command, use, seen, config = question.command, question.use, question.seen, archive.config
    device = archive.devices.get(command.device_id)
    address, options = (device[0], device[1]) if device else (None, {})
    simulated = None if device is None else str(options.get("simulated", "0")).lower() in ("1", "true", "yes")
    test = command.environment == "test" and config.environment == "test"
    order = archive.orders.get(command.order_id) if command.order_id is not None else None
    facts = seen.facts or DeviceFacts()
    switch = seen.switch
    now_us = archive.now_us
    window = seen.power.good(now_us - MIN15_S * US, now_us)
    values: dict[str, object] = {}
    if order is not None:
        values |= {
            "not_after_us": min(to_us(command.not_after), to_us(order.end_at)),
            "cause_ended": order.state in ("RELEASING", "ENDED"),
        }
        if use is Use.TRIP:
            values |= _authority(archive, command, order, now_us) | archive.step(command, order)
            values["notice_given"] = archive.notice_given(command)
    plan_row = archive.plan_rows.get((command.plan_id or 0, command.plan_row or 0))
    if plan_row is not None:
        known = archive.safety.get(command.device_id, NOTHING)
        values |= {
            "customer_class": plan_row.class_,
            "server_protected": plan_row.class_ == "P" or command.device_id in archive.protected or known.protected,
            "security_kw": max(plan_row.security_kw, command.floor_kw, known.security_kw),
            "supply": "dual" if known.dual else plan_row.supply,
            "max_hours_day": plan_row.max_hours_day,
            "live_test_us": day_start_us(plan_row.last_test),
            "limit_kw": limit_kw(command.rule, command.params, plan_row.limit_kw, window.last_kw),
        }
    values |= _rounds(archive, command) | _history(archive, command, now_us)
    told_setpoint = switch.setpoint_kw if switch is not None and switch.setpoint_kw is not None else facts.setpoint_kw
    told_offset = switch.clock_offset_s if switch is not None else None
    return Evidence(
        use=use,
        effect=command.rule.effect,
        now_us=now_us,
        has_protection=facts.has_protection,
        switch=switch,
        p_min15_kw=window.min_kw,
        pending_kw=_pending_kw(archive, command),
        setpoint_kw=told_setpoint,
        has_setpoint=facts.has_setpoint,
        not_before_us=to_us(command.not_before),
        power_us=seen.power.last_us,
        power_good=seen.power.last_good if seen.power.last_us is not None else None,
        has_contact=None if seen.facts is None else wired(facts, archive.round_of(command)),
        online=seen.online,
        clock_offset_s=seen.clock_offset_s if told_offset is None else told_offset,
        has_clock=facts.has_clock,
        keys_ok=facts.keys_ok,
        model_known=None if facts.model_known is None else facts.model_known and bool(facts.can_control),
        address=address,
        targets=(archive.signed_target(command), archive.target(command.device_id), facts.target),
        has_exclusion=facts.has_exclusion,
        conflicts=_conflicts(archive, command, use),
        rounds=command.rounds,
        test_environment=test if command.environment == config.environment else None,
        simulated=simulated,
        margin_kw=command.release_margin_kw,
        pickup_kw=command.release_pickup_kw,
        frozen=archive.frozen,
        **values,  # type: ignore[arg-type]
    )


def _rounds(archive: Archive, command: Command) -> dict[str, object]:
    """What is known of all rounds that the command may open, the cautious side of each; nothing if one is missing."""
    if not command.rounds:  # what gives free: tags count, whichever rounds it may close
        mine = [r for (d, n), r in archive.rounds.items() if d == command.device_id]
        if command.scope == "round":
            mine = [r for r in mine if r.round == command.round]
        return {"tag": "; ".join(sorted({r.tag for r in mine if r.tag}))}
    found = [archive.rounds.get((command.device_id, n)) for n in command.rounds]
    known = [r for r in found if r is not None]
    if len(known) < len(found):
        return {}
    config = archive.config
    tested = [_us(r.last_test_at) for r in known]
    passed = [r.last_test_ok for r in known]
    return {
        "round_kw": sum(r.load_kw for r in known),
        "largest_kw": max(r.load_kw for r in known),
        "tag": "; ".join(sorted({r.tag for r in known if r.tag})),
        "live_test_ok": None if None in passed else all(passed),
        "live_test_us": None if None in tested else min(t for t in tested if t is not None),
        "min_on_min": max(config.min_on_min if r.min_on_min is None else r.min_on_min for r in known),
        "min_off_min": max(config.min_off_min if r.min_off_min is None else r.min_off_min for r in known),
        "max_trips_day": min(config.max_trips_day if r.max_trips_day is None else r.max_trips_day for r in known),
    }


def _authority(archive: Archive, command: Command, order: orders.Order, now_us: int) -> dict[str, object]:
    assert command.plan_id is not None
    plan = archive.plans[command.plan_id]
    row = archive.plan_rows.get((command.plan_id, command.plan_row or 0))
    matches = row is not None and (row.device_id, row.round, row.kind, row.params) == (
        command.device_id, command.round, command.kind, command.params,
    )  # fmt: skip
    return {
        "plan_active": plan.status == "active" and plan.area == order.area,
        "plan_hash_ok": archive.plan_hash_ok(plan.id),
        "plan_from_us": to_us(plan.valid_from),
        "plan_to_us": to_us(plan.valid_to),
        "row_in_level": matches and row is not None and plans.level_reaches(row.level, order.level),
        "order_active": order.state == "ACTIVE" and to_us(order.start_at) <= now_us < to_us(order.end_at),
        "order_number": order.number,
    }


def _pending_kw(archive: Archive, command: Command) -> float:
    """Loads of other commands to this device whose drop the lowest power of 15 min may not show yet."""
    total = 0.0
    for other in archive.trips(command.device_id):
        if other.id != command.id and other.takes_supply and other.state in _PENDING:
            known = (archive.rounds.get((other.device, n)) for n in other.rounds)
            total += max(other.round_kw, sum(r.load_kw for r in known if r is not None))
    return total


def _conflicts(archive: Archive, command: Command, use: Use) -> int:
    """Other commands at work on the same rounds; for parameters of control: at work on the device at all."""
    others = [
        t for t in archive.trips(command.device_id) if t.id != command.id and t.state in _CONFLICT and t.takes_supply
    ]
    if use is Use.PARAMETER:
        return len(others) if touches_control(command.settings) else 0
    if use is Use.LIFT:
        return 0
    mine = set(command.rounds) or ({command.round} if command.scope == "round" else set())
    if command.rule.effect is Effect.STATE and command.scope == "group":
        return len(others)
    return sum(1 for t in others if t.rounds & mine)


def _history(archive: Archive, command: Command, now_us: int) -> dict[str, object]:
    """Trips and hours of the business day and the last restore of these rounds, from our own commands.

    Of several rounds the one with the most counts.
    """
    today = day_start_us(business_day(now_us, BUSINESS_ZONE))
    week = now_us - 7 * DAY_US
    trips_today, hours_today, restored = 0, 0.0, list[int]()
    for number in command.rounds:
        trips, us = 0, 0
        for t in archive.trips(command.device_id):
            if t.id == command.id or t.sent_us is None or not t.takes_supply or number not in t.rounds:
                continue
            if t.state in _NEVER_CUT or t.sent_us <= week:
                continue
            trips += t.sent_us >= today
            ended = now_us if t.ended_us is None else t.ended_us
            if ended > today:
                us += min(ended, now_us) - max(t.sent_us, today)
            if t.back_us is not None:
                restored.append(t.back_us)
        trips_today, hours_today = max(trips_today, trips), max(hours_today, us / US / 3600)
    return {
        "history_known": True,
        "trips_today": trips_today,
        "last_restored_us": max(restored, default=None),
        "hours_today": max(0.0, hours_today),
        "last_trip_us": _us(command.sent_at),
    }
