"""The messages of schema version 1 as typed structs, their topics and their parsing (documented in docs/mqtt.md).

Every size is bounded; whatever breaks the schema is a PeerError that names the path of the field. `schema.json` beside
this file is generated from the structs (`python -m fuhe.protocols.mqtt.payload`); a test compares them.

    {root}/{device}/readings | events | answer | status      device -> server, QoS 1
    {root}/{device}/command                                  server -> device, QoS 1, never retained, with expiry
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from ..common.errors import PeerError, UsageError

VERSION: Final = 1
MAX_BYTES: Final = 262_144
MAX_COMMAND_BYTES: Final = 2_048
KINDS: Final = ("readings", "events", "command", "answer", "status")

# "$" would let a line feed pass behind the last character, and lines are what signatures are made of
_END: Final = r"(?![\s\S])"
_NAME: Final = r"^[A-Za-z0-9._-]+" + _END
_DEVICE_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

# PostgreSQL keeps no NUL in texts; one event with it must not cost what else is in its record
_TEXT: Final = r"^[^\x00]*" + _END
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BEYOND: Final = datetime(2100, 1, 1, tzinfo=UTC)

Name = Annotated[str, Meta(pattern=_NAME, min_length=1, max_length=64)]
Instant = Annotated[datetime, Meta(tz=True, description="RFC 3339 with a zone, to the microsecond; 1970 to 2099")]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
PointNumber = Annotated[int, Meta(ge=0, le=65_535, description="number of the metering point inside the device")]
Round = Annotated[int, Meta(ge=1, le=64)]
Milliseconds = Annotated[int, Meta(ge=0, le=4_102_444_800_000, description="ms since 1970 UTC")]
Token = Annotated[str, Meta(pattern=r"^[0-9A-Za-z_-]+" + _END, min_length=1, max_length=64)]
Signature = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}" + _END, description="HMAC-SHA256, lower-case hex")]
Action = Literal[
    "trip", "permit_close", "direct_close", "alarm_on", "alarm_off", "protect_on", "protect_off", "read_state"
]


def _check_instants(*instants: datetime | None) -> None:
    """ValueError for a year that only a broken device can mean (and not every part of a store can hold)."""
    for instant in instants:
        if instant is not None and not _FIRST <= instant < _BEYOND:
            raise ValueError(f"instant {instant.isoformat()} is not within the years 1970 to 2099")


class _Message(Struct, frozen=True, kw_only=True):
    v: Literal[1]
    device: Name


class Sample(Struct, frozen=True, kw_only=True):
    """Values of one point at one instant, by quantity name, in the quantity's unit. null = the device has none."""

    time: Instant
    values: Annotated[dict[Name, float | None], Meta(min_length=1, max_length=512)]
    point: PointNumber = 1
    source: Literal["live", "daily", "monthly", "hourly"] = "live"

    def __post_init__(self) -> None:
        _check_instants(self.time)


class CurveSegment(Struct, frozen=True, kw_only=True):
    """Consecutive slots of one quantity: `start` labels the first, `step_s` divides a day, null = missing."""

    quantity: Name
    start: Instant
    step_s: Annotated[int, Meta(ge=60, le=86_400)]
    values: Annotated[list[float | None], Meta(min_length=1, max_length=3_000)]
    point: PointNumber = 1

    def __post_init__(self) -> None:
        _check_instants(self.start)


class Readings(_Message, frozen=True, kw_only=True):
    """What a device publishes on `readings`."""

    samples: Annotated[list[Sample], Meta(max_length=1_024)] = []
    curves: Annotated[list[CurveSegment], Meta(max_length=256)] = []


class Event(Struct, frozen=True, kw_only=True):
    """One event of the device. `data` is flat: texts, numbers, true, false, null."""

    time: Instant
    code: Annotated[str, Meta(pattern=_TEXT, min_length=1, max_length=64)]
    end: Instant | None = None
    point: PointNumber | None = None
    data: Annotated[
        dict[
            Annotated[str, Meta(pattern=_TEXT, max_length=64)],
            Annotated[str, Meta(pattern=_TEXT, max_length=512)] | Int64 | float | bool | None,
        ],
        Meta(max_length=64),
    ] = {}

    def __post_init__(self) -> None:
        _check_instants(self.time, self.end)


class Events(_Message, frozen=True, kw_only=True):
    """What a device publishes on `events`."""

    events: Annotated[list[Event], Meta(min_length=1, max_length=256)]


class Command(_Message, frozen=True, kw_only=True):
    """A signed command. A device refuses it expired (`valid_until_ms`), wrongly signed, or with an `id` it has seen."""

    id: Token
    action: Action
    valid_until_ms: Milliseconds
    nonce: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}" + _END)]
    signature: Signature
    round: Round = 1
    alarm_min: Annotated[int, Meta(ge=0, le=255)] = 0
    limit_half_hours: Annotated[int, Meta(ge=0, le=255)] = 0


class State(Struct, frozen=True, kw_only=True):
    """State of a round's switch as the device sees it. null = it cannot tell."""

    open: bool | None
    command_trip: bool | None = None
    protected: bool | None = None
    alarm: bool | None = None


class Answer(_Message, frozen=True, kw_only=True):
    """The device's signed answer to one command: `id` and `nonce` are the command's. `code` says why it was refused."""

    id: Token
    nonce: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}" + _END)]
    accepted: bool
    time_ms: Milliseconds
    signature: Signature
    code: Annotated[str, Meta(pattern=r"^[a-z0-9_-]*" + _END, max_length=32)] = ""
    state: State | None = None


class Status(_Message, frozen=True, kw_only=True):
    """Presence: published retained when the device comes up, and by the broker (last will) when it vanishes."""

    online: bool
    time: Instant | None = None


MESSAGES: Final = (Readings, Events, Command, Answer, Status)
_Any = TypeVar("_Any")

_readings = msgspec.json.Decoder(Readings)
_events = msgspec.json.Decoder(Events)
_command = msgspec.json.Decoder(Command)
_answer = msgspec.json.Decoder(Answer)
_status = msgspec.json.Decoder(Status)


def _parse(decoder: msgspec.json.Decoder[_Any], data: bytes, limit: int) -> _Any:
    if len(data) > limit:
        raise PeerError(f"message of {len(data)} bytes; at most {limit} are accepted: $")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = str(error) or type(error).__name__
        raise PeerError(text if "`$" in text else f"{text} - at `$`") from error


def parse_readings(data: bytes) -> Readings:
    """A readings message; PeerError names the field that breaks the schema."""
    return _parse(_readings, data, MAX_BYTES)


def parse_events(data: bytes) -> Events:
    """An events message."""
    return _parse(_events, data, MAX_BYTES)


def parse_command(data: bytes) -> Command:
    """A command (device side); its signature is not checked here."""
    return _parse(_command, data, MAX_COMMAND_BYTES)


def parse_answer(data: bytes) -> Answer:
    """A command's answer; its signature is not checked here."""
    return _parse(_answer, data, MAX_COMMAND_BYTES)


def parse_status(data: bytes) -> Status:
    """A status message."""
    return _parse(_status, data, MAX_COMMAND_BYTES)


def encode(message: Readings | Events | Command | Answer | Status) -> bytes:
    """The message as JSON."""
    return msgspec.json.encode(message)


def is_write(data: bytes) -> bool:
    """For the read-only guard: True unless `data` is wholly a command that only reads the state."""
    try:
        return parse_command(data).action != "read_state"
    except PeerError:
        return True


def topic(root: str, device: str, kind: str) -> str:
    """`{root}/{device}/{kind}`; UsageError for a name that a topic cannot carry."""
    if not _DEVICE_NAME.fullmatch(device):
        raise UsageError(f"MQTT device name {device!r}: use letters, digits, dot, dash and underscore, at most 64")
    if kind not in KINDS:
        raise UsageError(f"MQTT topic {kind!r}: use one of {', '.join(KINDS)}")
    return f"{root}/{device}/{kind}"


def subscriptions(root: str) -> tuple[str, ...]:
    """Filters of everything that devices publish."""
    return tuple(f"{root}/+/{kind}" for kind in KINDS if kind != "command")


def split_topic(root: str, name: str) -> tuple[str, str]:
    """(device, kind) of a topic below `root`; PeerError for any other topic."""
    device, _, kind = name.removeprefix(f"{root}/").partition("/")
    if not name.startswith(f"{root}/") or kind not in KINDS or not _DEVICE_NAME.fullmatch(device):
        raise PeerError(f"topic {name[:200]!r} is not {root}/DEVICE/{{{'|'.join(KINDS)}}}")
    return device, kind


def schema_json() -> bytes:
    """The JSON schema of all messages, as it stands in schema.json."""
    _, components = msgspec.json.schema_components(MESSAGES, ref_template="#/$defs/{name}")
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "generated by python -m fuhe.protocols.mqtt.payload; do not edit",
        "title": "Fuhe MQTT payloads",
        "version": VERSION,
        "oneOf": [{"$ref": f"#/$defs/{m.__name__}"} for m in MESSAGES],
        "$defs": components,
    }
    return msgspec.json.format(msgspec.json.encode(whole, order="sorted"), indent=2) + b"\n"


if __name__ == "__main__":
    from pathlib import Path

    Path(__file__).with_name("schema.json").write_bytes(schema_json())
