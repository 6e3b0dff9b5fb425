"""The two shapes of data from the codec to the disk (design 2): samples and curve blocks, arrays all the way.

Not for events or parameters' texts, which are rare and travel as small objects in the same batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    I8 = NDArray[np.int64]
    I4 = NDArray[np.int32]
    I2 = NDArray[np.int16]
    F8 = NDArray[np.float64]
else:  # names for annotations: a command line verb that touches no array starts without numpy
    I8 = I4 = I2 = F8 = Any


@dataclass(frozen=True, slots=True)
class Samples:
    """Single values (live values, registers, freezes). All arrays have shape (n,).

    time_us: instant, µs since 1970 UTC; point: metering point number; quantity: model.quantities id;
    value: float64, secondary side, never NaN (a missing value is an absent row); quality: model.quality;
    source: model.quality.Source. A decimal register of up to 15 digits survives float64 exactly.
    """

    time_us: I8
    point: I4
    quantity: I2
    value: F8
    quality: I2
    source: I2

    def __post_init__(self) -> None:
        n = len(self.time_us)
        if not n == len(self.point) == len(self.quantity) == len(self.value) == len(self.quality) == len(self.source):
            raise ValueError("the arrays of Samples differ in length")

    def __len__(self) -> int:
        return len(self.time_us)


@dataclass(frozen=True, slots=True)
class CurveBlock:
    """k curve segments of one length and step: (point, quantity, start, step) with arrays of values and qualities.

    point int32 (k,), quantity int16 (k,), start_us int64 (k,): the *label* of the first slot (instant of a
    snapshot, END of an averaging interval, domain 3.2); step_s: seconds between labels; value float64 (k, n),
    NaN = the device has none; quality int16 (k, n).
    """

    point: I4
    quantity: I2
    start_us: I8
    step_s: int
    value: F8
    quality: I2

    def __post_init__(self) -> None:
        k = len(self.point)
        if len(self.quantity) != k or len(self.start_us) != k or self.value.shape[0] != k:
            raise ValueError("the arrays of CurveBlock differ in length")
        if self.value.shape != self.quality.shape or self.value.ndim != 2 or self.step_s <= 0:
            raise ValueError("CurveBlock: value and quality must be (k, n) and step_s positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvent:
    """One event of a device's own memory (or pushed): `code` is the protocol's own (DI or ERC), `data` plain JSON."""

    device: int
    point: int | None
    time_us: int
    end_us: int | None
    code: str
    data: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterValue:
    """A parameter as read back: `item` is the protocol's identifier, `value` its canonical text."""

    device: int
    item: str
    value: str
    time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingBatch:
    """What one conversation with a device yielded; one journal record. `received_us` is our clock.

    `runs`: where samples of several conversations were joined, (received_us, number of samples) of each in order;
    `received_us` is then that of the last.
    """

    received_us: int
    samples: Samples | None = None
    runs: Sequence[tuple[int, int]] = ()
    curves: Sequence[CurveBlock] = ()
    events: Sequence[DeviceEvent] = ()
    parameters: Sequence[ParameterValue] = field(default=())

    @property
    def value_count(self) -> int:
        """Number of numeric values (empty curve slots not counted)."""
        import numpy as np

        n = len(self.samples) if self.samples is not None else 0
        return n + sum(int(np.isfinite(c.value).sum()) for c in self.curves)


def samples_from_rows(rows: Sequence[tuple[int, int, int, float, int, int]]) -> Samples:
    """Samples from (time_us, point, quantity, value, quality, source) rows; for small batches only."""
    import numpy as np

    cols = list(zip(*rows, strict=True)) if rows else [()] * 6
    return Samples(
        np.array(cols[0], np.int64),
        np.array(cols[1], np.int32),
        np.array(cols[2], np.int16),
        np.array(cols[3], np.float64),
        np.array(cols[4], np.int16),
        np.array(cols[5], np.int16),
    )
