"""`fuhe report event ORDER`: what an order achieved, from stored readings; page, JSON, and put on record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from ..analytics.draw import Mark, picture_text, shed_png
from ..analytics.evaluation import Achieved, Baseline, Totals, achieved, baseline, totals
from ..analytics.forecast.calendar import day_types
from ..analytics.masks import F8
from ..analytics.report import Image, Page, Section, build_page
from ..control import evaluation, orders
from ..control.evaluation import Ordered
from ..control.power import stored_power
from ..control.records import Conn
from ..model.lang import tr
from ..model.quality import Quality, Source
from ..model.quantities import quantity
from ..model.times import BUSINESS_ZONE, US, business_day, day_start_us, from_us, to_us
from ..protocols.common.errors import UsageError
from ..storage.readings import load_curve_range
from .common import App, json_option, pass_app, print_json, reported
from .curve import write_file
from .person import local, now_us, person, show_table

PAST_DAYS: Final = 30  # in which like days are looked for
MINUTE_US: Final = 60 * US
FINE: Final = 6  # cells a minute for orders that were over before half an hour: nobody is judged, but the cut is seen
FINE_BELOW_MIN: Final = 30
RAMP_MIN: Final = (15, 30)  # direct, voluntary
AFTER_MIN: Final = 120  # in which a rebound is looked for
LEAD: Final = 30  # cells shown before the order
SLOT_MIN: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """An order, its customers and what they achieved. time_us: cells before, in and after the window."""

    order: orders.Order
    customers: Sequence[Ordered]
    time_us: np.ndarray[Any, np.dtype[np.int64]]
    cell_us: int
    kw: F8
    base: F8
    lead: int
    window: int
    factor: F8
    days: np.ndarray[Any, np.dtype[np.int64]]
    found: Achieved
    totals: Totals


def evaluate(conn: Conn, order: orders.Order, at_us: int) -> Evaluated:
    """Read and reckon; writes nothing. UsageError where nothing of the order was ever sent."""
    customers = evaluation.ordered(conn, order.id)
    sent = [to_us(c.sent_at) for c in customers if c.sent_at is not None]
    if not sent:
        raise UsageError(
            tr(
                f"nothing of order {order.number} was sent: there is nothing to evaluate",
                f"指令 {order.number} 未发出任何命令: 无可评价",
            )
        )
    released = [to_us(c.released_at) for c in customers if c.released_at is not None]
    first = max(min(sent), to_us(order.start_at))
    end = min(min(released, default=at_us), to_us(order.end_at), at_us)
    fine = end - first < FINE_BELOW_MIN * MINUTE_US
    cell = MINUTE_US // FINE if fine else MINUTE_US
    begin = -(-first // cell) * cell
    window = max((end - begin) // cell, 1)
    after = int(np.clip((at_us - end) // cell, 0, AFTER_MIN * MINUTE_US // cell))
    time_us = begin + cell * np.arange(-LEAD, window + after)
    inside, behind = slice(LEAD, LEAD + window), slice(LEAD + window, None)

    devices = sorted({d for c in customers for d in c.devices})
    curves = _Curves(conn, devices, business_day(begin))
    live = {d: _cells(conn, d, time_us, cell) for d in devices}
    slot = ((time_us - day_start_us(curves.day)) // (SLOT_MIN * MINUTE_US)).astype(np.int64)
    kw, past, today = (
        np.stack([_sum([of[d] for d in c.devices]) for c in customers])
        for of in ({d: np.where(np.isfinite(live[d]), live[d], curves.at(d, slot)) for d in devices},
                   curves.past, curves.today)
    )  # fmt: skip
    allowed = np.stack([np.logical_and.reduce([curves.allowed[d] for d in c.devices]) for c in customers])
    base: Baseline = baseline(past, allowed, today, int(slot[LEAD]))
    expected = base.kw[:, slot % base.kw.shape[1]]
    voluntary = np.array([c.voluntary for c in customers])
    found = [
        achieved(kw[:, inside], expected[:, inside], np.array([c.limit_kw for c in customers]), ramp,
                 kw[:, behind], expected[:, behind])
        for ramp in (minutes * MINUTE_US // cell for minutes in RAMP_MIN)
    ]  # fmt: skip
    direct, slow = found
    mixed = Achieved(**{
        name: np.where(voluntary, getattr(slow, name), getattr(direct, name)) for name in Achieved.__slots__
    })  # fmt: skip
    return Evaluated(
        order=order, customers=customers, time_us=time_us, cell_us=cell, kw=kw, base=expected, lead=LEAD, window=window,
        factor=base.factor, days=base.days.sum(axis=1), found=mixed,
        totals=totals(mixed, np.array([c.required_kw for c in customers])),
    )  # fmt: skip


def _sum(parts: Sequence[F8] | F8) -> F8:
    """Sum of devices; unknown where one of them is."""
    return np.asarray(np.sum(parts, axis=0), np.float64)


def _cells(conn: Conn, device: int, time_us: np.ndarray[Any, np.dtype[np.int64]], cell: int) -> F8:
    """Mean of the good live values in each cell, primary kW; a value counts for a minute at most; NaN without one."""
    begin, end = int(time_us[0]), int(time_us[-1]) + cell
    power = stored_power(conn)(device, end, -(-(end - begin) // US), 1).good(begin, end - 1)
    at = (power.time_us - begin) // cell
    count = np.bincount(at, minlength=len(time_us))
    total = np.bincount(at, power.kw, minlength=len(time_us))
    out = np.full(len(time_us), np.nan)
    np.divide(total, count, out=out, where=count > 0)
    last = np.maximum.accumulate(np.where(count > 0, np.arange(len(out)), -1))
    near = (last >= 0) & (np.arange(len(out)) - last < MINUTE_US // cell)
    return np.where(near, out[np.maximum(last, 0)], np.nan)


class _Curves:
    """96-point curves of the devices, primary kW: today (slots,), past (days, slots) from yesterday backwards."""

    def __init__(self, conn: Conn, devices: list[int], day: date) -> None:
        self.day = day
        first = day - timedelta(days=PAST_DAYS)
        power, group = quantity("active_power_total").id, quantity("group_power").id
        rows = conn.execute(
            "SELECT device_id, id, (ct_ratio * pt_ratio)::float8, kind FROM point WHERE device_id = ANY(%s) "
            "AND enabled AND (kind = 'measuring' OR (kind = 'group' AND pn = 1)) ORDER BY id",
            (devices,),
        ).fetchall()
        grouped = {int(d) for d, _, _, kind in rows if kind == "group"}
        chosen = [(int(d), int(p), float(k), kind) for d, p, k, kind in rows if (kind == "group") == (d in grouped)]
        value, _ = load_curve_range(conn, first, day, [p for _, p, _, _ in chosen], [power, group])
        shaped = value.reshape(len(chosen), 2, PAST_DAYS + 1, -1)
        slots = shaped.shape[-1]
        self._fill(conn, shaped, [p for _, p, _, _ in chosen], (power, group), first)
        self._kw = {d: np.full((PAST_DAYS + 1, slots), np.nan) for d in devices}
        for device in {d for d, _, _, _ in chosen}:
            mine = [(shaped[i, int(kind == "group")] * k) for i, (d, _, k, kind) in enumerate(chosen) if d == device]
            self._kw[device] = _sum(mine)
        self.today = {d: kw[-1] for d, kw in self._kw.items()}
        self.past = {d: kw[-2::-1] for d, kw in self._kw.items()}
        kinds = day_types(first, PAST_DAYS + 1, chinese=True)
        alike = (kinds.rest[:-1] == kinds.rest[-1])[::-1]
        under = evaluation.control_days(conn, devices, first, day)
        back = [day - timedelta(days=n + 1) for n in range(PAST_DAYS)]
        self.allowed = {d: alike & np.array([(d, one) not in under for one in back]) for d in devices}

    def _fill(self, conn: Conn, shaped: F8, points: list[int], quantities: tuple[int, int], first: date) -> None:
        """Slots without a curve value, from the live values in them (devices without a curve memory)."""
        step = SLOT_MIN * 60
        rows = conn.execute(
            "SELECT point, quantity, ceil((extract(epoch FROM time) - %(start)s) / %(step)s)::int4 - 1, avg(value) "
            "FROM sample WHERE point = ANY(%(points)s) AND quantity = ANY(%(quantities)s) AND source = %(live)s "
            "AND quality = %(good)s AND time > %(first)s GROUP BY 1, 2, 3",
            {
                "start": day_start_us(first) // US, "step": step, "points": points, "quantities": list(quantities),
                "live": int(Source.LIVE), "good": int(Quality.A), "first": from_us(day_start_us(first)),
            },
        ).fetchall()  # fmt: skip
        flat = shaped.reshape(len(points), 2, -1)
        place = {p: i for i, p in enumerate(points)}
        for point, what, slot, value in rows:
            where = place[point], quantities.index(what), slot
            if 0 <= slot < flat.shape[2] and not np.isfinite(flat[where]):
                flat[where] = value

    def at(self, device: int, slot: np.ndarray[Any, np.dtype[np.int64]]) -> F8:
        """The curve of today at slots; NaN outside the day."""
        kw = self.today[device]
        inside = (slot >= 0) & (slot < len(kw))
        return np.where(inside, kw[np.where(inside, slot, 0)], np.nan)


# -- showing ----------------------------------------------------------------------------------------------------------


def plain(found: Evaluated) -> dict[str, Any]:
    """As JSON; NaN becomes null."""

    def number(value: float, digits: int = 4) -> float | None:
        return round(float(value), digits) if np.isfinite(value) else None

    f = found.found
    rows = [
        {
            "customer": c.customer, "required_kw": number(c.required_kw, 2), "limit_kw": number(c.limit_kw, 2),
            "reduction_kw": number(f.reduction_kw[i], 2), "measured_share": number(f.known[i]),
            "proven": bool(f.proven[i]), "in_place": bool(f.in_place[i]), "in_place_share": number(f.in_place_share[i]),
            "first_in_place_min": number(f.first[i] * found.cell_us / MINUTE_US, 1)
            if f.first[i] >= 0 else None, "hold": number(f.hold[i]),
            "rebound": number(f.rebound[i]), "baseline_days": int(found.days[i]),
            "baseline_factor": number(found.factor[i]), "commands": c.commands, "executed": c.executed,
            "verified": c.proven,
        }
        for i, c in enumerate(found.customers)
    ]  # fmt: skip
    sums = {k: number(v) if isinstance(v, float) else v for k, v in asdict(found.totals).items()}
    commands, executed, verified = (
        sum(getattr(c, n) for c in found.customers) for n in ("commands", "executed", "proven")
    )
    return {
        "order": found.order.number, "state": found.order.state, "level": found.order.level,
        "gap_kw": found.order.gap_kw, "from": from_us(int(found.time_us[found.lead])),
        "minutes": number(found.window * found.cell_us / MINUTE_US, 1),
        "totals": sums | {
            "commands": commands, "executed": executed, "verified": verified,
            "implementation": number(executed / commands) if commands else None,
            "control_success": number(verified / executed) if executed else None,
        },
        "customers": rows,
    }  # fmt: skip


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _kw(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"


def _table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    head = [
        tr("customer", "用户"), tr("ordered kW", "应压 kW"), tr("reduced kW", "实压 kW"), tr("in place", "到位"),
        tr("share", "到位时长"), tr("after min", "响应分钟"), tr("hold", "保持率"), tr("rebound", "反弹"),
        tr("baseline days", "基线日"), tr("measured", "有数"),
    ]  # fmt: skip
    rows = [
        [
            c["customer"], _kw(c["required_kw"]), _kw(c["reduction_kw"]) if c["proven"] else tr("not proven", "未证实"),
            tr("yes", "是") if c["in_place"] else "–" if c["in_place_share"] is None else tr("no", "否"),
            _percent(c["in_place_share"]), "–" if c["first_in_place_min"] is None else f"{c['first_in_place_min']:g}",
            _percent(c["hold"]), _percent(c["rebound"]), str(c["baseline_days"]), _percent(c["measured_share"]),
        ]
        for c in result["customers"]
    ]  # fmt: skip
    return head, rows


def _facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    t = result["totals"]
    return [
        (tr("in-place rate (customers / kW)", "到位率 (户数 / 负荷)"),
         f"{_percent(t['in_place_rate'])} / {_percent(t['in_place_kw_rate'])}"),
        (tr("execution rate", "执行率"),
         f"{_percent(t['execution'])} ({_kw(t['reduction_kw'])} / {_kw(t['required_kw'])} kW)"),
        (tr("delivered of ordered, over-delivery included", "实压与应压之比 (含超额)"), _percent(t["delivery"])),
        (tr("customers proven by metering", "计量证实户数"), f"{t['proven']} / {t['customers']}"),
        (tr("commands executed / ordered", "实施率 (执行 / 下达命令)"),
         f"{t['executed']} / {t['commands']} ({_percent(t['implementation'])})"),
        (tr("commands verified / executed", "控制成功率 (证实 / 执行)"),
         f"{t['verified']} / {t['executed']} ({_percent(t['control_success'])})"),
    ]  # fmt: skip


def _page(found: Evaluated, result: dict[str, Any], made_us: int) -> str:
    order, t = found.order, result["totals"]
    shown = np.isfinite(found.base).any(axis=1)
    total, base = _sum(found.kw[shown]), _sum(found.base[shown])
    begin, end = int(found.time_us[found.lead]), int(found.time_us[min(found.lead + found.window, len(total) - 1)])
    marks = [
        Mark(time_us=begin, text=picture_text("executed", "执行")),
        Mark(time_us=end, text=picture_text("released", "释放")),
    ]
    of = f"{shown.sum()} / {len(found.customers)}"
    heading = picture_text(f"Power of the {of} customers with a baseline", f"有基线的 {of} 户功率")
    picture = shed_png(found.time_us, total, marks, title=heading, baseline_kw=base)
    head, rows = _table(result)
    return build_page(
        Page(
            kicker=tr("event report", "事件报告"),
            title=tr(f"Orderly power use, order {order.number}", f"有序用电 指令 {order.number}"),
            day=from_us(begin).astimezone(BUSINESS_ZONE).date().isoformat(),
            note=f"{local(from_us(begin))} – {local(from_us(end))} UTC+08:00",
            cards=[
                (tr("Ordered", "应压负荷"), _kw(t["required_kw"]), "kW",
                 tr(f"{order.level}, gap {order.gap_kw:,.0f} kW", f"{order.level} 级, 缺口 {order.gap_kw:,.0f} kW")),
                (tr("Reduced", "实压负荷"), _kw(t["reduction_kw"]), "kW", tr("proven by metering", "计量证实")),
                (tr("Execution rate", "执行率"), _percent(t["execution"]), "", "Σ min(r, R) / Σ R"),
                (tr("In place", "到位率"), _percent(t["in_place_rate"]), "", tr("customers", "户数")),
                (tr("Verified", "控制成功率"), _percent(t["control_success"]), "", tr("commands", "命令")),
            ],
            sections=[
                Section(title=tr("Load curve", "负荷曲线"), images=[Image(png=picture)]),
                Section(title=tr("Figures", "指标"), rows=[list(f) for f in _facts(result)]),
                Section(title=tr("Customers", "用户"), header=head, rows=rows),
                Section(title=tr("How to read the figures", "数据说明"), paragraphs=_notes()),
            ],
            made_us=made_us,
        )
    )  # fmt: skip


def _notes() -> list[str]:
    return [
        tr(
            "Baseline: mean of the same slot of the five most recent like days without control, adjusted by the load "
            "from 3 h to 1 h before (0.8–1.2). Reduced: mean of baseline less power over the measured minutes.",
            "基线: 最近五个无控制同类日同时段均值, 按事件前 3 h 至 1 h 负荷修正 (0.8–1.2)。"
            "实压: 有数分钟内基线与功率之差的均值。",
        ),
        tr(
            "In place: at most 105 % of the limit in at least 90 % of the measured minutes behind the ramp (15 min "
            "direct, 30 min voluntary); an order shorter than its ramp judges nobody.",
            "到位: 爬坡 (直接 15 分钟, 自愿 30 分钟) 之后 90 % 以上有数分钟功率不超过限额 105 %; "
            "短于爬坡时间的事件不评判。",
        ),
        tr(
            "Not proven: no baseline, or less than 75 % of the minutes measured; it counts as nothing reduced. "
            "Over-delivery of one customer does not pay for another.",
            "未证实: 无基线或有数分钟不足 75 %, 按未压降计。一户超额不抵他户不足。",
        ),
    ]


@click.command("event", help=tr("What an order achieved.", "指令执行评价。"))
@click.argument("name")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help=tr("write a printable page", "输出网页"))
@click.option("--record", "on_record", is_flag=True, help=tr("put it on record (order EVALUATED)", "存档评价"))
@json_option
@pass_app
@reported
def report_event(app: App, name: str, html: Path | None, on_record: bool, as_json: bool) -> None:
    """NAME: number or id of the order."""
    with person(app, "order.evaluate" if on_record else "view") as (conn, actor):
        order = orders.find(conn, name)
        made_us = now_us()
        found = evaluate(conn, order, made_us)
        result = plain(found)
        if html:
            write_file(html, _page(found, result, made_us).encode("utf-8"))
        if on_record:
            stored = result | {"from": result["from"].isoformat()}
            result["state"] = evaluation.record(conn, made_us, actor, order.id, stored).state
    if as_json:
        print_json(result)
        return
    click.echo(
        tr(
            f"order {order.number} ({result['state']}), {local(result['from'])}, {result['minutes']:g} min",
            f"指令 {order.number} ({result['state']}), {local(result['from'])}, {result['minutes']:g} 分钟",
        )
    )
    for what, value in _facts(result):
        click.echo(f"  {what}: {value}")
    head, rows = _table(result)
    show_table(head, rows)
    if html:
        click.echo(tr(f"written: {html}", f"已写入: {html}"))
