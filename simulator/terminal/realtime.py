"""Class-1 data (AFN 0C): what a terminal answers now. A function for each row of its own, the table for the rest."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from ...protocols.qgdw1376.table import Row, lookup
from ..clock import month_start
from . import fields
from .curves import hour_unit
from .device import Terminal
from .fill import fill, quantities
from .parameters import Unit
from .sources import event_time, group_source, point_source

AFN: Final = 0x0C
UNKEPT: Final = ("prepaid_", "copper_", "iron_", "carrier_", "harmonic_", "dc_")
"""Quantities that no simulated meter has."""
UNSERVED: Final = frozenset({"harmonic_rms", "harmonic_ratios"})
KEPT_WITHOUT_QUANTITY: Final = frozenset({"switch_state", "meter_clock", "meter_changes"})
POWER_NAMES: Final = {"period": "period", "rest": "day_off", "suspension": "suspension", "reduction": "reduction"}


def realtime_unit(terminal: Terminal, pn: int, fn: int, asked: fields.Data, now_us: int) -> Unit | None:
    """Data of one class at one point; None = the terminal has no such thing."""
    parts = terminal.parts
    row = lookup(AFN, fn, parts.edition)
    if row is None or parts.edition not in row.editions:
        return None
    if row.pn == "0":
        make = OWN.get(row.name)
        return make(terminal, now_us) if make is not None and pn == 0 else None
    if row.pn == "G":
        return _group(terminal, row, pn, asked, now_us)
    if row.pn == "M" and pn in parts.points.numbers() and served(row, parts.edition):
        return _point(terminal, row, pn, asked, now_us)
    return None


def served(row: Row, edition: str) -> bool:
    """Whether the meters have anything of what a row holds."""
    if row.name in UNSERVED:
        return False
    names = quantities(row.fields, edition)
    return row.name in KEPT_WITHOUT_QUANTITY or any(not n.startswith(UNKEPT) for n in names)


def _group(terminal: Terminal, row: Row, group: int, asked: fields.Data, now_us: int) -> Unit | None:
    parts = terminal.parts
    if not parts.totals.members(group):
        return None
    if row.name.startswith("hour_"):
        return hour_unit(parts, row.fields, "G", group, asked, now_us)
    source = group_source(parts, terminal.control, group, now_us)
    if row.name == "group_remaining" and source("group_remaining") is None:
        return None
    return fill(row.fields, parts.edition, {"tariffs": 4} if has_tariffs(row, parts.edition) else {}, source)


def has_tariffs(row: Row, edition: str) -> bool:
    """Whether a row begins its values with the number of tariffs."""
    return any(getattr(n, "name", "") == "tariffs" for n in row.fields.preferred(edition)[0].nodes)


def _point(terminal: Terminal, row: Row, pn: int, asked: fields.Data, now_us: int) -> Unit | None:
    parts = terminal.parts
    if row.name.startswith("hour_"):
        return hour_unit(parts, row.fields, "M", pn, asked, now_us)
    at = now_us
    if row.name.startswith("last_"):
        settled = parts.clock.true_us(month_start(parts.local(now_us)))
        if settled is None or settled < parts.points.since_us:
            return None
        at = settled
    source = point_source(parts, pn, at, live=True)
    given: Unit = {}
    if has_tariffs(row, parts.edition):
        given["tariffs"] = parts.settings.tariffs(pn)
    return fill(row.fields, parts.edition, given | meter_times(terminal, row, pn, now_us), source)


def meter_times(terminal: Terminal, row: Row, pn: int, now_us: int) -> Unit:
    """Fields of a measuring point that hold times of the terminal or its meter, as far as the row has them."""
    parts = terminal.parts
    meter = parts.points.meter(pn)
    known: Unit = {"read_time": parts.local(now_us).replace(second=0), "terminal_time": parts.local(now_us)}
    if meter is not None and parts.points.answers(pn, now_us):
        opened = [r.relay.contact_open for r in parts.rounds.values() if r.relay.site is meter.site]
        events: Mapping[str, str] = {
            "program_time": "programming", "clear_time": "meter_clear", "demand_clear_time": "demand_clear",
            "event_clear_time": "event_clear", "clock_set_time": "clock_set", "cover_time": "cover_open",
        }  # fmt: skip
        known |= {name: event_time(parts, meter, kind) for name, kind in events.items()}
        known |= {"meter_clock": meter.clock.local(now_us), "state": int(any(opened))}
        known |= {"closed": None, "tripped": None, "clock_before": None, "clock_after": None}
        known |= {f"change_{n}": [] for n in range(1, 8)}
        known |= {"program_count": meter.counters.get("programming", 0)}
    names = {getattr(n, "name", "") for n in row.fields.preferred(parts.edition)[0].nodes}
    return {k: v for k, v in known.items() if k in names}


# --- the terminal itself ----------------------------------------------------------------------------------------------


def _clock(terminal: Terminal, now_us: int) -> Unit:
    return {"clock": terminal.parts.local(now_us)}


def _version(terminal: Terminal, now_us: int) -> Unit:
    return {
        "vendor": "SIMU",
        "device_id": f"{zlib.crc32(terminal.name.encode()) % 10**8:08d}",
        "sw_version": terminal.options.version,
        "sw_date": "2026-01-01",
        "capacity_code": "SIMULATOR",
    }


def _parameter_state(terminal: Terminal, now_us: int) -> Unit:
    return {"set": sorted(n for n in terminal.parts.parameters.known() if n <= 248)}


def _uplink_state(terminal: Terminal, now_us: int) -> Unit:
    return {"voice": 1 if terminal.control.voice else 2, "report": 1 if terminal.reports_allowed else 2}


def _control_settings(terminal: Terminal, now_us: int) -> Unit:
    control, settings = terminal.control, terminal.parts.settings
    groups = sorted(settings.groups())
    rows: list[Unit] = []
    for group in groups:
        power, energy = control.power[group], control.energy[group]
        rows.append(
            {
                "scheme": power.scheme - 1,
                "periods": sorted(power.periods),
                **{name: int(kind in power.engaged) for kind, name in POWER_NAMES.items()},
                "month": int(energy.kinds["month"].engaged),
                "prepaid": int(energy.kinds["purchase"].engaged),
                "power_rounds": list(settings.power_rounds(group)),
                "energy_rounds": list(settings.energy_rounds(group)),
            }
        )
    return {
        "protected": int(control.protected), "removed": int(control.removed), "arrears": int(control.arrears),
        "groups": groups, "settings": rows,
    }  # fmt: skip


def _control_state(terminal: Terminal, now_us: int) -> Unit:
    control = terminal.control
    groups = sorted(terminal.parts.settings.groups())
    rows: list[Unit] = []
    for group in groups:
        power, energy = control.power[group], control.energy[group]
        alarm = power.in_force if power.alarm_round else None
        rows.append(
            {
                "limit": fields.power(power.limit_kw),
                "reduction": None if power.float_percent is None else round(power.float_percent),
                "power_rounds": sorted(power.tripped),
                "month_rounds": sorted(energy.kinds["month"].tripped),
                "prepaid_rounds": sorted(energy.kinds["purchase"].tripped),
                **{f"{name}_alarm": int(kind == alarm) for kind, name in POWER_NAMES.items()},
                "month_alarm": int(energy.kinds["month"].alarm),
                "prepaid_alarm": int(energy.kinds["purchase"].alarm),
            }
        )
    return {
        "remote_rounds": sorted(control.remote.outputs), "arrears_alarm": int(control.arrears), "groups": groups,
        "states": rows,
    }  # fmt: skip


def _event_counters(terminal: Terminal, now_us: int) -> Unit:
    ec1, ec2 = terminal.parts.events.counters
    return {"ec1": ec1, "ec2": ec2}


def _event_flags(terminal: Terminal, now_us: int) -> Unit:
    return {"unread": sorted(n for n in terminal.parts.events.unread if n <= 64)}


def _state_inputs(terminal: Terminal, now_us: int) -> Unit:
    changed = sorted(terminal.changed_inputs)
    terminal.changed_inputs.clear()
    return {"state": sorted(terminal.inputs()), "changed": changed}


def _traffic(terminal: Terminal, now_us: int) -> Unit:
    local = terminal.parts.local(now_us)
    counters = terminal.parts.counters
    return {"day_bytes": counters.traffic(local.date()), "month_bytes": counters.traffic((local.year, local.month))}


def _reading_state(terminal: Terminal, now_us: int) -> Unit:
    parts = terminal.parts
    ports: dict[int, list[int]] = {}
    for entry in parts.parameters.entries(10):
        ports.setdefault(fields.integer(entry, "port"), []).append(fields.integer(entry, "pn"))
    local = parts.local(now_us)
    start = local.replace(minute=local.minute // 15 * 15, second=0)
    rows: list[Unit] = [
        {
            "port": port, "meters": len(pns), "flags": [1], "ok": sum(parts.points.answers(pn, now_us) for pn in pns),
            "key_ok": 0, "start": start, "end": start + timedelta(seconds=2 * len(pns)),
        }
        for port, pns in sorted(ports.items())
    ]  # fmt: skip
    return {"n": len(rows), "ports": rows}


OWN: Final[dict[str, Callable[[Terminal, int], Unit]]] = {
    "version_info": _version, "clock": _clock, "parameter_state": _parameter_state, "uplink_state": _uplink_state,
    "control_settings": _control_settings, "control_state": _control_state, "event_counters": _event_counters,
    "event_flags": _event_flags, "state_inputs": _state_inputs, "traffic": _traffic, "reading_state": _reading_state,
}  # fmt: skip
