"""Suspicion score of windows of readings, 0-100, learned from labelled windows or from the windows themselves.

Without labels the honest curve is learned by contrast: copies of the windows are manipulated in the six published
ways (`attacks`), and a forest learns what tells a copy from its original; each window is judged by forests that have
not seen it nor its customer. With labels the same forest learns from them and from manipulated copies of the honest
windows.
From 60 on a window is worth a look (domain 5, TS): never a verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..masks import B1, F8, I8
from .attacks import FORMS, attack
from .features import EDGE_DAYS, NAMES, features

LOOK_FROM: Final = 60.0
# Probability (both kinds equally frequent) that becomes 60 points; a choice, seen to be sensible on labelled windows.
UNLABELLED_AT: Final = 0.72
FOLDS: Final = 5
TREES: Final = 300
MOST_COPIES: Final = 2400
FEWEST: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """score (windows,) 0-100; day (windows,): first day of the strongest change, 0-based; features (windows, names)."""

    score: F8
    day: I8
    features: F8


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Labelled windows (windows, days, slots), which of them are theft, and whose they are."""

    windows: F8
    theft: B1
    customer: Sequence[str]


def score_windows(x: F8, customer: Sequence[str], training: Training | None = None, *, seed: int = 1) -> Scores:
    """Score windows (windows, days, slots), NaN = missing. ValueError: too few windows or days to learn from."""
    days = x.shape[1]
    if days < 3 * EDGE_DAYS:
        raise ValueError(f"windows of {days} days are too short: {3 * EDGE_DAYS} are needed")
    own, day = features(x)
    if training is None:
        if len(x) < FEWEST:
            raise ValueError(
                f"{len(x)} windows are too few to compare with each other: {FEWEST} are needed, or --train"
            )
        return Scores(score=np.round(_contrast(x, own, customer, seed), 1), day=day, features=own)
    if not training.theft.any() or training.theft.all():
        raise ValueError("the training windows need both kinds: theft 0 and theft 1")
    score = _learned(own, training, seed)
    if len(x) >= FEWEST:
        # what the labels say and what the windows say about each other err in different windows
        score = (score + _contrast(x, own, customer, seed)) / 2.0
    return Scores(score=np.round(score, 1), day=day, features=own)


def _learned(own: F8, training: Training, seed: int) -> F8:
    """Points of windows with features `own`, from labelled windows and manipulated copies of the honest ones."""
    taught, _ = features(training.windows)
    copies, of = _copies(training.windows, np.flatnonzero(~training.theft), seed)
    at = _threshold(taught, training.theft, _numbers(training.customer), copies, of, seed)
    answer = np.r_[training.theft, np.ones(len(copies), np.bool_)]
    return _points(_forest(np.r_[taught, copies], answer, seed).predict_proba(own)[:, 1], at)


def _contrast(x: F8, own: F8, customer: Sequence[str], seed: int) -> F8:
    """Points of the windows x against manipulated copies of each other, each by forests that have not seen it."""
    copies, of = _copies(x, np.arange(len(x)), seed)
    chance = np.zeros(len(x))
    for part in _folds(_numbers(customer), seed):
        rest = np.flatnonzero(~np.isin(np.arange(len(x)), part))
        lent = np.isin(of, rest)
        answer = np.r_[np.zeros(len(rest), np.bool_), np.ones(int(lent.sum()), np.bool_)]
        chance[part] = _forest(np.r_[own[rest], copies[lent]], answer, seed).predict_proba(own[part])[:, 1]
    return _points(chance, UNLABELLED_AT)


def _points(chance: F8, at: float) -> F8:
    """Probabilities as 0-100 so that `at` becomes LOOK_FROM; the order is kept."""
    power = float(np.log(LOOK_FROM / 100) / np.log(at))
    points: F8 = 100.0 * np.clip(chance, 0.0, 1.0) ** power
    return points


def _copies(x: F8, which: I8, seed: int) -> tuple[F8, I8]:
    """Features of manipulated copies of the windows `which`, and the window each was made of."""
    rng = np.random.default_rng(seed)
    if len(which) * len(FORMS) > MOST_COPIES:
        which = np.sort(rng.choice(which, MOST_COPIES // len(FORMS), replace=False))
    days = x.shape[1]
    made, of = [], []
    for i in which.tolist():
        for form in FORMS:
            first = int(rng.integers(days // 3, 2 * days // 3 + 1))
            made.append(attack(x[i], form, first, rng))
            of.append(i)
    if not made:
        return np.zeros((0, len(NAMES))), np.zeros(0, np.int64)
    return features(np.array(made))[0], np.array(of)


def _numbers(customer: Sequence[str]) -> I8:
    """Customers as numbers; windows without a customer each stand alone."""
    names = [name or f"\0{i}" for i, name in enumerate(customer)]
    return np.unique(np.array(names), return_inverse=True)[1]


def _folds(groups: I8, seed: int) -> list[I8]:
    """Window numbers in FOLDS parts; all windows of a customer are in one part."""
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    return [p for p in (np.flatnonzero(order[groups] % FOLDS == k) for k in range(FOLDS)) if len(p)]


def _threshold(own: F8, theft: B1, groups: I8, copies: F8, of: I8, seed: int) -> float:
    """Probability that parts the labelled windows best (F1) when each is judged by forests that have not seen it."""
    chance = np.full(len(own), np.nan)
    for part in _folds(groups, seed):
        rest = np.flatnonzero(~np.isin(np.arange(len(own)), part))
        if not theft[rest].any() and not np.isin(of, rest).any():
            continue
        taught = np.isin(of, rest)
        answer = np.r_[theft[rest], np.ones(int(taught.sum()), np.bool_)]
        if answer.all() or not answer.any():
            continue
        chance[part] = _forest(np.r_[own[rest], copies[taught]], answer, seed).predict_proba(own[part])[:, 1]
    known = np.isfinite(chance)
    best = (0.0, UNLABELLED_AT)
    for at in np.linspace(0.3, 0.95, 66):
        raised = known & (chance >= at)
        good = int((raised & theft).sum())
        f1 = 2.0 * good / max(int(raised.sum()) + int((theft & known).sum()), 1)
        best = max(best, (f1, float(at)))
    return best[1]


def _forest(rows: F8, answer: B1, seed: int) -> Any:
    """Two kinds of forests of equal vote; the kinds of windows weigh the same however many there are."""
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, VotingClassifier

    same = {"n_estimators": TREES, "min_samples_leaf": 2, "class_weight": "balanced", "random_state": seed}
    both = [("extra", ExtraTreesClassifier(**same)), ("random", RandomForestClassifier(**same))]
    return VotingClassifier(both, voting="soft").fit(rows, answer)
