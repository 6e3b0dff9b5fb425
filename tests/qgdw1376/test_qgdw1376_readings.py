"""Answers of AFN 0C and 0D to samples and curves: which point, which quantity, which instant, and what is no value."""

from __future__ import annotations

import math
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.acquisition.profile import TerminalPlan
from fuhe.acquisition.sessions.qgdw1376_labels import Labels, moment_us, month_us, settlement_us
from fuhe.acquisition.sessions.qgdw1376_readings import Readings, read_answers, tariff_quantity
from fuhe.model.devices import Device, Point
from fuhe.model.quality import Quality, Source
from fuhe.model.quantities import by_id, by_name
from fuhe.model.times import US, business_to_us
from fuhe.protocols.qgdw1376 import dadt
from fuhe.protocols.qgdw1376.curves import curve_classes, encode_curve
from fuhe.protocols.qgdw1376.frame import Address, Frame, cut
from fuhe.protocols.qgdw1376.message import Message, build, parse
from fuhe.protocols.qgdw1376.units import Unit

DEVICE = Device(
    id=3, name="t", link="l", profile="p", address="3301-7",
    points=(
        Point(id=11, name="a", pn=1), Point(id=12, name="b", pn=2), Point(id=21, name="g", pn=1, kind="group"),
        Point(id=31, name="d", pn=1, kind="dc"),
    ),
)  # fmt: skip


def at(*parts: int) -> int:
    """Instant of a business-zone clock reading."""
    return business_to_us(datetime(*parts))  # type: ignore[arg-type]  # noqa: DTZ001


NOW = at(2026, 3, 2, 10, 0)
Rows = list[tuple[int, str, float, int]]


def answer(afn: int, *units: Unit, **said: Any) -> Frame:
    return build(Message(up=True, prm=False, function=8, address=Address("3301", 7), afn=afn, units=units, **said))


def read(frames: list[Frame], labels: Labels = Labels(), now: int = NOW) -> Readings:
    return read_answers(frames, DEVICE, labels, now)


def rows(found: Readings) -> dict[str, tuple[int, int, float, int, int]]:
    """By quantity: point, instant, value, quality, source."""
    return {by_id()[q].name: (p, t, v, quality, source) for t, p, q, v, quality, source in found.rows}


def values(found: Readings) -> dict[str, float]:
    return {name: row[2] for name, row in rows(found).items()}


# --- class-1 data -----------------------------------------------------------------------------------------------------
FRAMES = {
    "pep-0c-f25": (
        "683E013E01689812965634040C63010101033014080810471101163700173700153700000100000000000000000000990999"
        "0999099909002290219021001700901600901600EFEFEFEFEFEFEFEFEFEFEFEFEFEFEF5816"
    ),
    "x452-0c-f25ee": (
        "683E013E01688810030300F20C7C010101034114280918EEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEE"
        "EEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEE6016"
    ),
    "cs-0c-f129": (
        "68AE00AE00688810451500000C6C20010110351725011404007992000000000000000097320000008845000000941300006E16"
    ),
    "rgm-0d-multi": (
        "686204620468CB00100100000D6E0201010A45121604150101EEEEEE0201020A45121604150101EEEEEE0201040A45121604"
        "150101EEEEEE0201080A45121604150101EEEEEE0201100A45121604150101EEEEEE0201200A45121604150101EEEEEE0201"
        "400A45121604150101EEEEEE0201800A45121604150101EEEEEE0201010B4512160415010100220201020B45121604150101"
        "EEEE0201040B45121604150101EEEE0201080B451216041501010015000201100B45121604150101EEEEEE0201200B451216"
        "04150101EEEEEE0201400B45121604150101EEEEEE0201800B45121604150101EEEE0201010D45121604150101EEEE020102"
        "0D45121604150101EEEE0201040D45121604150101EEEE0201080D45121604150101EEEE0516"
    ),
}  # published frames, by their name in the vectors


def vector(name: str) -> Frame:
    frames, skipped = cut(bytes.fromhex(FRAMES[name]))
    assert len(frames) == 1 and not skipped
    return frames[0]


def test_momentary_values_carry_the_terminals_reading_time() -> None:
    found = read([vector("pep-0c-f25")])
    assert found.taken == {(1, 25)} and not found.faults
    got = rows(found)
    assert got["active_power_total"] == (11, at(2010, 8, 8, 14, 30), 1.1147, Quality.A, Source.LIVE)
    assert got["power_factor_a"][2] == 0.999 and got["voltage_b"][2] == 219.0 and got["current_a"][2] == 1.7
    assert "apparent_power_total" not in got and "current_n" not in got
    assert len(got) == 18


def test_all_fill_is_taken_but_gives_nothing() -> None:
    found = read([vector("x452-0c-f25ee")])
    assert found.taken == {(1, 25)} and found.rows == [] and found.samples() is None


def test_registers_of_tariffs() -> None:
    frame = vector("cs-0c-f129")  # p6
    assert read([frame]).faults == {(6, 129): "the device list has no such point"}
    device = Device(id=1, name="t", link="l", profile="p", address="x", points=(Point(id=6, name="m", pn=6),))
    found = read_answers([frame], device, Labels(), NOW)
    assert values(found) == {
        "forward_active_total": 92.79, "forward_active_t1": 0.0, "forward_active_t2": 32.97, "forward_active_t3": 45.88,
        "forward_active_t4": 13.94,
    }  # fmt: skip
    samples = found.samples()
    assert samples is not None and set(samples.time_us.tolist()) == {at(2014, 1, 25, 17, 35)}


def test_tariffs_beyond_the_stored_ones_are_dropped() -> None:
    data = {"read_time": datetime(2026, 3, 2, 9), "tariffs": 12, "values": [Decimal(i) for i in range(13)]}  # noqa: DTZ001
    found = read([answer(0x0C, Unit(1, 131, data))])
    assert set(values(found)) == {"reverse_active_total", *(f"reverse_active_t{i}" for i in range(1, 9))}
    assert tariff_quantity("forward_active_demand_time", 3) == "forward_active_demand_t3_time"


def test_demand_times_are_completed_backwards() -> None:
    demands = [
        {"value": Decimal("1.5"), "time": "02-28 23:45"},
        {"value": Decimal("0.7"), "time": "12-31 18:00"},
        {"value": None, "time": None},
    ]
    data = {"read_time": datetime(2026, 3, 2, 9), "tariffs": 2, "demands": demands}  # noqa: DTZ001
    got = values(read([answer(0x0C, Unit(2, 145, data))]))
    assert got == {
        "forward_active_demand": 1.5,
        "forward_active_demand_time": at(2026, 2, 28, 23, 45) / US,
        "forward_active_demand_t1": 0.7,
        "forward_active_demand_t1_time": at(2025, 12, 31, 18, 0) / US,
    }


def test_last_month_belongs_to_the_settlement() -> None:
    data = {"read_time": datetime(2026, 3, 2, 9), "tariffs": 0, "values": [Decimal("5.25")]}  # noqa: DTZ001
    frame = answer(0x0C, Unit(1, 137, data))
    assert rows(read([frame]))["forward_active_total"] == (11, at(2026, 3, 1), 5.25, Quality.A, Source.MONTHLY)
    late = Labels.of(TerminalPlan(settlement_day=25, settlement_hour=8), {})
    assert rows(read([frame], late))["forward_active_total"][1] == at(2026, 2, 25, 8)


def test_without_a_reading_time_our_clock_counts_and_a_future_one_is_suspect() -> None:
    energy = {"tariffs": 0, "values": [Decimal("1.2345")]}
    assert rows(read([answer(0x0C, Unit(1, 41, energy))])) == {
        "day_forward_active_energy_total": (11, NOW, 1.2345, Quality.A, Source.LIVE)
    }
    ahead = {"read_time": datetime(2026, 3, 2, 11), "tariffs": 0, "values": [Decimal(1)]}  # noqa: DTZ001
    assert rows(read([answer(0x0C, Unit(1, 129, ahead))]))["forward_active_total"][3] == Quality.S


def test_status_words_tell_the_switch() -> None:
    words = {f"{kind}_{i}": list[int]() for kind in ("status", "change") for i in range(1, 8)}
    data = {"read_time": datetime(2026, 3, 2, 9), **words, "status_3": [5, 16]}  # noqa: DTZ001
    got = values(read([answer(0x0C, Unit(1, 28, data))]))
    assert got["status_word_3"] == 0x8010 and got["switch_state"] == 0 and got["status_word_1"] == 0
    data["status_3"] = []
    assert values(read([answer(0x0C, Unit(1, 28, data))]))["switch_state"] == 1


def test_groups_and_ports_are_points_of_their_own_kind() -> None:
    frame = answer(0x0C, Unit(1, 17, {"power": Decimal("2E3")}), Unit(1, 73, {"value": Decimal("4.2")}))
    found = read([frame])
    assert {name: row[0] for name, row in rows(found).items()} == {"group_power": 21, "dc_analog": 31}
    assert values(found) == {"group_power": 2000.0, "dc_analog": 4.2}
    assert read([answer(0x0C, Unit(2, 17, {"power": None}))]).faults == {(2, 17): "the device list has no such point"}


def test_what_belongs_to_the_terminal_is_handed_on() -> None:
    unit = Unit(0, 7, {"ec1": 3, "ec2": 9})
    found = read([answer(0x0C, unit)])
    assert found.terminal == [(0x0C, unit)] and found.taken == {(0, 7)} and not found.rows


# --- freezes --------------------------------------------------------------------------------------------------------
def register(day: date, read_time: datetime) -> dict[str, object]:
    return {"td_d": day, "read_time": read_time, "tariffs": 0, "values": [Decimal("7.5")]}


def test_a_day_freeze_is_the_state_at_midnight() -> None:
    data = register(date(2026, 3, 1), datetime(2026, 3, 2, 0, 7))  # noqa: DTZ001
    got = rows(read([answer(0x0D, Unit(1, 161, data))]))
    assert got == {"forward_active_total": (11, at(2026, 3, 2), 7.5, Quality.A, Source.DAILY)}


def test_a_reading_day_is_the_reading_itself() -> None:
    data = register(date(2026, 3, 1), datetime(2026, 3, 1, 8, 0))  # noqa: DTZ001
    got = rows(read([answer(0x0D, Unit(1, 169, data))]))
    assert got == {"forward_active_total": (11, at(2026, 3, 1, 8), 7.5, Quality.A, Source.MONTHLY)}
    stale = register(date(2026, 3, 1), datetime(2026, 1, 1, 8, 0))  # noqa: DTZ001
    assert rows(read([answer(0x0D, Unit(1, 169, stale))]))["forward_active_total"][1] == at(2026, 3, 2)


def test_a_month_freeze_is_the_state_at_its_end() -> None:
    data = {"td_m": "2025-12", "tariffs": 0, "values": [Decimal("7.5")]}
    got = rows(read([answer(0x0D, Unit(1, 21, data))]))
    assert got == {"month_forward_active_energy_total": (11, at(2026, 1, 1), 7.5, Quality.A, Source.MONTHLY)}


def test_what_has_not_ended_is_not_kept() -> None:
    today = register(date(2026, 3, 2), datetime(2026, 3, 2, 9, 0))  # noqa: DTZ001
    found = read([answer(0x0D, Unit(1, 161, today))])
    assert not found.rows and found.faults == {(1, 161): "its day or month has not ended yet"}
    # the terminal's clock may be a little ahead
    assert rows(read([answer(0x0D, Unit(1, 161, today))], now=at(2026, 3, 2, 23, 58)))


def test_statistics_of_a_day_and_of_a_month() -> None:
    phases: dict[str, object] = {}
    for x in "abc":
        phases |= {f"{k}_{x}": 0 for k in ("over_high", "under_low", "over", "under")} | {f"qualified_{x}": None}
        phases |= {f"max_{x}": Decimal("231.5"), f"max_{x}_time": "01 09:30", f"min_{x}": None, f"min_{x}_time": None}
        phases[f"average_{x}"] = Decimal("225.0")
    day = read([answer(0x0D, Unit(1, 27, {"td_d": date(2026, 3, 1), **phases}))])
    got = rows(day)
    assert got["voltage_max_a"] == (11, at(2026, 3, 2), 231.5, Quality.A, Source.DAILY)
    assert got["voltage_max_b_time"][2] == at(2026, 3, 1, 9, 30) / US
    assert got["voltage_over_minutes_a"][2] == 0 and "voltage_qualified_minutes_a" not in got
    month = rows(read([answer(0x0D, Unit(1, 35, {"td_m": "2026-02", **phases}))]))
    assert month["voltage_max_a"][1:] == (at(2026, 3, 1), 231.5, Quality.A, Source.MONTHLY)
    assert month["voltage_max_a_time"][2] == at(2026, 2, 1, 9, 30) / US


# --- times ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "end", "moment"),
    [
        ("31 24:00", at(2026, 2, 1), at(2026, 2, 1)),
        ("31 23:59", at(2026, 3, 1), at(2026, 1, 31, 23, 59)),
        ("01 00:00", at(2026, 3, 1), at(2026, 3, 1)),
        ("02 00:01", at(2026, 3, 2), at(2026, 2, 2, 0, 1)),
        ("02-29 10:00", at(2027, 6, 1), at(2024, 2, 29, 10, 0)),
        ("01-01 00:00", at(2026, 1, 1), at(2026, 1, 1)),
        ("00 00:00", at(2026, 1, 1), None),
        ("00-00 00:00", at(2026, 1, 1), None),
        ("12 25:00", at(2026, 1, 1), None),
        ("12-40 10:00", at(2026, 1, 1), None),
        ("2026-01-01", at(2026, 1, 1), None),
    ],
)
def test_partial_times(text: str, end: int, moment: int | None) -> None:
    assert moment_us(text, end) == moment


def test_months_and_settlements() -> None:
    assert month_us("2025-12") == at(2026, 1, 1) and month_us("2026-13") is None and month_us(None) is None
    assert settlement_us(at(2026, 1, 1), Labels()) == at(2026, 1, 1)
    assert settlement_us(at(2026, 1, 24, 23, 59), Labels(settlement_day=25)) == at(2025, 12, 25)


# --- curves ---------------------------------------------------------------------------------------------------------
def curve(pn: int, fn: int, values: list[float], start: datetime = datetime(2026, 3, 1, 0, 15)) -> bytes:  # noqa: DTZ001
    return dadt.single(pn, fn) + encode_curve(fn, start, 1, np.array(values, np.float64))


def frame_of(data: bytes) -> Frame:
    return Frame(0x88, Address("3301", 7), b"\x0d\x60" + data)


Curves = dict[tuple[int, str], tuple[int, int, list[float]]]


def curves(found: Readings) -> Curves:
    """By point and quantity: label of the first slot, step, values."""
    got: Curves = {}
    for block in found.curves:
        assert np.array_equal(np.isnan(block.value), block.quality == Quality.M)
        for i, point in enumerate(block.point.tolist()):
            key = (point, by_id()[int(block.quantity[i])].name)
            assert key not in got
            got[key] = (int(block.start_us[i]), block.step_s, block.value[i].tolist())
    return got


def test_curves_of_all_kinds_of_points() -> None:
    found = read([
        frame_of(curve(1, 81, [1.5, -0.25]) + curve(2, 89, [220.1, 219.9])),
        frame_of(curve(1, 73, [2000, -5]) + curve(1, 138, [4.2, 1.0]) + curve(1, 105, [99.9, 33.3])),
        frame_of(curve(7, 81, [1.0])),
    ])  # fmt: skip
    start = at(2026, 3, 1, 0, 15)
    assert curves(found) == {
        (11, "active_power_total"): (start, 900, [1.5, -0.25]),
        (12, "voltage_a"): (start, 900, [220.1, 219.9]),
        (21, "group_power"): (start, 900, [2000.0, -5.0]),
        (31, "dc_analog"): (start, 900, [4.2, 1.0]),
        (11, "power_factor_total"): (start, 900, [0.999, 0.333]),
    }
    assert found.faults == {(7, 81): "the device list has no such point"}
    assert found.taken == {(1, 81), (2, 89), (1, 73), (1, 138), (1, 105)}
    assert len(found.curves) == 1  # one step, one length


def test_angles_are_three_quantities() -> None:
    data = dadt.single(1, 109) + encode_curve(109, datetime(2026, 3, 1), 1, np.array([[0.0, 120.0, 240.1]]))  # noqa: DTZ001
    got = curves(read([frame_of(data)]))
    assert {name: v[2] for (_, name), v in got.items()} == {
        "voltage_angle_a": [0.0], "voltage_angle_b": [120.0], "voltage_angle_c": [240.1],
    }  # fmt: skip


def test_midnight_is_the_end_of_the_day() -> None:
    data = curve(1, 101, [5.0, 6.0], datetime(2026, 3, 1, 23, 45))  # noqa: DTZ001
    assert curves(read([frame_of(data)])) == {(11, "forward_active_total"): (at(2026, 3, 1, 23, 45), 900, [5.0, 6.0])}


def test_labels_by_the_start_of_intervals() -> None:
    data = b"".join(curve(1, fn, [1.0]) for fn in (81, 89, 97, 101))
    labels = Labels.of(TerminalPlan(curve_label="start"), {})
    assert Labels.of(TerminalPlan(), {"curve_label": "start"}) == labels
    assert Labels.of(TerminalPlan(curve_label="start"), {"curve_label": "end"}) == Labels()
    got = {name: start for (_, name), (start, _, _) in curves(read([frame_of(data)], labels)).items()}
    sent, moved = at(2026, 3, 1, 0, 15), at(2026, 3, 1, 0, 30)
    assert got == {
        "active_power_total": moved, "voltage_a": sent, "forward_active_energy": moved, "forward_active_total": sent,
    }  # fmt: skip


def test_slots_that_have_not_ended_and_fill_are_no_values() -> None:
    data = curve(1, 81, [1.0, math.nan, 3.0, 0.0, 0.0], datetime(2026, 3, 2, 9, 15))  # noqa: DTZ001
    ((start, _, got),) = curves(read([frame_of(data)])).values()
    assert start == at(2026, 3, 2, 9, 15)
    assert got[0] == 1.0 and math.isnan(got[1]) and got[2:4] == [3.0, 0.0] and math.isnan(got[4])  # 10:15 is not yet
    empty = read([frame_of(curve(1, 81, [math.nan, math.nan]))])
    assert empty.curves == [] and empty.taken == {(1, 81)} and not empty.faults


def test_a_curve_without_a_start() -> None:
    data = dadt.single(1, 89) + b"\xee" * 5 + b"\1\1\x90\x21"
    assert read([frame_of(data)]).faults == {(1, 89): "the curve has no start"}


@given(st.sampled_from(sorted(curve_classes())), st.integers(1, 6), st.sampled_from(["start", "end"]))
@settings(max_examples=80, deadline=None)
def test_mixed_frames_give_the_same_curves(fn: int, n: int, label: Any) -> None:
    """A freeze in the frame sends it through the general reader."""
    kind = {"M": 2, "G": 1, "D": 1}[curve_classes()[fn].pn]
    shape = (n, len(curve_classes()[fn].columns))
    numbers = np.arange(1.0, 1 + n * shape[1]).reshape(shape)
    numbers[-1] = np.nan
    unit = encode_curve(fn, datetime(2026, 3, 1, 12), 2, numbers)  # noqa: DTZ001
    data = dadt.single(kind, fn) + unit
    labels = Labels(curve=label)
    alone = read([frame_of(data)], labels)
    freeze = build(
        Message(
            up=True, prm=False, function=8, address=Address("3301", 7), afn=0x0D,
            units=(Unit(1, 161, register(date(2026, 3, 1), datetime(2026, 3, 2))),),  # noqa: DTZ001
        )
    )  # fmt: skip
    mixed = read([Frame(0x88, Address("3301", 7), freeze.user + data)], labels)
    assert _same(curves(mixed), curves(alone))
    assert mixed.taken == alone.taken | {(1, 161)} and len(mixed.rows) == 1


def _same(a: Curves, b: Curves) -> bool:
    return a.keys() == b.keys() and all(
        a[k][:2] == b[k][:2] and np.array_equal(a[k][2], b[k][2], equal_nan=True) for k in a
    )


def test_an_hour_freeze_is_a_curve_of_the_last_such_hour() -> None:
    points = [Decimal("1.0"), Decimal("2.0"), None, Decimal("4.0")]
    found = read([answer(0x0C, Unit(1, 89, {"td_h": 9, "density": 1, "points": points}))])
    ((start, step, got),) = curves(found).values()
    assert (start, step, got[:2], got[3]) == (at(2026, 3, 2, 9, 15), 900, [1.0, 2.0], 4.0) and math.isnan(got[2])
    found = read([answer(0x0C, Unit(1, 105, {"td_h": 23, "density": 2, "points": points[:2]}))])
    assert curves(found) == {(11, "forward_active_energy"): (at(2026, 3, 1, 23, 30), 1800, [1.0, 2.0])}


# --- frames ---------------------------------------------------------------------------------------------------------
def test_frames_of_other_kinds_and_broken_ones_are_passed_over() -> None:
    other = Frame(0x88, Address("3301", 7), b"\x00\x60\x00\x00\x01\x00")
    request = Frame(0x4B, Address("3301", 7), b"\x0d\x60" + curve(1, 81, [1.0]))
    short = Frame(0xA8, Address("3301", 7), b"\x0c\xe0")
    found = read([other, request, short, frame_of(curve(1, 81, [1.0]))])
    assert len(found.curves) == 1 and found.taken == {(1, 81)} and found.broken


def test_an_unreadable_unit_is_a_fault() -> None:
    good = answer(0x0C, Unit(1, 17, {"power": Decimal(5)}))
    cut_short = Frame(good.control, good.address, good.user + dadt.single(1, 25) + bytes(9))
    found = read([cut_short])
    assert found.faults == {(1, 25): "short"} and values(found) == {"group_power": 5.0}


def test_the_published_frame_with_a_vendor_class() -> None:
    frame = vector("rgm-0d-multi")
    found = read([frame], now=at(2015, 4, 16, 13, 0))
    assert curves(found) == {
        (12, "voltage_a"): (at(2015, 4, 16, 12, 45), 900, [220.0]),
        (12, "current_a"): (at(2015, 4, 16, 12, 45), 900, [1.5]),
    }
    assert len(parse(frame).units) == len(found.taken) + len(found.faults) == 20


@given(st.binary(max_size=80), st.sampled_from([0x0C, 0x0D]))
@settings(deadline=None)
def test_any_bytes_end_in_readings(data: bytes, afn: int) -> None:
    found = read([Frame(0x88, Address("3301", 7), bytes((afn, 0x60)) + data)])
    assert all(math.isfinite(row[3]) for row in found.rows)


def test_every_curve_quantity_is_known() -> None:
    assert all(c.quantity in by_name() for one in curve_classes().values() for c in one.columns)
