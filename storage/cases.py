"""Cases in the database: opened and repeated by what rules find, moved by people, every step kept.

One open case a device, point and rule. Opening is idempotent: a finding at an instant that the case already covers adds
nothing. The steps people may take are a table; who may take them is control's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from ..model.lang import tr
from ..model.times import day_start_us, from_us
from ..protocols.common.errors import UsageError

Connection = psycopg.Connection[Any]

OPEN: Final = ("new", "confirmed", "assigned", "on_site", "repaired", "verified")
ENDED: Final = ("closed", "false")
# step -> (states it may be taken from, state it leads to)
STEPS: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "ack": (("new",), "confirmed"),
    "confirm": (("new",), "confirmed"),
    "false": (("new", "confirmed", "assigned", "on_site"), "false"),
    "assign": (("new", "confirmed", "assigned"), "assigned"),
    "on-site": (("assigned",), "on_site"),
    "repaired": (("confirmed", "assigned", "on_site"), "repaired"),
    "verify": (("repaired",), "verified"),
    "close": (("confirmed", "assigned", "on_site", "repaired", "verified"), "closed"),
}
DAEMON: Final = "daemon"
AGAIN: Final = 50  # events before the cursor that are looked at once more
AGAIN_DAYS: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case. first_at, last_at: instants of its findings; cleared_at: since when the condition is over."""

    id: int
    rule: str
    device_id: int
    point: int | None
    severity: int
    state: str
    first_at: datetime
    last_at: datetime
    cleared_at: datetime | None
    repeats: int
    opened_at: datetime
    changed_at: datetime
    due_at: datetime
    close_s: int
    escalated: int
    assignee: str
    finding: str
    told: list[str]
    hidden: bool
    evidence: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a case's life."""

    at: datetime
    actor: str
    step: str
    note: str
    evidence: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule has found: from first_us to last_us (UTC µs).

    note_s, close_s: within which a person is to take note of the case, and to close it.
    """

    rule: str
    severity: int
    told: Sequence[str]
    device_id: int
    point: int | None
    first_us: int
    last_us: int
    note_s: int
    close_s: int
    hidden: bool = False
    evidence: Mapping[str, Any] | None = None


COLUMNS: Final = ", ".join(Case.__slots__)


def open_or_repeat(connection: Connection, now_us: int, found: Finding) -> tuple[int, bool]:
    """(case, something is new): a new case, or one more finding of the open one. Inside the caller's transaction."""
    first, last, now = from_us(found.first_us), from_us(found.last_us), from_us(now_us)
    row = connection.execute(
        "SELECT id, first_at, last_at FROM case_ WHERE device_id = %s AND point IS NOT DISTINCT FROM %s AND rule = %s"
        " AND state <> ALL(%s) FOR UPDATE",
        (found.device_id, found.point, found.rule, list(ENDED)),
    ).fetchone()
    if row is None:
        known = _known(connection, found)
        if known is not None:
            return known, _goes_on(connection, now_us, known, found)
        (number,) = connection.execute(
            "INSERT INTO case_ (rule, device_id, point, severity, first_at, last_at, opened_at, changed_at, due_at,"
            " close_s, told, hidden, evidence)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
            (
                found.rule, found.device_id, found.point, found.severity, first, last, now, now,
                now + timedelta(seconds=found.note_s), found.close_s, list(found.told), found.hidden,
                Jsonb(dict(found.evidence or {})),
            ),
        ).fetchone() or (0,)  # fmt: skip
        _step(connection, int(number), now_us, DAEMON, "open", "", found.evidence)
        return int(number), True
    number, had_first, had_last = int(row[0]), row[1], row[2]
    if had_first <= first and last <= had_last:
        return number, False
    apart = first > had_last or last < had_first
    connection.execute(
        "UPDATE case_ SET first_at = least(first_at, %s), last_at = greatest(last_at, %s), changed_at = %s,"
        " cleared_at = CASE WHEN %s > last_at THEN NULL ELSE cleared_at END, repeats = repeats + %s,"
        " evidence = evidence || %s WHERE id = %s",
        (first, last, now, last, int(apart), Jsonb(dict(found.evidence or {})), number),
    )
    if apart:
        _step(connection, number, now_us, DAEMON, "repeat", "", found.evidence)
    return number, True


def _known(connection: Connection, found: Finding) -> int | None:
    """An ended case that the finding belongs to: one that covers it (judged again, a day does not open once more what
    has been dealt with), or one that closed itself within `AGAIN_DAYS` of it (a nightly habit is one case, in whatever
    order its days are judged)."""
    row = connection.execute(
        "SELECT id FROM case_ WHERE device_id = %s AND point IS NOT DISTINCT FROM %s AND rule = %s"
        " AND finding <> 'withdrawn' AND ((first_at <= %s AND last_at >= %s)"
        " OR (finding = 'over' AND first_at <= %s AND last_at >= %s))"
        " ORDER BY last_at DESC, id DESC LIMIT 1",
        (
            found.device_id, found.point, found.rule, from_us(found.last_us), from_us(found.first_us),
            from_us(found.last_us) + timedelta(days=AGAIN_DAYS), from_us(found.first_us) - timedelta(days=AGAIN_DAYS),
        ),
    ).fetchone()  # fmt: skip
    return None if row is None else int(row[0])


def _goes_on(connection: Connection, now_us: int, case_id: int, found: Finding) -> bool:
    """A case that had closed itself opens again with a later finding, and only grows with one in between."""
    first, last = from_us(found.first_us), from_us(found.last_us)
    row = connection.execute(
        "SELECT last_at, finding, first_at FROM case_ WHERE id = %s FOR UPDATE", (case_id,)
    ).fetchone()
    if row is None or row[1] != "over":
        return False
    if last <= row[0]:
        connection.execute(
            "UPDATE case_ SET first_at = least(first_at, %s), repeats = repeats + %s WHERE id = %s",
            (first, int(last < row[2]), case_id),
        )
        return False
    connection.execute(
        "UPDATE case_ SET first_at = least(first_at, %s), last_at = %s, changed_at = %s, cleared_at = NULL,"
        " state = 'new', finding = '', repeats = repeats + 1, due_at = %s, evidence = evidence || %s WHERE id = %s",
        (
            first, last, from_us(now_us), from_us(now_us) + timedelta(seconds=found.note_s),
            Jsonb(dict(found.evidence or {})), case_id,
        ),
    )  # fmt: skip
    _step(connection, case_id, now_us, DAEMON, "again", "", found.evidence)
    return True


def clear(connection: Connection, now_us: int, point: int, rule: str, at_us: int, *, close: bool) -> int | None:
    """The condition has been over since `at_us`: noted, and a case that nobody has taken up is closed if it may be."""
    row = connection.execute(
        "SELECT id, state FROM case_ WHERE point = %s AND rule = %s AND state <> ALL(%s) AND cleared_at IS NULL"
        " AND last_at <= %s FOR UPDATE",
        (point, rule, list(ENDED), from_us(at_us)),
    ).fetchone()
    if row is None:
        return None
    done = close and row[1] == "new"
    connection.execute(
        "UPDATE case_ SET cleared_at = %s, changed_at = %s, state = CASE WHEN %s THEN 'closed' ELSE state END,"
        " finding = CASE WHEN %s THEN 'over' ELSE finding END WHERE id = %s",
        (from_us(at_us), from_us(now_us), done, done, row[0]),
    )
    _step(connection, int(row[0]), now_us, DAEMON, "closed" if done else "cleared", "", None)
    return int(row[0])


def withdraw(connection: Connection, now_us: int, point: int, rule: str, from_us_: int, to_us_: int) -> int | None:
    """A day judged again has lost its finding: a new case that rested on that day alone is closed with that word."""
    row = connection.execute(
        "SELECT id FROM case_ WHERE point = %s AND rule = %s AND state = 'new' AND first_at >= %s AND last_at <= %s"
        " FOR UPDATE",
        (point, rule, from_us(from_us_), from_us(to_us_)),
    ).fetchone()
    if row is None:
        return None
    connection.execute(
        "UPDATE case_ SET state = 'closed', finding = 'withdrawn', changed_at = %s WHERE id = %s",
        (from_us(now_us), row[0]),
    )
    _step(connection, int(row[0]), now_us, DAEMON, "withdrawn", "", None)
    return int(row[0])


def move(
    connection: Connection, now_us: int, actor: str, case_id: int, step: str, note: str, *, assignee: str = ""
) -> Case:
    """One step by a person. UsageError: not from this state, or without the words that the step needs."""
    case = get(connection, case_id, lock=True)
    before, after = STEPS[step]
    if case.state not in before:
        text = ", ".join(before)
        raise UsageError(
            tr(f"case {case_id} is {case.state}: {step} is for cases that are {text}",
               f"案例 {case_id} 为 {case.state}: {step} 仅用于 {text}")
        )  # fmt: skip
    if step in ("false", "close") and not note.strip():
        raise UsageError(tr("say what was found: --note TEXT", "须写结论: --note 文本"))
    if step == "assign" and not assignee.strip():
        raise UsageError(tr("say to whom: --to NAME", "须写指派对象: --to 姓名"))
    if step == "verify" and case.cleared_at is None:
        raise UsageError(tr("the data do not show yet that it is over", "数据尚未表明已恢复"))
    connection.execute(
        "UPDATE case_ SET state = %s, changed_at = %s, escalated = CASE WHEN state = 'new' THEN 0 ELSE escalated END,"
        " due_at = CASE WHEN state = 'new' THEN opened_at + make_interval(secs => close_s) ELSE due_at END,"
        " assignee = CASE WHEN %s <> '' THEN %s ELSE assignee END,"
        " finding = CASE WHEN %s THEN %s ELSE finding END WHERE id = %s",
        (after, from_us(now_us), assignee, assignee, step in ("false", "close"), note, case_id),
    )
    _step(connection, case_id, now_us, actor, step, note if not assignee else f"{assignee} {note}".strip(), None)
    return get(connection, case_id)


def note(connection: Connection, now_us: int, actor: str, case_id: int, text: str) -> Case:
    """A remark; the state stays."""
    case = get(connection, case_id, lock=True)
    if not text.strip():
        raise UsageError(tr("write the remark: --note TEXT", "须写备注: --note 文本"))
    _step(connection, case.id, now_us, actor, "note", text, None)
    return case


def escalate(connection: Connection, now_us: int) -> list[int]:
    """Open cases that are overdue go one level up, once a period; returns their numbers."""
    rows = connection.execute(
        "UPDATE case_ SET escalated = escalated + 1, due_at = %s + (due_at - opened_at), changed_at = %s"
        " WHERE state <> ALL(%s) AND due_at < %s RETURNING id, escalated",
        (from_us(now_us), from_us(now_us), list(ENDED), from_us(now_us)),
    ).fetchall()
    for number, level in rows:
        _step(connection, int(number), now_us, DAEMON, "overdue", f"level {level}", None)
    return [int(r[0]) for r in rows]


def get(connection: Connection, case_id: int, *, lock: bool = False) -> Case:
    """One case; UsageError if there is none."""
    with connection.cursor(row_factory=class_row(Case)) as cursor:
        query = f"SELECT {COLUMNS} FROM case_ WHERE id = %s" + (" FOR UPDATE" if lock else "")
        found = cursor.execute(query.encode(), (case_id,)).fetchone()
    if found is None:
        raise UsageError(tr(f"no case {case_id}", f"没有案例 {case_id}"))
    return found


def cases(
    connection: Connection, *, everything: bool = False, rule: str | None = None, points: Sequence[int] | None = None,
    limit: int = 1000,
) -> list[Case]:  # fmt: skip
    """Open cases (or all), the most urgent and newest first."""
    with connection.cursor(row_factory=class_row(Case)) as cursor:
        return cursor.execute(
            (
                f"SELECT {COLUMNS} FROM case_ WHERE (%s OR state <> ALL(%s)) AND (%s::text IS NULL OR rule = %s)"
                " AND (%s::int4[] IS NULL OR point = ANY(%s)) ORDER BY severity, last_at DESC, id DESC LIMIT %s"
            ).encode(),
            (everything, list(ENDED), rule, rule, *[None if points is None else list(points)] * 2, limit),
        ).fetchall()


def steps(connection: Connection, case_id: int) -> list[Step]:
    """The life of a case, oldest first."""
    with connection.cursor(row_factory=class_row(Step)) as cursor:
        return cursor.execute(
            "SELECT at, actor, step, note, evidence FROM case_step WHERE case_id = %s ORDER BY id", (case_id,)
        ).fetchall()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of the cases opened in a month by one rule; accuracy = confirmed / judged, handling = closed in time / due."""

    rule: str
    raised: int
    confirmed: int
    false: int
    closed: int
    closed_in_time: int
    open: int


def counts(connection: Connection, month: date) -> list[Counts]:
    """Detection and handling of the month that begins with `month`, by rule. Confirmed: a person said so."""
    begin = month.replace(day=1)
    end = (begin + timedelta(days=32)).replace(day=1)
    with connection.cursor(row_factory=class_row(Counts)) as cursor:
        return cursor.execute(
            "SELECT rule, count(*) AS raised,"
            " count(*) FILTER (WHERE state <> 'false' AND EXISTS (SELECT FROM case_step s WHERE s.case_id = c.id"
            "  AND s.step IN ('ack', 'confirm', 'assign', 'on-site', 'repaired', 'close'))) AS confirmed,"
            " count(*) FILTER (WHERE state = 'false') AS false,"
            " count(*) FILTER (WHERE state IN ('closed', 'false')) AS closed,"
            " count(*) FILTER (WHERE state IN ('closed', 'false') AND escalated = 0 AND changed_at <= due_at)"
            " AS closed_in_time, count(*) FILTER (WHERE state NOT IN ('closed', 'false')) AS open"
            " FROM case_ c WHERE opened_at >= %s AND opened_at < %s GROUP BY rule ORDER BY rule",
            (from_us(day_start_us(begin)), from_us(day_start_us(end))),
        ).fetchall()


def _step(
    connection: Connection, case_id: int, now_us: int, actor: str, step: str, text: str,
    evidence: Mapping[str, Any] | None,
) -> None:  # fmt: skip
    connection.execute(
        "INSERT INTO case_step (case_id, at, actor, step, note, evidence) VALUES (%s, %s, %s, %s, %s, %s)",
        (case_id, from_us(now_us), actor, step, text, Jsonb(dict(evidence or {}))),
    )


# --- what each day found ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleDay:
    """One rule on one day of one point. spans: minutes of the day, begin and end in turn; the rest goes to the next."""

    point: int
    rule: str
    spans: list[int]
    active: bool
    run_on: int
    run_off: int


def rule_days(connection: Connection, points: Sequence[int], day: date) -> dict[tuple[int, str], RuleDay]:
    """By (point, rule); what is not there found nothing and carries nothing."""
    with connection.cursor(row_factory=class_row(RuleDay)) as cursor:
        rows = cursor.execute(
            "SELECT point, rule, spans, active, run_on, run_off FROM rule_day WHERE day = %s AND point = ANY(%s)",
            (day, list(points)),
        ).fetchall()
    return {(r.point, r.rule): r for r in rows}


def put_rule_days(connection: Connection, points: Sequence[int], day: date, found: Sequence[RuleDay]) -> None:
    """In place of what the day had before."""
    connection.execute("DELETE FROM rule_day WHERE day = %s AND point = ANY(%s)", (day, list(points)))
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO rule_day (point, day, rule, spans, active, run_on, run_off)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [(r.point, day, r.rule, r.spans, r.active, r.run_on, r.run_off) for r in found],
        )


def seen_since(connection: Connection, points: Sequence[int], since: datetime) -> dict[int, set[str]]:
    """Rules with cases of a point that had findings since then, false ones left out."""
    rows = connection.execute(
        "SELECT coalesce(c.point, p.id), c.rule FROM case_ c LEFT JOIN point p ON c.point IS NULL"
        " AND p.device_id = c.device_id WHERE coalesce(c.point, p.id) = ANY(%s) AND c.last_at >= %s"
        " AND c.state <> 'false' AND c.finding <> 'withdrawn'",
        (list(points), since),
    ).fetchall()
    found: dict[int, set[str]] = {}
    for point, rule in rows:
        found.setdefault(int(point), set()).add(str(rule))
    return found


def proven_before(connection: Connection, points: Sequence[int]) -> set[int]:
    """Points with a theft case that people closed with a finding (history)."""
    rows = connection.execute(
        "SELECT DISTINCT point FROM case_ WHERE rule = 'TS' AND state = 'closed' AND point = ANY(%s)"
        " AND finding NOT IN ('over', 'withdrawn')",
        (list(points),),
    ).fetchall()
    return {int(r[0]) for r in rows}


@dataclass(frozen=True, slots=True)
class NewEvents:
    """Events behind the cursor and a few before it. rows: (device, point, time µs, code, data); fresh: how many new."""

    last: int
    fresh: int
    rows: list[tuple[int, int | None, int, str, dict[str, Any]]]


def new_events(connection: Connection, limit: int) -> NewEvents:
    """What came since `advance`; the cursor is locked.

    A few before it are looked at again: numbers are given before they are committed, and a finding counts once.
    """
    (last,) = connection.execute("SELECT event FROM case_cursor FOR UPDATE").fetchone() or (0,)
    rows = connection.execute(
        "SELECT id, device, point, (extract(epoch FROM time) * 1000000)::int8, code, data FROM event WHERE id > %s"
        " ORDER BY id LIMIT %s",
        (last - AGAIN, limit + AGAIN),
    ).fetchall()
    fresh = sum(r[0] > last for r in rows)
    found = [(int(r[1]), r[2], int(r[3]), str(r[4]), r[5]) for r in rows]
    return NewEvents(max(int(last), *(int(r[0]) for r in rows)) if rows else int(last), fresh, found)


def advance(connection: Connection, last: int) -> None:
    """The cursor behind the events that were looked at."""
    connection.execute("UPDATE case_cursor SET event = %s", (last,))
