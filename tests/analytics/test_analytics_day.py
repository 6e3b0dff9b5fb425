"""A day in one pass, the sum of points, pictures and the report page: against hand-made days."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.analytics.curve import CurveSource
from fuhe.analytics.day import SLOTS, DayInput, DayTable, Series, day_table, fleet_curve, labels_us
from fuhe.analytics.draw import Mark, Trace, curve_png, shed_png, terminal_curve
from fuhe.analytics.energy import IntervalFlag
from fuhe.analytics.report import DayReport, Image, Section, build_day_report, fleet_row, point_rows, report_csv
from fuhe.analytics.slots import at_instants, slot_means
from fuhe.model.devices import Point
from fuhe.model.lang import lang, set_lang
from fuhe.model.quality import Quality

DAY = date(2026, 11, 20)
HOURS = np.arange(1.0, 97.0) / 4
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    before = lang()
    set_lang("en")
    yield
    set_lang(before)


def series(value: Any, quality: int = Quality.A) -> Series:
    value = np.asarray(value, float)
    return Series(value, np.where(np.isfinite(value), quality, Quality.M).astype(np.int16))


def point(number: int, name: str = "", **archive: Any) -> Point:
    known = {"ct_ratio": Decimal(40), "contract_kva": Decimal(1000), "nominal_v": Decimal(220), **archive}
    return Point(id=number, name=name or f"P{number}", **known)


def table_of(kw: Any, registers: Any = None, points: list[Point] | None = None, **curves: Series) -> DayTable:
    power = kw if isinstance(kw, Series) else series(kw)
    return day_table(
        DayInput(
            day=DAY,
            points=points or [point(i + 1) for i in range(len(power.value))],
            curves={"active_power_total": power, **curves},
            registers={} if registers is None else {"forward_active_total": series(registers)},
        )
    )


def full(value: float, points: int = 1, slots: int = SLOTS) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.full((points, slots), value)


def test_energy_is_exact_from_registers_and_primary() -> None:
    registers = 100.0 + np.arange(97)[None] * 0.25
    table = table_of(full(1.0), registers)
    assert table.energy_kwh[0] == 24 * 40 and table.energy_exact[0]
    assert (table.kw[0] == 40).all() and table.source[0, 0] == CurveSource.SAMPLED
    assert table.load.max_kw[0] == 40 and table.load.load_factor[0] == 1.0


def test_without_the_midnight_register_the_curve_stands_in_and_says_so() -> None:
    registers = 100.0 + np.arange(97)[None] * 0.25
    registers[0, 96] = np.nan
    table = table_of(full(1.0), registers)
    assert not table.energy_exact[0] and table.energy_kwh[0] == pytest.approx(24 * 40)
    assert point_rows(table)[0].energy_source == "curve"


def test_register_decrease_is_shown_as_e1() -> None:
    registers = 100.0 - np.arange(97)[None] * 0.25
    table = table_of(full(1.0), registers)
    assert table.energy_flag[0] == IntervalFlag.DECREASE
    assert point_rows(table)[0].register_decrease


def test_curve_from_registers_where_no_power_was_collected() -> None:
    registers = 100.0 + np.arange(97)[None] * 0.25
    table = table_of(full(np.nan), registers)
    assert (table.kw[0] == 40).all() and (table.source[0] == CurveSource.REGISTER).all()


def test_midnight_belongs_to_the_day_that_ends() -> None:
    kw = full(1.0)
    kw[0, 95] = 9.0
    row = point_rows(table_of(kw))[0]
    assert row.max_time == "24:00"
    assert labels_us(DAY)[-1] - labels_us(DAY)[0] == 95 * 900_000_000


def test_estimates_count_in_energy_but_make_no_maximum() -> None:
    power = series(full(1.0))
    power.value[0, 40], power.quality[0, 40] = 100.0, Quality.E2
    power.value[0, 41], power.quality[0, 41] = 500.0, Quality.S
    table = table_of(power)
    row = point_rows(table)[0]
    assert row.max_kw == 40 and row.estimated_slots == 1 and row.valid_slots == 94
    assert row.energy_kwh == pytest.approx((94 + 100) * 40 / 4)  # the suspect slot is not used at all


def test_voltage_uses_the_wiring() -> None:
    good, bad = series(np.r_[full(220.0), full(100.0), full(57.7)]), series(np.r_[full(240.0), full(0.0), full(0.0)])
    points = [
        point(1), point(2, wiring="3P3W", nominal_v=Decimal(100), pt_ratio=Decimal(100)),
        point(3, nominal_v=None),
    ]  # fmt: skip
    table = table_of(full(1.0, 3), points=points, voltage_a=good, voltage_b=bad, voltage_c=good)
    rows = point_rows(table)
    assert rows[0].voltage_rate == 0.0 and rows[0].voltage_rate_phases == [1.0, 0.0, 1.0]
    assert rows[1].voltage_rate == 1.0 and rows[1].voltage_rate_phases == [1.0, None, 1.0]
    assert rows[2].voltage_rate is None


def test_day_cos_from_registers_else_from_curves() -> None:
    step = np.arange(97)[None]
    registers = {
        "forward_active_total": series(np.r_[step * 1.0, step * 1.0]),
        "reactive_q1_total": series(np.r_[step * 0.3, full(np.nan, 1, 97)]),
        "reactive_q4_total": series(np.r_[step * 0.08, full(np.nan, 1, 97)]),
    }
    data = DayInput(
        day=DAY, points=[point(1), point(2)], registers=registers,
        curves={"active_power_total": series(full(4.0, 2)), "reactive_power_total": series(full(-3.0, 2))},
    )  # fmt: skip
    assert day_table(data).cos.tolist() == [93, 80]


def test_fleet_sum_is_never_scaled_and_says_who_is_missing() -> None:
    kw = np.r_[full(10.0), full(1.0), full(np.nan)]
    kw[0, :8] = np.nan
    table = table_of(kw)
    fleet = fleet_curve(table)
    assert fleet.kw[0] == 40 and fleet.kw[8] == 440
    assert fleet.members[[0, 8]].tolist() == [1, 2] and fleet.expected == 3
    total = fleet_row(table, fleet)
    # The quarter without the mill cannot be the fleet's minimum.
    assert total.min_kw == 440 and total.completeness == pytest.approx(184 / 288, abs=1e-4)


def test_a_day_without_anything_is_all_null() -> None:
    table = table_of(full(np.nan, 2))
    row, total = point_rows(table)[0], fleet_row(table, fleet_curve(table))
    assert (row.energy_kwh, row.max_kw, row.max_time, row.power_factor, row.flag) == (
        None,
        None,
        None,
        None,
        "insufficient",
    )
    assert (total.energy_kwh, total.max_kw, total.completeness) == (None, None, 0.0)
    assert "–" in build_day_report(DayReport(table=table, title="t", made_us=0))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-900, 3600), st.floats(-9, 9)), max_size=40))
def test_slot_means_equal_the_slow_loop(rows: list[tuple[int, int, float]]) -> None:
    label = np.arange(1, 5, dtype=np.int64) * 600_000_000
    got = slot_means(
        np.array([r[0] for r in rows], np.int64), np.array([r[1] * 1_000_000 for r in rows], np.int64),
        np.array([r[2] for r in rows], float), points=3, label_us=label, step_s=600,
    )  # fmt: skip
    for p in range(3):
        for s in range(4):
            own = [v for q, t, v in rows if q == p and s * 600 < t <= (s + 1) * 600]
            assert got[p, s] == pytest.approx(sum(own) / len(own) if own else np.nan, nan_ok=True, abs=1e-9)


def test_registers_count_only_at_the_exact_instant() -> None:
    got = at_instants(
        np.array([0, 0]), np.array([900, 1801]), np.array([5.0, 6.0]), points=1, instant_us=np.array([0, 900, 1800])
    )
    np.testing.assert_array_equal(got, [[np.nan, 5.0, np.nan]])


def trace(value: Any, guess: Any = None) -> Trace:
    value = np.asarray(value, float)
    return Trace(label="2026-11-20", hour=HOURS, value=value, estimated=np.zeros(96, bool) if guess is None else guess)


def test_terminal_curve_is_plain_text_that_fits() -> None:
    value = 300 + 100 * np.sin(HOURS)
    value[30:50] = np.nan
    text = terminal_curve([trace(value)], title="水泥厂", unit="kW", width=70)
    assert "\x1b" not in text and "水泥厂" in text and "12:00" in text and "kW" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    # A hole of five hours leaves empty columns between the two parts of the line.
    rows = [line.partition("┤")[2] or line.partition("│")[2] for line in text.splitlines()]
    dots = {i for row in rows for i, c in enumerate(row) if "⠀" < c <= "⣿"}
    assert max(np.diff(sorted(dots))) > 8
    assert terminal_curve([trace(np.full(96, np.nan))], title="t", unit="kW") == ""


def test_pngs_of_every_shape_of_data() -> None:
    value = 300 + 100 * np.sin(HOURS)
    guess = np.zeros(96, bool)
    guess[20:24] = True
    value[60:70], value[80] = np.nan, np.nan
    assert curve_png([trace(value, guess)], title="水泥厂 $1", unit="kW").startswith(PNG)
    members = np.full(96, 3)
    assert curve_png([trace(value), trace(-value)], title="t", unit="V", members=members, expected=4).startswith(PNG)
    assert curve_png([trace(np.full(96, np.nan))], title="t", unit="kW").startswith(PNG)
    times = labels_us(DAY)[:20]
    marks = [Mark(time_us=int(times[4]), text="轮次 1"), Mark(time_us=int(times[6]), text="two", target_kw=100.0)]
    assert shed_png(times, value[:20], marks, limit_kw=250.0).startswith(PNG)
    assert shed_png(np.zeros(0, np.int64), np.zeros(0), []).startswith(PNG)


class Tags(HTMLParser):
    """Checks that every element closes in order; counts table rows."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag


@pytest.mark.parametrize("language", ["en", "zh"])
def test_report_page_is_whole_escaped_and_in_the_language(language: str) -> None:
    set_lang(language)  # type: ignore[arg-type]
    kw = np.r_[full(10.0), full(1.0), full(np.nan)]
    kw[1, :12] = np.nan
    table = table_of(kw, points=[point(1, "<Mill> & 水泥"), point(2), point(3)])
    page = build_day_report(
        DayReport(
            table=table,
            title="North <b>",
            made_us=int(labels_us(DAY)[0]),
            sections=[
                Section(
                    title="Control", paragraphs=["a < b"], header=["time", "step"], rows=[["10:00", "<i>"]],
                    images=[Image(png=PNG, caption="power")],
                )
            ],
        )
    )  # fmt: skip
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert not tags.open and tags.count["svg"] == 2 + 3 and tags.count["tr"] >= 1 + 3 + 1
    assert (
        "&lt;Mill&gt; &amp; 水泥" in page
        and "&lt;i&gt;" in page
        and "<i>" not in page.split("</style>")[1].replace("<i>kW", "")
    )
    assert "data:image/png;base64,iVBOR" in page and "http://" not in page and "https://" not in page
    assert ("负荷率" if language == "zh" else "Load factor") in page
    assert ("缺 12/96 点" if language == "zh" else "12 of 96 slots missing") in page


def test_a_share_below_one_is_never_shown_as_whole() -> None:
    kw = full(1.0, 30)
    kw[0, 0] = np.nan
    page = build_day_report(DayReport(table=table_of(kw), title="t", made_us=0))
    assert "99.9 %" in page.split("Completeness")[1][:200]


def test_csv_has_a_row_a_point_and_blanks_for_null() -> None:
    rows = list(csv.DictReader(io.StringIO(report_csv(table_of(np.r_[full(1.0), full(np.nan)])))))
    assert [r["name"] for r in rows] == ["P1", "P2"]
    assert rows[0]["max_kw"] == "40.0" and rows[1]["max_kw"] == "" and rows[0]["day"] == "2026-11-20"
