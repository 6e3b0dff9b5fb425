"""Thousands of terminals that share their contents: what a light terminal answers, as bytes, from cached parts. No I/O.

A fleet has a few dozen *variants* of a metering point (site, meter, load), computed by the full simulator behind one
template terminal; point `pn` of terminal `a2` is one of them. Each answer is put together from data units that were
encoded once, so that a load test measures the master. A light terminal itself is an address and one byte of state: its
open rounds and 保电; more of it stands in light_own. Not here: events, power and energy control, meters behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from ..model.lang import tr
from ..model.times import DAY_US, US
from ..protocols.common.errors import UsageError
from ..protocols.qgdw1376 import dadt
from ..protocols.qgdw1376.edition import edition as edition_of
from ..protocols.qgdw1376.frame import Address, Frame
from ..protocols.qgdw1376.table import lookup
from ..protocols.qgdw1376.units import Unit, read_units, unit_bytes
from . import shapes
from .clock import Clock
from .faults import FaultSet
from .light_own import OwnParameters, about, opaque
from .load import Component, Site, day_of, day_start
from .meter import SimMeter
from .terminal import fields
from .terminal.device import Installation, Options, Terminal, build_terminal
from .terminal.factory import factory_parameters
from .terminal.fill import quantities
from .terminal.history import history_unit
from .terminal.realtime import realtime_unit

VARIANTS: Final = 32
A2_LAST: Final = 65_534  # last terminal address of a region
ROUNDS: Final = 2
MASKS: Final = 1 << ROUNDS
PROTECTED: Final = 0x80
"""Bits of a light terminal's state: D0, D1 rounds that are open; D7 保电."""
GROUP_POINTS: Final = 8
CACHED_UNITS: Final = 20_000
MINUTE_US: Final = 60 * US
ROOM: Final = 24
FLOWS: Final = ("active_power", "reactive_power", "apparent_power", "current_", "phase_angle")
_STEP_A2, _STEP_PN = 7, 13  # neighbouring addresses and points are different variants


class Asked(NamedTuple):
    """One data unit of a request; key: the same for the same question."""

    pn: int
    fn: int
    data: fields.Data
    key: tuple[tuple[str, object], ...]


class LightWorld:
    """Contents of a fleet. points: of every terminal; buffer: longest user data of a frame."""

    def __init__(
        self, clock: Clock, *, points: int = 1, edition: str = "2013", seed: int = 1, past_days: int = 7,
        buffer: int = 1024,
    ) -> None:  # fmt: skip
        self.clock, self.points, self.buffer = clock, points, buffer
        self.edition = edition_of(edition)
        self.template = _template(clock, edition, seed, past_days)
        self.own = OwnParameters(self.template, lambda a2: {n: self.meter(a2, n) for n in range(1, points + 1)})
        self._units: dict[tuple[object, ...], bytes] = {}
        self._asked = lru_cache(maxsize=4096)(self._parse)

    # --- who is what ------------------------------------------------------------------------------------------

    @staticmethod
    def variant(a2: int, pn: int) -> int:
        """Which variant a point is."""
        return (a2 * _STEP_A2 + pn * _STEP_PN) % VARIANTS

    def meter(self, a2: int, pn: int, state: int = 0) -> SimMeter:
        """The (shared) meter of a point, with these rounds open where it is point 1."""
        return self.template.meters[self._place(a2, pn, state)]

    def _place(self, a2: int, pn: int, state: int = 0) -> int:
        """Point of the template that stands for a point of a terminal."""
        return 1 + self.variant(a2, pn) * MASKS + (state % MASKS if pn == 1 else 0)

    # --- requests ---------------------------------------------------------------------------------------------

    def _parse(self, afn: int, data: bytes) -> tuple[Asked, ...]:
        units, _ = read_units(data, 0, len(data), afn, False, self.edition.name)
        return tuple(Asked(u.pn, u.fn, u.data or {}, _key(u.data)) for u in units if not u.raw)

    def asked(self, frame: Frame) -> tuple[int, bytes, tuple[Asked, ...]]:
        """(AFN, time tag as it stands, data units) of a request."""
        user = frame.user
        end = len(user) - (6 if user[1] & 0x80 else 0)
        tag = user[end:]
        if user[0] in self.edition.pw_afn:
            end -= self.edition.pw_length
        return user[0], tag, self._asked(user[0], user[2 : max(end, 2)])

    # --- answers ----------------------------------------------------------------------------------------------

    def said(self, request: Frame, *, ok: bool, tag: bytes = b"") -> bytes:
        """AFN 00 F1 or F2."""
        seq = 0x60 | request.user[1] & 0x0F | (0x80 if tag else 0)
        user = b"\x00%c\x00\x00%c\x00%b" % (seq, 1 if ok else 2, tag)
        return Frame(0x80 if ok else 0x89, request.address, user, request.protocol_id).encode()

    def data(self, request: Frame, a2: int, state: int, afn: int, tag: bytes, asked: Sequence[Asked]) -> list[bytes]:
        """Frames with the data units that there are, or the denial."""
        now = self.clock.now_us()
        chunks: list[bytes] = []
        for one in asked:
            pns = range(1, self.points + 1) if one.pn == dadt.ALL_POINTS else (one.pn,)
            for pn in pns:
                if pn <= self.points or pn == 0:
                    wire = self._unit(a2, pn, state, afn, one, now)
                    if wire:
                        chunks.append(dadt.single(pn, one.fn) + wire)
        if not chunks:
            return [self.said(request, ok=False, tag=tag)]
        return self._frames(request, afn, tag, chunks)

    def more(self, request: Frame, state: int, afn: int, tag: bytes, asked: Sequence[Asked]) -> list[bytes]:
        """The answer to every AFN but 05, 0C and 0D: confirmation, data or denial."""
        key, a2 = (request.address.a1, request.address.a2), request.address.a2
        if afn == 0x0B:
            return self._task(request, key, state, tag, asked)
        if afn in (0x01, 0x04):
            units = [Unit(one.pn, one.fn, dict(one.data)) for one in asked]
            done = self.own.put(key, units) if afn == 0x04 else self.own.reset(key, [one.fn for one in asked])
            return [self.said(request, ok=done, tag=tag)]
        if afn in (0x02, 0x08):
            return [self.said(request, ok=bool(asked), tag=tag)]
        chunks = []
        for one in asked:
            fn, data = one.fn, None
            if afn == 0x09:
                data = about(self.template, a2, ROUNDS, sorted({1, 2, 25, 33} | _HARMLESS), fn) if not one.pn else None
            elif afn == 0x0A:
                data = self.own.answer(key, fn, one.pn, one.data)
            elif found := opaque(afn, fn, one.data, f"{key}/{self.clock.now_us()}"):
                fn, data = found
            if data is not None:
                wire = unit_bytes(Unit(one.pn, fn, data), afn, True, self.edition.name)
                chunks.append(dadt.single(one.pn, fn) + wire)
        return self._frames(request, afn, tag, chunks) if chunks else [self.said(request, ok=False, tag=tag)]

    def _task(
        self, request: Frame, key: tuple[str, int], state: int, tag: bytes, asked: Sequence[Asked]
    ) -> list[bytes]:
        if len(asked) != 1:
            return [self.said(request, ok=False, tag=tag)]
        (one,) = asked
        local = self.template.parts.local(self.clock.now_us())
        units = self.own.task(key, one.fn, one.pn, one.data, local)
        wanted = [Asked(u.pn, u.fn, u.data or {}, _key(u.data)) for u in units]
        return self.data(request, key[1], state, 0x0C if one.fn == 1 else 0x0D, tag, wanted)

    def _frames(self, request: Frame, afn: int, tag: bytes, chunks: Sequence[bytes]) -> list[bytes]:
        runs: list[list[bytes]] = [[]]
        used = 0
        for chunk in chunks:
            if used + len(chunk) > self.buffer - ROOM and runs[-1]:
                runs.append([])
                used = 0
            runs[-1].append(chunk)
            used += len(chunk)
        out = []
        first = request.user[1] & 0x0F
        for i, run in enumerate(runs):
            flags = (0x40 if i == 0 else 0) | (0x20 if i == len(runs) - 1 else 0) | (0x80 if tag else 0)
            user = b"%c%c%b%b" % (afn, flags | (first + i) & 0x0F, b"".join(run), tag)
            out.append(Frame(0x88, request.address, user, request.protocol_id).encode())
        return out

    def _unit(self, a2: int, pn: int, state: int, afn: int, one: Asked, now_us: int) -> bytes:
        """An encoded data unit; b"" = there is none."""
        row = lookup(afn, one.fn, self.edition.name)
        if row is None:
            return b""
        when = now_us // MINUTE_US
        if row.pn == "0":
            if pn:
                return b""
            when = now_us // US if one.fn == 2 else when
            key: tuple[object, ...] = (afn, one.fn, state, when)
        elif row.pn == "G":
            key = (afn, one.fn, pn, self.variant(a2, 0), state % MASKS, one.key, when)
        else:
            place = self._place(a2, pn, state if _flows(afn, one.fn, self.edition.name) else 0) if pn else 0
            key = (afn, one.fn, place, one.key, when if afn == 0x0C or one.fn in _RECENT else now_us // DAY_US)
        found = self._units.get(key)
        if found is None:
            if len(self._units) >= CACHED_UNITS:
                self._units.clear()
            found = self._units[key] = self._encode(a2, pn, state, afn, one, row.pn, now_us)
        return found

    def _encode(self, a2: int, pn: int, state: int, afn: int, one: Asked, kind: str, now_us: int) -> bytes:
        data: dict[str, object] | None
        if kind == "0":
            data = self._own(state, one.fn, now_us) if afn == 0x0C else None
        elif kind == "G":
            data = self._group(a2, pn, state, afn, one, now_us)
        else:
            make = realtime_unit if afn == 0x0C else history_unit
            place = self._place(a2, pn, state if _flows(afn, one.fn, self.edition.name) else 0)
            data = make(self.template, place, one.fn, one.data, now_us)
        return b"" if data is None else unit_bytes(Unit(pn, one.fn, data), afn, True, self.edition.name)

    def _own(self, state: int, fn: int, now_us: int) -> dict[str, object] | None:
        rounds = [r + 1 for r in range(ROUNDS) if state >> r & 1]
        if fn == 5:
            setting: dict[str, object] = {
                "scheme": 0, "periods": [], "reduction": 0, "suspension": 0, "day_off": 0, "period": 0, "prepaid": 0,
                "month": 0, "power_rounds": [], "energy_rounds": [],
            }  # fmt: skip
            protected = int(bool(state & PROTECTED))
            return {"arrears": 0, "removed": 0, "protected": protected, "groups": [1], "settings": [setting]}
        if fn == 6:
            one: dict[str, object] = {
                "limit": None, "reduction": None, "power_rounds": [], "month_rounds": [], "prepaid_rounds": [],
                "reduction_alarm": 0, "suspension_alarm": 0, "day_off_alarm": 0, "period_alarm": 0, "prepaid_alarm": 0,
                "month_alarm": 0,
            }  # fmt: skip
            return {"remote_rounds": rounds, "arrears_alarm": 0, "groups": [1], "states": [one]}
        if fn == 9:
            return {"state": [r for r in range(1, ROUNDS + 1) if r not in rounds], "changed": []}
        return realtime_unit(self.template, 0, fn, {}, now_us) if fn in (1, 2, 4, 7) else None

    def _group(self, a2: int, group: int, state: int, afn: int, one: Asked, now_us: int) -> dict[str, object] | None:
        """Power of group 1: the sum of the first points."""
        if group != 1 or afn != 0x0C or one.fn not in (17, 18):
            return None
        kind = "active" if one.fn == 17 else "reactive"
        at = np.array([now_us])
        total = 0.0
        for pn in range(1, min(self.points, GROUP_POINTS) + 1):
            meter = self.meter(a2, pn, state)
            total += float(meter.series(f"{kind}_power_total", at)[0]) * meter.multiplier
        return {"power": fields.power(total)}

    # --- commands ---------------------------------------------------------------------------------------------

    def commanded(self, state: int, asked: Sequence[Asked]) -> int | None:
        """The state after AFN 05, with alarm delays and limit times taken as zero; None = refused."""
        for one in asked:
            if one.fn in (1, 2) and not 1 <= one.pn <= ROUNDS:
                return None
            if one.fn == 1:
                if state & PROTECTED:
                    return None
                state |= 1 << one.pn - 1
            elif one.fn == 2:
                state &= ~(1 << one.pn - 1)
            elif one.fn == 25:
                state = PROTECTED
            elif one.fn == 33:
                state &= ~PROTECTED
            elif one.fn not in _HARMLESS:
                return None
        return state if asked else None

    def address(self, number: int, region: str = "3301") -> Address:
        """Address of terminal `number`, from 1 on; past 65534 the region counts up (`check_region`)."""
        return Address(f"{int(region) + (number - 1) // A2_LAST:04d}", (number - 1) % A2_LAST + 1)


def check_region(region: str, last: int) -> None:
    """UsageError unless terminals up to number `last` have an address: A1 is four decimal digits."""
    if len(region) != 4 or not (region.isascii() and region.isdigit()):
        raise UsageError(
            tr(
                f"--region {region!r}: the administrative code is four decimal digits, as 3301",
                f"--region {region!r}: 行政区划码应为四位十进制数字, 如 3301",
            )
        )
    if int(region) + (last - 1) // A2_LAST > 9999:
        raise UsageError(
            tr(
                f"so many terminals go past region 9999: choose a --region below {region}",
                f"终端数超出行政区划码 9999: 请选择小于 {region} 的 --region",
            )
        )


_RECENT: Final = frozenset(range(73, 149))  # curves grow through the day
_HARMLESS: Final = frozenset({26, 27, 28, 29, 31, 34, 35, 36, 37, 38})


@lru_cache(maxsize=1024)
def _flows(afn: int, fn: int, edition: str) -> bool:
    """Whether a live class follows the open rounds (its registers must not jump)."""
    row = lookup(afn, fn, edition)
    return afn == 0x0C and row is not None and any(q.startswith(FLOWS) for q in quantities(row.fields, edition))


def _key(data: fields.Data | None) -> tuple[tuple[str, object], ...]:
    return tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in (data or {}).items())


def _template(clock: Clock, edition: str, seed: int, past_days: int) -> Terminal:
    """The terminal whose points are the variants, each once for every set of open rounds."""
    now = clock.now_us()
    origin = day_start(day_of(now) - past_days - 40)
    names = [n for n in shapes.shapes() if n != "flat"]
    meters: dict[int, SimMeter] = {}
    nothing = FaultSet("template", seed)
    for variant in range(VARIANTS):
        kw = 60.0 + 20.0 * (variant % 16)
        ct = max(round(kw / 60) * 5, 5)
        parts = (Component(kw=kw * 0.3, flat=True), Component(kw=kw * 0.5), Component(kw=kw * 0.2))
        for mask in range(MASKS):
            site = Site(
                components=parts, shape=shapes.shapes()[names[variant % len(names)]], seed=seed * 1000 + variant,
                origin_us=origin,
            )  # fmt: skip
            for number in range(ROUNDS):
                if mask >> number & 1:
                    site.trip(number + 1, origin)
            place = 1 + variant * MASKS + mask
            meters[place] = SimMeter(
                name=f"variant-{place}", address=f"{place:012d}", site=site, faults=nothing, seed=seed + variant,
                ct_ratio=ct, retention_days=past_days + 1.0,
            )  # fmt: skip
    installation = Installation(
        meters=meters, relays=(), factory=factory_parameters(edition, meters, {}), since_us=origin
    )  # fmt: skip
    options = Options(curve_days=past_days + 1, freeze_days=past_days + 1)
    return build_terminal("template", edition, installation, nothing, options)
