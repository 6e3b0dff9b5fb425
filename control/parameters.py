"""Writing parameters of terminals (domain 9.2, 9.3): drafted, signed by one or two people, written, read back.

One command a device carries all its parameters of one batch. What the values mean on the wire is the exchange's matter;
here they are plain JSON under the protocol's names. Passwords never come here: a secret's name stands in their place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from ..model.lang import tr
from ..model.times import from_us
from ..protocols.common.errors import UsageError
from .audit import Actor, recorded
from .command import Command, Work, by_ids
from .commands import ask, insert_drafts, needed, submit
from .config import ControlConfig
from .permissions import require
from .records import Conn, fetch_all, scalar
from .rules.parameters import Care, care_of, why_two

VALID: Final = timedelta(hours=1)
KIND: Final = "parameters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Parameters for one device: settings as {"item", "pn", "values"}, values plain JSON as they will be read back."""

    device_id: int
    settings: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One command of a batch. why: why two people must sign, empty if one may."""

    command: Command
    why: tuple[str, ...]


def present(conn: Conn, device_id: int, item: str, pn: int) -> dict[str, Any] | None:
    """The newest value of a parameter as it was read, None = never read or not understood."""
    name = f"0A:{item}" + (f":P{pn}" if pn else "")
    text = scalar(
        conn,
        "SELECT value FROM parameter WHERE device = %s AND item = %s ORDER BY time DESC LIMIT 1",
        (device_id, name),
    )
    try:
        found = json.loads(str(text)) if text is not None else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def reasons_for_two(conn: Conn, change: Change) -> tuple[str, ...]:
    """Why two people must sign this change; empty if one may."""
    found = []
    for s in change.settings:
        item, pn = str(s["item"]), int(s["pn"])
        known = present(conn, change.device_id, item, pn) if care_of(item) is Care.FLOOR else None
        why = why_two(item, s["values"], known)
        if why and why not in found:
            found.append(why)
    return tuple(found)


def draft(
    conn: Conn, now_us: int, actor: Actor, changes: Sequence[Change], reason: str, config: ControlConfig
) -> list[Draft]:
    """A batch of changes, signed by the drafter. What one person may change waits for nothing but `execute`."""
    with recorded(conn, now_us, actor, "parameter.set", f"devices:{len(changes)}"):
        items = {str(s["item"]) for c in changes for s in c.settings}
        keys_only = bool(items) and all(care_of(i) is Care.KEY for i in items)
        require(actor, "parameter.key" if keys_only else "parameter.set")
        text = needed(reason)
        if not changes or not all(c.settings for c in changes):
            raise UsageError(tr("no parameters to set", "没有要设置的参数"))
        twice = len({c.device_id for c in changes}) < len(changes)
        if twice:
            raise UsageError(tr("a device stands twice in one batch", "同一批中装置重复"))
        batch = int(scalar(conn, "SELECT coalesce(max(batch), 0) + 1 FROM command"))
        why = [reasons_for_two(conn, c) for c in changes]
        rows: list[dict[str, Any]] = [
            {
                "environment": config.environment, "kind": KIND, "scope": "device", "device_id": c.device_id,
                "round": 0, "rounds": [], "params": {}, "signatures": 2 if reasons else 1, "customer": "",
                "expected_kw": 0.0, "round_kw": 0.0, "floor_kw": 0.0, "reason": text, "batch": batch,
                "settings": [dict(s) for s in c.settings], "not_before": from_us(now_us),
                "not_after": from_us(now_us) + VALID,
            }
            for c, reasons in zip(changes, why, strict=True)
        ]  # fmt: skip
        drafts = insert_drafts(conn, now_us, actor, rows)
        with Work(conn, now_us, [c.id for c in drafts], actor) as work:
            made = submit(work, [work[c.id] for c in drafts], reason=text)
        return [Draft(command=c, why=reasons) for c, reasons in zip(made, why, strict=True)]


def execute(conn: Conn, now_us: int, actor: Actor, command_ids: Sequence[int]) -> list[Command]:
    """Ask the daemon to write them: those with one signature by their drafter, those with two once both are there."""
    wanted = sorted(set(command_ids))
    with recorded(conn, now_us, actor, "parameter.execute", "commands:" + ",".join(map(str, wanted))):
        require(actor, "parameter.execute")
        others = [c.id for c in by_ids(conn, wanted) if c.kind != KIND]
        if others or not wanted:
            raise UsageError(tr(f"no parameter commands: {others}", f"非参数命令: {others}"))
        step = int(scalar(conn, "SELECT coalesce(max(step), 0) + 1 FROM command"))
        with Work(conn, now_us, wanted, actor) as work:
            return [ask(work, work[i], step) for i in wanted]


def batch(conn: Conn, number: int | None = None) -> list[Command]:
    """The commands of a batch, the last one if no number is given."""
    last = number if number is not None else scalar(conn, "SELECT max(batch) FROM command")
    if last is None:
        return []
    return fetch_all(conn, Command, "SELECT * FROM command WHERE batch = %s ORDER BY id", (last,))
