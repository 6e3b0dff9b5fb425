"""The fleet's pass over scaled integers equals the functions of chapter 4 and the VEE checks on the same values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fuhe.analytics import fleet
from fuhe.analytics.fleet import SLOTS, STEP_S, Chunk, Facts, counted, fleet_day
from fuhe.analytics.load import load_day
from fuhe.analytics.masks import F8, DayFlag, day_flag
from fuhe.analytics.network import loading_level, transformer_loading
from fuhe.analytics.power_factor import month_cos
from fuhe.analytics.tou import tou_energy
from fuhe.analytics.unbalance import current_spread
from fuhe.analytics.vee import checks
from fuhe.analytics.vee.checks import Check
from fuhe.analytics.voltage import qualification

NAN = math.nan
KINDS = ("plain", "gappy", "half", "empty", "export", "flat", "spiky", "zero", "heavy", "night")


def chunk_of(seed: int, points: int, *, guess: bool) -> Chunk:
    """Points of every kind: gaps, nothing, export, stairs, spikes, no load, overload."""
    rng = np.random.default_rng(seed)
    p = rng.integers(500, 5000, (points, 1)) * rng.uniform(0.5, 1.0, (points, SLOTS))
    kind = rng.integers(0, len(KINDS), points)
    for i, k in enumerate(kind):
        match KINDS[k]:
            case "export":
                p[i, 30:60] *= -1
                if rng.random() < 0.3:
                    p[i] = -np.abs(p[i])
            case "flat":
                p[i, : rng.integers(20, 97)] = 1234
            case "spiky":
                p[i, rng.integers(0, SLOTS, 2)] *= 20
            case "zero":
                p[i] = 0
            case "heavy":
                p[i, 10 : 10 + rng.integers(4, 30)] = 16_500 * rng.uniform(0.85, 1.3)
            case "night":
                p[i, :60] = 0
    numbers = p.astype(np.int32)
    q = (numbers * rng.uniform(-0.6, 0.6, (points, SLOTS))).astype(np.int32)
    u = [np.rint(rng.normal(2200, 130, (points, SLOTS))).astype(np.int16) for _ in range(3)]
    i_ = [rng.integers(-20, 600, (points, SLOTS)).astype(np.int16) for _ in range(3)]
    none32, none16 = np.iinfo(np.int32).min, np.iinfo(np.int16).min
    share = np.select([kind == 1, kind == 2, kind == 3], [0.06, 0.3, 1.0], 0.0)[:, None]
    numbers[rng.random(p.shape) < share] = none32
    q[rng.random(p.shape) < share * rng.random((points, 1))] = none32
    for a in (*u, *i_):
        a[rng.random(p.shape) < share + 0.01] = none16
    begin = rng.integers(0, 100_000, points)
    energy = np.where(numbers == none32, 0, numbers).sum(axis=1) // 400 + rng.integers(-30, 31, points)
    register = np.stack([begin, begin + energy], axis=1)
    register[rng.random(register.shape) < 0.1] = -1

    def maybe(value: float) -> F8:
        return np.where(rng.random(points) < 0.15, NAN, value)

    return Chunk(
        point=np.arange(points, dtype=np.int32), p=numbers, q=q, u=(u[0], u[1], u[2]), i=(i_[0], i_[1], i_[2]),
        facts=Facts(
            k=np.full(points, 60.0), nominal_v=maybe(220.0), rated_a=maybe(5.0), low=rng.choice([900, 930], points),
            high=np.full(points, 1070), three_wire=rng.random(points) < 0.2, single=rng.random(points) < 0.2,
            contract_kva=maybe(100.0), transformer_kva=maybe(100.0),
        ),
        register=register, guessed=rng.random(p.shape) < 0.02 if guess else None,
        tariff=np.sort(rng.integers(-1, 3, SLOTS)),
    )  # fmt: skip


def values(numbers: NDArray[np.int32] | NDArray[np.int16], decimals: int) -> F8:
    return np.where(numbers == np.iinfo(numbers.dtype).min, NAN, numbers / 10.0**decimals)


def bits(mask: NDArray[np.uint16], check: Check) -> list[bool]:
    found: list[bool] = (mask >> (check - 1) & 1).astype(bool).tolist()
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.booleans())
def test_the_pass_equals_the_functions_of_chapter_4(seed: int, points: int, guess: bool) -> None:
    c = chunk_of(seed, points, guess=guess)
    got = fleet_day(c)
    f = c.facts
    kw = values(c.p, 4) * f.k[:, None]
    there = np.isfinite(kw)
    guessed = there & c.guessed if c.guessed is not None else np.zeros(kw.shape, bool)
    ok = there & ~guessed
    filled = np.where(there, kw, 0.0)
    want = load_day(np.maximum(filled, 0.0), ok, STEP_S, guessed)
    net = load_day(filled, ok, STEP_S, guessed)
    out = load_day(np.maximum(-filled, 0.0), ok, STEP_S, guessed)

    def same(name: str, expected: NDArray[np.float64], rel: float = 1e-9) -> None:
        np.testing.assert_allclose(got[name], expected, rtol=rel, atol=1e-6, err_msg=name)

    assert got["valid"].tolist() == want.valid.tolist() and got["flag"].tolist() == want.flag.tolist()
    same("curve_kwh", want.energy_kwh)
    same("export_kwh", out.energy_kwh)
    same("mean_kw", want.mean_kw)
    same("max_kw", want.max_kw)
    same("min_kw", want.min_kw)
    same("net_min_kw", net.min_kw)
    assert got["max_slot"].tolist() == want.max_slot.tolist()
    assert got["min_slot"].tolist() == want.min_slot.tolist()
    for name in ("load_factor", "min_rate", "difference_rate"):
        same(name, getattr(want, name), 1e-5)
    assert c.tariff is not None and c.register is not None
    same("tou_kwh", np.hstack([tou_energy(filled, there, c.tariff, (0, 1, 2), STEP_S), np.full((points, 5), NAN)])
         if set(c.tariff) >= {0, 1, 2} else got["tou_kwh"])  # fmt: skip
    first, last = c.register.T
    exact = (first >= 0) & (last >= first)
    same("energy_kwh", np.where(exact, (last - first) * 0.6, want.energy_kwh))

    volts = np.stack([values(x, 1) for x in c.u])
    phases = np.stack([np.ones(points, bool), ~f.three_wire & ~f.single, ~f.single])
    judged = qualification(volts, np.isfinite(volts), f.nominal_v, f.low, f.high, phases)
    for name in ("monitored", "over", "under", "excluded"):
        assert got[f"u_{name}"].T.tolist() == getattr(judged, name).tolist(), name
    assert got["u_any_monitored"].tolist() == judged.any_monitored.tolist()
    assert got["u_any_out"].tolist() == judged.any_out.tolist()

    amps = np.stack([values(x, 2) for x in c.i])
    use = np.broadcast_to(phases[:, :, None], amps.shape) & np.isfinite(amps)
    complete = (use == phases[:, :, None]).all(axis=0)
    spread = np.where(complete, current_spread(amps, np.where(f.single, NAN, f.rated_a), use), NAN)
    assert got["i_judged"].tolist() == np.isfinite(spread).sum(axis=1).tolist()
    edge = np.nan_to_num(np.abs(spread - 0.3), nan=1.0) < 1e-6
    if not edge.any():
        with np.errstate(invalid="ignore"):
            assert got["i_unbalanced"].tolist() == (spread > 0.3).sum(axis=1).tolist()

    kvar = values(c.q, 4) * f.k[:, None]
    both = ok & np.isfinite(kvar)
    enough = day_flag(both.sum(axis=1), SLOTS) != DayFlag.INSUFFICIENT
    pull = both & (filled > 0)
    wp, wq = np.where(pull, filled, 0).sum(axis=1), np.abs(np.where(pull, kvar, 0)).sum(axis=1)
    near = np.abs(100 * np.nan_to_num(wp / np.maximum(np.hypot(wp, wq), 1e-9)) % 1 - 0.5) < 1e-9
    expected = month_cos(np.where(enough, wp, NAN), wq, np.zeros(points))
    assert (got["cos"] == expected)[~near].all()

    beta = transformer_loading(np.where(both, filled, NAN), np.where(both, kvar, NAN), f.transformer_kva)
    some = np.isfinite(beta).any(axis=1)
    same("beta_max", np.where(some, np.where(np.isfinite(beta), beta, -1).max(axis=1), NAN), 1e-5)
    assert got["heavy"].tolist() == (np.nan_to_num(beta) >= 0.8).sum(axis=1).tolist()
    assert got["loading"].tolist() == loading_level(beta, STEP_S).max(axis=1).tolist()

    real = np.where(ok, kw, 0.0)
    never = np.full(points, NAN)
    k4 = checks.k4_energy(real * 0.25, ok, f.contract_kva, never, STEP_S).any(axis=1)
    assert bits(got["checks"], Check.K4) == k4.tolist()
    k5 = checks.k5_spike(real, ok, f.contract_kva).any(axis=1)
    assert bits(got["checks"], Check.K5) == k5.tolist()
    moved = np.repeat((last > first)[:, None], SLOTS, axis=1)
    assert bits(got["checks"], Check.K9) == checks.k9_frozen(real, ok, moved).any(axis=1).tolist()
    k6 = checks.k6_sum(
        np.maximum(filled, 0) * 0.25, ok, np.where(exact, (last - first) * 0.6, NAN), np.full(points, 0.6)
    )
    assert bits(got["checks"], Check.K6) == k6.tolist()


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    c = chunk_of(7, 50, guess=True)
    whole = fleet_day(c)
    monkeypatch.setattr(fleet, "BLOCK", 7)
    assert fleet_day(c).tobytes() == whole.tobytes()


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_counted(seed: int) -> None:
    mask = np.random.default_rng(seed).random((5, SLOTS)) < 0.9
    mask[0] = True
    assert counted(mask).tolist() == mask.sum(axis=1).tolist()


def test_wrong_arrays_are_refused() -> None:
    c = chunk_of(1, 3, guess=False)
    with pytest.raises(ValueError, match="C-contiguous int32"):
        fleet_day(Chunk(point=c.point, p=c.p[:, ::2].copy(), q=c.q, u=c.u, i=c.i, facts=c.facts))
