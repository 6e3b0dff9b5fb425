"""MQTT broker: readings and events that devices publish, commands and their answers. paho-mqtt in its own thread.

Nothing is lost when we die: persistent session (clean_session False), QoS 1, and a message is acknowledged to the
broker only after the journal has fsynced it. Duplicates are normal and harmless (the database's key). The hand-over
queue is bounded: when it is full paho's thread waits and the broker keeps the rest (if that outlasts the keep-alive the
broker drops us and sends again later). Commands go out with QoS 1 and retain=false, through the same read-only guard as
every other byte, and only while connected; their expiry is in the payload.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ....model.lang import tr
from ....model.work import LinkCounters, Outcome, Status, WorkItem
from ....protocols.common.errors import FuheError
from ....protocols.mqtt.payload import subscriptions, topic
from ...config import LinkConfig
from ...link import Station
from ..clock import Clock
from ..collector import Collector
from ..pushes import Pushes
from .base import Guard, Listener, Transport

log = logging.getLogger(__name__)

HANDOVER = 500
HANDOVER_POLL_S = 0.2
KEEP_ALIVE_S = 30


class MqttChannel(Transport):
    """The way to one device behind a broker: its line's transport."""

    __slots__ = ("_broker", "address")

    def __init__(self, broker: MqttBroker, guard: Guard, listener: Listener, address: str) -> None:
        super().__init__(guard, listener)
        self._broker, self.address = broker, address

    def open(self) -> None:
        """Open while the broker is connected, else lost at once; the engine opens it again when the broker is back."""
        asyncio.get_running_loop().call_soon(self._report)

    def _report(self) -> None:
        if self._listener is None:
            return
        if not self._broker.connected:
            self._lost(self._broker.reason)
            return
        self._broker.channels[self.address] = self
        self._listener.on_open()

    def close(self) -> None:
        """Hear nothing more."""
        self._listener = None
        if self._broker.channels.get(self.address) is self:
            del self._broker.channels[self.address]

    def came(self, data: bytes) -> None:
        """An answer of the device."""
        if self._listener is not None:
            self._listener.on_bytes(data)

    def lost(self, reason: str) -> None:
        """The broker is gone."""
        self._lost(reason)

    def _write(self, station: Station, data: bytes) -> None:
        self._broker.publish(self.address, data)


class MqttBroker:
    """One broker. Callbacks of paho run in its thread and touch nothing here but `_hand_over` and `_room`."""

    def __init__(
        self,
        config: LinkConfig,
        guard: Guard,
        collector: Collector,
        clock: Clock,
        pushes: Pushes,
        on_up: Callable[[], None],
        heard: Callable[[str], None],
        password: str | None = None,
    ) -> None:
        self.config, self.counters = config, LinkCounters()
        self.channels: dict[str, MqttChannel] = {}
        self.connected = False
        self.reason = tr("not connected to the broker yet", "尚未连接到消息服务器")
        self._guard, self._collector, self._clock, self._pushes = guard, collector, clock, pushes
        self._on_up, self._heard = on_up, heard
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(HANDOVER)
        self._closing = threading.Event()
        self._generation = 0
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"fuhe-{config.name}", clean_session=False, manual_ack=True
        )
        client.max_inflight_messages_set(200)
        client.max_queued_messages_set(1000)
        client.reconnect_delay_set(max(1, round(config.reconnect_min_s)), max(1, round(config.reconnect_max_s)))
        client.connect_timeout = config.connect_timeout_s
        if config.username:
            client.username_pw_set(config.username, password)
        if config.ca_file:
            client.tls_set(ca_certs=config.ca_file)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        self._client = client

    def start(self) -> None:
        """Begin to connect; paho keeps trying."""
        self._client.connect_async(self.config.host, self.config.port_no or 1883, keepalive=KEEP_ALIVE_S)
        self._client.loop_start()

    async def stop(self) -> None:
        """Disconnect and end paho's thread."""
        self._closing.set()
        self.connected = False
        await asyncio.to_thread(self._end)

    def channel(self, listener: Listener, address: str) -> MqttChannel:
        """The transport of one device's line."""
        return MqttChannel(self, self._guard, listener, address)

    def publish(self, address: str, data: bytes) -> None:
        """A command; never retained. Only `MqttChannel.send` calls this, behind the guard."""
        if self.connected:
            self._client.publish(topic(self.config.topic, address, "command"), data, qos=1, retain=False)
            self.counters.tx_bytes += len(data)

    def _end(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    # -- paho's thread ------------------------------------------------------------------------------------------------

    def _on_connect(
        self,
        client: mqtt.Client,
        userdata: object,
        flags: mqtt.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason_code.is_failure:
            self._call(self._changed, False, str(reason_code))
            return
        client.subscribe([(filter_, 1) for filter_ in subscriptions(self.config.topic)])
        self._generation += 1
        self._call(self._changed, True, "")

    def _on_disconnect(
        self,
        client: mqtt.Client,
        userdata: object,
        flags: mqtt.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._call(self._changed, False, tr(f"broker: {reason_code}", f"消息服务器: {reason_code}"))

    def _on_message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        while not self._room.acquire(timeout=HANDOVER_POLL_S):
            if self._closing.is_set():
                return  # not acknowledged: the broker sends it again
        self._call(self._came, message, self._generation)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        if not self._closing.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *args)

    # -- the event loop's thread --------------------------------------------------------------------------------------

    def _changed(self, connected: bool, reason: str) -> None:
        self.connected, self.reason = connected, reason
        if connected:
            self.counters.reconnects += 1
            self._on_up()
            return
        for channel in tuple(self.channels.values()):
            channel.lost(reason)
        self.channels.clear()

    def _came(self, message: mqtt.MQTTMessage, generation: int) -> None:
        self.counters.rx_bytes += len(message.payload)
        try:
            pushed = self._pushes.read(self.config.topic, message.topic, bytes(message.payload), self._clock.now_us())
        except FuheError as error:  # it will not become better by being sent again
            self.counters.skipped_bytes += len(message.payload)
            self.counters.rejected += 1
            log.warning("%s: message on %s refused: %s", self.config.name, message.topic, error)
            self._acknowledge(message, generation)
            return
        self.counters.replies += 1
        self._heard(pushed.address)
        channel = self.channels.get(pushed.address)
        if pushed.answer and channel is not None:
            channel.came(pushed.answer)

        def stored(item: WorkItem | None, outcome: Outcome) -> None:
            if outcome.status is Status.DONE:
                self._acknowledge(message, generation)
            else:
                self._room.release()  # not stored, so not acknowledged: the broker sends it again after a reconnect

        self._collector.add(None, Outcome(status=Status.DONE, batch=pushed.batch), stored)

    def _acknowledge(self, message: mqtt.MQTTMessage, generation: int) -> None:
        """Only on the connection that brought it: after a reconnect the number may mean another message."""
        self._room.release()
        if generation == self._generation:
            self._client.ack(message.mid, message.qos)
