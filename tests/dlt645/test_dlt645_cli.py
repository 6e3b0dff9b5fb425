"""`fuhe decode` and `fuhe encode` as a person and a program use them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fuhe.cli import root
from fuhe.model.lang import lang, set_lang
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.decode import decode, detect, hex_runs, hunt, to_bytes

READ = "68129078563412681104333334336816"
REPLY = "FEFE6812907856341268910833333433896745335416"
TRIP = "68611001301215681C10356A3935343333334D333333336345CC2C16"

LOG = """\
\ufeff2026-05-20 10:22:33.123 COM3 open, 2400 8E1
[10:22:33.124] TX: 68 12 90 78 56 34 12 68 11 04 33 33
[10:22:33.125]     34 33 68 16
2026/05/20 10:22:33,250 RX <- FE FE 68 12 90 78 56 34 12 68 91 08 33 33 34 33 89 67 45 33 54 16
10:22:34 heartbeat ok 42
recv(12) 0x68,0x11,0x11,0x11,0x11,0x11,0x11,0x68,0x9C,0x00,0xD2,0x16
tx \\x68\\xAA\\xAA\\xAA\\xAA\\xAA\\xAA\\x68\\x13\\x00\\xDF\\x16 rx: nothing
68:12:90:78:56:34:12:68:91:08:33:33:34:33:89:67:45:33:55:16 bad checksum
modbus 01 04 00 00 00 02 71 CB
2026-05-20T10:22:36 FEFEFEFE68111111111111689106333434356756 5A 16
"""


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


def test_frames_are_hunted_in_a_log() -> None:
    found = list(hunt(LOG))
    assert [(f.line, f.protocol, f.decoded.get("control", f.decoded.get("function"))) for f in found] == [
        (3, "dlt645", "11"),
        (4, "dlt645", "91"),
        (6, "dlt645", "9C"),
        (7, "dlt645", "13"),
        (9, "modbus-rtu", 4),
        (10, "dlt645", "91"),
    ]
    assert [f.line for f in hunt(LOG, "dlt645")] == [3, 4, 6, 7, 10]


def test_a_log_and_a_binary_capture_as_files(tmp_path: Path) -> None:
    log, binary = tmp_path / "a.log", tmp_path / "a.bin"
    log.write_text(LOG, encoding="utf-8")
    binary.write_bytes(b"noise" + bytes.fromhex(READ + "00" + REPLY))
    shown = fuhe("decode", "-f", str(log))
    assert shown.exit_code == 0 and "1234.56 kWh" in shown.output and "line 4" in shown.output
    as_json = json.loads(fuhe("decode", "-f", str(binary), "--json").output)
    assert [f["decoded"]["control"] for f in as_json] == ["11", "91"]
    log.write_text("nothing here", encoding="utf-8")
    nothing = fuhe("decode", "-f", str(log))
    assert nothing.exit_code == 1


def test_a_frame_in_both_languages() -> None:
    english_text = fuhe("decode", REPLY).output
    assert "forward_active_total" in english_text and "meter address" in english_text
    set_lang("zh")
    chinese = fuhe("decode", *[REPLY[i : i + 2] for i in range(0, len(REPLY), 2)]).output
    assert "通信地址" in chinese and "正向有功电能" in chinese and "从站应答" in chinese


def test_passwords_are_shown_only_on_request() -> None:
    assert "370602" not in fuhe("decode", TRIP).output + fuhe("decode", "--json", TRIP).output
    assert json.loads(fuhe("decode", "--json", "--secrets", TRIP).output)["password_wire"] == "370602"
    assert all("6A3935" not in f.hex for f in hunt(TRIP)) and any("6A3935" in f.hex for f in hunt(TRIP, secrets=True))


@pytest.mark.parametrize("arguments", [("zz",), ("123",), (), ("--protocol", "none", "00"), ("-p", "dlt698", "6812")])
def test_what_cannot_be_decoded_is_said(arguments: tuple[str, ...]) -> None:
    result = fuhe("decode", *arguments)
    assert result.exit_code == 1 and "error" in result.output and "Traceback" not in result.output


def test_a_broken_frame_is_named() -> None:
    result = fuhe("decode", READ[:-4] + "0016")
    assert result.exit_code == 1 and "checksum" in result.output
    assert json.loads(fuhe("decode", "--json", "00112233").output)["reason"] == "unknown_protocol"


def test_batch_is_a_filter_of_its_own_process() -> None:
    lines = [{"id": i, "protocol": "dlt645", "hex": REPLY} for i in range(50)]
    text = "\n".join(json.dumps(line) for line in lines) + "\n\n{bad\n"
    command = [sys.executable, "-m", "fuhe.cli"]
    code = "from fuhe.cli import main; import sys; sys.argv = ['fuhe', 'decode', '--batch']; main()"
    done = subprocess.run([command[0], "-c", code], input=text, capture_output=True, text=True, timeout=60, check=True)
    got = [json.loads(line) for line in done.stdout.splitlines()]
    assert [g["id"] for g in got] == [*range(50), None] and "error" in got[-1]


def test_batch_names_where_its_lines_come_from() -> None:
    result = fuhe("decode", "--batch", "frames.txt")
    assert result.exit_code == 1 and "--batch < FILE" in result.output


def test_decoding_a_frame_loads_nothing_heavy() -> None:
    code = f"""
import sys
from fuhe.cli import root
root(["decode", "--json", "{REPLY}"], standalone_mode=False)
heavy = [m for m in ("numpy", "pymodbus", "yaml", "psycopg", "sqlalchemy", "asyncio") if m in sys.modules]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("read", "123456789012", "00010000", "--lead", "0"), READ),
        (("address", "--lead", "4"), "FEFEFEFE68AAAAAAAAAAAA681300DF16"),
        (("control", "151230011061", "trip", "--until", "2099-12-30T00:00:00", "--password", "020637", "--operator",
          "00000001", "--lead", "0"), TRIP),
        (("time", "2017-06-05T10:22:51", "--lead", "0"), "6899999999999968080684554338394A4B16"),
        (("modbus", '{"unit": 1, "function": 4, "address": 0, "count": 2}'), "01040000000271CB"),
    ],
)  # fmt: skip
def test_requests_are_made(arguments: tuple[str, ...], expected: str) -> None:
    assert fuhe("encode", *arguments).output.strip() == expected
    assert json.loads(fuhe("encode", *arguments, "--json").output)["hex"] == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ("read", "123456789012", "06020001", "--count", "4", "--from", "2026-05-20T00:15"),
        ("read", "123456789012", "03300201", "--seq", "2"),
        ("read", "123456789012", "9010", "--version", "1997"),
        ("freeze", "123456789012"),
        ("write", "123456789012", "04000103", "15"),
        ("write", "123456789012", "04A20200", "--payload", "0100"),
    ],
)
def test_other_requests_decode_again(arguments: tuple[str, ...]) -> None:
    made = fuhe("encode", *arguments).output.strip()
    assert decode("dlt645", bytes.fromhex(made))["valid"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        ("control", "123456789012", "trip"),
        ("control", "AAAAAAAAAAAA", "trip", "--until", "2099-12-30T00:00:00"),
        ("write", "123456789012", "04A20200", "1"),
        ("modbus", "[1]"),
        ("modbus", '{"unit": 1, "function": 99, "address": 0}'),
    ],
)
def test_illegal_requests_end_with_a_message(arguments: tuple[str, ...]) -> None:
    result = fuhe("encode", *arguments)
    assert result.exit_code == 1 and "error" in result.output


def test_hex_runs_and_bytes_of_text() -> None:
    assert hex_runs("10:22:33.5 and 2026-05-20") == []
    assert hex_runs("68:AA BB") == [b"\x68\xaa\xbb"]
    assert to_bytes(" 0x68, 0x16 ") == b"\x68\x16"
    with pytest.raises(UsageError):
        to_bytes("6 8 1")
    assert detect(bytes.fromhex("000100000006010300000002")) == "modbus-tcp"
    assert detect(b"world") is None
