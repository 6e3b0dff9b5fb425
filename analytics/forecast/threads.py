"""One thread for the numeric libraries while a series is forecast.

The matrices and trees of one series are small: a second thread gains little on an idle machine and, where the cores
are shared, costs several times the work in waiting for each other at every tree level. Many series go to processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any


@cache
def _pools() -> Any:
    import sklearn.ensemble  # noqa: F401 - only pools of loaded libraries can be limited
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """BLAS and OpenMP with one thread inside, as they were afterwards."""
    with _pools().limit(limits=1):
        yield
