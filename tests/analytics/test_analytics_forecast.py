"""Forecast: what a day is told, that nothing leaks from after the issue, that no slot stays empty, and the score."""

from __future__ import annotations

import gzip
import json
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from click.testing import CliRunner

from fuhe.analytics.forecast.baseline import undisturbed
from fuhe.analytics.forecast.calendar import day_types
from fuhe.analytics.forecast.clean import clean
from fuhe.analytics.forecast.features import Issue, Known
from fuhe.analytics.forecast.intraday import corrected
from fuhe.analytics.forecast.score import score_day
from fuhe.analytics.forecast.walk import clock_grid, naive_last_week, naive_yesterday, walk
from fuhe.analytics.masks import F8
from fuhe.cli import root
from fuhe.commands.lab_data import Table
from fuhe.protocols.common.errors import UsageError

NAN = float("nan")
FIRST = date(2021, 3, 1)  # a Monday
SLOTS = 24


def load(days: int, seed: int = 1) -> F8:
    """A town: a daily shape, quiet weekends, slow growth, noise of one percent."""
    rng = np.random.default_rng(seed)
    hour = np.arange(SLOTS)
    shape = 100 + 30 * np.sin((hour - 7) / 24 * 2 * np.pi) + 10 * np.sin(hour / 24 * 4 * np.pi)
    week = np.where(np.arange(days) % 7 < 5, 1.0, 0.8)
    curve = shape[None] * week[:, None] * (1 + 0.0005 * np.arange(days))[:, None]
    return np.asarray(curve * (1 + 0.01 * rng.standard_normal((days, SLOTS))), np.float64)


def forecasts(raw: F8, days: range, *, total: int | None = None) -> F8:
    count = total or len(raw)
    walked = walk(
        raw, day_types(FIRST, count, chinese=False), Known.nothing(count, SLOTS), Issue(lead=1, slot=12), days
    )
    return np.stack([w.forecast.value for w in walked])


@pytest.fixture(scope="module")
def town() -> F8:
    return load(90)


def test_the_check_value_of_a_score() -> None:
    found = score_day(np.array([102.0, 190.0, 404.0, 306.0]), np.array([100.0, 200.0, 400.0, 300.0]))
    assert found.accuracy == pytest.approx(97.085, abs=5e-4)
    assert found.mape == pytest.approx(2.5)
    assert found.peak == pytest.approx(99.0)
    assert (found.slots, found.excluded) == (4, 0)


def test_small_and_missing_slots_are_left_out_and_counted() -> None:
    found = score_day(np.array([110.0, 5.0, 90.0, NAN]), np.array([100.0, 1.0, NAN, 100.0]))
    assert (found.slots, found.excluded) == (1, 1)
    assert found.mape == pytest.approx(10.0)
    empty = score_day(np.array([NAN]), np.array([1.0]))
    assert (empty.accuracy, empty.mape, empty.slots) == (None, None, 0)


def test_loads_after_the_issue_time_change_nothing(town: F8) -> None:
    day = 80
    before = forecasts(town, range(day, day + 1))
    other = town.copy()
    other[day - 1, 12:] = 1e4  # issued at 12:00 of the day before
    other[day:] = NAN
    assert np.array_equal(before, forecasts(other, range(day, day + 1)))
    other[day - 1, 6:12] *= 1.05  # what is known at issue counts
    assert not np.array_equal(before, forecasts(other, range(day, day + 1)))


def test_better_than_last_week_and_yesterday(town: F8) -> None:
    days = range(70, 84)
    found = forecasts(town, days)
    issue = Issue(lead=1, slot=12)
    error = np.abs(found / town[70:84] - 1).mean()
    week = np.mean([np.abs(naive_last_week(town, d, issue) / town[d] - 1).mean() for d in days])
    yesterday = np.mean([np.abs(naive_yesterday(town, d, issue) / town[d] - 1).mean() for d in days])
    assert error < 0.9 * week and error < 0.5 * yesterday


def test_weekends_are_the_shape_of_the_week_and_faults_are_found() -> None:
    raw = load(60)
    rest = np.arange(60) % 7 >= 5
    assert not clean(raw, rest, raw.size).faulty.any()
    truth = raw.copy()
    raw[30, 5:] *= 0.5  # half of the points did not report
    raw[40, 3] *= 3
    raw[50, 2:8] = NAN
    found = clean(raw, rest, raw.size)
    want = np.zeros(raw.shape, bool)
    want[30, 5:], want[40, 3], want[50, 2:8] = True, True, True
    assert np.array_equal(found.faulty, want)
    assert float(np.abs(found.value / truth - 1).max()) < 0.08


@pytest.mark.parametrize("history", [1, 2, 8])
def test_little_history_and_gaps_leave_no_hole(history: int) -> None:
    raw = np.full((30, SLOTS), NAN)
    raw[:history] = load(history)
    raw[: history - 1, 3:9] = NAN
    found = forecasts(raw, range(history + 1, history + 4))
    assert found.shape == (3, SLOTS) and np.isfinite(found).all() and (found > 0).all()


def test_no_load_before_the_first_issue_is_an_error() -> None:
    with pytest.raises(ValueError, match="no load"):
        forecasts(np.full((10, SLOTS), NAN), range(5, 6))


def test_an_hour_shown_twice_is_one_slot() -> None:
    day, slot = np.zeros(3, np.int64), np.array([1, 1, 2])
    grid = clock_grid(day, slot, np.array([2.0, 4.0, 7.0]), 1, 4)
    assert grid[0, 1:3].tolist() == [3.0, 7.0] and np.isnan(grid[0, [0, 3]]).all()


def test_chinese_days_off_and_make_up_days() -> None:
    types = day_types(date(2021, 9, 25), 16, chinese=True)
    rest = dict(zip([date(2021, 9, 25) + timedelta(days=i) for i in range(16)], types.rest.tolist(), strict=True))
    assert not rest[date(2021, 9, 26)] and rest[date(2021, 10, 5)] and not rest[date(2021, 10, 9)]
    assert rest[date(2021, 10, 3)]


# --- the verb


def run(*words: object) -> str:
    result = CliRunner().invoke(root, ["--lang", "en", "lab", "forecast", *map(str, words)])
    return f"{result.exit_code} {result.output}"


def test_the_verb_forecasts_days_of_a_changing_clock_whole(tmp_path: Path) -> None:
    zone = ZoneInfo("Australia/Melbourne")
    begin = datetime(2021, 2, 20, tzinfo=zone)
    hours = [begin.astimezone(ZoneInfo("UTC")) + timedelta(hours=h) for h in range(24 * 48)]
    values = load(60).ravel()
    file, out = tmp_path / "load.csv.gz", tmp_path / "out.json"
    rows = [f"{t:%Y-%m-%dT%H:%M:%S},{v:.2f}" for t, v in zip(hours, values, strict=False)]
    rows[400] = rows[400].split(",")[0] + ","
    with gzip.open(file, "wt", encoding="utf-8") as stream:
        stream.write("\n".join(["time_utc,load", *rows]) + "\n")
    said = run(
        "--load", file, "--time", "time_utc", "--utc", "--zone", "Australia/Melbourne", "--value", "load",
        "--from", "2021-04-03", "--to", "2021-04-05", "--json", out,
    )  # fmt: skip
    assert said.startswith("0 "), said
    result = json.loads(out.read_text())
    assert [(d["date"], len(d["forecast"])) for d in result["days"]] == [
        ("2021-04-03", 24), ("2021-04-04", 25), ("2021-04-05", 24),
    ]  # fmt: skip
    assert all(np.isfinite(d["forecast"]).all() and d["accuracy"] > 80 for d in result["days"])
    assert (result["summary"]["days"], result["summary"]["step_min"], result["summary"]["issue"]) == (3, 60, "12:00")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--from", "2021-03-10", "--to", "2021-03-09"], "--to is before --from"),
        (["--from", "March", "--to", "2021-03-09"], "is no date"),
        (["--from", "2021-03-09", "--to", "2021-03-09", "--issue", "25:00"], "is no time of day"),
        (["--from", "2021-03-09", "--to", "2021-03-09", "--value", "power"], "power"),
        (["--from", "2021-02-27", "--to", "2021-02-27"], "choose a later --from"),
    ],
)
def test_wrong_questions_are_refused_in_words_and_write_nothing(tmp_path: Path, words: list[str], told: str) -> None:
    file, out = tmp_path / "load.csv", tmp_path / "out.json"
    begin = datetime(2021, 3, 1)  # noqa: DTZ001 - a local clock
    rows = [f"{begin + timedelta(hours=h):%Y-%m-%d %H:%M},{100 + h % 24}" for h in range(24 * 10)]
    file.write_text("\n".join(["time,load", *rows]) + "\n")
    said = run("--load", file, "--time", "time", "--value", "load", "--json", out, *words)
    assert not said.startswith("0 ") and told in said and "Traceback" not in said
    assert not out.exists()


def test_a_bad_cell_is_named_by_its_row(tmp_path: Path) -> None:
    file = tmp_path / "load.csv"
    file.write_text("time,load\n2021-03-01 00:00,1\n2021-03-01 01:00,abc\n")
    said = run(
        "--load", file, "--time", "time", "--value", "load", "--from", "2021-03-03", "--to", "2021-03-03",
        "--json", tmp_path / "o",
    )  # fmt: skip
    assert not said.startswith("0 ") and "row 3" in said


# --- files of other people


NOON = Issue(lead=1, slot=12)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("zero", np.zeros((60, SLOTS))),
        ("constant", np.full((60, SLOTS), 5.0)),
        ("feeds in", -load(60)),
        ("begins late", np.concatenate([np.full((25, SLOTS), NAN), load(35)])),
        ("a week is missing", np.concatenate([load(48), np.full((7, SLOTS), NAN), load(5)])),
        ("two months are missing", np.concatenate([load(30), np.full((62, SLOTS), NAN), load(8)])),
        ("every second slot is missing", np.where(np.arange(SLOTS) % 2 == 0, load(60), NAN)),
    ],
)
def test_odd_series_are_forecast_without_a_hole(name: str, raw: F8) -> None:
    found = forecasts(raw, range(len(raw) - 2, len(raw)))
    some = raw[np.isfinite(raw)]
    assert np.isfinite(found).all(), name
    assert found.min() >= some.min() - 0.5 * np.ptp(some) - 1e-6
    assert found.max() <= some.max() + 0.5 * np.ptp(some) + 1e-6


@pytest.mark.parametrize("slots", [1, 144, 288])
def test_other_steps(slots: int) -> None:
    raw = np.repeat(load(60), 12, axis=1)[:, :: 288 // slots]
    issue = Issue(lead=1, slot=slots // 2)
    walked = walk(raw, day_types(FIRST, 60, chinese=False), Known.nothing(60, slots), issue, range(58, 60), warm_up=2)
    value = np.stack([w.forecast.value for w in walked])
    assert np.abs(value / raw[58:] - 1).mean() < 0.05


def test_leading_days_without_load_are_no_history() -> None:
    late = np.concatenate([np.full((30, SLOTS), NAN), load(60)])
    types = day_types(FIRST - timedelta(days=30), 90, chinese=False)
    shifted = walk(late, types, Known.nothing(90, SLOTS), NOON, range(85, 86), warm_up=3)[0]
    plain = walk(
        load(60), day_types(FIRST, 60, chinese=False), Known.nothing(60, SLOTS), NOON, range(55, 56), warm_up=3
    )
    assert np.allclose(shifted.forecast.value, plain[0].forecast.value)


def test_a_cut_is_replaced_by_like_days_and_moved_to_the_day() -> None:
    raw = load(30)
    raw[29] *= 1.1  # a busier day
    cut = raw.copy()
    held = np.zeros(raw.shape, np.bool_)
    held[29, 14:18] = True
    cut[held] *= 0.3
    types = day_types(FIRST, 30, chinese=False)
    found, replaced = undisturbed(cut, held, types)
    assert np.array_equal(replaced, held) and np.array_equal(found[~held], cut[~held])
    assert np.abs(found[29, 14:18] / raw[29, 14:18] - 1).max() < 0.04
    alone, nothing = undisturbed(cut[29:], held[29:], types.since(29))
    assert np.isnan(alone[0, 14:18]).all() and not nothing.any()


def test_the_next_hours_follow_where_the_load_stands() -> None:
    issued, actual = np.full(96, 100.0), np.full(96, NAN)
    assert (corrected(issued, actual, 40, 16, 900) == 100).all()
    actual[30:40] = 120.0
    found = corrected(issued, actual, 40, 16, 900)
    assert 115 < found[0] < 120 and (np.diff(found) < 0).all() and found[-1] > 103


def csv_of(path: Path, rows: list[str], *, header: str = "time,load") -> Path:
    text = "\n".join([header, *rows]) + "\n"
    with gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else path.open("w", encoding="utf-8") as file:
        file.write(text)
    return path


def test_rows_out_of_order_and_doubled_change_nothing(tmp_path: Path) -> None:
    begin = datetime(2021, 3, 1)  # noqa: DTZ001 - a local clock
    rows = [f"{begin + timedelta(minutes=10 * i):%Y-%m-%d %H:%M},{v:.3f}" for i, v in enumerate(np.repeat(load(12), 6))]
    mixed = [rows[i] for i in np.random.default_rng(5).permutation(len(rows))] + rows[100:150]
    results = []
    for name, lines in (("plain.csv", rows), ("mixed.csv.gz", mixed)):
        out = tmp_path / f"{name}.json"
        said = run(
            "--load", csv_of(tmp_path / name, lines), "--time", "time", "--value", "load",
            "--from", "2021-03-11", "--to", "2021-03-13", "--json", out,
        )  # fmt: skip
        assert said.startswith("0 "), said
        results.append(json.loads(out.read_text())["days"])
    assert [d["forecast"] for d in results[0]] == [d["forecast"] for d in results[1]]
    assert [len(d["forecast"]) for d in results[0]] == [144] * 3 and not results[0][0]["learned"]


def test_weather_that_ends_early_is_carried_on_and_said(tmp_path: Path) -> None:
    begin = datetime(2021, 3, 1)  # noqa: DTZ001 - a local clock
    hours = [f"{begin + timedelta(hours=h):%Y-%m-%d %H:%M},{v:.3f}" for h, v in enumerate(load(60).ravel())]
    days = [f"{begin + timedelta(days=d):%Y-%m-%d},{10 + d % 5}" for d in range(55)]
    out = tmp_path / "out.json"
    said = run(
        "--load", csv_of(tmp_path / "load.csv", hours), "--time", "time", "--value", "load",
        "--weather", csv_of(tmp_path / "weather.csv", days, header="date,tmax_c"),
        "--from", "2021-04-28", "--to", "2021-05-01", "--json", out,
    )  # fmt: skip
    assert said.startswith("0 ") and "tmax_c: missing on" in said, said
    result = json.loads(out.read_text())
    assert all(len(d["forecast"]) == 24 and np.isfinite(d["forecast"]).all() for d in result["days"])


def test_labels_as_spreadsheets_and_terminals_write_them() -> None:
    table = Table(
        Path("x"), ["t"], [["2018/1/5 7:30"], ["2018-01-05 24:00"], ["2018-01-05T07:30:00+08:00"], ["2018.1.5"]]
    )
    assert [f"{t:%d %H:%M}" for t in table.times("t")] == ["05 07:30", "06 00:00", "05 07:30", "05 00:00"]
    with pytest.raises(UsageError, match="row 2"):
        Table(Path("x"), ["t"], [["2018-01-05 25:00"]]).times("t")
