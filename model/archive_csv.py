"""Versions of the archive as CSV texts, one an entity: columns are the fields, then the dates, who and why. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Final

from .archive import ENTITIES, Entity, Version
from .archive_cells import guarded, write_cell, write_instant

DATES: Final = ("valid_from", "valid_to", "changed_by", "reason")


def heading(entity: Entity) -> list[str]:
    """Columns of an entity's sheet."""
    return [*(f.name for f in entity.fields), *DATES]


def sheet_values(v: Version) -> list[object]:
    """Values of a version in the order of the heading; instants as texts."""
    fields = [getattr(v.record, f.name) for f in ENTITIES[v.entity].fields]
    return [*fields, write_instant(v.valid_from_us), write_instant(v.valid_to_us), v.changed_by, v.reason]


def by_entity(versions: Iterable[Version]) -> dict[str, list[Version]]:
    """Versions by entity, every entity named."""
    found: dict[str, list[Version]] = {name: [] for name in ENTITIES}
    for v in versions:
        found[v.entity].append(v)
    return found


def _cell(value: object) -> str:
    text = write_cell(value)
    return guarded(text) if isinstance(value, (str, tuple)) else text


def csv_texts(versions: Iterable[Version]) -> dict[str, str]:
    """File name -> content of an archive folder, every entity with at least its heading."""
    found = {}
    for entity, rows in by_entity(versions).items():
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(heading(ENTITIES[entity]))
        writer.writerows([_cell(value) for value in sheet_values(v)] for v in rows)
        found[f"{entity}.csv"] = out.getvalue()
    return found
