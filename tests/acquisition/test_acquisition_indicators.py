"""Indicators of a day on a real database: every number is counted again, slot by slot, from what was put in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from fuhe.acquisition.config import CycleConfig
from fuhe.acquisition.cycles import slot_labels_us
from fuhe.acquisition.indicators import day_indicators
from fuhe.acquisition.io.ledgerstore import DatabaseLedger
from fuhe.acquisition.ledger import curve_marks, tracks
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.acquisition.recall import Exemption, Recaller
from fuhe.model.devices import Device, Point
from fuhe.model.quality import Quality, Source
from fuhe.model.quantities import quantity
from fuhe.model.readings import CurveBlock, ReadingBatch, samples_from_rows
from fuhe.model.times import US, day_start_us, from_us
from fuhe.storage.batches import encode_batches
from fuhe.storage.database import Database
from fuhe.storage.devices import apply_devices, load_devices
from fuhe.storage.journal import Journal
from fuhe.storage.writer import JournalWriter

DAY = date(2026, 9, 20)
LABELS = slot_labels_us(DAY)
MIN = 60 * US
HOUR = 60 * MIN
NOW = day_start_us(DAY + timedelta(days=4))
CONFIG = CycleConfig()
PROFILES = builtin_profiles()
POWER, REGISTER = quantity("active_power_total").id, quantity("forward_active_total").id
METERS = [
    Device(
        id=0, name=f"m{n}", link="bus", profile="mqtt-v1", address=f"m{n}", points=(Point(id=0, name=f"p{n}"),),
        options={},
    )
    for n in (1, 2)
]  # fmt: skip
Put = Callable[..., None]


@pytest.fixture
def devices(database: Database) -> list[Device]:
    with database.connect("owner") as owner:
        apply_devices(owner, METERS)
    with database.connect(autocommit=True) as connection:
        return sorted(load_devices(connection), key=lambda d: d.name)


@pytest.fixture
def put(database: Database, tmp_path: Path) -> Iterator[Put]:
    """`put(received_us, *blocks, samples=rows)`: through the journal, as it came."""
    with Journal(tmp_path / "journal") as journal:
        writer = JournalWriter(database, journal, now_us=lambda: NOW)
        writer.marks = frozenset(quantity(n).id for n in curve_marks(PROFILES.values()))

        def one(received_us: int, *blocks: CurveBlock, samples: Any = ()) -> None:
            found = samples_from_rows(list(samples)) if samples else None
            batch = ReadingBatch(received_us=received_us, curves=blocks, samples=found)
            journal.append(encode_batches([batch])).result(10)
            writer.drain_all()

        yield one
        writer.close()


def curve(point: int, first: int, values: list[float], quality: int = Quality.A) -> CurveBlock:
    return CurveBlock(
        np.array([point], np.int32), np.array([POWER], np.int16), np.array([LABELS[first]]), 900,
        np.array([values]), np.full((1, len(values)), quality, np.int16),
    )  # fmt: skip


def indicators(db: Any, devices: list[Device], exemptions: list[Exemption] | None = None) -> dict[str, dict[str, Any]]:
    store = DatabaseLedger(db)
    made = Recaller(tracks(devices, PROFILES, CONFIG), store, store, CONFIG, exemptions or store.exemptions(devices))
    return {
        str(i.duty): {k.name: (k.numerator, k.denominator) for k in i.kpis} | {
            "exempt": i.kpis[0].exempt, "unknown": i.unknown,
        }
        for i in day_indicators(made, store, CONFIG, DAY, NOW)
    }  # fmt: skip


def test_curves_are_judged_by_when_each_slot_arrived(
    db: psycopg.Connection[Any], devices: list[Device], put: Put
) -> None:
    one, two = (d.points[0].id for d in devices)
    for hour in range(12):  # twelve hours come hourly, two minutes after the hour: the last slot in time
        put(int(LABELS[4 * hour + 3]) + 2 * MIN, curve(one, 4 * hour, [1.0] * 4))
    put(int(LABELS[95]) + 10 * HOUR, curve(one, 48, [1.0] * 24))  # by recall: ten hours after the day
    put(int(LABELS[95]) + 40 * HOUR, curve(one, 72, [1.0] * 20, Quality.S))  # too late, and suspect
    put(int(LABELS[0]) + 15 * MIN, curve(two, 0, [1.0, np.nan, 2.0]))  # exactly in time, and one early
    found = indicators(db, devices)["curve"]
    due = 192
    grace_s = CONFIG.curve_s + 120 + CONFIG.spread_s + 600
    arrived = np.zeros((2, 96), np.int64)
    for hour in range(12):
        arrived[0, 4 * hour : 4 * hour + 4] = LABELS[4 * hour + 3] + 2 * MIN
    arrived[0, 48:72], arrived[0, 72:92] = LABELS[95] + 10 * HOUR, LABELS[95] + 40 * HOUR
    arrived[1, [0, 2]] = LABELS[0] + 15 * MIN

    def count(limit_us: int) -> int:
        return sum(
            1 for row in arrived for at, label in zip(row, LABELS, strict=True) if at and at - label <= limit_us
        )  # fmt: skip

    assert found["timeliness"] == (count(15 * MIN), due) == (12 + 2, due)
    assert found["first_pass_success"] == (count(grace_s * US), due) == (48 + 2, due)
    assert found["period_success"] == (count(24 * HOUR), due)
    assert found["completeness"] == (48 + 24 + 2, due), "suspect values do not count as valid"
    assert (found["exempt"], found["unknown"]) == (0, 0)


def test_slots_from_before_arrivals_were_kept_are_complete_and_told_as_unknown(
    db: psycopg.Connection[Any], devices: list[Device], put: Put, database: Database
) -> None:
    put(int(LABELS[95]), curve(devices[0].points[0].id, 0, [1.0] * 96))
    with database.connect("owner") as owner:
        owner.execute("DELETE FROM curve_arrival")
    found = indicators(db, devices)["curve"]
    assert found["completeness"] == (96, 192) and found["unknown"] == 96
    assert found["timeliness"] == found["period_success"] == (0, 192)


def test_freezes_are_in_time_until_eight(db: psycopg.Connection[Any], devices: list[Device], put: Put) -> None:
    label = day_start_us(DAY + timedelta(days=1))
    one, two = (d.points[0].id for d in devices)
    put(label + 8 * HOUR, samples=[(label, one, REGISTER, 5.0, 0, Source.DAILY)])
    put(label + 9 * HOUR, samples=[(label, one, REGISTER, 5.0, 0, Source.DAILY)])  # again, later: nothing changes
    put(label + 8 * HOUR + 1, samples=[(label, two, REGISTER, 5.0, 0, Source.DAILY)])
    found = indicators(db, devices)["daily"]
    assert found["period_success"] == (1, 2) and found["completeness"] == (2, 2) and found["timeliness"] == (0, 2)


def test_live_values_count_once_a_period_with_a_little_play_at_its_edges(
    db: psycopg.Connection[Any], devices: list[Device], put: Put
) -> None:
    one, two = (d.points[0].id for d in devices)
    for n in range(96):  # published every quarter of an hour, now a little before, now a little after the edge
        at = int(LABELS[n]) + (20 * US if n % 2 else -20 * US)
        put(at + US, samples=[(at, one, POWER, 1.0, 0, Source.LIVE)])
    at = int(LABELS[10]) - 5 * MIN
    put(at, samples=[(at, two, POWER, 1.0, 0, Source.LIVE), (at + MIN, two, POWER, 1.0, 0, Source.LIVE)])
    put(at, samples=[(at + 900 * US, two, POWER, 1.0, 0, Source.DAILY)])  # no live value
    found = indicators(db, devices)["live"]
    assert found["completeness"] == (96 + 1, 192) and found["timeliness"] == (96 + 1, 192)


def test_each_point_by_itself_adds_up_to_the_day(db: psycopg.Connection[Any], devices: list[Device], put: Put) -> None:
    one, two = (d.points[0].id for d in devices)
    put(int(LABELS[40]), curve(one, 0, [1.0] * 40))
    put(int(LABELS[95]), curve(two, 90, [1.0] * 6))
    store = DatabaseLedger(db)
    made = Recaller(tracks(devices, PROFILES, CONFIG), store, store, CONFIG)
    rows = [i for i in day_indicators(made, store, CONFIG, DAY, NOW, by_point=True) if i.duty == "curve"]
    assert {i.point: {k.name: (k.numerator, k.denominator) for k in i.kpis}["completeness"] for i in rows} == {
        one: (40, 96), two: (6, 96),
    }  # fmt: skip
    whole = indicators(db, devices)["curve"]
    for n, kpi in enumerate(rows[0].kpis):
        assert whole[kpi.name][0] == sum(i.kpis[n].numerator for i in rows)


def test_registered_exemptions_are_listed_apart(db: psycopg.Connection[Any], devices: list[Device], put: Put) -> None:
    one = devices[0]
    put(int(LABELS[50]), curve(one.points[0].id, 0, [1.0] * 96))
    noon, day = day_start_us(DAY) + 12 * HOUR, day_start_us(DAY)
    add = (
        "INSERT INTO exemption (device, point, since, until, kind, reason, made_by, made_at)"
        " VALUES (%s, %s, %s, %s, 'outage', 'line down', 'li', now())"
    )
    db.execute(add, (one.id, one.points[0].id, from_us(noon), None))  # labels after 12:00, for ever
    db.execute(add, (devices[1].id, None, from_us(day), from_us(day + 24 * HOUR)))  # the whole day with its 24:00
    found = indicators(db, devices)
    assert found["curve"]["exempt"] == 48 + 96 and found["curve"]["completeness"] == (48, 48)
    assert found["daily"]["exempt"] == 2 and found["daily"]["completeness"] == (0, 0)
    assert found["live"]["exempt"] == 48 + 96
    db.execute("UPDATE exemption SET withdrawn_by = 'li', withdrawn_at = now(), withdrawn_reason = 'mistake'")
    assert indicators(db, devices)["curve"] | {"unknown": 0} == indicators(db, devices, [])["curve"]
    assert indicators(db, devices)["curve"]["exempt"] == 0
