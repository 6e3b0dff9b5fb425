"""The life of one command explored whole: device, line, process and people in every combination (bench/exploration)."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from bench.exploration import CASES, Case, Unsafe, explore
from fuhe.control import holding
from fuhe.control.rules import verify
from fuhe.control.rules.states import Event, State

BUSY = {State.SENT, State.UNKNOWN, State.ALARMING, State.VERIFYING, State.EFFECTIVE, State.INEFFECTIVE, State.FAILED}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of devices that do not answer are no news here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(300)  # 17 s of a processor altogether
@pytest.mark.parametrize("name", CASES)
def test_no_way_breaks_a_promise(name: str) -> None:
    counts = explore(CASES[name])
    assert counts.states >= BUSY and counts.crash_points > 1000 and counts.situations > 300, counts


def test_it_finds_a_trip_that_may_come_behind_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "may_yet_act", lambda *_: False)
    with pytest.raises(Unsafe, match="on its way"):
        explore(Case())


def test_it_finds_a_verdict_that_believes_an_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    proven = verify.Drop(
        event=Event.PROVEN, drop_kw=300.0, share=1.0, contact_open=True, ticket=False, reason="acknowledged"
    )
    monkeypatch.setattr(holding, "verify_drop", lambda _: proven)
    with pytest.raises(Unsafe, match="EFFECTIVE with the contact closed"):
        explore(Case())
