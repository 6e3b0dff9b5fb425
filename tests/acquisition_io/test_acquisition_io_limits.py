"""Quarantine, back-off and admission: pure arithmetic of time."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from fuhe.acquisition.admission import TokenBucket
from fuhe.acquisition.backoff import Backoff
from fuhe.acquisition.quarantine import Quarantine, Verdict


def test_probes_of_a_silent_device_become_rarer_and_one_answer_frees_it() -> None:
    quarantine = Quarantine(Random(3), after=2, first_s=30, longest_s=1800)
    assert not quarantine.silent(5, 0.0)
    assert quarantine.verdict(5, 0.0) is Verdict.ADMIT
    assert quarantine.silent(5, 1.0) and quarantine.holds(5) and quarantine.since_s(5) == 1.0
    probes = []
    for second in range(2, 20_000):
        if quarantine.verdict(5, float(second)) is Verdict.PROBE:
            probes.append(second)
            assert not quarantine.silent(5, float(second))
    gaps = [b - a for a, b in itertools.pairwise(probes)]
    assert 27 <= probes[0] <= 35 and 54 <= gaps[0] <= 67 and all(g <= 1981 for g in gaps) and gaps[-1] >= 1620
    assert len(probes) <= 20
    quarantine.answered(5)
    assert quarantine.verdict(5, 0.0) is Verdict.ADMIT and len(quarantine) == 0


def test_backoff_doubles_is_bounded_and_spread() -> None:
    pauses = [Backoff(1, 60, Random(seed)).next_s() for seed in range(200)]
    assert 0.5 <= min(pauses) < 0.6 and 0.9 < max(pauses) <= 1.0
    backoff = Backoff(1, 60, Random(1))
    grown = [backoff.next_s() for _ in range(12)]
    assert all(30 <= p <= 60 for p in grown[7:]) and grown[0] <= 1.0
    backoff.reset()
    assert backoff.next_s() <= 1.0


def test_5000_reconnects_in_one_second_are_admitted_at_the_configured_rate() -> None:
    bucket = TokenBucket(rate_per_s=500)
    waiting, now = 0, 0.0
    admitted_at: list[float] = []
    while len(admitted_at) < 5000:  # millisecond steps: five callers come in each of the first thousand
        waiting += 5 if now < 1.0 else 0
        while waiting and bucket.take(now):
            waiting -= 1
            admitted_at.append(now)
        now = round(now + 0.001, 6)
    for start in range(9):
        in_second = sum(start <= t < start + 1 for t in admitted_at)
        assert in_second <= 500 + bucket.burst
    assert admitted_at[-1] == pytest.approx((5000 - bucket.burst) / 500, abs=0.01)


def test_admission_says_how_long_to_wait_and_a_clock_that_stands_still_gives_nothing() -> None:
    bucket = TokenBucket(rate_per_s=10, burst=1)
    assert bucket.take(100.0) and not bucket.take(100.0)
    assert bucket.wait_s(100.0) == pytest.approx(0.1)
    assert not bucket.take(99.0) and bucket.take(100.1)
    with pytest.raises(ValueError, match="positive"):
        TokenBucket(0)
