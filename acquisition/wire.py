"""How many bytes a duty costs on the wire: the transactions of one pass over one device, for the plan checker.

Estimates for planning (four tariffs, all phases fitted, lead bytes both ways); never used to send or to decode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from ..model.devices import Device, Point, PointKind
from ..model.work import Duty
from ..protocols.dlt645.items import lookup
from ..protocols.modbus.grouping import group
from ..protocols.modbus.maps import load_map
from .profile import CurvePlan, Profile, TerminalPlan

_645_FRAME: Final = 12  # 68 A0-A5 68 C L … CS 16
_645_READ_LIMIT: Final = 200  # longest DATA of a reply; the rest comes by follow-on frames
_645_RECORD: Final = 16  # of a load record beside its class: A0 A0, count, time (5), six AA, CS, E5
_645_CLASS: Final = {1: 17, 2: 24, 3: 8, 4: 16, 5: 16, 6: 6}
_TARIFFS: Final = 4  # fitted beside the total in blocks whose length the meter decides
_UNKNOWN: Final = 20
_TERMINAL_FRAME: Final = 16  # 68 L L 68 C A AFN SEQ … CS 16
_EVENT: Final = 24  # bytes of an event with ERC and Le, on average
_RELAY_DOWN: Final = _TERMINAL_FRAME + 10 + 16 + 6  # port and waits, PW, Tp
_RELAY_UP: Final = _TERMINAL_FRAME + 7

PointCounts = tuple[tuple[PointKind, int], ...]
"""How many points of each kind."""
ONE_POINT: Final[PointCounts] = (("measuring", 1),)


@dataclass(frozen=True, slots=True)
class Transaction:
    """One request and its reply in bytes, lead bytes and checksums included."""

    tx_bytes: int
    rx_bytes: int


def transactions(
    profile: Profile, duty: Duty, slots: int, framing: Literal["rtu", "tcp"] = "rtu", points: PointCounts = ONE_POINT
) -> tuple[Transaction, ...]:
    """All transactions of one pass of `duty` over one device; `slots`: curve slots that a pass asks for.

    points: how many points of each kind the device has (terminals).
    """
    if profile.protocol == "dlt645":
        return tuple(_dlt645(profile, duty, slots))
    if profile.protocol == "modbus":
        return tuple(_modbus(profile, duty, framing))
    if profile.protocol == "qgdw1376":
        return tuple(_terminal(profile, duty, slots, points))
    return ()  # devices that publish by themselves


def relayed(transaction: Transaction) -> Transaction:
    """The same inside frames of the terminal that carries it (AFN 10): what its own line bears."""
    return Transaction(transaction.tx_bytes + _RELAY_DOWN, transaction.rx_bytes + _RELAY_UP)


def _terminal(profile: Profile, duty: Duty, slots: int, points: PointCounts) -> Iterator[Transaction]:
    """The requests that the exchange would make of a terminal with points 1 to n of each kind."""
    from .sessions import qgdw1376_plan as plans

    plan = profile.terminal or TerminalPlan()
    device = Device(
        id=0, name="", link="", profile=profile.name, address="",
        points=tuple(Point(id=0, name="", pn=i, kind=kind) for kind, n in points for i in range(1, n + 1)),
    )  # fmt: skip
    if duty is Duty.EVENT:
        yield Transaction(_TERMINAL_FRAME + 4, _TERMINAL_FRAME + 6)
        yield Transaction(_TERMINAL_FRAME + 6, _TERMINAL_FRAME + 8 + plan.event_batch * _EVENT)
        return
    items = (
        (profile.curve.items if profile.curve is not None else ()) if duty is Duty.CURVE else profile.read[duty].items
    )
    parsed = [(plans.parse_item(text), plans.row_of(text, profile.version)) for text in items]
    rows = [(item, row) for item, row in parsed if item is not None and row is not None]
    wants = plans.wants_of(rows, device, profile)[0]
    if duty is Duty.CURVE:
        wants = [w._replace(size=plans.curve_size(w.item.fn, slots)) for w in wants]
    asking = {item.fn: plans.request_size(row) for item, row in rows}
    for batch in plans.batches(wants, plan):
        tx = _TERMINAL_FRAME + sum(asking[w.item.fn] for w in batch)
        yield Transaction(tx, _TERMINAL_FRAME + sum(w.size for w in batch))


def _dlt645(profile: Profile, duty: Duty, slots: int) -> Iterator[Transaction]:
    di = 4 if profile.version == "2007" else 2
    if duty is Duty.CURVE and profile.curve is not None:
        yield from _dlt645_curve(profile.curve, profile.timing.lead_bytes, slots)
        return
    for item in profile.read[duty].items:
        yield _frames(profile.timing.lead_bytes, di, di + _payload(item, profile.version))


def _payload(di: str, version: str) -> int:
    """Bytes of an item's payload; of a block over all possible tariffs only the share of those usually fitted."""
    item = lookup(di, version)
    if item is None or not item.size:
        return _UNKNOWN
    possible = 1 + len({f.name for f in item.fields if f.name.startswith("tariff_") and f.numeric})
    return item.size * (1 + _TARIFFS) // possible if possible > 1 else item.size


def _dlt645_curve(curve: CurvePlan, lead: int, slots: int) -> Iterator[Transaction]:
    """DI + N + time (10 bytes of DATA) for each request; a reply over 200 bytes comes in several frames."""
    for number in curve.classes:
        left = slots
        while left > 0:
            blocks = min(left, curve.blocks_per_request)
            left -= blocks
            rest = blocks * (_645_RECORD + _645_CLASS[number])
            part = min(rest, _645_READ_LIMIT - 4)
            yield _frames(lead, 10, 4 + part)
            rest -= part
            while rest > 0:
                part = min(rest, _645_READ_LIMIT - 5)
                yield _frames(lead, 5, 5 + part)  # DI + SEQ
                rest -= part


def _frames(lead: int, request: int, reply: int) -> Transaction:
    return Transaction(lead + _645_FRAME + request, lead + _645_FRAME + reply)


def _modbus(profile: Profile, duty: Duty, framing: Literal["rtu", "tcp"]) -> Iterator[Transaction]:
    if duty not in profile.read:
        return
    table = load_map(profile.map)
    rows = table.by_name
    names = [n for n in profile.read[duty].items if n in rows]
    scales = {rows[n].sf for n in names} - {""}
    request, reply = (8, 5) if framing == "rtu" else (12, 9)
    for read in group((rows[n] for n in (*names, *sorted(scales))), table.blocks, table.max_registers):
        yield Transaction(request, reply + 2 * read.count)
