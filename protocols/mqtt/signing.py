"""Signatures of commands and answers, and the guard against replays (domain 9.5).

HMAC-SHA256 with the device's key over canonical bytes: one line a field, so that a small device can build them without
a JSON library. The first line names the kind of message, so that an answer can never pass as a command.

    fuhe-command-v1 / device / id / action / round / valid_until_ms / nonce / alarm_min / limit_half_hours
    fuhe-answer-v1 / device / id / nonce / accepted / code / time_ms / open / command_trip / protected / alarm

"/" stands for a line feed here; true and false are 1 and 0, what is null (or a missing state) is "-". No field can
contain a line feed (schema).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

import msgspec

from ..common.errors import PeerError, Refused, UsageError
from .payload import Action, Answer, Command, State, parse_answer

MIN_KEY_BYTES: Final = 16
# A command may not ask to be remembered for longer than this: the replay guard must be able to hold it.
MAX_VALIDITY_MS: Final = 3_600_000
_UNSIGNED: Final = "0" * 64


def key_of(text: str) -> bytes:
    """The device key from base64 (secrets file); UsageError when it is no key of at least 16 bytes."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError("device key is not base64: put the key of the device into the secrets file") from error
    if len(key) < MIN_KEY_BYTES:
        raise UsageError(f"device key has {len(key)} bytes; at least {MIN_KEY_BYTES} are needed")
    return key


def _word(value: object) -> str:
    if value is None:
        return "-"
    return str(int(value)) if isinstance(value, bool) else str(value)


def canonical_command(command: Command) -> bytes:
    """The bytes that a command's signature covers."""
    c = command
    fields = (c.device, c.id, c.action, c.round, c.valid_until_ms, c.nonce, c.alarm_min, c.limit_half_hours)
    return "\n".join(("fuhe-command-v1", *map(_word, fields))).encode()


def canonical_answer(answer: Answer) -> bytes:
    """The bytes that an answer's signature covers."""
    a, s = answer, answer.state
    state = (s.open, s.command_trip, s.protected, s.alarm) if s is not None else (None,) * 4
    fields = (a.device, a.id, a.nonce, a.accepted, a.code, a.time_ms, *state)
    return "\n".join(("fuhe-answer-v1", *map(_word, fields))).encode()


def _mac(key: bytes, data: bytes) -> str:
    return hmac.digest(key, data, "sha256").hex()


def build_command(
    key: bytes,
    *,
    device: str,
    id: str,
    action: Action,
    round: int,
    valid_until_ms: int,
    nonce: str,
    alarm_min: int = 0,
    limit_half_hours: int = 0,
) -> Command:
    """A signed command; UsageError names a field outside the schema. nonce: 32 hex digits, random."""
    fields = {
        "v": 1, "device": device, "id": id, "action": action, "round": round, "valid_until_ms": valid_until_ms,
        "nonce": nonce, "alarm_min": alarm_min, "limit_half_hours": limit_half_hours, "signature": _UNSIGNED,
    }  # fmt: skip
    try:
        draft = msgspec.convert(fields, Command)
    except msgspec.ValidationError as error:
        raise UsageError(f"command cannot be built: {error}") from error
    return msgspec.structs.replace(draft, signature=_mac(key, canonical_command(draft)))


def build_answer(
    key: bytes, command: Command, *, accepted: bool, time_ms: int, code: str = "", state: State | None = None
) -> Answer:
    """The signed answer of a device to `command` (device side; simulator)."""
    draft = Answer(
        v=1, device=command.device, id=command.id, nonce=command.nonce, accepted=accepted, time_ms=time_ms,
        signature=_UNSIGNED, code=code, state=state,
    )  # fmt: skip
    return msgspec.structs.replace(draft, signature=_mac(key, canonical_answer(draft)))


def verify_command(key: bytes, command: Command) -> None:
    """PeerError unless the command is signed with `key`."""
    if not hmac.compare_digest(_mac(key, canonical_command(command)), command.signature):
        raise PeerError("wrong signature - at `$.signature`")


def read_answer(key: bytes, command: Command, data: bytes) -> Answer:
    """The answer to `command` in `data`; PeerError when it is broken, wrongly signed, or answers another command."""
    answer = parse_answer(data)
    for name in ("device", "id", "nonce"):
        if getattr(answer, name) != getattr(command, name):
            raise PeerError(f"answer to another command - at `$.{name}`")
    if not hmac.compare_digest(_mac(key, canonical_answer(answer)), answer.signature):
        raise PeerError("wrong signature - at `$.signature`")
    return answer


def expiry_s(command: Command, now_ms: int) -> int:
    """MQTT 5 message expiry interval: whole seconds left, 0 when the command must not be published any more."""
    return max(0, (command.valid_until_ms - now_ms) // 1000)


class ReplayGuard:
    """Device side: each id once, none after its time. Holds at most `limit` ids; when full it refuses, never forgets.

    Ids are forgotten only after their command has expired, so a replay is caught by one rule or the other.
    """

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        self._until: dict[str, int] = {}

    def admit(self, command: Command, now_ms: int) -> None:
        """Remember the command; Refused with code expired, too-far, repeated or busy."""
        if now_ms >= command.valid_until_ms:
            raise Refused("the command has expired: issue a new one", code="expired")
        if command.valid_until_ms - now_ms > MAX_VALIDITY_MS:
            raise Refused("the command is valid for too long: at most one hour", code="too-far")
        if command.id in self._until:
            raise Refused("a command with this id has been seen: issue a new one", code="repeated")
        if len(self._until) >= self._limit:
            self._until = {i: until for i, until in self._until.items() if until > now_ms}
            if len(self._until) >= self._limit:
                raise Refused("too many commands at once: wait and issue it again", code="busy")
        self._until[command.id] = command.valid_until_ms

    def __len__(self) -> int:
        return len(self._until)
