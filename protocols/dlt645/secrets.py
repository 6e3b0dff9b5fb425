"""Where the secrets of DL/T 645 requests stand, and frames without them: for explanations, logs and audit."""

from __future__ import annotations

from .frame import Frame


def secret_places(frame: Frame, version: str = "2007") -> range:
    """Positions in DATA of a request that hold passwords (or keys): never shown, never logged."""
    function, size = frame.function, len(frame.data)
    if frame.from_meter:
        return range(size) if function in ((0x0F,) if version == "1997" else (0x18,)) else range(0)
    if version == "1997":
        places = {0x04: range(2, 6), 0x0F: range(size), 0x10: range(size)}
        return places.get(function, range(0))
    if function == 0x14 and frame.data[1:4] == b"\x0c\x00\x04":
        return range(4, size)  # a password is written
    if function == 0x14:
        return range(4, 8)
    if function in (0x19, 0x1A, 0x1B, 0x1C):
        return range(4)
    return range(size) if function in (0x18, 0x03) else range(0)


def masked_hex(frame: Frame, version: str = "2007") -> str:
    """The frame as sent, hex, with `**` for every secret byte: for logs and audit."""
    wire = frame.encode(0)
    hidden = {10 + i for i in secret_places(frame, version) if i < len(frame.data)}
    if hidden:  # the checksum would give a lone byte away
        hidden.add(len(wire) - 2)
    return "".join("**" if i in hidden else f"{b:02X}" for i, b in enumerate(wire))


def redact(frame: Frame, version: str, name: str, out: dict[str, object]) -> None:
    """Replace the secrets in an explanation (in place) by `**`."""
    places = secret_places(frame, version)
    if not places:
        return
    hidden = set(places)
    out["data_unmasked"] = "".join("**" if i in hidden else f"{b:02X}" for i, b in enumerate(frame.data))
    for key in list(out):
        if key.endswith("password_wire"):
            out[key] = "**"
    if name in ("write", "security") and len(places) > 4:
        out["payload_hex"] = "**"
        out.pop("values", None)
