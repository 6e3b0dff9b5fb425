"""The state machine, explored whole: every (state, event), every path, for every kind of control."""

from __future__ import annotations

import re
from collections import deque
from itertools import product
from pathlib import Path

import pytest

from fuhe.control.rules.kinds import KINDS, Effect, Kind
from fuhe.control.rules.states import ACTIVE, CAUSES, FINAL, HELD, ONLY, TRANSITIONS, Cause, Event, State, next_state
from fuhe.protocols.common.errors import UsageError

MIGRATIONS = Path(__file__).parents[2] / "storage/migrations"
SQL = (MIGRATIONS / "0002_control.sql").read_text(encoding="utf-8")
KINDS_SQL = next(MIGRATIONS.glob("*_control_kinds.sql")).read_text(encoding="utf-8")
TRIP, CUTTING = KINDS["trip"], [k for k in KINDS.values() if k.takes_supply]
SETTING = [k for k in CUTTING if k.settings]


def steps_of(kind: Kind, signatures: int = 2) -> dict[tuple[State, Event], State]:
    """The table as one kind may walk it."""
    found = {}
    for state, event in product(State, Event):
        try:
            found[state, event] = next_state(state, event, kind, signatures)
        except UsageError:
            continue
    return found


def reach(table: dict[tuple[State, Event], State], start: State) -> set[State]:
    """Everything that can come after `start`."""
    seen, todo = {start}, deque([start])
    while todo:
        here = todo.popleft()
        for (state, _), after in table.items():
            if state is here and after not in seen:
                seen.add(after)
                todo.append(after)
    return seen


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_state_and_event(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event, signatures=1) is TRANSITIONS[state, event]
    else:
        with pytest.raises(UsageError, match=state):
            next_state(state, event, signatures=1)


def test_finals_are_final_and_nothing_else_is_a_dead_end() -> None:
    leaving = {s for s, _ in TRANSITIONS}
    assert FINAL.isdisjoint(leaving)
    assert set(State) - FINAL <= leaving
    assert set(ONLY) <= set(TRANSITIONS), "a rule about a step that does not exist"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_whatever_a_kind_can_come_to_it_can_end(kind: Kind) -> None:
    for signatures in {1, kind.signatures}:
        table = steps_of(kind, signatures)
        for state in reach(table, State.DRAFT):
            assert reach(table, state) & FINAL, state


@pytest.mark.parametrize("kind", CUTTING, ids=[k.name for k in CUTTING])
def test_every_cut_can_be_released(kind: Kind) -> None:
    table = steps_of(kind)
    seen = reach(table, State.DRAFT)
    assert seen >= HELD | {State.CLOSED}
    for state in HELD:
        assert State.CLOSED in reach(table, state)


def ways_into(table: dict[tuple[State, Event], State], state: State) -> set[tuple[State, Event]]:
    """The steps that lead to a state."""
    return {step for step, after in table.items() if after is state}


@pytest.mark.parametrize("kind", CUTTING, ids=[k.name for k in CUTTING])
def test_the_only_way_to_sent_passes_signatures_person_and_interlocks(kind: Kind) -> None:
    """Every path to SENT has submit, a second person's approve, a person's execute, pass and send, in this order; for a
    kind with parameters also set and equal: what was not read back as it should be is never engaged."""
    table = steps_of(kind, kind.signatures)
    assert kind.signatures == 2 and kind.ordered and kind.release is not None
    if kind.settings:
        assert ways_into(table, State.SENT) == {(State.SET, Event.SEND)}
        assert ways_into(table, State.SET) == {(State.SETTING, Event.EQUAL)}
        assert ways_into(table, State.SETTING) == {(State.SELECTED, Event.SET)}
    else:
        assert ways_into(table, State.SENT) == {(State.SELECTED, Event.SEND)}
    assert ways_into(table, State.SELECTED) == {(State.CHECKING, Event.PASS)}
    assert ways_into(table, State.CHECKING) == {(State.APPROVED, Event.EXECUTE)}
    assert ways_into(table, State.APPROVED) == {(State.SUBMITTED, Event.APPROVE)}
    assert {e for _, e in ways_into(table, State.SUBMITTED)} == {Event.SUBMIT, Event.RESUBMIT}
    assert CAUSES[Event.APPROVE] is Cause.SECOND
    assert all(CAUSES[e] is Cause.PERSON for e in (Event.SUBMIT, Event.RESUBMIT, Event.EXECUTE, Event.RELEASE))
    assert all(CAUSES[e] is Cause.DAEMON for e in (Event.SET, Event.EQUAL, Event.DIFFERENT, Event.LOST))


def test_parameters_alone_are_never_sent_as_a_control() -> None:
    table = steps_of(KINDS["parameters"], 1)
    assert State.SENT not in reach(table, State.DRAFT)
    assert next_state(State.SET, Event.CLOSE, KINDS["parameters"]) is State.CLOSED


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_sent_happens_at_most_once(kind: Kind) -> None:
    """From SENT no path leads back: a command can never be sent twice."""
    before = {State.SELECTED, State.SETTING, State.SET, State.CHECKING, State.APPROVED, State.SUBMITTED, State.BLOCKED}
    assert reach(steps_of(kind, kind.signatures), State.SENT).isdisjoint(before)


def test_one_signature_opens_one_door_only() -> None:
    """With one signature the drafter may ask for the execution; nothing else differs."""
    one, two = steps_of(KINDS["protect"], 1), steps_of(KINDS["protect"], 2)
    assert set(one) - set(two) == {(State.SUBMITTED, Event.EXECUTE)} and set(two) <= set(one)


def test_unknown_is_never_left_by_time_alone() -> None:
    for kind in CUTTING:
        left = {e for s, e in steps_of(kind) if s is State.UNKNOWN}
        assert left == {Event.ACK, Event.FAIL, Event.RELEASE}
    states = {e for s, e in steps_of(KINDS["protect"], 1) if s is State.UNKNOWN}
    assert states == {Event.ACK, Event.FAIL, Event.CANCEL}


def test_the_database_names_the_same_states_and_kinds() -> None:
    finals = re.search(r"OLD.state IN \(([^)]*)\)", KINDS_SQL)
    active = re.search(r"command_one_active.*?state IN \(([^)]*)\)", KINDS_SQL, re.S)
    live = re.search(r"command_live.*?NOT IN \(([^)]*)\)", SQL, re.S)
    takes = re.search(r"SELECT kind IN \(([^)]*)\)", KINDS_SQL)
    setting = re.search(r"NEW.kind IN \(([^)]*)\)\s+THEN 'SET'", KINDS_SQL)
    two = re.search(r"kind NOT IN \(([^)]*)\) OR signatures = 2", KINDS_SQL)
    assert finals and active and live and takes and setting and two
    assert set(re.findall(r"\w+", finals[1])) == {s.value for s in FINAL} == set(re.findall(r"\w+", live[1]))
    assert set(re.findall(r"\w+", active[1])) == {s.value for s in ACTIVE}
    assert set(re.findall(r"\w+", takes[1])) == {k.name for k in CUTTING}
    assert set(re.findall(r"\w+", setting[1])) == {k.name for k in SETTING}
    lifted = {k.name for k in KINDS.values() if k.effect is Effect.STATE and k.signatures == 2}
    assert set(re.findall(r"\w+", two[1])) == lifted
