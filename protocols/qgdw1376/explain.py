"""Frames as plain objects for people and programs: what `fuhe decode` prints and the test vectors compare.

The keys are those of plain.py. A broken frame is {"valid": False, "error": reason}. Secrets (PW, passwords in
parameters) are replaced by `**` unless they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..common.errors import PeerError
from .edition import Edition, of_profile
from .frame import LIMIT, Frame, cut
from .message import Message, parse
from .plain import Plain, plain_message

HIDDEN: Final = "**"
_SECRET_WORDS: Final = ("password", "pwd", "pw_hex")
# where a receiver gave up, the most telling first
_REASONS: Final = (
    "checksum",
    "end_byte",
    "length_mismatch",
    "protocol_id",
    "length",
    "truncated",
    "second_start_byte",
)


def describe(
    data: bytes, version: str | None = None, profile: Mapping[str, object] | None = None, *, secrets: bool = False
) -> Plain:
    """The only frame of `data`, or {"valid": True, "frames": [...]}, or {"valid": False, "error": ...}.

    version: edition (2005, 2009, 2013); profile: what the device does differently, see edition.of_profile. UsageError:
    unknown edition or profile value.
    """
    peer = of_profile(profile, version)
    frames, skipped = cut(data)
    noise = sum(s.count for s in skipped)
    if not frames:
        return {"valid": False, "error": _reason(data)}
    described = [describe_frame(frame, peer, secrets=secrets) for frame in frames]
    answer: Plain = described[0] if len(frames) == 1 else {"valid": True, "frames": described}
    if noise:
        answer["skipped_bytes"] = noise
    return answer


def describe_frame(frame: Frame, peer: Edition, *, secrets: bool = False) -> Plain:
    """One frame as a plain object."""
    try:
        message = parse(frame, peer)
    except PeerError as error:
        return {"valid": False, "error": "application_layer", "detail": str(error)}
    out = plain_message(message, frame, peer)
    if not secrets:
        for part in ("items", "aux"):
            if part in out:
                out[part] = _redacted(out[part])
    return out


def _reason(data: bytes) -> str:
    """Why there is no frame: of all candidates the one that came furthest."""
    found = set()
    start = data.find(0x68)
    while start >= 0:
        candidate = data[start:]
        found.add(_fault(candidate))
        start = data.find(0x68, start + 1)
    return next((r for r in _REASONS if r in found), "no_start_byte")


def _fault(candidate: bytes) -> str:
    if len(candidate) < 6:
        return "short" if len(candidate) < 3 else "truncated"
    if candidate[5] != 0x68:
        return "second_start_byte"
    if candidate[1:3] != candidate[3:5]:
        return "length_mismatch"
    if candidate[1] & 3 not in (1, 2):
        return "protocol_id"
    size = int.from_bytes(candidate[1:3], "little") >> 2
    if not 6 <= size <= LIMIT:
        return "length"
    if len(candidate) < size + 8:
        return "truncated"
    return "checksum" if sum(candidate[6 : 6 + size]) & 0xFF != candidate[6 + size] else "end_byte"


# --- secrets ----------------------------------------------------------------------------------------------------------
def _is_secret(key: object) -> bool:
    return isinstance(key, str) and any(word in key for word in _SECRET_WORDS)


def _relayed_secret(value: Mapping[object, object]) -> tuple[str, str] | None:
    """A relayed meter request with a password in it: its frame and its data, both masked."""
    from ..dlt645.explain import edition
    from ..dlt645.frame import cut as cut_meter
    from ..dlt645.secrets import masked_hex as masked_meter
    from ..dlt645.secrets import secret_places

    raw = value.get("raw_hex")
    if "dlt645" not in value or not isinstance(raw, str):
        return None
    for frame in cut_meter(bytes.fromhex(raw), 255)[0]:
        version = edition(frame, None)
        places = secret_places(frame, version)
        if places:
            data = "".join(HIDDEN if i in places else f"{b:02X}" for i, b in enumerate(frame.data))
            return masked_meter(frame, version), data
    return None


def _redacted(value: object) -> object:
    if isinstance(value, dict):
        out = {k: HIDDEN if v and _is_secret(k) else _redacted(v) for k, v in value.items()}
        masked = _relayed_secret(value)
        if masked is not None:
            out["raw_hex"] = masked[0]
            out["dlt645"] = {**value["dlt645"], "data_minus33_hex": masked[1]}
        return out
    if isinstance(value, list):
        return [_redacted(v) for v in value]
    return value


def _holds_secret(value: object) -> bool:
    if isinstance(value, Mapping):
        inside = any((v and _is_secret(k)) or _holds_secret(v) for k, v in value.items())
        return inside or _relayed_secret(value) is not None
    return isinstance(value, (list, tuple)) and any(_holds_secret(v) for v in value)


def masked_hex(frame: Frame, message: Message | None) -> str:
    """The frame as sent, hex, with `**` for PW and for data units that hold passwords: for logs and audit.

    A message that could not be read is masked from its first data unit on.
    """
    wire = frame.encode(0)
    hidden: range = range(0)
    if message is None or any(_holds_secret(u.data) for u in message.units if u.data):
        hidden = range(14, len(wire) - 1)
    elif message.pw and any(message.pw):
        end = len(wire) - 2 - (6 if message.tp is not None else 0)
        hidden = range(end - len(message.pw), end)
    places = {*hidden, len(wire) - 2} if hidden else set()  # the checksum would give a lone byte away
    return "FE" * frame.lead + "".join(HIDDEN if i in places else f"{b:02X}" for i, b in enumerate(wire))
