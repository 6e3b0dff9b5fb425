"""Derived keys: functions that add to the values of a data unit what its table row cannot say. Ignored when writing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

Data = dict[str, object]

F10_BAUD: Final = (0, 600, 1200, 2400, 4800, 7200, 9600, 19200)  # code 0 = the port's default
PORT_BAUD: Final = (300, 600, 1200, 2400, 4800, 7200, 9600, 19200)


class Hook(msgspec.Struct, frozen=True):
    """`run` adds `keys` to decoded values."""

    keys: tuple[str, ...]
    run: Callable[[Data], None]


def _baud(data: Data) -> None:
    """AFN 04 F10: rate of the baud code of a device."""
    code = data.get("baud_code")
    data["baud"] = F10_BAUD[code] if isinstance(code, int) and code < len(F10_BAUD) else None


def _timeout_retry_raw(data: Data) -> None:
    """AFN 04 F1 bytes 2-3 as sent: some terminals mean two bytes (time-out, repeats) by them, not a word."""
    timeout, retries = data.get("timeout_s"), data.get("retries")
    if isinstance(timeout, int) and isinstance(retries, int):
        data["timeout_retry_raw"] = (timeout | retries << 12).to_bytes(2, "little").hex().upper()


def _event_masks(data: Data) -> None:
    """AFN 04 F9: the lists of event codes as the masks sent."""
    for name in ("record", "important"):
        codes = data.get(name)
        if isinstance(codes, list):
            data[f"{name}_mask_hex"] = sum(1 << code - 1 for code in codes).to_bytes(8, "little").hex().upper()


def _relay(data: Data) -> None:
    """AFN 10 F1: the DL/T 645 frame inside, if there is one."""
    from ..dlt645.frame import Frame as MeterFrame
    from ..dlt645.frame import cut

    raw = data.get("raw_hex")
    frames: list[MeterFrame] = cut(bytes.fromhex(raw), 255)[0] if isinstance(raw, str) else []
    if frames:
        frame = frames[0]
        data["dlt645"] = {
            "address": frame.address,
            "control": f"{frame.control:02X}",
            "len": len(frame.data),
            "data_minus33_hex": frame.data.hex().upper(),
            "cs_ok": True,
        }


def _groups(data: Data) -> None:
    """AFN 0C F5, F6: the number of the total-sum group in each element (bit set `groups`, ascending)."""
    numbers, rows = data.get("groups"), data.get("settings", data.get("states"))
    if isinstance(numbers, list) and isinstance(rows, list):
        for number, row in zip(numbers, rows, strict=True):
            row["group"] = number


HOOKS: Final[dict[str, Hook]] = {
    "groups": Hook((), _groups),
    "baud": Hook(("baud",), _baud),
    "timeout_retry_raw": Hook(("timeout_retry_raw",), _timeout_retry_raw),
    "event_masks": Hook(("record_mask_hex", "important_mask_hex"), _event_masks),
    "relay": Hook(("dlt645",), _relay),
}
