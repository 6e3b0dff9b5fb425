"""Boosted trees over the slot table: what depends on the hour in ways the day kernel cannot see."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ..masks import B1, F8

ITERATIONS: Final = 200
RATE: Final = 0.04
LEAVES: Final = 31
SMALLEST_LEAF: Final = 50
BINS: Final = 127
MAX_ROWS: Final = 24_000


class SlotTrees:
    """HistGradientBoosting of scikit-learn.

    No sample weights: with them the library finds its bins by a quantile search that costs more than the trees. The
    caller's target (a logarithm where the load allows it) makes errors relative instead.
    """

    def __init__(self) -> None:
        self._model: Any = None
        self._columns: B1 = np.zeros(0, np.bool_)

    def fit(self, table: F8, target: F8, use_slot: B1) -> None:
        """table (days, slots, features), target and use_slot (days, slots)."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        use = np.flatnonzero(use_slot.reshape(-1))
        if len(use) > MAX_ROWS:  # neighbouring slots say nearly the same: thinned at random, always alike
            use = np.sort(np.random.default_rng(7).choice(use, MAX_ROWS, replace=False))
        rows = table.reshape(-1, table.shape[-1])[use].astype(np.float32)
        self._columns = np.asarray(np.isfinite(rows).any(axis=0))  # the library cannot bin a column without any value
        rows = rows[:, self._columns]
        model = HistGradientBoostingRegressor(
            max_iter=ITERATIONS, learning_rate=RATE, max_leaf_nodes=LEAVES, min_samples_leaf=SMALLEST_LEAF,
            max_bins=BINS, max_features=0.5, early_stopping=False, random_state=7,
        )  # fmt: skip
        model.fit(rows, target.reshape(-1)[use])
        self._model = model

    def predict(self, table: F8) -> F8:
        """(n, slots) in the unit of the target."""
        out = self._model.predict(table.reshape(-1, table.shape[-1])[:, self._columns].astype(np.float32))
        return np.asarray(out, np.float64).reshape(table.shape[:2])
