"""The plan checker against sums worked out by hand (bytes from the frames of the standards)."""

from __future__ import annotations

import msgspec
import pytest

from fuhe.acquisition.config import CycleConfig, LinkConfig
from fuhe.acquisition.plan import LIMIT, byte_s, check_plan, describe, transaction_s
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.acquisition.wire import Transaction, transactions
from fuhe.model.devices import Device
from fuhe.model.lang import set_lang
from fuhe.model.work import Duty

PROFILES = builtin_profiles()
METER = PROFILES["dlt645-2007-3p4w"]
BUS = LinkConfig(name="bus", kind="serial", baud=2400, turnaround_ms=25, margin_ms=50)
LIVE_ONLY = CycleConfig(live_s=900, curve_s=0, event_s=0, daily_at="", monthly_at="", clock_at="")


@pytest.fixture(autouse=True)
def _english() -> None:
    set_lang("en")


def fleet(n: int, profile: str = "dlt645-2007-3p4w", link: str = "bus") -> list[Device]:
    return [Device(id=i, name=f"m{i}", link=link, profile=profile, address=str(i), points=()) for i in range(n)]


def test_dlt645_live_bytes() -> None:
    # request: 4 x FE + 12 + DI 4 = 20; reply: 4 + 12 + DI 4 + payload of 6, 9, 12, 12 and 8 bytes
    found = transactions(METER, Duty.LIVE, 0)
    assert found == tuple(Transaction(20, 20 + n) for n in (6, 9, 12, 12, 8))


def test_dlt645_1997_live_bytes() -> None:
    # two-byte DI: 4 + 12 + 2 = 18; blocks of U 6, I 6, P 12, Q 8, PF 8
    assert transactions(PROFILES["dlt645-1997-3p"], Duty.LIVE, 0) == tuple(
        Transaction(18, 18 + n) for n in (6, 6, 12, 8, 8)
    )


def test_dlt645_daily_counts_total_and_four_tariffs() -> None:
    # freeze time 5; five registers of 4; demand five times 8
    assert [t.rx_bytes - 20 for t in transactions(METER, Duty.DAILY, 0)] == [5, 20, 20, 20, 20, 40]


def test_dlt645_curve_asks_in_blocks_and_follows_on() -> None:
    # class 2: a record is 16 + 24 = 40 bytes; four of them 160 and DI 4; request DI + N + time = 10
    assert METER.curve is not None
    curve = msgspec.structs.replace(METER.curve, classes=(2,), blocks_per_request=4)
    one_class = msgspec.structs.replace(METER, curve=curve)
    assert transactions(one_class, Duty.CURVE, 4) == (Transaction(26, 16 + 164),)
    assert transactions(one_class, Duty.CURVE, 5) == (Transaction(26, 180), Transaction(26, 16 + 44))
    assert one_class.curve is not None
    eight = msgspec.structs.replace(
        one_class, curve=msgspec.structs.replace(one_class.curve, blocks_per_request=8)
    )  # fmt: skip
    # 320 bytes: 196 in the first frame, 124 in the follow-on frame whose request is DI + SEQ
    assert transactions(eight, Duty.CURVE, 8) == (Transaction(26, 16 + 200), Transaction(21, 16 + 5 + 124))


def test_modbus_bytes_follow_the_grouping() -> None:
    chint = PROFILES["chint-ddsu666"]
    one = transactions(chint, Duty.DAILY, 0)
    # one float of two registers: RTU 8 out, 5 + 4 back; TCP 12 out, 9 + 4 back
    assert one == (Transaction(8, 9),)
    assert transactions(chint, Duty.DAILY, 0, "tcp") == (Transaction(12, 13),)
    assert transactions(PROFILES["mqtt-v1"], Duty.LIVE, 0) == ()


def test_byte_time() -> None:
    assert byte_s(BUS, METER) == 11 / 2400  # 8E1
    assert byte_s(msgspec.structs.replace(BUS, parity="N"), METER) == 10 / 2400
    modbus_tcp = LinkConfig(name="t", kind="tcp", framing="tcp")
    assert byte_s(modbus_tcp, PROFILES["eastron-sdm630"]) == 0.0
    assert byte_s(modbus_tcp, METER) == 11 / 9600  # a serial server behind the socket
    assert byte_s(msgspec.structs.replace(modbus_tcp, framing="rtu"), PROFILES["eastron-sdm630"]) == 11 / 9600


def test_transaction_time_by_hand() -> None:
    # 46 bytes at 2400: 46 x 11 / 2400 = 0.210833; + 0.1 delay + 0.025 turnaround
    # + 2 % of (0.210833 + 0.55 + 0.05) = 0.016217
    assert transaction_s(Transaction(20, 26), BUS, METER) == pytest.approx(0.352050, abs=1e-6)


def test_utilisation_by_hand() -> None:
    # five transactions of 46, 49, 52, 52, 48 bytes = 247 bytes: 1.132083 s on the wire, 5 x 0.125 s waiting,
    # retries 0.02 x (1.132083 + 5 x 0.6) = 0.082642; together 1.839725 s a meter
    (plan,) = check_plan(fleet(30), PROFILES, [BUS], LIVE_ONLY)
    live = next(load for load in plan.loads if load.duty is Duty.LIVE)
    assert (live.devices, live.transactions, live.tx_bytes, live.rx_bytes) == (30, 150, 3000, 4410)
    assert live.busy_s == pytest.approx(30 * 1.839725, abs=1e-3)
    assert live.utilisation == pytest.approx(30 * 1.839725 / 900, abs=1e-6)
    assert plan.fits and not plan.tight and plan.excess_s == 0 and plan.advice == ()
    assert describe(plan) == "bus: 6% fits"


def test_a_plan_that_cannot_fit_says_by_how_much_and_what_to_change() -> None:
    (plan,) = check_plan(fleet(30), PROFILES, [BUS], msgspec.structs.replace(LIVE_ONLY, live_s=60))
    wanted = 30 * 1.839725 / 60
    parameters = sum(load.utilisation for load in plan.loads if load.duty is Duty.PARAMETER)
    assert not plan.fits and plan.utilisation == pytest.approx(wanted + parameters)
    assert plan.excess_s == pytest.approx((wanted + parameters - LIMIT) * 3600)
    # 55.19 s of line time each pass at 85 % need 65 s: rounded up to the next minute
    assert plan.advice[0] == "ask for live of dlt645-2007-3p4w every 120 s instead of 60 s"
    assert plan.advice[1].startswith("set line and meters to 4800 baud")
    assert plan.advice[2] == "move 3 of its 30 devices to another line"
    assert "lacking in each hour" in describe(plan)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_following_the_advice_makes_it_fit(step: int) -> None:
    cycles = msgspec.structs.replace(LIVE_ONLY, live_s=60)
    changed = [
        (fleet(30), BUS, msgspec.structs.replace(cycles, live_s=120)),
        (fleet(30), msgspec.structs.replace(BUS, baud=4800), cycles),
        (fleet(27), BUS, cycles),
    ][step]
    devices, link, config = changed
    assert check_plan(devices, PROFILES, [link], config)[0].fits


def test_freezes_have_until_the_cut_off() -> None:
    (plan,) = check_plan(fleet(1), PROFILES, [BUS], CycleConfig())
    times = {load.duty: load.period_s for load in plan.loads}
    assert times[Duty.DAILY] == 8 * 3600 - 300 and times[Duty.MONTHLY] == 48 * 3600 - 1800
    assert times[Duty.CURVE] == 3600 and times[Duty.CLOCK] == 86_400 and times[Duty.PARAMETER] == 604_800


def test_only_lines_with_enabled_devices_are_planned() -> None:
    links = [BUS, LinkConfig(name="empty", kind="serial"), LinkConfig(name="broker", kind="mqtt")]
    devices = [*fleet(1), *(msgspec.structs.replace(d, enabled=False) for d in fleet(5, link="empty"))]
    plans = check_plan([*devices, *fleet(1, "mqtt-v1", "broker")], PROFILES, links, CycleConfig())
    assert [(p.link, p.devices, p.baud) for p in plans] == [("bus", 1, 2400)]
    tcp = LinkConfig(name="net", kind="tcp", framing="tcp")
    (plan,) = check_plan(fleet(2, "eastron-sdm630", "net"), PROFILES, [tcp], CycleConfig())
    assert plan.baud is None and plan.fits
