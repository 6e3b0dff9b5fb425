"""A fleet's day in one pass: chunks of some thousand points x 96 slots x 8 quantities to one record a point.

The quick sister of `day.day_table` for very many points: scaled integers as storage keeps them, no float64 array of the
whole chunk, buffers used again, blocks that stay in the processor's cache. What is rare (reverse power, spikes, frozen
values, overload) is first screened by a condition that cannot miss it, then judged by the functions of chapter 4 and
`vee.checks` on those points alone, so both passes follow one rule. Not for registers slot by slot, exchanges, or
estimation: that is `vee.day_pass`.

Sums, maxima and limits are exact integers; only ratios between 0 and 1 are float32 (four digits are shown).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .masks import B1, F8, I8, DayFlag, day_flag, divide
from .network import LOADING_H, Loading, loading_level
from .power_factor import month_cos
from .vee import checks
from .vee.checks import Check
from .voltage import JUDGED

SLOTS: Final = 96
STEP_S: Final = 900
BLOCK: Final = 2048  # points whose buffers stay near the processor (measured)
TARIFFS: Final = 8
UNBALANCE: Final = 0.30
CURRENT_FROM: Final = 0.20
_ONES: Final = np.uint64(0x0101_0101_0101_0101)
_56: Final = np.uint64(56)
_NO32: Final = np.int32(np.iinfo(np.int32).min)
_NO16: Final = np.int16(np.iinfo(np.int16).min)
_TOP32: Final = np.int32(np.iinfo(np.int32).max)

# One record a point. kW and kWh primary side, float64 with NaN = NULL; slots -1 = none (0 = the one that ends 00:15).
STATS: Final = np.dtype(
    [
        ("point", "i4"), ("valid", "u1"), ("flag", "u1"),  # measured slots, masks.DayFlag
        ("energy_kwh", "f8"), ("energy_exact", "?"), ("export_kwh", "f8"), ("curve_kwh", "f8"),
        ("mean_kw", "f8"), ("max_kw", "f8"), ("max_slot", "i1"), ("min_kw", "f8"), ("min_slot", "i1"),
        ("net_min_kw", "f8"), ("load_factor", "f4"), ("min_rate", "f4"), ("difference_rate", "f4"),
        ("tou_kwh", "f8", (TARIFFS,)),
        ("u_monitored", "u1", (3,)), ("u_over", "u1", (3,)), ("u_under", "u1", (3,)), ("u_excluded", "u1", (3,)),
        ("u_any_monitored", "u1"), ("u_any_out", "u1"),
        ("i_judged", "u1"), ("i_unbalanced", "u1"), ("i_spread_max", "f4"),
        ("cos", "i2"),  # hundredths, -1 = NULL
        ("beta_max", "f4"), ("heavy", "u1"), ("loading", "i1"),  # slots at 80 % and above, worst network.Loading
        ("checks", "u2"),  # bits of vee.checks.Check: K4, K5, K6, K9, K12 failed somewhere in the day
    ]
)  # fmt: skip

Numbers = NDArray[np.int32] | NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Archive of the chunk's points, arrays (points,); NaN = not known.

    k: CT x PT in force; nominal_v, rated_a: secondary; low, high: voltage band in thousandths; three_wire, single: no
    phase B, phase A alone; contract_kva; transformer_kva: running capacity behind the point.
    """

    k: F8
    nominal_v: F8
    rated_a: F8
    low: I8
    high: I8
    three_wire: B1
    single: B1
    contract_kva: F8
    transformer_kva: F8


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A day of some points, secondary side, C-contiguous (points, 96): p, q int32 of 10**-p_decimals kW (kvar); u, i:
    three phases of int16, volts and amperes with one and two decimals by default. The type's lowest number = no
    value. guessed: estimated slots of p (they count in energy, never in a maximum) or None. register (points, 2) int64:
    forward active energy at 00:00 and 24:00 in 10**-register_decimals kWh, -1 = none. tariff (96,): 0 .. 7, or -1.
    """

    point: NDArray[np.int32]
    p: NDArray[np.int32]
    q: NDArray[np.int32]
    u: tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]
    i: tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]
    facts: Facts
    register: I8 | None = None
    guessed: B1 | None = None
    tariff: I8 | None = None
    p_decimals: int = 4
    u_decimals: int = 1
    i_decimals: int = 2
    register_decimals: int = 2


def empty_stats(points: int) -> NDArray[np.void]:
    """Records without any figure."""
    out = np.zeros(points, STATS)
    names = STATS.names
    assert names is not None
    for name in names:
        kind = STATS[name].base.kind
        if kind == "f":
            out[name] = np.nan
    for name in ("max_slot", "min_slot", "cos", "loading"):
        out[name] = -1
    out["flag"] = DayFlag.INSUFFICIENT
    return out


def counted(mask: B1) -> NDArray[np.uint8]:
    """How many of 96 slots are true, (points,): eight slots a step, since no count exceeds a byte."""
    words = mask.view(np.uint64)
    found: NDArray[np.uint8] = ((words.sum(axis=1, dtype=np.uint64) * _ONES) >> _56).astype(np.uint8)
    return found


def fleet_day(chunk: Chunk, out: NDArray[np.void] | None = None) -> NDArray[np.void]:
    """Records (STATS) of the chunk's points; `out` is filled if given. ValueError: arrays of other shapes or types."""
    n = len(chunk.point)
    _check_shapes(chunk, n)
    if out is None:
        out = empty_stats(n)
    out["point"] = chunk.point
    work = _Buffers()
    for begin in range(0, n, BLOCK):
        _block(chunk, slice(begin, min(begin + BLOCK, n)), out, work)
    return out


def _check_shapes(c: Chunk, n: int) -> None:
    wanted: list[tuple[NDArray[Any], type[np.signedinteger[Any]]]] = [
        (c.p, np.int32),
        (c.q, np.int32),
        *((x, np.int16) for x in (*c.u, *c.i)),
    ]
    for array, kind in wanted:
        if array.shape != (n, SLOTS) or array.dtype != kind or not array.flags.c_contiguous:
            raise ValueError(f"a chunk's array must be C-contiguous {kind.__name__} of {n} x {SLOTS}")


class _Buffers:
    """Arrays that every block uses again."""

    def __init__(self) -> None:
        shape = (BLOCK, SLOTS)
        self.valid, self.valid_q = np.empty(shape, np.bool_), np.empty(shape, np.bool_)
        self.a, self.b, self.c = (np.empty(shape, np.bool_) for _ in range(3))
        self.any_judged, self.any_out = np.empty(shape, np.bool_), np.empty(shape, np.bool_)
        self.x, self.y = np.empty(shape, np.int32), np.empty(shape, np.int32)
        self.s, self.t = np.empty(shape, np.int16), np.empty(shape, np.int16)
        self.f, self.g = np.empty(shape, np.float32), np.empty(shape, np.float32)


def _block(c: Chunk, rows: slice, out: NDArray[np.void], w: _Buffers) -> None:
    o, n = out[rows], rows.stop - rows.start
    facts = {name: getattr(c.facts, name)[rows] for name in Facts.__slots__}
    p, q = c.p[rows], c.q[rows]
    measured, total, valid = _load(c, rows, p, o, w, n, facts)
    _power_factor(p, q, o, w, n)
    _loading(c, p, q, o, w, n, facts)
    _voltage(c, rows, o, w, n, facts)
    _currents(c, rows, o, w, n, facts)
    _screened(c, rows, measured, total, valid, o, w, facts)


# ---------------------------------------------------------------------- load (4.1, 4.3, 4.4, 4.5)


def _load(
    c: Chunk, rows: slice, p: NDArray[np.int32], o: NDArray[np.void], w: _Buffers, n: int, facts: dict[str, Any]
) -> tuple[NDArray[np.int32], I8, NDArray[np.uint8]]:
    """Energy, extremes, ratios, TOU; returns the measured slots, their sum in units and their number."""
    scale = facts["k"] / 10.0**c.p_decimals
    hours = STEP_S / 3600.0
    usable, have, filled = w.valid[:n], w.c[:n], w.x[:n]
    np.not_equal(p, _NO32, out=usable)
    count = counted(usable)
    np.multiply(p, usable, out=filled)  # a missing slot is 0 in the sum and is not counted
    total = filled.sum(axis=1, dtype=np.int64)
    np.copyto(have, usable)
    real, measured_total, valid = p, total, count
    if c.guessed is not None and (guess := c.guessed[rows] & usable).any():
        real = np.where(guess, _NO32, p)
        measured_total = total - np.multiply(filled, guess).sum(axis=1, dtype=np.int64)
        valid = (count - counted(guess)).astype(np.uint8)
        np.not_equal(real, _NO32, out=usable)
    top_slot = real.argmax(axis=1)
    row = np.arange(n)
    top = real[row, top_slot].astype(np.int64)
    lowest = w.y[:n]
    np.copyto(lowest, real)
    np.copyto(lowest, _TOP32, where=~usable if (valid < SLOTS).any() else False)
    low_slot = lowest.argmin(axis=1)
    low = lowest[row, low_slot].astype(np.int64)

    flag = day_flag(valid, SLOTS)
    enough = flag != DayFlag.INSUFFICIENT
    covered = day_flag(count, SLOTS) != DayFlag.INSUFFICIENT
    incoming = total.copy()
    net_low = low.copy()
    back = np.flatnonzero(low < 0 if c.guessed is None else (filled < 0).any(axis=1))
    if len(back):
        incoming[back] = np.maximum(filled[back], 0).sum(axis=1, dtype=np.int64)
        under = back[low[back] < 0]
        low_slot[under] = (lowest[under] <= 0).argmax(axis=1)
        none_in = back[top[back] < 0]
        top_slot[none_in] = usable[none_in].argmax(axis=1)
    top, low = np.maximum(top, 0), np.maximum(low, 0)
    o["valid"], o["flag"] = valid, flag
    mean = divide(incoming.astype(np.float64), count.astype(np.float64)) * scale
    max_kw, min_kw = top * scale, low * scale
    o["curve_kwh"] = np.where(covered, incoming * scale * hours, np.nan)
    o["export_kwh"] = np.where(covered, (incoming - total) * scale * hours, np.nan)
    o["mean_kw"] = np.where(enough, mean, np.nan)
    o["max_kw"], o["min_kw"] = np.where(enough, max_kw, np.nan), np.where(enough, min_kw, np.nan)
    o["net_min_kw"] = np.where(enough, net_low * scale, np.nan)
    o["max_slot"], o["min_slot"] = np.where(enough, top_slot, -1), np.where(enough, low_slot, -1)
    o["load_factor"] = divide(o["mean_kw"], max_kw)
    o["min_rate"] = divide(o["min_kw"], max_kw)
    o["difference_rate"] = divide(o["max_kw"] - o["min_kw"], max_kw)
    o["energy_kwh"] = o["curve_kwh"]
    if c.register is not None:
        first, last = c.register[rows, 0], c.register[rows, 1]
        exact = (first >= 0) & (last >= first)  # a decrease is E1 or a rollover: `energy` decides, not this pass
        kwh = (last - first) * facts["k"] / 10.0**c.register_decimals
        o["energy_kwh"] = np.where(exact, kwh, o["energy_kwh"])
        o["energy_exact"] = exact
    if c.tariff is not None:
        _tou(filled, count, have, c.tariff, scale * hours, o)
    return real, measured_total, valid


def _tou(
    filled: NDArray[np.int32],
    count: NDArray[np.uint8],
    usable: B1,
    tariff: I8,
    scale: F8,
    o: NDArray[np.void],
) -> None:
    """Energy by tariff of the slots' net power; NaN where one of its slots is missing."""
    starts = np.flatnonzero(np.r_[True, tariff[1:] != tariff[:-1]])
    runs = np.add.reduceat(filled, starts, axis=1, dtype=np.int64)
    holes = np.flatnonzero(count < SLOTS)
    for code in np.unique(tariff[starts]):
        if code < 0:
            continue
        kwh = runs[:, tariff[starts] == code].sum(axis=1) * scale
        if len(holes):
            whole = np.logical_and.reduce(usable[holes][:, tariff == code], axis=1)
            kwh[holes[~whole]] = np.nan
        o["tou_kwh"][:, code] = kwh


# ---------------------------------------------------------------------- power factor and loading (4.8, 4.9)


def _power_factor(p: NDArray[np.int32], q: NDArray[np.int32], o: NDArray[np.void], w: _Buffers, n: int) -> None:
    """cosφ of the day by the curves: import slots that have both P and Q (|Q| by absolute value)."""
    both, drawn, reactive = w.valid_q[:n], w.x[:n], w.y[:n]
    np.not_equal(q, _NO32, out=both)
    q_count = counted(both)
    importing = w.a[:n]
    np.greater(p, 0, out=importing)
    np.logical_and(both, w.valid[:n], out=both)
    enough = day_flag(counted(both), SLOTS) != DayFlag.INSUFFICIENT
    np.logical_and(importing, both, out=importing)
    np.multiply(p, importing, out=drawn)
    np.multiply(q, importing, out=reactive)
    np.abs(reactive, out=reactive)
    wp = drawn.sum(axis=1, dtype=np.int64).astype(np.float64)
    wq = reactive.sum(axis=1, dtype=np.int64).astype(np.float64)
    o["cos"] = month_cos(np.where(enough, wp, np.nan), wq, np.zeros(n))
    # K12: reactive values are missing although active ones are there
    lacking = (o["valid"].astype(np.int16) - q_count > 0) & (q_count > 0)
    o["checks"] = np.where(lacking, 1 << (Check.K12 - 1), 0)


def _loading(
    c: Chunk,
    p: NDArray[np.int32],
    q: NDArray[np.int32],
    o: NDArray[np.void],
    w: _Buffers,
    n: int,
    facts: dict[str, Any],
) -> None:
    """Largest beta, slots at 80 % and above, and the worst level that stood (two hours)."""
    rated = facts["transformer_kva"]
    if not np.isfinite(rated).any():
        return
    unit = divide(facts["k"] / 10.0**c.p_decimals, rated)
    beta, other, both = w.f[:n], w.g[:n], w.valid_q[:n]  # both: measured P and Q
    np.multiply(p, both, out=beta, casting="unsafe")
    np.multiply(q, both, out=other, casting="unsafe")
    np.multiply(beta, beta, out=beta)
    np.multiply(other, other, out=other)
    np.add(beta, other, out=beta)
    top = np.sqrt(beta.max(axis=1).astype(np.float64)) * unit
    o["beta_max"] = np.where(both.any(axis=1), top, np.nan)
    with np.errstate(invalid="ignore"):
        high = np.flatnonzero(top >= 0.8 * (1 - 1e-6))
    o["loading"] = np.where(np.isfinite(o["beta_max"]), Loading.NORMAL, Loading.UNKNOWN)
    if len(high):
        share = np.where(both[high], np.hypot(p[high].astype(np.float64), q[high]) * unit[high, None], np.nan)
        with np.errstate(invalid="ignore"):
            o["heavy"][high] = (share >= 0.8).sum(axis=1)
        long = o["heavy"][high] >= LOADING_H * 3600.0 / STEP_S  # without two hours of it no level can stand
        o["loading"][high[long]] = loading_level(share[long], STEP_S).max(axis=1)


# ---------------------------------------------------------------------- voltage and currents (4.6, 4.7)


def _limit(un: F8, thousandths: I8 | int, *, up: bool) -> tuple[NDArray[np.int16], B1]:
    """Whole units at or inside a limit of a nominal voltage in units, as int16; where it is known and fits."""
    known = np.isfinite(un)
    exact = np.rint(np.where(known, un, 0.0) * 1000.0).astype(np.int64) * thousandths
    number = -(-exact // 1_000_000) if up else exact // 1_000_000
    fits = known & (number < 32767)
    return np.where(fits, number, 32767 if up else -32767).astype(np.int16), fits


def _voltage(c: Chunk, rows: slice, o: NDArray[np.void], w: _Buffers, n: int, facts: dict[str, Any]) -> None:
    un = facts["nominal_v"] * 10.0**c.u_decimals
    least, known = _limit(un, JUDGED[0], up=True)
    most, _ = _limit(un, JUDGED[1], up=False)
    low, _ = _limit(un, facts["low"], up=True)
    high, _ = _limit(un, facts["high"], up=False)
    least_, most_, low_, high_ = (x[:, None] for x in (least, most, low, high))
    judged, over, under = w.a[:n], w.b[:n], w.c[:n]
    any_judged, any_out = w.any_judged[:n], w.any_out[:n]
    any_judged[...] = False
    any_out[...] = False
    none = np.zeros(n, np.bool_)
    for phase, absent in enumerate((none, facts["three_wire"] | facts["single"], facts["single"])):
        volts = c.u[phase][rows]
        np.greater_equal(volts, least_, out=judged)
        np.less_equal(volts, most_, out=over)
        np.logical_and(judged, over, out=judged)
        judged &= (known & ~absent)[:, None]
        np.greater(volts, high_, out=over)
        over &= judged
        np.less(volts, low_, out=under)
        under &= judged
        monitored = counted(judged)
        o["u_monitored"][:, phase], o["u_over"][:, phase], o["u_under"][:, phase] = (
            monitored, counted(over), counted(under),
        )  # fmt: skip
        any_judged |= judged
        over |= under
        any_out |= over
        np.not_equal(volts, _NO16, out=over)
        o["u_excluded"][:, phase] = np.where(known & ~absent, counted(over) - monitored, 0)
    o["u_any_monitored"], o["u_any_out"] = counted(any_judged), counted(any_out)


def _currents(c: Chunk, rows: slice, o: NDArray[np.void], w: _Buffers, n: int, facts: dict[str, Any]) -> None:
    """Spread rate of the phases the wiring has, where the largest carries 20 % of the rated current."""
    a, b, z = (x[rows] for x in c.i)
    least, known = _limit(facts["rated_a"] * 10.0**c.i_decimals, int(CURRENT_FROM * 1000), up=True)
    several = ~facts["single"]
    judge = known & several
    if not judge.any():
        return
    # A missing value is the lowest number: magnitudes of a missing phase must neither be top nor bottom.
    top, bottom, judged, mask = w.s[:n], w.t[:n], w.a[:n], w.b[:n]
    three = facts["three_wire"]
    middle = b if not three.any() else np.where(three[:, None], a, b)
    np.maximum(a, middle, out=top)
    np.maximum(top, z, out=top)
    np.minimum(a, middle, out=bottom)
    np.minimum(bottom, z, out=bottom)
    np.greater_equal(top, least[:, None], out=judged)
    judged &= judge[:, None]
    np.not_equal(bottom, _NO16, out=mask)  # every phase is there
    judged &= mask
    spread, over = w.f[:n], w.g[:n]
    np.subtract(top, bottom, out=spread, dtype=np.float32)
    np.copyto(over, top)
    np.maximum(over, 1.0, out=over)
    np.divide(spread, over, out=spread)
    np.multiply(spread, judged, out=spread)
    np.greater(spread, np.float32(UNBALANCE), out=mask)
    count = counted(judged)
    o["i_judged"], o["i_unbalanced"] = count, counted(mask)
    o["i_spread_max"] = np.where(count > 0, spread.max(axis=1), np.nan)


# ---------------------------------------------------------------------- checks (6)


def _screened(
    c: Chunk, rows: slice, p: NDArray[np.int32], total: I8, valid: NDArray[np.uint8], o: NDArray[np.void], w: _Buffers,
    facts: dict[str, Any],
) -> None:  # fmt: skip
    """K4, K5, K6 and K9 of the power: only points that a cheap and sure condition leaves over are judged."""
    n, scale = len(p), facts["k"] / 10.0**c.p_decimals
    bits = o["checks"]
    contract = facts["contract_kva"]
    never = np.full(n, np.nan)
    top = w.y[:n]  # free again
    np.copyto(top, p)
    peak = top.max(axis=1).astype(np.float64)

    def judge(where: B1) -> tuple[NDArray[np.intp], F8, B1]:
        at = np.flatnonzero(where)
        ok = p[at] != _NO32
        return at, np.where(ok, p[at], 0) * scale[at, None], ok

    with np.errstate(invalid="ignore"):
        beyond = (peak * scale > checks.MARGIN * contract * (1 - 1e-9)) | (o["net_min_kw"] < 0)
    at, kw, ok = judge(beyond | (valid < SLOTS * 0.75))
    if len(at):
        hours = STEP_S / 3600.0
        bad = checks.k4_energy(kw * hours, ok, contract[at], never[at], STEP_S).any(axis=1)
        bits[at[bad]] |= 1 << (Check.K4 - 1)
    # K5 wants h1 > 2.8 h3, and h3 is at least the mean of all but the two largest.
    count = valid.astype(np.float64)
    with np.errstate(invalid="ignore"):
        floor = (total - 2.0 * np.maximum(peak, 0)) / np.maximum(count - 2, 1)
        maybe = (peak > 0) & (peak > (1 + checks.SPIKE_RATIO) * floor * (1 - 1e-9))
    at, kw, ok = judge(maybe)
    if len(at):
        bad = checks.k5_spike(kw, ok, contract[at]).any(axis=1)
        bits[at[bad]] |= 1 << (Check.K5 - 1)
    if c.register is not None:
        exact = o["energy_exact"] & (valid == SLOTS)
        quantum = facts["k"] / 10.0**c.register_decimals
        want, have = o["energy_kwh"], o["curve_kwh"]
        with np.errstate(invalid="ignore"):
            wrong = exact & (np.abs(have - want) > np.maximum(2 * quantum, checks.SUM_SHARE * np.abs(want)))
        bits[wrong] |= 1 << (Check.K6 - 1)
    # K9 wants 23 equal neighbours.
    same = w.a[:n]
    np.equal(p[:, 1:], p[:, :-1], out=same[:, 1:])
    same[:, 0] = False
    at, kw, ok = judge((counted(same) >= checks.FROZEN_SLOTS - 1) & ((peak != 0) | (total != 0)))
    if len(at):
        moved = np.ones(kw.shape, np.bool_) if c.register is None else np.repeat(
            (c.register[rows][at, 1] > c.register[rows][at, 0])[:, None], SLOTS, axis=1
        )  # fmt: skip
        bad = checks.k9_frozen(kw, ok, moved).any(axis=1)
        bits[at[bad]] |= 1 << (Check.K9 - 1)
