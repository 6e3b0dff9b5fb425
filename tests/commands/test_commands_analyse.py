"""`fuhe analyse`: a day in the database to stored statistics, here and on a cluster; every number explained."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import yaml
from click.testing import CliRunner

from fuhe.cli import root
from fuhe.commands import analyse
from fuhe.model.quantities import quantity
from fuhe.model.readings import CurveBlock, ReadingBatch
from fuhe.model.times import day_start_us
from fuhe.storage.batches import encode_batches
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.day_statistics import read_statistics
from fuhe.storage.journal import Journal
from fuhe.storage.writer import JournalWriter

DAY = date(2026, 9, 15)
POINTS = 5
Fuhe = Callable[..., Any]


@pytest.fixture
def fuhe(storage_config: StorageConfig, tmp_path: Path) -> Fuhe:
    fields = {
        "data_dir": storage_config.data_dir, "dsn": storage_config.dsn, "admin_dsn": storage_config.admin_dsn,
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"storage": fields}))

    def run(*words: str, code: int = 0) -> Any:
        line = ["--config", str(tmp_path / "config.yaml"), "analyse", *words]
        result = CliRunner().invoke(root, line)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, (words, result.output)
        return json.loads(result.stdout) if "--json" in words else result.output

    return run


@pytest.fixture
def readings(database: Database, db: psycopg.Connection[Any], tmp_path: Path) -> None:
    """p1 whole; p2 a hole of three slots and a low voltage; p3 exports; p4 half a day; p5 nothing."""
    db.execute("INSERT INTO device (id, name, link, profile, address) VALUES (1, 'd', 'l', 'p', 'a')")
    for n in range(1, POINTS + 1):
        db.execute(
            "INSERT INTO point (id, name, device_id, pn, ct_ratio, nominal_v, contract_kva)"
            " VALUES (%s, %s, 1, %s, 20, 220, 1000)",
            (n, f"p{n}", n),
        )
    power = np.full((4, 96), 2.0)
    power[0, 40] = 5.0
    power[1, 10:13] = np.nan
    power[2, 50:60] = -1.0
    power[3, 48:] = np.nan
    volts = np.full((4, 96), 225.0)
    volts[1, 20:30] = 200.0
    register = np.round(1000 + np.cumsum(np.nan_to_num(power[:1]) * 0.25, axis=1), 4)
    with Journal(tmp_path / "journal") as journal:
        writer = JournalWriter(database, journal, now_us=lambda: day_start_us(DAY) + 86_400_000_000)
        blocks = [
            (name, DAY, value)
            for name, value in {
                "active_power_total": power, "reactive_power_total": power * 0.75, "voltage_a": volts,
                "voltage_b": volts + 1, "voltage_c": volts + 2, "forward_active_total": register,
            }.items()
        ]  # fmt: skip
        blocks.append(("forward_active_total", DAY - timedelta(days=1), np.full((1, 96), 1000.0)))
        for name, day, value in blocks:
            n = len(value)
            block = CurveBlock(
                np.arange(1, n + 1, dtype=np.int32), np.full(n, quantity(name).id, np.int16),
                np.full(n, day_start_us(day) + 900_000_000, np.int64), 900, value, np.zeros(value.shape, np.int16),
            )  # fmt: skip
            batch = ReadingBatch(received_us=day_start_us(day) + 90_000_000_000, curves=[block])
            journal.append(encode_batches([batch])).result(10)
        writer.drain_all()
        writer.close()


@pytest.mark.usefixtures("readings")
def test_a_day_is_computed_stored_and_repeated(fuhe: Fuhe, db: psycopg.Connection[Any]) -> None:
    first = fuhe(str(DAY), "--json")
    assert (first["points"], first["complete"], first["partial"], first["insufficient"]) == (5, 3, 0, 2)
    assert first["changed"] == 5 and first["energy_points"] == 3 and first["energy_exact"] == 1
    whole = (95 * 2 + 5) * 0.25 * 20
    assert first["energy_kwh"] == pytest.approx(whole + 93 * 2 * 0.25 * 20 + 86 * 2 * 0.25 * 20)
    assert first["export_kwh"] == pytest.approx(10 * 0.25 * 20)
    assert first["voltage_rate"] == pytest.approx(1 - 10 / (4 * 96))
    found = {w["point"]: w["checks"] for w in first["worst"]}
    # the load of p1 stands still while its register moves; without registers nothing is frozen
    assert found == {"p1": ["K9"], "p2": [], "p3": ["K4"], "p4": [], "p5": []}
    assert fuhe(str(DAY), "--json")["changed"] == 0
    rows = read_statistics(db, DAY, DAY, range(1, POINTS + 1))
    assert [r["point"] for r in rows] == [1, 2, 3, 4, 5] and {r["version"] for r in rows} == {0}
    one, empty = rows[0], rows[4]
    assert one["max_kw"] == 100.0 and one["max_slot"] == 40 and one["cos"] == 80 and one["energy_kwh"] == whole
    assert empty["max_kw"] is None and empty["max_slot"] is None and empty["cos"] is None and empty["valid"] == 0
    assert rows[1]["u_under"] == [10, 10, 10] and rows[1]["u_any_out"] == 10
    assert fuhe("day", str(DAY), "--points", "p1,p2", "--json")["points"] == 2
    assert "p5" in fuhe(str(DAY)) and "no metering point" in fuhe(str(DAY), "--points", "px", code=1)


@pytest.mark.usefixtures("readings")
def test_every_number_of_a_day_and_month_has_its_inputs(fuhe: Fuhe) -> None:
    said = fuhe("explain", "p2", str(DAY), "--json")
    assert (said["layer"], said["source"], said["register"]) == ("RAW", "SAMPLED", "MISSING")
    assert [m["k"] for m in said["multipliers"]] == [20.0]
    figures = {f["name"]: f for f in said["figures"]}
    assert figures["curve_kwh"]["used"] == 93 and figures["curve_kwh"]["excluded"] == {"M": ["02:45–03:15"]}
    assert figures["curve_kwh"]["inputs"]["sum_kw"] * 0.25 == pytest.approx(figures["curve_kwh"]["value"])
    assert figures["voltage_a_rate"]["inputs"]["under"] == 10
    assert figures["voltage_a_rate"]["value"] == pytest.approx(86 / 96)
    wp, wq = (figures["power_factor"]["inputs"][n] for n in ("wp_kwh", "wq_kvarh"))
    assert figures["power_factor"]["value"] == 0.8 and wp / np.hypot(wp, wq) == pytest.approx(0.8)
    whole = {f["name"]: f for f in fuhe("explain", "p1", str(DAY), "--json")["figures"]}
    assert whole["energy_kwh"]["clause"] == "4.1" and whole["energy_kwh"]["value"] == 975.0
    assert whole["energy_kwh"]["inputs"] == {"register_difference": 48.75, "multiplier": 20.0}
    month = fuhe("explain", "p1", "2026-09", "--json")
    of = {f["name"]: f for f in month["figures"]}
    assert of["energy_kwh"]["value"] == 975.0 and of["max_kw"]["inputs"] == {"day": "2026-09-15", "at": "10:15"}
    assert len(of["energy_kwh"]["excluded"]["no figure"]) == 28 and len(month["days"]) == 30
    for span in (str(DAY), "2026-09"):
        assert "4.4" in fuhe("explain", "p2", span)
    assert "no day" in fuhe("explain", "p2", "2026-13", code=2)


@pytest.mark.usefixtures("readings")
@pytest.mark.filterwarnings("ignore")  # of the cluster's own processes and sockets
@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="the extra `cluster` is not installed")
def test_a_cluster_gives_the_same(fuhe: Fuhe, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(analyse, "CHUNK", 2)
    here = fuhe(str(DAY), "--json")
    rows = read_statistics(db, DAY, DAY, range(1, POINTS + 1))
    assert "Dask at" in fuhe(str(DAY), "--dask", "tcp://127.0.0.1:1", code=1)
    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        there = fuhe(str(DAY), "--dask", cluster.scheduler_address, "--json")
    assert there == here | {"changed": 0}
    assert str(read_statistics(db, DAY, DAY, range(1, POINTS + 1))) == str(rows)  # NaN is not equal to itself
