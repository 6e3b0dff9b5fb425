"""The life of a command (domain 9.3) as one table: (state, event) -> next state, and who may cause which event.

There is no other way from one state to another. What is not in the table is refused, by the program and (final states,
the way to SENT) by the database as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ...model.lang import tr
from ...protocols.common.errors import UsageError
from .kinds import Effect, Kind


class State(StrEnum):
    """Where a command stands. SENT means "may have left": what is known of the wire stands in fields of its own.

    SETTING: its parameters may be on their way, nothing is engaged; SET: every one was read back and is as wanted.
    """

    DRAFT = "DRAFT"
    SUBMITTED = "SUBMITTED"
    APPROVED = "APPROVED"
    CHECKING = "CHECKING"
    BLOCKED = "BLOCKED"
    SELECTED = "SELECTED"
    RELEASED_SELECT = "RELEASED_SELECT"
    SETTING = "SETTING"
    SET = "SET"
    SENT = "SENT"
    NACKED = "NACKED"
    UNKNOWN = "UNKNOWN"
    ACKED = "ACKED"
    ALARMING = "ALARMING"
    VERIFYING = "VERIFYING"
    EFFECTIVE = "EFFECTIVE"
    PARTIAL = "PARTIAL"
    INEFFECTIVE = "INEFFECTIVE"
    ABANDONED = "ABANDONED"
    AUTO_RELEASED = "AUTO_RELEASED"
    RELEASING = "RELEASING"
    RELEASED = "RELEASED"
    RESTORED = "RESTORED"
    CLOSED = "CLOSED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"
    SUPERSEDED = "SUPERSEDED"


class Event(StrEnum):
    """What can happen to a command."""

    SUBMIT = "submit"
    APPROVE = "approve"
    REJECT = "reject"
    CANCEL = "cancel"
    EXECUTE = "execute"
    RESUBMIT = "resubmit"
    RELEASE = "release"
    SUPERSEDE = "supersede"
    EXPIRE = "expire"
    PASS = "pass"
    BLOCK = "block"
    DROP_SELECT = "drop_select"
    SET = "set"
    EQUAL = "equal"
    DIFFERENT = "different"
    SEND = "send"
    NOT_SENT = "not_sent"
    ACK = "ack"
    NACK = "nack"
    SILENCE = "silence"
    FAIL = "fail"
    ALARM = "alarm"
    ALARM_STOPPED = "alarm_stopped"
    VERIFY = "verify"
    PROVEN = "proven"
    PROVEN_PART = "proven_part"
    NOT_PROVEN = "not_proven"
    FELL_BY_ITSELF = "fell_by_itself"
    TIME_OVER = "time_over"
    LOST = "lost"
    RELEASE_ACK = "release_ack"
    LOAD_BACK = "load_back"
    CLOSE = "close"
    RECOVER = "recover"


class Cause(StrEnum):
    """Who causes an event. PERSON: a logged-in person; SECOND: another person in another session than the drafter;
    DAEMON: time, a device's answer or metering."""

    PERSON = "person"
    SECOND = "second"
    DAEMON = "daemon"


CAUSES: Final[Mapping[Event, Cause]] = MappingProxyType(
    dict.fromkeys(Event, Cause.DAEMON)
    | {
        Event.SUBMIT: Cause.PERSON,
        Event.APPROVE: Cause.SECOND,
        Event.REJECT: Cause.SECOND,
        Event.CANCEL: Cause.PERSON,
        Event.EXECUTE: Cause.PERSON,
        Event.RESUBMIT: Cause.PERSON,
        Event.RELEASE: Cause.PERSON,
        Event.SUPERSEDE: Cause.PERSON,
    }
)

_S, _E = State, Event
TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        (_S.DRAFT, _E.SUBMIT): _S.SUBMITTED,
        (_S.DRAFT, _E.CANCEL): _S.CANCELLED,
        (_S.SUBMITTED, _E.APPROVE): _S.APPROVED,
        (_S.SUBMITTED, _E.REJECT): _S.REJECTED,
        (_S.SUBMITTED, _E.CANCEL): _S.CANCELLED,
        (_S.SUBMITTED, _E.EXPIRE): _S.EXPIRED,
        (_S.APPROVED, _E.EXECUTE): _S.CHECKING,
        (_S.APPROVED, _E.CANCEL): _S.CANCELLED,
        (_S.APPROVED, _E.EXPIRE): _S.EXPIRED,
        (_S.CHECKING, _E.PASS): _S.SELECTED,
        (_S.CHECKING, _E.BLOCK): _S.BLOCKED,
        (_S.CHECKING, _E.CANCEL): _S.CANCELLED,
        (_S.CHECKING, _E.CLOSE): _S.CLOSED,
        # After a restart a person looks again: what was asked for an unknown time ago is not carried out by itself.
        (_S.CHECKING, _E.RECOVER): _S.BLOCKED,
        (_S.BLOCKED, _E.RESUBMIT): _S.SUBMITTED,
        (_S.BLOCKED, _E.CANCEL): _S.CANCELLED,
        (_S.BLOCKED, _E.EXPIRE): _S.EXPIRED,
        # SELECTED is left for SENT in the transaction that commits before the frame: no frame has left in SELECTED.
        (_S.SELECTED, _E.SEND): _S.SENT,
        (_S.SELECTED, _E.BLOCK): _S.BLOCKED,
        (_S.SELECTED, _E.CANCEL): _S.RELEASED_SELECT,
        (_S.SELECTED, _E.DROP_SELECT): _S.RELEASED_SELECT,
        (_S.SELECTED, _E.RECOVER): _S.RELEASED_SELECT,
        # Parameters first, engage last (9.3): SENT is reached only over SET, where they were read back and are equal.
        (_S.SELECTED, _E.SET): _S.SETTING,
        (_S.SETTING, _E.EQUAL): _S.SET,
        (_S.SETTING, _E.DIFFERENT): _S.FAILED,
        # Nothing is engaged, but what stands in the device is not known: a person looks again.
        (_S.SETTING, _E.RECOVER): _S.BLOCKED,
        (_S.SET, _E.SEND): _S.SENT,
        (_S.SET, _E.BLOCK): _S.BLOCKED,
        (_S.SET, _E.CANCEL): _S.CANCELLED,
        (_S.SET, _E.DROP_SELECT): _S.RELEASED_SELECT,
        (_S.SET, _E.RECOVER): _S.BLOCKED,
        (_S.SET, _E.CLOSE): _S.CLOSED,
        # One signature is enough for some kinds: then the drafter asks for the execution.
        (_S.SUBMITTED, _E.EXECUTE): _S.CHECKING,
        (_S.RELEASED_SELECT, _E.RESUBMIT): _S.SUBMITTED,
        (_S.RELEASED_SELECT, _E.CANCEL): _S.CANCELLED,
        (_S.RELEASED_SELECT, _E.EXPIRE): _S.EXPIRED,
        (_S.SENT, _E.ACK): _S.ACKED,
        (_S.SENT, _E.NACK): _S.NACKED,
        (_S.SENT, _E.SILENCE): _S.UNKNOWN,
        (_S.SENT, _E.NOT_SENT): _S.FAILED,
        (_S.SENT, _E.RECOVER): _S.UNKNOWN,
        (_S.NACKED, _E.FAIL): _S.FAILED,
        (_S.UNKNOWN, _E.ACK): _S.ACKED,
        (_S.UNKNOWN, _E.FAIL): _S.FAILED,
        (_S.UNKNOWN, _E.RELEASE): _S.RELEASING,
        (_S.UNKNOWN, _E.CANCEL): _S.CANCELLED,
        (_S.ACKED, _E.ALARM): _S.ALARMING,
        (_S.ALARMING, _E.VERIFY): _S.VERIFYING,
        (_S.ALARMING, _E.ALARM_STOPPED): _S.CANCELLED,
        (_S.ALARMING, _E.SILENCE): _S.UNKNOWN,
        (_S.ALARMING, _E.RECOVER): _S.UNKNOWN,
        (_S.VERIFYING, _E.PROVEN): _S.EFFECTIVE,
        (_S.VERIFYING, _E.PROVEN_PART): _S.PARTIAL,
        (_S.VERIFYING, _E.NOT_PROVEN): _S.INEFFECTIVE,
        (_S.VERIFYING, _E.FELL_BY_ITSELF): _S.ABANDONED,
        (_S.VERIFYING, _E.RELEASE): _S.RELEASING,
        (_S.VERIFYING, _E.FAIL): _S.FAILED,
        (_S.VERIFYING, _E.CANCEL): _S.CANCELLED,
        (_S.EFFECTIVE, _E.RELEASE): _S.RELEASING,
        (_S.EFFECTIVE, _E.SUPERSEDE): _S.SUPERSEDED,
        (_S.EFFECTIVE, _E.TIME_OVER): _S.AUTO_RELEASED,
        (_S.EFFECTIVE, _E.CLOSE): _S.CLOSED,
        # The device came back and does not hold it any more: nothing is sent again, people decide.
        (_S.VERIFYING, _E.LOST): _S.INEFFECTIVE,
        (_S.EFFECTIVE, _E.LOST): _S.INEFFECTIVE,
        (_S.PARTIAL, _E.LOST): _S.INEFFECTIVE,
        (_S.PARTIAL, _E.RELEASE): _S.RELEASING,
        (_S.PARTIAL, _E.SUPERSEDE): _S.SUPERSEDED,
        (_S.PARTIAL, _E.TIME_OVER): _S.AUTO_RELEASED,
        # A relay may be blocked although no drop was seen: the only way out is to release it.
        (_S.INEFFECTIVE, _E.RELEASE): _S.RELEASING,
        (_S.AUTO_RELEASED, _E.LOAD_BACK): _S.RESTORED,
        # A release that nobody answered may be repeated by a person; the daemon only reads the state.
        (_S.RELEASING, _E.RELEASE): _S.RELEASING,
        (_S.RELEASING, _E.RELEASE_ACK): _S.RELEASED,
        (_S.RELEASED, _E.RELEASE): _S.RELEASING,
        (_S.RELEASED, _E.LOAD_BACK): _S.RESTORED,
        (_S.RESTORED, _E.CLOSE): _S.CLOSED,
    }
)

_LOAD: Final = frozenset({Effect.CUT, Effect.LIMIT, Effect.ENERGY})
# Steps that only some effects may take; what is not listed is open to all.
ONLY: Final[Mapping[tuple[State, Event], frozenset[Effect]]] = MappingProxyType(
    {
        # a state that was set needs nobody to hold it; a state that was not set is not held either
        (_S.EFFECTIVE, _E.CLOSE): frozenset({Effect.STATE}),
        # the device has no such state: what the server keeps of it is all there is
        (_S.CHECKING, _E.CLOSE): frozenset({Effect.STATE}),
        (_S.VERIFYING, _E.FAIL): frozenset({Effect.STATE}),
        **dict.fromkeys(
            (
                (s, e)
                for s, e in TRANSITIONS
                if e in (_E.PROVEN_PART, _E.NOT_PROVEN, _E.FELL_BY_ITSELF, _E.LOST, _E.TIME_OVER, _E.SUPERSEDE)
            ),
            _LOAD,
        ),
        # nobody loses supply by a state that is not known: a person may give up asking for it
        (_S.UNKNOWN, _E.CANCEL): frozenset({Effect.STATE}),
        (_S.VERIFYING, _E.CANCEL): frozenset({Effect.STATE}),
        # parameters are done when they are read back
        (_S.SET, _E.CLOSE): frozenset({Effect.SETTINGS}),
        (_S.SET, _E.SEND): frozenset({Effect.LIMIT, Effect.ENERGY}),
        (_S.SELECTED, _E.SET): frozenset({Effect.LIMIT, Effect.ENERGY, Effect.SETTINGS}),
        (_S.SELECTED, _E.SEND): frozenset({Effect.CUT, Effect.STATE}),
    }
)

FINAL: Final = frozenset(
    {
        State.CANCELLED,
        State.REJECTED,
        State.EXPIRED,
        State.FAILED,
        State.ABANDONED,
        State.SUPERSEDED,
        State.CLOSED,
    }
)

# A command in one of these reserves its round: no other command may be executed there (interlock 13).
ACTIVE: Final = frozenset(
    {
        State.CHECKING,
        State.SELECTED,
        State.SETTING,
        State.SET,
        State.SENT,
        State.UNKNOWN,
        State.ACKED,
        State.ALARMING,
        State.VERIFYING,
        State.EFFECTIVE,
        State.PARTIAL,
        State.INEFFECTIVE,
        State.AUTO_RELEASED,
        State.RELEASING,
        State.RELEASED,
    }
)

# The trip may be under way, so the drop is not yet in the measured power (interlock 3 adds it).
PENDING: Final = frozenset({State.SENT, State.UNKNOWN, State.ACKED, State.ALARMING, State.VERIFYING})

# Customers in these may be without supply by our command; shown as "held".
HELD: Final = PENDING | {State.EFFECTIVE, State.PARTIAL, State.INEFFECTIVE, State.RELEASING, State.RELEASED}

# A person's `release` starts from one of these.
RELEASABLE: Final = frozenset(s for s, e in TRANSITIONS if e is Event.RELEASE)


def next_state(state: State, event: Event, kind: Kind | None = None, signatures: int = 2) -> State:
    """The state after `event`; UsageError if the tables have no such step for this kind and number of signatures."""
    step = (state, event)
    try:
        if kind is not None and kind.effect not in ONLY.get(step, (kind.effect,)):
            raise KeyError(step)
        if step == (State.SUBMITTED, Event.EXECUTE) and signatures > 1:
            raise KeyError(step)
        if event is Event.RELEASE and kind is not None and kind.release is None:
            raise KeyError(step)
        return TRANSITIONS[step]
    except KeyError:
        may = ", ".join(sorted(e for s, e in TRANSITIONS if s is state)) or tr("nothing: it is final", "无(终态)")
        raise UsageError(
            tr(
                f"a command that is {state} cannot {event}; possible now: {may}",
                f"命令处于 {state}, 不能 {event}; 现在可以: {may}",
            )
        ) from None
