"""Script that reads load records (负荷记录, class 06) of a window and lays them on the grid of its slots.

Arrays from the reply to the CurveBlock: (k quantities, n slots), NaN where the meter has no record. The label of a slot
is the record's own time (instant of a snapshot, end of an averaging interval).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...model.lang import tr
from ...model.quality import Quality
from ...model.quantities import by_name
from ...model.readings import F8, CurveBlock
from ...model.times import US
from ...protocols.common.errors import UsageError
from ...protocols.common.times import NO_TIME
from ...protocols.dlt645 import requests
from ...protocols.dlt645.frame import Frame
from ...protocols.dlt645.items import load_fields
from ...protocols.dlt645.loads import LoadTable, decode_loads
from ..profile import CurvePlan
from .dlt645 import Ask, MeterExchange, Missing, Script
from .dlt645_read import local

_RECORD_BYTES: Final = 16  # of a record block beside its class
_ZONE_US: Final = 8 * 3600 * US
_MAX_SLOTS: Final = 96 * 400


def curves(exchange: MeterExchange) -> Script:
    """All classes of the work item (or the profile), each over the item's window."""
    plan, window = exchange.profile.curve, exchange.item.window_us
    if plan is None or not plan.classes or exchange.version != "2007":
        raise UsageError(
            tr(
                f"profile {exchange.profile.name} has no load records: add a [curve] section",
                f"设备档 {exchange.profile.name} 没有负荷记录: 请补充 [curve]",
            )
        )
    if window is None:
        raise UsageError(tr("reading a curve needs a window of time", "读曲线需要指定时间窗口"))
    return _read_all(exchange, plan, _classes(exchange.item.items, plan), window)


def _classes(items: tuple[str, ...], plan: CurvePlan) -> tuple[int, ...]:
    """Classes named by the item ("2", or a DI 0602xxxx) or the profile's."""
    numbers = tuple(int(i[2:4], 16) if len(i) == 8 else int(i) for i in items if i.isalnum() and i.isdecimal())
    wrong = [i for i in items if not i.isdecimal()] + [str(n) for n in numbers if n not in range(1, 7)]
    if wrong:
        raise UsageError(
            tr(f"load-record class {', '.join(wrong)}: 1 to 6", f"负荷记录类别 {', '.join(wrong)}: 应为 1 至 6")
        )
    return numbers or plan.classes


def _read_all(exchange: MeterExchange, plan: CurvePlan, classes: tuple[int, ...], window: tuple[int, int]) -> Script:
    step = plan.step_s * US
    first = -(-(window[0] + _ZONE_US) // step) * step - _ZONE_US
    # a slot that has not ended yet cannot be there
    count = min(-(-(window[1] - first) // step), (exchange.now_us - first) // step + 1, _MAX_SLOTS)
    if count <= 0:
        exchange.heard = True
        exchange.reason = "no slot of the window has ended yet"
        return
    for number in classes:
        grid = np.full((len(load_fields(number)), int(count)), np.nan)
        try:
            stray = yield from _read_class(exchange, number, plan, grid, first, step)
        except Missing as missing:
            _keep(exchange, number, plan, grid, first)
            if exchange.fault(f"06{number:02X}0001", missing):
                return
            continue
        found = _keep(exchange, number, plan, grid, first)
        if not found:
            old = exchange.now_us - window[1] > step
            exchange.fault(f"06{number:02X}0001", Missing("no record in the window", final=old))
            exchange.refused = True
        elif stray:
            exchange.fault(f"06{number:02X}0001", Missing(f"{stray} records off the grid of {plan.step_s} s"))


def _read_class(
    exchange: MeterExchange, number: int, plan: CurvePlan, grid: F8, first: int, step: int
) -> Generator[Ask, Frame | None, int]:
    """Fill `grid` request by request; returns how many records did not fit it. Refusals inside the window are holes."""
    di = f"06{number:02X}0001"
    size = _RECORD_BYTES + sum(f.size for f in load_fields(number))
    slots = grid.shape[1]
    slot = stray = answered = 0
    refusal: Missing | None = None
    while slot < slots:
        count = min(plan.blocks_per_request, slots - slot)
        start = local(first + slot * step)
        ask = requests.read_load(exchange.device.address, di, count, start)
        try:
            payload = yield from exchange.read_request(ask, di, min(196, count * size))
            answered += 1
        except Missing as missing:
            if missing.silent:
                raise
            refusal, payload = missing, b""
        newest, strays = _lay(decode_loads(payload, number).get(number), grid, first, step)
        stray += strays
        # the meter may pass over slots it does not have: go on behind its newest record
        slot = max(slot + count, newest + 1) if newest < slot or newest >= slot + count - 1 else newest + 1
    if refusal is not None and not answered:
        raise refusal
    return stray


def _lay(table: LoadTable | None, grid: F8, first: int, step: int) -> tuple[int, int]:
    """Put records into their slots; (newest slot met or -1, records off the grid)."""
    if table is None:
        return -1, 0
    known = table.time_us != NO_TIME
    apart = table.time_us[known] - _ZONE_US - first
    values = table.value[known]
    on_grid = apart % step == 0
    slot = apart // step
    inside = on_grid & (slot >= 0) & (slot < grid.shape[1])
    grid[:, slot[inside]] = values[inside].T
    newest = int(slot.max()) if len(slot) else -1
    return newest, int((~on_grid).sum() + (~known).sum())


def _keep(exchange: MeterExchange, number: int, plan: CurvePlan, grid: F8, first: int) -> bool:
    """The rows that hold anything, as one block; False when there is none."""
    fitted: NDArray[np.bool_] = np.logical_or.reduce(np.isfinite(grid), axis=1)
    if not fitted.any() or exchange.point is None:
        return False
    ids = [by_name()[f.quantity or f.name].id for f, there in zip(load_fields(number), fitted, strict=True) if there]
    value = grid[fitted]
    quality = np.where(np.isfinite(value), Quality.A, Quality.M).astype(np.int16)
    k = len(ids)
    starts = np.full(k, first, np.int64)
    points = np.full(k, exchange.point, np.int32)
    block = CurveBlock(points, np.array(ids, np.int16), starts, plan.step_s, value, quality)
    exchange.curves.append(block)
    return True
