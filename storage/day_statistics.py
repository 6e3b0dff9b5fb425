"""Table `day_statistics`: the records of the fleet's pass, one a point, day and version; in and out as arrays.

Writing goes through a stage by binary COPY; a row that says the same as the stored one changes nothing, so a pass
may be repeated at will.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import cache
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import dict_row

from .copying import PG_EPOCH_DAY, RowType, array, copy_in
from .partitions import EPOCH_DAY

Connection = psycopg.Connection[Any]
_STAGE: Final = "day_statistics_stage"
_SLOTS: Final = ("max_slot", "min_slot", "cos", "loading")  # -1 = NULL
_OWN: Final = ("day", "point", "version", "source", "energy_flag")


@cache
def _layout(fields: tuple[tuple[str, str, int], ...]) -> RowType:
    """Row of the stage: floats as float8, everything else as int2; fields with a count are arrays."""
    columns = [("day", "date"), ("point", "int4"), *((name, "int2") for name in _OWN[2:])]
    for name, kind, count in fields:
        base = "float8" if kind == "f" else "int2"
        columns.append((name, f"{base}[{count}]" if count else base))
    return RowType(columns)


def _fields(records: NDArray[np.void]) -> tuple[tuple[str, str, int], ...]:
    names = records.dtype.names
    assert names is not None
    kinds = [(name, records.dtype[name]) for name in names if name != "point"]
    return tuple((name, t.base.kind, t.shape[0] if t.shape else 0) for name, t in kinds)


def write_statistics(
    connection: Connection, day: date, version: NDArray[np.int16], source: NDArray[np.int16],
    energy_flag: NDArray[np.int16], records: NDArray[np.void],
) -> int:  # fmt: skip
    """Store records (structured, with `point`); returns how many rows are new or differ. The caller's transaction."""
    if not len(records):
        return 0
    fields = _fields(records)
    rows = _layout(fields).rows(len(records))
    rows["day"] = (day - EPOCH_DAY).days - PG_EPOCH_DAY
    rows["point"], rows["version"] = records["point"], version
    rows["source"], rows["energy_flag"] = source, energy_flag
    for name, _, count in fields:
        if count:
            array(rows, name)[...] = records[name]
        else:
            rows[name] = records[name]
    names = [*_OWN, *(name for name, _, _ in fields)]
    single = {name for name, kind, count in fields if kind == "f" and not count}

    def column(name: str) -> sql.Composable:
        if name in single:
            return sql.SQL("nullif({}, 'NaN')").format(sql.Identifier(name))
        if name in _SLOTS:
            return sql.SQL("nullif({}, -1)").format(sql.Identifier(name))
        return sql.Identifier(name)

    figures = [name for name in names if name not in ("day", "point", "version")]
    stage = sql.Identifier(_STAGE)
    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("CREATE TEMP TABLE IF NOT EXISTS {} AS SELECT {} FROM day_statistics WITH NO DATA").format(
                stage, sql.SQL(", ").join(map(sql.Identifier, names))
            )
        )
        cursor.execute(sql.SQL("TRUNCATE {}").format(stage))
        copy_in(cursor, stage, names, rows)
        cursor.execute(
            sql.SQL(
                "INSERT INTO day_statistics AS d ({names}) SELECT {values} FROM {stage}"
                " ON CONFLICT (day, point, version) DO UPDATE SET made = now(), {sets}"
                " WHERE ({old}) IS DISTINCT FROM ({new})"
            ).format(
                names=sql.SQL(", ").join(map(sql.Identifier, names)),
                values=sql.SQL(", ").join(map(column, names)),
                stage=stage,
                sets=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(n)) for n in figures),
                old=sql.SQL(", ").join(sql.SQL("d.{}").format(sql.Identifier(n)) for n in figures),
                new=sql.SQL(", ").join(sql.SQL("excluded.{}").format(sql.Identifier(n)) for n in figures),
            )
        )
        return cursor.rowcount


def read_statistics(connection: Connection, first: date, last: date, points: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of the newest version of each point and day, by day and point."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT DISTINCT ON (day, point) * FROM day_statistics WHERE day BETWEEN %s AND %s AND point = ANY(%s)"
            " ORDER BY day, point, version DESC",
            (first, last, list(points)),
        ).fetchall()
