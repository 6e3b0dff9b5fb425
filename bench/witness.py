"""Outside witnesses of the kill drill: what was acknowledged, seen from where the daemon cannot colour it.

JournalWitness reads the journal's segments after each kill, before anybody repairs them; Tap sits between the daemon
and the broker and notes which messages the daemon acknowledged; Numbers publishes readings that carry their own number.
None of them uses the daemon's writer or its idea of what was stored.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from fuhe.protocols.mqtt.payload import Readings, Sample, encode, topic
from fuhe.storage.batches import decode_record
from fuhe.storage.segments import Good, numbers_in, path_of, records

SampleKey = tuple[int, int, int, int]
"""point, quantity, time µs, source"""
SlotKey = tuple[int, int, int]
"""point, quantity, label µs"""


class JournalWitness:
    """Everything that was ever whole in the journal, in order; the first value of a key is the one that counts."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._place: dict[int, int] = {}  # segment -> bytes read
        self.samples: dict[SampleKey, float] = {}
        self.slots: dict[SlotKey, float] = {}
        self.repeated = self.conflicts = self.torn_bytes = 0
        self._ends: list[tuple[int, int]] = []

    def look(self) -> int:
        """Read what is new; returns the number of new records. Only while no daemon runs."""
        fresh = 0
        numbers = numbers_in(self._directory)
        seen = max(self._place, default=0)
        if numbers and numbers[0] > seen + 1:
            raise AssertionError(f"segments {seen + 1} to {numbers[0] - 1} came and went between two looks")
        for number in numbers:
            data = path_of(self._directory, number).read_bytes()
            at = self._place.setdefault(number, 0)
            for item in records(data, at):
                if isinstance(item, Good):
                    self._take(item.payload)
                    self._place[number] = item.end
                    self._ends.append((number, item.end))
                    fresh += 1
                elif item.tail:
                    self.torn_bytes += item.end - item.start
                else:
                    raise AssertionError(f"{item.end - item.start} damaged bytes inside segment {number}")
        return fresh

    @property
    def records(self) -> int:
        """Records seen whole."""
        return len(self._ends)

    def behind(self, position: tuple[int, int]) -> int:
        """Records that lie behind a position (segment, byte): not in the database yet."""
        return sum(end > position for end in self._ends)

    def _take(self, payload: bytes) -> None:
        record = decode_record(payload)
        s = record.samples
        keys = zip(s.point.tolist(), s.quantity.tolist(), s.time_us.tolist(), s.source.tolist(), strict=True)
        for key, value in zip(keys, s.value.tolist(), strict=True):
            if np.isfinite(value):
                self.repeated += self.samples.setdefault(key, value) is not value
        for _, block in record.curves:
            for row, (point, quantity) in enumerate(zip(block.point.tolist(), block.quantity.tolist(), strict=True)):
                start, step_us = int(block.start_us[row]), block.step_s * 1_000_000
                for i, value in enumerate(block.value[row].tolist()):
                    if np.isfinite(value):
                        held = self.slots.setdefault((point, quantity, start + i * step_us), value)
                        self.conflicts += held != value


# --- MQTT -------------------------------------------------------------------------------------------------------------


def packets(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Whole MQTT control packets (first byte, body), taken from the front of the buffer."""
    while len(buffer) >= 2:
        length = shift = 0
        at = 1
        while at < len(buffer) and at <= 4:
            length |= (buffer[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not buffer[at - 1] & 0x80:
                break
        else:
            return
        if len(buffer) < at + length:
            return
        yield buffer[0], bytes(buffer[at : at + length])
        del buffer[: at + length]


@dataclass(slots=True)
class _Side:
    """One direction of one connection."""

    source: socket.socket
    target: socket.socket
    buffer: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class _Talk:
    """One connection: protocol level of its CONNECT (4: 3.1.1, 5), and messages that are not acknowledged yet."""

    level: int = 4
    flying: dict[int, tuple[str, bytes]] = field(default_factory=dict)


def _behind_properties(body: bytes, at: int) -> int:
    """Where the payload begins behind the properties of MQTT 5 at `at` (their length is a variable byte integer)."""
    length = shift = 0
    while True:
        length |= (body[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not body[at - 1] & 0x80:
            return at + length


class Tap:
    """A wire-tap on the daemon's connection to the broker: (topic, payload) of every message that it acknowledged."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.acknowledged: list[tuple[str, bytes]] = []
        self.delivered = self.connections = self.subscribed = 0
        threading.Thread(target=self._accept, name="tap", daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                daemon, _ = self._server.accept()
                broker = socket.create_connection(("127.0.0.1", self._broker_port))
            except OSError:
                return
            self.connections += 1
            talk = _Talk()
            for side, note in ((_Side(broker, daemon), self._from_broker), (_Side(daemon, broker), self._from_daemon)):
                threading.Thread(target=self._pump, args=(side, note, talk), daemon=True).start()

    @staticmethod
    def _pump(side: _Side, note: object, talk: _Talk) -> None:
        try:
            while data := side.source.recv(65_536):
                side.buffer += data
                for first, body in packets(side.buffer):
                    note(first, body, talk)  # type: ignore[operator]
                side.target.sendall(data)
        except OSError:
            pass  # a killed daemon resets its connection
        for end in (side.source, side.target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
            finally:
                end.close()

    def _from_broker(self, first: int, body: bytes, talk: _Talk) -> None:
        self.subscribed += first >> 4 == 9
        if first >> 4 != 3 or not first & 0x06:
            return
        end = 2 + int.from_bytes(body[:2], "big")
        self.delivered += 1
        payload = end + 2 if talk.level < 5 else _behind_properties(body, end + 2)
        talk.flying[int.from_bytes(body[end : end + 2], "big")] = (body[2:end].decode(), body[payload:])

    def _from_daemon(self, first: int, body: bytes, talk: _Talk) -> None:
        if first >> 4 == 1:
            talk.level = body[2 + int.from_bytes(body[:2], "big")]
        elif first >> 4 == 4 and (len(body) < 3 or body[2] < 0x80):  # MQTT 5 may say that it did not take it
            message = talk.flying.pop(int.from_bytes(body[:2], "big"), None)
            if message is not None:
                self.acknowledged.append(message)


class Numbers:
    """A device that publishes the readings 1, 2, 3 … at its own instants, and knows which the broker has taken."""

    def __init__(self, port: int, address: str, root: str = "fuhe/v1", every_s: float = 0.05) -> None:
        self._topic, self._address, self._every_s = topic(root, address, "readings"), address, every_s
        self._stop = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="soak-numbers")
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self.published = 0
        self._thread = threading.Thread(target=self._run, name="numbers", daemon=True)

    def start(self) -> None:
        """From now on the broker keeps them for the daemon's session."""
        self._thread.start()

    def stop(self) -> None:
        """Publish no more; the last one is with the broker when this returns."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(30)
        self._client.disconnect()
        self._client.loop_stop()

    def _run(self) -> None:
        last_us = 0
        while not self._stop.wait(self._every_s):
            last_us = max(time.time_ns() // 1000, last_us + 1)
            number = float(self.published + 1)
            at = datetime.fromtimestamp(last_us // 1_000_000, UTC).replace(microsecond=last_us % 1_000_000)
            sample = Sample(time=at, values={"active_power_total": number, "voltage_a": number})
            payload = encode(Readings(v=1, device=self._address, samples=[sample]))
            self._client.publish(self._topic, payload, qos=1).wait_for_publish(30)
            self.published += 1
