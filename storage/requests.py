"""The request table: the CLI asks, the daemon answers; NOTIFY wakes both, the table is what counts.

Notifications are lost while nobody listens, so both sides always read the table after they began to listen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from ..model.lang import tr
from ..protocols.common.errors import LinkError

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question to the daemon. state: asked | taken | done | failed; answer: JSON, for failed {"error": text}."""

    id: int
    kind: str
    device: int | None
    params: dict[str, Any]
    asked_by: str
    state: str
    answer: dict[str, Any] | None


_FIELDS = "id, kind, device, params, asked_by, state, answer"


def _request(row: tuple[Any, ...]) -> Request:
    return Request(**dict(zip(_FIELDS.split(", "), row, strict=True)))


def ask(connection: Connection, kind: str, *, device: int | None, params: dict[str, Any], asked_by: str) -> int:
    """Put a question; returns its id. `connection` must be autocommit (a notification leaves with the commit)."""
    row = connection.execute(
        "INSERT INTO request (kind, device, params, asked_by) VALUES (%s, %s, %s, %s) RETURNING id",
        (kind, device, Jsonb(params), asked_by),
    ).fetchone()
    assert row is not None
    return int(row[0])


def get(connection: Connection, request_id: int) -> Request:
    """A request as it stands."""
    row = connection.execute(f"SELECT {_FIELDS} FROM request WHERE id = %s".encode(), (request_id,)).fetchone()
    if row is None:
        raise LinkError(tr(f"request {request_id} is gone", f"请求 {request_id} 已不存在"))
    return _request(row)


def wait_answer(
    connection: Connection,
    request_id: int,
    timeout_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Request:
    """Wait until the daemon has answered; LinkError when it does not in time (is it running?). Autocommit only."""
    connection.execute("LISTEN fuhe_answer")
    try:
        deadline = clock() + timeout_s
        while True:
            request = get(connection, request_id)
            if request.state in ("done", "failed"):
                return request
            left = deadline - clock()
            if left <= 0:
                raise LinkError(
                    tr(
                        f"no answer within {timeout_s:g} s: is `fuhe run` running?",
                        f"{timeout_s:g} 秒内没有回答：fuhe run 是否在运行？",
                    )
                )
            for _ in connection.notifies(timeout=min(left, 1.0), stop_after=1):
                pass
    finally:
        if not connection.closed:
            connection.execute("UNLISTEN fuhe_answer")


def take(connection: Connection, limit: int = 100) -> list[Request]:
    """The daemon takes what was asked, oldest first; nobody else gets the same. Commits."""
    rows = connection.execute(
        f"WITH next AS (SELECT id AS next_id FROM request WHERE state = 'asked' ORDER BY id LIMIT %s"
        f" FOR UPDATE SKIP LOCKED) UPDATE request SET state = 'taken' FROM next WHERE id = next_id"
        f" RETURNING {_FIELDS}".encode(),
        (limit,),
    ).fetchall()
    if not connection.autocommit:
        connection.commit()
    return sorted(map(_request, rows), key=lambda r: r.id)


def answer(connection: Connection, request_id: int, value: dict[str, Any], *, failed: bool = False) -> None:
    """Answer a request. Commits."""
    connection.execute(
        "UPDATE request SET state = %s, answer = %s, answered_at = now() WHERE id = %s",
        ("failed" if failed else "done", Jsonb(value), request_id),
    )
    if not connection.autocommit:
        connection.commit()


def listen(
    connection: Connection, stop: Callable[[], bool], wait_s: float = 1.0, channel: str = "fuhe_request"
) -> Iterator[list[Request]]:
    """For the daemon, on an autocommit connection of its own: yields what was asked, as it is asked, until `stop()`.

    Requests that a former run took and never answered are failed first: nothing is carried out twice.
    """
    connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
    for (number,) in connection.execute("SELECT id FROM request WHERE state = 'taken'").fetchall():
        answer(connection, number, {"error": tr("the daemon was restarted", "守护进程已重启")}, failed=True)
    while not stop():
        found = take(connection)
        if found:
            yield found
            continue
        for _ in connection.notifies(timeout=wait_s, stop_after=1):
            pass


def forget_old(connection: Connection, days: int = 30) -> int:
    """Remove answered requests older than that; returns how many. Commits."""
    count = connection.execute(
        "DELETE FROM request WHERE state IN ('done', 'failed') AND asked_at < now() - make_interval(days => %s)",
        (days,),
    ).rowcount
    if not connection.autocommit:
        connection.commit()
    return count
