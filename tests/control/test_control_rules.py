"""Choosing, verifying, restoring: properties and numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.control.rules.choose import REFUSE_SHARE, TAKE_SHARE, Candidate, Measure, choose, sequence_key
from fuhe.control.rules.kinds import KINDS
from fuhe.control.rules.restore import CutRow, clpu_factor, restore_plan
from fuhe.control.rules.states import Event
from fuhe.control.rules.verify import DropEvidence, load_is_back, resolve_unknown, shows, verify_drop
from fuhe.model.control import SwitchState


def candidate(row: int, **values: object) -> Candidate:
    """A usable row of 100 kW."""
    base: dict[str, object] = {
        "row": row, "measure": Measure.TRIP, "seq": row, "device": row, "round": 1, "customer_class": "N",
        "round_kw": 100.0, "p_now_kw": 1000.0, "p_min15_kw": 1000.0, "age_s": 10.0, "floor_kw": 100.0, "eta": 1.0,
    }  # fmt: skip
    return Candidate(**(base | values))  # type: ignore[arg-type]


kw = st.floats(0, 2000, allow_nan=False)
maybe_kw = st.one_of(st.none(), kw)
rows = st.lists(
    st.builds(
        candidate, st.just(0), measure=st.sampled_from(Measure), seq=st.integers(1, 5), device=st.integers(1, 4),
        round=st.integers(1, 3), customer_class=st.sampled_from("PSNF"), round_kw=maybe_kw, p_now_kw=maybe_kw,
        p_min15_kw=maybe_kw, age_s=st.one_of(st.none(), st.floats(0, 600)), floor_kw=maybe_kw, limit_kw=kw,
        eta=st.sampled_from([0.8, 0.95]), curtailed_kwh=st.sampled_from([0.0, 5.0]), is_open=st.booleans(),
        obstacles=st.sampled_from([(), (), ("offline",)]),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(rows, st.floats(1, 5000))
def test_choosing_keeps_its_promises(found: list[Candidate], gap: float) -> None:
    candidates = [Candidate(**{n: getattr(c, n) for n in c.__slots__} | {"row": i}) for i, c in enumerate(found)]
    choice = choose(candidates, gap_kw=gap)
    by_row = {c.row: c for c in candidates}
    assert [r.row for r in choice.rows] == [c.row for c in sorted(candidates, key=sequence_key)]
    assert all(r.reason for r in choice.rows), "a reason for every row"
    chosen = [by_row[r.row] for r in choice.rows if r.chosen]
    assert not any(c.customer_class == "P" or c.obstacles or c.is_open for c in chosen)
    assert choice.total_kw == pytest.approx(sum(r.expected_kw for r in choice.rows if r.chosen))
    for device in {c.device for c in chosen}:
        mine = [c for c in chosen if c.device == device]
        for c in mine:
            assert c.p_min15_kw is not None and c.floor_kw is not None and c.p_now_kw is not None
            assert c.age_s is not None and c.age_s <= 300
        left = min(c.p_min15_kw or 0 for c in mine) - sum(c.round_kw or 0 for c in mine)
        own = [c.p_min15_kw for c in mine]
        if len(set(own)) == 1:  # one terminal has one power; the strategy may give its rows several
            assert left >= max(c.floor_kw or 0 for c in mine[-1:]) - 1e-6, "floor never crossed"
    if choice.feasible:
        assert choice.total_kw >= gap * TAKE_SHARE
        assert choice.total_kw <= gap * REFUSE_SHARE or (choice.over and len(chosen) == 1)
        assert not choice.binding
    else:
        assert choice.binding, "a refusal names what binds"
    passed_over = [r for r in choice.rows if not r.chosen and r.expected_kw > 0]
    for r in passed_over:
        assert not any(c.measure > by_row[r.row].measure for c in chosen), "no measure is skipped"


def test_takes_the_sequence_until_105_percent() -> None:
    choice = choose([candidate(n) for n in range(1, 9)], gap_kw=380.0)
    assert [r.row for r in choice.rows if r.chosen] == [1, 2, 3, 4] and choice.feasible
    assert choice.total_kw == 400.0 and choice.target_kw == pytest.approx(399.0)


def test_measured_power_counts_not_paper() -> None:
    choice = choose([candidate(1, p_now_kw=150.0, p_min15_kw=250.0, eta=0.95)], gap_kw=10.0)
    assert choice.rows[0].expected_kw == pytest.approx(0.95 * 50.0)


def test_large_row_is_passed_over_or_stands_alone() -> None:
    rows_ = [candidate(1, round_kw=900.0), candidate(2), candidate(3)]
    choice = choose(rows_, gap_kw=180.0)
    assert [r.row for r in choice.rows if r.chosen] == [2, 3] and not choice.over
    alone = choose([candidate(1), candidate(2, round_kw=900.0)], gap_kw=300.0)
    assert [r.row for r in alone.rows if r.chosen] == [2] and alone.feasible and alone.over
    refused = choose([candidate(1), candidate(2)], gap_kw=300.0)
    assert not refused.feasible and "315.0" in refused.binding[0]


def test_rotation_and_rounds() -> None:
    tired = candidate(1, seq=1, curtailed_kwh=50.0)
    fresh = candidate(2, seq=1)
    assert [r.row for r in choose([tired, fresh], gap_kw=95.0).rows if r.chosen] == [2]
    blocked = [candidate(1, device=7, obstacles=("tag",)), candidate(2, device=7, round=2)]
    choice = choose(blocked, gap_kw=95.0)
    assert not choice.feasible and "round 1" in choice.rows[1].reason


def test_check_value_only_round_one() -> None:
    both = [
        candidate(1, device=1, round=1, round_kw=300.0, p_now_kw=900.0, p_min15_kw=900.0, floor_kw=500.0),
        candidate(2, device=1, round=2, round_kw=400.0, p_now_kw=900.0, p_min15_kw=900.0, floor_kw=500.0),
    ]
    choice = choose(both, gap_kw=600.0)
    assert [r.chosen for r in choice.rows] == [True, False] and "floor" in choice.rows[1].reason


def drop(before: float | None, now: float | None, **values: object) -> object:
    """Verdict for a 100 kW round, contact open."""
    base: dict[str, object] = {
        "before_kw": before, "now_kw": now, "quantum_kw": 1.0, "round_kw": 100.0, "floor_kw": 0.0, "has_contact": True,
        "switch": SwitchState(time_us=0, open=True),
    }  # fmt: skip
    return verify_drop(DropEvidence(**(base | values)))  # type: ignore[arg-type]


CLOSED = SwitchState(time_us=0, open=False, command_trip=False)


@pytest.mark.parametrize(("before", "now", "values", "event", "ticket"), [
    (500.0, 420.0, {}, Event.PROVEN, False),
    (500.0, 420.1, {}, Event.PROVEN_PART, False),
    (500.0, 470.0, {}, Event.PROVEN_PART, False),
    (500.0, 470.1, {}, Event.NOT_PROVEN, True),
    (500.0, 520.0, {}, Event.NOT_PROVEN, True),
    (500.0, 400.0, {"switch": CLOSED}, Event.NOT_PROVEN, True),
    (500.0, 500.0, {"switch": CLOSED}, Event.NOT_PROVEN, False),
    (500.0, 90.0, {"switch": CLOSED, "floor_kw": 100.0}, Event.FELL_BY_ITSELF, False),
    (500.0, 420.0, {"has_contact": False, "switch": None}, Event.PROVEN, False),
    (500.0, 420.0, {"switch": None}, None, False),
    (500.0, 420.0, {"quantum_kw": 30.0}, Event.PROVEN_PART, False),
    (None, 420.0, {}, None, False),
    (500.0, None, {}, None, False),
])  # fmt: skip
def test_verify_numbers(
    before: float | None, now: float | None, values: dict[str, object], event: Event | None, ticket: bool
) -> None:
    found = drop(before, now, **values)
    assert (found.event, found.ticket) == (event, ticket)  # type: ignore[attr-defined]
    assert found.reason  # type: ignore[attr-defined]
    if before is None or now is None:
        assert found.drop_kw is None  # type: ignore[attr-defined]


def resolved(switch: SwitchState | None, now_us: int) -> Event | None:
    """What a state says about a trip of round 1 that may act until 5."""
    shown = shows(KINDS["trip"], 1, switch)
    return resolve_unknown(shown, read=switch is not None, now_us=now_us, last_act_us=5)[0]


def test_unknown_is_resolved_by_state_only() -> None:
    assert resolved(None, 10) is None
    assert resolved(CLOSED, 4) is None, "it may still act"
    assert resolved(CLOSED, 5) is Event.FAIL
    assert resolved(SwitchState(time_us=0, open=True), 1) is Event.ACK
    assert resolved(SwitchState(time_us=0, open=None), 9) is None
    assert resolved(SwitchState(time_us=0, open=False, alarm=True), 9) is Event.ACK


def test_load_is_back() -> None:
    opened = SwitchState(time_us=0, open=True)

    def back(before: float | None, now: float | None, switch: SwitchState | None = None) -> bool:
        return load_is_back(before_kw=before, now_kw=now, round_kw=100.0, switch=switch) is not None

    assert back(100.0, 50.0) and not back(100.0, 49.9)
    assert back(1000.0, 950.0) and not back(1000.0, 949.0), "other load hides the round"
    assert back(None, None, CLOSED) and not back(100.0, 100.0, opened)
    assert not back(0.0, 0.0)

    def closed(switch: SwitchState | None) -> bool:
        said = load_is_back(before_kw=100.0, now_kw=100.0, round_kw=100.0, switch=switch, has_contact=True)
        return said is not None

    assert closed(CLOSED) and not closed(None), "a contact that was not read is not closed by other load"


def test_pickup_factor_bounds() -> None:
    assert [clpu_factor(m) for m in (0, 14.9, 15, 60, 60.1)] == [1.0, 1.0, 1.5, 1.5, 2.0]


def test_restore_in_reverse_blocks_within_margin() -> None:
    cut = [CutRow(command=n, order=n, kw=100.0, off_min=30.0) for n in range(1, 6)]
    steps = restore_plan(cut, margin_kw=10_000.0, block_share=0.2)
    assert [(s.command, s.block) for s in steps] == [(5, 1), (4, 2), (3, 3), (2, 4), (1, 5)]
    assert all(s.expected_kw == 150.0 for s in steps)
    short = restore_plan(cut, margin_kw=310.0, block_share=0.4)
    assert [(s.command, s.block) for s in short] == [(5, 1), (4, 1), (3, None), (2, None), (1, None)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 900), st.floats(0, 200)), min_size=1, max_size=15), st.floats(0, 5000))
def test_restore_properties(cut: list[tuple[float, float]], margin: float) -> None:
    cut_rows = [CutRow(command=n, order=n, kw=kw_, off_min=off) for n, (kw_, off) in enumerate(cut)]
    steps = restore_plan(cut_rows, margin_kw=margin, block_share=0.2)
    assert [s.command for s in steps] == sorted((s.command for s in steps), reverse=True)
    back = [s for s in steps if s.block is not None]
    assert sum(s.expected_kw for s in back) <= margin + 1e-6
    assert back == steps[: len(back)], "nobody less important comes back first"
    limit = 0.2 * sum(r.kw for r in cut_rows)
    for block in {s.block for s in back}:
        inside = [cut_rows[s.command].kw for s in back if s.block == block]
        assert len(inside) == 1 or sum(inside) <= limit + 1e-6
