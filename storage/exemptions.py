"""Registered exemptions as the ledger reads them. Who may make them, and the audit, is control/exemptions.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

KINDS = ("suspension", "outage", "commissioning")
"""Registered suspension 报停, confirmed outage of the supply 停电, commissioning 调试."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredExemption:
    """A slot with label L is exempt where since < L <= until. point None: all of the device; until None: in force."""

    id: int
    device: int
    point: int | None
    since: datetime
    until: datetime | None
    kind: str
    reason: str
    made_by: str
    made_at: datetime
    withdrawn_by: str | None = None
    withdrawn_at: datetime | None = None
    withdrawn_reason: str | None = None


FIELDS = "id, device, point, since, until, kind, reason, made_by, made_at, withdrawn_by, withdrawn_at, withdrawn_reason"


def load_exemptions(connection: psycopg.Connection[Any], *, withdrawn: bool = False) -> list[StoredExemption]:
    """Those in force (and with `withdrawn` all that ever were), by number."""
    with connection.cursor(row_factory=class_row(StoredExemption)) as cursor:
        where = "" if withdrawn else " WHERE withdrawn_at IS NULL"
        return cursor.execute(f"SELECT {FIELDS} FROM exemption{where} ORDER BY id".encode()).fetchall()
