"""`fuhe decode` and `fuhe encode` of Modbus, and the read-only guard."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.modbus.crc import with_crc
from fuhe.protocols.modbus.decode import decode_rtu, decode_tcp
from fuhe.protocols.modbus.encode import encode
from fuhe.protocols.modbus.guard import is_write

REQUEST, REPLY = "01 04 00 00 00 02 71 CB", "01 04 04 43 66 33 34 1B 38"


def contains(got: dict[str, Any], want: dict[str, Any]) -> bool:
    return all(got.get(k) == v for k, v in want.items())


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (REQUEST, {"valid": True, "unit": 1, "function": 4, "address": 0, "count": 2, "direction": "request"}),
        (REPLY, {"valid": True, "unit": 1, "function": 4, "registers": [0x4366, 0x3334], "direction": "reply"}),
        ("01 83 02 C0 F1", {"valid": True, "unit": 1, "function": 3, "exception": 2}),
        ("FF 03 0B F3 00 02 23 C2", {"valid": True, "unit": 255, "function": 3, "address": 0x0BF3, "count": 2}),
        ("01 83 02 C0 F2", {"valid": False, "reason": "crc"}),
        ("FF 03 0B F3 00 02 23 C3", {"valid": False, "reason": "crc"}),
        ("01 04 04 43", {"valid": False, "reason": "short"}),
        ("", {"valid": False, "reason": "empty"}),
    ],
)
def test_worked_frames(text: str, want: dict[str, Any]) -> None:
    assert contains(decode_rtu(bytes.fromhex(text)), want)


def test_a_capture_gives_values_with_names_and_units() -> None:
    decoded: Any = decode_rtu(bytes.fromhex("AA" + REQUEST + REPLY), "eastron-sdm630")
    assert decoded["skipped"] == [{"count": 1, "reason": "crc"}]
    request, reply = decoded["frames"]
    assert request["items"] == ["voltage_a"]
    assert reply["address"] == 0 and reply["values"] == [{"name": "voltage_a", "value": 230.2, "unit": "V"}]


def test_an_unknown_map_is_our_users_fault() -> None:
    with pytest.raises(UsageError, match="known maps"):
        decode_rtu(bytes.fromhex(REQUEST), "nosuch")


def test_tcp_pairs_by_transaction() -> None:
    ask = encode("modbus-tcp", {"unit": 1, "function": 4, "address": 0, "count": 2, "transaction": 7})
    reply = bytes.fromhex("0007 0000 0007 01 04 04 4366 3334")
    other = bytes.fromhex("0008 0000 0007 01 04 04 4366 3334")
    decoded: Any = decode_tcp(ask + other + reply, "eastron-sdm630")
    assert [f.get("transaction") for f in decoded["frames"]] == [7, 8, 7]
    assert "values" not in decoded["frames"][1] and decoded["frames"][2]["values"][0]["value"] == 230.2


def test_coils_are_cut_to_what_was_asked() -> None:
    ask = encode("modbus-rtu", {"unit": 1, "function": 1, "address": 19, "count": 3})
    decoded: Any = decode_rtu(ask + with_crc(b"\x01\x01\x01\xcd"))
    assert decoded["frames"][1]["coils"] == [1, 0, 1]


@pytest.mark.parametrize(
    ("request_", "frame"),
    [
        ({"unit": 1, "function": 4, "address": 0, "count": 2}, REQUEST),
        ({"unit": 17, "function": 5, "address": 172, "value": True}, "11 05 00AC FF00 4E8B"),
        ({"unit": 17, "function": 6, "address": 1, "value": 3}, "11 06 0001 0003 9A9B"),
        ({"unit": 17, "function": 15, "address": 19, "values": [1, 0, 1, 1, 0, 0, 1, 1, 1, 0]},
         "11 0F 0013 000A 02 CD01 BF0B"),
        ({"unit": 17, "function": 16, "address": 1, "values": [10, 258]}, "11 10 0001 0002 04 000A 0102 C6F0"),
    ],
)  # fmt: skip
def test_requests_encode_and_decode(request_: dict[str, Any], frame: str) -> None:
    raw = encode("modbus-rtu", request_)
    assert raw == bytes.fromhex(frame)
    decoded = decode_rtu(raw)
    assert contains(
        decoded, {"unit": request_["unit"], "function": request_["function"], "address": request_["address"]}
    )
    tcp = decode_tcp(encode("modbus-tcp", request_))
    assert contains(tcp, {k: v for k, v in decoded.items() if k != "direction"})


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"unit": 300}, "unit"), ({"function": 9}, "function"), ({"address": -1}, "address"), ({"count": 126}, "count"),
        ({"count": True}, "count"), ({"speed": 1}, "speed"), ({"function": 16, "values": [1, 70000]}, "values"),
        ({"function": 16, "values": []}, "values"), ({"function": 5, "value": 7}, "value"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_names_its_field(broken: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError, match=field):
        encode("modbus-rtu", {"unit": 1, "function": 3, "address": 0, "count": 1, **broken})


def test_only_reads_pass_the_guard() -> None:
    for protocol in ("modbus-rtu", "modbus-tcp"):
        for function in (1, 2, 3, 4):
            raw = encode(protocol, {"unit": 1, "function": function, "address": 0, "count": 2})
            assert not is_write(raw)
            assert is_write(raw + raw) and is_write(raw[:-1]) and is_write(raw + b"\0")
        assert is_write(encode(protocol, {"unit": 1, "function": 5, "address": 0, "value": True}))
        assert is_write(encode(protocol, {"unit": 1, "function": 6, "address": 0, "value": 1}))
        assert is_write(encode(protocol, {"unit": 1, "function": 16, "address": 0, "values": [1]}))
    assert is_write(b"") and is_write(bytes.fromhex("01 04 00 00 00 02 71 CC"))


@given(st.binary(max_size=120), st.sampled_from([None, "eastron-sdm630"]))
def test_any_bytes_are_explained(data: bytes, profile: str | None) -> None:
    for decoded in (decode_rtu(data, profile), decode_tcp(data, profile)):
        assert isinstance(decoded["valid"], bool)


@given(st.lists(st.binary(min_size=1, max_size=40).map(lambda b: with_crc(b"\x01" + b)), max_size=4))
def test_checked_but_odd_messages_are_explained(frames: list[bytes]) -> None:
    assert isinstance(decode_rtu(b"".join(frames), "eastron-sdm630")["valid"], bool)
    tcp = b"".join(bytes(4) + (len(f)).to_bytes(2, "big") + f for f in frames)
    assert isinstance(decode_tcp(tcp, "eastron-sdm630")["valid"], bool)
