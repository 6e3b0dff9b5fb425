"""Configuration of acquisition: the `links:` and `cycles:` sections of config.yaml."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..model.lang import tr
from ..protocols.mqtt.versions import Wanted


class LinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One shared resource: a serial port, a TCP endpoint, a listener, a broker topic tree.

    kind: serial | tcp | listen-tcp | listen-udp | mqtt. `framing` (Modbus only): rtu | tcp.
    serial: port, baud, parity N/E/O, bytesize, stopbits, rs485. tcp: host, port_no.
    mqtt: host, port_no, topic, username, secret, ca_file (TLS), version (auto = 5, or 3.1.1 where the broker knows no
    5), session_expiry_s: how long an MQTT 5 broker keeps readings for us while we are away.
    turnaround_ms: pause between a reply and the next request (two byte times at least; adapters often want 20 to 50 ms,
    good ones take less). margin_ms: added to every computed time-out.
    half_open_s: a socket on which requests stay unanswered and no byte comes for so long is closed and reopened.
    listen-*: a modem says `register_prefix` and a name, and serves the devices whose option `line` is that name;
    `heartbeat` is the text that it sends to keep its connection alive.
    admission_per_s: connections taken in a second, 0 = all at once.

    protocol (listeners): how callers say who they are: text = that registration; qgdw1376 = Q/GDW 376.1 terminals, by
    the address in their first frame. msa: our master station address (1 to 127). login_first: data of a terminal that
    has not logged in are denied. unknown: what terminals that no device list has are answered, deny | silent.
    """

    name: str
    kind: Literal["serial", "tcp", "listen-tcp", "listen-udp", "mqtt"]
    port: str | None = None
    baud: int = 9600
    parity: Literal["N", "E", "O"] = "E"
    bytesize: int = 8
    stopbits: int = 1
    rs485: bool = False
    host: str = "127.0.0.1"
    port_no: int = 0
    framing: Literal["rtu", "tcp"] = "tcp"
    topic: str = "fuhe/v1"
    version: Wanted = "auto"
    session_expiry_s: int = 604_800
    username: str | None = None
    secret: str | None = None
    ca_file: str | None = None
    max_connections: int = 20_000
    admission_per_s: float = 500.0
    idle_timeout_s: float = 900.0
    connect_timeout_s: float = 5.0
    turnaround_ms: float = 20.0
    margin_ms: float = 50.0
    reconnect_min_s: float = 1.0
    reconnect_max_s: float = 60.0
    queue_items: int = 4096
    half_open_s: float = 30.0
    protocol: Literal["text", "qgdw1376"] = "text"
    msa: int = 1
    login_first: bool = False
    unknown: Literal["deny", "silent"] = "silent"
    register_prefix: str = "REG:"
    heartbeat: str = "HB"


def link_faults(link: LinkConfig) -> list[str]:
    """What the types cannot say, as "field: what is wrong"."""
    found = []
    if link.protocol != "text" and not link.kind.startswith("listen"):
        en = "protocol: only a listener asks its callers who they are; leave it out"
        found.append(tr(en, "protocol: 仅用于监听链路, 请删除"))
    if link.admission_per_s < 0:
        found.append(tr("admission_per_s: 0 (all at once) or more", "admission_per_s: 应为 0 (不限) 或更大"))
    if not 1 <= link.msa <= 127:
        found.append(tr("msa: 1 to 127", "msa: 应在 1 至 127 之间"))
    return found


class CycleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Periods of the cycles in seconds; 0 switches a cycle off. Spread: how long a cycle's starts are spread over.

    clock_set: terminals whose clock is 1 to 15 minutes off are set after the daily reading of clocks.
    """

    live_s: int = 900
    curve_s: int = 3600
    event_s: int = 900
    daily_at: str = "00:05"
    monthly_at: str = "00:30"
    clock_at: str = "03:20"
    clock_set: bool = True
    gap_scan_s: int = 600
    spread_s: int = 600
    recall_batch: int = 500
