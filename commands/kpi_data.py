"""A month's counts for the service indicators: where storage, ledger and analytics meet. One function a source.

Days are read one after the other, each with set queries and arrays over all points; nothing loops over slots. Who is
counted: the billing points of the key customers on the list in force at the month's end, without a list those of all
customers of the archive, and where the archive knows none all measuring points, each device standing for a customer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg

from ..acquisition.config import CycleConfig
from ..acquisition.indicators import Indicators, day_indicators, in_service
from ..acquisition.io.ledgerstore import DatabaseLedger
from ..acquisition.ledger import LIVE_MARK, Kpi, tracks
from ..acquisition.profile import Profile
from ..acquisition.recall import Exemption, Recaller
from ..analytics.day import REACTIVE, REGISTER_DECIMALS, REGISTER_DIGITS, SLOTS, Series, day_table
from ..analytics.energy import constant_multipliers, energy_from_registers
from ..analytics.kpi import Absent, Found, indicators, needs
from ..analytics.masks import F8, I8, measured
from ..analytics.network import reliability
from ..analytics.power_factor import NULL, month_cos
from ..control.key_customers import lists
from ..model.archive import Customer, Generator, ServiceRecord, Supply, Version
from ..model.devices import Device, Point
from ..model.lang import tr
from ..model.quantities import quantity
from ..model.times import BUSINESS_ZONE, DAY_US, US, business_day, day_start_us, from_us
from ..model.work import Duty
from ..protocols.common.errors import UsageError
from ..storage import kpi
from ..storage.archive import Contract, contracts, multipliers
from ..storage.archive_versions import versions
from ..storage.cases import counts
from ..storage.devices import load_devices
from ..storage.exemptions import load_exemptions
from ..storage.terminals import imported_us
from .curve_data import load_day_input, load_registers

Connection = psycopg.Connection[Any]

FRESH_S: Final = 900
FORWARD_S: Final = 3600
SATISFIED: Final = 4
PROACTIVE: Final = ("production", "equipment", "survey", "construction", "metering", "visit", "advice")
MINUTE_US: Final = 60 * US
MONTHLY_CUTOFF_US: Final = 2 * DAY_US


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month in business time, looked at from `now_us`."""

    first: date
    now_us: int

    @property
    def following(self) -> date:
        """First day of the next month."""
        return (self.first + timedelta(days=31)).replace(day=1)

    @property
    def over(self) -> bool:
        """Whether everything of the month should be there: its last readings have their cut-off behind them."""
        return day_start_us(self.following) + MONTHLY_CUTOFF_US <= self.now_us

    @property
    def begin_us(self) -> int:
        """Its beginning."""
        return day_start_us(self.first)

    @property
    def end_us(self) -> int:
        """Its end, or now."""
        return min(day_start_us(self.following), self.now_us)

    @property
    def days(self) -> list[date]:
        """The days that are over."""
        count = (min(self.following, business_day(self.now_us)) - self.first).days
        return [self.first + timedelta(days=i) for i in range(max(count, 0))]


@dataclass(slots=True)
class Sums:
    """What the pass over the month's days leaves: phase slots of voltage, and each point's highest power and slots."""

    monitored: int
    out: int
    wanted: int
    top_kw: F8
    known: int
    slots: int


@dataclass(slots=True)
class Counting:
    """One month's counts; what several indicators need is counted once. Use `count`."""

    connection: Connection
    month: Month
    cycles: CycleConfig
    profiles: Mapping[str, Profile]
    progress: Callable[[date], None] = lambda day: None
    _kept: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, made the first time only."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]


class Scope:
    """Points that are counted with their customers; `text` says who they are."""

    def __init__(self, connection: Connection, month: Month) -> None:
        self.devices: list[Device] = load_devices(connection, enabled_only=True)
        owner = {p.id: d for d in self.devices for p in d.measuring}
        points = [p for d in self.devices for p in d.measuring]
        last = month.following - timedelta(days=1)
        found = contracts(connection, [p.id for p in points], last) if points else []
        approved = [x for x in lists(connection) if x.approved_at is not None and x.approved_at < from_us(month.end_us)]
        listed = max(approved, key=lambda x: x.version or 0, default=None)
        self.members: set[str] | None = None if listed is None else {r.cons_no for r in listed.members}
        billing = [
            (p, c)
            for p, c in zip(points, found, strict=True)
            if c is not None and c.customer and c.role == "billing" and self.counts(c.customer)
        ]
        self.archived = bool(billing) or listed is not None
        chosen: Sequence[tuple[Point, Contract | None]] = (
            billing if self.archived else list(zip(points, found, strict=True))
        )
        self.points: list[Point] = [p for p, _ in chosen]
        self.ids: list[int] = [p.id for p in self.points]
        self.owner: list[Device] = [owner[p.id] for p in self.points]
        names = [
            c.customer if self.archived and c is not None else d.name
            for (_, c), d in zip(chosen, self.owner, strict=True)
        ]
        self.customers: list[str] = sorted(set(names))
        place = {name: i for i, name in enumerate(self.customers)}
        self.customer: I8 = np.array([place[n] for n in names], np.int64)
        kind = "customers" if listed is None else f"key customers (list {listed.version})"
        self.text: str = (
            f"{len(self.customers)} {kind}, {len(self.points)} billing points"
            if self.archived
            else f"{len(self.points)} points of {len(self.customers)} devices, no customers in the archive"
        )
        imported = imported_us(connection, [d.id for d in self.devices])
        self.since_us: I8 = np.array([max(imported.get(d.id, 0), _since_us(d)) for d in self.owner], np.int64)

    def counts(self, customer: str) -> bool:
        """Whether a customer is on the list of key customers, if there is one."""
        return self.members is None or customer in self.members


def _since_us(device: Device) -> int:
    text = device.options.get("since")
    return day_start_us(date.fromisoformat(text)) if text else 0


def scope_of(c: Counting) -> Scope:
    """Who is counted in this month."""
    found: Scope = c.once("scope", lambda: Scope(c.connection, c.month))
    return found


def count(c: Counting, number: str) -> Found | Absent:
    """What the system can say about an indicator of the month."""
    indicator = indicators()[number]
    source = SOURCES.get(indicator.source)
    if source is None:
        return needs(indicator)
    found = c.once(f"source:{indicator.source}", lambda: source(c))
    return needs(indicator) if found is None else found


# ---------------------------------------------------------------------------------------------- acquisition


def _exemptions(c: Counting) -> list[Exemption]:
    found: list[Exemption] = c.once("exemptions", lambda: DatabaseLedger(c.connection).exemptions(scope_of(c).devices))
    return found


def _ledger(c: Counting) -> list[Indicators]:
    """Daily freezes and curves of all days, counted by the completeness ledger."""

    def make() -> list[Indicators]:
        scope, store = scope_of(c), DatabaseLedger(c.connection)
        wanted = set(scope.ids)
        rows = [t for t in tracks(scope.devices, c.profiles, c.cycles) if t.point in wanted]
        rows = in_service(rows, imported_us(c.connection, [d.id for d in scope.devices]))
        recaller = Recaller(rows, store, store, c.cycles, _exemptions(c))
        duties = (Duty.DAILY, Duty.CURVE)
        return [
            i
            for day in c.month.days
            for i in day_indicators(recaller, store, c.cycles, day, c.month.now_us, duties=duties)
        ]

    found: list[Indicators] = c.once("ledger", make)
    return found


def _summed(found: Sequence[Indicators], duty: Duty, name: str) -> Kpi:
    parts = [k for i in found if i.duty is duty for k in i.kpis if k.name == name]
    return Kpi(
        name=name, numerator=sum(k.numerator for k in parts), denominator=sum(k.denominator for k in parts),
        exempt=sum(k.exempt for k in parts),
    )  # fmt: skip


def reading_success(c: Counting) -> Found:
    """Period success of the daily freezes; the data it rests on are the known times of arrival."""
    found = _ledger(c)
    kpi_ = _summed(found, Duty.DAILY, "period_success")
    unknown = sum(i.unknown for i in found if i.duty is Duty.DAILY)
    return Found(
        numerator=kpi_.numerator, denominator=kpi_.denominator, exempt=kpi_.exempt,
        completeness=1 - unknown / kpi_.denominator if kpi_.denominator else 0.0,
    )  # fmt: skip


def remote_reading(c: Counting) -> Found:
    """Billing points with the register of the month's end."""
    scope, label = scope_of(c), day_start_us(c.month.following)
    if label + MONTHLY_CUTOFF_US > c.month.now_us or not scope.ids:
        return Found(numerator=0, denominator=0, completeness=0.0, note=_not_yet())
    ids = np.array(scope.ids, np.int64)
    due = scope.since_us < label
    apart = due & np.isin(ids, [e.point for e in _exemptions(c) if e.from_us <= label < e.to_us])
    got = np.isin(ids, kpi.read_at(c.connection, scope.ids, quantity("forward_active_total").id, from_us(label)))
    counted = due & ~apart
    return Found(
        numerator=int((got & counted).sum()), denominator=int(counted.sum()), exempt=int(apart.sum()), completeness=1.0
    )


def _not_yet() -> str:
    return tr("the month's last reading is due on the second day of the next month", "月末抄表次月2日截止, 尚未到期")


def live(c: Counting) -> Found:
    """Hours covered by fresh live values; exempt hours apart. Points of one customer count alike."""
    scope = scope_of(c)
    windows, exempt_us = _windows(c)
    if not len(windows):
        return Found(numerator=0, denominator=0, completeness=0.0)
    row, begin, end = windows.T
    seconds = kpi.live_seconds(
        c.connection, quantity(LIVE_MARK).id, np.array(scope.ids, np.int64)[row], begin, end, FRESH_S
    )
    per_customer = 1.0 / np.bincount(scope.customer)[scope.customer]
    weight = per_customer[row]
    return Found(
        numerator=float((seconds * weight).sum()) / 3600, denominator=float(((end - begin) * weight).sum()) / 3.6e9,
        exempt=float((exempt_us * per_customer).sum()) / 3.6e9, completeness=1.0,
    )  # fmt: skip


def _windows(c: Counting) -> tuple[I8, F8]:
    """(rows, 3): place of the point, begin and end of its time in service without exemptions; exempt µs by point."""
    scope, month = scope_of(c), c.month
    begins = np.maximum(scope.since_us, month.begin_us)
    of: dict[int, list[tuple[int, int]]] = {}
    for e in _exemptions(c):
        of.setdefault(e.point, []).append((e.from_us - 1, e.to_us - 1))  # labels in (since, until] are these instants
    found: list[tuple[int, int, int]] = []
    exempt = np.zeros(len(scope.ids))
    for i, (point, begin) in enumerate(zip(scope.ids, begins.tolist(), strict=True)):
        at = begin
        for low, high in sorted(of.get(point, ())):
            low, high = max(low, at), min(high, month.end_us)
            if low < high:
                if at < low:
                    found.append((i, at, low))
                exempt[i] += high - low
                at = high
        if at < month.end_us:
            found.append((i, at, month.end_us))
    return np.array(found, np.int64).reshape(-1, 3), exempt


# ---------------------------------------------------------------------------------------------- load and voltage


def _sums(c: Counting) -> Sums:
    def make() -> Sums:
        scope = scope_of(c)
        n = len(scope.points)
        phases = np.array([{"1P": 1, "3P3W": 2}.get(p.wiring, 3) for p in scope.points])
        total = Sums(monitored=0, out=0, wanted=0, top_kw=np.full(n, -np.inf), known=0, slots=0)
        for day in c.month.days if n else ():
            c.progress(day)
            table = day_table(load_day_input(c.connection, day, scope.points))
            due = scope.since_us < day_start_us(day) + DAY_US
            total.monitored += int(table.voltage.monitored[:, due].sum())
            total.out += int((table.voltage.over + table.voltage.under)[:, due].sum())
            total.wanted += int(phases[due].sum()) * SLOTS
            total.known += int(table.ok[due].sum())
            total.slots += int(due.sum()) * SLOTS
            total.top_kw = np.maximum(total.top_kw, np.where(table.ok, table.kw, -np.inf).max(axis=1))
        return total

    found: Sums = c.once("sums", make)
    return found


def voltage(c: Counting) -> Found | Absent:
    """Phase slots inside the limits of 4.6; slots without a value are not monitored and lower the completeness."""
    s = _sums(c)
    if not s.monitored:
        return Absent(tr("measured voltages, or nominal voltages of the points", "电压数据或计量点额定电压"))
    return Found(numerator=s.monitored - s.out, denominator=s.monitored, completeness=s.monitored / s.wanted)


@dataclass(frozen=True, slots=True)
class Reactive:
    """Each point's energies of the month, primary kWh and kvarh (NaN = unknown), and its cos in hundredths."""

    active: F8
    forward: F8
    reverse: F8
    cos: np.ndarray[Any, np.dtype[np.int16]]


def _reactive(c: Counting) -> Reactive:
    def make() -> Reactive:
        scope, month = scope_of(c), c.month
        last = month.following - timedelta(days=1)
        first = load_registers(c.connection, month.first, scope.ids)
        end = load_registers(c.connection, last, scope.ids)
        factor = multipliers(c.connection, scope.ids, month.begin_us, day_start_us(month.following))
        rows = np.bincount(factor.index, minlength=len(scope.ids))
        start = np.searchsorted(factor.index, np.arange(len(scope.ids)))
        k = [factor.factor(int(i)) for i in start]
        boundary = np.array([month.begin_us, day_start_us(month.following)], np.int64)
        kva = np.array([np.nan if p.contract_kva is None else float(p.contract_kva) for p in scope.points])

        def energy(name: str) -> F8:
            pair = []
            for registers, column in ((first, 0), (end, SLOTS)):
                series = registers.get(name) or Series.empty(len(scope.ids), SLOTS + 1)
                value = np.where(measured(series.value, series.quality), series.value, np.nan)
                pair.append(value[:, column])
            found = energy_from_registers(
                np.stack(pair, axis=1), digits=np.full(len(scope.ids), REGISTER_DIGITS), decimals=REGISTER_DECIMALS,
                k=constant_multipliers(k, 1), boundary_us=boundary, contract_kva=kva,
            ).total()  # fmt: skip
            return np.where(rows == 1, found, np.nan)  # a multiplier that changed needs the exchange's readings

        active = energy("forward_active_total")
        forward, reverse = np.full_like(active, np.nan), np.full_like(active, np.nan)
        for one, other in REACTIVE:
            w1 = energy(one)
            kept = other in first and other in end
            w2 = energy(other) if kept else np.zeros_like(w1)  # a meter without a second register has no such energy
            fill = ~np.isfinite(forward) & np.isfinite(w1) & np.isfinite(w2)
            forward, reverse = np.where(fill, w1, forward), np.where(fill, w2, reverse)
        return Reactive(active, forward, reverse, month_cos(active, forward, reverse))

    found: Reactive = c.once("reactive", make)
    return found


def power_factor(c: Counting) -> Found | Absent:
    """Of the sum of all points that have all registers: kWh over kVAh."""
    if not scope_of(c).ids or day_start_us(c.month.following) > c.month.now_us:
        return Found(numerator=0, denominator=0, completeness=0.0, note=_not_yet())
    r = _reactive(c)
    known = r.cos != NULL
    if not known.any():
        en = "registers of kWh and kvarh at both ends of the month, with one multiplier"
        return Absent(tr(en, "月初月末有功无功示度 (倍率不变)"))
    active = float(np.abs(r.active[known]).sum())
    reactive = float((np.abs(r.forward[known]) + np.abs(r.reverse[known])).sum())
    return Found(numerator=active, denominator=float(np.hypot(active, reactive)), completeness=float(known.mean()))


def power_factor_share(c: Counting) -> Found | Absent:
    """Points of 0.90 and more."""
    whole = power_factor(c)
    if isinstance(whole, Absent) or not whole.denominator:
        return whole
    cos = _reactive(c).cos
    return Found(
        numerator=int((cos >= 90).sum()), denominator=int((cos != NULL).sum()), completeness=whole.completeness
    )


# ---------------------------------------------------------------------------------------------- forecast, control


def forecast(c: Counting) -> Found | None:
    """Mean accuracy of the days that have a stored forecast and measured load."""
    from ..daemon.forecast_score import score_issued

    days = c.month.days
    if not days:
        return None
    try:
        scored = list(score_issued(c.connection, "total", days[0], days[-1], c.month.now_us))
    except UsageError:
        return None  # no object of that name: nothing can have been issued
    known = [s.accuracy for d in scored if (s := d.scores["forecast"]).accuracy is not None]
    if not known:
        return None
    return Found(numerator=sum(known) / 100, denominator=len(known), completeness=len(known) / len(days))


def _commands(c: Counting) -> kpi.CommandCounts:
    found: kpi.CommandCounts = c.once(
        "commands", lambda: kpi.command_counts(c.connection, from_us(c.month.begin_us), from_us(c.month.end_us))
    )
    return found


def _of_commands(found: kpi.CommandCounts, done: int) -> Found:
    tests = tr(f"{found.tests} test commands not counted", f"未计 {found.tests} 条测试命令") if found.tests else ""
    none = tr("no command was ordered in the month", "当月未下达控制命令")
    return Found(
        numerator=done, denominator=found.ordered, exempt=found.apart, completeness=1.0,
        note=tests if found.ordered else "; ".join(filter(None, (none, tests))),
    )  # fmt: skip


def control(c: Counting) -> Found:
    """Proven by metering of those ordered; without a command there is no figure."""
    return _of_commands(_commands(c), _commands(c).proven)


def orders(c: Counting) -> Found:
    """Carried out of those ordered."""
    return _of_commands(_commands(c), _commands(c).sent)


def limited(c: Counting) -> Found:
    """Customers whose load was cut by an order."""
    return Found(
        numerator=min(_commands(c).customers, len(scope_of(c).customers)), denominator=len(scope_of(c).customers),
        completeness=1.0, note=tr("by orders of this system only", "仅含本系统指令"),
    )  # fmt: skip


def _covered(c: Counting) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], F8]:
    """Each customer: whether it has a tested, online control; its highest power of the month (sum of its points)."""
    scope, end = scope_of(c), from_us(c.month.end_us)
    ready = kpi.controllable(c.connection, end - timedelta(days=365), end, end - timedelta(days=1))
    n = len(scope.customers)
    has = np.bincount(scope.customer, [d.id in ready for d in scope.owner], minlength=n) > 0
    top = _sums(c).top_kw
    known = np.where(np.isfinite(top), np.maximum(top, 0.0), np.nan)
    return has, np.bincount(scope.customer, known, minlength=n).astype(np.float64)


def coverage_load(c: Counting) -> Found | Absent:
    """By load; a customer whose load is not known stands in neither number and lowers the completeness."""
    if not scope_of(c).ids:
        return Found(numerator=0, denominator=0, completeness=0.0)
    has, top = _covered(c)
    known = np.isfinite(top)
    if not known.any():
        return Absent(tr("measured loads", "负荷数据"))
    return Found(
        numerator=float(top[known & has].sum()), denominator=float(top[known].sum()), completeness=float(known.mean()),
        note=tr("sum of the points' own maxima", "按各计量点最大负荷之和"),
    )  # fmt: skip


def coverage_count(c: Counting) -> Found:
    """By customers."""
    if not scope_of(c).ids:
        return Found(numerator=0, denominator=0, completeness=0.0)
    has, _ = _covered(c)
    return Found(numerator=int(has.sum()), denominator=len(has), completeness=1.0)


# ---------------------------------------------------------------------------------------------- outages


def _outage(c: Counting) -> tuple[float, float, float]:
    """(customer hours without supply, customer hours, completeness): a customer is out while all its points are.

    Known are the outages that people confirmed (exemptions of kind outage); that there was no other is known as far as
    there are measured loads: a lost connection is no outage, and says nothing about the supply.
    """

    def make() -> tuple[float, float, float]:
        scope, month = scope_of(c), c.month
        minutes = max((month.end_us - month.begin_us) // MINUTE_US, 0)
        confirmed: dict[int, list[tuple[int, int]]] = {}
        places: dict[int, list[int]] = {}
        for i, d in enumerate(scope.owner):
            places.setdefault(d.id, []).append(i)
        for e in load_exemptions(c.connection):
            if e.kind != "outage":
                continue
            low = _minute(e.since, month, minutes)
            high = minutes if e.until is None else _minute(e.until, month, minutes)
            for i in places.get(e.device, ()):
                if low < high and e.point in (None, scope.ids[i]):
                    confirmed.setdefault(i, []).append((low, high))
        lost = 0
        for customer in {int(scope.customer[i]) for i in confirmed}:
            out = np.ones(minutes, np.bool_)
            for i in np.flatnonzero(scope.customer == customer).tolist():
                mine = np.zeros(minutes, np.bool_)
                for low, high in confirmed.get(i, ()):
                    mine[low:high] = True
                out &= mine
            lost += int(out.sum())
        s = _sums(c)
        return lost / 60, len(scope.customers) * minutes / 60, s.known / s.slots if s.slots else 0.0

    found: tuple[float, float, float] = c.once("outage", make)
    return found


def _minute(at: datetime, month: Month, minutes: int) -> int:
    since = (at - from_us(month.begin_us)) / timedelta(minutes=1)
    return int(np.clip(np.rint(since), 0, minutes))


def _confirmed() -> str:
    return tr("outages confirmed by people (fuhe gaps exempt)", "按人工确认的停电 (fuhe gaps exempt)")


def reliability_(c: Counting) -> Found:
    """Share of the customer hours with supply (4.12)."""
    lost, hours, completeness = _outage(c)
    if not hours:
        return Found(numerator=0, denominator=0, completeness=0.0)
    rs = reliability(np.array([lost]), np.array([1.0]), all_customers=1, period_h=hours).rs
    return Found(numerator=rs * hours, denominator=hours, completeness=completeness, note=_confirmed())


def outage_hours(c: Counting) -> Found:
    """Hours without supply, per customer."""
    lost, _, completeness = _outage(c)
    return Found(numerator=lost, denominator=len(scope_of(c).customers), completeness=completeness, note=_confirmed())


# ---------------------------------------------------------------------------------------------- cases


def _raised(c: Counting) -> tuple[int, int, int, int]:
    """Cases opened in the month: raised, confirmed, false, closed in time."""
    rows = counts(c.connection, c.month.first)
    raised, confirmed, false, closed = (
        sum(getattr(r, n) for r in rows) for n in ("raised", "confirmed", "false", "closed_in_time")
    )
    return raised, confirmed, false, closed


def _no_case() -> str:
    return tr("no case was raised in the month", "当月无异常工单")


def cases_accuracy(c: Counting) -> Found:
    """Confirmed of all; those nobody has looked at yet lower the completeness."""
    raised, confirmed, false, _ = _raised(c)
    return Found(
        numerator=confirmed, denominator=raised, completeness=(confirmed + false) / raised if raised else 0.0,
        note="" if raised else _no_case(),
    )  # fmt: skip


def cases_closed(c: Counting) -> Found:
    """Closed within the time limit of their severity, the false ones too."""
    raised, _, _, closed = _raised(c)
    return Found(numerator=closed, denominator=raised, completeness=1.0, note="" if raised else _no_case())


def cases_forwarded(c: Counting) -> Found:
    """Assigned within an hour of their confirmation."""
    in_time, confirmed = kpi.forwarded(c.connection, from_us(c.month.begin_us), from_us(c.month.end_us), FORWARD_S)
    none = tr("no case of the month was confirmed", "当月无已核实的异常")
    return Found(numerator=in_time, denominator=confirmed, completeness=1.0, note="" if confirmed else none)


# ---------------------------------------------------------------------------------------------- archive


def _archive(c: Counting) -> list[Version]:
    """Customers, supplies, generators as of the month's end; service records of all time."""

    def make() -> list[Version]:
        at = c.month.end_us - 1
        kept = versions(c.connection, entities=("customers", "supplies", "generators"), at_us=at)
        return [*kept, *versions(c.connection, entities=("service_records",))]

    found: list[Version] = c.once("archive", make)
    return found


def _customers(c: Counting) -> set[str]:
    return {
        v.record.cons_no for v in _archive(c)
        if isinstance(v.record, Customer) and v.record.status != "closed" and scope_of(c).counts(v.record.cons_no)
    }  # fmt: skip


def _records(c: Counting) -> list[ServiceRecord]:
    """Service records of the month."""
    return [
        v.record for v in _archive(c)
        if isinstance(v.record, ServiceRecord) and c.month.begin_us <= v.valid_from_us < c.month.end_us
    ]  # fmt: skip


def service_satisfaction(c: Counting) -> Found | None:
    """Records with an answer; those without lower the completeness."""
    proactive = [r for r in _records(c) if r.kind in PROACTIVE]
    answered = [r.satisfaction for r in proactive if r.satisfaction is not None]
    if not answered:
        return None
    return Found(
        numerator=sum(s >= SATISFIED for s in answered), denominator=len(answered),
        completeness=len(answered) / len(proactive),
    )  # fmt: skip


def visits(c: Counting) -> Found | None:
    """Customers visited in the month."""
    customers = _customers(c)
    if not customers:
        return None
    visited = {r.customer for r in _records(c) if r.kind == "visit"} & customers
    return Found(numerator=len(visited), denominator=len(customers), completeness=1.0)


def complaints(c: Counting) -> Found | None:
    """Complaints on record."""
    customers = _customers(c)
    if not customers:
        return None
    return Found(
        numerator=sum(r.kind == "complaint" for r in _records(c)), denominator=len(customers), completeness=1.0,
        note=tr("complaints on record here only", "仅含本系统登记的投诉"),
    )  # fmt: skip


def dual_supply(c: Counting) -> Found | None:
    """Customers with two supplies need a dispatch agreement; own generation an agreement, and an interlock that was
    checked within 12 months of the month's end."""
    customers = {v.record.cons_no: v.record for v in _archive(c) if isinstance(v.record, Customer)}
    supplies: dict[str, int] = {}
    for v in _archive(c):
        if isinstance(v.record, Supply):
            supplies[v.record.customer] = supplies.get(v.record.customer, 0) + 1
    own: dict[str, list[Generator]] = {}
    for v in _archive(c):
        if isinstance(v.record, Generator):
            own.setdefault(v.record.customer, []).append(v.record)
    until = from_us(c.month.end_us - 1).astimezone(BUSINESS_ZONE).date()

    def complete(name: str) -> bool:
        if supplies.get(name, 0) >= 2 and not customers[name].dispatch_agreement:
            return False
        return all(
            g.agreement and g.interlock != "none" and g.last_check is not None and (until - g.last_check).days <= 365
            for g in own.get(name, ())
        )

    chosen = sorted(n for n in customers if n in _customers(c) and (supplies.get(n, 0) >= 2 or n in own))
    if not chosen:
        return None
    return Found(numerator=sum(map(complete, chosen)), denominator=len(chosen), completeness=1.0)


SOURCES: Final[Mapping[str, Callable[[Counting], Found | Absent | None]]] = {
    "remote_reading": remote_reading,
    "reading_success": reading_success,
    "live": live,
    "voltage": voltage,
    "power_factor": power_factor,
    "power_factor_share": power_factor_share,
    "forecast": forecast,
    "control": control,
    "orders": orders,
    "limited": limited,
    "coverage_load": coverage_load,
    "coverage_count": coverage_count,
    "reliability": reliability_,
    "outage_hours": outage_hours,
    "cases_accuracy": cases_accuracy,
    "cases_closed": cases_closed,
    "cases_forwarded": cases_forwarded,
    "service_satisfaction": service_satisfaction,
    "visits": visits,
    "complaints": complaints,
    "dual_supply": dual_supply,
}
"""By `source` of kpi.toml; None: the input that the indicator names as its need is missing."""
