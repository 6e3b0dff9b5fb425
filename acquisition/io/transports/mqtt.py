"""MQTT broker: readings and events that devices publish, commands and their answers. paho-mqtt in its own thread.

Nothing is lost when we die: a persistent session (MQTT 5: with an expiry), QoS 1, and a message is acknowledged to the
broker only after the journal has fsynced it. Duplicates are normal and harmless (the database's key). The hand-over
queue is bounded: when it is full paho's thread waits and the broker keeps the rest (if that outlasts the keep-alive the
broker drops us and sends again later; on MQTT 5 it sends no more than the queue takes). Commands go out with QoS 1 and
retain=false, through the same read-only guard as every other byte, and only while connected; their expiry is in the
payload and on MQTT 5 in the packet, so that no broker keeps a command that has run out.

Every connection has a client of its own: paho repeats what was not acknowledged when the *same* client connects again,
and a command must never go out twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from random import Random
from typing import cast

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ....model.lang import tr
from ....model.work import LinkCounters, Outcome, Status, WorkItem
from ....protocols.common.errors import FuheError
from ....protocols.mqtt.payload import parse_command, subscriptions, topic
from ....protocols.mqtt.versions import Version, VersionChoice
from ...backoff import Backoff
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
WORDS_OF_VERSION = "Unsupported protocol version"


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


class _Connection:
    """One attempt to connect and what comes of it: a paho client that never connects again by itself.

    Its callbacks run in paho's thread and reach the broker through `call` only.
    """

    def __init__(
        self, config: LinkConfig, version: Version, password: str | None, broker: MqttBroker, call: Callable[..., None]
    ) -> None:
        self.version = version
        self.answered = False  # the broker has said yes or no, and not merely closed
        self.ended = False
        self.wrong_version = False
        self.closing = threading.Event()
        self._config, self._broker, self._call = config, broker, call
        five = version == "5"
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"fuhe-{config.name}",
            clean_session=None if five else False,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(200)
        client.max_queued_messages_set(1000)
        client.connect_timeout = config.connect_timeout_s
        if config.username:
            client.username_pw_set(config.username, password)
        if config.ca_file:
            client.tls_set(ca_certs=config.ca_file)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        self.client = client

    def open(self) -> None:
        """Connect and let paho's thread run (blocks for the connection at most: call it in a thread)."""
        properties = None
        if self.version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = self._config.session_expiry_s
            properties.ReceiveMaximum = HANDOVER
        try:
            self.client.connect(
                self._config.host,
                self._config.port_no or 1883,
                KEEP_ALIVE_S,
                clean_start=False if self.version == "5" else mqtt.MQTT_CLEAN_START_FIRST_ONLY,
                properties=properties,
            )
        except (OSError, ValueError) as error:
            self.answered = True  # nobody there: that says nothing about the version
            self._call(self._broker.gone, self, str(error))
            return
        if self.closing.is_set():  # given up meanwhile: a second connection of our name would push out the next one
            self.cut()
        self.client.loop_start()

    def publish(self, name: str, data: bytes, expiry_s: int) -> None:
        """A command, once: paho forgets it with this connection."""
        properties = None
        if self.version == "5":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = expiry_s
        self.client.publish(name, data, qos=1, retain=False, properties=properties)

    def end(self) -> None:
        """Disconnect in good order and end paho's thread (blocks: call it in a thread)."""
        self.closing.set()
        self.client.disconnect()
        self.client.loop_stop()

    def cut(self) -> None:
        """Close the socket under it: `gone` follows."""
        found = self.client.socket()
        if found is not None:
            with contextlib.suppress(OSError):
                cast(socket.socket, found).shutdown(socket.SHUT_RDWR)

    # -- paho's thread ------------------------------------------------------------------------------------------------

    def _on_connect(
        self,
        client: mqtt.Client,
        userdata: object,
        flags: mqtt.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self.answered = True
        if self.closing.is_set():
            client.disconnect()
            return
        if reason_code.is_failure:
            self.wrong_version = str(reason_code) == WORDS_OF_VERSION
            self._call(self._broker.gone, self, str(reason_code))
            return
        for filter_ in subscriptions(self._config.topic):
            client.subscribe(filter_, qos=1)
        self._call(self._broker.up, self, flags.session_present)

    def _on_subscribe(
        self,
        client: mqtt.Client,
        userdata: object,
        mid: int,
        reason_codes: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        for code in reason_codes:
            if code.is_failure:
                self._call(self._broker.gone, self, tr(f"subscription refused: {code}", f"订阅被拒绝: {code}"))

    def _on_disconnect(
        self,
        client: mqtt.Client,
        userdata: object,
        flags: mqtt.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._call(self._broker.gone, self, str(reason_code))

    def _on_message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        while not self._broker.room.acquire(timeout=HANDOVER_POLL_S):
            if self.closing.is_set():
                return  # not acknowledged: the broker sends it again
        self._call(self._broker.came, message, self)


class MqttBroker:
    """One broker. All methods are called on the event loop's thread; `room` is the bound of the hand-over."""

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
        rng: Random | None = None,
    ) -> None:
        self.config, self.counters = config, LinkCounters()
        self.channels: dict[str, MqttChannel] = {}
        self.connected = False
        self.reason = tr("not connected to the broker yet", "尚未连接到消息服务器")
        self.room = threading.Semaphore(HANDOVER)
        self.version = VersionChoice(config.version)
        self._guard, self._collector, self._clock, self._pushes = guard, collector, clock, pushes
        self._on_up, self._heard, self._password = on_up, heard, password
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._backoff = Backoff(config.reconnect_min_s, config.reconnect_max_s, rng or Random())
        self._connection: _Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._work: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to connect; it goes on until `stop`."""
        self._timer = None
        connection = self._connection = _Connection(self.config, self.version.current, self._password, self, self._call)
        self._in_thread(connection.open)
        self._timer = self._loop.call_later(2 * self.config.connect_timeout_s, self._overdue, connection)

    async def stop(self) -> None:
        """Disconnect and end paho's thread."""
        self._closing = True
        self.connected = False
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            self._connection.closing.set()
            await asyncio.gather(*self._work, return_exceptions=True)
            await asyncio.to_thread(self._connection.end)

    def channel(self, listener: Listener, address: str) -> MqttChannel:
        """The transport of one device's line."""
        return MqttChannel(self, self._guard, listener, address)

    def publish(self, address: str, data: bytes) -> None:
        """A command; never retained, never after its time. Only `MqttChannel.send` calls this, behind the guard."""
        left_ms = parse_command(data).valid_until_ms - self._clock.now_us() // 1000
        if self.connected and self._connection is not None and left_ms > 0:
            self._connection.publish(topic(self.config.topic, address, "command"), data, -(-left_ms // 1000))
            self.counters.tx_bytes += len(data)

    def _in_thread(self, function: Callable[[], None]) -> None:
        task = self._loop.create_task(asyncio.to_thread(function))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        """From paho's thread to ours."""
        if not self._closing and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # closed in between
                self._loop.call_soon_threadsafe(function, *args)

    # -- what a connection tells --------------------------------------------------------------------------------------

    def up(self, connection: _Connection, session_present: bool) -> None:
        """The broker has taken us in."""
        if connection is not self._connection or connection.ended or self._closing:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.version.accepted()
        self._backoff.reset()
        self.connected, self.reason = True, ""
        self.counters.reconnects += 1
        log.info("%s: connected with MQTT %s", self.config.name, connection.version, extra={"session": session_present})
        self._on_up()

    def gone(self, connection: _Connection, reason: str) -> None:
        """The connection has ended, or never came about."""
        if connection is not self._connection or connection.ended or self._closing:
            return
        connection.ended = True
        connection.closing.set()
        was_connected, self.connected = self.connected, False
        self.reason = tr(f"broker: {reason}", f"消息服务器: {reason}")
        refused = not was_connected and (connection.wrong_version or not connection.answered)
        at_once = refused and self.version.refused()
        for channel in tuple(self.channels.values()):
            channel.lost(self.reason)
        self.channels.clear()
        self._in_thread(connection.end)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(0.0 if at_once else self._backoff.next_s(), self.start)

    def _overdue(self, connection: _Connection) -> None:
        """Neither yes nor no: a half-open connection, or a server that is no broker."""
        self._timer = None
        connection.cut()
        self.gone(connection, tr("no answer", "无应答"))

    def came(self, message: mqtt.MQTTMessage, connection: _Connection) -> None:
        """A message of a device."""
        self.counters.rx_bytes += len(message.payload)
        try:
            pushed = self._pushes.read(self.config.topic, message.topic, bytes(message.payload), self._clock.now_us())
        except FuheError as error:  # it will not become better by being sent again
            self.counters.skipped_bytes += len(message.payload)
            self.counters.rejected += 1
            log.warning("%s: message on %s refused: %s", self.config.name, message.topic, error)
            self._acknowledge(message, connection)
            return
        self.counters.replies += 1
        self._heard(pushed.address)
        channel = self.channels.get(pushed.address)
        if pushed.answer and channel is not None:
            channel.came(pushed.answer)

        def stored(item: WorkItem | None, outcome: Outcome) -> None:
            if outcome.status is Status.DONE:
                self._acknowledge(message, connection)
            else:
                self.room.release()  # not stored, so not acknowledged: the broker sends it again after a reconnect

        self._collector.add(None, Outcome(status=Status.DONE, batch=pushed.batch), stored)

    def _acknowledge(self, message: mqtt.MQTTMessage, connection: _Connection) -> None:
        """Only on the connection that brought it: on another the number may mean another message."""
        self.room.release()
        if not connection.ended:
            connection.client.ack(message.mid, message.qos)
