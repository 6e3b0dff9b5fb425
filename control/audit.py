"""The audit (domain 9.8): append-only records in one hash chain, written in the transaction of the change they tell of.

hash = SHA-256(canonical JSON of the record ‖ previous hash). `verify` needs only the records (and, to find truncation,
an anchor: how many there were and the last hash, kept on another medium). The chain has one writer at a time: an
advisory lock that lasts until the transaction ends. When the audit cannot be written, the change is rolled back too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from ..model.lang import tr
from ..model.times import from_us, to_us
from ..protocols.common.errors import FuheError, UsageError
from .records import Conn

T = TypeVar("T")
GENESIS: Final = "0" * 64
LOCK: Final = 0x66756865_0001


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts. Two people = different accounts and different sessions; the daemon has neither."""

    name: str
    role: str
    account_id: int | None = None
    session_id: int | None = None
    workstation: str = ""


DAEMON: Final = Actor(name="daemon", role="system")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be recorded. before and after: full values of what changed, plain JSON."""

    actor: Actor
    action: str
    object: str
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    result: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record as stored and exported. time_us: UTC µs; before and after: canonical JSON texts."""

    seq: int
    time_us: int
    actor: str
    role: str
    session: int | None
    workstation: str
    action: str
    object: str
    before: str
    after: str
    reason: str
    result: str
    prev_hash: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What the chain was at `time_us`: `seq` records, the last with this hash; signature: see anchors.py."""

    time_us: int
    seq: int
    hash: str
    signature: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """The first place where the chain does not hold. seq: the record (or the first missing one)."""

    seq: int
    kind: str
    text: str


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    raise TypeError(f"not for the audit: {type(value).__name__}")


_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain
)


def canonical(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8, no NaN."""
    return _ENCODER.encode(value)


_HASHED: Final = tuple(f.name for f in fields(Record) if f.name not in ("hash", "prev_hash"))


def record_hash(record: Record) -> str:
    """SHA-256 over the canonical JSON of everything but `hash`, followed by the previous hash."""
    content = {name: getattr(record, name) for name in _HASHED}
    return hashlib.sha256(canonical(content).encode() + record.prev_hash.encode()).hexdigest()


def append(conn: Conn, now_us: int, entries: Sequence[Entry]) -> int:
    """Append a group of records inside the caller's transaction; returns the last seq. Readers see all or none.

    UsageError if there is no transaction: a record must stand or fall with the change it tells of.
    """
    if conn.autocommit and not conn.info.transaction_status:
        raise UsageError(tr("audit records are written inside a transaction", "审计记录必须在事务中写入"))
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
    # A statement of its own: under READ COMMITTED it sees what the lock's last holder committed.
    row = conn.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, last = (int(row[0]), str(row[1])) if row else (0, GENESIS)
    rows, stamp = [], from_us(now_us)
    for entry in entries:
        seq += 1
        blank = Record(
            seq=seq,
            time_us=now_us,
            actor=entry.actor.name,
            role=entry.actor.role,
            session=entry.actor.session_id,
            workstation=entry.actor.workstation,
            action=entry.action,
            object=entry.object,
            before=canonical(entry.before),
            after=canonical(entry.after),
            reason=entry.reason,
            result=entry.result,
            prev_hash=last,
            hash="",
        )
        last = record_hash(blank)
        rows.append((seq, stamp, *(getattr(blank, name) for name in _HASHED[2:]), blank.prev_hash, last))
    columns = (
        "seq, time, actor, role, session, workstation, action, object, before_, after_, reason, result, prev_hash, hash"
    )
    with conn.cursor() as cursor, cursor.copy(f"COPY audit ({columns}) FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row(row)
    return seq


@contextmanager
def recorded(conn: Conn, now_us: int, actor: Actor, action: str, object_: str) -> Iterator[None]:
    """One person's step as one transaction. A refusal is rolled back whole, then recorded, then raised."""
    try:
        with conn.transaction():
            yield
    except FuheError as error:
        refused = Entry(actor=actor, action=action, object=object_, reason=str(error), result="refused")
        with conn.transaction():
            append(conn, now_us, [refused])
        raise


def read(
    conn: Conn, *, after: int = 0, last: int | None = None, object_: str | None = None,
    from_us_: int | None = None, to_us_: int | None = None,
) -> list[Record]:  # fmt: skip
    """Records in order: those behind seq `after`, or only the `last` n; narrowed to an object or a time span."""
    query = (
        "SELECT seq, time, actor, role, session, workstation, action, object, before_, after_, reason, result, "
        "prev_hash, hash FROM audit WHERE seq > %(after)s AND (%(object)s::text IS NULL OR object = %(object)s) "
        "AND (%(from)s::timestamptz IS NULL OR time >= %(from)s) AND (%(to)s::timestamptz IS NULL OR time < %(to)s) "
        "ORDER BY seq DESC LIMIT %(last)s"
    )
    found = conn.execute(
        query,
        {
            "after": after,
            "object": object_,
            "last": last,
            "from": None if from_us_ is None else from_us(from_us_),
            "to": None if to_us_ is None else from_us(to_us_),
        },
    ).fetchall()
    names = list(Record.__dataclass_fields__)
    return [Record(**(dict(zip(names, row, strict=True)) | {"time_us": to_us(row[1])})) for row in reversed(found)]


def head(conn: Conn, now_us: int) -> Anchor:
    """The chain's count and last hash now."""
    row = conn.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    return Anchor(time_us=now_us, seq=int(row[0]) if row else 0, hash=str(row[1]) if row else GENESIS)


def verify(records: Iterable[Record], anchors: Sequence[Anchor] = ()) -> tuple[int, Break | None]:
    """Walk the whole chain from its beginning: (records seen, the first break or None)."""
    wanted = {a.seq: a.hash for a in anchors if a.seq}
    seq, last = 0, GENESIS
    for record in records:
        found = _break(record, seq, last, wanted.pop(record.seq, None))
        if found is not None:
            return seq, found
        seq, last = record.seq, record.hash
    if wanted:
        text = tr(
            f"an anchor knows {max(wanted)} records, only {seq} are there", f"锚点记有 {max(wanted)} 条, 仅存 {seq} 条"
        )
        return seq, Break(seq=seq + 1, kind="truncated", text=text)
    return seq, None


def _break(record: Record, seq: int, last: str, anchor: str | None) -> Break | None:
    """What is wrong with `record` behind record number `seq` with hash `last`, or None."""
    n = record.seq
    if n <= seq:
        return Break(seq=n, kind="reordered", text=tr(f"record {n} stands after {seq}", f"记录 {n} 位于 {seq} 之后"))
    if n != seq + 1:
        text = tr(f"record {seq + 1} is missing, {n} follows", f"缺记录 {seq + 1}, 其后为 {n}")
        return Break(seq=seq + 1, kind="missing", text=text)
    if record_hash(record) != record.hash:
        return Break(seq=n, kind="changed", text=tr(f"record {n} was changed", f"记录 {n} 被修改"))
    if record.prev_hash != last:
        text = tr(f"record {n} does not follow {seq}: history was rewritten", f"记录 {n} 与 {seq} 不衔接: 历史被重写")
        return Break(seq=n, kind="chain", text=text)
    if anchor not in (None, record.hash):
        text = tr(f"record {n} differs from its anchor: the chain was rewritten", f"记录 {n} 与锚点不符: 链被重写")
        return Break(seq=n, kind="rewritten", text=text)
    return None


def write_anchor(path: Path, anchor: Anchor) -> None:
    """Append one anchor to a file (another medium than the database), flushed to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(canonical(asdict(anchor)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_anchors(path: Path) -> list[Anchor]:
    """The anchors of a file; UsageError names the first line that is none."""
    return list(_lines(path, Anchor))


def export_jsonl(path: Path, records: Iterable[Record]) -> int:
    """Write records one JSON object a line; returns their number."""
    n = 0
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(canonical(asdict(record)) + "\n")
            n += 1
    return n


def read_jsonl(path: Path) -> list[Record]:
    """Records of an exported file; UsageError names the first line that is no record."""
    return list(_lines(path, Record))


def _lines(path: Path, kind: type[T]) -> Iterator[T]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(tr(f"cannot read {path}: {error}", f"无法读取 {path}: {error}")) from error
    for number, line in enumerate(text.splitlines(), 1):
        try:
            yield msgspec.json.decode(line, type=kind)
        except msgspec.DecodeError as error:
            raise UsageError(tr(f"{path}, line {number}: {error}", f"{path} 第 {number} 行: {error}")) from error
