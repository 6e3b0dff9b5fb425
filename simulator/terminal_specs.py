"""The part of a scenario that concerns terminals: how the model behaves, and what it has been set to."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from ..model.lang import tr
from ..protocols.common.errors import UsageError
from ..protocols.qgdw1376.auth import AuthProvider, HmacTest, cleartext
from ..protocols.qgdw1376.edition import edition
from ..protocols.qgdw1376.frame import Address
from ..protocols.qgdw1376.table import lookup
from .sites import PointSpec, site_faults
from .terminal.device import Options

ADDRESS: Final = re.compile(r"([0-9]{4})-([0-9]{1,5})")
PROTOCOL: Final = "qgdw1376"
SECONDARY_KW_LIMIT: Final = 79.0  # XX.XXXX with a sign bit
MAX_ROUNDS: Final = 8
SHORTEST_BUFFER: Final = 64


class ParameterSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One class of AFN 04 as it is set at the start; data: fields as `docs/protocols/qgdw1376.md` names them."""

    fn: int
    data: dict[str, Any]
    pn: int = 0


class TerminalSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a terminal behaves where models differ; see terminal.device.Options for the first ones.

    auth: none (nothing is checked) | cleartext (the device's password, hex) | hmac-test (its key, base64).
    heartbeat_s, redial_s: instead of AFN 04 F1 and F8, which count in minutes and whole seconds. groups: total-add
    groups 1..8 with their points; default: group 1 of all points.
    """

    reconnection: Literal["free", "return"] = "free"
    retrip_s: float | None = 10.0
    drives_closing: bool = False
    curve_days: int = 30
    freeze_days: int = 62
    freeze_months: int = 12
    boot_s: float = 20.0
    buffer: int = 1024
    confirm: Literal["whole", "items"] = "whole"
    auth: Literal["none", "cleartext", "hmac-test"] = "none"
    heartbeat_s: float | None = None
    heartbeat_min: int = 15
    redial_s: float | None = None
    group_addresses: tuple[int, ...] = ()
    groups: dict[int, tuple[int, ...]] = {}
    parameters: tuple[ParameterSpec, ...] = ()

    @property
    def options(self) -> Options:
        """The model's own behaviour."""
        return Options(
            reconnection=self.reconnection, retrip_s=self.retrip_s, drives_closing=self.drives_closing,
            curve_days=self.curve_days, freeze_days=self.freeze_days, freeze_months=self.freeze_months,
            boot_s=self.boot_s, buffer=self.buffer, confirm=self.confirm,
        )  # fmt: skip

    def provider(self, version: str, password: str, key: str) -> AuthProvider | None:
        """Who checks message passwords. UsageError: the secret is none for this way."""
        if self.auth == "none":
            return None
        if self.auth == "cleartext":
            return cleartext(password if password.strip("0") else "", edition(version).pw_length)
        try:
            return HmacTest(base64.b64decode(key, validate=True))
        except (binascii.Error, ValueError) as error:
            raise UsageError(tr("key: must be base64", "key: 应为 base64")) from error


def parse_address(text: str) -> Address | None:
    """`3301-1001`: administrative code and terminal address (decimal); None = not one."""
    found = ADDRESS.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= 65_534:
        return None
    return Address(found[1], int(found[2]))


def point_name(device: str, point: PointSpec) -> str:
    """Name of a point's meter in fault scripts and in the truth."""
    return point.name or f"{device}-{point.pn}"


def meter_address(address: str, point: PointSpec) -> str:
    """Twelve digits of a point's meter."""
    found = parse_address(address)
    return point.address.zfill(12) if point.address else f"{found.a2 if found else 0:08d}{point.pn:04d}"


def groups_of(terminal: TerminalSpec, points: Sequence[PointSpec]) -> Mapping[int, Sequence[int]]:
    """Total-add groups."""
    return terminal.groups or {1: [p.pn for p in points[:64]]}


def terminal_faults(
    terminal: TerminalSpec, points: Sequence[PointSpec], version: str, password: str, key: str
) -> Iterator[str]:
    """What is wrong with a terminal and its points."""
    numbers = [p.pn for p in points]
    if len(set(numbers)) != len(numbers) or any(not 1 <= n <= 2040 for n in numbers):
        yield "points: " + tr("pn must be different numbers from 1 to 2040", "pn 应为 1 至 2040 的不同数字")
    if sum(len(p.site.rounds) for p in points) > MAX_ROUNDS:
        yield "points: " + tr("a terminal has at most 8 rounds", "终端至多 8 个轮次")
    for i, point in enumerate(points):
        yield from (f"points[{i}].site.{text}" for text in site_faults(point.site))
        yield from (f"points[{i}].{text}" for text in ratio_faults(point))
        if point.address and not (point.address.isdecimal() and len(point.address) <= 12):
            yield f"points[{i}].address: " + tr("at most 12 digits", "至多 12 位数字")
    for group, members in terminal.groups.items():
        if not 1 <= group <= 8 or not members or not set(members) <= set(numbers) or max(members) > 64:
            yield f"terminal.groups.{group}: " + tr(
                "groups are 1 to 8, of points (1 to 64) that there are", "总加组为 1 至 8, 成员为已有测量点 (1 至 64)"
            )
    if not SHORTEST_BUFFER <= terminal.buffer <= 16_383:
        yield "terminal.buffer: " + tr("must be 64 to 16383", "应为 64 至 16383")
    yield from _secret_faults(terminal, version, password, key)
    for i, one in enumerate(terminal.parameters):
        yield from (f"terminal.parameters[{i}]: {text}" for text in _parameter_faults(one, version))


def ratio_faults(point: PointSpec) -> Iterator[str]:
    """Ratios that a meter cannot have, or that do not let its load fit its display."""
    if point.ct_ratio <= 0 or point.pt_ratio <= 0:
        yield "ct_ratio, pt_ratio: " + tr("must be above 0", "应大于 0")
        return
    peak = (point.site.base_kw + sum(r.kw for r in point.site.rounds)) * 1.3
    if peak / (point.ct_ratio * point.pt_ratio) > SECONDARY_KW_LIMIT:
        yield "ct_ratio: " + tr(
            f"{peak:.0f} kW do not fit the display of a meter with these ratios (79 kW secondary)",
            f"{peak:.0f} kW 超出该变比下电能表的量程 (二次侧 79 kW)",
        )


def _secret_faults(terminal: TerminalSpec, version: str, password: str, key: str) -> Iterator[str]:
    try:
        terminal.provider(version, password, key)
    except UsageError as error:
        yield str(error)


def _parameter_faults(one: ParameterSpec, version: str) -> Iterator[str]:
    row = lookup(0x04, one.fn, version)
    if row is None or version not in row.editions:
        yield tr(f"this edition has no F{one.fn}", f"该版本没有 F{one.fn}")
        return
    try:
        row.fields.encode(one.data, version)
    except UsageError as error:
        yield f"F{one.fn}: {error}"
