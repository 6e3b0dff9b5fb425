"""Which version is tried next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fuhe.protocols.mqtt.versions import VersionChoice


def test_auto_begins_with_5_tries_the_other_at_once_and_then_waits() -> None:
    choice = VersionChoice()
    tried: list[str] = [choice.current]
    at_once = []
    for _ in range(3):
        at_once.append(choice.refused())
        tried.append(choice.current)
    assert (tried, at_once) == (["5", "3.1.1", "5", "3.1.1"], [True, False, True])
    choice.accepted()
    assert choice.current == "3.1.1", "what worked is kept"
    assert choice.refused() is True


def test_a_chosen_version_stays() -> None:
    for wanted, spoken in (("5", "5"), (5, "5"), ("3.1.1", "3.1.1")):
        choice = VersionChoice(wanted)  # type: ignore[arg-type]
        assert choice.refused() is False and choice.current == spoken


@given(st.lists(st.booleans(), max_size=30))
def test_never_more_than_one_attempt_at_once_between_pauses(answers: list[bool]) -> None:
    choice = VersionChoice()
    at_once = 0
    for taken in answers:
        if taken:
            choice.accepted()
            at_once = 0
            continue
        at_once = at_once + 1 if choice.refused() else 0
        assert at_once <= 1
