"""The list of key customers (大客户, domain 2.2): proposed from archive and readings, approved, then a version.

Key is whoever has enough running capacity, enough energy in 12 complete months, or several supplies. Nobody is dropped
automatically: a customer below all of it is proposed for removal only after `key_remove_months` below, and only the
leading group's approval makes a list. Energy counts only where all 13 month readings of all billing points are there
and every exchange has its readings; else capacity and supplies decide.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from psycopg.types.json import Jsonb

from ..model.archive import Customer, MeteringPoint, MeterReading, Supply, Version
from ..model.lang import tr
from ..model.quality import Quality
from ..model.quantities import quantity
from ..model.times import day_start_us, from_us, to_us
from ..protocols.common.errors import UsageError
from ..storage.archive_versions import versions
from .audit import Actor, Entry, append, canonical, recorded
from .config import ArchiveConfig
from .permissions import require, require_other_person
from .records import Conn, fetch_all, fetch_one, insert, scalar

REGISTER: Final = "forward_active_total"
MONTHS: Final = 12
Exchange = tuple[int, Decimal, Decimal]
"""Instant, register of the old meter at its end, of the new one at its start."""


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One customer of a list. action: add, keep, watch (below, but not long enough), remove. energy_kwh: of the last 12
    complete months, None = not all there. below_months: how many month ends in a row it has been below all criteria."""

    cons_no: str
    name: str
    action: str
    reasons: tuple[str, ...] = ()
    running_kva: Decimal | None = None
    supplies: int = 0
    energy_kwh: Decimal | None = None
    below_months: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyList:
    """A proposal, or with `version` a list in force from approved_at on. rows_: `KeyRow` as plain JSON."""

    id: int
    proposed_at: datetime
    as_of: date
    parameters: dict[str, Any]
    rows_: list[dict[str, Any]]
    digest: str
    drafter: int
    drafter_session: int
    version: int | None
    approver: int | None
    approver_session: int | None
    approved_at: datetime | None

    @property
    def rows(self) -> list[KeyRow]:
        """The customers of it."""
        return msgspec.convert(self.rows_, list[KeyRow])

    @property
    def members(self) -> list[KeyRow]:
        """Those who are key customers once it is in force."""
        return [r for r in self.rows if r.action != "remove"]


def month_starts(as_of: date, back: int) -> list[date]:
    """First days of as_of's month and of the `back` months before it, ascending."""
    last = as_of.year * 12 + as_of.month - 1
    return [date(n // 12, n % 12 + 1, 1) for n in range(last - back, last + 1)]


def energy(
    r1: Decimal | None, r2: Decimal | None, begin: int, end: int, factors: Sequence[tuple[int, Decimal]],
    exchanges: Sequence[Exchange],
) -> Decimal | None:  # fmt: skip
    """(R2 - R1)·K exact, in pieces at exchanges (4.1); None where a register is missing, falls, or K changes unread.

    factors: (from when, K) ascending, the first at or before begin.
    """
    if r1 is None or r2 is None:
        return None
    total = Decimal(0)
    at, register = begin, r1
    for instant, old, new in [*(e for e in exchanges if begin < e[0] <= end), (end, r2, r2)]:
        k = [f for t, f in factors if t <= at][-1:]
        if not k or old < register or any(at < t < instant for t, _ in factors):
            return None
        total += (old - register) * k[0]
        at, register = instant, new
    return total


def _exchanges(found: Sequence[Version]) -> dict[str, list[Exchange]]:
    """Metering point -> its exchanges: removal and installation at one instant."""
    sides: dict[tuple[str, int], dict[str, Decimal]] = defaultdict(dict)
    for v in found:
        r = v.record
        if isinstance(r, MeterReading) and r.forward_kwh is not None:
            sides[r.point, v.valid_from_us][r.kind] = r.forward_kwh
    result: dict[str, list[Exchange]] = defaultdict(list)
    for (point, at), two in sorted(sides.items()):
        if len(two) == 2:
            result[point].append((at, two["remove"], two["install"]))
    return result


def _month_energies(
    conn: Conn, found: Sequence[Version], now_us: int, months: Sequence[date]
) -> dict[str, list[Decimal | None]]:
    """Customer -> energy of each month between the given starts; None where a billing point lacks anything."""
    from ..storage.archive import multipliers  # numpy: only here

    instants = [day_start_us(m) for m in months]
    points = [v.record for v in found if isinstance(v.record, MeteringPoint) and v.in_force(now_us)]
    billing = [p for p in points if p.role == "billing" and p.direction != "export" and p.customer]
    ids = dict(
        conn.execute(
            "SELECT name, id FROM point WHERE name = ANY(%s)", ([p.device_point_name for p in billing],)
        ).fetchall()
    )
    what = quantity(REGISTER)
    registers: dict[tuple[int, int], Decimal] = {
        (int(p), to_us(t)): round(Decimal(repr(float(value))), what.decimals)
        for p, t, value in conn.execute(
            "SELECT DISTINCT ON (point, time) point, time, value FROM sample WHERE quantity = %s AND point = ANY(%s) "
            "AND time = ANY(%s) AND quality = %s ORDER BY point, time, source DESC",
            (what.id, list(ids.values()), [from_us(i) for i in instants], int(Quality.A)),
        ).fetchall()
    }
    order = list(ids.values())
    k = multipliers(conn, order, instants[0], instants[-1])
    factors: dict[int, list[tuple[int, Decimal]]] = defaultdict(list)
    for n, place in enumerate(k.index.tolist()):
        own_factors = factors[order[place]]
        if not own_factors or own_factors[-1][1] != k.factor(n):
            own_factors.append((int(k.valid_from_us[n]), k.factor(n)))
    exchanges = _exchanges(found)
    result: dict[str, list[Decimal | None]] = {}
    for p in billing:
        point = ids.get(p.device_point_name, 0)
        own = [
            energy(
                registers.get((point, a)), registers.get((point, b)), a, b, factors[point], exchanges.get(p.point, [])
            )
            for a, b in itertools.pairwise(instants)
        ]  # fmt: skip
        before = result.get(p.customer)
        result[p.customer] = own if before is None else [
            None if a is None or b is None else a + b for a, b in zip(before, own, strict=True)
        ]  # fmt: skip
    return result


def assess(conn: Conn, now_us: int, as_of: date, config: ArchiveConfig) -> list[KeyRow]:
    """Additions, members and removals as of a day, from the archive, stored readings and the list in force."""
    found = versions(conn, entities=["customers", "supplies", "points", "meter_readings"])
    back = config.key_remove_months
    months = month_starts(as_of, MONTHS + back)
    energies = _month_energies(conn, found, day_start_us(as_of), months)
    moments = [day_start_us(as_of), *(day_start_us(m) for m in reversed(month_starts(as_of, back)[:-1]))]
    present = current(conn)
    members = {r.cons_no for r in present.members} if present else set()
    rows = []
    state = _capacities(found, moments)
    for cons_no in sorted(set(state) | members):
        seen = state.get(cons_no, [(None, "", 0)] * len(moments))
        months_kwh = energies.get(cons_no, [])
        judged = []
        year: Decimal | None = None
        for n, (kva, _, supplies) in enumerate(seen):
            window = months_kwh[back - n : back - n + MONTHS]
            known = [e for e in window if e is not None]
            kwh = sum(known, Decimal(0)) if len(known) == MONTHS else None
            year = kwh if n == 0 else year
            judged.append(_reasons(kva, supplies, kwh, config))
        below = next((n for n, reasons in enumerate(judged) if reasons), len(judged))
        if below and cons_no not in members:
            continue
        action = "add" if cons_no not in members else "keep" if not below else "watch" if below <= back else "remove"
        rows.append(
            KeyRow(
                cons_no=cons_no, name=seen[0][1], action=action, reasons=judged[0], running_kva=seen[0][0],
                supplies=seen[0][2], energy_kwh=year, below_months=below,
            )
        )  # fmt: skip
    return rows


def _capacities(
    found: Sequence[Version], moments: Sequence[int]
) -> Mapping[str, list[tuple[Decimal | None, str, int]]]:
    """Customer -> (running kVA, name, supplies) at each moment."""
    result: dict[str, list[tuple[Decimal | None, str, int]]] = defaultdict(lambda: [(None, "", 0)] * len(moments))
    for n, at in enumerate(moments):
        supplies: dict[str, int] = defaultdict(int)
        for v in found:
            if isinstance(v.record, Supply) and v.in_force(at):
                supplies[v.record.customer] += 1
        for v in found:
            if isinstance(v.record, Customer) and v.in_force(at):
                c = v.record
                kva = c.contract_kva if c.running_kva is None else c.running_kva
                result[c.cons_no][n] = (kva, c.name, supplies[c.cons_no])
    return result


def _reasons(kva: Decimal | None, supplies: int, kwh: Decimal | None, config: ArchiveConfig) -> tuple[str, ...]:
    """Which criteria make it a key customer; empty = none."""
    found = []
    if kva is not None and kva >= config.key_running_kva:
        found.append("capacity")
    if kwh is not None and kwh >= config.key_energy_kwh:
        found.append("energy")
    if supplies >= config.key_supplies:
        found.append("supplies")
    return tuple(found)


# -- acts of people ---------------------------------------------------------------------------------------------------


def propose(conn: Conn, now_us: int, actor: Actor, as_of: date, config: ArchiveConfig) -> KeyList:
    """Store a proposal for the leading group."""
    with recorded(conn, now_us, actor, "key.propose", "key-list"):
        require(actor, "key.propose")
        rows: list[dict[str, Any]] = msgspec.to_builtins(assess(conn, now_us, as_of, config))
        digest = hashlib.sha256(canonical(rows).encode()).hexdigest()
        values = {
            "proposed_at": from_us(now_us), "as_of": as_of, "parameters": msgspec.to_builtins(config),
            "rows_": Jsonb(rows), "digest": digest, "drafter": actor.account_id, "drafter_session": actor.session_id,
        }  # fmt: skip
        number = int(insert(conn, "key_list", values, "id"))
        after = {"digest": digest, "customers": len(rows), "as_of": as_of.isoformat()}
        append(conn, now_us, [Entry(actor=actor, action="key.propose", object=f"key-list:{number}", after=after)])
        return get(conn, number)


def approve(conn: Conn, now_us: int, actor: Actor, number: int, size: int) -> KeyList:
    """The leading group's signature; `size`: how many members the list will have, as the signer has read it."""
    with recorded(conn, now_us, actor, "key.approve", f"key-list:{number}"):
        require(actor, "key.approve")
        conn.execute("SELECT pg_advisory_xact_lock(hashtext('key_list'))")
        found = get(conn, number)
        if found.version is not None or number != scalar(conn, "SELECT max(id) FROM key_list"):
            raise UsageError(
                tr("only the newest proposal can be approved, and only once", "仅可批准最新的建议, 且仅一次")
            )
        require_other_person(actor, found.drafter, found.drafter_session)
        if size != len(found.members):
            raise UsageError(tr("this is not the number of members of the list", "与名单户数不符"))
        version = int(scalar(conn, "SELECT coalesce(max(version), 0) + 1 FROM key_list"))
        before = current(conn)
        append(conn, now_us, [
            Entry(
                actor=actor, action="key.approve", object=f"key-list:{number}",
                before={"members": [r.cons_no for r in before.members] if before else []},
                after={"version": version, "members": [r.cons_no for r in found.members], "digest": found.digest},
            )
        ])  # fmt: skip
        conn.execute(
            "UPDATE key_list SET version = %s, approver = %s, approver_session = %s, approved_at = %s WHERE id = %s",
            (version, actor.account_id, actor.session_id, from_us(now_us), number),
        )
        return get(conn, number)


def get(conn: Conn, number: int) -> KeyList:
    """A proposal or list; UsageError if there is none with this number."""
    found = fetch_one(conn, KeyList, "SELECT * FROM key_list WHERE id = %s", (number,))
    if found is None:
        raise UsageError(tr(f"no list {number}", f"没有名单 {number}"))
    return found


def lists(conn: Conn) -> list[KeyList]:
    """All, newest first."""
    return fetch_all(conn, KeyList, "SELECT * FROM key_list ORDER BY id DESC")


def current(conn: Conn) -> KeyList | None:
    """The list in force, None before the first."""
    query = "SELECT * FROM key_list WHERE version IS NOT NULL ORDER BY version DESC LIMIT 1"
    return fetch_one(conn, KeyList, query)
