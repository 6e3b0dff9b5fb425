"""MQTT devices: they publish live values, stored curves, daily freezes and events, and take signed commands.

What a device has not yet published is its backlog: the curves of the past days at the start, everything it missed
while it was away later. paho runs a thread a device; everything else happens in the event loop. A device speaks MQTT 5
or 3.1.1, by itself whatever the broker takes (`version: auto`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from ..model.times import BUSINESS_ZONE, SLOT_15MIN_US, US, from_us
from ..protocols.common.errors import PeerError, Refused, UsageError
from ..protocols.mqtt.payload import (
    Command,
    CurveSegment,
    Event,
    Events,
    Readings,
    Sample,
    State,
    Status,
    encode,
    parse_command,
    topic,
)  # fmt: skip
from ..protocols.mqtt.signing import ReplayGuard, build_answer, key_of, verify_command
from ..protocols.mqtt.versions import VersionChoice, Wanted
from .clock import Clock, midnight
from .faults import FaultSet, spoil
from .load import LOCAL_US
from .meter import SimMeter
from .observer import Observer
from .transports import Bus
from .wire import Line, Reply

LIVE: Final = (
    "active_power_total", "reactive_power_total", "voltage_a", "voltage_b", "voltage_c", "current_a", "current_b",
    "current_c", "power_factor_total", "frequency", "forward_active_total", "reverse_active_total",
)  # fmt: skip
CURVES: Final = (
    "active_power_total", "reactive_power_total", "voltage_a", "voltage_b", "voltage_c", "current_a", "current_b",
    "current_c", "power_factor_total", "forward_active_total", "reverse_active_total",
)  # fmt: skip
DAILY: Final = ("forward_active_total", "reverse_active_total", "reactive_q1_total", "reactive_q4_total")
SLOTS_A_MESSAGE: Final = 96
KEEPALIVE_S: Final = 30
RETRY_S: Final = 1.0
ANSWER_S: Final = 5.0  # for the broker's yes or no
CLEAN_3: Final = paho.MQTT_CLEAN_START_FIRST_ONLY  # what paho wants to hear with 3.1.1


class _NoLine:
    def session(self) -> _NoLine:
        return self

    def receive(self, data: bytes, now_us: int) -> list[Reply]:
        """A broker bus has no byte line."""
        return []


class MqttDevice:
    """One publisher. publish_s: period of the live values."""

    def __init__(self, bus: MqttBus, meter: SimMeter, publish_s: float) -> None:
        self.meter = meter
        self.publish_s = publish_s
        self._bus = bus
        self._client: paho.Client | None = None
        self._version = VersionChoice(bus.version)
        self._answered = False  # the broker has said yes or no
        self._waiting = False  # between two attempts
        self._guard = ReplayGuard()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connected = False
        self._next_live_us = 0
        self._curve_to_us = 0
        self._daily_to_us = 0
        self._events_told = 0

    # --- connection -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect, with one client a connection; a last will tells the broker's clients when it vanishes."""
        self._loop = asyncio.get_running_loop()
        five = self._version.current == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"sim-{self.meter.address}",
            clean_session=None if five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.will_set(self._topic("status"), encode(Status(v=1, device=self.meter.address, online=False)), 1, True)
        client.max_queued_messages_set(10_000)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        self._client, self._answered = client, False
        client.connect_async(self._bus.host, self._bus.port, KEEPALIVE_S, clean_start=five or CLEAN_3)
        client.loop_start()
        self._loop.call_later(ANSWER_S, self._overdue, client)

    def _overdue(self, client: paho.Client) -> None:
        """A broker that does not understand the version may just say nothing."""
        if client is self._client and not self._answered:
            self._down(client, False)

    def stop(self) -> None:
        """Disconnect in good order."""
        client, self._client = self._client, None
        self._connected = False
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _in_loop(self, function: Any, *arguments: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _on_connect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._in_loop(self._down, client, str(reason) != "Unsupported protocol version")
            return
        client.subscribe(self._topic("command"), qos=1)
        self._in_loop(self._up, client)

    def _on_connect_fail(self, client: paho.Client, userdata: Any) -> None:
        self._in_loop(self._down, client, True)  # nobody there: that says nothing about the version

    def _on_disconnect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._in_loop(self._down, client, self._answered)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        if not message.retain:  # a command kept by the broker would act at some later time: never obeyed
            self._in_loop(self._command, bytes(message.payload))

    def _up(self, client: paho.Client) -> None:
        if client is not self._client:
            return
        self._connected = self._answered = True
        self._version.accepted()
        now = from_us(self._bus.clock.now_us())
        self._publish("status", encode(Status(v=1, device=self.meter.address, online=True, time=now)), retain=True)

    def _down(self, client: paho.Client, answered: bool) -> None:
        """The connection has ended: the next one after a pause, or at once in the other version."""
        if client is not self._client:
            return
        self._client, self._connected = None, False
        at_once = not answered and self._version.refused()
        assert self._loop is not None
        self._loop.run_in_executor(None, client.loop_stop)
        self._waiting = True
        self._loop.call_later(0.0 if at_once else RETRY_S, self._again)

    def _again(self) -> None:
        """The pause is over; whether the device is there at all is seen at the next look."""
        self._waiting = False
        if self._bus.running:
            self.tick(self._bus.clock.now_us())

    def _topic(self, kind: str) -> str:
        return topic(self._bus.topic, self.meter.address, kind)

    def _publish(self, kind: str, payload: bytes, *, retain: bool = False) -> None:
        if self._client is None:
            return
        now = self._bus.clock.now_us()
        wire = payload
        if kind != "status":
            if self.meter.silent(now, kind):
                return
            wire = spoil(self.meter.faults, b"", payload, now, kind)
        self._bus.observer.see(now, self._bus.name, "out", self.meter.name, wire)
        self._client.publish(self._topic(kind), wire, qos=1, retain=retain)

    # --- publishing -------------------------------------------------------------------------------------------

    def tick(self, now_us: int) -> None:
        """Publish what is due."""
        away = bool(self.meter.faults.active("restart", now_us)) or self._bus.cut(now_us)
        if away and self._client is not None:
            self.stop()
        elif not away and self._client is None and not self._waiting:
            self.start()
        if away or not self._connected:
            return
        self.backlog(now_us)
        if now_us >= self._next_live_us:
            self._next_live_us = now_us + int(self.publish_s * US)
            self._publish_live(now_us)
        self._publish_events()

    def forget_published(self) -> None:
        """Publish the whole memory again at the next occasion (a master that came late asks for it)."""
        self._curve_to_us = self._daily_to_us = self._events_told = 0

    def backlog(self, now_us: int) -> None:
        """Curves and daily freezes that the memory holds and that were not published yet."""
        oldest = max(
            now_us - int(self.meter.retention_days * 86_400 * US), self.meter.memory_since_us, self.meter.site.origin_us
        )
        shown = self.meter.clock.shown_us(now_us)
        last = shown - (shown + LOCAL_US) % SLOT_15MIN_US
        first = max(self._curve_to_us + SLOT_15MIN_US, -(-oldest // SLOT_15MIN_US) * SLOT_15MIN_US)
        for start in range(first, last + 1, SLOTS_A_MESSAGE * SLOT_15MIN_US):
            end = min(start + (SLOTS_A_MESSAGE - 1) * SLOT_15MIN_US, last)
            labels = np.arange(start, end + 1, SLOT_15MIN_US)
            segments = [self._segment(name, labels, now_us) for name in CURVES]
            self._publish("readings", encode(Readings(v=1, device=self.meter.address, curves=segments)))
        self._curve_to_us = max(self._curve_to_us, last)
        self._publish_daily(now_us, oldest)

    def _segment(self, name: str, labels: np.ndarray[Any, np.dtype[np.int64]], now_us: int) -> CurveSegment:
        times = labels - self.meter.clock.offset_us(now_us)
        values = self._numbers(self.meter.curve(name, times)[0], now_us)
        start = from_us(int(labels[0])).astimezone(BUSINESS_ZONE)
        return CurveSegment(quantity=name, start=start, step_s=900, values=values)

    def _numbers(
        self, values: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]], now_us: int
    ) -> list[float | None]:
        if self.meter.faults.active("fill_ff", now_us) or self.meter.faults.active("fill_ee", now_us):
            return [None] * len(values)
        return [None if math.isnan(v) else round(float(v), 5) for v in values]

    def _publish_daily(self, now_us: int, oldest_us: int) -> None:
        samples = []
        local = self.meter.clock.local(now_us)
        for back in range(int(self.meter.retention_days) + 1):
            at = self.meter.clock.true_us(midnight(local, back))
            if at is None or at <= self._daily_to_us or at < oldest_us:
                break
            samples.append(self._sample(at, DAILY, "daily"))
        if samples:
            self._publish("readings", encode(Readings(v=1, device=self.meter.address, samples=samples[::-1])))
        newest = self.meter.clock.true_us(midnight(local))
        self._daily_to_us = max(self._daily_to_us, newest or 0)

    def _sample(self, at_us: int, names: Sequence[str], source: Any) -> Sample:
        numbers = self._numbers([self.meter.value(name, at_us) for name in names], at_us)
        time = from_us(self.meter.clock.shown_us(at_us)).astimezone(BUSINESS_ZONE)
        return Sample(time=time, values=dict(zip(names, numbers, strict=True)), source=source)

    def _publish_live(self, now_us: int) -> None:
        sample = self._sample(now_us, LIVE, "live")
        self._publish("readings", encode(Readings(v=1, device=self.meter.address, samples=[sample])))

    def _publish_events(self) -> None:
        fresh = [e for e in self.meter.events if e.start_us > self._events_told]
        if not fresh:
            return
        events = [
            Event(
                time=from_us(self.meter.clock.shown_us(e.start_us)).astimezone(BUSINESS_ZONE),
                code=e.kind,
                data={"round": e.detail[0]} if e.kind in ("trip", "close") and e.detail else {},
            )
            for e in fresh
        ]
        self._publish("events", encode(Events(v=1, device=self.meter.address, events=events)))
        self._events_told = max(e.start_us for e in fresh)

    # --- commands ---------------------------------------------------------------------------------------------

    def _command(self, payload: bytes) -> None:
        """Signature, time and replay first; whatever is not proven ours is not even answered."""
        now = self._bus.clock.now_us()
        self._bus.observer.see(now, self._bus.name, "in", self.meter.name, payload)
        if self.meter.silent(now, "command"):
            return
        try:
            key = key_of(self.meter.key)
            command = parse_command(payload)
            verify_command(key, command)
        except (PeerError, UsageError):
            return
        if command.device != self.meter.address:
            return
        self.meter.advance(now)
        code = ""
        try:
            self._guard.admit(command, self.meter.clock.shown_us(now) // 1000)
            self._act(command, now)
        except Refused as refusal:
            code = refusal.code
        if self.meter.faults.fires("no_ack", now):
            return
        state = self._state(command.round)
        time_ms = self.meter.clock.shown_us(now) // 1000
        answer = build_answer(key, command, accepted=not code, time_ms=time_ms, code=code, state=state)
        self._publish("answer", encode(answer))

    def _act(self, command: Command, now_us: int) -> None:
        meter = self.meter
        if command.action == "read_state":
            return
        if meter.faults.fires("refuse", now_us):
            raise Refused("refused by script", code="refused")
        if command.action in ("protect_on", "protect_off"):
            meter.protected = command.action == "protect_on"
            for relay in meter.relays:
                if meter.protected and (relay.contact_open or relay.commanded):
                    relay.permit_close(now_us)
            return
        if not 1 <= command.round <= len(meter.relays):
            raise Refused("no such round", code="no-round")
        relay = meter.relays[command.round - 1]
        if command.action == "trip":
            if meter.keep_supply:
                raise Refused("supply is kept", code="protected")
            limit = command.limit_half_hours * 1800.0 or None
            relay.alarm = command.alarm_min > 0
            relay.trip(now_us, after_s=command.alarm_min * 60.0, permit_s=limit)
        elif command.action == "permit_close":
            relay.permit_close(now_us)
        elif command.action == "direct_close":
            relay.direct_close(now_us)
        else:
            relay.alarm = command.action == "alarm_on"

    def _state(self, number: int) -> State | None:
        if not 1 <= number <= len(self.meter.relays):
            return None
        relay = self.meter.relays[number - 1]
        return State(
            open=relay.contact_open, command_trip=relay.commanded, protected=self.meter.keep_supply, alarm=relay.alarm
        )


class MqttBus(Bus):
    """All MQTT devices of one broker."""

    def __init__(
        self, name: str, devices: Sequence[tuple[SimMeter, float]], clock: Clock, observer: Observer, faults: FaultSet,
        host: str, port: int, topic: str, version: Wanted = "auto",
    ) -> None:  # fmt: skip
        line: Line = _NoLine()
        super().__init__(name, line, clock, observer, faults)
        self.host, self.port, self.topic, self.version = host, port, topic, version
        self.devices = {meter.name: MqttDevice(self, meter, period) for meter, period in devices}
        self.running = False

    @property
    def endpoint(self) -> str:
        return f"mqtt://{self.host}:{self.port}/{self.topic}"

    def cut(self, now_us: int) -> bool:
        """Unplugged or half-open: for a publisher both mean that nothing gets through."""
        return bool(self.faults.active("unplugged", now_us) or self.faults.active("half_open", now_us))

    async def start(self) -> None:
        self.running = True
        self.tick(self.clock.now_us())

    async def stop(self) -> None:
        self.running = False
        loop = asyncio.get_running_loop()
        for device in self.devices.values():
            await loop.run_in_executor(None, device.stop)

    def tick(self, now_us: int) -> None:
        if self.running:
            for device in self.devices.values():
                device.tick(now_us)
