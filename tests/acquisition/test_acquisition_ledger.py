"""The ledger against slow references: gaps cover exactly the missing slots; retries, indicators, a recall's life."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fuhe.acquisition.config import CycleConfig
from fuhe.acquisition.cycles import freeze_window, slot_labels_us
from fuhe.acquisition.ledger import (
    RANK,
    Kpi,
    Need,
    Track,
    counts,
    curve_marks,
    due,
    gaps,
    kpis,
    next_try_us,
    order,
    runs,
    tracks,
)
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.acquisition.recall import (
    DayCount,
    Exemption,
    Recaller,
    RecallRow,
    grace_s,
    labels_back,
)
from fuhe.model.devices import Device, Point
from fuhe.model.quality import Source
from fuhe.model.quantities import quantity
from fuhe.model.times import DAY_US, US, day_start_us
from fuhe.model.work import Duty, Outcome, Priority, Status

DAY = date(2026, 9, 20)
STEP_US = 900 * US


def track(device: int, item: str = "1", duty: Duty = Duty.CURVE, step_s: int = 900) -> Track:
    return Track(
        device=device, point=device * 10, duty=duty, item=item, mark="voltage_a", source=Source.CURVE, step_s=step_s,
        retention_days=10,
    )  # fmt: skip


masks = st.integers(1, 6).flatmap(
    lambda k: st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=k, max_size=k)
)


@given(masks)
def test_runs_against_a_slow_loop(rows: list[list[bool]]) -> None:
    found = list(zip(*(a.tolist() for a in runs(np.array(rows))), strict=True))
    slow = []
    for r, row in enumerate(rows):
        start = None
        for i, value in enumerate([*row, False]):
            if value and start is None:
                start = i
            elif not value and start is not None:
                slow.append((r, start, i))
                start = None
    assert found == slow


@given(masks, st.lists(st.integers(1, 3), min_size=6, max_size=6))
@settings(max_examples=60)
def test_gaps_cover_exactly_the_missing_slots_with_the_fewest_requests(
    rows: list[list[bool]], owners: list[int]
) -> None:
    missing = np.array(rows)
    used: dict[int, int] = {}
    members = []
    for owner in owners[: len(rows)]:
        used[owner] = used.get(owner, 0) + 1
        members.append(track(owner, str(used[owner])))
    labels = slot_labels_us(DAY)[:12]
    needs = gaps(members, missing, labels, used)
    asked: set[tuple[int, str, int]] = set()
    for need in needs:
        items = need.items or tuple(str(n) for n in range(1, used[need.device] + 1))
        cells = {(need.device, i, t) for i in items for t in range(need.from_us, need.to_us, STEP_US)}
        assert not cells & asked, "asked twice"
        asked |= cells
    wanted = {
        (m.device, m.item, int(labels[i])) for m, row in zip(members, rows, strict=True) for i, x in enumerate(row) if x
    }
    assert asked == wanted
    row, first, beyond = runs(missing)
    ranges = {(members[r].device, a, b) for r, a, b in zip(row.tolist(), first.tolist(), beyond.tolist(), strict=True)}
    assert len(needs) == len(ranges)
    assert needs == order(needs)


def test_a_gap_across_midnight_is_one_request_and_all_classes_share_it() -> None:
    labels = np.concatenate([slot_labels_us(DAY), slot_labels_us(DAY + timedelta(days=1))])
    missing = np.zeros((2, 192), np.bool_)
    missing[:, 90:100] = True
    needs = gaps([track(1, "1"), track(1, "2")], missing, labels, {1: 2})
    assert [(n.items, n.from_us, n.to_us) for n in needs] == [((), int(labels[90]), int(labels[99]) + STEP_US)]
    assert gaps([track(1, "1"), track(1, "2")], missing, labels, {1: 3})[0].items == ("1", "2")
    assert needs[0].expires_us == int(labels[99]) + 10 * DAY_US


def test_order_is_monthly_daily_events_curves_newest_first() -> None:
    def need(duty: Duty, to_us: int) -> Need:
        return Need(device=1, duty=duty, items=(), from_us=0, to_us=to_us, expires_us=9)

    mixed = [need(d, t) for d in (Duty.CURVE, Duty.DAILY, Duty.EVENT, Duty.MONTHLY) for t in (1, 3, 2)]
    found = [(n.duty, n.to_us) for n in order(mixed)]
    assert found == [(d, t) for d in sorted(RANK, key=RANK.__getitem__) for t in (3, 2, 1)]
    assert [d for d, _ in found[::3]] == [Duty.MONTHLY, Duty.DAILY, Duty.EVENT, Duty.CURVE]


def test_retries_at_10_30_60_minutes_then_every_4_hours_until_the_device_forgets() -> None:
    now, expires, attempts, waits = 0, 10 * DAY_US, 0, []
    while True:
        attempts += 1
        following = next_try_us(attempts, now, expires)
        if following is None:
            break
        waits.append((following - now) // (60 * US))
        now = following
    assert waits[:6] == [10, 30, 60, 240, 240, 240] and set(waits[3:]) == {240}
    # 100 minutes, then as many times four hours as fit before ten days are over
    assert len(waits) == 3 + (10 * 24 * 60 - 100 - 1) // 240
    denied = [(next_try_us(n, 0, expires, denied=True) or 0) // (60 * US) for n in (1, 3, 4, 9)]
    assert denied == [10, 60, 1440, 1440]  # what the device says it does not have is asked for daily
    assert next_try_us(1, 0, 600 * US) is None and next_try_us(1, 0, 600 * US + 1) == 600 * US


def test_due_begins_with_service_and_ends_with_now() -> None:
    labels = np.arange(10, dtype=np.int64)
    found = due(labels, 2, in_service_us=np.array([0, 4]), until_us=6)
    # the label of the beginning itself belongs to the day before
    assert found.tolist() == [[False] + [True] * 6 + [False] * 3, [False] * 5 + [True] * 2 + [False] * 3]
    assert due(labels, 1, until_us=-1).sum() == 0


@given(masks, masks, masks)
@settings(max_examples=60)
def test_indicators_against_a_slow_loop(a: list[list[bool]], b: list[list[bool]], c: list[list[bool]]) -> None:
    k = min(len(a), len(b), len(c))
    expected, exempt, valid = (np.array(m[:k]) for m in (a, b, c))
    labels = slot_labels_us(DAY)[:12]
    received = np.where(valid, labels + (np.arange(k)[:, None] * 700 + np.arange(12) * 100) * US, 0)
    passed, cutoff = labels + 1200 * US, labels + 2400 * US
    found = {
        x.name: x
        for x in kpis(
            counts(
                expected=expected, exempt=exempt, received_us=received, valid=valid, labels_us=labels, pass_us=passed,
                cutoff_us=cutoff,
            )
        )
    }  # fmt: skip
    counted = [(i, j) for i in range(k) for j in range(12) if expected[i, j] and not exempt[i, j]]
    apart = sum(1 for i in range(k) for j in range(12) if expected[i, j] and exempt[i, j])

    def count(limit_s: int) -> int:
        return sum(1 for i, j in counted if 0 < received[i, j] <= labels[j] + limit_s * US)

    assert found["first_pass_success"].numerator == count(1200)
    assert found["period_success"].numerator == count(2400)
    assert found["timeliness"].numerator == count(900)
    assert found["completeness"].numerator == sum(1 for i, j in counted if valid[i, j])
    assert {(x.denominator, x.exempt) for x in found.values()} == {(len(counted), apart)}


def test_a_ratio_without_anything_due_is_none() -> None:
    assert Kpi(name="x", numerator=0, denominator=0, exempt=3).ratio is None
    assert Kpi(name="x", numerator=3, denominator=4, exempt=0).ratio == 0.75


METER = Device(
    id=7, name="m", link="bus", profile="dlt645-2007-1p", address="1", points=(Point(id=70, name="p"),)
)  # fmt: skip


def test_tracks_follow_the_profile() -> None:
    found = tracks([METER], builtin_profiles())
    assert [(t.duty, t.item, t.mark) for t in found] == [
        (Duty.CURVE, "1", "voltage_a"),
        (Duty.CURVE, "2", "active_power_total"),
        (Duty.CURVE, "4", "forward_active_total"),
        (Duty.DAILY, "", "forward_active_total"),
        (Duty.MONTHLY, "", "forward_active_total"),
    ]
    siemens = msgspec.structs.replace(METER, profile="siemens-pac3200")
    assert [(t.duty, t.mark, t.retention_days) for t in tracks([siemens], builtin_profiles())] == [
        (Duty.DAILY, "forward_active_t1", 1)
    ]
    published = tracks([msgspec.structs.replace(METER, profile="mqtt-v1")], builtin_profiles())
    assert [(t.duty, t.mark, t.step_s, t.recallable) for t in published] == [
        (Duty.CURVE, "active_power_total", 900, False),
        (Duty.DAILY, "forward_active_total", 86_400, False),
    ]
    assert tracks([msgspec.structs.replace(METER, profile="mqtt-live")], builtin_profiles()) == []
    assert tracks([msgspec.structs.replace(METER, enabled=False)], builtin_profiles()) == []
    since = msgspec.structs.replace(METER, options={"since": "2026-09-19"})
    assert {t.since_us for t in tracks([since], builtin_profiles())} == {day_start_us(date(2026, 9, 19))}


class Book:
    """Recall store and presence in memory: the same contract as the database's."""

    def __init__(self) -> None:
        self.rows: dict[int, RecallRow] = {}
        self.have: set[tuple[int, int, int]] = set()
        self.counts: list[DayCount] = []

    def curve(
        self, points: NDArray[np.int32], quantity: int, labels_us: NDArray[np.int64], step_s: int
    ) -> NDArray[np.bool_]:
        return np.array([[(int(p), quantity, int(t)) in self.have for t in labels_us] for p in points])

    def freezes(
        self, points: NDArray[np.int32], quantity: int, source: Source, labels_us: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        return self.curve(points, quantity, labels_us, 0)

    def live(
        self, points: NDArray[np.int32], quantity: int, labels_us: NDArray[np.int64], step_s: int
    ) -> NDArray[np.bool_]:
        return self.curve(points, quantity, labels_us, step_s)

    def rows_since(self, duty: Duty, from_us: int) -> Sequence[RecallRow]:
        return [r for r in self.rows.values() if r.duty == duty and r.to_us > from_us]

    def add(self, needs: Sequence[Need], now_us: int) -> int:
        for n in needs:
            number = len(self.rows) + 1
            self.rows[number] = RecallRow(
                id=number, device=n.device, duty=n.duty, items=n.items, from_us=n.from_us, to_us=n.to_us, attempts=0,
                next_us=now_us, expires_us=n.expires_us, state="open",
            )  # fmt: skip
        return len(needs)

    def change(self, row_id: int, **fields: object) -> None:
        row = self.rows[row_id]
        names = RecallRow.__dataclass_fields__
        self.rows[row_id] = RecallRow(**{**{n: getattr(row, n) for n in names}, **fields})

    def close(self, rows: Sequence[RecallRow]) -> None:
        for row in rows:
            self.change(row.id, state="done")

    def lease(self, now_us: int, limit: int) -> Sequence[RecallRow]:
        ready = [r for r in self.rows.values() if r.state == "open" and r.next_us <= now_us]
        return sorted(ready, key=lambda r: (RANK[r.duty], -r.from_us))[:limit]

    def settle(self, row: RecallRow, attempts: int, next_us: int | None, reason: str) -> None:
        if next_us is None:
            self.change(row.id, state="lost", attempts=attempts)
        else:
            self.change(row.id, next_us=next_us, attempts=attempts)

    def count(self, counts: Sequence[DayCount]) -> None:
        self.counts += counts

    def store(self, mark: str, labels: Sequence[int]) -> None:
        self.have |= {(70, quantity(mark).id, int(t)) for t in labels}


CONFIG = CycleConfig()
NOW = day_start_us(date(2026, 9, 21)) + 12 * 3600 * US
MARKS = ("voltage_a", "active_power_total", "forward_active_total")


def full_book(days: int = 2) -> Book:
    book = Book()
    for mark in MARKS:
        book.store(mark, labels_back(Duty.CURVE, 900, NOW, days).tolist())
    book.store("forward_active_total", labels_back(Duty.DAILY, 86_400, NOW, days).tolist())
    return book


def make(book: Book, exemptions: Sequence[Exemption] = ()) -> Recaller:
    return Recaller(tracks([METER], builtin_profiles()), book, book, CONFIG, exemptions)


def remove(book: Book, mark: str, labels: Sequence[int]) -> None:
    book.have -= {(70, quantity(mark).id, int(t)) for t in labels}


def test_nothing_missing_opens_nothing() -> None:
    book = full_book()
    result = make(book).scan(NOW, 2)
    assert (result.missing, result.opened, result.closed) == (0, 0, 0)
    yesterday = {c.item: c for c in book.counts if c.day == DAY}
    assert {k: (c.due, c.got, c.first_pass) for k, c in yesterday.items()} == {
        "curve:1": (96, 96, 96), "curve:2": (96, 96, 96), "curve:4": (96, 96, 96), "daily": (1, 1, 1),
    }  # fmt: skip


def test_life_of_a_gap_from_hole_to_done() -> None:
    book = full_book()
    hole = slot_labels_us(DAY)[20:30].tolist()
    for mark in MARKS:
        remove(book, mark, hole)
    remove(book, "forward_active_total", [freeze_window(DAY)[0]])
    recaller = make(book)
    first = recaller.scan(NOW, 2)
    # the fake keeps freezes and curves in one place: the label 00:00 is missing in both
    assert first.opened == len(book.rows) == 3 and first.missing == 30 + 2
    again = recaller.scan(NOW + 60 * US, 2)
    assert (again.opened, again.closed) == (0, 0)
    items = [item for _, item in recaller.due(NOW, 0.0, 10)]
    assert [i.duty for i in items] == [Duty.DAILY, Duty.CURVE, Duty.CURVE]
    assert {i.priority for i in items} == {Priority.RECALL} and items[0].window_us == freeze_window(DAY)
    whole = next(i for i in items if i.window_us == (hole[0], hole[-1] + STEP_US))
    assert whole.items == () and whole.recall_id is not None
    row = book.rows[whole.recall_id]
    recaller.settle(row, Outcome(status=Status.DONE), NOW)
    assert book.rows[row.id].state == "open" and book.rows[row.id].next_us == NOW + 600 * US
    for mark in MARKS:
        book.store(mark, hole)
    book.counts.clear()
    done = recaller.scan(NOW + 120 * US, 2)
    assert done.closed == 1 and book.rows[row.id].state == "done"
    # only what has changed is told again
    assert {(c.item, c.day) for c in book.counts} == {(f"curve:{n}", DAY) for n in (1, 2, 4)} and done.counted == 3
    assert recaller.scan(NOW + 121 * US, 2).counted == 0
    counted = {c.item: (c.due, c.got, c.first_pass) for c in book.counts if c.day == DAY}
    assert counted["curve:1"] == (96, 96, 86)


def test_unasked_is_no_attempt_and_lost_is_final() -> None:
    book = full_book()
    remove(book, "voltage_a", slot_labels_us(DAY)[:4].tolist())
    recaller = make(book)
    recaller.scan(NOW, 2)
    (row,) = book.rows.values()
    assert row.items == ("1",)
    recaller.settle(row, Outcome(status=Status.QUARANTINED), NOW)
    assert book.rows[row.id].attempts == 0 and book.rows[row.id].next_us == NOW + 600 * US
    book.change(row.id, expires_us=NOW + 5 * US)
    recaller.settle(book.rows[row.id], Outcome(status=Status.SILENT), NOW)
    assert book.rows[row.id].state == "lost" and book.rows[row.id].attempts == 1
    assert recaller.scan(NOW + DAY_US // 24, 2).opened == 0


def test_exempt_slots_are_listed_apart() -> None:
    book = full_book()
    gone = slot_labels_us(DAY)[40:50].tolist()
    for mark in MARKS:
        remove(book, mark, gone)
    exemption = Exemption(point=70, from_us=gone[0], to_us=gone[-1] + 1, reason="suspended")
    result = make(book, [exemption]).scan(NOW, 2)
    assert (result.missing, result.opened) == (0, 0)
    assert {c.item: (c.due, c.exempt) for c in book.counts if c.day == DAY}["curve:2"] == (86, 10)


def test_the_scheduled_pass_has_its_chance_first() -> None:
    book = Book()
    at = day_start_us(date(2026, 9, 21)) + 600 * US
    result = make(book).scan(at, 0)
    assert result.missing == 0
    late = at + grace_s(Duty.DAILY, CONFIG) * US
    assert make(book).scan(late, 0).missing == 0  # the freeze of the 21st is not taken yet
    assert make(book).scan(late, 1).missing > 0


def test_what_the_device_has_forgotten_is_not_asked_for() -> None:
    book = Book()
    make(book).scan(NOW, 15)
    assert min(r.from_us for r in book.rows.values() if r.duty is Duty.CURVE) > NOW - 10 * DAY_US
    assert min(r.from_us for r in book.rows.values() if r.duty is Duty.DAILY) < NOW - 14 * DAY_US


def test_holes_of_a_day_for_people() -> None:
    book = full_book()
    remove(book, "active_power_total", slot_labels_us(DAY)[[0, 1, 95]].tolist())
    found = [(h.track.item, h.from_us, h.to_us) for h in make(book).holes(DAY, NOW)]
    labels = slot_labels_us(DAY).tolist()
    assert found == [("2", labels[0], labels[2]), ("2", labels[95], labels[95] + STEP_US)]


def test_labels_back_of_months() -> None:
    assert labels_back(Duty.MONTHLY, 0, NOW, 40).tolist() == [day_start_us(date(2026, 9, 1))]
    assert len(labels_back(Duty.MONTHLY, 0, NOW, 10)) == 0


def live_of(profile: str, config: CycleConfig = CONFIG) -> list[tuple[str, int]]:
    found = tracks([msgspec.structs.replace(METER, profile=profile)], builtin_profiles(), config)
    return [(t.mark, t.step_s) for t in found if t.duty is Duty.LIVE]


def test_live_values_are_expected_once_a_period() -> None:
    assert live_of("dlt645-2007-3p4w") == [("active_power_total", 900)]
    assert live_of("eastron-sdm630") == [("active_power_total", 900)]
    assert live_of("mqtt-v1", CycleConfig(live_s=5)) == [("active_power_total", 900)], "its profile's period counts"
    steps = [(5, 60), (60, 60), (70, 72), (1000, 1080), (100_000, 86_400)]
    assert [live_of("dlt645-2007-1p", CycleConfig(live_s=s))[0][1] for s, _ in steps] == [n for _, n in steps]
    assert live_of("dlt645-2007-1p", CycleConfig(live_s=0)) == []


def test_marks_are_those_of_the_profiles_curves() -> None:
    found = builtin_profiles()
    assert curve_marks([found["dlt645-2007-1p"]]) == {"voltage_a", "active_power_total", "forward_active_total"}
    assert curve_marks([found["mqtt-v1"]]) == {"active_power_total"}
    assert curve_marks([found["eastron-sdm630"]]) == frozenset()
    assert curve_marks([found["qgdw1376-2013"]])


def test_what_cannot_be_recalled_is_counted_and_never_asked_for() -> None:
    book = Book()
    device = msgspec.structs.replace(METER, profile="mqtt-v1")
    made = Recaller(tracks([device], builtin_profiles(), CONFIG), book, book, CONFIG)
    book.store("active_power_total", slot_labels_us(DAY)[:90].tolist())
    result = made.scan(NOW, 2)
    assert result.opened == 0 and not book.rows
    counted = {c.item: (c.due, c.got) for c in book.counts if c.day == DAY}
    assert counted["live"] == (96, 90) and counted["curve:active_power_total"] == (96, 90)
    assert counted["daily"] == (1, 0)
    assert {h.track.duty for h in made.holes(DAY, NOW)} == {Duty.CURVE, Duty.DAILY}
    assert {h.track.duty for h in made.holes(DAY, NOW, live=True)} == {Duty.CURVE, Duty.DAILY, Duty.LIVE}
    book.counts.clear()
    book.store("active_power_total", slot_labels_us(DAY).tolist())
    made.scan(NOW + 60 * US, 2)
    assert "live" not in {c.item for c in book.counts}, "live values of a day are looked at once, when it has ended"
    made.scan(NOW + DAY_US, 2)
    assert {c.day for c in book.counts if c.item == "live"} == {DAY + timedelta(days=1)}


def test_a_reading_day_has_a_month_of_its_own() -> None:
    device = msgspec.structs.replace(METER, options={"reading_day": "15"})
    found = [t for t in tracks([device], builtin_profiles()) if t.duty is Duty.MONTHLY]
    assert [t.month_day for t in found] == [1, 15]
    book = full_book(40)
    now = day_start_us(date(2026, 9, 16)) + 12 * 3600 * US
    made = Recaller(tracks([device], builtin_profiles()), book, book, CONFIG)
    made.scan(now, 40)
    monthly = [r for r in book.rows.values() if r.duty is Duty.MONTHLY]
    assert sorted(r.from_us for r in monthly) == []  # the fake's freezes of every midnight stand for both
    for day in (date(2026, 9, 1), date(2026, 9, 15)):
        remove(book, "forward_active_total", [day_start_us(day)])
    made.scan(now, 40)
    monthly = sorted((r for r in book.rows.values() if r.duty is Duty.MONTHLY), key=lambda r: r.from_us)
    assert [r.from_us for r in monthly] == [day_start_us(date(2026, 9, 1)), day_start_us(date(2026, 9, 15))]
    made.scan(now + 60 * US, 40)
    assert {r.state for r in book.rows.values() if r.duty is Duty.MONTHLY} == {"open"}, "none closes the other's"
    book.store("forward_active_total", [day_start_us(date(2026, 9, 15))])
    made.scan(now + 120 * US, 40)
    states = {r.from_us: r.state for r in book.rows.values() if r.duty is Duty.MONTHLY}
    assert states == {day_start_us(date(2026, 9, 1)): "open", day_start_us(date(2026, 9, 15)): "done"}


def test_exemptions_may_change_between_scans() -> None:
    book = full_book()
    hole = slot_labels_us(DAY)[40:50].tolist()
    for mark in MARKS:
        remove(book, mark, hole)
    made = make(book)
    assert made.scan(NOW, 2).opened == 1
    made.exempt([Exemption(point=70, from_us=hole[0], to_us=hole[-1] + 1, reason="outage")])
    assert made.scan(NOW + 60 * US, 2).closed == 1
    made.exempt([])
    again = made.scan(NOW + 120 * US, 2)
    assert again.missing == 30 and again.opened == 1
