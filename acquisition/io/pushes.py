"""What MQTT devices send unasked: from a message to a batch, or to an answer that a line waits for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...model.devices import Device
from ...model.readings import ReadingBatch
from ...protocols.common.errors import PeerError
from ...protocols.mqtt.payload import parse_events, parse_readings, parse_status, split_topic
from ..mqtt_batch import events_batch, readings_batch


@dataclass(frozen=True, slots=True)
class Pushed:
    """One message of the device with `address`: readings to store, or bytes for its line (a command's answer)."""

    address: str
    batch: ReadingBatch | None = None
    answer: bytes = b""


class Pushes:
    """The devices of one broker by their name in topics. PeerError for a broken message or an unknown device."""

    def __init__(self) -> None:
        self._devices: dict[str, Device] = {}

    def set_devices(self, devices: Iterable[Device]) -> None:
        """Listen to these devices from now on."""
        self._devices = {device.address: device for device in devices if device.enabled}

    def read(self, root: str, topic: str, payload: bytes, now_us: int) -> Pushed:
        """One message."""
        name, kind = split_topic(root, topic)
        device = self._devices.get(name)
        if device is None:
            raise PeerError(f"device {name} is not in the device list: import it, or stop it from publishing")
        if kind == "answer":  # signed, and checked by the exchange that waits for it
            return Pushed(name, answer=payload)
        point_of = {point.pn: point.id for point in device.measuring}.get
        said, batch = name, None
        if kind == "readings":
            readings = parse_readings(payload)
            said, batch = readings.device, readings_batch(readings, point_of, now_us)
        elif kind == "events":
            events = parse_events(payload)
            said, batch = events.device, events_batch(events, device.id, point_of, now_us)
        elif kind == "status":
            said = parse_status(payload).device
        if said != name:
            raise PeerError(f"the message of {name} says that it is from {said}")
        return Pushed(name, batch)
