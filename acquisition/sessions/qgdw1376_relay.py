"""Any exchange carried through a terminal: its requests and answers travel inside AFN 10 F1 (数据转发).

`RelayedExchange` asks the inner exchange (a DL/T 645 meter's, say) for its next request, wraps the bytes, and gives it
the bytes of the answer; what the inner exchange thinks and does stays as it is on a wire of its own. "The meter did not
answer" (a denial, no bytes) is silence for it; so is the terminal's own silence. Nothing is repeated here: what may be
repeated, the inner exchange knows. Baud rate and parity of the terminal's port come from the device's options.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ...model.devices import Device
from ...model.lang import tr
from ...model.work import Exchange, Interruptible, Outcome, Status, WorkItem
from ...protocols.qgdw1376.units import Unit
from ..profile import Profile
from ..relay import Port
from .qgdw1376 import Script, TerminalExchange
from .qgdw1376_plan import HEAD
from .qgdw1376_transaction import Answer, Ask, Peer, Verdict

AFN: Final = 0x10
FN: Final = 1
OVERHEAD: Final = 16  # of a relay data unit beside the meter's bytes
_TICK_S: Final = 0.01


class RelayedExchange(TerminalExchange):
    """The exchange of a device behind a terminal. device, item: the meter's; profile, peer: the terminal's."""

    def __init__(
        self, device: Device, profile: Profile, item: WorkItem, peer: Peer, inner: Exchange, port: Port, meter: Profile
    ) -> None:
        super().__init__(device, profile, item, peer)
        self._inner = inner
        self._port = port
        self._meter = meter
        self.start(self._relay())

    def outcome(self, now_us: int) -> Outcome:
        """The inner exchange's, with what the terminal itself said against it."""
        found = self._inner.outcome(now_us)
        if found.status in (Status.SILENT, Status.BROKEN) and self.reason:
            return replace(found, reason=self.reason)
        return found

    def interrupted(self) -> None:
        """Another conversation with the same meter came between."""
        if isinstance(self._inner, Interruptible):
            self._inner.interrupted()

    def _relay(self) -> Script:
        while (request := self._inner.next_request(self.now_us)) is not None:
            timing, port = self._meter.timing, self._port
            timeout_s = timing.reply_timeout_s if request.timeout_s is None else request.timeout_s
            wait_s = timeout_s + port.byte_s * (len(request.data) + request.reply_bytes)
            unit = Unit(0, FN, {
                **_fields(port), **_packet_wait(wait_s), "byte_timeout_10ms": _byte_wait(timing.inter_byte_s),
                "len": len(request.data), "raw_hex": request.data.hex().upper(),
            })  # fmt: skip
            ask = Ask(
                afn=AFN,
                units=(unit,),
                repeat=False,
                timeout_s=self.profile.timing.reply_timeout_s + wait_s,
                answer_bytes=HEAD + OVERHEAD + request.reply_bytes,
            )
            answer = yield ask
            if request.no_reply:
                continue
            data = self._bytes_of(answer)
            if not data or not self._inner.receive(data, self.now_us):
                self._inner.silence(self.now_us)

    def _bytes_of(self, answer: Answer | None) -> bytes:
        """What the meter said; empty: nothing."""
        if answer is None:
            self.reason = tr("the terminal did not answer the relay", "终端未应答转发命令")
            return b""
        self.reason = ""
        if answer.verdict is not Verdict.DATA:
            codes = sorted({code for code in answer.errors().values() if code})
            more = f" (ERR {', '.join(map(str, codes))})" if codes else ""
            self.reason = tr(
                f"the terminal got no answer from the meter{more}", f"终端未收到电表应答{more}"
            )  # fmt: skip
            return b""
        found = b""
        for unit in answer.units():
            raw = unit.data.get("raw_hex") if unit.fn == FN and unit.data is not None else None
            if isinstance(raw, str):
                found += bytes.fromhex(raw)
        return found


def _fields(port: Port) -> dict[str, object]:
    """The port as the data unit tells it."""
    return {
        "port": port.number,
        "baud": port.baud,
        "stop_bits": port.stop_bits,
        "parity_enable": int(port.parity != "N"),
        "odd": int(port.parity == "O"),
        "data_bits": port.data_bits,
    }


def _packet_wait(seconds: float) -> dict[str, object]:
    """Packet wait of one byte: up to 1.27 s in steps of 10 ms, else in seconds, up to 127 s."""
    if seconds <= 127 * _TICK_S:
        return {"packet_timeout": {"unit": "10ms", "value": max(1, -int(-seconds // _TICK_S))}}
    return {"packet_timeout": {"unit": "s", "value": min(127, -int(-seconds // 1))}}


def _byte_wait(seconds: float) -> int:
    return max(1, min(255, round(seconds / _TICK_S)))
