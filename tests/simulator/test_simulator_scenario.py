"""Scenarios: every fault named with its path, ready-made ones are good, what is emitted is what a master can take."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.devices import export_devices, parse_devices
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.commands.archive_files import read_archive
from fuhe.commands.common import App
from fuhe.commands.sim import sim
from fuhe.model.archive import MeteringPoint
from fuhe.model.archive_plan import Known, plan_changes
from fuhe.model.devices import Credentials
from fuhe.model.times import US
from fuhe.protocols.common.errors import UsageError
from fuhe.simulator.clock import StepClock
from fuhe.simulator.emit import devices_csv, emit, rounds_csv, secrets, truth
from fuhe.simulator.fleet import fleet
from fuhe.simulator.load import day_start
from fuhe.simulator.scenario import builtin_scenarios, load_scenario, parse_scenario
from fuhe.simulator.simulation import Simulation

NOW = day_start(20_300) + (10 * 3600 + 400) * US


def tree(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": "t",
        "buses": [{"name": "b", "kind": "tcp", "protocol": "dlt645"}],
        "devices": [
            {
                "name": "d",
                "bus": "b",
                "profile": "dlt645-2007-relay",
                "address": "7",
                "ct_ratio": 20,
                "site": {"shape": "steel", "base_kw": 10, "rounds": [{"kw": 30}]},
            }
        ],
    }
    return base | changes


def test_every_fault_is_named_with_its_path() -> None:
    bad = {
        "past_days": -1,
        "clock": {"speed": 0},
        "buses": [
            {"name": "b", "kind": "tcp", "protocol": "dlt645"},
            {"name": "b", "kind": "mqtt", "protocol": "dlt645"},
        ],
        "devices": [
            {"name": "x", "bus": "nowhere", "profile": "unknown", "address": "1",
             "site": {"shape": "moon", "base_kw": -1}},
            {"name": "y", "bus": "b", "profile": "dlt645-2007-3p4w", "address": "no", "password": "1",
             "site": {"shape": "steel", "base_kw": 900}},
        ],
        "faults": [
            {"kind": "gremlin", "target": ["x"]},
            {"kind": "silent", "target": ["z"], "probability": 2, "value": 1},
        ],
    }  # fmt: skip
    with pytest.raises(UsageError) as caught:
        parse_scenario(tree(**bad))
    text = str(caught.value)
    for path in (
        "past_days", "clock.speed", "buses[0].name", "buses[1].name", "buses[1].protocol", "buses[1].port",
        "devices[0].profile", "devices[0].bus", "devices[0].site.shape", "devices[0].site.base_kw",
        "devices[1].address",
        "devices[1].password", "devices[1].ct_ratio", "faults[0].kind", "faults[1].target", "faults[1].probability",
        "faults[1].value",
    ):  # fmt: skip
        assert f"\n  {path}" in text, path


def test_types_unknown_and_missing_fields_are_all_named_too() -> None:
    wrong = tree()
    wrong["devices"][0]["site"] = {"shape": "steel", "base_kw": "much", "rounds": [{"kw": "x", "colour": 1}, 5]}
    del wrong["devices"][0]["address"]
    wrong["buses"].append({"name": "c", "kind": "smoke", "protocol": "dlt645"})
    wrong["extra"] = 1
    with pytest.raises(UsageError) as caught:
        parse_scenario(wrong)
    text = str(caught.value)
    for path in (
        "extra", "buses[1].kind", "devices[0].address", "devices[0].site.base_kw", "devices[0].site.rounds[0].kw",
        "devices[0].site.rounds[0].colour", "devices[0].site.rounds[1]",
    ):  # fmt: skip
        assert f"\n  {path}" in text, path


@pytest.mark.parametrize("value", [None, [], "text", 5, {"name": "x"}, {"buses": 3, "devices": {}, "name": 1}])
def test_nonsense_is_a_usage_error(value: object) -> None:
    with pytest.raises(UsageError):
        parse_scenario(value)


@pytest.mark.parametrize("path", builtin_scenarios().values(), ids=builtin_scenarios().keys())
def test_the_ready_made_scenarios_are_good(path: Path) -> None:
    Simulation(load_scenario(path), StepClock(NOW))


def test_the_demo_is_what_the_demonstration_needs() -> None:
    simulation = Simulation(load_scenario(builtin_scenarios()["demo"]), StepClock(NOW))
    assert len(simulation.meters) == 28 and len(simulation.terminals) == 3 and len(simulation.buses) == 8
    assert sum(bool(m.relays) for m in simulation.meters.values()) >= 8
    assert {b.kind for b in simulation.scenario.buses} == {"pty", "tcp", "mqtt", "dial", "udp"}
    noon = np.array([day_start(20_300 - back) + 10 * 3600 * US for back in range(7)])
    totals = sum(m.site.power(noon) for m in simulation.meters.values())
    assert np.all((totals > 2500) & (totals < 7000))


def test_what_is_emitted_is_taken_by_the_master(tmp_path: Path) -> None:
    simulation = Simulation(load_scenario(builtin_scenarios()["demo"]), StepClock(NOW))
    files = {p.name: p for p in emit(simulation, tmp_path)}
    links = msgspec.convert(yaml.safe_load(files["links.yaml"].read_text())["links"], list[LinkConfig])
    data = files["devices.csv"].read_bytes()
    parsed = parse_devices(data, links={link.name: link for link in links}, profiles=builtin_profiles())
    assert parsed.faults == () and len(parsed.devices) == 27
    assert export_devices(parsed.devices) == data
    stored = msgspec.convert(yaml.safe_load(files["secrets.yaml"].read_text()), dict[str, Credentials])
    assert {d.secret for d in parsed.devices if d.secret} == set(stored)
    assert files["secrets.yaml"].stat().st_mode & 0o777 == 0o600
    rounds = list(csv.DictReader(io.StringIO(files["rounds.csv"].read_text())))
    assert {r["device"] for r in rounds} <= {d.name for d in parsed.devices} and len(rounds) >= 8
    rows, faults = read_archive(tmp_path / "archive")
    known = Known(points={p.name for d in parsed.devices for p in d.points}, devices={d.name for d in parsed.devices})
    plan = plan_changes([], rows, 0, known)
    assert faults == [] and plan.faults == []
    counts = Counter(c.entity for c in plan.changes)
    assert counts["customers"] == 27 and counts["points"] >= 27
    assert counts["protections"] == counts["security_loads"] == 1 and counts["conflict_sets"] == 2
    factors = {p.name: p.multiplier for d in parsed.devices for p in d.measuring}
    archived = {r.record.point: r.record.factor for r in rows if isinstance(r.record, MeteringPoint)}
    assert archived == factors
    told = json.loads(files["truth.json"].read_text())
    assert told["count"] == len(told["power_kw"]["line-a-1"]) == len(simulation.past_slots()) >= 7 * 96


def test_the_truth_is_the_meters_own_curve() -> None:
    simulation = Simulation(parse_scenario(tree(past_days=3)), StepClock(NOW))
    told = truth(simulation)["power_kw"]
    assert isinstance(told, dict)
    slots = simulation.past_slots()
    meter = simulation.meters["d"]
    stored, quality = meter.curve("active_power_total", slots)
    assert np.allclose(stored * meter.multiplier, told["d"], atol=1e-3) and not quality.any()
    energy = meter.site.energy(slots).sum(axis=0)
    assert np.allclose(np.diff(energy), (np.array(told["d"][1:]) + told["d"][:-1]) / 8, atol=1e-3)


def test_the_same_seed_gives_the_same_past_and_another_a_different_one() -> None:
    curves = [Simulation(parse_scenario(tree(seed=s)), StepClock(NOW)).past_curves()["d"] for s in (1, 1, 2)]
    assert np.array_equal(curves[0], curves[1]) and not np.array_equal(curves[0], curves[2])


def test_names_that_need_no_secret_have_none() -> None:
    simulation = Simulation(parse_scenario(tree()), StepClock(NOW))
    assert secrets(simulation) == {}
    assert "d,b,dlt645-2007-relay,000000000007,d,1,measuring,20,1,,220,3P4W,yes,," in devices_csv(simulation)
    assert rounds_csv(simulation).splitlines()[1].startswith("d,1,steel round 1,5,30,")


@pytest.mark.parametrize("kind", ["dlt645", "modbus-tcp", "modbus-rtu", "mqtt"])
def test_a_generated_fleet_is_a_good_scenario(kind: Any) -> None:
    made = fleet(75, kind, per_bus=30)
    scenario = parse_scenario(made)
    assert len(scenario.devices) == 75 and made == fleet(75, kind, per_bus=30)
    assert len(scenario.buses) == (1 if kind == "mqtt" else 3)
    with pytest.raises(UsageError):
        fleet(0, kind)


def test_the_verbs(tmp_path: Path) -> None:
    def run(*words: str) -> Any:
        return CliRunner().invoke(sim, list(words), obj=App())

    listed = run("list", "--json")
    assert listed.exit_code == 0 and {r["name"] for r in json.loads(listed.output)} >= {"demo", "bus30", "faults"}
    assert run("check", "demo").exit_code == 0
    (tmp_path / "bad.yaml").write_text("name: x\nbuses: []\n")
    bad = run("check", str(tmp_path / "bad.yaml"))
    assert bad.exit_code == 1 and "devices" in bad.output
    assert run("check", "nothing-like-this").exit_code == 1
    made = run("fleet", str(tmp_path / "f.yaml"), "--count", "12")
    assert made.exit_code == 0 and run("check", str(tmp_path / "f.yaml")).exit_code == 0
    out = str(tmp_path / "out")
    started = run("run", str(tmp_path / "f.yaml"), "--for", "0.05", "--emit", out, "--control", "0", "--json")
    told = json.loads(started.output)
    assert started.exit_code == 0 and told["devices"] == 12 and len(told["written"]) == 6 and told["control"] > 0
