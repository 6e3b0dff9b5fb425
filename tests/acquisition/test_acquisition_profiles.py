"""Profiles: the built-in set, inheritance, and that every fault is named with file and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuhe.acquisition.profiles import builtin_profiles, check_tree, load_profiles, merge
from fuhe.model.lang import set_lang
from fuhe.model.work import Duty
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.modbus.maps import map_names

WANTED = {
    "dlt645-2007-3p4w", "dlt645-2007-3p3w", "dlt645-2007-1p", "dlt645-2007-relay", "dlt645-1997-3p", "modbus-relay",
    "mqtt-v1",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _english() -> None:
    set_lang("en")


def write(directory: Path, name: str, text: str) -> None:
    (directory / f"{name}.toml").write_text(text, encoding="utf-8")


def fault_lines(directory: Path) -> list[str]:
    with pytest.raises(UsageError) as caught:
        load_profiles(directory)
    return [line.strip().replace(str(directory) + "/", "") for line in str(caught.value).splitlines()[1:]]


def test_every_register_map_has_a_device_profile() -> None:
    profiles = builtin_profiles()
    assert profiles.keys() >= WANTED
    assert set(map_names()) <= {p.map for p in profiles.values()}
    assert "modbus-3p" not in profiles  # abstract


def test_relay_profile_inherits_all_reading_and_adds_control() -> None:
    plain, relay = builtin_profiles()["dlt645-2007-3p4w"], builtin_profiles()["dlt645-2007-relay"]
    assert relay.read == plain.read and relay.curve == plain.curve and plain.control is None
    assert relay.control is not None and relay.control.means == "dlt645-1c"
    assert plain.read[Duty.LIVE].items == ("0201FF00", "0202FF00", "0203FF00", "0204FF00", "0206FF00")
    modbus = builtin_profiles()["modbus-relay"].control
    assert modbus is not None and modbus.writes["trip"] == (5, 0, 0xFF00) and modbus.state == (1, 0, 1, 1)


def test_operator_profile_states_only_its_differences(tmp_path: Path) -> None:
    write(
        tmp_path,
        "our-meter",
        'inherits = "dlt645-2007-1p"\nwithout = ["read.monthly", "curve"]\ntitle_en = "ours"\n'
        "[timing]\nretries = 5\n[read.live]\nperiod_s = 60\n",
    )
    ours, base = load_profiles(tmp_path)["our-meter"], builtin_profiles()["dlt645-2007-1p"]
    assert ours.timing.retries == 5 and ours.timing.reply_timeout_s == base.timing.reply_timeout_s
    assert ours.read[Duty.LIVE].period_s == 60 and ours.read[Duty.LIVE].items == base.read[Duty.LIVE].items
    assert Duty.MONTHLY not in ours.read and ours.curve is None and base.curve is not None
    assert ours.title_en == "ours" and ours.title_zh == base.title_zh


def test_operator_file_replaces_the_built_in_of_its_name(tmp_path: Path) -> None:
    write(tmp_path, "mqtt-v1", 'title_en="x"\ntitle_zh="x"\nprotocol="mqtt"\nversion="1"\n')
    assert load_profiles(tmp_path)["mqtt-v1"].control is None


def test_every_fault_of_every_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a", 'inherits = "nothing"\n')
    write(tmp_path, "b", 'inherits = "c"\n')
    write(tmp_path, "c", 'inherits = "b"\n')
    write(tmp_path, "d", "this is not toml")
    write(
        tmp_path,
        "e",
        'inherits = "eastron-sdm630"\nnonsense = 1\nwithout = ["read.hourly"]\n[timing]\nretries = "two"\n',
    )
    write(
        tmp_path,
        "f",
        'inherits = "eastron-sdm630"\nversion = "9"\nmax_points = 0\n[timing]\nretries = 99\n'
        '[read.live]\nitems = ["voltage_a", "voltage_z", "voltage_a"]\n'
        '[control]\nmeans = "dlt645-1c"\nrounds = 9\npassword_level = "2"\n',
    )
    write(
        tmp_path,
        "g",
        'inherits = "dlt645-2007-3p4w"\n[read.live]\nitems = ["0201", "02FFFFFF"]\n'
        '[read.curve]\nitems = []\nperiod_s = 0\n[curve]\nclasses = [7]\nstep_s = 7\nretention_days = 0\n',
    )  # fmt: skip
    write(
        tmp_path,
        "h",
        'inherits = "modbus-relay"\nmap = "no-such-map"\n[control]\nstate = [9, 0, 1, 1]\n'
        "[control.writes]\njump = [7, 70000, 1]\n",
    )
    write(tmp_path, "Bad Name", "")
    found = fault_lines(tmp_path)
    expected = """a.toml: inherits|b.toml: inherits|c.toml: inherits|d.toml: -|e.toml: without|Bad Name.toml: name
        f.toml: version|f.toml: max_points|f.toml: timing.retries|f.toml: read.live.items[1]|f.toml: read.live.items
        f.toml: control.means|f.toml: control.rounds|f.toml: control.password_level
        g.toml: read.live.items[0]|g.toml: read.live.items[1]|g.toml: read.curve|g.toml: read.curve.items
        g.toml: read.curve.period_s|g.toml: curve.classes|g.toml: curve.step_s|g.toml: curve.retention_days
        h.toml: map|h.toml: control.writes.jump|h.toml: control.state"""
    for start in (word.strip() for line in expected.splitlines() for word in line.split("|")):
        assert any(line.startswith(start + ":") for line in found), f"{start} not in:\n" + "\n".join(found)


def test_type_faults_are_all_found_at_once(tmp_path: Path) -> None:
    write(tmp_path, "x", 'protocol = "smoke"\nnonsense = 1\n[timing]\nretries = "two"\n[read.weekly]\nitems = [1]\n')
    starts = {line.split(":")[1].strip() for line in fault_lines(tmp_path)}
    wanted = {"title_en", "title_zh", "protocol", "nonsense", "timing.retries", "read.weekly", "read.weekly.items"}
    assert wanted <= starts


def test_merge_changes_neither_argument() -> None:
    base, over = {"t": {"a": 1, "l": [1, 2]}}, {"t": {"a": 2, "l": [3]}, "n": 1}
    assert merge(base, over) == {"t": {"a": 2, "l": [3]}, "n": 1}  # type: ignore[arg-type]
    assert base == {"t": {"a": 1, "l": [1, 2]}} and over == {"t": {"a": 2, "l": [3]}, "n": 1}


def test_check_tree_accepts_what_the_loader_accepts() -> None:
    tree: dict[str, object] = {"name": "m", "title_en": "m", "title_zh": "m", "protocol": "mqtt", "version": "1"}
    assert check_tree(tree) == []
    assert check_tree({**tree, "version": "2"})[0][0] == "version"
