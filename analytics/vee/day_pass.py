"""RAW -> CHECKED -> FINAL for a chunk of point-days at once: no loop over points (domain chapters 4.1, 4.2 and 6).

CHECKED: for every quantity one mask a slot, bit (number - 1) of `Check`, and the quality that follows.
FINAL: a measured quantity is its raw value; what is rejected (X) has none. It is never estimated. The load is the
product: primary kW of one source a day (4.2) with the multiplier in force, gaps estimated, sums settled by registers.
Which failed checks let an estimate take the value's place is a rule of ours (`REPLACED`): what tells one slot from its
neighbours. What throws doubt on a whole day (clock, sums, consistency) keeps its values as suspect, for a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...model.quality import Quality
from ..curve import CurveSource, choose_source
from ..day import Series
from ..energy import Exchanges, IntervalFlag, Multipliers
from ..masks import B1, F8, I2, I8, divide
from . import checks
from .checks import Check, checked_quality
from .day_checks import day_checked, ends, power_checked, values_checked
from .days import (
    FORWARD,
    K2_BIT,
    K6_BIT,
    LOAD,
    LOAD_DECIMALS,
    POWER,
    REJECTED,
    REPLACED,
    REVERSE,
    SUSPECT,
    Days,
    Edits,
    Layers,
)  # fmt: skip
from .estimate import Estimate, estimate, exact_sums
from .registers import BREAK_KWH, Chain, chain

S = TypeVar("S", bound=np.generic)


def checked_and_final(d: Days) -> Layers:
    """Both layers of every point-day of the chunk. Pure; the same arrays give the same layers to the last bit."""
    rows, slots = _shape(d)
    points, hours = rows // d.days, d.step_s / 3600.0
    failed, kept = values_checked(d, rows, slots)
    chains = {name: _chain(d, name) for name in (FORWARD, REVERSE) if name in d.registers}
    for name, one in chains.items():
        wrong = _to_days(one.wrong[:, 1:], d.days)
        failed[name] |= np.where(wrong, 1 << (Check.K3 - 1), 0).astype(np.int16)
    net = _net(chains, points, slots * d.days)
    imported = _day_sums(chains.get(FORWARD), d, slots)
    exported = _day_sums(chains.get(REVERSE), d, slots)
    day_net = imported - np.where(np.isfinite(exported), exported, 0.0)
    slot_net = _to_days(net.slot_kwh, d.days)

    k = np.where(d.k.end > 0, d.k.end / 10.0**d.k.decimals, np.nan)
    two_way = _any_by_point(d.registers.get(REVERSE), d.days)
    candidates: list[tuple[CurveSource, F8]] = []
    for code, name in POWER:
        if name not in d.curves:
            continue
        kw = d.curves[name].value * k
        failed[name] |= power_checked(d, code, kw, failed[name], two_way, slot_net, day_net, k)
        candidates.append((code, kw))
    moved = _register_power(d, slot_net / hours)
    candidates.append((CurveSource.REGISTER, moved))
    source, raw_kw, mask = _chosen(candidates, failed, d)
    mask = mask | day_checked(d, raw_kw, mask)
    doubt = kept[:, None] & np.isfinite(raw_kw)
    mask = np.where(doubt, mask | K2_BIT, mask).astype(np.int16)

    check = _check_power(d, candidates, failed, source, hours)
    final = _load(d, raw_kw, mask, doubt, check, net, hours)
    values, quality, checked = {}, {}, {}
    for name, series in {**d.curves, **{n: ends(s) for n, s in d.registers.items()}}.items():
        checked[name] = checked_quality(series.value, series.quality, failed[name].astype(np.int64))
        values[name], quality[name] = _measured_final(series.value, checked[name], d.edits.get(name))
    return Layers(
        failed=failed,
        checked=checked,
        values=values,
        quality=quality,
        load_kw=final.kw,
        load_quality=final.quality,
        load_failed=mask,
        load_source=source,
        load_raw_kw=raw_kw,
        needs_person=final.needs_person,
        reaches=final.reaches,
        import_kwh=imported,
        export_kwh=exported,
        energy_flag=_day_flag(d, chains.get(FORWARD), rows, slots),
    )


def _shape(d: Days) -> tuple[int, int]:
    rows, slots = d.k.end.shape
    if rows % d.days:
        raise ValueError("checked_and_final: the rows are no whole number of points")
    return rows, slots


# ---------------------------------------------------------------------- registers


def _flat(boundaries: F8, days: int) -> F8:
    """(rows, slots + 1) of days to (points, days * slots + 1): a midnight is one reading, whichever day has it."""
    slots = boundaries.shape[1] - 1
    by_day = boundaries.reshape(-1, days, slots + 1)
    out = np.empty((len(by_day), days * slots + 1))
    out[:, 1:] = by_day[:, :, 1:].reshape(len(by_day), -1)
    out[:, 0] = by_day[:, 0, 0]
    begin = out[:, slots:-1:slots]
    out[:, slots:-1:slots] = np.where(np.isfinite(begin), begin, by_day[:, 1:, 0])
    return out


def _to_days(flat: NDArray[S], days: int) -> NDArray[S]:
    """(points, days * slots) back to (rows, slots)."""
    return flat.reshape(flat.shape[0] * days, -1)


def _chain(d: Days, name: str) -> Chain:
    """A register's chain without what the checks before have rejected, and with what people rejected."""
    series = d.registers[name]
    good = np.isfinite(series.value) & np.isin(series.quality, (Quality.A, Quality.U))
    good &= (series.value >= 0) & (series.value < 10.0 ** d.facts.digits[:, None])
    if name in d.edits:
        good[:, 1:] = (good[:, 1:] | (d.edits[name].accepted & np.isfinite(series.value[:, 1:]))) & ~d.edits[
            name
        ].rejected
    exchanges = d.exchanges if name == FORWARD else None
    slots = series.value.shape[1] - 1
    if exchanges is not None:
        exchanges = Exchanges(
            point=exchanges.point // d.days, slot=exchanges.point % d.days * slots + exchanges.slot,
            old_end=exchanges.old_end, new_start=exchanges.new_start, k_old=exchanges.k_old, k_new=exchanges.k_new,
        )  # fmt: skip
    first = slice(None, None, d.days)
    return chain(
        _flat(np.where(good, series.value, np.nan), d.days),
        digits=d.facts.digits[first],
        decimals=d.register_decimals,
        k=Multipliers(start=_flat_slots(d.k.start, d.days), end=_flat_slots(d.k.end, d.days), decimals=d.k.decimals),
        step_s=d.step_s,
        contract_kva=d.facts.contract_kva[first],
        exchanges=exchanges,
    )


def _flat_slots(x: I8, days: int) -> I8:
    return x.reshape(x.shape[0] // days, -1)


@dataclass(frozen=True, slots=True)
class _Net:
    slot_kwh: F8
    cumulative_kwh: F8


def _net(chains: Mapping[str, Chain], points: int, slots: int) -> _Net:
    """Import less export, per slot and running; a point without a reverse register exports nothing."""
    if FORWARD not in chains:
        return _Net(np.full((points, slots), np.nan), np.full((points, slots + 1), np.nan))
    forward = chains[FORWARD]
    slot, running = forward.slot_kwh, forward.cumulative_kwh()
    if REVERSE in chains:
        back = chains[REVERSE]
        has = np.logical_or.reduce(back.segment >= 0, axis=1)[:, None]
        slot = np.where(has, slot - back.slot_kwh, slot)
        # A break of either chain must break the sum: segments of the reverse register are taken off as well.
        other = back.cumulative_kwh()
        broken = np.where(back.segment > 0, -2.0 * BREAK_KWH * back.segment, 0.0)
        running = np.where(has, running - other + broken, running)
    return _Net(slot, running)


def _day_sums(one: Chain | None, d: Days, slots: int) -> F8:
    """The day's exact energy by one register (rows,)."""
    if one is None:
        return np.full(len(d.k.end), np.nan)
    return np.stack([one.between(i * slots, (i + 1) * slots) for i in range(d.days)], axis=1).ravel()


def _day_flag(d: Days, one: Chain | None, rows: int, slots: int) -> I2:
    """What the forward register says of the day: the worst of its slots, else MISSING or OK by its ends."""
    if one is None:
        return np.full(rows, IntervalFlag.MISSING, np.int16)
    sums = _day_sums(one, d, slots)
    flags = _to_days(one.slot_flag, d.days)
    worst = np.where(flags == IntervalFlag.MISSING, 0, flags).max(axis=1)
    return np.where(np.isfinite(sums) | (worst > 0), worst, IntervalFlag.MISSING).astype(np.int16)


def _any_by_point(series: Series | None, days: int) -> B1:
    """Whether the point has the register at all (rows,)."""
    if series is None:
        return np.zeros(1, np.bool_)
    return np.repeat(np.isfinite(series.value).any(axis=1).reshape(-1, days).any(axis=1), days)


def _register_power(d: Days, kw: F8) -> F8:
    """Power from registers, primary kW; what is beyond the range of K4 is no power."""
    hours = d.step_s / 3600.0
    ok = np.isfinite(kw)
    high = checks.k4_energy(np.abs(kw) * hours, ok, d.facts.contract_kva, d.facts.imax_kva, d.step_s)
    return np.where(ok & ~high, kw, np.nan)


# ---------------------------------------------------------------------- load


def _chosen(candidates: Sequence[tuple[CurveSource, F8]], failed: Mapping[str, I2], d: Days) -> tuple[I2, F8, I2]:
    """One source a day (4.2), its primary kW and its mask. An average that contradicts the registers gives way to them
    where they are complete; that a *sampled* power does not add up to the registers is only a warning."""
    names = dict(POWER)
    usable = []
    last = candidates[-1][1]
    whole = np.isfinite(last).all(axis=1)
    for code, kw in candidates:
        if code in names:
            contradicted = (failed[names[code]] & K6_BIT != 0).any(axis=1) & whole & (code != CurveSource.SAMPLED)
            good = failed[names[code]] & REPLACED == 0
            usable.append((code, np.where(good & ~contradicted[:, None], kw, np.nan)))
        else:
            usable.append((code, kw))
    source_of_day = choose_source(usable).source.max(axis=1)
    kw = np.full(last.shape, np.nan)
    mask = np.zeros(last.shape, np.int16)
    for code, value in candidates:
        mine = (source_of_day == code)[:, None]
        kw = np.where(mine, value, kw)
        if code in names:
            own = failed[names[code]]
            if code == CurveSource.SAMPLED:
                own = own & ~np.int16(K6_BIT)
            mask = np.where(mine, own, mask)
    # A day whose values were all rejected still shows what they were.
    nothing = source_of_day == CurveSource.NONE
    for code, value in reversed(candidates):
        use = nothing & np.isfinite(value).any(axis=1)
        if code in names and use.any():
            kw, mask = np.where(use[:, None], value, kw), np.where(use[:, None], failed[names[code]], mask)
    source = np.where(np.isfinite(kw) & (source_of_day > 0)[:, None], source_of_day[:, None], CurveSource.NONE)
    return source.astype(np.int16), kw, mask.astype(np.int16)


def _check_power(
    d: Days, candidates: Sequence[tuple[CurveSource, F8]], failed: Mapping[str, I2], source: I2, hours: float
) -> F8 | None:
    """EST1, kWh: the other measurements of power that the point has, by priority, then what was given."""
    names = dict(POWER)
    own = source.max(axis=1)[:, None]
    out = np.full(source.shape, np.nan)
    for code, kw in candidates:
        if code not in names:
            continue
        use = ~np.isfinite(out) & (own != code) & (failed[names[code]] & REPLACED == 0)
        out = np.where(use, kw * hours, out)
    if d.check_kwh is not None:
        out = np.where(np.isfinite(out), out, d.check_kwh)
    return out if np.isfinite(out).any() else None


@dataclass(frozen=True, slots=True)
class _LoadFinal:
    kw: F8
    quality: I2
    needs_person: B1
    reaches: B1


def _load(d: Days, raw_kw: F8, mask: I2, doubt: B1, check: F8 | None, net: _Net, hours: float) -> _LoadFinal:
    """The load with every gap estimated as far as the rules go."""
    replaced = (mask & REPLACED != 0) & ~doubt
    kwh = raw_kw * hours
    quality = np.where(np.isfinite(kwh), np.where(replaced, Quality.X, Quality.A), Quality.M).astype(np.int16)
    edits = d.edits.get(LOAD)
    asked = np.zeros(quality.shape, np.int16)
    refused = np.zeros(quality.shape, np.bool_)
    if edits is not None:
        changed = np.isfinite(edits.value)
        asked = np.where(changed, 0, edits.method).astype(np.int16)
        refused = (edits.rejected | (asked > 0)) & ~changed
        kwh = np.where(changed, edits.value * hours, kwh)
        quality = np.where(changed | (edits.accepted & np.isfinite(kwh)), Quality.U, quality)
        quality = np.where(refused & np.isfinite(kwh), Quality.X, quality).astype(np.int16)
    found = _estimated(d, kwh, quality, asked, check, net)
    code = _to_days(found.quality, d.days)
    kw = _to_days(found.kwh, d.days) / hours
    # What was only suspect comes back where nothing better is known; what contradicts the day as a whole stays suspect.
    back = (code == Quality.M) & np.isfinite(raw_kw) & (mask & REJECTED == 0) & ~refused
    kw = np.where(back, raw_kw, kw)
    suspect = back | ((code == Quality.A) & ((mask & SUSPECT != 0) | doubt))
    code = np.where(suspect, Quality.S, np.where(np.isfinite(kw), code, Quality.M)).astype(np.int16)
    return _LoadFinal(
        kw=_rounded(kw, code),
        quality=code,
        needs_person=_to_days(found.needs_person, d.days) & (code == Quality.M),
        reaches=_reaches(quality, d.days),
    )


def _estimated(d: Days, kwh: F8, quality: I2, asked: I2, check: F8 | None, net: _Net) -> Estimate:
    """`estimate` over the days of each point one after the other; where a person asked for a method, that method."""

    def flat(x: NDArray[S] | None) -> NDArray[S] | None:
        return None if x is None else x.reshape(x.shape[0] // d.days, -1)

    points = len(kwh) // d.days
    found = estimate(
        kwh.reshape(points, -1),
        quality.reshape(points, -1),
        step_s=d.step_s,
        outage=flat(d.outage),
        check_kwh=flat(check),
        like_kwh=flat(d.like_kwh),
        profile_kwh=flat(d.profile_kwh),
    )
    out, code = found.kwh, found.quality
    for method, values in ((Quality.E1, check), (Quality.E3, d.like_kwh), (Quality.E4, d.profile_kwh)):
        given = flat(values)
        if given is not None and (asked == method).any():
            use = (asked.reshape(points, -1) == method) & np.isfinite(given)
            out, code = np.where(use, given, out), np.where(use, method, code).astype(np.int16)
    out, code = exact_sums(out, code, net.cumulative_kwh)
    return Estimate(kwh=out, quality=code, needs_person=found.needs_person)


def _reaches(quality: I2, days: int) -> B1:
    """Days (rows,) in a gap that touches the chunk's edge: with more days around it, it may be told better."""
    slots = quality.shape[1]
    open_ = np.isin(quality, (Quality.M, Quality.X)).reshape(-1, days * slots)
    from_left = np.logical_and.accumulate(open_, axis=1)
    from_right = np.flip(np.logical_and.accumulate(np.flip(open_, 1), axis=1), 1)
    touching: B1 = np.logical_or.reduce((from_left | from_right).reshape(-1, slots), axis=1)
    return touching


def _rounded(kw: F8, quality: I2) -> F8:
    """To the stored decimals; estimates with an exact sum are rounded so that the sum stays exact."""
    scale = 10.0**LOAD_DECIMALS
    units = np.rint(kw * scale)
    exact = quality == Quality.E5
    if exact.any():
        running = np.rint(np.cumsum(np.where(exact, kw * scale, 0.0), axis=1))
        units = np.where(exact, np.diff(running, axis=1, prepend=0.0), units)
    return units / scale


def _measured_final(value: F8, checked: I2, edits: Edits | None) -> tuple[F8, I2]:
    """FINAL of a measured quantity: rejected values go, nothing is estimated; what people decided counts."""
    quality = checked
    if edits is not None:
        changed = np.isfinite(edits.value)
        value = np.where(changed, edits.value, value)
        quality = np.where(changed | (edits.accepted & np.isfinite(value)), Quality.U, quality)
        quality = np.where(edits.rejected & ~changed & np.isfinite(value), Quality.X, quality)
    return np.where(quality == Quality.X, np.nan, value), quality.astype(np.int16)


def day_energy(layers: Layers, step_s: int) -> F8:
    """The day's net energy by the final load (rows,), NaN where a slot has no value."""
    there = np.isfinite(layers.load_kw)
    total = np.where(there, layers.load_kw, 0.0).sum(axis=1) * step_s / 3600.0
    return np.where(there.all(axis=1), total, np.nan)


def mean_share(layers: Layers) -> F8:
    """Mean of each slot over the chunk as a share of the mean load (slots,): a class profile in the making (EST4)."""
    good = np.isin(layers.load_quality, (Quality.A, Quality.U))
    own = divide(np.where(good, layers.load_kw, 0.0).sum(axis=1), good.sum(axis=1).astype(np.float64))
    whole = good.all(axis=1) & (own > 0)
    if not whole.any():
        return np.full(good.shape[1], np.nan)
    shares: F8 = np.mean(layers.load_kw[whole] / own[whole, None], axis=0)
    return shares
