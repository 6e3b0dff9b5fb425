"""`fuhe report kpi` on a real database: every number reckoned again by hand, versions, files, figures by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import yaml
from click.testing import CliRunner, Result

from fuhe.acquisition.config import CycleConfig
from fuhe.acquisition.cycles import slot_labels_us
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.analytics.kpi import Absent, Found, indicators
from fuhe.cli import root
from fuhe.commands.kpi_data import Counting, Month, count, scope_of
from fuhe.model.archive import Customer, MeteringPoint, Version
from fuhe.model.devices import Device, Point
from fuhe.model.quality import Quality, Source
from fuhe.model.quantities import quantity
from fuhe.model.readings import CurveBlock, ReadingBatch, samples_from_rows
from fuhe.model.times import US, day_start_us, from_us
from fuhe.storage.archive_versions import store
from fuhe.storage.batches import encode_batches
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.devices import apply_devices, load_devices
from fuhe.storage.journal import Journal
from fuhe.storage.writer import JournalWriter

FIRST = date(2026, 9, 1)
BEGIN, END = day_start_us(FIRST), day_start_us(date(2026, 10, 1))
NOW = day_start_us(date(2026, 10, 5))
HOUR = 3600 * US
FORWARD, LAG, LEAD = (
    quantity(n).id for n in ("forward_active_total", "forward_reactive_total", "reverse_reactive_total")
)
POWER, VOLT = quantity("active_power_total").id, quantity("voltage_a").id


def meter(name: str) -> Device:
    point = Point(id=0, name=f"p-{name}", nominal_v=220, wiring="1P")  # type: ignore[arg-type]
    return Device(id=0, name=name, link="b", profile="mqtt-v1", address=name, points=(point,))


@pytest.fixture
def points(database: Database) -> list[int]:
    """Two meters, m1 and m2, in the list since long ago."""
    with database.connect("owner", autocommit=True) as owner:
        apply_devices(owner, [meter("m1"), meter("m2")])
        owner.execute("UPDATE device SET imported = '2026-01-01'")
    with database.connect(autocommit=True) as connection:
        return [d.points[0].id for d in sorted(load_devices(connection), key=lambda d: d.name)]


@pytest.fixture
def put(database: Database, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """`put(received_us, samples, *curves)` through the journal."""
    with Journal(tmp_path / "journal") as journal:
        writer = JournalWriter(database, journal, now_us=lambda: NOW)

        def one(received_us: int, samples: list[Any], *curves: CurveBlock) -> None:
            found = samples_from_rows(samples) if samples else None
            batch = ReadingBatch(received_us=received_us, curves=curves, samples=found)
            journal.append(encode_batches([batch])).result(10)
            writer.drain_all()

        yield one
        writer.close()


def counting(db: Any, now_us: int = NOW) -> Counting:
    return Counting(db, Month(FIRST, now_us), CycleConfig(), builtin_profiles())


def exempt(db: Any, point: int, begin_us: int, end_us: int, kind: str) -> None:
    db.execute(
        "INSERT INTO exemption (device, point, since, until, kind, reason, made_by, made_at)"
        " SELECT device_id, id, %s, %s, %s, 'known', 'li', now() FROM point WHERE id = %s",
        (from_us(begin_us), from_us(end_us), kind, point),
    )


def found(c: Counting, number: str) -> Found:
    answer = count(c, number)
    assert isinstance(answer, Found), answer
    return answer


def test_a_month_counted_by_hand(db: psycopg.Connection[Any], points: list[int], put: Callable[..., None]) -> None:
    one, two = points
    exempt(db, two, BEGIN, END, "suspension")
    exempt(db, one, BEGIN + 34 * HOUR, BEGIN + 38 * HOUR, "outage")
    for n in range(1, 31):  # thirty freezes of m1: one late, one missing
        label = BEGIN + n * 24 * HOUR
        if n != 7:
            put(label + (9 if n == 5 else 1) * HOUR, [(label, one, FORWARD, 100.0 + n, 0, Source.DAILY)])
    rows = [(BEGIN, FORWARD, 0.0), (BEGIN, LAG, 0.0), (BEGIN, LEAD, 0.0), (END, LAG, 39.0), (END, LEAD, 10.4)]
    put(END + HOUR, [(t, one, q, v, 0, Source.MONTHLY) for t, q, v in rows])
    noon = BEGIN + 12 * HOUR
    for at, late in ((noon, 0), (noon + 600 * US, 0), (noon + HOUR, 60 * US), (noon + 2 * HOUR, 1000 * US)):
        put(at + late, [(at, one, POWER, 5.0, 0, Source.LIVE)])
    labels = slot_labels_us(FIRST)
    volts = np.where(np.arange(96) < 6, 250.0, 220.0)
    block = CurveBlock(
        np.array([one, one], np.int32), np.array([VOLT, POWER], np.int16), np.full(2, labels[0]), 900,
        np.stack([volts, np.full(96, 8.0)]), np.full((2, 96), Quality.A, np.int16),
    )  # fmt: skip
    put(int(labels[-1]), [], block)
    c = counting(db)

    success = found(c, "7a")
    assert (success.numerator, success.denominator, success.exempt, success.completeness) == (28, 30, 30, 1.0)
    remote = found(c, "6")
    assert (remote.numerator, remote.denominator, remote.exempt) == (1, 1, 1)
    fresh = found(c, "8")  # 10 min up to the next value, 15 min from it, 15 less 1 min, nothing of what came too late
    assert fresh.numerator * 3600 == pytest.approx(600 + 900 + 840)
    assert (fresh.denominator, fresh.exempt) == (720 - 4, 720 + 4)
    volt = found(c, "9")
    assert (volt.numerator, volt.denominator) == (90, 96) and volt.completeness == 96 / (2 * 30 * 96)
    cos = found(c, "10a")  # 130 kWh, 39 and 10.4 kvarh: 0.93, by absolute values
    assert cos.numerator / cos.denominator == pytest.approx(130 / np.hypot(130, 49.4)) and cos.completeness == 0.5
    assert (found(c, "10b").numerator, found(c, "10b").denominator) == (1, 1)
    supplied = found(c, "20a")
    assert supplied.numerator / supplied.denominator == pytest.approx(1 - 4 / (2 * 720))
    assert supplied.completeness == pytest.approx(96 / (2 * 30 * 96))
    assert (found(c, "G1").numerator, found(c, "G1").denominator) == (4, 2)
    cover = found(c, "15a")
    assert (cover.numerator, cover.denominator, cover.completeness) == (0, 8.0, 0.5)
    assert (found(c, "15b").denominator, found(c, "F2").numerator) == (2, 0)


def test_nothing_is_due_before_a_device_is_in_the_list(db: psycopg.Connection[Any], points: list[int]) -> None:
    db.execute("UPDATE device SET imported = %s WHERE name = 'm2'", (from_us(BEGIN + 20 * 24 * HOUR),))
    c = counting(db)
    assert found(c, "7a").denominator == 30 + 10 and found(c, "8").denominator == 720 + 240


def test_what_the_data_do_not_tell_is_missing_and_not_zero(db: psycopg.Connection[Any], points: list[int]) -> None:
    c = counting(db)
    for number in ("1", "12", "13", "9", "10a", "10b", "15a", "19", "24", "Q3"):
        answer = count(c, number)
        assert isinstance(answer, Absent) and answer.why, number
    for number in ("11a", "11b", "14", "16", "17", "18a"):
        assert found(c, number).denominator == 0
    assert all(isinstance(count(c, n), Found | Absent) for n in indicators())
    for number in ("20a", "20b"):  # without a measurement nothing proves the supply
        assert not isinstance(answer := count(c, number), Found) or answer.completeness == 0
    young = counting(db, day_start_us(FIRST) + 6 * HOUR)
    assert found(young, "6").denominator == 0 and found(young, "7a").denominator == 0


def test_cases_count_by_what_people_said_and_when(db: psycopg.Connection[Any], points: list[int]) -> None:
    def case(number: int, state: str, *steps: tuple[str, int]) -> None:
        opened = from_us(BEGIN + number * HOUR)
        row = db.execute(
            "INSERT INTO case_ (rule, device_id, point, severity, state, first_at, last_at, opened_at, changed_at,"
            " due_at, close_s, told, hidden) SELECT 'R' || %s, device_id, id, 2, %s, %s, %s, %s, %s, %s, 0, '{}', false"
            " FROM point WHERE id = %s RETURNING id",
            (str(number), state, opened, opened, opened, opened, opened, points[0]),
        ).fetchone()
        assert row is not None
        for step, minutes in steps:
            db.execute(
                "INSERT INTO case_step (case_id, at, actor, step) VALUES (%s, %s, 'li', %s)",
                (row[0], from_us(BEGIN + number * HOUR + minutes * 60 * US), step),
            )

    case(1, "assigned", ("open", 0), ("confirm", 600), ("assign", 660))  # an hour, exactly
    case(2, "assigned", ("confirm", 5), ("assign", 66))
    case(3, "assigned", ("assign", 700))  # at once
    case(4, "false", ("confirm", 5), ("false", 9))
    case(5, "new", ("open", 0))
    case(6, "closed", ("ack", 1), ("close", 3))  # never handed on
    case(-1, "assigned", ("assign", 1))  # of the month before
    c = counting(db)
    assert (found(c, "17").numerator, found(c, "17").denominator) == (2, 4)
    accuracy = found(c, "11a")
    assert (accuracy.numerator, accuracy.denominator, accuracy.completeness) == (4, 6, 5 / 6)
    assert (found(c, "11b").numerator, found(c, "11b").denominator) == (2, 6)


def test_the_list_of_key_customers_says_who_is_counted(
    db: psycopg.Connection[Any], points: list[int], server_url: Callable[[str], str]
) -> None:
    made = [
        Version(entity=entity, key=key, valid_from_us=BEGIN - 9 * HOUR, valid_to_us=None, record=record)
        for n in ("1", "2")
        for entity, key, record in (
            ("customers", f"C{n}", Customer(cons_no=f"C{n}", name=f"customer {n}")),
            ("points", f"p-m{n}", MeteringPoint(point=f"p-m{n}", customer=f"C{n}")),
        )
    ]
    with db.transaction():
        store(db, BEGIN, "li", "first", ended=(), added=made)
    assert scope_of(counting(db)).customers == ["C1", "C2"]
    rows = [{"cons_no": "C1", "name": "x", "action": "keep"}, {"cons_no": "C2", "name": "y", "action": "remove"}]
    with psycopg.connect(server_url("fuhe"), autocommit=True) as owner:  # people and sessions are not the matter here
        owner.execute("SET session_replication_role = replica")
        owner.execute(
            "INSERT INTO key_list (proposed_at, as_of, parameters, rows_, digest, drafter, drafter_session, version,"
            " approver, approver_session, approved_at) VALUES (%(t)s, '2026-09-01', '{}', %(rows)s, 'd', 1, 1, 1, 2, 2,"
            " %(t)s)",
            {"t": from_us(BEGIN + HOUR), "rows": json.dumps(rows)},
        )
    scope = scope_of(counting(db))
    assert (scope.customers, scope.ids) == (["C1"], points[:1]) and "list 1" in scope.text
    assert found(counting(db), "24").denominator == 1
    before = Counting(db, Month(date(2026, 8, 1), NOW), CycleConfig(), builtin_profiles())
    assert scope_of(before).customers == ["C1", "C2"], "the list was approved later"


def test_an_empty_system_has_no_figures_and_no_failure(db: psycopg.Connection[Any]) -> None:
    c = counting(db)
    assert all(isinstance(f := count(c, n), Absent) or f.denominator == 0 for n in indicators())


# ---------------------------------------------------------------------------------------------- the verb


@pytest.fixture
def run(tmp_path: Path, storage_config: StorageConfig) -> Callable[..., Result]:
    stored = {name: getattr(storage_config, name) for name in ("data_dir", "dsn", "admin_dsn")}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"storage": stored}), encoding="utf-8")

    def call(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(root, ["-c", str(path), "report", "kpi", "--month", "2026-09", *words])
        assert result.exit_code == code, result.output + result.stderr
        return result

    return call


def test_values_are_kept_by_version_and_late_data_add_one(
    run: Callable[..., Result], points: list[int], put: Callable[..., None], tmp_path: Path
) -> None:
    def reported(*words: str) -> dict[str, Any]:
        return {r["indicator"]: r for r in json.loads(run(*words, "--json").stdout)["indicators"]}

    def versions(number: str) -> list[tuple[int, float]]:
        rows = json.loads(run("--versions", "--json").stdout)
        return [(r["version"], r["numerator"]) for r in rows if r["indicator"] == number]

    label = BEGIN + 24 * HOUR
    put(label + HOUR, [(label, points[0], FORWARD, 1.0, 0, Source.DAILY)])
    assert reported("--no-store")["7a"]["numerator"] == 1 and versions("7a") == []
    first = reported()["7a"]
    assert (first["numerator"], first["denominator"], first["formula_version"]) == (1, 60, "7a/1")
    reported()
    assert versions("7a") == [(1, 1.0)]
    put(label + 2 * HOUR, [(label, points[1], FORWARD, 1.0, 0, Source.DAILY)])
    assert reported()["7a"]["numerator"] == 2 and versions("7a") == [(1, 1.0), (2, 2.0)]
    assert versions("G1") == [(1, 0.0)], "what did not change gets no version"

    (tmp_path / "hand.csv").write_text("indicator,numerator,denominator\n1,99,100\n", encoding="utf-8")
    assert reported("--manual", str(tmp_path / "hand.csv"))["1"]["origin"] == "manual"
    again = reported()["1"]
    assert (again["value"], again["origin"], versions("1")) == (0.99, "manual", [(1, 99.0)])

    run("--html", str(tmp_path / "k.html"), "--csv", str(tmp_path / "k.csv"))
    page = (tmp_path / "k.html").read_text(encoding="utf-8")
    assert "2026-09" in page and "given by hand" in page and "http" not in page.split("</style>")[1]
    with (tmp_path / "k.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {r["indicator"]: r for r in csv.DictReader(file)}
    assert set(rows) == set(indicators()) and rows["7a"]["numerator"] == "2" and rows["Q3"]["missing"]
    assert "provisional" in run().stdout and "7a" in run("--versions").stdout


def test_a_faulty_file_by_hand_stores_nothing(run: Callable[..., Result], points: list[int], tmp_path: Path) -> None:
    (tmp_path / "hand.csv").write_text("indicator,numerator,denominator\n1,99,100\n20a,1,1\nx,1,1\n", encoding="utf-8")
    text = run("--manual", str(tmp_path / "hand.csv"), code=1).stderr
    assert "row 3" in text and "row 4" in text
    assert json.loads(run("--versions", "--json").stdout) == []
    assert "not a month" in run("--month", "2026-9", code=1).stderr
