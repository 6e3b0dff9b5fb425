"""Physics: energy is the integral of power, a trip removes exactly the round's load, closing brings it back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.model.times import US
from fuhe.simulator.faults import Fault, FaultSet
from fuhe.simulator.load import Component, Site, day_start
from fuhe.simulator.meter import SimMeter
from fuhe.simulator.relay import Relay
from fuhe.simulator.shapes import Weather, noise, shapes, tariff_of_slot

DAY = 20_300
NOON = day_start(DAY) + 12 * 3600 * US


def make_site(**changes: object) -> Site:
    fields: dict[str, object] = {
        "components": (Component(kw=50, flat=True), Component(kw=200), Component(kw=80)),
        "shape": shapes()["steel"],
        "seed": 5,
        "origin_us": day_start(DAY - 10),
        "pickup": 1.5,
        "pickup_s": 1700.0,
    }
    return Site(**(fields | changes))  # type: ignore[arg-type]


def make_meter(site: Site, *faults: Fault, **changes: object) -> SimMeter:
    armed = FaultSet("m", 1)
    for fault in faults:
        armed.add(fault, NOON)
    count = len(site.components)
    relays = [Relay(component=i, site=site, faults=armed, human_s=20) for i in range(1, count)]
    return SimMeter(name="m", address="1".zfill(12), site=site, faults=armed, seed=3, relays=relays, **changes)  # type: ignore[arg-type]


def at(*seconds: float) -> np.ndarray:
    return np.array([NOON + int(s * US) for s in seconds], np.int64)


@settings(max_examples=25, deadline=None)
@given(
    trip_s=st.floats(0, 5000),
    held_s=st.floats(1, 4000),
    seed=st.integers(0, 2**31),
    rebound=st.sampled_from([0.0, 0.4]),
)
def test_energy_is_the_integral_of_power(trip_s: float, held_s: float, seed: int, rebound: float) -> None:
    site = make_site(seed=seed)
    site.trip(1, NOON + int(trip_s * US), rebound)
    site.close(1, NOON + int((trip_s + held_s) * US))
    edges = {0.0, 12_000.0, trip_s, trip_s + held_s, trip_s + held_s + 1700.0, *np.arange(0, 12_000, 900.0)}
    # Gauss points inside every smooth piece: exact for the cubic at most that power is between two edges
    total = 0.0
    marks = sorted(e for e in edges if e <= 12_000)
    for a, b in pairwise(marks):
        middle, half = (a + b) / 2, (b - a) / 2
        points = at(middle - half * 0.7745966692, middle, middle + half * 0.7745966692)
        total += float(site.power(points) @ [5 / 9, 8 / 9, 5 / 9]) * half / 3600
    energy = site.energy(at(0, 12_000)).sum(axis=0)
    assert energy[1] - energy[0] == pytest.approx(total, rel=1e-5)


def test_a_trip_removes_exactly_the_rounds_load_from_that_instant_on() -> None:
    untouched, site = make_site(), make_site()
    site.trip(1, NOON)
    before, after = at(-0.001), at(0, 60, 5000)
    assert site.power(before) == pytest.approx(untouched.power(before))
    carried = untouched.power_by_component(after)
    assert np.allclose(site.power(after), untouched.power(after) - carried[1])
    assert np.allclose(site.power_by_component(after)[[0, 2]], carried[[0, 2]])
    assert site.power_by_component(after)[1].max() == 0


def test_closing_brings_the_load_back_with_a_pickup_that_falls_to_one() -> None:
    untouched, site = make_site(), make_site()
    site.trip(1, NOON)
    site.close(1, NOON + 600 * US)
    times = at(600, 600 + 850, 600 + 1700, 9000)
    factor = site.power_by_component(times)[1] / untouched.power_by_component(times)[1]
    assert factor == pytest.approx([1.5, 1.25, 1.0, 1.0], rel=1e-6)


def test_a_rebound_shows_elsewhere_only_while_the_round_is_open() -> None:
    untouched, site = make_site(pickup=1.0), make_site(pickup=1.0)
    site.trip(1, NOON, rebound=0.4)
    site.close(1, NOON + 600 * US)
    lost = untouched.power(at(300)) - site.power(at(300))
    assert lost == pytest.approx(0.6 * untouched.power_by_component(at(300))[1])
    assert site.power(at(700)) == pytest.approx(untouched.power(at(700)))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 12 * 86_400), min_size=2, max_size=40), st.sampled_from(sorted(shapes())))
def test_past_registers_never_fall_and_do_not_depend_on_the_order_of_asking(seconds: list[int], shape: str) -> None:
    site = make_site(shape=shapes()[shape])
    times = np.array([site.origin_us + s * US for s in seconds], np.int64)
    scattered = site.energy(times)
    assert np.allclose(
        scattered, make_site(shape=shapes()[shape]).energy(np.sort(times))[:, np.argsort(np.argsort(times))]
    )
    assert (np.diff(np.sort(scattered.sum(axis=0))) >= 0).all()
    ordered = site.energy(np.sort(times))
    assert (np.diff(ordered, axis=1) >= -1e-9).all()


def test_noise_is_a_pure_function_with_mean_zero_and_deviation_one() -> None:
    index = np.arange(200_000)
    values = noise(7, 2, index)
    assert abs(values.mean()) < 0.01 and values.std() == pytest.approx(1, abs=0.01)
    assert (noise(7, 2, index[500:510]) == values[500:510]).all()
    assert (noise(8, 2, index[:10]) != values[:10]).any() and (noise(7, 3, index[:10]) != values[:10]).any()


def test_rest_days_and_hot_days_change_the_load() -> None:
    office = make_site(shape=shapes()["office"], weather=Weather(noise_c=0.0, mean_c=20))
    days = [np.array([day_start(d) + 11 * 3600 * US]) for d in range(DAY, DAY + 7)]
    powers = sorted(float(office.power(d)[0]) for d in days)
    assert powers[1] < 0.5 * powers[2]  # two rest days, five working days
    hot = make_site(shape=shapes()["commerce"], weather=Weather(mean_c=40, noise_c=0))
    mild = make_site(shape=shapes()["commerce"], weather=Weather(mean_c=18, year_c=0, day_c=0, noise_c=0))
    assert hot.power(at(0))[0] > 1.1 * mild.power(at(0))[0]


def test_a_meters_registers_are_secondary_split_by_tariff_and_phase_and_roll_over() -> None:
    site = make_site()
    meter = make_meter(site, ct_ratio=100, pt_ratio=2, initial_kwh=999_990.0)
    ends = at(0, 86_400)
    primary = site.energy(ends).sum(axis=0)
    secondary = meter.series("forward_active_total", ends)
    total = 999_990.0 + primary / 200
    assert secondary == pytest.approx(total % 1e6)
    assert secondary[0] < 999_990 < total[0]
    tariffs = sum(meter.series(f"forward_active_t{i}", ends)[0] for i in range(1, 5))
    assert tariffs % 1e6 == pytest.approx(secondary[0] % 1e6, abs=1e-3)
    phases = [meter.value(f"active_power_{p}", NOON) for p in "abc"]
    assert sum(phases) == pytest.approx(meter.value("active_power_total", NOON))
    watts = sum(meter.value(f"voltage_{p}", NOON) * meter.value(f"current_{p}", NOON) for p in "abc")
    assert watts * site.shape.pf / 1000 == pytest.approx(sum(phases), rel=1e-9)
    assert set(tariff_of_slot()) == {0, 1, 2, 3}


def test_maximum_demand_is_the_highest_block_of_the_month() -> None:
    site = make_site(origin_us=day_start(DAY - 60))
    meter = make_meter(site)
    since = meter.settlement_us(NOON, 1)
    assert since is not None
    edges = np.arange(since, NOON + 1, 900 * US)
    blocks = np.diff(site.energy(edges).sum(axis=0)) * 4
    assert meter.value("forward_active_demand", NOON) == pytest.approx(blocks.max())
    assert meter.value("forward_active_demand_time", NOON) * US == edges[1:][blocks.argmax()]


def test_the_relay_keeps_command_contact_and_load_apart() -> None:
    meter = make_meter(make_site())
    relay = meter.relays[0]
    relay.delay_s = 5
    relay.trip(NOON)
    assert (relay.commanded, relay.contact_open) == (True, False)
    meter.advance(NOON + 5 * US)
    assert relay.contact_open and meter.status_word(3) & 0x50 == 0x50
    relay.permit_close(NOON + 60 * US)
    assert relay.contact_open and relay.permit and meter.status_word(3) & 0x50 == 0x10
    meter.advance(NOON + 80 * US)
    assert not relay.contact_open
    assert meter.site.power_by_component(at(79.9, 80.1))[1].tolist()[0] == 0
    assert meter.site.power_by_component(at(79.9, 80.1))[1].tolist()[1] > 0
    assert [e.kind for e in meter.events] == ["trip", "close"]


@pytest.mark.parametrize(
    ("kind", "contact", "load_gone"),
    [("broken_relay", False, False), ("stuck_contact", True, False), ("no_ack", True, True)],
)
def test_relay_faults_separate_what_is_told_from_what_happens(kind: str, contact: bool, load_gone: bool) -> None:
    meter = make_meter(make_site(), Fault(kind=kind, target=("m",)))
    full = make_site().power(at(10))[0]
    meter.relays[0].trip(NOON)
    assert meter.relays[0].commanded and meter.relays[0].contact_open is contact
    assert bool(meter.site.power(at(10))[0] < full - 1) is load_gone


def test_nobody_presses_the_button_and_a_stranger_recloses() -> None:
    meter = make_meter(
        make_site(), Fault(kind="human_refuses", target=("m",)), Fault(kind="reclose", target=("m",), start_s=3000)
    )
    relay = meter.relays[0]
    relay.trip(NOON)
    relay.permit_close(NOON + 10 * US)
    meter.advance(NOON + 2000 * US)
    assert relay.contact_open and relay.permit
    relay.trip(NOON + 2500 * US)
    meter.advance(NOON + 3001 * US)
    assert relay.commanded and not relay.contact_open
    assert meter.site.power_by_component(at(2999, 3001))[1][1] > 0


def test_an_exchange_makes_the_register_jump_and_the_memory_empty() -> None:
    meter = make_meter(make_site(), Fault(kind="exchange", target=("m",), start_s=100, value=12.0))
    meter.advance(NOON + 101 * US)
    before, after = meter.series("forward_active_total", at(99.9, 100.0))
    assert before > 100 and after == pytest.approx(12.0, abs=1e-6)
    assert meter.midnight_us(NOON + 101 * US, 1) is None
    assert meter.record_labels(NOON + 1000 * US, None, 50)[0] >= meter.clock.local(NOON + 100 * US)


def test_a_wrong_clock_labels_records_by_what_it_showed() -> None:
    meter = make_meter(make_site(), Fault(kind="clock_offset", target=("m",), start_s=0, value=600))
    meter.advance(NOON)
    local = meter.clock.local(NOON + 60 * US)
    assert meter.clock.offset_us(NOON + 60 * US) == 600 * US
    assert meter.clock.true_us(local) == NOON + 60 * US
    skipped = meter.clock.local(NOON - 1).replace(minute=5, hour=12)  # 12:05 was jumped over
    assert meter.clock.true_us(skipped) is None


def test_three_wrong_passwords_lock_until_midnight() -> None:
    meter = make_meter(make_site(), password="123456")
    assert meter.check_password(NOON, "123456")
    assert not any(meter.check_password(NOON, "000000") for _ in range(3))
    assert not meter.check_password(NOON + 3600 * US, "123456")
    assert meter.check_password(day_start(DAY + 1) + US, "123456")
