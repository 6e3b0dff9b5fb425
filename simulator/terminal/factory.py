"""Parameters with which a simulated terminal leaves the factory: what is wired to it is already in its archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from ..meter import SimMeter
from . import fields
from .parameters import Key, Unit
from .settings import DEFAULT_IMPORTANT

WIRING = {"3P3W": 1, "3P4W": 2, "1P": 3}
METER_PORT, PROTOCOL_2007, PROTOCOL_1997 = 2, 30, 1


def factory_parameters(
    edition: str,
    meters: Mapping[int, SimMeter],
    groups: Mapping[int, Sequence[int]],
    *,
    master: tuple[str, int] = ("0.0.0.0", 0),
    heartbeat_min: int = 15,
    group_addresses: Sequence[int] = (),
    versions: Mapping[int, str] | None = None,
) -> dict[Key, Unit]:
    """Communication, devices, ratios, groups; no limits, no control. versions: DL/T 645 edition of a point's meter."""
    out: dict[Key, Unit] = {
        (1, 0): {
            "rts_x20ms": 10, "max_delay_min": 0, "timeout_s": 10, "retries": 3, "con_flags": 4,
            "heartbeat_min": heartbeat_min,
        },
        (3, 0): {
            "main_ip": master[0], "main_port": master[1], "backup_ip": "0.0.0.0", "backup_port": 0, "apn": "CMNET",
        },
        (5, 0): {"scheme": 0, "parameter": 0},
        (6, 0): {"addresses": [*group_addresses, *[0] * 8][:8]},
        (8 if edition == "2005" else 9, 0): {"record": list(range(1, 65)), "important": sorted(DEFAULT_IMPORTANT)},
        (58, 0): {"hours": 0},
    }  # fmt: skip
    if edition != "2005":
        out[8, 0] = {
            "udp": 0, "role": 1, "online": 1, "redial_interval_s": 30, "passive_redials": 3, "idle_disconnect_min": 30,
            "allowed_hours": list(range(24)),
        }  # fmt: skip
        out[33, 0] = {
            "n": 1, "ports": [{
                "port": METER_PORT, "control_word": 0, "days": [1], "time": "00:00", "interval_min": 15,
                "broadcast_clock": "00 23:30", "m": 0, "windows": [],
            }],
        }  # fmt: skip
        out[12, 0] = {"enabled": list(range(1, 9)), "normally_open": list(range(1, 9))}
    out[10, 0] = {"n": len(meters), "devices": [_device(edition, pn, meters[pn], versions or {}) for pn in meters]}
    for pn, meter in meters.items():
        out[25, pn] = {
            "pt_ratio": round(meter.pt_ratio), "ct_ratio": round(meter.ct_ratio),
            "rated_v": fields.rounded(meter.nominal_v, 1), "rated_a": Decimal("5.0"),
            "rated_kva": fields.rounded(3 * meter.nominal_v * 5 / 1000, 4), "phase": 0,
            "wiring": WIRING[meter.wiring],
        }  # fmt: skip
    entries: list[Unit] = [
        {"group": g, "m": len(pns), "points": [{"pn": pn, "reverse": 0, "subtract": 0} for pn in pns]}
        for g, pns in sorted(groups.items())
    ]
    if entries:
        out[14, 0] = {"n": len(entries), "groups": entries}
    return out


def _device(edition: str, pn: int, meter: SimMeter, versions: Mapping[int, str]) -> Unit:
    entry: Unit = {
        "device_no": pn, "pn": pn, "baud_code": 3, "port": METER_PORT,
        "protocol": PROTOCOL_1997 if versions.get(pn) == "1997" else PROTOCOL_2007,
        "address": meter.address.zfill(12), "password_hex": "000000000000", "tariffs": 4, "int_digits": 6,
        "dec_digits": 2,
    }  # fmt: skip
    if edition != "2005":
        entry |= {"collector": "000000000000", "user_class": [0, 0]}
    return entry
