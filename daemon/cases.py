"""Rules over judged days and devices' events: what they find becomes cases (domain 5).

A day's rules run in the transaction that writes its layers, on the arrays that are there anyway: judged again, a day is
also searched again, and its cases follow. What a day hands on to the next (a finding that still holds, runs that are
not long enough yet) is kept; when it changes, the next day is judged again. Events come by a cursor of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np
import psycopg

from ..acquisition.io.clock import Clock
from ..analytics.masks import B1, F8, measured
from ..analytics.rules import conditions
from ..analytics.rules.machine import Carry, evaluate
from ..analytics.rules.table import Rule, of_event, rules
from ..analytics.vee.checks import Check
from ..analytics.vee.days import AMPS, FORWARD, LINES, VOLTS
from ..analytics.voltage import band_of, bands
from ..control.evaluation import control_days
from ..model.times import US, day_start_us, from_us, to_us
from ..storage import archive, cases
from ..storage.cases import Finding, RuleDay
from ..storage.database import Database
from .vee_judge import Judged

log = logging.getLogger(__name__)

STEP_S: Final = 900
DAYS_OF_EVIDENCE: Final = 30
EVENTS: Final = 500
POLL_S: Final = 10.0
RATED_A: Final = 5.0  # secondary, where the archive does not say
DIRECTION_OUT: Final = ("export", "both")
K7_BIT: Final = 1 << (Check.K7 - 1)


def search(connection: psycopg.Connection[Any], j: Judged, now_us: int) -> list[tuple[int, date]]:
    """Run every rule over the day; write findings and cases. Returns point-days whose beginning is now another one."""
    of_points = "SELECT id, device_id FROM point WHERE id = ANY(%s)"
    devices: dict[int, int] = dict(connection.execute(of_points, (list(j.points),)).fetchall())
    slots = _measured(connection, j, devices)
    whole = _whole(connection, j, slots, devices)
    yesterday = cases.rule_days(connection, j.points, j.day - timedelta(days=1))
    before = cases.rule_days(connection, j.points, j.day)
    start = day_start_us(j.day)
    found: dict[tuple[int, str], RuleDay] = {}
    for rule in rules().values():
        if rule.kind == "state":
            true, cleared, known = conditions.SLOTS[rule.condition](slots)
            known, step_min = known & ~slots.apart, STEP_S // 60
        elif rule.kind == "day":
            day_true, day_known = conditions.DAYS[rule.condition](whole)
            true, known, step_min = day_true[:, None], day_known[:, None], 1440
            cleared = ~true
        else:
            continue
        active, carry = evaluate(true, cleared, known, rule.hold, rule.clear, _carry(yesterday, j.points, rule.id))
        some = np.asarray(active.any(axis=1), np.bool_)
        for i in np.flatnonzero(some | (carry.on > 0) | carry.active).tolist():
            row = RuleDay(
                point=j.points[i], rule=rule.id, spans=_spans(active[i], true[i] & known[i], rule.hold, step_min),
                active=bool(carry.active[i]), run_on=int(min(carry.on[i], 999)), run_off=int(min(carry.off[i], 999)),
            )  # fmt: skip
            found[row.point, row.rule] = row
            if row.spans:
                first, last = (start + minute * 60 * US for minute in (row.spans[0], row.spans[-1]))
                _open(connection, now_us, rule, devices[row.point], row.point, first, last, _evidence(slots, i, row))
        for i, point in enumerate(j.points):
            key = point, rule.id
            now = found.get(key)
            if (now is None or not now.active) and (key in yesterday or key in before or some[i]):
                _over(connection, now_us, rule, point, start, now, before.get(key))
    cases.put_rule_days(connection, j.points, j.day, list(found.values()))
    seen = {r.point for r in found.values() if r.spans}
    suspicion(connection, now_us, {p: devices[p] for p in seen}, start, start + 86_400 * US)
    moved = {key[0] for key in {*found, *before} if _handed(found.get(key)) != _handed(before.get(key))}
    return [(p, j.day + timedelta(days=1)) for p in sorted(moved)]


def _handed(row: RuleDay | None) -> tuple[bool, int, int]:
    """What a day hands on to the next; the run of a clear condition matters only while the finding holds."""
    return (False, 0, 0) if row is None else (row.active, row.run_on, row.run_off if row.active else 0)


def _carry(yesterday: dict[tuple[int, str], RuleDay], points: Sequence[int], rule: str) -> Carry:
    carry = Carry.none(len(points))
    for i, point in enumerate(points):
        row = yesterday.get((point, rule))
        if row is not None:
            carry.active[i], carry.on[i], carry.off[i] = row.active, row.run_on, row.run_off
    return carry


def _spans(active: B1, true: B1, hold: int, step_min: int) -> list[int]:
    """Minutes of the day between which the finding holds; from the first slot of the run that made it one."""
    at = np.flatnonzero(active)
    if not len(at):
        return []
    out: list[int] = []
    cuts = np.flatnonzero(np.diff(at) > 1)
    for first, last in zip(np.r_[at[0], at[cuts + 1]], np.r_[at[cuts], at[-1]], strict=True):
        begin = int(first)
        while begin > 0 and first - begin < hold - 1 and true[begin - 1]:
            begin -= 1
        out += [begin * step_min, (int(last) + 1) * step_min]
    return out


def _open(
    connection: psycopg.Connection[Any], now_us: int, rule: Rule, device: int, point: int | None, first_us: int,
    last_us: int, evidence: dict[str, Any],
) -> None:  # fmt: skip
    cases.open_or_repeat(
        connection,
        now_us,
        Finding(
            rule=rule.id, severity=rule.severity, told=rule.told, device_id=device, point=point, first_us=first_us,
            last_us=last_us, note_s=rule.note_s, close_s=rule.close_s, hidden=rule.hidden, evidence=evidence,
        ),
    )  # fmt: skip


def _over(
    connection: psycopg.Connection[Any], now_us: int, rule: Rule, point: int, start: int, now: RuleDay | None,
    had: RuleDay | None,
) -> None:  # fmt: skip
    """The finding does not hold at the day's end: cleared, or withdrawn where the day had it and lost it."""
    last = now.spans[-1] if now is not None and now.spans else 0
    if had is not None and had.spans and not last:
        cases.withdraw(connection, now_us, point, rule.id, start, start + 86_400 * US)
    cases.clear(connection, now_us, point, rule.id, start + last * 60 * US, close=rule.clears_itself)


def suspicion(
    connection: psycopg.Connection[Any], now_us: int, points: dict[int, int], first_us: int, last_us: int
) -> None:
    """TS: the sum of the evidence of thirty days. points: those with a finding now, and their devices."""
    if not points:
        return
    seen = cases.seen_since(connection, sorted(points), from_us(first_us - DAYS_OF_EVIDENCE * 86_400 * US))
    history = cases.proven_before(connection, sorted(points))
    for point in sorted(points):
        score, parts = conditions.theft(seen.get(point, set()), point in history)
        if score >= conditions.SUSPECT:
            evidence = {"score": score, "parts": parts}
            _open(connection, now_us, rules()["TS"], points[point], point, first_us, last_us, evidence)


# --- the arrays -------------------------------------------------------------------------------------------------------


def _measured(connection: psycopg.Connection[Any], j: Judged, devices: dict[int, int]) -> conditions.Measured:
    shape = j.layers.load_kw.shape
    exempt = _exempt(connection, j, devices)

    def of(name: str) -> F8:
        value = j.layers.values.get(name)
        if value is None:
            return np.full(shape, np.nan)
        return np.where(measured(value, j.layers.quality[name]), value, np.nan)

    found = archive.contracts(connection, j.points, j.day)

    def fact(name: str, default: float = np.nan) -> F8:
        values = [None if c is None else getattr(c, name) for c in found]
        return np.array([default if v is None else float(v) for v in values])

    three = j.data.facts.three_wire
    volts = np.stack([of(n) for n in VOLTS])
    for place, line in ((0, LINES[0]), (2, LINES[1])):
        volts[place] = np.where(three[:, None] & ~np.isfinite(volts[place]), of(line), volts[place])
    amps = np.stack([of(n) for n in AMPS])
    volts[1] = np.where(three[:, None], np.nan, volts[1])
    amps[1] = np.where(three[:, None], np.nan, amps[1])
    p_kw = of("active_power_total")
    p_kw = np.where(np.isfinite(p_kw), p_kw, of("active_demand"))
    q_kvar, factor = of("reactive_power_total"), of("power_factor_total")
    with np.errstate(invalid="ignore", divide="ignore"):
        by_factor = np.abs(p_kw) * np.sqrt(np.maximum(1.0 / factor**2 - 1.0, 0.0))
    q_kvar = np.where(np.isfinite(q_kvar), q_kvar, by_factor)
    k = np.where(j.data.k.end > 0, j.data.k.end / 10.0**j.data.k.decimals, np.nan)
    good = measured(j.layers.load_kw, j.layers.load_quality)
    register = j.data.registers.get(FORWARD)
    moved = np.full(shape, np.nan) if register is None else np.diff(register.value, axis=1)
    low, high = _bands(connection, j.points, found)
    return conditions.Measured(
        volts=volts, amps=amps, phase_kw=np.stack([of(f"active_power_{x}") for x in "abc"]), neutral_a=of("current_n"),
        p_kw=p_kw, q_kvar=q_kvar, load_kw=np.where(good, j.layers.load_kw, np.nan), load_kvar=q_kvar * k, moved=moved,
        quantum=10.0**-2, step_s=STEP_S, nominal_v=j.data.facts.nominal_v, rated_a=fact("in_sec_a", RATED_A),
        imax_a=fact("imax_sec_a"), contract_kva=j.data.facts.contract_kva,
        pf_standard=fact("pf_standard"), low=low, high=high, four_wire=~three,
        generates=np.array([c is not None and c.direction in DIRECTION_OUT for c in found]),
        suspended=exempt["suspension"], apart=exempt["outage"] | exempt["commissioning"],
    )  # fmt: skip


def _exempt(connection: psycopg.Connection[Any], j: Judged, devices: dict[int, int]) -> dict[str, B1]:
    """Slots of the day that lie in a registered suspension, outage or commissioning, by kind."""
    start, shape = day_start_us(j.day), j.layers.load_kw.shape
    label = start + np.arange(1, shape[1] + 1) * STEP_S * US
    out = {kind: np.zeros(shape, np.bool_) for kind in ("suspension", "outage", "commissioning")}
    rows = connection.execute(
        "SELECT device, point, kind, since, until FROM exemption WHERE withdrawn_at IS NULL AND device = ANY(%s)"
        " AND since < %s AND (until IS NULL OR until > %s)",
        (sorted(set(devices.values())), from_us(start + 86_400 * US), from_us(start)),
    ).fetchall()
    for device, point, kind, since, until in rows:
        inside = (label > to_us(since)) & (label - STEP_S * US < (to_us(until) if until else label[-1]))
        for i, p in enumerate(j.points):
            if devices[p] == device and point in (None, p):
                out[kind][i] |= inside
    return out


def _bands(
    connection: psycopg.Connection[Any], points: Sequence[int], named: Sequence[archive.Contract | None]
) -> tuple[F8, F8]:
    """Band of each point's voltage, shares of nominal (4.6); without a nominal voltage it does not matter."""
    rows = {
        int(i): (Decimal(v), Decimal(pt), str(w))
        for i, v, pt, w in connection.execute(
            "SELECT id, coalesce(nominal_v, 220), pt_ratio, wiring FROM point WHERE id = ANY(%s)", (list(points),)
        ).fetchall()
    }
    known = bands()
    chosen = [
        known[c.voltage_band] if c is not None and c.voltage_band in known else band_of(*rows[p])
        for p, c in zip(points, named, strict=True)
    ]
    return np.array([b.low for b in chosen]) / 1000.0, np.array([b.high for b in chosen]) / 1000.0


def _whole(
    connection: psycopg.Connection[Any], j: Judged, d: conditions.Measured, devices: dict[int, int]
) -> conditions.Whole:
    n = len(j.points)
    held = {device for device, _ in control_days(connection, sorted(set(devices.values())), j.day, j.day)}
    controlled = np.array([devices[p] in held for p in j.points], np.bool_)
    failed: Any = j.layers.failed.get(FORWARD)
    like = j.data.like_day_kwh
    share = np.where(np.isfinite(d.amps), d.amps, -np.inf).max(axis=(0, 2)) / d.rated_a
    return conditions.Whole(
        kwh=j.layers.import_kwh, export_kwh=j.layers.export_kwh, flag=j.layers.energy_flag,
        tariff_failed=np.zeros(n, np.bool_) if failed is None else ((failed & K7_BIT) != 0).any(axis=1),
        like_kwh=np.full((n, 1), np.nan) if like is None else like,
        alive=np.asarray((d.volts > 0.7 * d.nominal_v[None, :, None]).any(axis=(0, 2)), np.bool_),
        peak_a=np.where(np.isfinite(share), share, np.nan), generates=d.generates,
        apart=controlled | d.apart.any(axis=1) | d.suspended.any(axis=1),
    )  # fmt: skip


def _evidence(d: conditions.Measured, i: int, row: RuleDay) -> dict[str, Any]:
    """What was measured in the spans: middle values, to be looked at before anybody is called."""
    use = np.zeros(d.p_kw.shape[1], np.bool_)
    for begin, end in zip(row.spans[::2], row.spans[1::2], strict=True):
        use[begin * 60 // STEP_S : -(-end * 60 // STEP_S)] = True

    def middle(x: F8) -> float | None:
        inside = x[use & np.isfinite(x)]
        return round(float(np.median(inside)), 3) if len(inside) else None

    return {
        "minutes": sum(row.spans[1::2]) - sum(row.spans[::2]), "spans": row.spans,
        "u": [middle(x[i]) for x in d.volts], "i": [middle(x[i]) for x in d.amps], "p_kw": middle(d.p_kw[i]),
        "q_kvar": middle(d.q_kvar[i]), "load_kw": middle(d.load_kw[i]),
    }  # fmt: skip


# --- events -----------------------------------------------------------------------------------------------------------


def take_events(connection: psycopg.Connection[Any], now_us: int) -> int:
    """Events that came since the last look, as cases; returns how many were looked at. One transaction."""
    with connection.transaction():
        events = cases.new_events(connection, EVENTS)
        for device, point, time_us, code, data in events.rows:
            for rule in of_event(code):
                if not _believable(time_us, now_us, data):
                    continue
                _open(connection, now_us, rule, device, point, time_us, time_us, {"event": code, "data": data})
                if rule.id in conditions.WEIGHTS:
                    suspicion(connection, now_us, _points(connection, device, point), time_us, time_us)
        if events.fresh:
            cases.advance(connection, events.last)
    return events.fresh


def _believable(time_us: int, now_us: int, data: dict[str, Any]) -> bool:
    """Not of the future, not the end of what began before (its beginning made the case)."""
    return time_us <= now_us + 300 * US and data.get("begin") not in (0, "0", False)


def _points(connection: psycopg.Connection[Any], device: int, point: int | None) -> dict[int, int]:
    """The point of an event, or all of its device, with the device."""
    if point is not None:
        return {point: device}
    rows = connection.execute("SELECT id FROM point WHERE device_id = %s AND kind = 'measuring'", (device,)).fetchall()
    return {int(r[0]): device for r in rows}


class CaseKeeper:
    """`run` as a task: events into cases, overdue cases one level up. The days' rules run with VEE."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._pool = ThreadPoolExecutor(1, "cases")
        self._connection: psycopg.Connection[Any] | None = None

    async def run(self) -> None:
        """Until cancelled; the database being away only puts it off."""
        try:
            while True:
                more = 0
                try:
                    more = await asyncio.get_running_loop().run_in_executor(self._pool, self.step)
                except psycopg.Error as error:
                    log.warning("cases: %s", error)
                    self.close()
                await self._clock.sleep(0.1 if more == EVENTS else POLL_S)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self.close()

    def step(self) -> int:
        """One look; how many events there were."""
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect("app", autocommit=True)
        now_us = self._clock.now_us()
        seen = take_events(self._connection, now_us)
        with self._connection.transaction():
            cases.escalate(self._connection, now_us)
        return seen

    def close(self) -> None:
        """Close the connection (it is opened again when needed)."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
