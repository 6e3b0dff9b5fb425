"""`python -m fuhe.daemon.forecast_worker`: makes the forecasts that are due, in a process of its own, low in priority.

Learning takes seconds of a whole core; the daemon's loop must answer devices and control meanwhile. The question comes
as JSON on standard input, every forecast made is a JSON line on standard output, a failed one has its reason.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import msgspec

from ..protocols.common.errors import FuheError
from ..storage.config import StorageConfig
from ..storage.database import Database
from .forecast import due, issue
from .forecast_config import ForecastConfig

LOCK: Final = 0x666F_7265


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon tells its worker."""

    storage: StorageConfig
    forecast: ForecastConfig
    now_us: int
    skip: tuple[tuple[str, str], ...] = ()


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """One forecast: its number, or why there is none."""

    object: str
    horizon: str
    id: int | None = None
    error: str = ""
    warnings: tuple[str, ...] = ()


def answer(question: Question) -> list[Made]:
    """Everything due, each on its own: one object without data does not cost the others theirs."""
    out = []
    with (
        Database.open(question.storage, migrate=False) as database,
        database.connect(autocommit=True) as connection,
    ):
        # of two daemons' workers the second waits, and then finds nothing due; the lock ends with the connection
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        for wanted, horizon in due(connection, question.forecast, question.now_us):
            if (wanted, horizon) in question.skip:
                continue
            try:
                made, number = issue(connection, wanted, horizon, question.now_us, question.forecast)
                warnings = tuple(made.note.get("warnings", ()))
                out.append(Made(object=wanted, horizon=horizon, id=number, warnings=warnings))
            except FuheError as error:
                out.append(Made(object=wanted, horizon=horizon, error=str(error)))
    return out


def main() -> int:
    """Standard input to standard output."""
    os.nice(10)
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    try:
        made = answer(question)
    except FuheError as error:
        print(error, file=sys.stderr)
        return 1
    for one in made:
        sys.stdout.buffer.write(msgspec.json.encode(one) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
