"""Forecasts of stored loads: only what had been received counts, what was issued stays, control does not teach."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import psycopg
import pytest
import yaml
from click.testing import CliRunner
from psycopg.types.json import Jsonb

from fuhe.analytics.masks import F8
from fuhe.cli import root
from fuhe.daemon.forecast import due, forecast_day, forecast_hours, forecast_month, forecast_week, issue
from fuhe.daemon.forecast_config import ForecastConfig
from fuhe.daemon.forecast_data import Loads, load_history, members
from fuhe.daemon.forecast_score import backtest, means, score_issued
from fuhe.daemon.forecast_worker import Question, answer
from fuhe.daemon.forecasts import ForecastCycle
from fuhe.model.archive import Customer, MeteringPoint
from fuhe.model.devices import Device, Point
from fuhe.model.quality import Quality
from fuhe.model.quantities import quantity
from fuhe.model.readings import CurveBlock, ReadingBatch
from fuhe.model.times import DAY_US, day_start_us, from_us, to_us
from fuhe.protocols.common.errors import UsageError
from fuhe.storage.batches import encode_batches
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.devices import apply_devices
from fuhe.storage.forecasts import WeatherRow, insert_forecast, insert_weather, list_forecasts, load_weather
from fuhe.storage.journal import Journal
from fuhe.storage.layers import LayerWriter, numbers_of
from fuhe.storage.partitions import Partitions
from fuhe.storage.writer import JournalWriter

FIRST, DAYS = date(2025, 8, 4), 32  # a Monday; 2025 is in the calendar
LAST = FIRST + timedelta(days=DAYS - 1)
HOUR_US = 3_600_000_000
CONFIG = ForecastConfig(warm_up_days=0)
Connection = psycopg.Connection[Any]


def shape(days: int = DAYS) -> F8:
    """Primary kW (days, 96): a works that rests at the weekend, a little noise."""
    slot = np.arange(96)
    day = 300 + 150 * np.sin((slot - 30) / 96 * 2 * np.pi)
    week = np.where(np.arange(days) % 7 < 5, 1.0, 0.6)
    return day[None] * week[:, None] * (1 + 0.005 * np.random.default_rng(3).standard_normal((days, 96)))


class Store:
    """Writes days of curves as they arrive."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database, self._folder, self._count = database, folder, 0

    def put(self, point: int, first: date, kw: F8, received_us: int) -> None:
        """kw (days, 96) secondary."""
        self._count += 1
        start = day_start_us(first) + np.arange(len(kw), dtype=np.int64) * DAY_US + 900_000_000
        k = len(kw)
        block = CurveBlock(
            np.full(k, point, np.int32), np.full(k, quantity("active_power_total").id, np.int16), start, 900,
            kw, np.where(np.isfinite(kw), Quality.A, Quality.M).astype(np.int16),
        )  # fmt: skip
        with Journal(self._folder / f"journal{self._count}") as journal:
            journal.append(encode_batches([ReadingBatch(received_us=received_us, curves=[block])])).result(timeout=30)
            writer = JournalWriter(self._database, journal, now_us=lambda: received_us)
            assert writer.drain_all() == 1
            writer.close()


@pytest.fixture
def store(database: Database, tmp_path: Path) -> Store:
    devices = [
        Device(
            id=i, name=f"d{i}", link="l", profile="dlt645-2007-3p4w", address=f"{i:012d}",
            points=(Point(id=i, name=name, ct_ratio=Decimal(10)),),
        )
        for i, name in ((1, "Mill"), (2, "Shop"))
    ]  # fmt: skip
    with database.connect("owner", autocommit=True) as connection:
        apply_devices(connection, devices)
    found = Store(database, tmp_path)
    found.put(1, FIRST, shape() / 10, day_start_us(LAST + timedelta(days=1)))
    return found


def at(day: date, hour: float) -> int:
    return day_start_us(day) + int(hour * HOUR_US)


def test_a_forecast_is_issued_once_scored_and_never_changed(
    store: Store, db: Connection, server_url: Callable[[str], str]
) -> None:
    tomorrow = LAST + timedelta(days=2)
    made, number = issue(db, "point:Mill", "day", at(LAST + timedelta(days=1), 9.5), CONFIG)
    assert number is not None and made.kw.shape == (96,) and np.isfinite(made.kw).all()
    assert made.note["members"] == 1 and made.note["warnings"] == []
    assert insert_forecast(db, made) is None  # the same issue again is no second forecast
    stored = list_forecasts(db, "point:Mill", 5)
    assert [s.id for s in stored] == [number]
    assert np.array_equal(stored[0].kw, made.kw) and stored[0].inputs_hash == made.inputs_hash
    store.put(1, tomorrow, shape(40)[33:34] / 10, at(tomorrow, 24))
    (scored,) = score_issued(db, "point:Mill", tomorrow, tomorrow, at(tomorrow, 25))
    assert (scored.scores["forecast"].accuracy or 0) > 95 and scored.disturbed == 0
    assert not list(score_issued(db, "point:Mill", tomorrow, tomorrow, at(tomorrow, 25), issued_by_minute=9 * 60))
    for role in ("fuhe_app", "fuhe_owner"):
        with psycopg.connect(server_url(role), autocommit=True) as connection:
            for statement in ("UPDATE forecast SET model = 'x'", "DELETE FROM forecast", "TRUNCATE forecast"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


def test_what_arrived_after_the_issue_changes_nothing(store: Store, db: Connection) -> None:
    day = LAST + timedelta(days=2)
    issued = at(LAST + timedelta(days=1), 12)
    before = forecast_day(db, "point:Mill", day, issued, CONFIG)
    morning = np.full((1, 96), np.nan)
    morning[0, :40] = 99.0
    store.put(1, LAST + timedelta(days=1), morning, at(LAST + timedelta(days=1), 13))
    after = forecast_day(db, "point:Mill", day, issued, CONFIG)
    assert np.array_equal(before.kw, after.kw) and before.inputs_hash == after.inputs_hash
    later = forecast_day(db, "point:Mill", day, at(LAST + timedelta(days=1), 14), CONFIG)
    assert later.inputs_hash != before.inputs_hash
    # by label the morning counts as known at its own time, and the values after the issue still do not
    by_label = forecast_day(db, "point:Mill", day, at(LAST + timedelta(days=1), 6), CONFIG, by_label=True)
    morning[0, 24:40] = 77.0
    assert by_label.note["by_label"] is True
    with pytest.raises(UsageError, match="had been received"):
        forecast_day(db, "point:Mill", LAST, at(LAST - timedelta(days=1), 9), CONFIG)


def test_days_under_control_stand_as_their_baseline(
    store: Store, db: Connection, server_url: Callable[[str], str]
) -> None:
    """The trap of chapter 7: a cut that was ordered every day from 09:00 to 11:00 must not be learned."""
    begin = LAST + timedelta(days=1)
    cut = shape(40)[DAYS : DAYS + 5].copy()
    cut[:, 36:44] *= 0.86  # a seventh: too little to be taken for a fault of the data
    store.put(1, begin, cut / 10, at(begin + timedelta(days=5), 0))
    issued, day = at(begin + timedelta(days=5), 9), begin + timedelta(days=6)
    taught = forecast_day(db, "point:Mill", day, issued, CONFIG)
    with psycopg.connect(server_url("fuhe"), autocommit=True) as admin:
        admin.execute("SET session_replication_role = replica")  # the record alone: its way there is tested elsewhere
        for i in range(5):
            sent = from_us(at(begin + timedelta(days=i), 9))
            admin.execute(
                "INSERT INTO command (device_seq, environment, state, order_id, proposal_id, position, plan_id,"
                " plan_row, device_id, round, rounds, customer, expected_kw, round_kw, floor_kw, not_before, not_after,"
                " created_at, changed_at, sent_at, restored_at) VALUES (%s, 'test', 'CLOSED', 1, 1, 1, 1, 1, 1, 1,"
                " '{1}', 'Mill', 1, 1, 0, %s, %s, %s, %s, %s, %s)",
                (i + 1, *[sent] * 5, from_us(at(begin + timedelta(days=i), 11))),
            )
    loads = load_history(
        db,
        members(db, "point:Mill", begin),
        begin,
        begin + timedelta(days=4),
        known_by_us=issued,
        received_by_us=issued,
    )
    assert loads.disturbed[0].sum() == 12 and loads.disturbed[0, 36:48].all()  # the rebound of an hour as well
    assert loads.measured[0, 40] == pytest.approx(cut[0, 40], rel=1e-3)
    made = forecast_day(db, "point:Mill", day, issued, CONFIG)
    assert made.kw[38:42].mean() == pytest.approx(shape()[:5, 38:42].mean(), rel=0.02)
    assert taught.kw[38:42].mean() < 0.96 * made.kw[38:42].mean()
    assert made.note["baseline_slots"] == 60


def test_a_judged_day_is_its_final_load_in_the_version_of_the_instant(store: Store, db: Connection) -> None:
    final = shape()[-1:].copy()
    final[0, :4] = 1000.0  # edited by a person
    quality = np.zeros((1, 96), np.int16)
    quality[0, :4], quality[0, 4:8] = Quality.U, Quality.E3
    numbers = numbers_of([1], quantity("load_power").id, 2, final, quality)
    head = dict.fromkeys(("suspect", "rejected", "missing", "estimated", "edited", "person", "basis", "why"), 0)
    rest = dict.fromkeys(("net_kwh", "import_kwh", "export_kwh", "like_days", "edits"))
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 96), np.int16))
    with db.transaction():
        LayerWriter(Partitions(False, 1100)).write(db, LAST, LAST, {1: {**head, **rest, "version": 1}}, numbers, none)
    points = members(db, "point:Mill", LAST)

    def loads(received_by_us: int | None) -> Loads:
        return load_history(db, points, LAST, LAST, known_by_us=at(LAST, 48), received_by_us=received_by_us)

    made = to_us(datetime.now(UTC)) + 60_000_000
    assert loads(at(LAST, 48)).kw[0] == pytest.approx(shape()[-1], abs=1e-3)  # not judged yet at that instant
    assert loads(made).kw[0] == pytest.approx(final[0], abs=0.01)
    assert np.isnan(loads(made).measured[0, 4:8]).all() and loads(made).measured[0, 0] == 1000
    assert np.isnan(loads(None).kw[0, 4:8]).all()  # an estimate may rest on what came later


def test_every_horizon_and_what_is_due(store: Store, db: Connection, storage_config: StorageConfig) -> None:
    config = replace_config(objects=("total", "point:Shop"), intraday=("total",))
    today = LAST + timedelta(days=1)
    assert due(db, config, at(today, 9)) == [("total", "intraday")]
    asked = due(db, config, at(today, 9.6))
    assert [a for a in asked if a[0] == "total"] == [("total", h) for h in ("day", "week", "month", "intraday")]
    made = answer(Question(storage=storage_config, forecast=config, now_us=at(today, 9.6)))
    assert {m.object for m in made if m.error} == {"point:Shop"}  # it has no reading; the others have theirs
    assert due(db, config, at(today, 9.6)) == [("point:Shop", h) for h in ("day", "week", "month")]
    assert ("total", "day") in due(db, config, at(today, 16.2))
    assert ("total", "week") not in due(db, config, at(today, 16.2))
    week = forecast_week(db, "total", at(today, 10), config)
    month = forecast_month(db, "total", at(today, 10), config)
    hours = forecast_hours(db, "total", at(today, 10), config)
    assert (week.kw.shape, month.kw.shape, hours.kw.shape) == ((672,), (25,), (16,))
    assert all(np.isfinite(f.kw).all() and (f.kw > 0).all() for f in (week, month, hours))
    note = month.note
    assert note["month"] == "2025-09" and note["low_kw"] <= note["maximum_kw"] <= note["high_kw"]
    assert note["maximum_kw"] == pytest.approx(450, rel=0.1)


def test_an_order_to_a_customer_who_reduces_by_himself_is_a_window(
    store: Store, db: Connection, server_url: Callable[[str], str]
) -> None:
    start, end, over = (from_us(at(LAST, hour)) for hour in (9, 12, 11))
    with psycopg.connect(server_url("fuhe"), autocommit=True) as admin:
        admin.execute("SET session_replication_role = replica")
        admin.execute(
            "INSERT INTO order_ (number, issuer, area, level, gap_kw, start_at, end_at, state, received_at, receiver,"
            " receiver_session, changed_at) VALUES ('D-1', 'x', 'a', 'IV', 1, %s, %s, 'ENDED', %s, 1, 1, %s)",
            (start, end, start, over),
        )
        admin.execute(
            "INSERT INTO plan_row (plan_id, row, seq, measure, level, group_, customer, device_id, round, reducible_kw,"
            " limit_kw, security_kw, class, contact, notice, last_test, importance, supply, voluntary, ufls, alarm_min)"
            " VALUES (1, 1, 1, 'avoid', 'IV', 'A', 'Mill', 1, 1, 1, 0, 0, 'N', '', '', now(), 1, 'single', true, '', 0)"
        )
        admin.execute(
            "INSERT INTO command (device_seq, environment, state, order_id, proposal_id, position, plan_id, plan_row,"
            " device_id, round, rounds, customer, expected_kw, round_kw, floor_kw, not_before, not_after, created_at,"
            " changed_at) SELECT 1, 'test', 'EXPIRED', id, 1, 1, 1, 1, 1, 1, '{1}', 'Mill', 1, 1, 0, start_at, end_at,"
            " start_at, end_at FROM order_"
        )
    loads = load_history(
        db, members(db, "point:Mill", LAST), FIRST, LAST, known_by_us=at(LAST, 24), received_by_us=None
    )  # fmt: skip
    assert np.flatnonzero(loads.disturbed.reshape(-1)).tolist() == list(
        range((DAYS - 1) * 96 + 36, (DAYS - 1) * 96 + 48)
    )
    assert np.array_equal(loads.replaced, loads.disturbed)


async def test_the_daemon_has_it_done_by_a_process_of_its_own(
    store: Store, database: Database, storage_config: StorageConfig, db: Connection
) -> None:
    class Clock:
        def now_us(self) -> int:
            return at(LAST + timedelta(days=1), 9.6)

    config = replace_config(objects=("point:Mill", "point:Shop"))
    cycle = ForecastCycle(database, storage_config, config, cast(Any, Clock()))
    await cycle.step()
    found = list_forecasts(db, None, 10)
    assert sorted((f.object, f.horizon) for f in found) == [("point:Mill", h) for h in ("day", "month", "week")]
    assert {f.issued_us for f in found} == {at(LAST + timedelta(days=1), 9.6)}
    await cycle.step()  # the one without readings is not tried again at once, and nothing is due twice
    assert len(list_forecasts(db, None, 10)) == 3


def test_customers_feeders_and_classes_are_sums_of_their_billing_points(store: Store, db: Connection) -> None:
    versions = [
        (
            "customers",
            "C1",
            Customer(cons_no="C1", name="Works", running_kva=Decimal(1000), industry="31", importance="second"),
        ),
        ("points", "Mill", MeteringPoint(point="Mill", customer="C1", feeder="F7")),
        ("points", "Shop", MeteringPoint(point="Shop", customer="C1", feeder="F7", role="check")),
    ]
    for entity, key, record in versions:
        db.execute(
            "INSERT INTO archive_version (entity, key, valid_from, content, changed_by, reason, recorded_at)"
            " VALUES (%s, %s, %s, %s, 'li', 'test', now())",
            (entity, key, from_us(at(FIRST, 0)), Jsonb(msgspec.to_builtins(record))),
        )
    for wanted in ("total", "key", "customer:C1", "feeder:F7", "class:31", "class:second"):
        assert [p.name for p in members(db, wanted, LAST)] == ["Mill"], wanted
    assert [p.name for p in members(db, "set:Shop,Mill", LAST)] == ["Shop", "Mill"]
    assert [p.name for p in members(db, "total", FIRST - timedelta(days=1))] == ["Mill", "Shop"]
    with pytest.raises(UsageError, match="no metering point belongs to it"):
        members(db, "feeder:F8", LAST)


def replace_config(**changes: Any) -> ForecastConfig:
    return msgspec.structs.replace(CONFIG, **changes)


def test_a_backtest_by_label_beats_the_naive_models_and_says_what_it_is(
    store: Store, db: Connection, storage_config: StorageConfig, tmp_path: Path
) -> None:
    first = LAST - timedelta(days=6)
    days = list(backtest(db, "total", first, LAST, 570, CONFIG, at(LAST, 40), by_label=True))
    assert [d.day for d in days] == [first + timedelta(days=i) for i in range(7)]
    found = means(days)
    assert (found["forecast"]["accuracy"] or 0) > (found["yesterday"]["accuracy"] or 0)
    path, plot = tmp_path / "config.yaml", tmp_path / "day.svg"
    path.write_text(
        yaml.safe_dump({"storage": {"dsn": storage_config.dsn, "admin_dsn": storage_config.admin_dsn}}), "utf-8"
    )

    def fuhe(*words: str) -> Any:
        return CliRunner().invoke(root, ["--lang", "en", "-c", str(path), "forecast", *words])

    said = fuhe("backtest", "--from", str(first), "--to", str(LAST), "--by-label", "--plot", str(plot))
    assert said.exit_code == 0 and "mean of days" in said.output and "by label" in said.output
    assert b"<svg" in plot.read_bytes()[:500]
    strict = fuhe("backtest", "--from", str(first), "--to", str(LAST))
    assert strict.exit_code == 1 and "had been received" in strict.output
    shown = fuhe("run", "--object", "point:Mill", "--day", str(LAST + timedelta(days=2)), "--issue",
                 f"{LAST + timedelta(days=1)} 09:30", "--json")  # fmt: skip
    (one,) = json.loads(shown.stdout)
    assert one["stored"] is False and len(one["kw"]) == 96
    assert "did you mean Mill" in fuhe("run", "--object", "point:Mil").output
    assert "is no object" in fuhe("run", "--object", "county").output
    assert fuhe("show", "--object", "total", "--day", str(LAST)).exit_code == 1


def test_weather_is_known_as_it_was_forecast(db: Connection, server_url: Callable[[str], str]) -> None:
    def row(issued: int, value: float) -> WeatherRow:
        return WeatherRow(
            place="city", quantity="tmax_c", time_us=day_start_us(LAST), daily=True, issued_us=issued, value=value
        )

    early, late = at(LAST - timedelta(days=1), 8), at(LAST, 8)
    assert insert_weather(db, [row(early, 20.0), row(late, 30.0)]) == 2
    assert insert_weather(db, [row(early, 25.0)]) == 0  # what was issued stays
    found = load_weather(db, "city", FIRST, LAST, at(LAST - timedelta(days=1), 9))
    assert found["tmax_c"].value.tolist() == [20.0] and found["tmax_c"].daily
    assert load_weather(db, "city", FIRST, LAST, at(LAST, 9))["tmax_c"].value.tolist() == [20.0, 30.0]
    with (
        psycopg.connect(server_url("fuhe_app"), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("UPDATE weather_forecast SET value = 0")


def test_a_weather_file_with_faults_is_refused_whole(tmp_path: Path) -> None:
    from fuhe.commands.forecast import weather_rows

    path = tmp_path / "w.csv"
    path.write_text("issued,time,tmax_c\n2025-08-01 08:00,2025-08-02,30\n2025-08-05 08:00,2025-08-03,31\n")
    with pytest.raises(UsageError, match="row 3: issued after its own time"):
        weather_rows(path, "city", None, "time")
    path.write_text("time,tmax_c\n2025-08-02,30\n2025-08-03,\n")
    with pytest.raises(UsageError, match="issue time"):
        weather_rows(path, "city", None, "time")
    rows = weather_rows(path, "city", "2025-08-01 08:00", "time")
    assert [(r.quantity, r.value, r.daily) for r in rows] == [("tmax_c", 30.0, True)]


def test_a_wrong_section_of_the_configuration_is_named(tmp_path: Path) -> None:
    from fuhe.daemon.config import load_config

    path = tmp_path / "config.yaml"
    path.write_text("forecast: {at: ['25:00'], intraday_hours: 0}\n")
    with pytest.raises(UsageError, match=r"forecast.at: '25:00'(.|\n)*forecast.intraday_hours"):
        load_config(path)
