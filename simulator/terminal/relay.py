"""AFN 10: what the master wants from a meter behind the terminal, over the terminal's ports. The meters are those of
`simulator.dlt645`, which answer as they do on a line of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ...protocols.common.errors import UsageError
from ...protocols.dlt645.frame import cut, make_frame
from ..dlt645 import DltLine
from . import fields
from .parameters import Unit

READ, READ_1997 = 0x11, 0x01
CANNOT, NO_ANSWER, BROKEN, CONFIRMED, DENIED, DATA = range(6)
BITS_A_BYTE: Final = 11


@dataclass(frozen=True, slots=True)
class MeterPorts:
    """lines: the meters of each port."""

    lines: Mapping[int, DltLine]

    def relay(self, fn: int, data: fields.Data, now_us: int) -> tuple[float, Unit | None] | None:
        """(seconds it takes, data unit; None = no answer) of F1 or F9; None = not possible at all."""
        line = self.lines.get(fields.integer(data, "port"))
        if line is None:
            return None
        if fn == 1:
            return self._transparent(line, data, now_us)
        if fn == 9:
            return self._read(line, data, now_us)
        return None

    def _transparent(self, line: DltLine, data: fields.Data, now_us: int) -> tuple[float, Unit | None] | None:
        try:
            request = bytes.fromhex(str(data.get("raw_hex", "")))
        except ValueError:
            return None
        timeout = data.get("packet_timeout")
        wait = fields.integer(timeout, "value") if isinstance(timeout, Mapping) else 0
        wait_s = float(wait) if isinstance(timeout, Mapping) and timeout.get("unit") == "s" else wait / 100
        byte_s = BITS_A_BYTE / (fields.integer(data, "baud", 2400) or 2400)
        replies = line.session().receive(request, now_us)
        heard = b"".join(r.data for r in replies)
        took = len(request) * byte_s + max((r.delay_s for r in replies), default=0.0)
        if not heard or took > wait_s + len(request) * byte_s:
            return wait_s + len(request) * byte_s, None
        port = fields.integer(data, "port")
        return took + len(heard) * byte_s, {"port": port, "len": len(heard), "raw_hex": heard.hex().upper()}

    def _read(self, line: DltLine, data: fields.Data, now_us: int) -> tuple[float, Unit | None] | None:
        old = fields.integer(data, "id_type") == 1
        address, port = str(data.get("address", "")), fields.integer(data, "port")
        size = 2 if old else 4
        try:
            identifier = bytes.fromhex(str(data.get("id_hex", "")))[:size]
            request = make_frame(address, READ_1997 if old else READ, identifier)
        except (ValueError, UsageError):
            return None
        replies = line.session().receive(request.encode(), now_us)
        heard = b"".join(r.data for r in replies)
        frames, _ = cut(heard, 255)
        took = (
            max((r.delay_s for r in replies), default=1.0) + (len(heard) + len(request.encode())) * BITS_A_BYTE / 2400
        )
        result, payload = NO_ANSWER, b""
        if heard and not frames:
            result = BROKEN
        elif frames:
            frame = frames[0]
            result, payload = (DENIED, frame.data) if frame.abnormal else (DATA, frame.data)
        return took, {
            "port": port, "address": address, "result": result, "length": len(payload),
            "data_hex": payload.hex().upper(),
        }  # fmt: skip
