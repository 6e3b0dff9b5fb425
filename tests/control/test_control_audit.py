"""The chain finds every change; the application's role cannot make one."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fuhe.control import anchors, audit
from fuhe.control.audit import Actor, Anchor, Entry, Record, verify
from fuhe.protocols.common.errors import UsageError
from fuhe.storage.database import Database

ACTOR = Actor(name="wang", role="dispatcher", account_id=1, session_id=1, workstation="desk")
NOW = 1_790_000_000_000_000


def fill(conn: psycopg.Connection[Any], n: int) -> list[Record]:
    for i in range(n):
        with conn.transaction():
            entry = Entry(
                actor=ACTOR, action="test", object=f"x:{i}", before={"a": i, "中": 0.1}, after={"b": [1, None]}
            )
            audit.append(conn, NOW + i, [entry])
    return audit.read(conn)


def test_sound_chain_and_every_kind_of_break(db: psycopg.Connection[Any]) -> None:
    records = fill(db, 8)
    assert verify(records) == (8, None)
    for i, record in enumerate(records):
        for field in (f.name for f in dataclasses.fields(Record) if f.name != "seq"):
            value = getattr(record, field)
            changed: Any = value + 1 if isinstance(value, int) else value + "x"
            broken = [*records[:i], dataclasses.replace(record, **{field: changed}), *records[i + 1 :]]
            found = verify(broken)[1]
            assert found is not None and found.seq == record.seq, field
        if i < 7:
            found = verify([*records[:i], *records[i + 1 :]])[1]
            assert found is not None and (found.seq, found.kind) == (record.seq, "missing")
            swapped = [*records[:i], records[i + 1], record, *records[i + 2 :]]
            found = verify(swapped)[1]
            assert found is not None and found.seq == record.seq
    cut = verify(records[:5], [Anchor(time_us=0, seq=8, hash=records[7].hash)])[1]
    assert cut is not None and (cut.seq, cut.kind) == (6, "truncated")
    assert verify(records[:5]) == (5, None), "without an anchor a shorter chain is sound in itself"


def test_a_rewritten_chain_differs_from_its_anchor(db: psycopg.Connection[Any]) -> None:
    records = fill(db, 5)
    anchor = Anchor(time_us=0, seq=4, hash=records[3].hash)
    forged, last = [], audit.GENESIS
    for record in records:
        blank = dataclasses.replace(record, actor="li" if record.seq == 2 else record.actor, prev_hash=last)
        last = audit.record_hash(blank)
        forged.append(dataclasses.replace(blank, hash=last))
    assert verify(forged)[1] is None
    found = verify(forged, [anchor])[1]
    assert found is not None and (found.seq, found.kind) == (4, "rewritten")


@pytest.mark.parametrize("statement", [
    "UPDATE audit SET actor = 'li' WHERE seq = 2", "DELETE FROM audit WHERE seq = 2", "TRUNCATE audit",
    "UPDATE approval SET account_id = 1", "DELETE FROM command", "DELETE FROM command_frame", "DELETE FROM plan_row",
    "ALTER TABLE audit DISABLE TRIGGER ALL", "DROP TABLE audit",
])  # fmt: skip
def test_the_application_role_cannot_change_records(db: psycopg.Connection[Any], statement: str) -> None:
    fill(db, 3)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.execute(statement.encode())
    assert verify(audit.read(db)) == (3, None)


def test_even_the_owner_is_stopped_by_the_trigger_and_found_by_the_chain(database: Database) -> None:
    with database.connect("app", autocommit=True) as conn:
        fill(conn, 4)
        with database.connect("owner", autocommit=True) as owner:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                owner.execute("UPDATE audit SET actor = 'li' WHERE seq = 2")
            owner.execute("ALTER TABLE audit DISABLE TRIGGER audit_append_only")
            owner.execute("UPDATE audit SET actor = 'li' WHERE seq = 2")
        found = verify(audit.read(conn))[1]
        assert found is not None and (found.seq, found.kind) == (2, "changed")


def test_appends_from_many_connections_make_one_chain(database: Database) -> None:
    def work(k: int) -> None:
        with database.connect("app", autocommit=True) as conn:
            for i in range(10):
                with conn.transaction():
                    audit.append(conn, NOW, [Entry(actor=ACTOR, action="t", object=f"{k}.{i}.{j}") for j in range(3)])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    with database.connect("app", autocommit=True) as conn:
        assert verify(audit.read(conn)) == (120, None)


def test_a_record_stands_or_falls_with_its_change(db: psycopg.Connection[Any]) -> None:
    with pytest.raises(UsageError, match="transaction"):
        audit.append(db, NOW, [Entry(actor=ACTOR, action="t", object="x")])
    with pytest.raises(ZeroDivisionError), db.transaction():
        audit.append(db, NOW, [Entry(actor=ACTOR, action="t", object="x")])
        _ = 1 // 0
    assert audit.read(db) == []
    with pytest.raises(UsageError), audit.recorded(db, NOW, ACTOR, "order.confirm", "order:1"):
        audit.append(db, NOW, [Entry(actor=ACTOR, action="gone", object="x")])
        raise UsageError("no")
    (only,) = audit.read(db)
    assert (only.action, only.result, only.reason) == ("order.confirm", "refused", "no")


def test_export_and_anchors_round_trip(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    records = fill(db, 4)
    path = tmp_path / "audit.jsonl"
    assert audit.export_jsonl(path, records) == 4
    assert audit.read_jsonl(path) == records
    anchors = tmp_path / "anchors.jsonl"
    audit.write_anchor(anchors, audit.head(db, NOW))
    assert verify(audit.read_jsonl(path), audit.read_anchors(anchors)) == (4, None)
    path.write_text(path.read_text().replace('"seq":2', '"seq":"two"'))
    with pytest.raises(UsageError, match="line 2"):
        audit.read_jsonl(path)


def test_anchors_are_signed_and_a_rewritten_chain_cannot_have_them(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    records, key = fill(db, 4), anchors.signing_key(tmp_path / "audit-anchor.key")
    assert (tmp_path / "audit-anchor.key").stat().st_mode & 0o777 == 0o600
    public = anchors.public_key(tmp_path / "audit-anchor.pub")
    signed = anchors.sign(audit.head(db, NOW), anchors.signing_key(tmp_path / "audit-anchor.key"))
    audit.write_anchor(tmp_path / "a.jsonl", signed)
    assert audit.read_anchors(tmp_path / "a.jsonl") == [signed] and anchors.forged([signed], public) is None

    other = anchors.signing_key(tmp_path / "other.key")
    for bad in (
        dataclasses.replace(signed, hash=records[2].hash), dataclasses.replace(signed, seq=3),
        dataclasses.replace(signed, time_us=signed.time_us + 1), dataclasses.replace(signed, signature=""),
        dataclasses.replace(signed, signature="*"), anchors.sign(signed, other),
    ):  # fmt: skip
        found = anchors.forged([signed, bad], public)
        assert found is not None and found.kind == "anchor" and found.seq == bad.seq
    (tmp_path / "bad.key").write_text("nothing")
    with pytest.raises(UsageError, match="no Ed25519 key"):
        anchors.signing_key(tmp_path / "bad.key")
    with pytest.raises(UsageError, match="no Ed25519 key"):
        anchors.public_key(tmp_path / "bad.key")
    assert key.public_key() == public
