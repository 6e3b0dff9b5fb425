"""The day of a million points in one pass (analytics/fleet.py) beside reading the arrays, and beside pandas and polars.

The chunks are made one by one with a seed; making them is not counted. Every chunk's pass and the bare reading of its
arrays (`numpy.sum` of each) alternate in one run. pandas and polars compute the load, power factor and voltage figures
of a part of the points on the long table that such tools work on (one row a point and slot), its making not counted;
their times are scaled to all points. They leave out what ours does besides (unbalance, loading, checks, TOU).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from fuhe.analytics.fleet import SLOTS, STATS, Chunk, Facts, fleet_day
from fuhe.analytics.tou import slot_tariffs

CHUNK = 4096
QUANTITIES = 8
NIGHT, FLAT, PEAK = 0, 1, 2
PERIODS = ((0, NIGHT), (480, PEAK), (660, FLAT), (1080, PEAK), (1320, NIGHT))


def made_chunk(seed: int, points: int) -> Chunk:
    """Industrial loads with noise, 0.2 % of values missing, one point in 50 exporting, some beyond limits."""
    rng = np.random.default_rng(seed)
    size = (rng.pareto(2.0, (points, 1)) * 1000 + 200).clip(max=30_000).astype(np.float32)
    shape = (0.6 + 0.4 * np.sin(np.linspace(0, 2 * np.pi, SLOTS, dtype=np.float32))) * rng.random(
        (points, 1), np.float32
    ) + 0.3
    p = (size * shape * (0.9 + 0.2 * rng.random((points, SLOTS), np.float32))).astype(np.int32)
    p[::50, 40:60] *= -1
    q = (p * (0.2 + 0.2 * rng.random((points, 1), np.float32))).astype(np.int32)
    centre = (2200 + 40 * rng.standard_normal((points, 1), np.float32)).astype(np.int16)
    u = [(centre + rng.integers(-80, 81, p.shape, np.int16)).astype(np.int16) for _ in range(3)]
    i = [(np.abs(p) / 40 * (0.8 + 0.2 * rng.random((points, 1), np.float32))).astype(np.int16) for _ in range(3)]
    for a in (p, q, *u, *i):
        a.flat[rng.integers(0, a.size, a.size // 500)] = np.iinfo(a.dtype).min
    register = np.zeros((points, 2), np.int64)
    register[:, 1] = np.where(p > 0, p, 0).sum(axis=1) // 400
    one = np.ones(points)
    return Chunk(
        point=np.arange(points, dtype=np.int32), p=p, q=q, u=(u[0], u[1], u[2]), i=(i[0], i[1], i[2]),
        register=register, tariff=slot_tariffs(PERIODS, 900),
        facts=Facts(
            k=one * 60, nominal_v=one * 220, rated_a=one * 5, low=np.full(points, 930), high=np.full(points, 1070),
            three_wire=np.zeros(points, bool), single=np.zeros(points, bool),
            contract_kva=size[:, 0].astype(np.float64) * 0.015, transformer_kva=size[:, 0].astype(np.float64) * 0.015,
        ),
    )  # fmt: skip


def arrays(c: Chunk) -> list[np.ndarray[Any, Any]]:
    """The eight quantities."""
    return [c.p, c.q, *c.u, *c.i]


def _columns(c: Chunk) -> dict[str, np.ndarray[Any, Any]]:
    """The long table: one row a point and slot, floats with NaN."""
    out: dict[str, np.ndarray[Any, Any]] = {
        "point": np.repeat(c.point, SLOTS),
        "slot": np.tile(np.arange(SLOTS), len(c.point)),
    }
    for name, a, scale in zip(
        ["p", "q", "ua", "ub", "uc", "ia", "ib", "ic"], arrays(c), [6e-3] * 2 + [0.1] * 3 + [0.01] * 3, strict=True
    ):
        out[name] = np.where(a == np.iinfo(a.dtype).min, np.nan, a * scale).ravel()
    return out


def _pandas(columns: dict[str, np.ndarray[Any, Any]]) -> float:
    import pandas as pd

    df = pd.DataFrame(columns)
    begin = time.perf_counter()
    df["imp"], df["exp"] = df["p"].clip(lower=0), (-df["p"]).clip(lower=0)
    both = df["p"].notna() & df["q"].notna() & (df["p"] > 0)
    df["wp"], df["wq"] = df["p"].where(both), df["q"].abs().where(both)
    names = []
    for phase in "abc":
        v = df[f"u{phase}"]
        judged = (v >= 154) & (v <= 264)
        df[f"m{phase}"], df[f"o{phase}"], df[f"l{phase}"] = judged, judged & (v > 235.4), judged & (v < 204.6)
        names += [f"m{phase}", f"o{phase}", f"l{phase}"]
    groups = df.groupby("point", sort=False)
    day = groups.agg(
        valid=("p", "count"), kwh=("imp", "sum"), out=("exp", "sum"), mean=("imp", "mean"), top=("imp", "max"),
        low=("imp", "min"), wp=("wp", "sum"), wq=("wq", "sum"), **{n: (n, "sum") for n in names},
    )  # fmt: skip
    day["slot"] = df["slot"].to_numpy()[groups["imp"].idxmax()]
    day["gamma"], day["cos"] = day["mean"] / day["top"], day["wp"] / np.hypot(day["wp"], day["wq"])
    return time.perf_counter() - begin


def _polars(columns: dict[str, np.ndarray[Any, Any]]) -> float:
    import polars as pl

    df = pl.DataFrame(columns, nan_to_null=True)
    begin = time.perf_counter()
    both = (pl.col("p") > 0) & pl.col("q").is_not_null()
    volts = []
    for phase in "abc":
        v = pl.col(f"u{phase}")
        judged = (v >= 154) & (v <= 264)
        volts += [
            judged.sum().alias(f"m{phase}"), (judged & (v > 235.4)).sum().alias(f"o{phase}"),
            (judged & (v < 204.6)).sum().alias(f"l{phase}"),
        ]  # fmt: skip
    day = (
        df.with_columns(imp=pl.col("p").clip(lower_bound=0), exp=(-pl.col("p")).clip(lower_bound=0))
        .group_by("point", maintain_order=True)
        .agg(
            pl.col("p").count().alias("valid"), pl.col("imp").sum().alias("kwh"), pl.col("exp").sum().alias("out"),
            pl.col("imp").mean().alias("mean"), pl.col("imp").max().alias("top"), pl.col("imp").min().alias("low"),
            pl.col("imp").arg_max().alias("slot"), pl.col("p").filter(both).sum().alias("wp"),
            pl.col("q").filter(both).abs().sum().alias("wq"), *volts,
        )
    )  # fmt: skip
    day.with_columns(
        gamma=pl.col("mean") / pl.col("top"), cos=pl.col("wp") / (pl.col("wp") ** 2 + pl.col("wq") ** 2).sqrt()
    )
    return time.perf_counter() - begin


def _status(field: str) -> float:
    """A figure of this process in MiB (Linux); 0 elsewhere."""
    page = Path("/proc/self/status")
    if not page.exists():
        return 0.0
    return next(int(line.split()[1]) for line in page.read_text().splitlines() if line.startswith(field)) / 1024


def _forget_peak() -> None:
    page = Path("/proc/self/clear_refs")
    if page.exists():
        page.write_text("5")


def run(quick: bool = False) -> list[dict[str, Any]]:
    """All rows; about a minute, most of it making the data. quick: 40,000 points."""
    points, part = (40_960, 2_000) if quick else (1_000_000, 8_000)
    warm = made_chunk(0, CHUNK)
    fleet_day(warm)
    ours = reading = peak = 0.0
    done = number = 0
    records = np.zeros(CHUNK, STATS)
    while done < points:
        n = min(CHUNK, points - done)
        chunk = made_chunk(number, n)
        held = _status("VmRSS")
        _forget_peak()
        begin = time.perf_counter()
        fleet_day(chunk, records[:n])
        ours += time.perf_counter() - begin
        peak = max(peak, _status("VmHWM") - held)
        begin = time.perf_counter()
        for a in arrays(chunk):
            a.sum()
        reading += time.perf_counter() - begin
        done, number = done + n, number + 1
    held_mb = sum(a.nbytes for a in arrays(warm)) / 2**20
    columns = _columns(made_chunk(1, part))

    def row(name: str, value: float, unit: str, peer: str = "", ratio: float | None = None) -> dict[str, Any]:
        return {
            "bench": "daypass", "name": name, "value": value, "unit": unit, "peer": peer, "ratio": ratio,
            "target": None,
        }  # fmt: skip

    what = f"{points:,} points x {SLOTS} x {QUANTITIES}"
    rows = [
        row(f"day pass, {what}", ours, "s", "numpy reads the same arrays once (sum)", ours / reading),
        row("day pass, values", points * SLOTS * QUANTITIES / ours / 1e6, "M values/s"),
        row(f"memory beside the arrays of a chunk of {CHUNK}", peak, "MiB", "the chunk's arrays", peak / held_mb),
    ]
    for name, peer in (("pandas", _pandas), ("polars", _polars)):
        try:
            peer(columns)
            took = min(peer(columns) for _ in range(2)) / part * points
        except ImportError:
            print(f"{name} is not installed: `make bench` installs it")
            continue
        rows.append(
            row("speed of the day pass", points / ours, "points/s", f"{name}, {part:,} points scaled", took / ours)
        )
    return rows


if __name__ == "__main__":
    for line in run(quick=True):
        print(line)
