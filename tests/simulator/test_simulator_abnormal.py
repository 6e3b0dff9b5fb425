"""Abnormal meters: what they show follows from one cause, and the load behind them is untouched."""

from __future__ import annotations

import numpy as np
import pytest

from fuhe.model.times import US
from fuhe.protocols.common.errors import UsageError
from fuhe.simulator.abnormal import AbnormalSpec
from fuhe.simulator.faults import FaultSet
from fuhe.simulator.load import Component, Site, day_start
from fuhe.simulator.meter import SimMeter
from fuhe.simulator.scenario import parse_scenario
from fuhe.simulator.shapes import shapes

DAY = 20_300
HOUR = 3600 * US
MIDNIGHT = day_start(DAY)


def meter(*abnormal: AbnormalSpec) -> SimMeter:
    site = Site(
        components=(Component(kw=50, flat=True), Component(kw=200)), shape=shapes()["textile"], seed=5,
        origin_us=day_start(DAY - 4),
    )  # fmt: skip
    return SimMeter(
        name="m", address="1".zfill(12), site=site, faults=FaultSet("m", 1), seed=3, ct_ratio=100, abnormal=abnormal
    )


def day_kwh(m: SimMeter, name: str, begin_h: float = 0, end_h: float = 24) -> float:
    edges = np.array([MIDNIGHT + int(begin_h * HOUR), MIDNIGHT + int(end_h * HOUR)])
    return float(np.diff(m.series(name, edges))[0])


def test_a_bypassed_phase_is_missing_in_current_power_and_register_and_the_load_stays() -> None:
    sound, robbed = meter(), meter(AbnormalSpec(kind="bypass", phases="b"))
    noon = MIDNIGHT + 12 * HOUR
    assert robbed.value("current_b", noon) == robbed.value("active_power_b", noon) == 0.0
    assert robbed.value("current_a", noon) == sound.value("current_a", noon) > 0
    phases = [robbed.value(f"active_power_{p}", noon) for p in "abc"]
    assert robbed.value("active_power_total", noon) == pytest.approx(sum(phases))
    assert day_kwh(robbed, "forward_active_b") == 0.0
    kept = day_kwh(sound, "forward_active_total") - day_kwh(sound, "forward_active_b")
    assert day_kwh(robbed, "forward_active_total") == pytest.approx(kept)
    assert robbed.site.power(np.array([noon])) == sound.site.power(np.array([noon]))


def test_a_reversed_ct_counts_backwards_in_its_phase_and_forwards_in_the_sum() -> None:
    sound, turned = meter(), meter(AbnormalSpec(kind="reversed", phases="c"))
    noon = MIDNIGHT + 12 * HOUR
    assert turned.value("active_power_c", noon) == -sound.value("active_power_c", noon)
    assert turned.value("power_factor_c", noon) == -turned.value("power_factor_a", noon)
    assert turned.value("current_c", noon) == sound.value("current_c", noon)
    assert day_kwh(turned, "reverse_active_c") == pytest.approx(day_kwh(sound, "forward_active_c"))
    assert day_kwh(turned, "forward_active_c") == day_kwh(turned, "reverse_active_total") == 0.0
    lost = 2 * day_kwh(sound, "forward_active_c")
    assert day_kwh(turned, "forward_active_total") == pytest.approx(day_kwh(sound, "forward_active_total") - lost)


@pytest.mark.parametrize("split", [1.3, 6.0, 9.5, 22.7])
def test_a_night_shunt_takes_its_share_of_the_night_only(split: float) -> None:
    sound, robbed = meter(), meter(AbnormalSpec(kind="shunt", share=0.25, from_h=22, to_h=6))
    for register in ("forward_active_total", "forward_active_a"):
        for begin, end, share in ((0, 6, 0.25), (6, 22, 1.0), (22, 24, 0.25)):
            assert day_kwh(robbed, register, begin, end) == pytest.approx(share * day_kwh(sound, register, begin, end))
        parts = day_kwh(robbed, register, 0, split) + day_kwh(robbed, register, split, 24)
        assert parts == pytest.approx(day_kwh(robbed, register))
    tariffs = sum(day_kwh(robbed, f"forward_active_t{i}") for i in range(1, 5))
    assert tariffs == pytest.approx(day_kwh(robbed, "forward_active_total"))
    night = np.array([MIDNIGHT + 3 * HOUR])
    assert robbed.series("active_demand", night) == pytest.approx(0.25 * sound.series("active_demand", night))


def test_what_is_asked_in_between_does_not_change_what_was_counted() -> None:
    spec = AbnormalSpec(kind="shunt", share=0.25, from_h=22, to_h=6)
    asked, fresh = meter(spec), meter(spec)
    for hour in range(-72, 48, 5):
        asked.value("forward_active_total", MIDNIGHT + hour * HOUR)
    for hour in (-60, 3, 30):
        at = MIDNIGHT + hour * HOUR
        assert asked.value("forward_active_total", at) == fresh.value("forward_active_total", at)


def test_a_low_voltage_raises_the_current_and_leaves_the_power() -> None:
    sound, low = meter(), meter(AbnormalSpec(kind="low_voltage", phases="a", share=0.85, from_h=18, to_h=22))
    for hour, share in ((17.9, 1.0), (18.0, 0.85), (21.9, 0.85), (22.0, 1.0)):
        at = MIDNIGHT + int(hour * HOUR)
        assert low.value("voltage_a", at) == pytest.approx(share * sound.value("voltage_a", at))
        assert low.value("voltage_b", at) == sound.value("voltage_b", at)
        assert low.value("current_a", at) == pytest.approx(sound.value("current_a", at) / share)
        assert low.value("active_power_a", at) == pytest.approx(sound.value("active_power_a", at))


def test_what_is_wrong_with_an_abnormality_is_named() -> None:
    bad = [
        {"kind": "bypass", "phases": "ad"}, {"kind": "shunt"}, {"kind": "reversed", "share": 0.5},
        {"kind": "bypass", "from_h": 6, "to_h": 6},
    ]  # fmt: skip
    tree = {
        "name": "x",
        "buses": [{"name": "l", "kind": "tcp", "protocol": "dlt645"}],
        "devices": [
            {
                "name": "m", "bus": "l", "profile": "dlt645-2007-3p4w", "address": "1", "abnormal": bad,
                "site": {"shape": "office", "base_kw": 1},
            }
        ],
    }  # fmt: skip
    with pytest.raises(UsageError) as caught:
        parse_scenario(tree)
    for words in ("abnormal[0].phases", "abnormal[1].share", "abnormal[2].share", "abnormal[3].from_h"):
        assert f"devices[0].{words}" in str(caught.value)
