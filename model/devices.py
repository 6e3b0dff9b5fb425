"""Devices, metering points and rounds as every ring sees them (archive attributes in force now).

A *device* is what answers on a link (a meter, a terminal); a *point* (计量点) is a place where energy is metered;
a *round* (轮次) is one trip relay output with the loads behind it. Secrets are named here, never held.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal, get_args

import msgspec

PointKind = Literal["measuring", "group", "dc"]
POINT_KINDS: Final[tuple[PointKind, ...]] = get_args(PointKind)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A metering point behind a device; `pn` is its number inside the device (1 for a plain meter).

    kind: measuring (测量点); group, a total-sum group (总加组), whose values the terminal adds up on the primary side;
    dc, a DC analog port (直流模拟量端口). Each kind counts its own numbers: (kind, pn) is the address in the device.
    """

    id: int
    name: str
    pn: int = 1
    kind: PointKind = "measuring"
    ct_ratio: Decimal = Decimal(1)
    pt_ratio: Decimal = Decimal(1)
    contract_kva: Decimal | None = None
    nominal_v: Decimal | None = None
    wiring: str = "3P4W"

    @property
    def multiplier(self) -> Decimal:
        """CT ratio x PT ratio (倍率 K)."""
        return self.ct_ratio * self.pt_ratio


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device on one link. `secret` names an entry of the secrets file (password, operator, key)."""

    id: int
    name: str
    link: str
    profile: str
    address: str
    points: tuple[Point, ...]
    enabled: bool = True
    secret: str | None = None
    options: dict[str, str] = {}

    @property
    def measuring(self) -> tuple[Point, ...]:
        """The points at which energy is metered: what may be added up (a group is already a sum of them)."""
        return tuple(p for p in self.points if p.kind == "measuring")


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What a secret's name stands for; read from the secrets file, never stored in the database, never printed.

    password: six BCD digits (DL/T 645); operator: eight hex digits; key: shared key of signed MQTT commands, base64.
    """

    password: str = "000000"
    operator: str = "00000000"
    key: str = ""

    def __repr__(self) -> str:
        return "Credentials(**)"
