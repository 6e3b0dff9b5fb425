"""The state machine, explored whole: every (state, event), every path."""

from __future__ import annotations

import re
from collections import deque
from itertools import product
from pathlib import Path

import pytest

from fuhe.control.rules.states import ACTIVE, CAUSES, FINAL, HELD, TRANSITIONS, Cause, Event, State, next_state
from fuhe.protocols.common.errors import UsageError

SQL = (Path(__file__).parents[2] / "storage/migrations/0002_control.sql").read_text(encoding="utf-8")


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_state_and_event(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(UsageError, match=state):
            next_state(state, event)


def test_finals_are_final_and_nothing_else_is_a_dead_end() -> None:
    leaving = {s for s, _ in TRANSITIONS}
    assert FINAL.isdisjoint(leaving)
    assert set(State) - FINAL <= leaving


def test_everything_is_reachable_and_every_cut_can_be_released() -> None:
    def reach(start: State) -> set[State]:
        seen, todo = {start}, deque([start])
        while todo:
            here = todo.popleft()
            for (state, _), after in TRANSITIONS.items():
                if state is here and after not in seen:
                    seen.add(after)
                    todo.append(after)
        return seen

    assert reach(State.DRAFT) == set(State)
    for state in HELD:
        assert State.CLOSED in reach(state)


def test_the_only_way_to_sent_passes_signatures_person_and_interlocks() -> None:
    """Every path to SENT has submit, a second person's approve, a person's execute, pass and send, in this order."""
    assert [k for k, v in TRANSITIONS.items() if v is State.SENT] == [(State.SELECTED, Event.SEND)]
    assert [k for k, v in TRANSITIONS.items() if v is State.SELECTED] == [(State.CHECKING, Event.PASS)]
    assert [k for k, v in TRANSITIONS.items() if v is State.CHECKING] == [(State.APPROVED, Event.EXECUTE)]
    assert [k for k, v in TRANSITIONS.items() if v is State.APPROVED] == [(State.SUBMITTED, Event.APPROVE)]
    into = {e for (_, e), v in TRANSITIONS.items() if v is State.SUBMITTED}
    assert into == {Event.SUBMIT, Event.RESUBMIT}
    assert CAUSES[Event.APPROVE] is Cause.SECOND
    assert all(CAUSES[e] is Cause.PERSON for e in (Event.SUBMIT, Event.RESUBMIT, Event.EXECUTE, Event.RELEASE))


def test_sent_happens_at_most_once() -> None:
    """From SENT no path leads back to SELECTED: a command can never be sent twice."""
    seen, todo = {State.SENT}, deque([State.SENT])
    while todo:
        here = todo.popleft()
        for (state, _), after in TRANSITIONS.items():
            if state is here and after not in seen:
                seen.add(after)
                todo.append(after)
    assert seen.isdisjoint({State.SELECTED, State.CHECKING, State.APPROVED, State.SUBMITTED, State.BLOCKED})


def test_unknown_is_never_left_by_time_alone() -> None:
    assert {e for s, e in TRANSITIONS if s is State.UNKNOWN} == {Event.ACK, Event.FAIL, Event.RELEASE}


def test_the_database_names_the_same_states() -> None:
    finals = re.search(r"OLD.state IN \(([^)]*)\)", SQL)
    active = re.search(r"command_one_active.*?IN \(([^)]*)\)", SQL, re.S)
    live = re.search(r"command_live.*?NOT IN \(([^)]*)\)", SQL, re.S)
    assert finals and active and live
    assert set(re.findall(r"\w+", finals[1])) == {s.value for s in FINAL} == set(re.findall(r"\w+", live[1]))
    assert set(re.findall(r"\w+", active[1])) == {s.value for s in ACTIVE}
