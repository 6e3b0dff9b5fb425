"""config.yaml: every fault with its path at once, and nothing is started on one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuhe.daemon.config import Config, load_config
from fuhe.protocols.common.errors import UsageError


def told(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_config(path)
    return str(caught.value)


def test_every_fault_is_named_with_its_path(tmp_path: Path) -> None:
    text = told(
        tmp_path,
        "storage: {data_dir: 7}\n"
        "read_onyl: true\n"
        "http: {port: high}\n"
        "links:\n"
        "  - {name: a, kind: serial, port: /dev/ttyS0, baudrate: 9600}\n"
        "  - {kind: tcp, port_no: '502'}\n"
        "control: {environment: home, pace_per_s: fast}\n",
    )
    lines = [line.strip() for line in text.splitlines()[1:]]
    assert "read_onyl is no option: did you mean read_only?" in lines
    assert any(line.startswith("storage.data_dir: Expected") for line in lines)
    assert any(line.startswith("http.port: Expected") for line in lines)
    assert any(line.startswith("links[0].baudrate is no option") for line in lines)
    assert "links[1].name is missing" in lines and any(line.startswith("links[1].port_no") for line in lines)
    assert any(line.startswith("control.pace_per_s") for line in lines)
    assert len(lines) == 7, text


def test_what_a_section_itself_refuses_has_its_path(tmp_path: Path) -> None:
    assert 'control: control.environment must be "prod" or "test"' in told(tmp_path, "control: {environment: home}\n")
    assert "(file): Expected `object`" in told(tmp_path, "- a\n- b\n")
    assert "cannot read" in told(tmp_path, "a: [1\n")
    twice = told(tmp_path, "links: [{name: a, kind: tcp, host: h, port_no: 1}, {name: a, kind: tcp, msa: 200}]")
    assert "a is named twice" in twice and "links[1] (a)" in twice, "faults of two kinds in one answer"


def test_a_good_file_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("", encoding="utf-8")
    assert load_config(path).control == Config().control
    path.write_text("read_only: true\nlinks: [{name: a, kind: tcp, host: h, port_no: 1}]\n", encoding="utf-8")
    assert load_config(path).read_only and load_config(path).links[0].name == "a"


def test_paths_are_beside_the_file_wherever_the_verb_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "config.yaml").write_text("storage: {data_dir: data}\nsecrets_file: s.yaml\n", encoding="utf-8")
    monkeypatch.chdir(elsewhere)
    for path in (home / "config.yaml", Path("../home/config.yaml")):
        config = load_config(path)
        assert (
            config.data_dir.resolve() == home / "data" and Path(config.secrets_file or "").resolve() == home / "s.yaml"
        )
    (home / "config.yaml").write_text("storage: {data_dir: /var/lib/fuhe}\n", encoding="utf-8")
    assert load_config(home / "config.yaml").data_dir == Path("/var/lib/fuhe")
