"""What VEE and the theft score find, and what they raise falsely, on measured data (folder named by FUHE_DATA).

VEE: errors of known kinds put into measured curves (precision, recall by value, error of the final values against the
truth), and the values flagged in the curves as they were measured. Theft: labelled windows, each judged by forests that
have not seen its customer. Skips with a message where the data are not there; they are not part of the project.
"""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np

from fuhe.analytics.masks import B1, F8
from fuhe.analytics.theft.score import LOOK_FROM, Training, score_windows
from fuhe.analytics.vee.clean import clean_curve
from fuhe.analytics.vee.detect import Kind

CURVES = (
    ("region 15 min", "load_cn_region_15min_2018_2020.csv.gz", "load_kw", 96),
    ("city area 15 min", "load_cn_area1_15min_2012_2013.csv.gz", "load_mw", 96),
    ("state 30 min", "load_vic_30min_2012_2013.csv.gz", "load_mw", 48),
    ("steel plant 15 min", "meter_steel_15min_2018_Q1Q3.csv.gz", "kwh", 96),
    ("building 60 min", "meters_bdg2_60min_2016.csv.gz", "building_1_kwh", 24),
)
HOMES = "meters_sgsc_30min_kwh.csv.gz"


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _numbers(rows: list[dict[str, str]], column: str) -> F8:
    return np.array([float(r[column]) if r[column] else np.nan for r in rows])


def inject(true: F8, per_day: int, seed: int) -> tuple[F8, B1]:
    """The curve with gaps, catch-up values, spikes, frozen, zero and scaled stretches, and where they are.

    A year gets about 100 gaps of half an hour to two days, 8 catch-ups, 120 spikes, 25 frozen and 25 zero runs and 10
    scaled stretches; none touches another or a missing value.
    """
    rng = np.random.default_rng(seed)
    x, bad, taken = true.copy(), np.zeros(len(true), np.bool_), ~np.isfinite(true)
    hour, years = per_day / 24, len(true) / per_day / 365

    def place(length: int) -> slice | None:
        for _ in range(200):
            at = int(rng.integers(3 * per_day, len(true) - length - 3 * per_day))
            if not taken[at - 4 : at + length + 4].any():
                taken[at - 4 : at + length + 4] = True
                bad[at : at + length] = True
                return slice(at, at + length)
        return None

    def slots(low: float, high: float) -> int:
        return int(rng.integers(max(round(low * hour), 1), max(round(high * hour), 2) + 1))

    for _ in range(round(8 * years)):
        if part := place(max(round(2 * hour), 1) + 1):
            total = true[part].sum()
            x[part] = np.nan
            x[part.stop - 1] = total
    for _ in range(round(100 * years)):
        if part := place(max(round(float(rng.choice([0.5, 1, 1, 2, 2, 2, 4, 6, 8, 12, 24, 48])) * hour), 1)):
            x[part] = np.nan
    for _ in range(round(120 * years)):
        if part := place(1):
            x[part] *= rng.choice([0.1, 0.5, 0.7, 0.8, 1.25, 1.5, 2, 3, 10])
    for _ in range(round(25 * years)):
        if part := place(slots(2, 14)):
            x[part] = true[part.start]
    for _ in range(round(25 * years)):
        if part := place(slots(0.5, 5)):
            x[part] = 0.0
    for _ in range(round(10 * years)):
        if part := place(slots(9, 48)):
            x[part] *= rng.choice([0.5, 1.5, 2.0])
    return x, bad


def _judge(flagged: B1, final: F8, true: F8, bad: B1, missing: B1) -> dict[str, float]:
    """Precision and recall over the errors that are not simply missing; error of final over all errors."""
    known = np.isfinite(true)
    hits, raised = (flagged & bad & ~missing).sum(), (flagged & ~missing & known).sum()
    both = bad & known & np.isfinite(final)
    return {
        "precision": float(hits / max(raised, 1)),
        "recall": float(hits / max((bad & ~missing).sum(), 1)),
        "wape": float(np.abs(final - true)[both].sum() / np.abs(true[both]).sum()),
    }


def _auc(score: F8, positive: B1) -> float:
    a, b = score[positive][:, None], score[~positive][None, :]
    return float(((a > b) + 0.5 * (a == b)).mean())


def _row(
    name: str, value: float, unit: str, peer: str = "", ratio: float | None = None, target: Any = None
) -> dict[str, Any]:
    return {
        "bench": "detection", "name": name, "value": value, "unit": unit, "peer": peer, "ratio": ratio, "target": None,
    }  # fmt: skip


def _vee(folder: Path, quick: bool) -> list[dict[str, Any]]:
    rows = []
    table = _rows(folder / "vee_dev_area1_15min_2013.csv.gz")
    x, true = _numbers(table, "load_obs"), _numbers(table, "load_true")
    cases = [("labelled year of a city area", x, true, np.array([bool(r["label"]) for r in table]), 96)]
    clean = [(name, _numbers(_rows(folder / file), column), per_day) for name, file, column, per_day in CURVES]
    for name, curve, per_day in clean[1:3] if quick else clean:
        cases.append((f"errors put into {name}", *_injected(curve, per_day), per_day))
    for name, x, true, bad, per_day in cases:
        result = clean_curve(x, per_day)
        figures = _judge(result.found.kind != Kind.GOOD, result.final, true, bad, ~np.isfinite(x))
        line = clean_of_gaps(x)
        both = bad & np.isfinite(true)
        worse = float(np.abs(line - true)[both].sum() / np.abs(true[both]).sum())
        rows += [
            _row(f"VEE {name}: precision", figures["precision"], "of flags"),
            _row(f"VEE {name}: recall", figures["recall"], "of values"),
            _row(f"VEE {name}: error of final", figures["wape"], "WAPE", "raw, gaps linear", worse / figures["wape"]),
        ]
    homes = _rows(folder / HOMES)
    names = [c for c in homes[0] if c.startswith("c")]
    for name, curve, per_day in [*clean, *(("home", _numbers(homes, c), 48) for c in names[: 6 if quick else None])]:
        there = np.flatnonzero(np.isfinite(curve))
        part = curve[there[0] : there[-1] + 1]
        kinds = clean_curve(part, per_day).found.kind
        false = int((kinds > Kind.GAP).sum())
        rows.append(_row(f"VEE flags in {name} as measured", 1000 * false / len(there), "per 1,000 values"))
    several = [r for r in rows if r["name"] == "VEE flags in home as measured"]
    mean = float(np.mean([r["value"] for r in several]))
    return [r for r in rows if r not in several] + [
        _row(f"VEE flags in {len(several)} homes as measured", mean, "per 1,000 values")
    ]


def _injected(curve: F8, per_day: int) -> tuple[F8, F8, B1]:
    x, bad = inject(curve, per_day, 11)
    return x, curve, bad


def clean_of_gaps(x: F8) -> F8:
    """The peer: what is there stays, what is missing is a straight line."""
    there = np.isfinite(x)
    return np.interp(np.arange(len(x)), np.flatnonzero(there), x[there])


def _theft(folder: Path) -> list[dict[str, Any]]:
    with gzip.open(folder / "theft_dev_sgsc_90d_30min.csv.gz", "rt", encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    head, body = lines[0], lines[1:]
    first = head.index("v0")
    x = np.array([[float(v) if v else np.nan for v in r[first:]] for r in body]).reshape(len(body), -1, 48)
    customer = [r[head.index("customer")] for r in body]
    theft = np.array([r[head.index("theft")] == "1" for r in body])
    form = np.array([r[head.index("attack")] for r in body])
    rows = []
    unlabelled = score_windows(x, customer).score
    learned = np.zeros(len(x))
    groups = np.unique(np.array(customer), return_inverse=True)[1]
    order = np.random.default_rng(5).permutation(groups.max() + 1)
    for fold in range(5):
        part = order[groups] % 5 == fold
        rest = [customer[i] for i in np.flatnonzero(~part)]
        training = Training(windows=x[~part], theft=theft[~part], customer=rest)
        learned[part] = score_windows(x[part], [""] * int(part.sum()), training).score
    level = np.nan_to_num(-(np.nanmean(x[:, 45:], axis=(1, 2)) / np.maximum(np.nanmean(x[:, :45], axis=(1, 2)), 1e-9)))
    base = _auc(level, theft)
    for name, score in (("without labels", unlabelled), ("with labels", learned)):
        raised = score >= LOOK_FROM
        hits, false = int((raised & theft).sum()), int((raised & ~theft).sum())
        auc = _auc(score, theft)
        rows += [
            _row(f"theft {name}: AUC", auc, "", "fall of use alone", auc / base),
            _row(f"theft {name}: precision at {LOOK_FROM:.0f}", hits / max(hits + false, 1), ""),
            _row(f"theft {name}: recall at {LOOK_FROM:.0f}", hits / int(theft.sum()), ""),
            _row(
                f"theft {name}: false cases",
                1000 * false / (int((~theft).sum()) * x.shape[1]),
                "per 1,000 points and day",
            ),
        ]
        found = ", ".join(
            f"{f} {int((raised & (form == f)).sum())}/{int((form == f).sum())}" for f in sorted(set(form) - {""})
        )
        print(f"  theft {name}: {found}")
    return rows


def run(quick: bool = False) -> list[dict[str, Any]]:
    """All rows, about five minutes (quick: one); none where FUHE_DATA names no folder."""
    folder = Path(os.environ.get("FUHE_DATA", ""))
    if not os.environ.get("FUHE_DATA") or not folder.is_dir():
        print("  skipped: FUHE_DATA names no folder of measured data")
        return []
    return [*_vee(folder, quick), *_theft(folder)]


if __name__ == "__main__":
    for line in run():
        print(line)
