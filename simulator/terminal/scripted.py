"""Events of the fault script: any ERC of the table, with the values of the moment and without a cause.

`ERC10` at the first point, `ERC10/2` at point 2. What the script cannot know is EE, a type is the first one, phase A.
"""

from __future__ import annotations

import re

from ...protocols.common.errors import UsageError
from ...protocols.qgdw1376.nodes import Field
from ...protocols.qgdw1376.table import lookup_erc
from .fill import fill, shaped, variant_of
from .parameters import Unit
from .parts import Parts
from .sources import point_source

GIVEN: Unit = {"begin": 1, "type": 1, "phase_a": 1, "terminal": 1, "code": 4, "n": 0, "m": 0, "port": 2}


def scripted_event(parts: Parts, match: str, at_us: int) -> bool:
    """Record it; False = there is no such event in this edition."""
    found = re.fullmatch(r"ERC(\d{1,3})(?:/(\d{1,4}))?", match.upper())
    row = lookup_erc(int(found[1]), parts.edition) if found else None
    if found is None or row is None or parts.edition not in row.editions:
        return False
    pn = int(found[2] or next(iter(parts.points.numbers()), 1))
    source = point_source(parts, pn, at_us)
    active = shaped(source("forward_active_total"), "A.14", register=True)
    variant = variant_of(row.fields, parts.edition)
    sets = {n.name for n in variant.nodes if isinstance(n, Field) and n.format.startswith("bs")}
    given: Unit = {**GIVEN, "pn": pn, "fwd_active": active, "time": parts.local(at_us)}
    known: Unit = {k: [v] if k in sets else v for k, v in given.items() if k in variant.keys}
    data = fill(row.fields, parts.edition, known, source)
    try:
        row.fields.encode(data, parts.edition)
    except UsageError:
        return False
    data.pop("time", None)
    parts.record(row.erc, at_us, **data)
    return True
