"""The published forms of meter manipulation, put into honest windows: material to learn from, never to send anywhere.

After Jokar, Arianpoo and Leung (2016) and successors: h1 a constant factor 0.1-0.8; h2 a factor for each interval; h3
the register stands still for 4-16 h of each day; h4 the mean of the past times a factor for each interval; h5 flat at
0.5-1 of the past mean; h6 clipped at 0.2-0.6 of the 99th percentile. Each begins on its onset day and lasts to the end.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..masks import F8

FORMS: Final = ("h1", "h2", "h3", "h4", "h5", "h6")


def attack(x: F8, form: str, day: int, rng: np.random.Generator, *, digits: int = 3) -> F8:
    """A copy of the window (days, slots) with the form from `day` on, rounded like a register. ValueError: no form."""
    out = x.copy()
    past, part = x[:day], x[day:]
    mean = float(np.nanmean(past)) if np.isfinite(past).any() else 0.0
    shape = part.shape
    if form == "h1":
        part = part * rng.uniform(0.1, 0.8)
    elif form == "h2":
        part = part * rng.uniform(0.1, 0.8, shape)
    elif form == "h3":
        begin, length = int(rng.integers(0, shape[1])), round(rng.uniform(4, 16) / 24 * shape[1])
        still = (np.arange(shape[1]) - begin) % shape[1] < length
        part = np.where(still & np.isfinite(part), 0.0, part)
    elif form == "h4":
        part = np.where(np.isfinite(part), mean * rng.uniform(0.1, 0.8, shape), np.nan)
    elif form == "h5":
        part = np.where(np.isfinite(part), mean * rng.uniform(0.5, 1.0), np.nan)
    elif form == "h6":
        known = past[np.isfinite(past)]
        part = np.minimum(part, rng.uniform(0.2, 0.6) * (float(np.quantile(known, 0.99)) if len(known) else np.inf))
    else:
        raise ValueError(f"no form of attack {form!r}")
    out[day:] = np.round(part, digits)
    return out
