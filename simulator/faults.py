"""Faults by script and seed: what goes wrong, on which device or bus, from when to when, how often.

A fault never changes the physics behind the meter, only what the meter tells, except those of group "plant". Each rule
draws from its own generator (seed, target, place in the script), so that a run with the same requests is repeated
byte for byte. KINDS is the reference of every kind and of what its `value` means.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

Group = Literal["presence", "wire", "content", "clock", "memory", "command", "plant", "bus"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault. `value`: meaning and default of Fault.value (None = it takes none)."""

    group: Group
    text: str
    value: float | None = None


KINDS: Final[dict[str, Kind]] = {
    "silent": Kind("presence", "no answer"),
    "slow": Kind("presence", "every answer `value` seconds later", 0.3),
    "late": Kind("presence", "the answer comes after the time-out, `value` seconds late", 2.0),
    "restart": Kind(
        "memory",
        "the communication side is down until the end; the meter records on, then (MQTT) the backlog is published",
    ),
    "power_off": Kind("memory", "a terminal is without supply until the end: nothing is recorded, then it starts anew"),
    "noise_before": Kind("wire", "`value` random bytes before the frame", 5),
    "noise_after": Kind("wire", "`value` random bytes after the frame", 5),
    "bit_flip": Kind("wire", "`value` bits of the frame inverted", 1),
    "truncate": Kind("wire", "the last `value` bytes are lost", 3),
    "lost_byte": Kind("wire", "one byte inside is lost"),
    "duplicate": Kind("wire", "the frame comes twice"),
    "echo": Kind("wire", "the request comes back before the answer"),
    "wrong_address": Kind("wire", "answers in the name of another device"),
    "address_aa": Kind("wire", "DL/T 645: the answer carries the wildcard address"),
    "fill_ff": Kind("content", "values are FF bytes (not fitted)"),
    "fill_ee": Kind("content", "values are EE bytes (no data)"),
    "not_bcd": Kind("content", "a nibble of a value is no decimal digit"),
    "refuse_read": Kind("content", "reads are answered with `no such data`"),
    "clock_offset": Kind("clock", "at the start the device's clock jumps by `value` seconds", 600),
    "clock_drift": Kind("clock", "from the start the clock gains `value` seconds a day", 60),
    "exchange": Kind("memory", "at the start another meter is fitted: register `value`, empty memory", 0),
    "event": Kind(
        "memory",
        "at the start the event named by `match` (cover_open, power_down, voltage_loss_a, …) begins; it lasts until "
        "the fault's end, without one `value` minutes",
        1.0,
    ),
    "refuse": Kind("command", "commands are refused"),
    "ignored": Kind("command", "terminals: a command or setting is acknowledged and not carried out"),
    "broken_relay": Kind("command", "a command is acknowledged and nothing moves"),
    "stuck_contact": Kind("command", "the relay reports open, the contacts are welded and the load stays"),
    "no_ack": Kind("command", "a command is carried out and not acknowledged"),
    "human_refuses": Kind("command", "after permit-to-close nobody presses the button"),
    "reclose": Kind("plant", "at the start every open round is closed by hand, without permission"),
    "rebound": Kind("plant", "`value` of what a round loses appears elsewhere on the site", 0.3),
    "half_open": Kind("bus", "the line stays up and nothing comes any more"),
    "unplugged": Kind("bus", "the line is cut: connections are reset, new ones refused"),
}
AT_START: Final = frozenset({"clock_offset", "clock_drift", "exchange", "event", "reclose"})


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of the script. `target`: names of devices or buses; times in seconds of the simulation from its start.

    probability: of each chance to act; count: how often it acts at most; match: only requests whose item begins so
    (DI hex, register address, or `event` name).
    """

    kind: str
    target: tuple[str, ...]
    start_s: float = 0.0
    end_s: float | None = None
    probability: float = 1.0
    count: int | None = None
    match: str = ""
    value: float | None = None

    @property
    def amount(self) -> float:
        """`value`, or the kind's own."""
        default = KINDS[self.kind].value
        return self.value if self.value is not None else (default if default is not None else 0.0)


@dataclass(slots=True)
class Rule:
    """A fault armed on one target."""

    fault: Fault
    begin_us: int
    end_us: int | None
    random: random.Random
    left: int | None
    started: bool = False
    fired: int = 0

    def in_force(self, now_us: int) -> bool:
        """Inside its window and not used up."""
        return self.begin_us <= now_us and (self.end_us is None or now_us < self.end_us) and self.left != 0


@dataclass(slots=True)
class FaultSet:
    """All rules of one target (device or bus)."""

    target: str
    seed: int
    rules: list[Rule] = field(default_factory=list)

    def add(self, fault: Fault, start_us: int) -> None:
        """Arm a fault; its times count from `start_us`."""
        number = len(self.rules)
        end = None if fault.end_s is None else start_us + int(fault.end_s * 1e6)
        generator = random.Random(f"{self.seed}/{self.target}/{number}/{fault.kind}")
        self.rules.append(Rule(fault, start_us + int(fault.start_s * 1e6), end, generator, fault.count))

    def clear(self, kind: str | None, now_us: int) -> int:
        """End every rule of a kind (None: of all kinds) that is in force or to come; how many."""
        ended = 0
        for rule in self.rules:
            if (kind is None or rule.fault.kind == kind) and (rule.end_us is None or rule.end_us > now_us):
                rule.end_us, ended = now_us, ended + 1
        return ended

    def fires(self, kind: str, now_us: int, item: str = "") -> Rule | None:
        """The first rule of the kind that acts on this occasion; draws its chance and uses up its count."""
        for rule in self.rules:
            if rule.fault.kind == kind and rule.in_force(now_us) and item.startswith(rule.fault.match):
                if rule.fault.probability < 1.0 and rule.random.random() >= rule.fault.probability:
                    continue
                if rule.left is not None:
                    rule.left -= 1
                rule.fired += 1
                return rule
        return None

    def active(self, kind: str, now_us: int) -> Rule | None:
        """A rule of the kind in force now, without drawing: for states rather than occasions."""
        return next((r for r in self.rules if r.fault.kind == kind and r.in_force(now_us)), None)

    def due(self, now_us: int) -> list[Rule]:
        """Rules that act once at their start and whose start has come; each is handed out once."""
        ready = [r for r in self.rules if not r.started and r.fault.kind in AT_START and r.begin_us <= now_us]
        for rule in ready:
            rule.started = True
        return sorted(ready, key=lambda r: r.begin_us)

    def windows(self, kind: str) -> list[tuple[int, int | None]]:
        """[begin, end) of every rule of a kind."""
        return [(r.begin_us, r.end_us) for r in self.rules if r.fault.kind == kind]


def spoil(faults: FaultSet, request: bytes, reply: bytes, now_us: int, item: str) -> bytes:
    """The reply as it looks on the wire after the faults of group "wire" that know no protocol."""
    if not faults.rules:
        return reply
    data = bytearray(reply)
    if (rule := faults.fires("bit_flip", now_us, item)) and data:
        for _ in range(int(rule.fault.amount)):
            place = rule.random.randrange(len(data) * 8)
            data[place // 8] ^= 1 << place % 8
    if (rule := faults.fires("lost_byte", now_us, item)) and data:
        del data[rule.random.randrange(len(data))]
    if rule := faults.fires("truncate", now_us, item):
        del data[max(len(data) - int(rule.fault.amount), 0) :]
    if faults.fires("duplicate", now_us, item):
        data += bytes(data)
    if rule := faults.fires("noise_before", now_us, item):
        data[:0] = rule.random.randbytes(int(rule.fault.amount))
    if rule := faults.fires("noise_after", now_us, item):
        data += rule.random.randbytes(int(rule.fault.amount))
    if faults.fires("echo", now_us, item):
        data[:0] = request
    return bytes(data)


def delay(faults: FaultSet, now_us: int, item: str) -> float:
    """Seconds that faults add before the reply."""
    total = 0.0
    for kind in ("slow", "late"):
        if rule := faults.fires(kind, now_us, item):
            total += rule.fault.amount
    return total
