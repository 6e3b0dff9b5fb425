"""What the command line asks of the daemon and how it is answered: the JSON of the `request` table, both directions.

kind "read":    params {"duty": "live", "items": ["02010100", ...]}
kind "recall":  params {"duty": "curve", "items": [], "from_us": ..., "to_us": ...}   window of labels, [from, to)
kind "clock":   params {"audit": seq}; set a terminal's clock, as the audit record of that number asks
kind "settings": params {"settings": [{"item": "F25", "pn": 1, "values": {...}}]}; read these parameters and compare
                answer {"status", "reason", "settings": [{item, pn, wanted, read, differences, fault}]}
kind "devices": params {}; the device list has changed, load it again
kind "unknown": params {}; terminals that dialled in and are not served
                answer {"terminals": [{link, address, hex, peer, reason, held, connections, frames, first_us, last_us}],
                "refused": connections for which the table had no room}
answer:         {"status", "reason", "retries", "stored": n, "parameters": [{item, value, time_us}],
                 "values": [{point, quantity, source, time_us, value, quality}],
                 "events": [{code, time_us, end_us, data}], "faults": [{item, reason, final}]}
                `stored` counts all values; those of curves are not listed one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..model.control import Setting
from ..model.lang import tr
from ..model.work import Duty, Outcome, Priority, WorkItem
from ..protocols.common.errors import UsageError
from .unknown import UnknownTable

READ: Final = "read"
RECALL: Final = "recall"
DEVICES: Final = "devices"
CLOCK: Final = "clock"
UNKNOWN: Final = "unknown"
SETTINGS: Final = "settings"
READABLE: Final = (Duty.LIVE, Duty.DAILY, Duty.MONTHLY, Duty.EVENT, Duty.CLOCK, Duty.PARAMETER, Duty.PROBE)
RECALLABLE: Final = (Duty.CURVE, Duty.DAILY, Duty.MONTHLY, Duty.EVENT)
MAX_ITEMS: Final = 200
MAX_SPAN_US: Final = 400 * 86_400_000_000


def item_of(kind: str, device: int, params: Mapping[str, Any], now_s: float, timeout_s: float = 120.0) -> WorkItem:
    """The work item of a request. UsageError when the parameters are not of the form above."""
    allowed = READABLE if kind == READ else RECALLABLE if kind == RECALL else ()
    duty, items = params.get("duty"), params.get("items", [])
    if not isinstance(duty, str) or duty not in allowed:
        names = ", ".join(allowed) or "-"
        raise UsageError(tr(f"{kind}: duty {duty!r} is not one of {names}", f"{kind}: 任务 {duty!r} 应为 {names} 之一"))
    if not isinstance(items, list) or len(items) > MAX_ITEMS or not all(isinstance(i, str) for i in items):
        raise UsageError(tr(f"items: give at most {MAX_ITEMS} texts", f"items: 至多 {MAX_ITEMS} 个文本"))
    if duty == Duty.CLOCK and any(i.strip().lower().startswith("set") for i in items):
        raise UsageError(tr("read: clocks are set with fuhe device clock", "read: 请用 fuhe device clock 对时"))
    window = None
    if kind == RECALL:
        from_us, to_us = params.get("from_us"), params.get("to_us")
        if not (isinstance(from_us, int) and isinstance(to_us, int) and 0 < to_us - from_us <= MAX_SPAN_US):
            raise UsageError(tr("recall: give a span of time of at most 400 days", "补召: 请给出不超过 400 天的时间段"))
        window = (from_us, to_us)
    return WorkItem(
        device=device,
        duty=Duty(duty),
        # somebody waits for the answer of a read; a recall by hand goes where recalls go
        priority=Priority.LIVE if kind == READ else Priority.RECALL,
        expires_s=now_s + timeout_s,
        window_us=window,
        items=tuple(items),
    )


def settings_of(params: Mapping[str, Any]) -> tuple[Setting, ...]:
    """The parameters that a "settings" request names. UsageError when they are not of the form above."""
    found = params.get("settings")
    rows = found if isinstance(found, list) else []
    settings = tuple(
        Setting(item=str(r["item"]), pn=int(r["pn"]), values=dict(r["values"]))
        for r in rows
        if isinstance(r, dict) and isinstance(r.get("pn"), int) and isinstance(r.get("values"), dict) and r.get("item")
    )
    if not settings or len(settings) != len(rows) or len(settings) > MAX_ITEMS:
        raise UsageError(tr(f"settings: give 1 to {MAX_ITEMS} of them", f"settings: 须为 1 至 {MAX_ITEMS} 项"))
    return settings


def settings_answer(outcome: Outcome) -> dict[str, Any]:
    """The answer to "settings"."""
    results = outcome.answer.settings if outcome.answer is not None else ()
    rows = [
        {
            "item": r.item, "pn": r.pn, "wanted": r.wanted, "read": r.read, "differences": list(r.differences),
            "fault": r.fault,
        }
        for r in results
    ]  # fmt: skip
    return {"status": str(outcome.status), "reason": outcome.reason, "settings": rows}


def unknown_answer(table: UnknownTable) -> dict[str, Any]:
    """The answer to "unknown"."""
    rows = [
        {
            "link": row.link, "address": row.address.decimal, "hex": row.address.hexadecimal, "peer": row.peer,
            "reason": row.reason, "held": row.held, "connections": row.connections, "frames": row.frames,
            "first_us": row.first_us, "last_us": row.last_us,
        }
        for row in table.rows()
    ]  # fmt: skip
    return {"terminals": rows, "refused": table.refused}


def answer_of(outcome: Outcome) -> dict[str, Any]:
    """An outcome as the answer of a request (JSON values only)."""
    batch = outcome.batch
    values: list[dict[str, Any]] = []
    if batch is not None and batch.samples is not None:
        s = batch.samples
        columns = (s.point, s.quantity, s.source, s.time_us, s.value, s.quality)
        names = ("point", "quantity", "source", "time_us", "value", "quality")
        values = [dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]
    return {
        "status": str(outcome.status),
        "reason": outcome.reason,
        "retries": outcome.retries,
        "values": values,
        "stored": batch.value_count if batch is not None else 0,
        "parameters": [
            {"item": p.item, "value": p.value, "time_us": p.time_us} for p in (batch.parameters if batch else ())
        ],
        "events": [
            {"code": e.code, "time_us": e.time_us, "end_us": e.end_us, "data": e.data}
            for e in (batch.events if batch else ())
        ],
        "faults": [{"item": f.item, "reason": f.reason, "final": f.final} for f in outcome.faults],
    }
