"""A learner of whole days: Gaussian-process regression with an additive kernel over groups of day features.

Two days are alike as far as their calendar, weather and recent loads are alike; a forecast is the weighted mean of the
deviations of past days (a similar-day method whose likeness is learned). One factorisation serves all slots of the day.
How much each group matters comes from the marginal likelihood, which is what a person may read: `describe` names it.
Rasmussen and Williams, Gaussian Processes for Machine Learning, chapters 2 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from ..masks import F8

LINEAR: Final = "linear:"
JITTER: Final = 1e-8
PRIOR: Final = 0.02  # of a weak Gaussian prior on the logarithms of the parameters
# Terms of the sum; each is a product over its groups. Terms with a missing group lose that group (or vanish).
TERMS: Final[tuple[tuple[str, ...], ...]] = (
    ("weekday", "rest", "festival", "spring", "mark", "heat", "heat_before", "season", "morning", "evening", "level"),
    ("heat", "heat_before", "heat_memory"),
    ("season", "heat"),
    ("other", "other_before", "season"),
    ("weekday", "rest", "festival", "mark"),
    ("festival", "spring"),
    ("time",),
    ("time", "weekday", "rest"),
    (LINEAR + "morning",),
    (LINEAR + "evening",),
    (LINEAR + "change",),
    (LINEAR + "level",),
    (LINEAR + "week",),
    (LINEAR + "heat",),
)


def terms_for(groups: Mapping[str, F8]) -> tuple[tuple[str, ...], ...]:
    """The terms that the groups at hand allow: constant groups are left out."""
    useful = {name for name, value in groups.items() if np.ptp(value, axis=0).max() > 1e-12}
    out: list[tuple[str, ...]] = []
    for term in TERMS:
        kept = tuple(g for g in term if g.removeprefix(LINEAR) in useful)
        if kept and kept not in out and (len(kept) == len(term) or term[0] in kept):
            out.append(kept)
    return tuple(out)


class DayKernel:
    """Regression from groups of day features to curves (days, slots)."""

    def __init__(self, terms: Sequence[tuple[str, ...]]) -> None:
        self.terms = tuple(terms)
        count = sum(1 + sum(not g.startswith(LINEAR) for g in t) for t in self.terms)
        self._prior = np.zeros(count + 1)
        at = 0
        for term in self.terms:
            self._prior[at] = np.log(0.3)
            at += 1 + sum(not g.startswith(LINEAR) for g in term)
        self._prior[-1] = np.log(0.05)
        self.theta = self._prior.copy()
        self._centre: dict[str, F8] = {}
        self._spread: dict[str, F8] = {}
        self._rows: dict[str, F8] = {}
        self._weights = np.zeros((0, 0))
        self._mean = np.zeros(0)
        self._unit = np.ones(0)

    def learn(self, groups: Mapping[str, F8], target: F8, doubt: F8, *, iterations: int = 30) -> None:
        """Find the parameters. target (days, slots); doubt (days,): noise variance of a day relative to a good one."""
        self._centre = {g: v.mean(axis=0) for g, v in groups.items()}
        self._spread = {g: np.maximum(v.std(axis=0), 1e-9) if g in _PLAIN else np.ones(1) for g, v in groups.items()}
        for g in groups:
            if g.startswith("heat"):  # degrees stay comparable between the hours
                self._spread[g] = np.maximum(groups[g].std(), 1e-9)
        rows = self._standard(groups)
        unit, mean = _units(target, doubt)
        outcome = (target - mean) / unit
        parts = self._distances(rows, rows)
        found = minimize(
            self._loss, self.theta, args=(parts, outcome, doubt), jac=True, method="L-BFGS-B",
            bounds=[(-9.0, 9.0)] * len(self.theta), options={"maxiter": iterations},
        )  # fmt: skip
        self.theta = found.x

    def fit(self, groups: Mapping[str, F8], target: F8, doubt: F8) -> F8:
        """Weigh the days by the parameters at hand; returns the leave-one-out forecasts (days, slots)."""
        self._rows = self._standard(groups)
        self._unit, self._mean = _units(target, doubt)
        outcome = (target - self._mean) / self._unit
        kernel = self._kernel(self._distances(self._rows, self._rows), self.theta)
        kernel[np.diag_indices_from(kernel)] += np.exp(self.theta[-1]) * doubt + JITTER
        factor = cho_factor(kernel, lower=True, check_finite=False)
        self._weights = cho_solve(factor, outcome, check_finite=False)
        inverse = cho_solve(factor, np.eye(len(kernel)), check_finite=False)
        left_out = outcome - self._weights / np.diag(inverse)[:, None]
        return np.asarray(left_out * self._unit + self._mean)

    def predict(self, groups: Mapping[str, F8]) -> F8:
        """Curves (n, slots) for days described by the groups."""
        kernel = self._kernel(self._distances(self._standard(groups), self._rows), self.theta)
        return np.asarray(kernel @ self._weights * self._unit + self._mean)

    def describe(self) -> dict[str, float]:
        """Share of the variance that each term was given, largest first."""
        at, out = 0, {}
        for term in self.terms:
            out[" x ".join(term)] = float(np.exp(self.theta[at]))
            at += 1 + sum(not g.startswith(LINEAR) for g in term)
        total = sum(out.values())
        return {k: v / total for k, v in sorted(out.items(), key=lambda kv: -kv[1])}

    def _standard(self, groups: Mapping[str, F8]) -> dict[str, F8]:
        return {g: (v - self._centre[g]) / self._spread[g] for g, v in groups.items() if g in self._centre}

    def _distances(self, a: Mapping[str, F8], b: Mapping[str, F8]) -> dict[str, F8]:
        """Mean squared distance by group, inner product for the linear terms."""
        out: dict[str, F8] = {}
        for name in {g for term in self.terms for g in term}:
            left, right = a[name.removeprefix(LINEAR)], b[name.removeprefix(LINEAR)]
            inner = left @ right.T
            if not name.startswith(LINEAR):
                square = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * inner
                inner = np.maximum(square, 0.0)
            out[name] = inner / left.shape[1]
        return out

    def _kernel(self, parts: Mapping[str, F8], theta: F8) -> F8:
        return sum(term for term, _ in self._terms(parts, theta))  # type: ignore[return-value]

    def _terms(self, parts: Mapping[str, F8], theta: F8) -> list[tuple[F8, list[tuple[str, float]]]]:
        out: list[tuple[F8, list[tuple[str, float]]]] = []
        at = 0
        for term in self.terms:
            size, at = np.exp(theta[at]), at + 1
            if term[0].startswith(LINEAR):
                out.append((size * parts[term[0]], []))
                continue
            used: list[tuple[str, float]] = []
            exponent: F8 | float = 0.0
            for group in term:
                rate, at = float(np.exp(-theta[at])), at + 1
                exponent = exponent + parts[group] * rate
                used.append((group, rate))
            out.append((size * np.exp(-0.5 * np.asarray(exponent)), used))
        return out

    def _loss(self, theta: F8, parts: Mapping[str, F8], outcome: F8, doubt: F8) -> tuple[float, F8]:
        """Negative log marginal likelihood per slot with the prior, and its gradient."""
        n, slots = outcome.shape
        terms = self._terms(parts, theta)
        kernel = sum(t for t, _ in terms) + 0.0
        noise = np.exp(theta[-1]) * doubt
        kernel[np.diag_indices(n)] += noise + JITTER  # type: ignore[index]
        try:
            factor = cho_factor(kernel, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros(len(theta))
        inverse = cho_solve(factor, np.eye(n), check_finite=False)
        weights = inverse @ outcome
        away = theta - self._prior
        loss = 0.5 * float((outcome * weights).sum()) / slots + float(np.log(np.diag(factor[0])).sum())
        slope = -0.5 * (weights @ weights.T / slots - inverse)
        gradient: list[float] = []
        for value, used in terms:
            product = slope * value
            gradient.append(float(product.sum()))
            gradient += [0.5 * rate * float(np.vdot(product, parts[group])) for group, rate in used]
        gradient.append(float((np.diag(slope) * noise).sum()))
        return loss + PRIOR * float(away @ away), np.array(gradient) + 2 * PRIOR * away


# Groups whose numbers have a natural size (standardised); the calendar's are made to size and stay as they are.
_PLAIN: Final = frozenset({
    "morning", "evening", "change", "week", "level", "other", "other_before", "other_memory",
})  # fmt: skip


def _units(target: F8, doubt: F8) -> tuple[F8, F8]:
    """Spread and mean curve of the targets, good days weighing more."""
    weight = 1.0 / doubt
    mean = np.average(target, axis=0, weights=weight)
    spread = np.sqrt(np.average((target - mean) ** 2, axis=0, weights=weight))
    return np.full(target.shape[1], max(float(np.sqrt(np.mean(spread**2))), 1e-9)), mean
