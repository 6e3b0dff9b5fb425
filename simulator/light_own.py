"""What a light terminal has of its own beyond values and rounds: parameters, tasks, what it says about itself. No I/O.

Made when a master first asks for it, so that a load test without such questions pays nothing. Light terminals record no
events and have no meters that a master could reach through them: AFN 0E and 10 are denied, as by a terminal whose
memory is empty and whose meters are silent; so is AFN 03, which only relay stations have.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from ..protocols.qgdw1376.units import Unit
from .meter import SimMeter
from .terminal import fields
from .terminal.commands import acceptable
from .terminal.describe import configuration, fn_set
from .terminal.device import Terminal
from .terminal.factory import factory_parameters
from .terminal.parameters import Parameters
from .terminal.reports import units_of
from .terminal.settings import Settings

SET: Final = 0x04
Data = Mapping[str, object]


class OwnParameters:
    """Parameters by terminal (administrative code, address). meters: of a terminal, by point."""

    def __init__(self, template: Terminal, meters: Callable[[int], Mapping[int, SimMeter]]) -> None:
        self._template, self._meters = template, meters
        self._known: dict[tuple[str, int], Parameters] = {}

    def of(self, key: tuple[str, int]) -> Parameters:
        """Those of one terminal: as delivered, and as set since."""
        found = self._known.get(key)
        if found is None:
            meters = self._meters(key[1])
            made = factory_parameters(self._template.parts.edition, meters, {1: sorted(meters)[:8]})
            found = self._known[key] = Parameters(made, self._template.parts.parameters.lists)
        return found

    def put(self, key: tuple[str, int], units: Sequence[Unit]) -> bool:
        """AFN 04: all or nothing."""
        if not units or not all(acceptable(self._template, SET, unit) for unit in units):
            return False
        for unit in units:
            self.of(key).put(unit.fn, unit.pn, unit.data or {})
        return True

    def reset(self, key: tuple[str, int], kinds: Sequence[int]) -> bool:
        """AFN 01: F3 and F4 bring back the factory's parameters."""
        if not kinds or not set(kinds) <= {1, 2, 3, 4}:
            return False
        for kind in kinds:
            if kind in (3, 4) and key in self._known:
                self._known[key].reset(keep_communication=kind == 4)
        return True

    def answer(self, key: tuple[str, int], fn: int, pn: int, asked: Data) -> dict[str, object] | None:
        """AFN 0A; None = not set."""
        return self.of(key).answer(fn, pn, asked)

    def task(self, key: tuple[str, int], fn: int, number: int, asked: Data, local: datetime) -> list[Unit]:
        """AFN 0B F1 or F2: the class-1 or class-2 units that a task stands for; none: there is no such task."""
        settings = Settings(self.of(key), self._template.parts.edition)
        return units_of(settings, fn, number, local, fields.moment(asked, "start")) if fn in (1, 2) else []


def about(template: Terminal, a2: int, rounds: int, controls: Sequence[int], fn: int) -> dict[str, object] | None:
    """AFN 09: what the template says, with what is different in a light terminal."""
    found = configuration(template, fn)
    if found is None:
        return None
    own: dict[int, dict[str, object]] = {
        1: {"device_id": f"{a2:08d}"}, 2: {"switch_outputs": rounds, "max_meters": 0}, 5: fn_set(controls),
        8: {"erc": []},
    }  # fmt: skip
    return found | own.get(fn, {})


def opaque(afn: int, fn: int, asked: Data, seed: str) -> tuple[int, dict[str, object]] | None:
    """(Fn, data) of the answer to AFN 06 F1, F3 and 0F F1, as the full simulator gives it; None: denied."""
    if afn == 0x06 and fn == 3:
        return 4, {"raw_hex": random.Random(seed).randbytes(16).hex().upper()}
    if afn == 0x06 and fn == 1:
        return 2, {"raw_hex": asked.get("raw_hex", "")}
    if afn == 0x0F and fn == 1:
        return 1, {"segment": fields.integer(asked, "segment")}
    return None
