"""Rounds (轮次): which relay of which device carries which load, and the tags that forbid touching it.

CSV columns: device, round, description, importance, typical_kw, last_test and, where they differ from the defaults,
last_test_ok, min_off_min, min_on_min, max_trips_day, manual_reclose, tag, contact (the state input that is wired to the
switch as feedback, 0 = none; negative: the input is closed while the switch is open).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from ..model.lang import tr
from ..model.times import to_us
from ..protocols.common.errors import UsageError
from .audit import Actor, Entry, append, recorded
from .permissions import require
from .records import Conn, fetch_all, fetch_one
from .sheet import Faults, Row, read_sheet

REQUIRED: Final = ("device", "round", "description", "importance", "typical_kw", "last_test")
OPTIONAL: Final = ("last_test_ok", "min_off_min", "min_on_min", "max_trips_day", "manual_reclose", "tag", "contact")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round. typical_kw, last_measured_kw: primary kW; None limits = the defaults of the configuration."""

    device_id: int
    round: int
    description: str
    importance: int
    typical_kw: float
    last_measured_kw: float | None
    min_off_min: int | None
    min_on_min: int | None
    max_trips_day: int | None
    manual_reclose: bool
    last_test_at: datetime | None
    last_test_ok: bool | None
    tag: str
    contact: int = 0

    @property
    def load_kw(self) -> float:
        """Larger of typical and last measured load: the cautious side (9.4-3)."""
        return max(self.typical_kw, self.last_measured_kw or 0.0)


def _parse(row: Row, devices: dict[str, int], now_us: int) -> Round | None:
    device = row.known("device", devices)
    number = row.integer("round", 1, 16)
    importance = row.integer("importance", 1, 99)
    typical = row.number("typical_kw", 0.0)
    tested = row.instant("last_test") if row.text("last_test") else None
    if tested is not None and to_us(tested) > now_us:
        row.fault("last_test", tr("lies in the future", "在将来"))
    ok = row.flag("last_test_ok", True)
    reclose = row.flag("manual_reclose", True)
    limits = {n: row.optional_integer(n, 0, 10_000) for n in ("min_off_min", "min_on_min", "max_trips_day")}
    contact = row.optional_integer("contact", -8, 8)
    if row.bad or device is None or number is None or importance is None or typical is None:
        return None
    return Round(
        device_id=device, round=number, description=row.text("description"), importance=importance,
        typical_kw=typical, last_measured_kw=None, manual_reclose=reclose, last_test_at=tested,
        last_test_ok=ok if tested is not None else None, tag=row.text("tag"), contact=contact or 0, **limits,
    )  # fmt: skip


def import_rounds(conn: Conn, now_us: int, actor: Actor, data: bytes) -> int:
    """Take over a rounds file: all of it or, with every fault named, nothing. Measured loads are kept."""
    with recorded(conn, now_us, actor, "round.import", "rounds"):
        require(actor, "round.import")
        devices = device_ids(conn)
        faults = Faults()
        found: dict[tuple[int, int], Round] = {}
        for row in read_sheet(data, REQUIRED, OPTIONAL, faults):
            parsed = _parse(row, devices, now_us)
            if parsed is not None and found.setdefault((parsed.device_id, parsed.round), parsed) is not parsed:
                row.fault("round", tr("this round stands twice", "轮次重复"))
        faults.raise_if_any(tr("rounds file", "轮次文件"))
        entries = []
        for parsed in found.values():
            before = get_round(conn, parsed.device_id, parsed.round)
            if before is not None and before.tag and not parsed.tag:
                # A tag protects people at work: it is taken off by name, never by a file that does not mention it.
                parsed = Round(**(asdict(parsed) | {"tag": before.tag}))
            entries.append(
                Entry(
                    actor=actor, action="round.import", object=f"round:{parsed.device_id}/{parsed.round}",
                    before=asdict(before) if before else {}, after=asdict(parsed),
                )
            )  # fmt: skip
            found[parsed.device_id, parsed.round] = parsed
        append(conn, now_us, entries)
        columns = [n for n in Round.__dataclass_fields__ if n != "last_measured_kw"]
        changes = ", ".join(f"{n} = EXCLUDED.{n}" for n in columns[2:])
        query = (
            f"INSERT INTO round ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))}) "
            f"ON CONFLICT (device_id, round) DO UPDATE SET {changes}"
        )
        with conn.cursor() as cursor:
            cursor.executemany(query.encode(), [[asdict(r)[n] for n in columns] for r in found.values()])
        return len(found)


def set_tag(conn: Conn, now_us: int, actor: Actor, device_id: int, number: int, tag: str, reason: str) -> None:
    """Hang a tag on a round (maintenance, people at work, process window) or take it off (empty), with a reason."""
    object_ = f"round:{device_id}/{number}"
    with recorded(conn, now_us, actor, "round.tag", object_):
        require(actor, "round.tag")
        before = get_round(conn, device_id, number)
        if before is None:
            raise UsageError(tr(f"no round {number} of device {device_id}", f"装置 {device_id} 没有第 {number} 轮"))
        if not reason:
            raise UsageError(tr("a tag needs a reason", "挂牌摘牌须写原因"))
        append(
            conn,
            now_us,
            [
                Entry(
                    actor=actor,
                    action="round.tag",
                    object=object_,
                    before={"tag": before.tag},
                    after={"tag": tag},
                    reason=reason,
                )
            ],
        )
        conn.execute("UPDATE round SET tag = %s WHERE device_id = %s AND round = %s", (tag, device_id, number))


def get_round(conn: Conn, device_id: int, number: int) -> Round | None:
    """One round or None."""
    return fetch_one(conn, Round, "SELECT * FROM round WHERE device_id = %s AND round = %s", (device_id, number))


def rounds(conn: Conn) -> list[Round]:
    """All rounds."""
    return fetch_all(conn, Round, "SELECT * FROM round ORDER BY device_id, round")


def device_ids(conn: Conn) -> dict[str, int]:
    """Device name to id, enabled devices only."""
    return {str(name): int(id_) for id_, name in conn.execute("SELECT id, name FROM device WHERE enabled").fetchall()}


def measured(conn: Conn, device_id: int, number: int, kw: float) -> None:
    """Remember the load a verified drop has shown for a round."""
    conn.execute("UPDATE round SET last_measured_kw = %s WHERE device_id = %s AND round = %s", (kw, device_id, number))
