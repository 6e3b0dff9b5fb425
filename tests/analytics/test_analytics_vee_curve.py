"""A single curve cleaned: every kind of error put into made curves is found, and what is only unusual is left alone."""

from __future__ import annotations

import csv
import gzip
import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.analytics.masks import F8
from fuhe.analytics.vee.clean import clean_curve
from fuhe.analytics.vee.detect import Kind
from fuhe.analytics.vee.grid import make_grid
from fuhe.analytics.vee.likedays import like_days
from fuhe.analytics.vee.robust import median, nearest_finite, runs, same_slot_median, tail_limit
from fuhe.cli import root
from fuhe.model.quality import Quality

PER_DAY = 96
DATA = Path(os.environ.get("FUHE_DATA", "/nonexistent"))


def region(days: int = 60, seed: int = 1) -> F8:
    """A region's load: smooth days, weekends lower, one holiday week at half, 0.3 % noise."""
    rng = np.random.default_rng(seed)
    slot = np.arange(days * PER_DAY) % PER_DAY
    day = np.arange(days * PER_DAY) // PER_DAY
    shape = 1.0 + 0.35 * np.sin((slot - 30) / PER_DAY * 2 * np.pi) + 0.1 * np.sin(slot / PER_DAY * 6 * np.pi)
    level = np.where(day % 7 >= 5, 0.85, 1.0) * (1 + 0.1 * np.sin(day / 20))
    holiday = np.interp(np.arange(days * PER_DAY) / PER_DAY, [30, 33, 37, 40], [1, 0.5, 0.5, 1], left=1, right=1)
    smooth = np.convolve(np.pad(level * holiday, 24, mode="edge"), np.ones(49) / 49, mode="valid")
    return np.round(5000 * shape * smooth * (1 + 0.003 * rng.standard_normal(days * PER_DAY)), 2)


def test_a_true_curve_with_a_holiday_week_is_left_alone() -> None:
    x = region()
    result = clean_curve(x, PER_DAY)
    assert (result.found.kind == Kind.GOOD).all()
    np.testing.assert_array_equal(result.final, x)
    assert (result.quality == Quality.A).all()


def test_every_kind_of_error_is_found_and_mended() -> None:
    true = region()
    x = true.copy()
    x[500:508] = np.nan
    x[1200:1300] = np.nan
    x[1500] *= 1.25
    x[1600] *= 0.1
    x[2000:2012] = 0.0
    x[2500:2520] = x[2500]
    x[4000:4100] *= 1.5
    x[4500:4508] = np.nan
    x[4508] = true[4500:4509].sum()
    result = clean_curve(x, PER_DAY)
    expected = np.zeros(len(x), np.int16)
    expected[500:508] = expected[1200:1300] = expected[4500:4508] = Kind.GAP
    expected[[1500, 1600]] = Kind.SPIKE
    expected[2000:2012] = Kind.ZERO
    expected[2500:2520] = Kind.STUCK
    expected[4000:4100] = Kind.SCALED
    expected[4508] = Kind.CATCHUP
    np.testing.assert_array_equal(result.found.kind, expected)
    wrong = expected > 0
    assert np.abs(result.final - true)[wrong].sum() / true[wrong].sum() < 0.02
    assert result.final[4500:4509].sum() == pytest.approx(true[4500:4509].sum(), rel=1e-9)
    assert (result.quality[4500:4509] == Quality.E5).all()
    assert (result.quality[500:508] == Quality.E2).all() and (result.quality[1200:1300] == Quality.E3).all()
    np.testing.assert_allclose(result.final[4000:4100], true[4000:4100])


def test_a_stepping_plant_with_long_equal_runs_is_left_alone() -> None:
    rng = np.random.default_rng(3)
    batch = np.repeat(rng.choice([3.0, 3.2, 60.0, 80.0, 120.0], 700), rng.integers(1, 9, 700))
    x = np.round(batch + np.where(batch > 10, rng.normal(0, 6, len(batch)), 0.0), 1)
    assert (clean_curve(x, PER_DAY).found.kind == Kind.GOOD).all()


def test_an_empty_home_is_no_fault() -> None:
    rng = np.random.default_rng(4)
    x = np.round(rng.gamma(1.2, 0.2, 100 * 48), 3)
    x[2000 : 2000 + 45 * 48] = 0.0
    assert (clean_curve(x, 48).found.kind == Kind.GOOD).all()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9)), max_size=400))
def test_anything_comes_back_with_its_own_length(values: list[float | None]) -> None:
    x = np.array([np.nan if v is None else v for v in values], float)
    result = clean_curve(x, 24)
    assert result.final.shape == x.shape and result.quality.shape == x.shape
    good = result.found.kind == Kind.GOOD
    np.testing.assert_array_equal(result.final[good], x[good])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.one_of(st.none(), st.floats(-9, 9)), min_size=5, max_size=5), min_size=1, max_size=6))
def test_medians_equal_the_slow_ones(rows: list[list[float | None]]) -> None:
    x = np.array([[np.nan if v is None else v for v in row] for row in rows], float)
    for got, row in zip(median(x), rows, strict=True):
        there = sorted(v for v in row if v is not None)
        n = len(there)
        slow = np.nan if not n else 0.5 * (there[(n - 1) // 2] + there[n // 2])
        assert got == pytest.approx(slow, nan_ok=True)
    flat = x.ravel()
    for i, got in enumerate(same_slot_median(flat, 5, 1)):
        near = [flat[j] for j in (i - 5, i, i + 5) if 0 <= j < len(flat) and np.isfinite(flat[j])]
        assert got == pytest.approx(float(np.median(near)) if near else np.nan, nan_ok=True)
    before, after = nearest_finite(flat)
    for i in range(len(flat)):
        assert before[i] == max([j for j in range(i) if np.isfinite(flat[j])], default=-1)
        assert after[i] == min([j for j in range(i + 1, len(flat)) if np.isfinite(flat[j])], default=len(flat))
    starts, ends = runs(np.isfinite(flat))
    assert sum(ends - starts) == np.isfinite(flat).sum()


def test_a_tail_is_not_moved_by_a_few_errors() -> None:
    sizes = np.abs(np.random.default_rng(1).standard_normal(20_000))
    clean = tail_limit(sizes, 3.0)
    sizes[:300] = 1e6
    assert tail_limit(sizes, 3.0) == pytest.approx(clean, rel=0.3) and clean > 4.5
    assert tail_limit(np.zeros(500), 3.0) == np.inf and tail_limit(sizes[:100], 3.0) == np.inf


def test_a_hole_follows_like_days_and_joins_both_sides() -> None:
    y = np.log(region())
    true = y[20 * PER_DAY + 10 : 20 * PER_DAY + 90].copy()
    y[20 * PER_DAY + 10 : 20 * PER_DAY + 90] = np.nan
    filled = like_days(y, 20 * PER_DAY + 10, 20 * PER_DAY + 90, PER_DAY)
    assert filled.days > 0 and np.abs(filled.values - true).mean() < 0.01
    assert np.isnan(like_days(np.full(50, np.nan), 10, 20, 24).values).all()


def labels(*texts: str) -> list[datetime]:
    return [datetime.fromisoformat(t) for t in texts]


def test_grid_tells_missing_doubled_and_stray_rows() -> None:
    grid = make_grid(
        labels("2026-01-01 00:00", "2026-01-01 00:15", "2026-01-01 01:00", "2026-01-01 00:15", "2026-01-01 00:52"),
        step_s=900,
    )
    assert grid.position.tolist() == [0, 1, 4, 1, -1] and grid.duplicate.tolist() == [False, False, False, True, False]
    assert grid.missing.tolist() == [2, 3] and not grid.in_order
    np.testing.assert_array_equal(grid.place(np.arange(5.0)), [0, 1, np.nan, np.nan, 2])


def test_grid_knows_a_clock_with_daylight_saving_with_and_without_its_zone() -> None:
    from zoneinfo import ZoneInfo

    zone = ZoneInfo("Australia/Melbourne")
    begin = datetime.fromisoformat("2012-03-20T13:00:00+00:00")
    times = [(begin + timedelta(minutes=30 * i)).astimezone(zone).replace(tzinfo=None) for i in range(48 * 230)]
    for grid in (make_grid(times), make_grid(times, zone=zone)):
        np.testing.assert_array_equal(grid.position, np.arange(len(times)))
        assert not grid.duplicate.any() and len(grid.missing) == 0
    assert make_grid(times).folds == 1
    with pytest.raises(ValueError, match="step"):
        make_grid(labels("2026-01-01 00:00", "2026-01-01 00:07"))


def fuhe(*words: str) -> Result:
    return CliRunner().invoke(root, list(words))


def write(path: Path, x: Any, header: str = "t,mw") -> None:
    start = datetime.fromisoformat("2026-01-01")
    rows = [f"{start + timedelta(minutes=15 * i)},{'' if not np.isfinite(v) else v}" for i, v in enumerate(x)]
    path.write_bytes(gzip.compress("\n".join([header, *rows]).encode()))


def test_the_verb_keeps_rows_one_to_one_and_tells_missing_ones(tmp_path: Path) -> None:
    x = region(20)
    x[700] *= 3
    x[1000:1020] = np.nan
    source, out = tmp_path / "load.csv.gz", tmp_path / "out.csv"
    write(source, x)
    lines = gzip.decompress(source.read_bytes()).decode().splitlines()
    del lines[301:305]
    source.write_text("\n".join(lines))
    result = fuhe("lab", "vee", "--load", str(source), "--time", "t", "--value", "mw", "--out", str(out), "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == len(x) - 4 and list(rows[0]) == ["time", "raw", "quality", "rule", "final"]
    assert [r["time"] for r in rows] == [line.split(",")[0] for line in lines[1:]]
    assert summary["missing_rows"] == 4 and summary["missing_spans"][0]["from"] == "2026-01-04 03:00:00"
    bad = {i for i, r in enumerate(rows) if r["quality"] != "A"}
    assert bad == {696, *range(996, 1016)} and rows[696]["rule"] == "K5 spike"
    assert float(rows[696]["final"]) == pytest.approx(x[700] / 3, rel=0.02) and rows[0]["final"] == rows[0]["raw"]


@pytest.mark.parametrize(
    ("text", "words", "why"),
    [
        ("t,mw\n2026-01-01 00:00,1\n2026-01-01 00:15,x\n", [], "row 3, mw: 'x' is no number"),
        ("t,mw\n2026-01-01 00:00,1\nnever,2\n", [], "row 3, t: 'never' is no time"),
        ("t,kw\n2026-01-01 00:00,1\n", [], "no column 'mw'; it has t, kw"),
        ("t,mw\n2026-01-01 00:00,1,2\n", [], "row 2: 3 cells, 2 expected"),
        ("t,mw\n2026-01-01 00:00,1\n2026-01-01 00:15,2\n", ["--zone", "Mars/Base"], "no time zone"),
        ("t,mw\n2026-01-01 00:00,1\n", [], "fewer than two rows"),
        ("", [], "is empty"),
    ],
)
def test_faults_of_the_file_are_named(tmp_path: Path, text: str, words: list[str], why: str) -> None:
    source = tmp_path / "load.csv"
    source.write_text(text)
    out = tmp_path / "o.csv"
    result = fuhe(
        "--lang", "en", "lab", "vee", "--load", str(source), "--time", "t", "--value", "mw", "--out", str(out), *words
    )
    assert result.exit_code == 1 and why in result.output and not out.exists()


@pytest.mark.skipif(not DATA.is_dir(), reason="FUHE_DATA names no folder of measured curves")
def test_measured_curve_with_labelled_errors() -> None:
    with gzip.open(DATA / "vee_dev_area1_15min_2013.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    x = np.array([float(r["load_obs"] or "nan") for r in rows])
    true = np.array([float(r["load_true"]) for r in rows])
    bad = np.array([bool(r["label"]) for r in rows])
    result = clean_curve(x, PER_DAY)
    flagged = result.found.kind != Kind.GOOD
    assert (flagged & bad).sum() / bad.sum() > 0.99 and (flagged & bad).sum() / flagged.sum() > 0.99
    assert np.abs(result.final - true)[bad].sum() / true[bad].sum() < 0.02
