"""Versions of the archive in the database: read as of an instant, added, ended; never overwritten.

Nothing here decides whether a change is allowed (control/archive.py does); the database refuses everything else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec
import psycopg

from ..model.archive import Version, make_record, record_values
from ..model.times import from_us, to_us

Connection = psycopg.Connection[Any]


def versions(
    connection: Connection, *, entities: Collection[str] = (), keys: Collection[str] = (), at_us: int | None = None
) -> list[Version]:
    """Versions by entity, key and time; narrowed to entities, keys, and those in force at an instant."""
    rows = connection.execute(
        "SELECT entity, key, valid_from, valid_to, content, changed_by, reason FROM archive_version "
        "WHERE (%(all)s OR entity = ANY(%(entities)s)) AND (%(any)s OR key = ANY(%(keys)s)) "
        "AND (%(at)s::timestamptz IS NULL OR (valid_from <= %(at)s AND (valid_to IS NULL OR valid_to > %(at)s))) "
        'ORDER BY entity, key COLLATE "C", valid_from',
        {
            "all": not entities, "entities": list(entities), "any": not keys, "keys": list(keys),
            "at": None if at_us is None else from_us(at_us),
        },
    )  # fmt: skip
    return [
        Version(
            entity=entity, key=key, valid_from_us=to_us(begin), valid_to_us=None if end is None else to_us(end),
            record=make_record(entity, content), changed_by=by, reason=reason,
        )
        for entity, key, begin, end, content, by, reason in rows
    ]  # fmt: skip


def store(
    connection: Connection, now_us: int, by: str, reason: str, *, ended: Iterable[Version], added: Iterable[Version]
) -> None:
    """End versions (their valid_to_us) and add versions, inside the caller's transaction; a row's own reason wins."""
    stamp = from_us(now_us)
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE archive_version SET valid_to = %s, ended_by = %s, end_reason = %s, ended_at = %s "
            "WHERE entity = %s AND key = %s AND valid_from = %s",
            [
                (from_us(v.valid_to_us or 0), by, reason, stamp, v.entity, v.key, from_us(v.valid_from_us))
                for v in ended
            ],
        )
        columns = "entity, key, valid_from, valid_to, content, changed_by, reason, recorded_at"
        with cursor.copy(f"COPY archive_version ({columns}) FROM STDIN".encode()) as copy:
            for v in added:
                copy.write_row(
                    (
                        v.entity, v.key, from_us(v.valid_from_us),
                        None if v.valid_to_us is None else from_us(v.valid_to_us),
                        msgspec.json.encode(record_values(v.record)).decode(), by, v.reason or reason, stamp,
                    )
                )  # fmt: skip
