"""The plan checker: does what the cycles ask of a line fit into the line's time? Pure arithmetic, no measurement.

For each line and duty: transactions of one pass x their time on the wire, divided by the time the pass may take (its
period; for freezes the time until the cut-off of domain 3.3, so the sum is that of the busiest hours of the day).
Time of a transaction = (request + reply bytes) x bits / baud + usual reply delay + turnaround, and for a share of them
once the time-out on top. A plan may fill a line up to `LIMIT`; the rest belongs to commands, recalls and probes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import msgspec

from ..model.devices import Device
from ..model.lang import tr
from ..model.work import Duty
from .config import CycleConfig, LinkConfig
from .cycles import clock_s, duty_period_s
from .profile import Profile
from .relay import VIA, port_of
from .wire import ONE_POINT, PointCounts, Transaction, relayed, transactions

LIMIT: Final = 0.85
TIGHT: Final = 0.70
RETRY_SHARE: Final = 0.02
"""Share of transactions that are reckoned to be lost once and cost a whole time-out."""

PACKET_BYTE_S: Final = 1 / 2000
"""Seconds a byte takes on the slowest network channel worth planning for (GPRS with a weak signal)."""
RELAY_S: Final = 2.0
"""What a terminal needs beside the meter's bus and its own line to pass a request on and an answer back."""

_BITS: Final = 11
_DAY_S: Final = 86_400
_CUTOFF_S: Final = {Duty.DAILY: 8 * 3600, Duty.MONTHLY: 2 * _DAY_S}
_BAUDS: Final = (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyLoad:
    """One duty of one profile on one line. busy_s: line time of one pass over all its devices, retries included.

    period_s: how long a pass may take; every_s: how often there is one.
    """

    profile: str
    duty: Duty
    devices: int
    transactions: int
    tx_bytes: int
    rx_bytes: int
    busy_s: float
    period_s: int
    every_s: int = 0

    @property
    def month_bytes(self) -> int:
        """Bytes in a month of 31 days, what network and transport add not counted."""
        return (self.tx_bytes + self.rx_bytes) * 31 * _DAY_S // self.every_s if self.every_s else 0

    @property
    def utilisation(self) -> float:
        """Share of the line's time."""
        return self.busy_s / self.period_s


@dataclass(frozen=True, slots=True, kw_only=True)
class LinePlan:
    """What a line has to carry. `advice`: what would make it fit, most telling first; empty when it fits.

    lines: how many lines the link has (terminals and modems that dial in have one each); with more than one, `devices`
    are those of all of them, `loads` those of `busiest` alone.
    """

    link: str
    baud: int | None
    devices: int
    loads: tuple[DutyLoad, ...]
    advice: tuple[str, ...] = ()
    lines: int = 1
    busiest: str = ""

    @property
    def month_bytes(self) -> int:
        """Traffic of the (busiest) line in a month."""
        return sum(load.month_bytes for load in self.loads)

    @property
    def utilisation(self) -> float:
        """Share of the line's time that all duties take together; above 1 it cannot be done at all."""
        return sum(load.utilisation for load in self.loads)

    @property
    def fits(self) -> bool:
        """Within `LIMIT`."""
        return self.utilisation <= LIMIT

    @property
    def tight(self) -> bool:
        """Fits, with little room for recalls."""
        return self.fits and self.utilisation > TIGHT

    @property
    def excess_s(self) -> float:
        """Seconds of line time that are lacking in each hour; 0 when it fits."""
        return max(0.0, (self.utilisation - LIMIT) * 3600)


class Member(NamedTuple):
    """Devices that load a line alike: profile, points of each kind, and the port through which a terminal reads it.

    port_baud: of the meter's bus behind a terminal; 0 = the device is on the line itself.
    """

    profile: str
    points: PointCounts
    port_baud: int = 0


OnLine = Mapping[Member, int]


def check_plan(
    devices: Iterable[Device], profiles: Mapping[str, Profile], links: Sequence[LinkConfig], cycles: CycleConfig
) -> tuple[LinePlan, ...]:
    """The plan of every line that carries enabled devices, in the order of `links`; none for brokers.

    On a TCP link `baud` is that of the serial server behind it; with `framing: tcp` (Modbus TCP) there is none. Of a
    listener, whose devices have a line each, the busiest line is told.
    """
    served = [d for d in devices if d.enabled and d.profile in profiles]
    by_name = {(d.link, d.name): d for d in served}
    plans = []
    for link in links:
        if link.kind == "mqtt":
            continue
        lines: dict[str, Counter[Member]] = {}
        for device in served:
            if device.link == link.name:
                lines.setdefault(_line_of(device, link, by_name), Counter())[_member(device, profiles)] += 1
        if lines:
            plans.append(_busiest(link, lines, profiles, cycles))
    return tuple(plans)


def _busiest(
    link: LinkConfig, lines: Mapping[str, OnLine], profiles: Mapping[str, Profile], cycles: CycleConfig
) -> LinePlan:
    """The plan of the line that has most to carry; lines that are composed alike are reckoned once."""
    alike = {tuple(sorted(line.items())): name for name, line in sorted(lines.items(), reverse=True)}
    found = []
    for composition, name in sorted(alike.items(), key=lambda pair: pair[1]):
        line = dict(composition)
        loads = tuple(load for member, n in line.items() for load in _loads(profiles, member, n, link, cycles))
        found.append((sum(load.utilisation for load in loads), line, loads, name))
    _, line, loads, name = max(found, key=lambda one: one[0])
    plan = LinePlan(
        link=link.name,
        baud=_baud(link, profiles, {m.profile for m in line}),
        devices=sum(sum(one.values()) for one in lines.values()),
        loads=loads,
        lines=len(lines),
        busiest=name if len(lines) > 1 else "",
    )
    if plan.fits:
        return plan
    return replace(plan, advice=tuple(_advice(plan, line, profiles, link, cycles)))


def _line_of(device: Device, link: LinkConfig, by_name: Mapping[tuple[str, str], Device]) -> str:
    """Name of a device's line within its link."""
    if not link.kind.startswith("listen"):
        return ""
    carrier = by_name.get((link.name, device.options.get(VIA, "")), device)
    return carrier.options.get("line") or carrier.name


def _member(device: Device, profiles: Mapping[str, Profile]) -> Member:
    counts = Counter(p.kind for p in device.points) if profiles[device.profile].protocol == "qgdw1376" else {}
    baud = port_of(device, profiles[device.profile]).baud if VIA in device.options else 0
    return Member(device.profile, tuple(sorted(counts.items())) or ONE_POINT, baud)


def byte_s(link: LinkConfig, profile: Profile) -> float:
    """Seconds a byte takes: start, data, parity and stop bits. 0 for Modbus TCP, which has no serial line.

    Terminals on a network channel: PACKET_BYTE_S.
    """
    if link.kind == "tcp" and profile.protocol == "modbus" and link.framing == "tcp":
        return 0.0
    if profile.protocol == "qgdw1376" and link.kind != "serial":
        return PACKET_BYTE_S
    return (1 + link.bytesize + (link.parity != "N") + link.stopbits) / link.baud


def transaction_s(transaction: Transaction, link: LinkConfig, profile: Profile) -> float:
    """Expected line time of one transaction, the share of its repetitions included."""
    timing = profile.timing
    one = byte_s(link, profile)
    turnaround_ms = timing.turnaround_ms if timing.turnaround_ms is not None else link.turnaround_ms
    wire = (transaction.tx_bytes + transaction.rx_bytes) * one
    lost = wire + timing.reply_timeout_s + link.margin_ms / 1000
    return wire + timing.reply_delay_s + turnaround_ms / 1000 + RETRY_SHARE * lost


def _loads(
    profiles: Mapping[str, Profile], member: Member, devices: int, link: LinkConfig, cycles: CycleConfig
) -> Iterable[DutyLoad]:
    profile = profiles[member.profile]
    for duty in (*profile.read, *((Duty.CURVE,) if profile.curve is not None else ())):
        period_s = duty_period_s(profile, duty, cycles)
        if period_s is None:
            continue
        step_s = profile.curve.step_s if profile.curve is not None else 900
        framing = link.framing if link.kind == "tcp" else "rtu"
        one_pass = transactions(profile, duty, -(-period_s // step_s), framing, member.points)
        busy_s = sum(transaction_s(t, link, profile) for t in one_pass)
        if member.port_baud:  # the meter's bus and the terminal's line, one after the other
            outside = [relayed(t) for t in one_pass]
            bus_s = sum((t.tx_bytes + t.rx_bytes) * _BITS / member.port_baud for t in one_pass)
            busy_s = bus_s + sum((t.tx_bytes + t.rx_bytes) * PACKET_BYTE_S + RELAY_S for t in outside)
            one_pass = tuple(outside)
        yield DutyLoad(
            profile=profile.name,
            duty=duty,
            devices=devices,
            transactions=devices * len(one_pass),
            tx_bytes=devices * sum(t.tx_bytes for t in one_pass),
            rx_bytes=devices * sum(t.rx_bytes for t in one_pass),
            busy_s=devices * busy_s,
            period_s=_time_for(duty, period_s, cycles),
            every_s=period_s,
        )


def _time_for(duty: Duty, period_s: int, cycles: CycleConfig) -> int:
    """Seconds a pass may take: its period, for freezes from the start to the cut-off (08:00; day 2)."""
    if duty is Duty.DAILY:
        return max(600, _CUTOFF_S[duty] - clock_s(cycles.daily_at))
    if duty is Duty.MONTHLY:
        return max(600, _CUTOFF_S[duty] - clock_s(cycles.monthly_at))
    return period_s


def _baud(link: LinkConfig, profiles: Mapping[str, Profile], names: Iterable[str]) -> int | None:
    serial = (byte_s(link, profiles[name]) not in (0.0, PACKET_BYTE_S) for name in names)
    return link.baud if any(serial) else None


def _advice(
    plan: LinePlan,
    on_line: OnLine,
    profiles: Mapping[str, Profile],
    link: LinkConfig,
    cycles: CycleConfig,
) -> Iterable[str]:
    heaviest = max(plan.loads, key=lambda load: load.utilisation)
    others = plan.utilisation - heaviest.utilisation
    if heaviest.duty in (Duty.LIVE, Duty.CURVE, Duty.EVENT) and others < LIMIT:
        longer = -(-int(heaviest.busy_s / (LIMIT - others) + 1) // 60) * 60
        yield tr(
            f"ask for {heaviest.duty} of {heaviest.profile} every {longer} s instead of {heaviest.period_s} s",
            f"将 {heaviest.profile} 的 {heaviest.duty} 周期由 {heaviest.period_s} 秒改为 {longer} 秒",
        )
    for baud in (b for b in _BAUDS if plan.baud is not None and b > plan.baud):
        faster = msgspec.structs.replace(link, baud=baud)
        loads = (load for member, n in on_line.items() for load in _loads(profiles, member, n, faster, cycles))
        if sum(load.utilisation for load in loads) <= LIMIT:
            yield tr(
                f"set line and meters to {baud} baud, if the meters can",
                f"若电能表支持, 将线路与电能表改为 {baud} 波特",
            )
            break
    if plan.lines > 1:
        return
    keep = int(plan.devices * LIMIT / plan.utilisation)
    yield tr(
        f"move {plan.devices - keep} of its {plan.devices} devices to another line",
        f"将 {plan.devices} 台设备中的 {plan.devices - keep} 台移到其他线路",
    )


def describe(plan: LinePlan) -> str:
    """One line for people: how full, and what to do when it does not fit."""
    share = f"{plan.utilisation:.0%}"
    if plan.fits:
        note = tr("fits, tight", "可行, 余量小") if plan.tight else tr("fits", "可行")
        return f"{plan.link}: {share} {note}{_of_many(plan)}"
    advice = "; ".join(plan.advice)
    return tr(
        f"{plan.link}: {share} of the line's time is wanted, {LIMIT:.0%} may be planned: {plan.excess_s:.0f} s are "
        f"lacking in each hour; {advice}",
        f"{plan.link}: 需要线路时间的 {share}, 计划上限 {LIMIT:.0%}: 每小时缺 {plan.excess_s:.0f} 秒; {advice}",
    )


def _of_many(plan: LinePlan) -> str:
    """Of a listener: which line was told, and its traffic (terminals pay by the megabyte)."""
    if plan.lines == 1:
        return ""
    megabytes = plan.month_bytes / 1e6
    return tr(
        f" ({plan.busiest}, busiest of {plan.lines} lines; {megabytes:.1f} MB a month)",
        f" ({plan.busiest}, {plan.lines} 条线路中最忙者; 每月 {megabytes:.1f} MB)",
    )
