"""Load shapes by industry (shapes.toml), weather, and noise that is a pure function of (seed, index). No state at all.

Not for real statistics: the shapes were drawn by hand from what such customers are known for; only their
plausibility is claimed.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..model.readings import F8, I8

SLOTS_DAY: Final = 96
TARIFFS: Final = 4


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One industry. Hourly shares of the connected kW; see shapes.toml for the fields."""

    title: str
    weekday: tuple[float, ...]
    rest: tuple[float, ...]
    rest_weekdays: tuple[int, ...]
    noise: float
    cooling: float
    heating: float
    pf: float

    def slots(self) -> F8:
        """(2, 96): share at the start of each quarter-hour; row 0 working day, row 1 rest day."""
        at = np.arange(SLOTS_DAY) / 4.0
        hours = np.arange(25.0)
        return np.stack([np.interp(at, hours, np.append(row, row[0])) for row in (self.weekday, self.rest)])


@cache
def _document() -> dict[str, object]:
    text = Path(__file__).with_name("shapes.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def shapes() -> dict[str, Shape]:
    """Every shape by name; a fault in the table is an error of the package."""
    found = msgspec.convert(_document()["shape"], dict[str, Shape])
    wrong = [n for n, s in found.items() if len(s.weekday) != 24 or len(s.rest) != 24 or not 0 < s.pf <= 1]
    if wrong:
        raise ValueError(f"shapes.toml: wrong length or power factor: {', '.join(wrong)}")
    return found


@cache
def tariff_of_slot() -> I8:
    """(96,): tariff index 0..3 (sharp, peak, flat, valley) of each quarter-hour of a day."""
    table = msgspec.convert(_document()["tariff"], dict[str, str])["half_hours"]
    if len(table) != 48 or set(table) - set("1234"):
        raise ValueError("shapes.toml: tariff.half_hours must be 48 digits 1-4")
    return np.repeat(np.array([int(c) - 1 for c in table], np.int64), 2)


_U = np.uint64


def noise(seed: int, stream: int, index: I8) -> F8:
    """Deviates with mean 0 and standard deviation 1, bounded by ±3.47, same shape as `index`.

    A pure function (splitmix64 of seed, stream and index; the four 16-bit parts are added up), so that any instant of
    the past can be asked for without having run through it.
    """
    with np.errstate(over="ignore"):
        x: NDArray[np.uint64] = np.atleast_1d(index).astype(np.int64).view(np.uint64)
        key = np.array([(seed * 0x9E3779B97F4A7C15 + stream * 0xD1B54A32D192ED03) % 2**64], np.uint64)
        x = (x + key) * _U(0x9E3779B97F4A7C15)
        x = (x ^ (x >> _U(30))) * _U(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> _U(27))) * _U(0x94D049BB133111EB)
        x = x ^ (x >> _U(31))
    total = sum(((x >> _U(s)) & _U(0xFFFF)).astype(np.float64) for s in (0, 16, 32, 48))
    return np.asarray((total / 65536.0 - 2.0) * np.sqrt(3.0)).reshape(np.shape(np.atleast_1d(index)))


@dataclass(frozen=True, slots=True)
class Weather:
    """Outdoor temperature of the whole scenario: a year's wave, a day's wave, and days that are warmer or cooler."""

    seed: int = 0
    mean_c: float = 17.0
    year_c: float = 11.0
    day_c: float = 4.5
    noise_c: float = 2.0

    def temperature(self, slot: I8) -> F8:
        """degC at slot numbers (quarter-hours since 1970 local); warmest in mid-July and at 14:30."""
        day = slot // SLOTS_DAY
        year = np.cos(2 * np.pi * ((day % 365.25) - 196) / 365.25)
        hour = np.cos(2 * np.pi * ((slot % SLOTS_DAY) - 58) / SLOTS_DAY)
        wave = self.mean_c + self.year_c * year + self.day_c * hour
        return np.asarray(wave + self.noise_c * noise(self.seed, 7001, day))
