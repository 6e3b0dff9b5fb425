"""`fuhe lab indices`: figures of a made meter file against figures by hand."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fuhe.cli import root

HEAD = "time,kwh,lag,lead,u"


def fuhe(*words: str) -> Result:
    return CliRunner().invoke(root, ["--lang", "en", "lab", "indices", *words])


def write(path: Path, rows: list[tuple[datetime, list[str]]]) -> None:
    path.write_text("\n".join([HEAD, *(",".join([str(t), *cells]) for t, cells in rows)]))


def two_days(shift: timedelta = timedelta(minutes=15)) -> list[tuple[datetime, list[str]]]:
    """Two days of 10 kWh a quarter, one of 25 at noon of the first, nothing missing; reactive as in the check value."""
    start = datetime.fromisoformat("2026-01-31")
    rows = []
    for i in range(192):
        kwh = 25.0 if i == 47 else 10.0
        rows.append((start + i * timedelta(minutes=15) + shift, [str(kwh), str(0.3 * kwh), str(0.08 * kwh), "220"]))
    return rows


def answer(path: Path, *words: str) -> dict[str, Any]:
    result = fuhe("--meter", str(path), "--time", "time", "--json", *words)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_figures_of_two_days(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    write(path, two_days())
    found = answer(path, "--energy", "kwh", "--lag", "lag", "--lead", "lead", "--capacity", "200")
    total = found["total"]
    assert total["energy_kwh"] == 1935.0 and total["days"] == 2 and total["completeness"] == 1.0
    assert total["demand_kw"] == 100.0 and total["demand_time"] == "2026-01-31 12:00" and total["min_kw"] == 40.0
    first = 975.0 / 24 / 100
    assert total["mean_daily_load_factor"] == pytest.approx((first + 1.0) / 2)
    assert total["period_load_factor"] == pytest.approx(1935 / 48 / 100)
    assert total["peak_valley_rate"] == 0.6 and total["min_rate"] == 0.4
    assert total["power_factor"] == 0.93 and total["adjustment_percent"] == -0.45
    assert total["capacity_use"] == pytest.approx(np.hypot(100, 22) / 200)
    # 24:00 of the month's last day belongs to that month
    assert [(m["month"], m["energy_kwh"]) for m in found["months"]] == [("2026-01", 975.0), ("2026-02", 960.0)]
    assert [d["day"] for d in found["days"]] == ["2026-01-31", "2026-02-01"]


def test_start_labels_give_the_same_figures(tmp_path: Path) -> None:
    ends, starts = tmp_path / "e.csv", tmp_path / "s.csv"
    write(ends, two_days())
    write(starts, two_days(timedelta(0)))
    a, b = answer(ends, "--energy", "kwh"), answer(starts, "--energy", "kwh", "--labels", "start")
    assert a["total"] == b["total"] and a["days"] == b["days"]


def test_periods_holes_voltage_and_power_columns(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    rows = two_days()
    rows[0][1][0] = ""
    rows[5][1][3], rows[6][1][3] = "240", "100"
    del rows[100]
    write(path, rows)
    words = ["--energy", "kwh", "--tou", "00:00=valley,08:00=peak", "--voltage", "u", "--nominal", "220"]
    total = answer(path, *words)["total"]
    assert total["tou_valley_kwh"] == 10 * (31 + 31) and total["tou_peak_kwh"] == 10 * 128 + 15
    assert total["completeness"] == pytest.approx(190 / 192) and total["energy_kwh"] == 1915.0
    # 240 V is above 1.07 x 220; 100 V is an outage or wiring fault and is not judged
    assert total["voltage_1_rate"] == pytest.approx(1 - 1 / 190)
    kw = answer(path, "--power", "kwh")["total"]
    assert kw["demand_kw"] == 25.0 and kw["energy_kwh"] == pytest.approx(1915.0 / 4)


def test_profile_file_and_table(tmp_path: Path) -> None:
    path, profile = tmp_path / "m.csv", tmp_path / "p.toml"
    write(path, two_days())
    profile.write_text('time = "time"\nenergy = "kwh"\nlag = "lag"\nstandard = "none"\n')
    result = fuhe("--meter", str(path), "--profile", str(profile))
    assert result.exit_code == 0 and "1,935.0" in result.output and "2026-02" in result.output
    assert (
        json.loads(fuhe("--meter", str(path), "--profile", str(profile), "--json").stdout)["total"][
            "adjustment_percent"
        ]
        is None
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--energy", "kwh"], "name the column of the time"),
        (["--time", "time"], "name one of --energy and --power"),
        (["--time", "time", "--energy", "kwh", "--tou", "00:00=a,08:07=b"], "inside a slot"),
        (["--time", "time", "--energy", "kwh", "--tou", "noon"], "--tou"),
        (["--time", "time", "--energy", "kwh", "--voltage", "u"], "--nominal"),
        (["--time", "time", "--energy", "kwh", "--voltage", "u", "--band", "x"], "no voltage band"),
    ],
)
def test_mistakes_say_what_to_do(tmp_path: Path, words: list[str], why: str) -> None:
    path = tmp_path / "m.csv"
    write(path, two_days())
    result = fuhe("--meter", str(path), *words)
    assert result.exit_code == 1 and why in result.output


def test_a_wrong_period_and_a_missing_file_are_told_in_plain_words(tmp_path: Path) -> None:
    file = tmp_path / "meter.csv"
    write(file, two_days())
    result = fuhe("--meter", str(file), "--time", "time", "--energy", "kwh", "--tou", "00:00=valley,8=flat")
    assert result.exit_code == 1 and "--tou: '8=flat' is no period; write" in result.output
    result = fuhe("--meter", str(tmp_path / "none.csv"), "--time", "time", "--energy", "kwh")
    assert result.exit_code == 1 and "No such file" in result.output and "Errno" not in result.output
