"""Captured and published frames: whole, byte by byte, with trailing bytes that must remain, and encoded again."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fuhe.commands.decode import answers
from fuhe.protocols.common.framer import NEED_MORE
from fuhe.protocols.decode import decode, detect
from fuhe.protocols.dlt645.frame import cut as cut_meter
from fuhe.protocols.qgdw1376.edition import of_profile
from fuhe.protocols.qgdw1376.explain import describe
from fuhe.protocols.qgdw1376.frame import Frame, Framer, cut
from fuhe.protocols.qgdw1376.message import build, parse
from fuhe.protocols.qgdw1376.plain import message_of_plain

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "qgdw1376.json").read_text(encoding="utf-8")
)
GOOD = [v for v in VECTORS if v["valid"]]
BAD = [v for v in VECTORS if not v["valid"]]
# filled with EF where everybody else (and we) fill with EE
OTHER_FILL = {"pep-0c-f25"}


def _number(value: object) -> Decimal | None:
    try:
        return None if value is None or isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        return None


def contained(want: object, got: object) -> bool:
    """Every key wanted is there with an equal value; lists of equal length; numbers by value."""
    if isinstance(want, dict):
        return isinstance(got, dict) and all(k in got and contained(v, got[k]) for k, v in want.items() if k != "note")
    if isinstance(want, list):
        return isinstance(got, list) and len(want) == len(got) and all(map(contained, want, got))
    if isinstance(want, bool) or want is None:
        return want is got
    number = _number(want)
    return str(want).lower() == str(got).lower() or (number is not None and number == _number(got))


@pytest.mark.parametrize("vector", GOOD, ids=lambda v: v["id"])
def test_decoded_whole(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["hex"])
    got = decode("qgdw1376", wire, None, None, vector.get("profile"), secrets=True)
    assert contained(vector["decoded"], got), got
    assert detect(wire) == "qgdw1376"
    assert not [item for item in got["items"] if item.get("fault", "unknown_fn") != "unknown_fn"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("vector", [v for v in GOOD if "pw_len" in v.get("profile", {})], ids=lambda v: v["id"])
def test_the_length_of_pw_is_found_without_being_told(vector: dict[str, Any]) -> None:
    profile = {k: v for k, v in vector["profile"].items() if k != "pw_len"}
    got = describe(bytes.fromhex(vector["hex"]), None, profile, secrets=True)
    assert contained(vector["decoded"], got), got


@pytest.mark.parametrize("vector", GOOD, ids=lambda v: v["id"])
def test_byte_by_byte_with_bytes_that_remain(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["hex"])
    whole, skipped = cut(wire)
    assert not skipped and len(whole) == 1
    framer = Framer()
    found: list[Frame] = []
    for i in range(len(wire)):
        framer.feed(wire[i : i + 1])
        while (event := framer.next_event()) is not NEED_MORE:
            assert isinstance(event, Frame)
            found.append(event)
    assert found == whole
    trailing = b"\xfe\xfe\x68\x32\x00"
    framer.reset()
    framer.feed(wire + trailing)
    assert framer.next_event() == whole[0]
    assert framer.next_event() is NEED_MORE
    assert len(framer) == len(trailing)


@pytest.mark.parametrize("vector", GOOD, ids=lambda v: v["id"])
def test_encoded_again(vector: dict[str, Any]) -> None:
    """From the message, and from the plain object as JSON carries it: every byte."""
    wire = bytes.fromhex(vector["hex"])
    frame = cut(wire)[0][0]
    assert frame.encode() == wire
    for profile in (vector.get("profile"), None):
        peer = of_profile(profile)
        message = parse(frame, peer)
        plain = msgspec.json.decode(msgspec.json.encode(describe(wire, None, profile, secrets=True)))
        for one in (message, message_of_plain(plain, peer)):
            again = build(one, peer).encode()
            if vector["id"] in OTHER_FILL:
                assert parse(cut(again)[0][0], peer).units == message.units and len(again) == len(wire)
            else:
                assert again == wire


@pytest.mark.parametrize("vector", BAD, ids=lambda v: v["id"])
def test_broken_frames_are_refused_with_a_reason(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["hex"])
    frames, skipped = cut(wire)
    assert not frames
    assert sum(s.count for s in skipped) == len(wire)
    got = decode("qgdw1376", wire)
    wanted = {"checksum": "checksum", "length field does not match the number of bytes": "truncated"}
    assert got == {"valid": False, "error": wanted[vector["decoded"]["error"]]}


def test_a_good_frame_behind_every_broken_one() -> None:
    good = bytes.fromhex(GOOD[0]["hex"])
    for vector in BAD:
        frames, _ = cut(bytes.fromhex(vector["hex"]) + good)
        assert frames == cut(good)[0], vector["id"]


def test_a_frame_of_another_protocol_is_none_of_ours() -> None:
    for vector in json.loads((Path(__file__).parent.parent / "vectors" / "dlt645.json").read_text(encoding="utf-8")):
        assert cut(bytes.fromhex(vector["hex"]))[0] == []
    for vector in GOOD:
        if vector["decoded"]["afn"] != "10":
            assert cut_meter(bytes.fromhex(vector["hex"]))[0] == []


def test_batch_takes_profiles_as_objects() -> None:
    lines = [
        json.dumps({"protocol": "qgdw1376", **{k: v[k] for k in ("id", "hex", "profile") if k in v}}) for v in VECTORS
    ]
    lines[2:2] = [
        json.dumps({"id": 1, "protocol": "qgdw1376", "hex": GOOD[0]["hex"], "profile": {"nothing": 1}}),
        json.dumps({"id": 2, "protocol": "qgdw1376", "hex": GOOD[0]["hex"], "profile": {"pw_len": "two"}}),
        json.dumps({"id": 3, "protocol": "qgdw1376", "hex": GOOD[0]["hex"], "version": "1999"}),
        json.dumps({"id": 4, "protocol": "qgdw1376", "hex": "00"}),
    ]
    got = [json.loads(a) for a in answers(line.encode() for line in lines)]
    assert len(got) == len(lines)
    assert ["error" in a for a in got[2:6]] == [True, True, True, False]
    by_id = {a["id"]: a["decoded"] for a in got if "decoded" in a}
    for vector in VECTORS:
        if vector["valid"]:
            assert contained(vector["decoded"], by_id[vector["id"]]), vector["id"]
        else:
            assert by_id[vector["id"]]["valid"] is False
