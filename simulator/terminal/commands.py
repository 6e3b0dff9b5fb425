"""AFN 04 and AFN 05 at the terminal: what is legal, and what a legal unit does.

A frame is carried out as a whole or not at all: every unit is checked before the first one acts. The rows of the
protocol's tables say which values are legal; here is what only this terminal knows (its rounds, groups, state).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from ...protocols.qgdw1376.table import Row, lookup
from ...protocols.qgdw1376.units import Unit as DataUnit
from . import fields
from .device import Terminal
from .energy_control import Kind as EnergyKind
from .power_control import Kind as PowerKind
from .power_control import Reduction
from .settings import Purchase

SET, CONTROL = 0x04, 0x05
MAX_POINT: Final = {"M": 2040, "G": 8, "R": 8, "T": 64, "D": 64}
PURCHASE: Final = 47
LinkAction = Literal["", "connect", "disconnect"]


def legal(row: Row, data: Mapping[str, object]) -> bool:
    """Whether every value lies within the limits of its row."""

    def walk(value: object) -> bool:
        if isinstance(value, Mapping):
            return all(fits(k, v) for k, v in value.items())
        return all(walk(v) for v in value) if isinstance(value, list | tuple) else True

    def fits(name: str, value: object) -> bool:
        limit = row.limits.get(name)
        if limit is None or value is None:
            return walk(value)
        if isinstance(value, list | tuple):
            return all(fits(name, v) for v in value)
        return not isinstance(value, int) or value in limit

    return walk(data)


def acceptable(terminal: Terminal, afn: int, unit: DataUnit) -> bool:
    """Whether a unit of AFN 04 or 05 makes sense to this terminal now."""
    edition = terminal.parts.edition
    row = lookup(afn, unit.fn, edition)
    if row is None or edition not in row.editions or unit.fault or unit.data is None or not legal(row, unit.data):
        return False
    if unit.pn == 0:
        if "0" not in row.pn:
            return False
    elif not any(k in row.pn and unit.pn <= most for k, most in MAX_POINT.items()):
        return False
    if afn == CONTROL:
        return unit.fn in ACTIONS and _possible(terminal, row, unit)
    return True


def _possible(terminal: Terminal, row: Row, unit: DataUnit) -> bool:
    if row.pn == "R":
        return unit.pn in terminal.parts.rounds and not (unit.fn == 1 and terminal.control.protected)
    if row.pn == "G":
        return bool(terminal.parts.totals.members(unit.pn))
    return True


# --- parameters -------------------------------------------------------------------------------------------------------


def set_parameters(terminal: Terminal, units: tuple[DataUnit, ...], msa: int, now_us: int) -> None:
    """Store every unit; ERC3 names them all."""
    parts = terminal.parts
    for unit in units:
        assert unit.data is not None
        parts.parameters.put(unit.fn, unit.pn, unit.data)
        if unit.fn == PURCHASE:
            order = Purchase(
                fields.integer(unit.data, "order_no"),
                fields.integer(unit.data, "mode") == 0x55,
                fields.number(unit.data, "amount", 0.0) or 0.0,
                fields.number(unit.data, "alarm_limit", 0.0) or 0.0,
                fields.number(unit.data, "trip_limit", 0.0) or 0.0,
            )
            terminal.control.energy[unit.pn].buy(order, now_us)
    ids: list[object] = [{"pn": [u.pn], "fn": [u.fn]} for u in units[:60]]
    parts.record(3, now_us, msa=msa, ids=ids)


# --- control ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Order:
    """One unit of AFN 05 on its way."""

    terminal: Terminal
    pn: int
    data: Mapping[str, object]
    now_us: int


Action = Callable[[Order], LinkAction]


def _power(kind: PowerKind, on: bool) -> Action:
    def act(order: Order) -> LinkAction:
        power = order.terminal.control.power[order.pn]
        if on:
            power.engage(kind, order.now_us)
        else:
            power.release(kind, order.now_us)
        return ""

    return act


def _energy(kind: EnergyKind, on: bool) -> Action:
    def act(order: Order) -> LinkAction:
        energy = order.terminal.control.energy[order.pn]
        if on:
            energy.engage(kind)
        else:
            energy.release(kind, order.now_us)
        return ""

    return act


def _flag(owner: Literal["control", "terminal"], name: str, value: bool) -> Action:
    def act(order: Order) -> LinkAction:
        setattr(order.terminal.control if owner == "control" else order.terminal, name, value)
        return ""

    return act


def _trip(order: Order) -> LinkAction:
    delay, limit = (fields.integer(order.data, k) for k in ("alarm_delay_min", "limit_half_hours"))
    order.terminal.control.trip(order.pn, delay, limit, order.now_us)
    return ""


def _permit(order: Order) -> LinkAction:
    order.terminal.control.permit(order.pn, order.now_us)
    return ""


def _period(order: Order) -> LinkAction:
    scheme = fields.integer(order.data, "scheme") + 1
    order.terminal.control.power[order.pn].engage_period(fields.bits(order.data, "periods"), scheme, order.now_us)
    return ""


def _reduction(order: Order) -> LinkAction:
    reduction = Reduction(
        slide_min=fields.integer(order.data, "slide_min", 1) or 1,
        float_percent=fields.number(order.data, "float_percent", 0.0) or 0.0,
        freeze_delay_min=fields.integer(order.data, "freeze_delay_min"),
        control_half_hours=fields.integer(order.data, "control_half_hours"),
        alarm_min=tuple(int(n or 0) for n in fields.numbers(order.data, "alarm_min")),
    )
    order.terminal.control.power[order.pn].engage_reduction(reduction, order.now_us)
    return ""


def _protect(order: Order) -> LinkAction:
    order.terminal.control.protect(fields.integer(order.data, "half_hours"), order.now_us)
    return ""


def _unprotect(order: Order) -> LinkAction:
    order.terminal.control.unprotect()
    return ""


def _clock(order: Order) -> LinkAction:
    moment = order.data.get("clock")
    if isinstance(moment, datetime):
        parts = order.terminal.parts
        before = parts.local(order.now_us)
        parts.clock.set(order.now_us, moment.replace(tzinfo=None, microsecond=0))
        if parts.edition == "2013":
            parts.record(41, order.now_us, pn=0, before=before, after=parts.local(order.now_us))
    return ""


def _text(order: Order) -> LinkAction:
    order.terminal.text[fields.integer(order.data, "number")] = str(order.data.get("text", ""))
    return ""


def _pause(paused: bool) -> Action:
    def act(order: Order) -> LinkAction:
        ports = order.terminal.parts.points.paused
        (ports.add if paused else ports.discard)(fields.integer(order.data, "port"))
        return ""

    return act


def _delete_meters(order: Order) -> LinkAction:
    parameters, port = order.terminal.parts.parameters, fields.integer(order.data, "port")
    gone = [{**e, "pn": 0} for e in parameters.entries(10) if fields.integer(e, "port") == port]
    parameters.put(10, 0, {"n": len(gone), "devices": gone})
    return ""


def _delete_events(order: Order) -> LinkAction:
    order.terminal.parts.events.delete([int(n) for n in fields.numbers(order.data, "erc") if n is not None])
    return ""


def _link(action: LinkAction) -> Action:
    return lambda order: action


def _nothing(order: Order) -> LinkAction:
    return ""


ACTIONS: Final[dict[int, Action]] = {
    1: _trip, 2: _permit, 9: _period, 10: _power("rest", True), 11: _power("suspension", True), 12: _reduction,
    15: _energy("month", True), 16: _energy("purchase", True), 17: _power("period", False), 18: _power("rest", False),
    19: _power("suspension", False), 20: _power("reduction", False), 23: _energy("month", False),
    24: _energy("purchase", False), 25: _protect, 26: _flag("control", "arrears", True),
    27: _flag("control", "voice", True), 28: _flag("control", "removed", True),
    29: _flag("terminal", "reports_allowed", True), 30: _nothing, 31: _clock, 32: _text, 33: _unprotect,
    34: _flag("control", "arrears", False), 35: _flag("control", "voice", False),
    36: _flag("control", "removed", False), 37: _flag("terminal", "reports_allowed", False), 38: _link("connect"),
    39: _link("disconnect"), 49: _pause(True), 50: _pause(False), 51: _nothing, 52: _nothing, 53: _delete_meters,
    57: _delete_events,
}  # fmt: skip
"""Fn -> what it does. Capacitors (F41, F42) are not fitted: denied."""


def carry_out(terminal: Terminal, units: tuple[DataUnit, ...], now_us: int) -> LinkAction:
    """Carry out a checked AFN 05; what the link has to do afterwards."""
    after: LinkAction = ""
    for unit in units:
        after = ACTIONS[unit.fn](Order(terminal, unit.pn, unit.data or {}, now_us)) or after
    return after
