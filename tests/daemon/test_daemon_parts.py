"""Modes, health over a real socket, secrets file, live power, configuration faults."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from fuhe.daemon.config import HttpConfig, load_config
from fuhe.daemon.health import HealthServer
from fuhe.daemon.livepower import LivePower
from fuhe.daemon.modes import Mode, ModeKeeper
from fuhe.daemon.secrets import SecretBook
from fuhe.model.devices import Device, Point
from fuhe.model.quantities import quantity
from fuhe.model.readings import ReadingBatch, samples_from_rows
from fuhe.protocols.common.errors import UsageError


def test_the_severest_cause_decides_and_every_change_is_told() -> None:
    told: list[tuple[Mode, str]] = []
    keeper = ModeKeeper(lambda mode, reason: told.append((mode, reason)))
    keeper.raise_cause("db", Mode.NO_CONTROL, "database away")
    keeper.raise_cause("config", Mode.READ_ONLY, "configured")
    assert (keeper.mode.name, keeper.read_only(), keeper.may_trip()) == ("READ_ONLY", True, False)
    assert keeper.reason == "configured; database away"
    keeper.clear_cause("config")
    assert (keeper.mode.name, keeper.read_only(), keeper.may_trip()) == ("NO_CONTROL", False, False)
    keeper.clear_cause("db")
    keeper.clear_cause("db")
    assert (keeper.mode.name, keeper.may_trip(), len(told)) == ("NORMAL", True, 4)


def _get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_health_tells_mode_and_metrics() -> None:
    state: dict[str, object] = {"mode": "NORMAL"}
    server = HealthServer(HttpConfig(port=0), lambda: state)
    try:
        code, body = _get(server.port, "/health")
        assert code == 200 and json.loads(body)["mode"] == "NORMAL"
        state["mode"] = "READ_ONLY"
        assert _get(server.port, "/health")[0] == 503
        assert b"python_info" in _get(server.port, "/metrics")[1]
        assert _get(server.port, "/other")[0] == 404
    finally:
        server.close()


def test_health_says_so_when_the_loop_is_stuck() -> None:
    server = HealthServer(HttpConfig(port=0), lambda: {"mode": "NORMAL"}, stale_s=-1)
    try:
        assert _get(server.port, "/health")[0] == 503
    finally:
        server.close()


def test_taken_port_is_a_usage_error() -> None:
    first = HealthServer(HttpConfig(port=0), dict)
    try:
        with pytest.raises(UsageError, match=str(first.port)):
            HealthServer(HttpConfig(port=first.port), dict)
    finally:
        first.close()


def test_secrets_must_be_private_and_their_faults_do_not_quote_them(tmp_path: Path) -> None:
    file = tmp_path / "secrets.yaml"
    file.write_text("m1: {password: '123456', operator: '00000001'}\n")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        SecretBook.load(str(file))
    file.chmod(0o600)
    book = SecretBook.load(str(file))
    device = Device(id=1, name="d", link="l", profile="p", address="1", points=(), secret="m1")
    assert book.of(device).password == "123456"
    assert "123456" not in repr(book.of(device))
    other = Device(id=2, name="e", link="l", profile="p", address="2", points=(), secret="gone")
    assert book.missing([device, other]) == ["gone"]
    file.write_text("m1: {password: 123456}\n")
    with pytest.raises(UsageError) as fault:
        SecretBook.load(str(file))
    assert "123456" not in str(fault.value)


def test_live_power_sums_points_in_primary_kw_only_where_all_are_known() -> None:
    points = (
        Point(id=1, name="a", ct_ratio=Decimal(10)),
        Point(id=2, name="b", ct_ratio=Decimal(2), pt_ratio=Decimal(3)),
    )
    live = LivePower(depth=4)
    live.set_devices([Device(id=7, name="d", link="l", profile="p", address="1", points=points)])
    p, u = quantity("active_power_total").id, quantity("voltage_a").id
    rows = [(100, 1, p, 1.0, 0, 1), (100, 2, p, 2.0, 1, 1), (200, 1, p, 3.0, 0, 1), (200, 1, u, 230.0, 0, 1)]
    live.feed(ReadingBatch(received_us=1, samples=samples_from_rows(rows)))
    time_us, kw, quality = live.window(7, 0, 1000)
    assert time_us.tolist() == [100] and kw.tolist() == [22.0] and quality.tolist() == [1]
    assert live.window(8, 0, 1000)[0].size == 0
    late = [(50, 1, p, 9.0, 0, 1)]
    live.feed(ReadingBatch(received_us=2, samples=samples_from_rows(late)))
    assert live.window(7, 0, 99)[0].size == 0


def test_configuration_faults_are_named_by_path(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("links:\n- {name: a, kind: serial, baud: fast}\n")
    with pytest.raises(UsageError, match=r"links\[0\].baud|links\[...\].baud"):
        load_config(file)
    file.write_text("storag: {}\n")
    with pytest.raises(UsageError, match="storag"):
        load_config(file)
    file.write_text("links: [{name: a, kind: tcp}, {name: a, kind: tcp}]\n")
    with pytest.raises(UsageError, match="a"):
        load_config(file)
    with pytest.raises(UsageError, match="nowhere"):
        load_config(tmp_path / "nowhere.yaml")


def test_the_shipped_configuration_is_the_default(tmp_path: Path) -> None:
    shipped = load_config(Path(__file__).resolve().parents[2] / "config.yaml")
    file = tmp_path / "config.yaml"
    file.write_text("{}")
    empty = load_config(file)
    assert Path(empty.storage.data_dir) == tmp_path / Path(shipped.storage.data_dir).name  # each beside its own file
    storage = msgspec.structs.replace(empty.storage, data_dir=shipped.storage.data_dir)
    assert shipped == msgspec.structs.replace(empty, storage=storage)
