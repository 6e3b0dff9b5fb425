"""Sites and metering points of a scenario: what load flows where, and which meter sees it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Literal

import msgspec

from ..model.lang import tr
from .abnormal import AbnormalSpec
from .load import Component
from .shapes import shapes


class RoundSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One round: kW at full load behind one relay. importance: 1 goes first. last_test: date of the last live test."""

    kw: float
    description: str = ""
    importance: int = 5
    last_test: date | None = None


class SiteSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The load. base_kw: flat, never behind a relay; pickup: factor just after closing, falling to 1 in pickup_s."""

    shape: str
    base_kw: float
    rounds: tuple[RoundSpec, ...] = ()
    power_factor: float | None = None
    pickup: float = 1.25
    pickup_s: float = 600.0
    seed: int | None = None


class RelaySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """delay_s: command to movement; human_s: permit-to-close until the button is pressed, null = never."""

    delay_s: float = 0.5
    human_s: float | None = 15.0
    protected: bool = False


class PointSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One measuring point behind a terminal: its meter and its load. address: of the meter (default from the terminal).

    name: of the meter in fault scripts and in the truth (default: terminal-pn). version: edition of DL/T 645.
    """

    pn: int
    site: SiteSpec
    name: str = ""
    address: str = ""
    ct_ratio: float = 1.0
    pt_ratio: float = 1.0
    contract_kva: float | None = None
    nominal_v: float = 220.0
    wiring: Literal["3P4W", "3P3W", "1P"] = "3P4W"
    initial_kwh: float | None = None
    version: Literal["2007", "1997"] = "2007"
    abnormal: tuple[AbnormalSpec, ...] = ()


def site_faults(site: SiteSpec) -> Iterator[str]:
    """What is wrong with a site."""
    if site.shape not in shapes():
        yield "shape: " + tr(f"unknown; there are {', '.join(shapes())}", f"未知; 现有 {', '.join(shapes())}")
    if site.base_kw < 0 or any(r.kw <= 0 for r in site.rounds):
        yield "base_kw, rounds: " + tr("kW must be positive", "千瓦数应为正")
    if len(site.rounds) > 8:
        yield "rounds: " + tr("at most 8", "至多 8 个")
    if site.power_factor is not None and not 0.1 <= site.power_factor <= 1:
        yield "power_factor: " + tr("must be 0.1 to 1", "应为 0.1 至 1")
    if not 1.0 <= site.pickup <= 5 or site.pickup_s < 0:
        yield "pickup: " + tr("must be 1 to 5, pickup_s 0 or more", "应为 1 至 5, pickup_s 不小于 0")


def components_of(site: SiteSpec) -> tuple[Component, ...]:
    """Base first, then the rounds."""
    return (Component(kw=site.base_kw, flat=True), *(Component(kw=r.kw) for r in site.rounds))
