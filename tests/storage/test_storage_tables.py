"""Devices, recall items, requests and states in the database; backup and restore; the verb `fuhe db`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from click.testing import CliRunner

from fuhe.commands.common import App
from fuhe.commands.db import db as db_verb
from fuhe.model.devices import Device, Point, PointKind
from fuhe.protocols.common.errors import LinkError, UsageError
from fuhe.storage import backup as backups
from fuhe.storage import migrate
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.devices import apply_devices, load_devices
from fuhe.storage.recall import (
    Completeness,
    RecallItem,
    add_recalls,
    expire_recalls,
    finish_recall,
    lease_recalls,
    list_recalls,
    load_completeness,
    put_completeness,
    reopen_recalls,
)
from fuhe.storage.requests import answer, ask, forget_old, get, listen, take, wait_answer
from fuhe.storage.server import EmbeddedServer
from fuhe.storage.state import (
    DaemonState,
    DeviceState,
    load_daemon_state,
    load_device_states,
    load_link_states,
    put_daemon_state,
    put_device_states,
    put_link_states,
)

Connection = psycopg.Connection[Any]
HOUR = 3_600_000_000


def device(name: str, *points: str, number: int = 0, **fields: Any) -> Device:
    made = tuple(Point(id=0, name=p, pn=i + 1, ct_ratio=Decimal("300")) for i, p in enumerate(points))
    return Device(
        id=number, name=name, link="line1", profile="dlt645-2007", address="000000000001", points=made, **fields
    )


def test_devices_round_trip_and_keep_their_ids(db: Connection) -> None:
    first = apply_devices(db, [device("M1", "P1", "P2", options={"password": "x"}), device("M2", "P3", number=77)])
    assert (first.added, first.changed) == (("M1", "M2"), ())
    loaded = load_devices(db)
    assert [d.name for d in loaded] == ["M1", "M2"]
    assert loaded[1].id == 77
    assert loaded[0].points[1].ct_ratio == 300
    again = apply_devices(db, [device("M1", "P1", "P2", options={"password": "x"})])
    assert (again.same, again.devices) == (("M1",), tuple(loaded))
    moved = apply_devices(db, [device("M1", "P1", "P4"), device("M3")], disable_missing=True)
    assert (moved.added, moved.changed, moved.disabled) == (("M3",), ("M1",), ("M2",))
    assert [p.name for p in moved.devices[0].points] == ["P1", "P4"]
    assert moved.devices[0].points[0].id == loaded[0].points[0].id
    assert [d.name for d in load_devices(db, enabled_only=True)] == ["M1", "M3"]
    assert db.execute("SELECT enabled FROM point WHERE name = 'P2'").fetchone() == (False,)


def test_points_of_other_kinds_keep_their_kind(db: Connection) -> None:
    kinds: tuple[PointKind, ...] = ("dc", "group", "measuring")
    points = tuple(Point(id=0, name=f"P-{k}", pn=1, kind=k) for k in kinds)
    terminal = msgspec.structs.replace(device("T1"), points=points)
    assert apply_devices(db, [terminal]).added == ("T1",)
    assert [(p.kind, p.pn) for p in load_devices(db)[0].points] == [("measuring", 1), ("group", 1), ("dc", 1)]
    assert apply_devices(db, [terminal]).same == ("T1",)
    twice = msgspec.structs.replace(terminal, points=(*points, Point(id=0, name="P-x", kind="group")))
    with pytest.raises(UsageError, match="kind, pn"):
        apply_devices(db, [twice])


def test_a_faulty_list_changes_nothing_and_names_every_fault(db: Connection) -> None:
    with pytest.raises(UsageError) as caught:
        apply_devices(db, [device("M1", "P1"), device("M1", "P2"), device("M2", "P1")])
    assert "device 2" in str(caught.value)
    assert "device 3" in str(caught.value)
    assert load_devices(db) == []


def hole(number: int, hour: int, **fields: Any) -> RecallItem:
    window = {"from_us": hour * HOUR, "to_us": (hour + 1) * HOUR, "next_us": 0, "expires_us": 100 * HOUR}
    return RecallItem(device=number, duty="curve", **(window | fields))


def test_recall_items_once_urgent_and_newest_first(db: Connection) -> None:
    assert add_recalls(db, [hole(1, 1), hole(1, 5), hole(2, 3, rank=-1, items=("06010001",))]) == 3
    assert add_recalls(db, [hole(1, 1, next_us=99)]) == 0
    leased = lease_recalls(db, 10)
    assert [(i.device, i.from_us // HOUR) for i in leased] == [(2, 3), (1, 5), (1, 1)]
    assert lease_recalls(db, 11) == []
    assert len(lease_recalls(db, 601_000_000, devices=[1])) == 2
    done, later = leased[0], leased[1]
    finish_recall(db, replace(done, state="done"))
    finish_recall(db, replace(later, attempts=1, next_us=50 * HOUR, reason="silent"))
    assert [i.id for i in lease_recalls(db, 49 * HOUR)] == [leased[2].id]
    assert [i.id for i in list_recalls(db, state="done")] == [done.id]
    assert expire_recalls(db, 100 * HOUR, "past the device's memory") == 2
    lost = list_recalls(db, state="lost", devices=[1])
    assert {i.reason for i in lost} == {"past the device's memory"}
    assert add_recalls(db, [hole(1, 1), hole(2, 3, items=("06010001",))]) == 1
    assert reopen_recalls(db, [lost[0].id], 0, 200 * HOUR, "by hand") == 1


def test_two_workers_never_get_the_same_item(database: Database, db: Connection) -> None:
    add_recalls(db, [hole(1, h) for h in range(60)])
    with database.connect() as one, database.connect() as two:
        got: list[list[int]] = [[], []]

        def work(connection: Connection, found: list[int]) -> None:
            for _ in range(20):
                found += [i.id for i in lease_recalls(connection, 1, limit=5)]

        threads = [threading.Thread(target=work, args=pair) for pair in ((one, got[0]), (two, got[1]))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(got[0]) + len(got[1]) == len(set(got[0]) | set(got[1])) == 60


def test_completeness_figures(db: Connection) -> None:
    row = Completeness(point=1, data_class="curve", day=date(2026, 9, 21), due=96, got=90, first_pass=90)
    put_completeness(db, [row])
    put_completeness(db, [Completeness(point=1, data_class="curve", day=row.day, due=96, got=96, first_pass=0)])
    found = load_completeness(db, row.day, row.day)
    assert [(r.got, r.first_pass, r.due) for r in found] == [(96, 90, 96)]


def test_the_cli_asks_and_the_daemon_answers(database: Database, db: Connection) -> None:
    stop = threading.Event()

    def daemon() -> None:
        with database.connect(autocommit=True) as connection:
            for requests in listen(connection, stop.is_set, wait_s=0.2):
                for request in requests:
                    answer(connection, request.id, {"echo": request.params}, failed=request.kind == "bad")

    thread = threading.Thread(target=daemon)
    thread.start()
    try:
        numbers = [ask(db, kind, device=1, params={"n": i}, asked_by="test") for i, kind in enumerate(("read", "bad"))]
        found = [wait_answer(db, n, 20) for n in numbers]
    finally:
        stop.set()
        thread.join()
    assert [(f.state, f.answer) for f in found] == [("done", {"echo": {"n": 0}}), ("failed", {"echo": {"n": 1}})]
    assert forget_old(db) == 0


def test_without_a_daemon_the_cli_says_so(db: Connection) -> None:
    number = ask(db, "read", device=None, params={}, asked_by="test")
    with pytest.raises(LinkError, match="fuhe run"):
        wait_answer(db, number, 0)


def test_a_restarted_daemon_fails_what_it_had_taken(db: Connection) -> None:
    number = ask(db, "read", device=None, params={}, asked_by="test")
    take(db)
    assert list(listen(db, lambda: True)) == []
    assert get(db, number).state == "failed"


def test_states(db: Connection) -> None:
    put_device_states(db, [DeviceState(device=1, online=True, last_seen_us=5_000_000, clock_offset_s=1.5)])
    put_device_states(db, [DeviceState(device=1, failures=3, quarantined=True, reason="silent", detail={"a": 1})])
    state = load_device_states(db)[1]
    assert (state.last_seen_us, state.clock_offset_s, state.quarantined) == (5_000_000, 1.5, True)
    put_link_states(db, {"line1": {"queue": 3}})
    assert load_link_states(db) == {"line1": {"queue": 3}}
    assert load_daemon_state(db) is None
    daemon = DaemonState(name="main", mode="NORMAL", reason="", started_us=1, heartbeat_us=2, detail={})
    put_daemon_state(db, daemon)
    assert load_daemon_state(db) == daemon


def new_database(pg_server: EmbeddedServer, name: str) -> Database:
    with psycopg.connect(pg_server.conninfo(dbname="postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 OWNER fuhe_owner".encode())
    return Database(
        pg_server.conninfo("fuhe_app", name), pg_server.conninfo("fuhe_owner", name), bin_dir=pg_server.bin_dir
    )


def drop(pg_server: EmbeddedServer, name: str) -> None:
    with psycopg.connect(pg_server.conninfo(dbname="postgres"), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_backup_and_restore(pg_server: EmbeddedServer, database: Database, db: Connection, tmp_path: Path) -> None:
    apply_devices(db, [device("M1", "P1")])
    db.execute("SELECT ensure_partition('sample', '2026-09-21')")
    db.execute("INSERT INTO sample SELECT '2026-09-21 00:00+08', now(), 1.25, n, 1, 1, 0 FROM generate_series(1, 50) n")
    report = backups.backup(database, tmp_path / "b.dump")
    assert report.path.stat().st_mode & 0o077 == 0
    assert report.tables > 10
    with pytest.raises(UsageError, match="exists"):
        backups.backup(database, tmp_path / "b.dump")
    with pytest.raises(UsageError, match="not empty"):
        backups.restore(database, tmp_path / "b.dump")
    cut = tmp_path / "cut.dump"
    cut.write_bytes((tmp_path / "b.dump").read_bytes()[:-200])
    other = new_database(pg_server, "restored")
    try:
        with pytest.raises(LinkError):
            backups.restore(other, cut)
        backups.restore(other, tmp_path / "b.dump")
        with other.connect(autocommit=True) as connection:
            assert connection.execute("SELECT count(*), sum(value) FROM sample_20260921").fetchone() == (50, 62.5)
            assert load_devices(connection) == load_devices(db)
            assert migrate.current(connection) == migrate.head()
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("DELETE FROM sample")
        assert migrate.migrate(other.conninfo("owner")) == []
    finally:
        drop(pg_server, "restored")


def run(storage: StorageConfig, tmp_path: Path, *words: str) -> tuple[int, str]:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"storage": msgspec.to_builtins(storage)}))
    done = CliRunner().invoke(db_verb, words, obj=App(config_path=path))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_the_verb(pg_server: EmbeddedServer, storage_config: StorageConfig, tmp_path: Path) -> None:
    code, text = run(storage_config, tmp_path, "status", "--json")
    facts = json.loads(text)
    assert (code, facts["up_to_date"], facts["embedded"]) == (0, True, False)
    assert run(storage_config, tmp_path, "status")[0] == 0
    assert json.loads(run(storage_config, tmp_path, "migrate", "--json")[1])["applied"] == []
    file = str(tmp_path / "x.dump")
    code, text = run(storage_config, tmp_path, "backup", file, "--json")
    assert (code, json.loads(text)["path"]) == (0, file)
    assert run(storage_config, tmp_path, "backup", file)[0] == 1
    name = "verb_restored"
    new_database(pg_server, name)
    try:
        empty = StorageConfig(
            data_dir=str(tmp_path), dsn=pg_server.conninfo("fuhe_app", name),
            admin_dsn=pg_server.conninfo("fuhe_owner", name),
        )  # fmt: skip
        assert "migrate" in run(empty, tmp_path, "status")[1]
        assert run(empty, tmp_path, "restore", file)[0] == 0
        assert json.loads(run(empty, tmp_path, "status", "--json")[1])["up_to_date"] is True
    finally:
        drop(pg_server, name)


def test_a_newer_schema_is_refused(database: Database, server_url: Callable[[str], str]) -> None:
    with psycopg.connect(server_url("fuhe_owner")) as owner:
        owner.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UsageError, match="9999"):
        migrate.migrate(database.conninfo("owner"))


def test_a_server_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(LinkError):
        Database.open(StorageConfig(dsn=f"host={tmp_path} dbname=x user=y"))
    with pytest.raises(UsageError):
        Database.open(StorageConfig(dsn="nonsense"))
