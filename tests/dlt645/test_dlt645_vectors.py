"""Independently published frames: whole, byte by byte, with trailing bytes that must remain, and encoded again."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pytest

from fuhe.commands.decode import answers
from fuhe.protocols.common.framer import NEED_MORE, Skipped
from fuhe.protocols.decode import decode, detect
from fuhe.protocols.dlt645.frame import Frame, Framer, cut

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "dlt645.json").read_text(encoding="utf-8")
)
GOOD = [v for v in VECTORS if v["decoded"].get("valid") is not False]
BAD = [v for v in VECTORS if v["decoded"].get("valid") is False]


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


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["id"])
def test_decoded_whole(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["hex"])
    for version in (vector["version"], None):  # told, and told by the control code
        got = decode("dlt645", wire, version, secrets=True)
        assert contained(vector["decoded"], got), got
    assert detect(wire) == "dlt645"


@pytest.mark.parametrize("vector", GOOD, ids=lambda v: v["id"])
def test_byte_by_byte_with_bytes_that_remain(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["hex"])
    whole, skipped = cut(wire)
    assert not skipped
    framer = Framer()
    found: list[Frame] = []
    for i in range(len(wire)):
        framer.feed(wire[i : i + 1])
        while (event := framer.next_event()) is not NEED_MORE:
            assert isinstance(event, Frame)
            found.append(event)
    assert found == whole
    trailing = b"\xfe\xfe\x68\x12\x90"
    framer.reset()
    framer.feed(wire + trailing)
    assert [framer.next_event() for _ in whole] == whole
    assert framer.next_event() is NEED_MORE
    assert len(framer) == len(trailing)


@pytest.mark.parametrize("vector", GOOD, ids=lambda v: v["id"])
def test_encoded_again(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["hex"])
    assert b"".join(f.encode() for f in cut(wire)[0]) == wire


@pytest.mark.parametrize("vector", BAD, ids=lambda v: v["id"])
def test_broken_frames_are_skipped_with_their_reason(vector: dict[str, Any]) -> None:
    frames, skipped = cut(bytes.fromhex(vector["hex"]))
    assert not frames
    assert vector["decoded"]["reason"] in {s.reason for s in skipped}
    assert sum(s.count for s in skipped) == len(bytes.fromhex(vector["hex"]))


def test_a_good_frame_behind_every_broken_one() -> None:
    good = bytes.fromhex(GOOD[1]["hex"])
    for vector in BAD:
        frames, _ = cut(bytes.fromhex(vector["hex"]) + good)
        assert frames == cut(good)[0], vector["id"]


def test_batch_answers_every_line_and_survives_bad_ones() -> None:
    lines = [
        json.dumps({"id": v["id"], "protocol": "dlt645", "hex": v["hex"], "version": v["version"]}) for v in VECTORS
    ]
    lines[3:3] = [
        "{not json",
        '{"id": 7}',
        '{"id": 8, "protocol": "no-such", "hex": "00"}',
        '{"id": 9, "hex": "0x6"}',
        "[]",
    ]
    got = [json.loads(a) for a in answers(line.encode() for line in lines)]
    assert len(got) == len(lines)
    bad = got[3:8]
    assert [b["id"] for b in bad] == [None, 7, 8, 9, None]
    assert all("error" in b for b in bad)
    by_id = {a["id"]: a for a in got if "decoded" in a}
    assert all(contained(v["decoded"], by_id[v["id"]]["decoded"]) for v in VECTORS)


def test_skipped_is_a_plain_outcome() -> None:
    framer = Framer()
    framer.feed(b"\r\nHB\r\n\xfe\xfe")
    assert framer.next_event() == Skipped(6, "noise")
    assert framer.next_event() is NEED_MORE
