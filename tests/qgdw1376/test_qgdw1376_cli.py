"""`fuhe decode` and `fuhe encode` for Q/GDW 1376.1 frames, hunting in logs, secrets, and the read-only guard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fuhe.cli import root
from fuhe.model.lang import lang, set_lang
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.decode import decode, detect, hunt
from fuhe.protocols.guard import is_write
from fuhe.protocols.qgdw1376.edition import edition, of_profile
from fuhe.protocols.qgdw1376.frame import Address, Frame
from fuhe.protocols.qgdw1376.message import build, parse
from fuhe.protocols.qgdw1376.plain import message_of_plain

HERE = Address("3301", 1, msa=1)
LOGIN = "68320032006 8C9000234120002710000010085 16".replace(" ", "")
REGISTER = (
    "68AE00AE006888104515 00000C6C20010110351725011404007992000000000000000097320000008845000000941300006E16"
).replace(" ", "")
RELAY_ON = (
    "681201120168 4B000234120410E7000001001F6BBC0A1C0068611001301215681C10356A3935343333334E333333336345CC2D16"
    "0000000000000000000000000000000007150700220 5B516"
).replace(" ", "")
METER = "68611001301215681104333334337B16"


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    """Every test starts in English and leaves the language as it was."""
    before = lang()
    set_lang("en")
    yield
    set_lang(before)


def fuhe(*arguments: str, data: str | None = None) -> Result:
    """The command in this process."""
    return CliRunner().invoke(root, list(arguments), input=data)


def frame_of(afn: int, area: str, control: int = 0x4B, seq: int = 0x60) -> Frame:
    return Frame(control, HERE, bytes((afn, seq)) + bytes.fromhex(area))


def wire_of(afn: int, area: str, control: int = 0x4B, seq: int = 0x60) -> bytes:
    return frame_of(afn, area, control, seq).encode()


# --- for people -------------------------------------------------------------------------------------------------------
def test_a_frame_in_both_languages() -> None:
    text = fuhe("decode", REGISTER).output
    assert "terminal answers: class-1 data (real time) (AFN 0C)" in text and "p6 F129" in text
    assert "92.7900, 0.0000, 32.9700, 45.8800, 13.9400 kWh" in text and "4510-21" in text
    set_lang("zh")
    text = fuhe("decode", REGISTER).output
    assert "终端应答: 请求1类数据（实时数据） (AFN 0C)" in text and "正向有功电能示值" in text


def test_events_lists_and_faults_are_told() -> None:
    event = wire_of(0x0E, "00000100 01010001 010E351016011402322E3031322E3032", 0x88)
    text = fuhe("decode", event.hex()).output
    assert "initialisation or version change (ERC1)" in text and "2014-01-16 10:35" in text
    unknown = fuhe("decode", wire_of(0x0C, "000080FE 0102", 0x88).hex()).output
    assert "p0 F2040" in unknown and "not in the tables" in unknown and "0102" in unknown
    short = fuhe("decode", wire_of(0x0C, "01010103 0102", 0x88).hex()).output
    assert "the data end early" in short
    everyone = fuhe("decode", wire_of(0x0C, "FF000103", 0x4B).hex()).output
    assert "all points F25" in everyone
    relay = fuhe("decode", "--secrets", RELAY_ON).output
    assert "packet_timeout" in relay and "151230011061" in relay


def test_a_frame_that_is_none() -> None:
    broken = fuhe("decode", "-p", "qgdw1376", LOGIN[:-4] + "0016")
    assert broken.exit_code == 1 and "checksum" in broken.output
    assert decode("qgdw1376", bytes.fromhex("683200")) == {"valid": False, "error": "truncated"}
    assert decode("qgdw1376", b"\0") == {"valid": False, "error": "no_start_byte"}
    lonely = Frame(0x88, HERE, b"\0").encode()
    assert decode("qgdw1376", lonely)["error"] == "application_layer"
    two = decode("qgdw1376", bytes.fromhex(LOGIN + "00" + LOGIN))
    assert isinstance(two["frames"], list) and len(two["frames"]) == 2 and two["skipped_bytes"] == 1


def test_the_protocol_is_told_by_the_bytes() -> None:
    assert detect(bytes.fromhex(LOGIN)) == "qgdw1376"
    assert detect(bytes.fromhex(RELAY_ON)) == "qgdw1376"  # with a meter's frame inside
    assert detect(bytes.fromhex(METER)) == "dlt645"
    assert detect(bytes.fromhex(LOGIN)[:-3]) == "qgdw1376"


# --- secrets ----------------------------------------------------------------------------------------------------------
def test_passwords_are_shown_only_when_asked_for() -> None:
    area = "00000201 0100 01000100210066554433221122222211111100056666663322 1131".replace(" ", "")
    wire = Frame(0x4A, HERE, bytes.fromhex("0460" + area + "6789" + "00" * 14)).encode().hex().upper()
    hidden = fuhe("decode", wire, "--json").output
    assert "222222111111" not in hidden and "6789" not in hidden and '"**"' in hidden
    shown = fuhe("decode", wire, "--json", "--secrets").output
    assert "222222111111" in shown and "67890000" in shown


def test_the_meter_password_in_a_relayed_command_is_hidden() -> None:
    hidden = fuhe("decode", RELAY_ON, "--json").output
    assert "356A3935" not in hidden and "02370602" not in hidden and "151230011061" in hidden
    assert "356A3935" in fuhe("decode", RELAY_ON, "--json", "--secrets").output
    found = list(hunt(RELAY_ON))
    assert len(found) == 1 and "356A3935" not in found[0].hex and "**" in found[0].hex
    assert [f.hex for f in hunt(RELAY_ON, secrets=True)] == [RELAY_ON]


def test_pw_is_masked_in_the_bytes() -> None:
    wire = Frame(0x4A, HERE, bytes.fromhex("0560 01010200" + "AB" * 16 + "005613170405"[:12]))
    told = list(hunt(Frame(0x4A, HERE, bytes.fromhex("05E0 01010200" + "AB" * 16 + "015613170405")).encode().hex()))
    assert "AB" not in told[0].hex and told[0].hex.count("**") == 17 and "015613170405" in told[0].hex
    assert wire.control == 0x4A


# --- logs -------------------------------------------------------------------------------------------------------------
LOG = f"""\
2026-05-20 10:22:33.123 terminal connected from 10.0.0.7
[10:22:33.124] RX: {LOGIN[:14]}
[10:22:33.125]     {LOGIN[14:]}
[10:22:34.000] TX: {RELAY_ON[:60]}
[10:22:34.001]     {RELAY_ON[60:]}
meter bus: FE FE {METER}
68 12 90 78 56 34 12 68 11 04 33 33 34 33 68 16
modbus 01 04 00 00 00 02 71 CB
{REGISTER} {LOGIN}
{LOGIN[:-4]}9916 bad checksum
"""


def test_frames_of_all_protocols_are_hunted_in_a_log(tmp_path: Path) -> None:
    found = list(hunt(LOG))
    assert [(f.line, f.protocol, f.decoded.get("afn", f.decoded.get("control"))) for f in found] == [
        (3, "qgdw1376", "02"),
        (5, "qgdw1376", "10"),
        (6, "dlt645", "11"),
        (7, "dlt645", "11"),
        (8, "modbus-rtu", None),
        (9, "qgdw1376", "0C"),
        (9, "qgdw1376", "02"),
    ]
    assert [f.line for f in hunt(LOG, "qgdw1376")] == [3, 5, 9, 9]
    assert [f.line for f in hunt(LOG, "dlt645")] == [5, 6, 7]  # the relayed one is one then
    log = tmp_path / "a.log"
    log.write_text(LOG, encoding="utf-8")
    shown = fuhe("decode", "-f", str(log))
    assert shown.exit_code == 0 and "line 9" in shown.output and "login" in shown.output
    log.write_bytes(b"noise\0" + bytes.fromhex(LOGIN + METER))
    assert [f["protocol"] for f in json.loads(fuhe("decode", "-f", str(log), "--json").output)] == [
        "qgdw1376",
        "dlt645",
    ]


def test_profiles_on_the_command_line() -> None:
    f12 = "684500450068 4A111111110204700000 08010F0F0F5555E416".replace(" ", "")
    told = fuhe("decode", f12, "--profile", '{"pw_len": 2, "numbering": "130-2005"}', "--json", "--secrets")
    assert json.loads(told.output)["aux"]["pw_hex"] == "5555"
    wrong = fuhe("decode", f12, "--profile", "nothing")
    assert wrong.exit_code == 1 and "pw_len" in wrong.output
    assert fuhe("decode", f12, "--version", "1999").exit_code == 1


# --- making frames ----------------------------------------------------------------------------------------------------
def test_requests_are_made_of_plain_objects() -> None:
    ask = {"address": {"a1": "3301", "a2": 1, "msa": 1}, "afn": "0C", "items": [{"pn": 1, "fn": 25}]}
    made = fuhe("encode", "qgdw1376", json.dumps(ask))
    assert made.exit_code == 0 and bytes.fromhex(made.output) == wire_of(0x0C, "01010103")
    trip = {
        "address": {"a1": "3301", "a2": 1},
        "afn": "05",
        "seq": {"seq": 1, "con": 1},
        "items": [
            {"pn": 1, "fn": 1, "data": {"alarm_delay_min": 1, "limit_half_hours": 2}},
            {"pn": 2, "fn": 1, "data": {"alarm_delay_min": 0, "limit_half_hours": 0}, "joined": True},
        ],
        "aux": {"pw_hex": "6789", "tp": {"pfc": 1, "sent": "04 17:13:56", "delay_min": 5}},
    }
    told = json.loads(fuhe("encode", "qgdw1376", json.dumps(trip), "--json", "--version", "2005").output)
    frame = Frame(0x4A, Address("3301", 1), bytes.fromhex("05F1 03010100 1200 6789 015613170405"), 1)
    assert told == {"hex": frame.encode().hex().upper(), "length": len(frame.encode())}
    wide = edition("2013")
    default = build(message_of_plain({**trip, "aux": {}}, wide), wide)
    assert default.user.endswith(bytes(16)) and default.control == 0x4A and parse(default).pw == bytes(16)


def test_thousands_are_told_beside_the_number() -> None:
    wire = wire_of(0x0C, "01014002 00020040", 0x88)
    shown = decode("qgdw1376", wire)
    assert shown["items"] == [{"pn": 1, "fn": 23, "name": "group_remaining", "data": {"value": "200", "unit_flag": 1}}]
    assert build(message_of_plain(shown)).encode() == wire
    several = wire_of(0x0C, "01010402 01 00020040 50000010", 0x88)
    values = decode("qgdw1376", several)["items"]
    assert isinstance(values, list) and values[0]["data"]["values"] == ["200", "-50"]
    assert values[0]["data"]["values_unit_flag"] == [1, 0]
    assert build(message_of_plain(decode("qgdw1376", several))).encode() == several
    event = wire_of(0x0E, "00000100 01000001 0710 3510160114 01 01 02 00020040 50000010", 0x88)
    told = decode("qgdw1376", event)
    assert build(message_of_plain(told)).encode() == event and "unit_flag" in str(told)


@pytest.mark.parametrize(
    "change",
    [
        {"afn": "0"}, {"afn": "XX"}, {"items": [{"pn": "every", "fn": 1}]}, {"items": [{"pn": 1}]},
        {"items": [{"pn": 1, "fn": 25, "data": {"x": 1}}]}, {"items": [{"pn": 1, "fn": 2000, "data": {"x": 1}}]},
        {"items": [{"pn": 1, "fn": 3000}]}, {"control": {"raw": "4BB"}}, {"control": {"dir": "left"}},
        {"address": {"a1": "3301"}}, {"aux": {"tp": {"pfc": 1, "sent": "now"}}}, {"aux": {"pw_hex": "1"}},
        {"rest_hex": "x"}, {"control": {"dir": "up", "acd": 1}},
    ],
)  # fmt: skip
def test_what_is_no_message(change: dict[str, object]) -> None:
    ask: dict[str, object] = {"address": {"a1": "3301", "a2": 1}, "afn": "0C", "items": [{"pn": 1, "fn": 25}]}
    with pytest.raises(UsageError):
        build(message_of_plain({**ask, **change}))
    assert fuhe("encode", "qgdw1376", json.dumps({**ask, **change})).exit_code == 1
    assert fuhe("encode", "qgdw1376", "[1").exit_code == 1


# --- editions ---------------------------------------------------------------------------------------------------------
def test_editions_and_what_a_device_does_differently() -> None:
    assert edition().name == "2013" and edition().pw_guess and not edition("2009").pw_guess
    assert edition("130-2005").pw_length == 2 and edition("Q/GDW 376.1-2009").name == "2009"
    special = of_profile({"numbering": "130-2005", "pw_len": 16, "pw_afn": ["04", "05"]})
    assert (special.name, special.pw_length, special.pw_afn) == ("2005", 16, frozenset((4, 5)))
    reset = {"address": {"a1": "3301", "a2": 1}, "afn": "01", "items": [{"pn": 0, "fn": 1}]}
    assert build(message_of_plain(reset, special), special).user == bytes.fromhex("0160 00000100")
    for wrong in ({"pw_len": 17}, {"pw_len": "x"}, {"numbering": "2012"}, {"unknown": 1}, {"protocol_id": 3}):
        with pytest.raises(UsageError):
            of_profile(wrong)


# --- the read-only guard ----------------------------------------------------------------------------------------------
READS = [
    wire_of(0x0C, "01010103"), wire_of(0x0C, "01010103", 0x4A), wire_of(0x0A, "00000201 0100 0100", 0x7B),
    wire_of(0x09, "00000100"), wire_of(0x0D, "01010101 0015080310010C"), wire_of(0x0E, "00000100 0001"),
    wire_of(0x0B, "01010100"), wire_of(0x00, "00000100", 0x0B), wire_of(0x00, "00000400 02 00000100 00", 0x00),
    wire_of(0x10, "00000100 1F6BBC0A1000" + METER + "00" * 16), wire_of(0x10, "00000100 1F6BBC0A1000" + METER),
    b"\xfe\xfe" + wire_of(0x0C, "00000200") + wire_of(0x0C, "01010103"),
]  # fmt: skip
WRITES = [
    wire_of(0x04, "00000100 0A141E03070F" + "00" * 16, 0x4A), wire_of(0x05, "01010200" + "00" * 16, 0x4A),
    wire_of(0x01, "00000100" + "00" * 16, 0x41), wire_of(0x0F, "00000100 0101010000010000000000" + "00" * 16),
    wire_of(0x06, "00000404" + "00" * 16), wire_of(0x08, "00000100"), wire_of(0x03, "00000100"),
    wire_of(0xF1, "00000100"),
    wire_of(0x0C, "01010103", 0x41), wire_of(0x0C, "01010103", 0x88), wire_of(0x00, "00000100", 0x4B),
    bytes.fromhex(RELAY_ON), wire_of(0x10, "00000100 1F6BBC0A0400 00010203" + "00" * 16),
    wire_of(0x10, "00000100 1F6BBC0A1000" + METER + "00" * 3), wire_of(0x10, "00000001 01" + "00" * 20),
    wire_of(0x10, "00000101 1F00" + "112233445566 02 00010000" + "00" * 16),
    READS[0] + b"\0", READS[0] + wire_of(0x05, "01010200" + "00" * 16, 0x4A), READS[0][:-1], b"", b"\x68",
]  # fmt: skip


@pytest.mark.parametrize("wire", READS, ids=lambda w: w.hex()[:40])
def test_a_read_passes_the_guard(wire: bytes) -> None:
    assert not is_write("qgdw1376", wire)


@pytest.mark.parametrize("wire", WRITES, ids=lambda w: w.hex()[:40])
def test_what_is_not_certainly_a_read_is_a_write(wire: bytes) -> None:
    assert is_write("qgdw1376", wire)


def test_one_changed_byte_never_turns_a_write_into_a_read() -> None:
    command = WRITES[1]
    for at in range(len(command)):
        for bit in range(8):
            changed = bytearray(command)
            changed[at] ^= 1 << bit
            assert is_write("qgdw1376", bytes(changed))
