"""Live values and freezes of a terminal, and everything that a terminal's profile leads to: checks, ledger, plan."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fuhe.acquisition.config import CycleConfig, LinkConfig
from fuhe.acquisition.cycles import build_cycles, freeze_window
from fuhe.acquisition.ledger import gaps, tracks
from fuhe.acquisition.plan import check_plan, describe
from fuhe.acquisition.profile import ReadPlan, TerminalPlan
from fuhe.acquisition.profiles import builtin_profiles, load_profiles
from fuhe.acquisition.sessions import open_exchange
from fuhe.acquisition.wire import transactions
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.quality import Source
from fuhe.model.quantities import by_id
from fuhe.model.readings import ReadingBatch
from fuhe.model.times import DAY_US, business_to_us, day_start_us
from fuhe.model.work import Duty, Status
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.qgdw1376.layout import Layout
from fuhe.protocols.qgdw1376.table import lookup

from .conftest import DEVICE, NOW, NOW_US, Paper, item, profile, session, talk

READ_AT = NOW.replace(second=0) - timedelta(minutes=3)
PROFILES = builtin_profiles()


def unit(afn: int, fn: int, **values: object) -> dict[str, object]:
    """A data unit: what is not given is fill."""
    row = lookup(afn, fn, "2013")
    assert row is not None
    layout: Layout = row.fields
    keys = [f.name for f in layout.variants[0].nodes if hasattr(f, "name")]
    return {key: values.get(key) for key in keys}


def instant(p: str, u: str) -> dict[str, object]:
    """0C F25 with a power and a voltage."""
    return unit(0x0C, 25, read_time=READ_AT, P=p, Ua=u, PF="98.5")


def registers(total: str) -> dict[str, object]:
    """0D F161 without its day."""
    return {"read_time": READ_AT, "tariffs": 4, "values": [total, "1", "2", "3", None]}


def rows(batch: ReadingBatch | None) -> dict[tuple[int, str, int], float]:
    """(point, quantity, time) -> value."""
    assert batch is not None and batch.samples is not None
    s = batch.samples
    found = {}
    for point, number, time_us, value in zip(s.point, s.quantity, s.time_us, s.value, strict=True):
        found[int(point), by_id()[int(number)].name, int(time_us)] = float(value)
    return found


LIVE = profile(read={Duty.LIVE: ReadPlan(items=("0C:F25", "0C:F17", "0C:F9", "0C:F73"))})


def test_live_values_of_points_groups_and_the_terminal_itself() -> None:
    terminal = Paper(
        {(0x0C, 1, 25): instant("1.5", "220.1"), (0x0C, 2, 25): instant("-0.25", "219.9"),
         (0x0C, 1, 17): {"power": 470}, (0x0C, 0, 9): {"state": [1, 3], "changed": [3]}}
    )  # fmt: skip
    outcome, sent = talk(item(Duty.LIVE), terminal, with_profile=LIVE)
    assert (outcome.status, outcome.faults, len(sent)) == (Status.DONE, (), 1)  # no DC port in the device list
    got, at = rows(outcome.batch), business_to_us(READ_AT)
    assert got[71, "active_power_total", at] == 1.5 and got[72, "active_power_total", at] == -0.25
    assert got[71, "voltage_a", at] == 220.1 and got[71, "power_factor_total", at] == 0.985
    groups = [(q, v) for (p, q, _), v in got.items() if p == 75]
    assert [v for _, v in groups] == [470.0]
    assert outcome.batch is not None
    (state,) = outcome.batch.parameters
    assert state.item == "0C:F9" and json.loads(state.value) == {"changed": [3], "state": [1, 3]}
    assert set(outcome.batch.samples.source.tolist()) == {Source.LIVE}  # type: ignore[union-attr]


def test_a_silent_meter_behind_a_terminal_costs_its_own_values_only() -> None:
    terminal = Paper({(0x0C, 1, 25): instant("1.5", "220.1")})
    outcome, _ = talk(item(Duty.LIVE, items=("0C:F25",)), terminal, with_profile=LIVE)
    assert outcome.status is Status.PARTIAL and [f.item for f in outcome.faults] == ["0C:F25:P2"]
    filled = Paper({(0x0C, 1, 25): instant("1.5", "220.1"), (0x0C, 2, 25): unit(0x0C, 25, read_time=READ_AT)})
    outcome, _ = talk(item(Duty.LIVE, items=("0C:F25",)), filled, with_profile=LIVE)
    assert outcome.status is Status.DONE  # it answered: fill is no value
    assert {p for p, _, _ in rows(outcome.batch)} == {71}


def freezer(kept: set[date]) -> Paper:
    """Holds the freezes of some days."""

    def of(data: dict[str, object]) -> dict[str, object] | None:
        day = data["td_d"]
        return {"td_d": day, **registers("100.5")} if day in kept else None

    return Paper({(0x0D, 1, 161): of, (0x0D, 2, 161): of})


DAILY = profile(read={Duty.DAILY: ReadPlan(items=("0D:F161",)), Duty.MONTHLY: ReadPlan(items=("0D:F177",))})


def test_a_day_freeze_has_the_label_of_the_next_midnight() -> None:
    day = NOW.date() - timedelta(days=1)
    terminal = freezer({day})
    for work in (item(Duty.DAILY), item(Duty.DAILY, window_us=freeze_window(day))):
        outcome, sent = talk(work, terminal, with_profile=DAILY)
        assert (outcome.status, len(sent)) == (Status.DONE, 1)
        got, at = rows(outcome.batch), day_start_us(NOW.date())
        assert got[71, "forward_active_total", at] == 100.5 and got[72, "forward_active_t3", at] == 3.0
        assert (71, "forward_active_t4", at) not in got
        assert set(outcome.batch.samples.source.tolist()) == {Source.DAILY}  # type: ignore[union-attr]


def test_a_window_of_days_newest_first_with_a_missing_one() -> None:
    days = [NOW.date() - timedelta(days=n) for n in (1, 2, 3)]
    terminal = freezer({days[0], days[2]})
    window = (freeze_window(days[2])[0], freeze_window(days[0])[0] + 1)
    outcome, sent = talk(item(Duty.DAILY, window_us=window), terminal, with_profile=DAILY)
    asked = [u.data["td_d"] for m in terminal.seen for u in m.units if u.data and u.pn == 1]
    assert asked == days and len(sent) == 3  # the same point and class twice in a frame could not be told apart
    assert outcome.status is Status.PARTIAL and len(outcome.faults) == 2
    labels = sorted({t for _, _, t in rows(outcome.batch)})
    assert labels == [day_start_us(days[2]) + DAY_US, day_start_us(days[0]) + DAY_US]


def test_the_day_that_has_not_ended_is_not_asked_for() -> None:
    outcome, sent = talk(item(Duty.DAILY, window_us=freeze_window(NOW.date())), freezer(set()), with_profile=DAILY)
    assert (outcome.status, sent) == (Status.DONE, []) and "yet" in outcome.reason


def test_a_month_freeze() -> None:
    seen: list[object] = []

    def of(data: dict[str, object]) -> dict[str, object]:
        seen.append(data["td_m"])
        return {"td_m": data["td_m"], **registers("7")}

    terminal = Paper({(0x0D, 1, 177): of, (0x0D, 2, 177): of})
    last = date(2026, 4, 30)
    for work in (item(Duty.MONTHLY), item(Duty.MONTHLY, window_us=freeze_window(last))):
        outcome, _ = talk(work, terminal, with_profile=DAILY)
        assert outcome.status is Status.DONE and set(seen) == {"2026-04"}
        assert {t for _, _, t in rows(outcome.batch)} == {day_start_us(date(2026, 5, 1))}
    assert set(outcome.batch.samples.source.tolist()) == {Source.MONTHLY}  # type: ignore[union-attr]


def test_wrong_kinds_of_items_are_refused_at_once() -> None:
    for duty, text in ((Duty.DAILY, "0D:F81"), (Duty.DAILY, "0C:F25"), (Duty.LIVE, "0D:F161"), (Duty.LIVE, "0C:F255")):
        with pytest.raises(UsageError):
            open_exchange(DEVICE, DAILY, item(duty, items=(text,)), Credentials(), session=session())
    with pytest.raises(UsageError, match="reads nothing for live"):
        open_exchange(DEVICE, DAILY, item(Duty.LIVE), Credentials(), session=session())


def test_one_point_of_everything_that_the_profile_reads() -> None:
    terminal = freezer({NOW.date() - timedelta(days=1)})
    talk(item(Duty.DAILY, items=("M2",)), terminal, with_profile=DAILY)
    assert [(u.pn, u.fn) for m in terminal.seen for u in m.units] == [(2, 161)]


# --- profiles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qgdw1376-2013", "qgdw1376-2009", "qgdw1376-2005"])
def test_built_in_profiles_open_every_duty(name: str) -> None:
    known = PROFILES[name]
    window = freeze_window(NOW.date() - timedelta(days=1))
    for duty in (*known.read, Duty.CURVE, Duty.PROBE):
        work = item(duty, window_us=window if duty is Duty.CURVE else None)
        exchange = open_exchange(DEVICE, known, work, Credentials(), session=session(edition=known.version))
        assert exchange.next_request(NOW_US) is not None
    assert known.terminal is not None and known.curve is not None


def test_every_fault_of_a_terminal_profile_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(
        'inherits = "qgdw1376-2013"\n[terminal]\nanswer_bytes = 10\nsettlement_day = 31\n[read.live]\n'
        'items = ["0D:F161", "02010100", "0C:F250", "0c:f25"]\n[read.daily]\nitems = ["0D:F177"]\n'
        '[read.event]\nitems = ["0C:F7"]\n[curve]\nitems = ["0D:F161"]\nstep_s = 600\n',
        encoding="utf-8",
    )
    (tmp_path / "m.toml").write_text('inherits = "dlt645-2007-1p"\n[terminal]\nfcv = true\n', encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_profiles(tmp_path)
    text = str(caught.value)
    for field in (
        "terminal.answer_bytes", "terminal.settlement_day", "read.live.items[0]", "read.live.items[1]",
        "read.live.items[2]", "read.live.items[3]", "read.daily.items[0]", "read.event.items[0]", "curve.items[0]",
        "curve.step_s", "m.toml: terminal: is for terminals",
    ):  # fmt: skip
        assert field in text, field


def test_cycles_of_a_terminal() -> None:
    device = msgspec.structs.replace(DEVICE, profile="qgdw1376-2013")
    cycles = {c.duty for c in build_cycles([device], PROFILES, CycleConfig())}
    assert cycles == {
        Duty.LIVE, Duty.CURVE, Duty.DAILY, Duty.MONTHLY, Duty.EVENT, Duty.CLOCK, Duty.PARAMETER,
    }  # fmt: skip


# --- ledger -----------------------------------------------------------------------------------------------------------


def test_the_ledger_of_a_terminal() -> None:
    device = msgspec.structs.replace(DEVICE, profile="qgdw1376-2013")
    known = PROFILES["qgdw1376-2013"]
    assert known.curve is not None
    found = tracks([device], PROFILES)
    curves = [t for t in found if t.duty is Duty.CURVE]
    assert {(t.point, t.item) for t in curves} == {
        (p, i) for p in (71, 72) for i in known.curve.items if i not in ("0D:F73", "0D:F74")
    } | {(75, "0D:F73"), (75, "0D:F74")}
    voltage = next(t for t in curves if t.item == "0D:F89" and t.point == 72)
    assert (voltage.mark, voltage.ask, voltage.retention_days) == ("voltage_a", "0D:F89:P2", 10)
    daily = {t.point: (t.mark, t.ask, t.retention_days) for t in found if t.duty is Duty.DAILY}
    assert daily[71] == ("forward_active_total", "M1", 31) and daily[75][1] == "G1"
    assert all(t.mark in {q.name for q in by_id().values()} for t in found)
    monthly = {t.point: t.mark for t in found if t.duty is Duty.MONTHLY}
    assert monthly[72] == "forward_active_total"


def test_a_hole_of_one_point_is_asked_of_that_point_only() -> None:
    device = msgspec.structs.replace(DEVICE, profile="qgdw1376-2013")
    rows_ = [t for t in tracks([device], PROFILES) if t.duty is Duty.DAILY]
    labels = np.array([day_start_us(NOW.date())], np.int64)
    missing = np.array([[t.point == 72] for t in rows_])
    (need,) = gaps(rows_, missing, labels, {5: len(rows_)})
    assert need.items == ("M2",)
    (need,) = gaps(rows_, np.ones((len(rows_), 1), np.bool_), labels, {5: len(rows_)})
    assert need.items == ()
    # what recall asks is what the exchange understands
    terminal = freezer({NOW.date() - timedelta(days=1)})
    outcome, _ = talk(
        item(Duty.DAILY, items=("M2",), window_us=(int(labels[0]), int(labels[0]) + 1)), terminal, with_profile=DAILY
    )
    assert {p for p, _, _ in rows(outcome.batch)} == {72}


# --- plan -------------------------------------------------------------------------------------------------------------

DIAL_IN = LinkConfig(name="d", kind="listen-tcp")


def fleet(meters: list[int]) -> list[Device]:
    """Terminals with so many points each."""
    return [
        Device(
            id=i, name=f"t{i}", link="d", profile="qgdw1376-2013", address=f"3301-{i + 1}",
            points=tuple(Point(id=0, name=f"{i}-{n}", pn=n) for n in range(1, count + 1)),
        )
        for i, count in enumerate(meters)
    ]  # fmt: skip


def test_the_plan_reckons_with_the_requests_that_are_really_made() -> None:
    known = PROFILES["qgdw1376-2013"]
    device = fleet([20])[0]
    terminal = Paper()
    given = msgspec.structs.replace(known, name="t")
    work = item(Duty.LIVE)
    _, sent = talk(work, terminal, with_profile=given, device=device)
    reckoned = transactions(known, Duty.LIVE, 0, points=(("measuring", 20),))
    assert len(sent) == len(reckoned)
    assert sum(len(r.data) for r in sent) == sum(t.tx_bytes for t in reckoned)


def test_dial_in_terminals_are_planned_by_their_busiest_line() -> None:
    (plan,) = check_plan(fleet([1, 1, 40, 1]), PROFILES, [DIAL_IN], CycleConfig())
    assert (plan.link, plan.lines, plan.busiest, plan.devices, plan.baud) == ("d", 4, "t2", 4, None)
    assert plan.fits and "busiest of 4 lines" in describe(plan) and "MB a month" in describe(plan)
    (small,) = check_plan(fleet([1]), PROFILES, [DIAL_IN], CycleConfig())
    assert small.utilisation < plan.utilisation / 2 and small.month_bytes < plan.month_bytes / 5
    (heavy,) = check_plan(fleet([2000]), PROFILES, [DIAL_IN], CycleConfig(live_s=60))
    assert not heavy.fits and heavy.advice[0].startswith("ask for live of qgdw1376-2013 every")


def test_a_meter_behind_a_terminal_loads_the_terminals_line() -> None:
    meter = Device(
        id=9, name="m", link="d", profile="dlt645-2007-1p", address="000000000001", points=(Point(id=0, name="m"),),
        options={"via": "t0", "port": "2"},
    )  # fmt: skip
    (alone,) = check_plan(fleet([1, 1]), PROFILES, [DIAL_IN], CycleConfig())
    (both,) = check_plan([*fleet([1, 1]), meter], PROFILES, [DIAL_IN], CycleConfig())
    assert (both.lines, both.devices, both.busiest) == (2, 3, "t0") and both.utilisation > alone.utilisation
    own = [load for load in both.loads if load.profile == "dlt645-2007-1p" and load.duty is Duty.LIVE]
    assert own[0].transactions == 4 and own[0].busy_s > 4 * 2


def test_a_poll_of_a_terminal_takes_its_time() -> None:
    plan = TerminalPlan(answer_bytes=16_000, units_per_request=500)
    large = msgspec.structs.replace(PROFILES["qgdw1376-2013"], terminal=plan)
    few = transactions(large, Duty.CURVE, 4, points=(("measuring", 20),))
    many = transactions(PROFILES["qgdw1376-2013"], Duty.CURVE, 4, points=(("measuring", 20),))
    assert len(few) < len(many) and sum(t.rx_bytes for t in few) < sum(t.rx_bytes for t in many)
