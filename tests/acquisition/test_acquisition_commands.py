"""`fuhe device`, `fuhe recall`, `fuhe gaps` against a real database; a thread answers in the daemon's place."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import yaml
from click.testing import CliRunner, Result

from fuhe.acquisition.config import CycleConfig
from fuhe.acquisition.cycles import curve_window, freeze_window, slot_labels_us
from fuhe.acquisition.io.ledgerstore import DatabaseLedger
from fuhe.acquisition.ledger import tracks
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.acquisition.recall import Recaller
from fuhe.acquisition.requests import READ, RECALL, answer_of, item_of
from fuhe.cli import root
from fuhe.model.lang import set_lang
from fuhe.model.quality import Source
from fuhe.model.quantities import quantity
from fuhe.model.readings import CurveBlock, ReadingBatch, samples_from_rows
from fuhe.model.times import US, business_day, day_start_us, from_us
from fuhe.model.work import Duty, ItemFault, Outcome, Priority, Status
from fuhe.protocols.common.errors import UsageError
from fuhe.storage import requests
from fuhe.storage.batches import encode_batches
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.devices import load_devices
from fuhe.storage.journal import Journal
from fuhe.storage.writer import JournalWriter

CSV = """name,link,profile,address,point,pn,kind,ct_ratio,pt_ratio,contract_kva,nominal_v,wiring,enabled,secret,options
m1,bus,dlt645-2007-3p4w,1,p1,1,measuring,200,1,315,220,3P4W,yes,,
m2,bus,dlt645-2007-1p,2,p2,1,measuring,1,1,,,1P,no,,since=2026-09-01
"""
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _english() -> None:
    set_lang("en")


@pytest.fixture
def run(tmp_path: Path, storage_config: StorageConfig) -> Run:
    stored = {name: getattr(storage_config, name) for name in ("data_dir", "dsn", "admin_dsn")}
    config = {
        "storage": stored,
        "links": [{"name": "bus", "kind": "serial", "port": "/dev/null", "baud": 1200}],
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    (tmp_path / "list.csv").write_text(CSV, encoding="utf-8")

    def call(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(root, ["-c", str(path), *words])
        assert result.exit_code == code, result.output + result.stderr
        return result

    return call


def from_json(result: Result) -> Any:
    return json.loads(result.stdout)


def test_import_show_list_export(run: Run, tmp_path: Path) -> None:
    file = str(tmp_path / "list.csv")
    preview = run("device", "import", file, "--dry-run").stdout
    assert "+ m1" in preview and "2 added, 0 changed" in preview and "nothing was changed" in preview
    assert from_json(run("device", "list", "--json")) == []
    assert from_json(run("device", "import", file, "--json"))["applied"] is True
    devices = from_json(run("device", "list", "--json"))
    assert [(d["name"], d["address"], d["enabled"]) for d in devices] == [
        ("m1", "000000000001", True),
        ("m2", "000000000002", False),
    ]
    assert "2 devices" in run("device", "list").stdout
    shown = run("device", "show", "m1").stdout
    assert "K = 200 x 1" in shown and "never heard of" in shown and "0201FF00" in shown
    assert from_json(run("device", "show", "m1", "--json"))["device"]["points"][0]["name"] == "p1"
    out = tmp_path / "out.csv"
    run("device", "export", str(out))
    assert run("device", "export").stdout_bytes == out.read_bytes()
    assert run("device", "import", str(out)).stdout.startswith("0 added, 0 changed, 0 not in the file, 2 unchanged")
    run("device", "export", str(tmp_path / "again.csv"))
    assert (tmp_path / "again.csv").read_bytes() == out.read_bytes()


def test_a_faulty_file_changes_nothing_and_names_every_fault(run: Run, tmp_path: Path) -> None:
    run("device", "import", str(tmp_path / "list.csv"))
    bad = tmp_path / "bad.csv"
    bad.write_text(CSV.replace("m1,bus", "m1,nowhere").replace(",1P,no", ",9P,perhaps"), encoding="utf-8")
    result = run("device", "import", str(bad), code=1)
    for place in ("row 2, link", "row 3, wiring", "row 3, enabled", "3 faults, nothing was imported"):
        assert place in result.stderr
    assert [f["row"] for f in from_json(run("device", "import", str(bad), "--json", code=1))["faults"]] == [2, 3, 3]
    assert [d["link"] for d in from_json(run("device", "list", "--json"))] == ["bus", "bus"]


def test_an_address_of_a_device_outside_the_file_is_a_conflict(run: Run, tmp_path: Path) -> None:
    run("device", "import", str(tmp_path / "list.csv"))
    other = tmp_path / "other.csv"
    other.write_text("name,link,profile,address\nm9,bus,dlt645-2007-1p,1\n", encoding="utf-8")
    assert "belongs to m1" in run("device", "import", str(other), code=1).stderr
    run("device", "import", str(other), "--disable-missing")
    assert {d["name"]: d["enabled"] for d in from_json(run("device", "list", "--json"))} == {
        "m1": False, "m2": False, "m9": True,
    }  # fmt: skip


def test_an_overloaded_line_is_refused_unless_forced(run: Run, tmp_path: Path) -> None:
    many = tmp_path / "many.csv"
    rows = "".join(f"n{i:03},bus,dlt645-2007-3p4w,{i}\n" for i in range(1, 201))
    many.write_text("name,link,profile,address\n" + rows, encoding="utf-8")
    result = run("device", "import", str(many), code=1)
    assert "of the line's time is wanted" in result.stdout and "does not fit bus" in result.stderr
    assert from_json(run("device", "list", "--json")) == []
    run("device", "import", str(many), "--overload")
    plan = from_json(run("device", "plan", "--json", code=1))
    assert plan[0]["fits"] is False and plan[0]["devices"] == 200 and plan[0]["advice"]
    assert "move " in run("device", "plan", code=1).stdout


def test_chinese_output(run: Run, tmp_path: Path) -> None:
    assert "已导入" in run("--lang", "zh", "device", "import", str(tmp_path / "list.csv")).stdout
    assert "没有设备" in run("--lang", "zh", "device", "show", "x", code=1).stderr


@pytest.fixture
def daemon(database: Database) -> Iterator[Callable[[dict[str, Any], bool], list[requests.Request]]]:
    """Answers the next question in a thread, as the daemon does; returns the list of what was asked."""
    threads: list[threading.Thread] = []
    ended = threading.Event()

    def answering(value: dict[str, Any], failed: bool = False) -> list[requests.Request]:
        asked: list[requests.Request] = []

        def work() -> None:
            with database.connect(autocommit=True) as connection:
                for found in requests.listen(connection, ended.is_set, wait_s=0.2):
                    for request in (r for r in found if r.kind in (READ, RECALL)):
                        asked.append(request)
                        requests.answer(connection, request.id, value, failed=failed)
                        return

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return asked

    yield answering
    ended.set()
    for thread in threads:
        thread.join()


Daemon = Callable[..., list[requests.Request]]


def test_read_prints_values_with_unit_quality_and_time(run: Run, tmp_path: Path, daemon: Daemon) -> None:
    run("device", "import", str(tmp_path / "list.csv"))
    point = from_json(run("device", "show", "m1", "--json"))["device"]["points"][0]["id"]
    at = day_start_us(date(2026, 9, 21))
    batch = ReadingBatch(
        received_us=at, samples=samples_from_rows([(at, point, quantity("voltage_a").id, 231.5, 0, int(Source.LIVE))])
    )
    fault = ItemFault(item="0202FF00", reason="no data")
    outcome = Outcome(status=Status.PARTIAL, batch=batch, faults=(fault,))
    asked = daemon(answer_of(outcome))
    result = run("device", "read", "m1", "--item", "0201ff00", "--item", "voltage_a")
    assert asked[0].params == {"duty": "live", "items": ["0201FF00", "voltage_a"]}
    row = next(line for line in result.stdout.splitlines() if "voltage_a" in line)
    assert row.split() == ["p1", "voltage_a", "231.5", "V", "A", "2026-09-21", "00:00:00"]
    assert "0202FF00: no data" in result.stderr
    daemon(answer_of(outcome))
    assert from_json(run("device", "read", "m1", "--json"))["values"][0]["value"] == 231.5


def test_read_failures_say_why(run: Run, tmp_path: Path, daemon: Daemon) -> None:
    run("device", "import", str(tmp_path / "list.csv"))
    daemon(answer_of(Outcome(status=Status.SILENT, reason="no answer in 3 tries")))
    assert "no answer in 3 tries" in run("device", "read", "m1", code=1).stderr
    daemon({"error": "the daemon stops"}, failed=True)
    assert "the daemon stops" in run("device", "read", "m1", code=1).stderr
    assert "is disabled" in run("device", "read", "m2", code=1).stderr
    assert "fuhe run" in run("device", "read", "m1", "--timeout", "1", code=1).stderr


def test_recall_asks_for_whole_business_days(run: Run, tmp_path: Path, daemon: Daemon) -> None:
    run("device", "import", str(tmp_path / "list.csv"))
    asked = daemon({**answer_of(Outcome(status=Status.DONE)), "stored": 192})
    assert "192 values stored" in run("recall", "m1", "--from", "2026-09-19", "--to", "2026-09-20").stdout
    first, last = curve_window(date(2026, 9, 19)), curve_window(date(2026, 9, 20))
    assert asked[0].kind == RECALL
    assert asked[0].params == {"duty": "curve", "items": [], "from_us": first[0], "to_us": last[1]}
    asked = daemon(answer_of(Outcome(status=Status.DONE)))
    run("recall", "m1", "--from", "2026-09-20", "--duty", "daily")
    window = freeze_window(date(2026, 9, 20))
    assert (asked[0].params["from_us"], asked[0].params["to_us"]) == window
    assert "lies after" in run("recall", "m1", "--from", "2026-09-20", "--to", "2026-09-01", code=1).stderr
    assert "YYYY-MM-DD" in run("recall", "m1", "--from", "tuesday", code=1).stderr


@pytest.fixture
def write(database: Database, tmp_path: Path, fake_clock: Any) -> Iterator[Callable[[ReadingBatch], None]]:
    """Batches into the database by the way that readings go."""
    with Journal(tmp_path / "journal") as journal:
        writer = JournalWriter(database, journal, now_us=fake_clock.now_us)

        def put(batch: ReadingBatch) -> None:
            journal.append(encode_batches([batch])).result(10)
            writer.drain_all()

        yield put
        writer.close()


def test_gaps_shows_holes_and_their_recall(
    run: Run, tmp_path: Path, db: psycopg.Connection[Any], fake_clock: Any, write: Callable[[ReadingBatch], None]
) -> None:
    run("device", "import", str(tmp_path / "list.csv"))
    device = next(d for d in load_devices(db) if d.name == "m1")
    now_us = fake_clock.now_us()
    day = business_day(now_us) - timedelta(days=1)
    labels = slot_labels_us(day)
    values = np.full((4, 96), 1.0)
    values[1, 8:12] = np.nan
    marks = ("voltage_a", "active_power_total", "power_factor_total", "forward_active_total")
    block = CurveBlock(
        np.full(4, device.points[0].id, np.int32),
        np.array([quantity(m).id for m in marks], np.int16),
        np.full(4, labels[0], np.int64),
        900,
        values,
        np.zeros((4, 96), np.int16),
    )
    write(ReadingBatch(received_us=now_us, curves=(block,)))
    found = from_json(run("gaps", "--day", str(day), "--json"))
    assert [(h["data"], h["first"][-5:], h["last"][-5:], h["slots"], h["recall"]) for h in found["holes"]] == [
        ("curve 2", "02:15", "03:00", 4, "not yet"),
        ("daily", "00:00", "00:00", 1, "not yet"),
    ]
    assert found["totals"]["curve"] == [380, 384]
    due = from_json(run("gaps", "--kpi", "--day", str(day), "--json"))["indicators"]
    assert {r["denominator"] for r in due} == {0}, "nothing is due before the device was in the list"
    db.execute("UPDATE device SET imported = NULL")
    rows = from_json(run("gaps", "--kpi", "--day", str(day), "--json"))["indicators"]
    complete = next(r for r in rows if (r["duty"], r["indicator"]) == ("curve", "completeness"))
    assert (complete["numerator"], complete["denominator"], complete["point"]) == (380, 384, None)
    assert complete["alarm"] is True
    points = from_json(run("gaps", "--kpi", "--points", "--day", str(day), "--json"))["indicators"]
    assert {r["point"] for r in points} == {"p1"}
    assert "p1" in run("gaps", "--kpi", "--points", "--day", str(day)).stdout
    assert "--kpi" in run("gaps", "--points", code=1).stderr

    store = DatabaseLedger(db)
    recaller = Recaller(tracks([device], builtin_profiles()), store, store, CycleConfig())
    result = recaller.scan(now_us, 1)
    assert result.opened >= 2
    leased = recaller.due(now_us, 0.0, 100)
    assert leased[0][1].duty is Duty.DAILY and recaller.due(now_us, 0.0, 100) == []
    row, item = next(pair for pair in leased if pair[1].items == ("2",))
    assert item.window_us == (int(labels[8]), int(labels[12]))
    recaller.settle(row, Outcome(status=Status.SILENT, reason="silent"), now_us)
    hole = from_json(run("gaps", "--day", str(day), "--json"))["holes"][0]
    assert (hole["recall"], hole["attempts"], hole["next_us"]) == ("open", 1, now_us + 600_000_000)
    assert "02:15" in run("gaps", "--day", str(day)).stdout

    values[1] = 1.0
    write(ReadingBatch(received_us=now_us + 1, curves=(block,)))
    again = recaller.scan(now_us + 60_000_000, 1)
    assert again.closed == 1
    counted = {r[0]: r[1:] for r in db.execute(
        "SELECT class, due, got, first_pass FROM completeness WHERE day = %s", (day,)
    )}  # fmt: skip
    assert counted["curve:2"] == (96, 96, 92) and counted["daily"] == (1, 0, 0)


def test_requests_are_checked_before_they_reach_a_link() -> None:
    item = item_of(READ, 7, {"duty": "clock", "items": []}, 100.0, 30.0)
    assert (item.priority, item.expires_s, item.duty) == (Priority.LIVE, 130.0, Duty.CLOCK)
    item = item_of(RECALL, 7, {"duty": "curve", "from_us": 5, "to_us": 9}, 0.0)
    assert (item.priority, item.window_us) == (Priority.RECALL, (5, 9))
    for kind, params in (
        ("control", {"duty": "live"}),
        (READ, {"duty": "control"}),
        (READ, {}),
        (READ, {"duty": "live", "items": "x"}),
        (READ, {"duty": "live", "items": [1]}),
        (RECALL, {"duty": "curve"}),
        (RECALL, {"duty": "curve", "from_us": 9, "to_us": 9}),
        (RECALL, {"duty": "live", "from_us": 1, "to_us": 9}),
    ):
        with pytest.raises(UsageError):
            item_of(kind, 7, params, 0.0)


def test_a_terminal_is_in_service_since_it_is_in_the_list(
    run: Run, tmp_path: Path, db: psycopg.Connection[Any]
) -> None:
    path = tmp_path / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["links"].append({"name": "dial", "kind": "listen-tcp", "port_no": 9001, "protocol": "qgdw1376"})
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    rows = "name,link,profile,address\n" + "".join(
        f"{name},dial,qgdw1376-2013,3301-{n}\n" for n, name in enumerate(("old", "never"), 1)
    )
    (tmp_path / "terminals.csv").write_text(rows, encoding="utf-8")
    run("device", "import", str(tmp_path / "terminals.csv"))
    now_us = time.time_ns() // 1000
    day = business_day(now_us) - timedelta(days=2)
    noon = from_us(day_start_us(day) + 12 * 3600 * US)
    for name in ("old", "never"):
        db.execute("UPDATE device SET imported = %s WHERE name = %s", (noon, name))
    number = next(d.id for d in load_devices(db) if d.name == "old")
    db.execute(
        "INSERT INTO event (device, time, code, data, received) VALUES (%s, %s, 'link.online', '{}', now())",
        (number, noon + timedelta(hours=3)),
    )
    found = from_json(run("device", "online", "--from", str(day), "--json"))
    assert {t["name"]: (t["online_s"], t["service_s"]) for t in found["terminals"]} == {
        "old": (9 * 3600, 12 * 3600), "never": (0, 12 * 3600),
    }  # fmt: skip
    assert found["rate"] == 9 / 24
