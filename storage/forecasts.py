"""Issued forecasts and forecasts of the weather: written once, never changed; and the windows of control in the past.

Nobody can update or delete a row (trigger, and the daemon's role has no right to): a score is about what was issued.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from ..model.readings import F8
from ..model.times import day_start_us, from_us, to_us

Connection = psycopg.Connection[Any]
Horizon = Literal["intraday", "day", "week", "month"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredForecast:
    """One issued forecast: kw and the two naive models (n,), slot i (from 0) is start_us + i * step_s to + (i + 1).

    issued_us: only what had been received by then was used; note: members, history, what was replaced, warnings.
    """

    object: str
    horizon: Horizon
    start_us: int
    step_s: int
    issued_us: int
    model: str
    inputs_hash: str
    kw: F8
    last_week: F8
    yesterday: F8
    note: dict[str, Any] = field(default_factory=dict)
    id: int = 0
    made_us: int = 0


def _list(values: F8) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def _array(values: Sequence[float | None]) -> F8:
    return np.array([np.nan if v is None else v for v in values], np.float64)


def insert_forecast(connection: Connection, forecast: StoredForecast) -> int | None:
    """Store an issued forecast; its number, or None if this object, horizon and start was issued at that very time."""
    row = connection.execute(
        "INSERT INTO forecast (object, horizon, start, step_s, issued, model, inputs_hash, kw, last_week, yesterday,"
        " note) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (object, horizon, start, issued) DO NOTHING RETURNING id",
        (
            forecast.object, forecast.horizon, from_us(forecast.start_us), forecast.step_s, from_us(forecast.issued_us),
            forecast.model, forecast.inputs_hash, _list(forecast.kw), _list(forecast.last_week),
            _list(forecast.yesterday), Jsonb(forecast.note),
        ),
    ).fetchone()  # fmt: skip
    return None if row is None else int(row[0])


_FIELDS = (
    "id, object, horizon, start, step_s, issued, made, model, inputs_hash, kw, last_week, yesterday, note"
)  # fmt: skip


def _forecast(row: tuple[Any, ...]) -> StoredForecast:
    values: dict[str, Any] = dict(zip(_FIELDS.split(", "), row, strict=True))
    for name in ("start", "issued", "made"):
        values[f"{name}_us"] = to_us(values.pop(name))
    for name in ("kw", "last_week", "yesterday"):
        values[name] = _array(values[name])
    return StoredForecast(**values)


def load_forecasts(
    connection: Connection,
    wanted: str,
    horizon: Horizon,
    from_us_: int,
    to_us_: int,
    *,
    issued_by_us: int | None = None,
    before_start: bool = False,
) -> list[StoredForecast]:
    """Of each start in [from, to) the newest forecast, ascending; issued_by_us: not issued later than that;
    before_start: of those that were issued before their first slot began."""
    rows = connection.execute(
        f"SELECT DISTINCT ON (start) {_FIELDS} FROM forecast WHERE object = %s AND horizon = %s".encode()
        + b" AND start >= %s AND start < %s AND (%s::timestamptz IS NULL OR issued <= %s)"
        b" AND (NOT %s OR issued <= start) ORDER BY start, issued DESC",
        (
            wanted, horizon, from_us(from_us_), from_us(to_us_),
            *[None if issued_by_us is None else from_us(issued_by_us)] * 2, before_start,
        ),
    ).fetchall()  # fmt: skip
    return [_forecast(row) for row in rows]


def list_forecasts(connection: Connection, wanted: str | None, limit: int) -> list[StoredForecast]:
    """The newest issued forecasts of an object or of all."""
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM forecast WHERE %s::text IS NULL OR object = %s".encode()
        + b" ORDER BY issued DESC, id DESC LIMIT %s",
        (wanted, wanted, limit),
    ).fetchall()
    return [_forecast(row) for row in rows]


def last_issue_us(connection: Connection, wanted: str, horizon: Horizon) -> int | None:
    """When the object's newest forecast of the horizon was issued."""
    row = connection.execute(
        "SELECT max(issued) FROM forecast WHERE object = %s AND horizon = %s", (wanted, horizon)
    ).fetchone()
    return None if row is None or row[0] is None else to_us(row[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class WeatherRow:
    """A forecast of the weather for one time; daily: a figure of the business day that begins at time_us."""

    place: str
    quantity: str
    time_us: int
    daily: bool
    issued_us: int
    value: float


def insert_weather(connection: Connection, rows: Sequence[WeatherRow]) -> int:
    """Store rows in one transaction; those already there with the same issue time stay as they are. Returns the new."""
    with connection.transaction(), connection.cursor() as cursor:
        before = cursor.execute("SELECT count(*) FROM weather_forecast").fetchone()
        cursor.executemany(
            "INSERT INTO weather_forecast (place, quantity, time, daily, issued, value) VALUES (%s, %s, %s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING",
            [(r.place, r.quantity, from_us(r.time_us), r.daily, from_us(r.issued_us), r.value) for r in rows],
        )
        after = cursor.execute("SELECT count(*) FROM weather_forecast").fetchone()
    assert before is not None and after is not None
    return int(after[0]) - int(before[0])


@dataclass(frozen=True, slots=True)
class Weather:
    """Rows of one quantity, ascending by time and issue: arrays (n,) and whether they are daily figures."""

    time_us: NDArray[np.int64]
    issued_us: NDArray[np.int64]
    value: F8
    daily: bool


def load_weather(connection: Connection, place: str, first: date, last: date, issued_by_us: int) -> dict[str, Weather]:
    """By quantity, everything for the days first..last that had been issued by then."""
    rows = connection.execute(
        "SELECT quantity, time, issued, value, daily FROM weather_forecast WHERE place = %s AND issued <= %s"
        " AND time >= %s AND time < %s ORDER BY quantity, time, issued",
        (place, from_us(issued_by_us), from_us(day_start_us(first)), from_us(day_start_us(last) + 86_400_000_000)),
    ).fetchall()
    out: dict[str, Weather] = {}
    for name in sorted({r[0] for r in rows}):
        own = [r for r in rows if r[0] == name]
        out[name] = Weather(
            np.array([to_us(r[1]) for r in own], np.int64),
            np.array([to_us(r[2]) for r in own], np.int64),
            np.array([r[3] for r in own], np.float64),
            all(r[4] for r in own),
        )
    return out


@dataclass(frozen=True, slots=True)
class ControlWindow:
    """A time in which a device's load was held down: by a command from the trip to the restored round (or still open),
    or by a customer who reduces by himself, from the order's start to its end.
    """

    device: int
    from_us: int
    to_us: int


def control_windows(connection: Connection, devices: Sequence[int], from_us_: int, to_us_: int) -> list[ControlWindow]:
    """Windows of the devices that overlap [from, to), as far as they began before `to`: commands that were sent, and
    orders to customers who reduce by themselves.
    """
    rows = connection.execute(
        "SELECT device_id, sent_at, coalesce(restored_at, released_at, CASE WHEN state IN"
        " ('FAILED', 'CLOSED', 'SUPERSEDED') THEN changed_at END, %(b)s) FROM command"
        " WHERE takes_supply(kind) AND device_id = ANY(%(d)s) AND sent_at IS NOT NULL AND sent_at < %(b)s"
        " AND coalesce(restored_at, released_at, %(b)s) >= %(a)s"
        " UNION SELECT c.device_id, o.start_at,"
        " least(o.end_at, CASE WHEN o.state IN ('ENDED', 'EVALUATED', 'ARCHIVED') THEN o.changed_at END)"
        " FROM command c JOIN order_ o ON o.id = c.order_id"
        " JOIN plan_row r ON (r.plan_id, r.row) = (c.plan_id, c.plan_row)"
        " WHERE r.voluntary AND c.device_id = ANY(%(d)s)"
        " AND c.state NOT IN ('DRAFT', 'SUPERSEDED', 'REJECTED', 'CANCELLED')"
        " AND o.state IN ('ACTIVE', 'CHANGING', 'RELEASING', 'ENDED', 'EVALUATED', 'ARCHIVED')"
        " AND o.start_at < %(b)s AND o.end_at >= %(a)s ORDER BY 1, 2",
        {"d": list(devices), "a": from_us(from_us_), "b": from_us(to_us_)},
    ).fetchall()
    return [ControlWindow(r[0], to_us(r[1]), min(to_us(r[2]), to_us_)) for r in rows if r[2] > r[1]]
