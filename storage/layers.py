"""The layers CHECKED and FINAL as tables: versions of days written and read as arrays. Rows are only ever added.

`vee_version` is the head of a version; `checked_day` and `final_day` hold what that version changed, in the form of
`curve_day`. The newest row of a (point, quantity, day) is in force. Nothing is computed here: see daemon/vee*.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import sql
from psycopg.rows import class_row

from ..model.quality import Quality
from ..model.readings import F8, I2, I8
from .copying import PG_EPOCH_DAY, RowType, array, copy_in, copy_out, int_array
from .curve_table import pack_rows, read_packed
from .curves import DAY_S, NONE, DayRows
from .partitions import EPOCH_DAY, Partitions

Connection = psycopg.Connection[Any]

LOCK: Final = 0x7665_6521
FINAL_COLUMNS: Final = (
    "day", "point", "quantity", "version", "step_s", "decimals", "base", "short", "vals", "wide", "quality", "made",
)  # fmt: skip
CHECKED_COLUMNS: Final = ("day", "point", "quantity", "version", "step_s", "failed")
NEWEST: Final = sql.SQL(
    "NOT EXISTS (SELECT FROM {table} n WHERE n.day = c.day AND n.quantity = c.quantity AND n.point = c.point"
    " AND n.step_s = c.step_s AND n.version > c.version)"
)
_KEY: Final = np.dtype([("day", "<i4"), ("quantity", "<i2"), ("point", "<i4"), ("decimals", "<i2")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Head of one version of a point's day, as the table has it (see migration 0008)."""

    day: date
    point: int
    version: int
    why: int
    basis: int
    suspect: int
    rejected: int
    missing: int
    estimated: int
    edited: int
    person: int
    made: datetime
    net_kwh: float | None
    import_kwh: float | None
    export_kwh: float | None
    like_days: list[date] | None
    edits: list[int] | None


HEAD: Final = ", ".join(Version.__slots__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Days of quantities as integers: point int32, quantity int16, decimals int16 (k,).

    number int64 (k, n) with NONE for an empty slot; quality int16 (k, n), of an empty slot X (rejected) or nothing.
    """

    point: Any
    quantity: Any
    decimals: Any
    number: I8
    quality: I2


def lock(connection: Connection) -> None:
    """One writer of versions at a time, until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))


def _date(day: date) -> sql.Composable:
    return sql.SQL("{}::date").format(sql.Literal(day.isoformat()))


def heads(connection: Connection, points: Sequence[int], first: date, last: date) -> list[Version]:
    """The newest version of each judged day of a span."""
    with connection.cursor(row_factory=class_row(Version)) as cursor:
        return cursor.execute(
            f"SELECT DISTINCT ON (day, point) {HEAD} FROM vee_version WHERE point = ANY(%s) AND day BETWEEN %s AND %s"
            " ORDER BY day, point, version DESC".encode(),
            (list(points), first, last),
        ).fetchall()


def history(connection: Connection, point: int, day: date) -> list[Version]:
    """All versions of one day, oldest first."""
    with connection.cursor(row_factory=class_row(Version)) as cursor:
        return cursor.execute(
            f"SELECT {HEAD} FROM vee_version WHERE point = %s AND day = %s ORDER BY version".encode(), (point, day)
        ).fetchall()


def judged(connection: Connection, first: date, last: date, points: Sequence[int]) -> set[tuple[int, date]]:
    """Which days of a span have a FINAL layer."""
    rows = connection.execute(
        "SELECT DISTINCT point, day FROM vee_version WHERE day BETWEEN %s AND %s AND point = ANY(%s)",
        (first, last, list(points)),
    ).fetchall()
    return {(p, d) for p, d in rows}


def read_final(
    connection: Connection, first: date, last: date, points: Sequence[int], quantities: Sequence[int] | None = None,
    *, step_s: int = 900, version: int | None = None, made_by: datetime | None = None,
) -> list[DayRows]:  # fmt: skip
    """The final rows in force (or as they were in `version`, or at an instant), empty slots with quality X or M."""
    newest = NEWEST.format(table=sql.SQL("final_day"))
    if made_by is not None:
        newest = sql.SQL(
            "c.made <= {at} AND NOT EXISTS (SELECT FROM final_day n WHERE n.day = c.day AND n.quantity = c.quantity"
            " AND n.point = c.point AND n.step_s = c.step_s AND n.version > c.version AND n.made <= {at})"
        ).format(at=sql.Literal(made_by))
    if version is not None:
        newest = sql.SQL(
            "c.version = (SELECT max(n.version) FROM final_day n WHERE n.day = c.day AND n.quantity = c.quantity"
            " AND n.point = c.point AND n.step_s = c.step_s AND n.version <= {})"
        ).format(sql.Literal(version))
    of: sql.Composable = sql.SQL("")
    if quantities is not None:
        of = sql.SQL(" AND c.quantity = ANY({})").format(int_array(quantities, "int2"))
    table = sql.SQL("final_day c WHERE c.day BETWEEN {} AND {} AND c.point = ANY({}){} AND {}").format(
        _date(first), _date(last), int_array(points), of, newest,
    )  # fmt: skip
    with connection.cursor() as cursor:
        found = read_packed(cursor, step_s, table, sql.SQL("c.made"))
    for rows in found:
        empty = (rows.number == NONE) & (rows.quality != Quality.X)
        rows.quality[empty] = Quality.M
    return found


def read_checked(connection: Connection, day: date, points: Sequence[int], *, step_s: int = 900) -> tuple[I8, I8, I2]:
    """Masks in force of a day: point, quantity (k,) and mask (k, n) of every quantity that ever failed a check."""
    n = DAY_S // step_s
    layout = RowType([("point", "int4"), ("quantity", "int2"), ("failed", f"int2[{n}]")])
    query = sql.SQL(
        "SELECT c.point, c.quantity, c.failed FROM checked_day c WHERE c.day = {} AND c.point = ANY({})"
        " AND c.step_s = {} AND {}"
    ).format(_date(day), int_array(points), sql.Literal(step_s), NEWEST.format(table=sql.SQL("checked_day")))
    with connection.cursor() as cursor:
        rows = layout.read(copy_out(cursor, query))
    return rows["point"].astype(np.int64), rows["quantity"].astype(np.int64), array(rows, "failed").astype(np.int16)


class LayerWriter:
    """Adds versions inside the caller's transaction, under `lock`."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions

    def write(
        self,
        connection: Connection,
        day: date,
        today: date,
        versions: Mapping[int, Mapping[str, object]],
        finals: Numbers,
        checked: tuple[I8, I8, I2],
        *,
        step_s: int = 900,
    ) -> None:
        """versions: point -> columns of its head (version, why, ...; day, point and made are added); finals and checked
        (point, quantity, mask): the rows that these versions change.
        """
        if not versions:
            return
        made = connection.execute("SELECT now()").fetchone()
        assert made is not None
        number = {p: int(str(v["version"])) for p, v in versions.items()}
        self._heads(connection, self._table(connection, "vee_version", day, today), day, made[0], versions)
        stamp = int(made[0].timestamp() * 1_000_000)
        with connection.cursor() as cursor:
            if len(finals.point):
                key = np.zeros(len(finals.point), _KEY)
                key["day"] = (day - EPOCH_DAY).days
                for name in ("quantity", "point", "decimals"):
                    key[name] = getattr(finals, name)
                quality = np.where((finals.number == NONE) & (finals.quality != Quality.X), 0, finals.quality)
                rows = DayRows(
                    step_s, key, finals.number, quality.astype(np.int16), np.full(len(key), stamp, np.int64)
                )  # fmt: skip
                marks = np.array([number[int(p)] for p in finals.point], np.int16)
                table = self._table(connection, "final_day", day, today)
                copy_in(cursor, sql.Identifier(table), FINAL_COLUMNS, *pack_rows(rows, marks))
            points, quantities, masks = checked
            if len(points):
                layout = RowType(
                    [
                        ("day", "date"), ("point", "int4"), ("quantity", "int2"), ("version", "int2"),
                        ("step_s", "int4"), ("failed", f"int2[{DAY_S // step_s}]"),
                    ]
                )  # fmt: skip
                out = layout.rows(len(points))
                out["day"] = (day - EPOCH_DAY).days - PG_EPOCH_DAY
                out["point"], out["quantity"], out["step_s"] = points, quantities, step_s
                out["version"] = [number[int(p)] for p in points]
                array(out, "failed")[...] = masks
                table = self._table(connection, "checked_day", day, today)
                copy_in(cursor, sql.Identifier(table), CHECKED_COLUMNS, out)

    def _table(self, connection: Connection, parent: str, day: date, today: date) -> str:
        return self._partitions.target(connection, parent, (day - EPOCH_DAY).days, (today - EPOCH_DAY).days)

    @staticmethod
    def _heads(
        connection: Connection, table: str, day: date, made: datetime, versions: Mapping[int, Mapping[str, object]]
    ) -> None:
        names = Version.__slots__
        with (
            connection.cursor() as cursor,
            cursor.copy(
                sql.SQL("COPY {} ({}) FROM STDIN").format(
                    sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, names))
                )
            ) as copy,
        ):
            for point, values in versions.items():
                row = {"day": day, "point": point, "made": made, **values}
                copy.write_row([row[name] for name in names])


def numbers_of(points: Sequence[int], quantity: int, decimals: int, value: F8, quality: I2) -> Numbers:
    """A quantity's values (k, n) with NaN as integers of its last decimal."""
    there = np.isfinite(value)
    number = np.where(there, np.rint(np.where(there, value, 0.0) * 10.0**decimals), 0).astype(np.int64)
    k = len(points)
    return Numbers(
        point=np.asarray(points, np.int32),
        quantity=np.full(k, quantity, np.int16),
        decimals=np.full(k, decimals, np.int16),
        number=np.where(there, number, NONE),
        quality=np.where(there | (quality == Quality.X), quality, 0).astype(np.int16),
    )


def join(parts: Sequence[Numbers]) -> Numbers:
    """Parts one after the other."""
    if not parts:
        empty = np.zeros((0, 1), np.int64)
        return Numbers(point=np.zeros(0, np.int32), quantity=np.zeros(0, np.int16), decimals=np.zeros(0, np.int16),
                       number=empty, quality=empty.astype(np.int16))  # fmt: skip
    return Numbers(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in Numbers.__slots__})
