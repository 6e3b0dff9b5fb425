"""Which line serves which device, and with which timing: configuration and profiles turned into `Station`s.

Line names: a serial port or TCP endpoint is one line for all its devices; a listener has one line for each name that
dials in (the device's option `line`: the modem's registration; without it the device's own address); a broker has one
line for each device, for they do not share a wire.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from ...model.devices import Device
from ...protocols.qgdw1376.edition import editions
from ..config import LinkConfig
from ..link import LinePolicy, Station
from ..profile import Profile, TerminalPlan
from ..relay import VIA
from ..terminal import TerminalSession, TerminalSettings, require_address

BITS_PER_BYTE = 11  # start, eight data, parity, stop: the longest form
LEAST_TURNAROUND_BYTES = 2  # a line needs this much to change its direction
RADIO_BYTES = 255  # longest user data on a dedicated radio channel
LISTENERS = ("listen-tcp", "listen-udp")


def relayed_station(device: Device, profile: Profile, carrier: Station) -> Station:
    """A device whose frames a terminal carries: on the wire it is the terminal, its queue and fate are its own."""
    return Station(
        device=device,
        profile=profile,
        wire=carrier.wire,
        byte_s=carrier.byte_s,
        reply_timeout_s=carrier.reply_timeout_s,
        inter_byte_s=carrier.inter_byte_s,
        turnaround_s=carrier.turnaround_s,
        via=carrier,
    )


def line_name(device: Device, config: LinkConfig) -> str:
    """Name of the line that serves a device."""
    if config.kind in LISTENERS:
        return f"{config.name}/{device.options.get('line') or device.address}"
    if config.kind == "mqtt":
        return f"{config.name}/{device.address}"
    return config.name


def line_policy(config: LinkConfig) -> LinePolicy:
    """Margins and bounds of a link's lines. Only sockets can be half open in a way the line must notice."""
    socket = config.kind in ("tcp", "listen-tcp")
    return LinePolicy(
        margin_s=config.margin_ms / 1000,
        half_open_s=config.half_open_s if socket else math.inf,
        queue_items=config.queue_items,
    )


def make_station(device: Device, profile: Profile, config: LinkConfig) -> Station:
    """A device as its line needs it. Modbus devices get the link's framing unless they state their own."""
    wire: str = profile.protocol
    if profile.protocol == "modbus":
        framing = device.options.get("framing") or (config.framing if config.kind == "tcp" else "rtu")
        device = msgspec.structs.replace(device, options={**device.options, "framing": framing})
        wire = f"modbus-{framing}"
    if wire == "qgdw1376" and config.kind == "serial":
        profile = on_radio(profile)
    packets = wire == "modbus-tcp" or config.kind == "mqtt" or (wire == "qgdw1376" and config.kind != "serial")
    timing = profile.timing
    turnaround_ms = timing.turnaround_ms if timing.turnaround_ms is not None else config.turnaround_ms
    byte_s = 0.0 if packets else BITS_PER_BYTE / config.baud
    return Station(
        device=device,
        profile=profile,
        wire=wire,
        byte_s=byte_s,
        reply_timeout_s=timing.reply_timeout_s,
        inter_byte_s=timing.inter_byte_s,
        turnaround_s=0.0 if packets else max(turnaround_ms / 1000, LEAST_TURNAROUND_BYTES * byte_s),
        session=make_session(device, profile, config) if profile.protocol == "qgdw1376" else None,
    )


def on_radio(profile: Profile) -> Profile:
    """The same with requests and answers that fit a dedicated radio channel."""
    plan = profile.terminal or TerminalPlan()
    small = min(plan.answer_bytes, RADIO_BYTES), min(plan.max_bytes, RADIO_BYTES)
    terminal = msgspec.structs.replace(plan, answer_bytes=small[0], max_bytes=small[1])
    return msgspec.structs.replace(profile, terminal=terminal)


def make_session(device: Device, profile: Profile, config: LinkConfig) -> TerminalSession:
    """A terminal's session, as yet without memory. Options of the device (edition, msa, pw_length, heartbeat_s) win."""
    plan, said = profile.terminal or TerminalPlan(), device.options
    edition = editions()[said.get("edition") or profile.version]
    pw_length = edition.pw_length if plan.pw_length is None else plan.pw_length
    settings = TerminalSettings(
        edition=edition.name,
        protocol_id=plan.protocol_id or edition.protocol_id,
        pw_length=int(said.get("pw_length") or pw_length),
        msa=int(said.get("msa") or config.msa),
        fcv=plan.fcv,
        con=plan.con,
        tp=plan.tp,
        tp_delay_min=plan.tp_delay_min,
        auth=plan.auth,
        max_bytes=plan.max_bytes,
        heartbeat_s=int(said.get("heartbeat_s") or plan.heartbeat_s),
    )
    return TerminalSession(address=require_address(device.address), settings=settings)


def by_line(
    devices: Iterable[Device],
    profiles: Mapping[str, Profile],
    configs: Mapping[str, LinkConfig],
    known: Mapping[int, Station] | None = None,
) -> tuple[dict[str, dict[int, Station]], dict[int, str]]:
    """({line: {device id: station}}, {device id: why it is not served}) for all devices.

    known: stations in force; those of unchanged devices are used again, which makes a reload of thousands quick.
    """
    known = known or {}
    lines: dict[str, dict[int, Station]] = {}
    unserved: dict[int, str] = {}
    carriers: dict[tuple[str, str], tuple[str, Station]] = {}
    devices = list(devices)
    for device in sorted(devices, key=lambda d: VIA in d.options):  # terminals before what they carry
        config = configs.get(device.link)
        profile = profiles.get(device.profile)
        if not device.enabled:
            unserved[device.id] = "disabled"
        elif config is None:
            unserved[device.id] = f"no link {device.link}"
        elif profile is None:
            unserved[device.id] = f"no profile {device.profile}"
        elif VIA in device.options:
            via = device.options[VIA]
            line, carrier = carriers.get((device.link, via), ("", None))
            if carrier is None:
                unserved[device.id] = f"no terminal {via} on link {device.link}"
            else:
                lines[line][device.id] = relayed_station(device, profile, carrier)
        else:
            line = line_name(device, config)
            old = known.get(device.id)
            same = old is not None and old.profile is profile and old.device == device
            station = old if old is not None and same else make_station(device, profile, config)
            lines.setdefault(line, {})[device.id] = station
            if profile.protocol == "qgdw1376":
                carriers[device.link, device.name] = line, station
    return lines, unserved
