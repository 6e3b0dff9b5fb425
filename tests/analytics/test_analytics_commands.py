"""`fuhe curve` and `fuhe report day` from a real database that was filled through journal and writer."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from fuhe.cli import root
from fuhe.model.devices import Device, Point
from fuhe.model.lang import lang, set_lang
from fuhe.model.quality import Quality, Source
from fuhe.model.quantities import quantity
from fuhe.model.readings import CurveBlock, ReadingBatch, Samples, samples_from_rows
from fuhe.model.times import day_start_us
from fuhe.storage.batches import encode_batches
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.devices import apply_devices
from fuhe.storage.journal import Journal
from fuhe.storage.writer import JournalWriter

DAY = date(2026, 11, 20)
START = day_start_us(DAY)
STEP = 900_000_000


def block(point: int, name: str, start_us: int, value: Any) -> CurveBlock:
    value = np.asarray(value, float)[None]
    return CurveBlock(
        np.array([point], np.int32), np.array([quantity(name).id], np.int16), np.array([start_us], np.int64), 900,
        value, np.where(np.isfinite(value), Quality.A, Quality.M).astype(np.int16),
    )  # fmt: skip


def readings() -> tuple[list[CurveBlock], Samples]:
    """Point 1: curves of a whole day with its registers; point 2: live samples only; point 3: silent."""
    power = 2.0 + np.sin(np.arange(96) / 15)
    power[10] = np.nan
    register = 500.0 + np.arange(97) * 0.5
    curves = [
        block(1, "active_power_total", START + STEP, power),
        block(1, "active_power_total", START + STEP - 96 * STEP, power * 0.5),
        block(1, "voltage_a", START + STEP, np.full(96, 221.0)),
        # The 00:00 register is the day before's 24:00.
        block(1, "forward_active_total", START, register[:96]),
    ]
    end = (START + 96 * STEP, 1, quantity("forward_active_total").id, float(register[96]), Quality.A, Source.DAILY)
    rows = [end]
    for slot in range(96):
        for second in (1, 450):
            at = START + slot * STEP + second * 1_000_000
            rows.append((at, 2, quantity("active_power_total").id, 1.0 + (second == 450), Quality.A, Source.LIVE))
    return curves, samples_from_rows(rows)


@pytest.fixture
def config(storage_config: StorageConfig, database: Database, tmp_path: Path) -> Path:
    points = [
        Point(id=1, name="Mill", ct_ratio=Decimal(40), contract_kva=Decimal(500), nominal_v=Decimal(220)),
        Point(id=2, name="Shop", ct_ratio=Decimal(10)),
        Point(id=3, name="Depot"),
    ]
    devices = [
        Device(id=p.id, name=f"d{p.id}", link="l", profile="dlt645-2007-3p4w", address=f"{p.id:012d}", points=(p,))
        for p in points
    ]
    with database.connect("owner", autocommit=True) as connection:
        apply_devices(connection, devices)
    curves, samples = readings()
    batch = ReadingBatch(received_us=START + 100 * STEP, samples=samples, curves=curves)
    with Journal(tmp_path / "journal") as journal:
        journal.append(encode_batches([batch])).result(timeout=30)
        writer = JournalWriter(database, journal, now_us=lambda: START + 100 * STEP)
        assert writer.drain_all() == 1
        writer.close()
    path = tmp_path / "config.yaml"
    path.write_text(
        yaml.safe_dump({"storage": {"dsn": storage_config.dsn, "admin_dsn": storage_config.admin_dsn}}), "utf-8"
    )
    return path


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    before = lang()
    set_lang("en")
    yield
    set_lang(before)


def fuhe(config: Path, *words: str) -> Result:
    return CliRunner().invoke(root, ["-c", str(config), *words], catch_exceptions=False)


def test_curve_of_one_point(config: Path, tmp_path: Path) -> None:
    plot, table = tmp_path / "mill.png", tmp_path / "mill.csv"
    result = fuhe(config, "curve", "Mill", "--day", str(DAY), "--days", "2", "--plot", str(plot), "--csv", str(table))
    assert result.exit_code == 0, result.output
    assert "Mill" in result.output and "complete 99.0%" in result.output and "1,920.0 kWh" in result.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(table.read_text("utf-8-sig").splitlines()))
    assert len(rows) == 192 and rows[96]["interval_end"] == "2026-11-20T00:15:00+08:00"
    assert rows[191]["interval_end"] == "2026-11-21T00:00:00+08:00"
    assert rows[106]["state"] == "missing" and rows[106]["active_power_total_kW"] == ""
    assert float(rows[96]["active_power_total_kW"]) == 80.0


def test_curve_of_the_sum_names_its_members(config: Path) -> None:
    result = fuhe(config, "curve", "all", "--day", str(DAY), "--json")
    answer = json.loads(result.stdout)
    day = answer["days"][0]
    assert answer["unit"] == "kW" and day["points"][0] == 2 and day["points"][10] == 1
    assert day["value"][0] == pytest.approx(80.0 + 15.0)  # the mean of the two live samples, x CT
    assert day["completeness"] == pytest.approx(191 / 288, abs=1e-4)


def test_curve_by_number_of_another_quantity(config: Path) -> None:
    result = fuhe(config, "curve", "1", "--day", str(DAY), "--quantity", "voltage_a", "--json")
    assert json.loads(result.stdout)["days"][0]["max"] == 221.0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["curve", "Mil", "--day", "2026-11-20"], "did you mean Mill"),
        (["curve", "Mill", "--quantity", "power"], "no quantity"),
        (["curve", "all", "--quantity", "voltage_a"], "sum of all points"),
        (["curve", "Mill", "--day", "2026-11-31"], "YYYY-MM-DD"),
        (["curve", "Mill", "--day", "2026-11-20", "--plot", "/nonexistent/x.png"], "cannot write"),
    ],
)
def test_mistakes_say_what_to_do(config: Path, words: list[str], text: str) -> None:
    result = fuhe(config, *words)
    assert result.exit_code in (1, 2) and text in result.output


def test_empty_database_says_what_to_do_next(storage_config: StorageConfig, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        yaml.safe_dump({"storage": {"dsn": storage_config.dsn, "admin_dsn": storage_config.admin_dsn}}), "utf-8"
    )
    result = fuhe(path, "report", "day")
    assert result.exit_code == 1 and "import a device list" in result.output


def test_a_day_without_readings_is_no_error(config: Path) -> None:
    result = fuhe(config, "curve", "Mill", "--day", str(DAY - timedelta(days=9)))
    assert result.exit_code == 0 and "no values" in result.output and "complete 0.0%" in result.output


def test_report_day(config: Path, tmp_path: Path) -> None:
    page, table = tmp_path / "day.html", tmp_path / "day.csv"
    result = fuhe(config, "report", "day", "--day", str(DAY), "--html", str(page), "--csv", str(table))
    assert result.exit_code == 0, result.output
    assert "Mill" in result.output and "1,920.0" in result.output and "Depot: 96 of 96 slots missing" in result.output
    assert "<svg" in page.read_text("utf-8")
    rows = {r["name"]: r for r in csv.DictReader(table.read_text("utf-8-sig").splitlines())}
    assert float(rows["Mill"]["energy_kwh"]) == 48 * 40 and rows["Mill"]["energy_source"] == "register"
    assert rows["Shop"]["energy_source"] == "curve" and float(rows["Shop"]["energy_kwh"]) == pytest.approx(360.0)
    assert rows["Depot"]["energy_kwh"] == ""
    answer = json.loads(fuhe(config, "report", "day", "--day", str(DAY), "--json").stdout)
    assert answer["fleet"]["energy_kwh"] == pytest.approx(48 * 40 + 360)
    assert answer["points"][0]["voltage_rate_phases"][0] == 1.0
