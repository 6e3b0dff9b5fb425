"""docs/simulator.md names every fault kind, profile and control operation, and its example is a good scenario."""

from __future__ import annotations

from pathlib import Path

import yaml

from fuhe.simulator.clock import StepClock
from fuhe.simulator.faults import KINDS
from fuhe.simulator.remote import Remote
from fuhe.simulator.scenario import MODELS, parse_scenario
from fuhe.simulator.simulation import Simulation

TEXT = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")


def test_the_reference_is_complete() -> None:
    rows = {f"| `{n}` | {k.group} | {k.text} | {'' if k.value is None else k.value} |" for n, k in KINDS.items()}
    assert not [r for r in rows if r not in TEXT]
    assert not [m for m in MODELS if f"`{m}`" not in TEXT]
    example = yaml.safe_load(TEXT.split("```yaml\n")[1].split("```")[0])
    simulation = Simulation(parse_scenario(example), StepClock(1_760_000_000_000_000))
    assert not [o for o in Remote(simulation).operations if f'"op":"{o}"' not in TEXT]
