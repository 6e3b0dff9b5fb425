"""Chunks of the fleet's day on this machine or on a Dask cluster: the same function, the same records.

The cluster's workers need this package in the same version. The optional extra `cluster` brings `distributed`; it is
imported only when an address is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .fleet import Chunk, fleet_day

AHEAD: Final = 4  # chunks a worker may have waiting: bounds the memory of scheduler and workers


def here(chunks: Iterable[Chunk]) -> Iterator[NDArray[np.void]]:
    """One chunk after the other in this process."""
    for chunk in chunks:
        yield fleet_day(chunk)


def on_cluster(address: str, chunks: Iterable[Chunk], timeout_s: float = 10.0) -> Iterator[NDArray[np.void]]:
    """The records in the order of the chunks, computed by the workers of the scheduler at `address` (tcp://host:8786).

    ImportError: the extra is not installed. OSError (TimeoutError): no scheduler answers there, or it has no worker.
    An error in a chunk is raised here.
    """
    from distributed import Client

    with Client(address, timeout=timeout_s, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        if not workers:
            raise OSError(f"the Dask scheduler at {address} has no workers")
        waiting: deque[object] = deque()

        def oldest() -> NDArray[np.void]:
            future = waiting.popleft()
            found: NDArray[np.void] = future.result()  # type: ignore[attr-defined]
            return found

        for chunk in chunks:
            waiting.append(client.submit(fleet_day, chunk, pure=False))
            if len(waiting) >= AHEAD * workers:
                yield oldest()
        while waiting:
            yield oldest()
