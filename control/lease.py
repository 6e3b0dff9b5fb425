"""The control lease: of all daemons of one database at most one sends control frames (fencing; design: growing).

Two gates to take it: an advisory lock, which the server frees when the holder's connection is gone, and a row with a
monotonic term, whose last holder must have been silent for `hold_s` by the database's clock (who gave it back, or is
known to be dead because its data directory is ours now, is not waited for). Each transaction of the holder renews the
row, and fails when another has taken the term. Below the drivers no write leaves once the last renewal is
older than 80 % of hold_s by a clock that also counts suspended time: who was paused, cut off or frozen between commit
and frame is stopped before anybody else may act.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from ..model.lang import tr
from ..protocols.common.errors import LinkError
from .records import Conn, scalar

LOCK: Final = 0x66756865_0003
SURE: Final = 0.8  # of hold_s: what is in a socket's buffer then is gone before the lease is
TAKE: Final = (
    "UPDATE control_lease SET term = term + 1, holder = %(holder)s, renewed_at = clock_timestamp() "
    "WHERE holder = %(holder)s OR renewed_at <= clock_timestamp() - make_interval(secs => %(hold_s)s) RETURNING term"
)
LEFT: Final = "SELECT holder, ceil(extract(epoch FROM renewed_at - clock_timestamp()) + %s)::int4 FROM control_lease"


def since_boot_s() -> float:
    """Seconds that never jump and go on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """See the module. holder: who we are, different for every data directory of every machine."""

    def __init__(
        self, connect: Callable[[], Conn], holder: str, hold_s: float, elapsed: Callable[[], float] = since_boot_s
    ) -> None:
        """`connect`: an autocommit connection."""
        self._connect, self._holder, self._hold_s, self._elapsed = connect, holder, hold_s, elapsed
        self._renewed_s: float | None = None
        self.term = 0

    def open(self) -> Conn:
        """A connection that holds the lease. LinkError: who has it, and how long at most."""
        conn = self._connect()
        try:
            if not scalar(conn, "SELECT pg_try_advisory_lock(%s)", (LOCK,)):
                raise LinkError(tr("another daemon holds the control lease", "另一守护进程持有控制权"))
            self._take(conn)
        except BaseException:
            conn.close()
            raise
        return conn

    def _take(self, conn: Conn) -> None:
        begin_s = self._elapsed()
        found = conn.execute(TAKE, {"holder": self._holder, "hold_s": self._hold_s}).fetchone()
        if found is None:
            holder, left_s = conn.execute(LEFT, (self._hold_s,)).fetchone() or ("?", 0)
            raise LinkError(
                tr(
                    f"the control lease of {holder} runs out in {left_s} s unless it comes back",
                    f"{holder} 的控制权若不恢复将于 {left_s} 秒后到期",
                )
            )
        self.term = int(found[0])
        self._renewed_s = begin_s

    def renew(self, conn: Conn) -> float:
        """Inside a transaction: the lease is still ours, and longer. LinkError: it is not.

        Returns what `renewed` wants to know once the transaction is committed.
        """
        begin_s = self._elapsed()
        done = conn.execute("UPDATE control_lease SET renewed_at = clock_timestamp() WHERE term = %s", (self.term,))
        if done.rowcount != 1:
            self._renewed_s = None
            raise LinkError(tr("another daemon has taken the control lease", "控制权已被另一守护进程接管"))
        return begin_s

    def renewed(self, begin_s: float) -> None:
        """The transaction of a `renew` was committed."""
        self._renewed_s = begin_s

    def fresh(self) -> bool:
        """True while nobody else can have the lease: writes may leave."""
        return self._renewed_s is not None and self._elapsed() - self._renewed_s < self._hold_s * SURE

    def give_back(self, conn: Conn) -> None:
        """The next daemon need not wait."""
        self._renewed_s = None
        conn.execute("UPDATE control_lease SET renewed_at = 'epoch' WHERE term = %s", (self.term,))
