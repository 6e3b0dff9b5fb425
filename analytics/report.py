"""The daily load report (日负荷报表) as one self-contained HTML page: pure, from a DayTable to text.

Every figure that is missing is an en dash and is explained, every estimate is marked; nothing is rounded before here.
Other parts add their own chapters (control events, faults found) as sections of text, tables and pictures.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache
from importlib import resources
from typing import Final

import jinja2
import numpy as np

from .. import __version__
from ..model.lang import lang, tr
from ..model.times import BUSINESS_ZONE, from_us
from .curve import CurveSource
from .day import SLOTS, STEP_S, DayTable, FleetCurve, fleet_curve
from .energy import IntervalFlag
from .load import load_day
from .masks import B1, COMPLETE_SHARE, DayFlag, masked_max
from .svg import curve_svg, members_svg, sparkline_svg

DASH: Final = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """One point's day, None = NULL. kWh, kW primary side; rates 0..1; times HH:MM (24:00 = the day's last interval).

    energy_source: "register" (exact) or "curve"; power_source: CurveSource's name in lower case.
    """

    point: int
    name: str
    energy_kwh: float | None
    energy_source: str | None
    export_kwh: float | None
    max_kw: float | None
    max_time: str | None
    min_kw: float | None
    min_time: str | None
    load_factor: float | None
    peak_valley_kw: float | None
    peak_valley_rate: float | None
    voltage_rate: float | None
    voltage_rate_phases: list[float | None]
    power_factor: float | None
    completeness: float
    valid_slots: int
    estimated_slots: int
    power_source: str
    flag: str
    register_decrease: bool
    mixed_sources: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """The sum of all points; `completeness` is measured slots of all points over those expected."""

    points: int
    energy_kwh: float | None
    energy_points: int
    max_kw: float | None
    max_time: str | None
    min_kw: float | None
    load_factor: float | None
    peak_valley_kw: float | None
    peak_valley_rate: float | None
    completeness: float
    valid_slots: int
    expected_slots: int
    estimated_slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture in a section: PNG bytes and its caption."""

    png: bytes
    caption: str = ""

    @property
    def uri(self) -> str:
        """The picture as a data URI, so that the page stays one file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A further chapter: paragraphs, pictures and a table of already formatted cells, in this order."""

    title: str
    paragraphs: Sequence[str] = ()
    images: Sequence[Image] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DayReport:
    """All that the page shows. made_us: when it is made (UTC µs); the data's own time is in the table."""

    table: DayTable
    title: str
    made_us: int
    sections: Sequence[Section] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A printable page of cards and sections. cards: (what, figure, unit, remark); made_us: UTC µs."""

    kicker: str
    title: str
    day: str
    note: str
    made_us: int
    cards: Sequence[tuple[str, str, str, str]] = ()
    sections: Sequence[Section] = ()


def _number(value: float, digits: int = 3) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None


def share(part: int, whole: int) -> float:
    """part / whole to four decimals, downwards: what is not whole is never shown as whole. 0 of 0 is 0."""
    return part * 10_000 // whole / 10_000 if whole else 0.0


def clock(slot: int) -> str | None:
    """End label of a slot as HH:MM, 24:00 for the last; None for slot -1."""
    if slot < 0:
        return None
    minutes = (slot + 1) * STEP_S // 60
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def point_rows(table: DayTable) -> list[PointRow]:
    """The table as rows of plain values, in the order of the points."""
    load, voltage = table.load, table.voltage
    has_value = np.isfinite(table.kw)
    rows = []
    for i, point in enumerate(table.points):
        sources = table.source[i][has_value[i]]
        energy = _number(table.energy_kwh[i], 4)
        rows.append(
            PointRow(
                point=point.id,
                name=point.name,
                energy_kwh=energy,
                energy_source=None if energy is None else "register" if table.energy_exact[i] else "curve",
                export_kwh=_number(table.export_kwh[i], 4),
                max_kw=_number(load.max_kw[i]),
                max_time=clock(int(load.max_slot[i])),
                min_kw=_number(load.min_kw[i]),
                min_time=clock(int(load.min_slot[i])),
                load_factor=_number(load.load_factor[i], 4),
                peak_valley_kw=_number(load.difference_kw[i]),
                peak_valley_rate=_number(load.difference_rate[i], 4),
                voltage_rate=_number(voltage.any_rate[i], 4),
                voltage_rate_phases=[_number(r, 4) for r in voltage.rate[:, i]],
                power_factor=None if table.cos[i] < 0 else int(table.cos[i]) / 100,
                completeness=share(int(load.valid[i]), SLOTS),
                valid_slots=int(load.valid[i]),
                estimated_slots=int(table.estimated[i].sum()),
                power_source=CurveSource(int(sources[0]) if len(sources) else 0).name.lower(),
                flag=DayFlag(int(load.flag[i])).name.lower(),
                register_decrease=bool(table.energy_flag[i] == IntervalFlag.DECREASE),
                mixed_sources=bool(table.mixed[i]),
            )
        )
    return rows


def _covered(fleet: FleetCurve) -> B1:
    """Slots of the sum that may make a maximum: members with 95 % of the mean load present, nothing estimated."""
    covered: B1 = (np.nan_to_num(fleet.cover) >= COMPLETE_SHARE) & ~fleet.estimated
    return covered


def fleet_row(table: DayTable, fleet: FleetCurve) -> FleetRow:
    """Totals. Maxima and ratios come from the slots whose members carry 95 % of the reporting points' mean load."""
    whole = _covered(fleet)
    load = load_day(np.nan_to_num(fleet.kw)[None], whole[None], STEP_S)
    energy = table.energy_kwh[np.isfinite(table.energy_kwh)]
    valid, expected = int(table.load.valid.sum()), len(table.points) * SLOTS
    return FleetRow(
        points=len(table.points),
        energy_kwh=_number(energy.sum(), 4) if len(energy) else None,
        energy_points=len(energy),
        max_kw=_number(load.max_kw[0]),
        max_time=clock(int(load.max_slot[0])),
        min_kw=_number(load.min_kw[0]),
        load_factor=_number(load.load_factor[0], 4),
        peak_valley_kw=_number(load.difference_kw[0]),
        peak_valley_rate=_number(load.difference_rate[0], 4),
        completeness=share(valid, expected),
        valid_slots=valid,
        expected_slots=expected,
        estimated_slots=int(table.estimated.sum()),
    )


def report_csv(table: DayTable) -> str:
    """The point rows as CSV with a header; empty = NULL; the phases' voltage rates separated by blanks."""
    out = io.StringIO()
    names = list(PointRow.__dataclass_fields__)
    writer = csv.DictWriter(out, ["day", *names], lineterminator="\n")
    writer.writeheader()
    for row in point_rows(table):
        cells = asdict(row)
        cells["voltage_rate_phases"] = " ".join("" if r is None else str(r) for r in row.voltage_rate_phases).strip()
        writer.writerow({"day": table.day.isoformat(), **cells})
    return out.getvalue()


def _kilo(value: float | None, digits: int = 1) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None, digits: int = 1) -> str:
    if value is None:
        return DASH
    # 99.97 % must not be shown as 100 %: a share that is not whole is never rounded up to whole.
    shown = f"{100 * value:.{digits}f}"
    if value < 1 and float(shown) >= 100:
        shown = f"{100 - 10.0**-digits:.{digits}f}"
    return shown + " %"


def _moment(time_us: int | None) -> str:
    return DASH if time_us is None else from_us(time_us).astimezone(BUSINESS_ZONE).strftime("%Y-%m-%d %H:%M:%S %z")


def _weekday(day: date) -> str:
    names = tr(
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday", "星期一 星期二 星期三 星期四 星期五 星期六 星期日"
    )
    return names.split()[day.weekday()]


def remarks(rows: Sequence[PointRow]) -> list[tuple[str, str]]:
    """(point name, what a reader must know about its figures); only points with something to say."""
    found = []
    for row in rows:
        words = []
        n = SLOTS - row.valid_slots - row.estimated_slots
        if n:
            words.append(tr(f"{n} of {SLOTS} slots missing", f"缺 {n}/{SLOTS} 点"))
        if row.estimated_slots:
            n = row.estimated_slots
            words.append(tr(f"{n} slots estimated (not used for maxima)", f"{n} 点为估算值 (不参与极值)"))
        if row.flag == "insufficient":
            words.append(tr("below 75 %: no figures are given", "完整率低于 75 %: 不出统计值"))
        elif row.flag == "partial":
            words.append(tr("below 95 %: not for ranking", "完整率低于 95 %: 不参与排名"))
        if row.register_decrease:
            words.append(
                tr(
                    "register decreased without a proven rollover (E1): energy is NULL or from the curve",
                    "示度下降且非翻转 (E1): 电量取曲线或为空",
                )
            )
        if row.mixed_sources:
            words.append(tr("curve mixed from several sources", "曲线由多个数据源拼成"))
        if words:
            found.append((row.name, "; ".join(words)))
    return found


@cache
def _template(name: str = "day_report.html") -> jinja2.Template:
    folder = resources.files(__package__).joinpath("templates")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda part: folder.joinpath(part).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(kilo=_kilo, percent=_percent)
    environment.globals.update(style=folder.joinpath("report.css").read_text(encoding="utf-8"), dash=DASH)
    return environment.get_template(name)


def build_page(page: Page) -> str:
    """The page, in the language in force. Names and texts from outside are escaped."""
    return _template("page.html").render(tr=tr, lang=lang(), page=page, version=__version__, made=_moment(page.made_us))


def build_day_report(data: DayReport) -> str:
    """The page, in the language in force. Names and texts from outside are escaped."""
    table = data.table
    fleet = fleet_curve(table)
    rows, total = point_rows(table), fleet_row(table, fleet)
    hour = np.arange(1.0, SLOTS + 1) * (STEP_S / 3600.0)
    present = np.flatnonzero(np.isfinite(fleet.kw))
    # The picture names the maximum only where the figures do: of slots that cover the fleet.
    slot = int(masked_max(fleet.kw, _covered(fleet))[1])
    peak = None if total.max_kw is None else (slot, f"{total.max_kw:,.1f} kW · {total.max_time}")
    return _template().render(
        tr=tr,
        lang=lang(),
        data=data,
        version=__version__,
        day=table.day.isoformat(),
        weekday=_weekday(table.day),
        made=_moment(data.made_us),
        data_time=_moment(int(table.label_us[present[-1]]) if len(present) else None),
        rows=rows,
        total=total,
        remarks=remarks(rows),
        curve=curve_svg(hour, fleet.kw, fleet.estimated, peak=peak, label=tr("fleet load curve", "总负荷曲线")),
        members=members_svg(fleet.members, fleet.expected, np.nan_to_num(fleet.cover) >= COMPLETE_SHARE),
        sparks=[sparkline_svg(table.kw[i], table.estimated[i]) for i in range(len(rows))],
        flag_names={
            "complete": tr("complete", "完整"),
            "partial": tr("partial", "部分"),
            "insufficient": tr("insufficient", "不足"),
        },
        source_names={
            "none": DASH,
            "meter_average": tr("meter 15-min average", "表计15分钟平均"),
            "terminal_average": tr("terminal average", "终端平均"),
            "sampled": tr("sampled power", "采样功率"),
            "register": tr("register difference", "示度差"),
        },
    )
