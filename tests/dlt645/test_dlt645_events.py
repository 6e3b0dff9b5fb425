"""Counters of events, the records behind them, and how a record reads in both languages."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from fuhe.protocols.dlt645.events import content, counts_of, kinds_counted, label_zh, lasts, record_di, title
from fuhe.protocols.dlt645.explain import text_of
from fuhe.protocols.dlt645.items import decode_payload, encode_payload, lookup

SINGLE = ["03050000", "03060000", "03070000", "03110000", "03300000", "03300100", "03300400", "03300D00", "03300E00"]
BY_PHASE = ["03010000", "03020000", "03030000", "03040000", "030B0000", "030C0000", "030D0000", "030E0000", "030F0000"]


@pytest.mark.parametrize("di", SINGLE)
def test_a_single_counter_counts_its_own_records(di: str) -> None:
    assert [code for code, _ in kinds_counted(di)] == [di]


@pytest.mark.parametrize("di", BY_PHASE)
def test_a_counter_by_phase_counts_three_kinds(di: str) -> None:
    assert [code for code, _ in kinds_counted(di)] == [di[:4] + f"0{n}00" for n in (1, 2, 3)]


def test_demand_over_limit_counts_six_kinds() -> None:
    assert [code for code, _ in kinds_counted("03120000")] == [f"0312{n:02d}00" for n in range(1, 7)]


@pytest.mark.parametrize("di", ["03100100", "03110001", "02010100", "1D000001", "0301FF00", "03990000", "00010000"])
def test_what_is_no_counter_counts_nothing(di: str) -> None:
    assert kinds_counted(di) == ()


def test_counts_are_read_from_the_reply_and_one_that_is_not_fitted_is_left_out() -> None:
    item = lookup("03010000")
    assert item is not None
    payload = encode_payload(item, [7, 120, None, None, 0, 0])
    assert counts_of("03010000", decode_payload(item, payload)) == [("03010100", 7), ("03010300", 0)]


def test_every_field_of_every_record_has_a_chinese_label() -> None:
    for di in [*SINGLE, *BY_PHASE, "03120000", "03090000", "030A0000", *(f"0330{n:02X}00" for n in range(0x0F))]:
        for code, _ in kinds_counted(di):
            item = lookup(record_di(code, 1))
            assert item is not None and title(code) is not None
            for field in item.fields:
                if field.name not in ("start", "end", "time"):
                    assert not re.search(r"[a-z]", label_zh(field.name)), (code, field.name, label_zh(field.name))


def test_a_record_in_words() -> None:
    item = lookup("03300D01")
    assert item is not None
    start, end = datetime(2026, 5, 1, 8, 0), datetime(2026, 5, 1, 8, 5)  # noqa: DTZ001 - the meter's own clock
    payload = encode_payload(item, [start, end, *[100.25] * 6, *[101.5] * 6])
    data = {v.name: text_of(v.value) for v in decode_payload(item, payload)}
    assert title("03300D00") == ("cover open", "开表盖")
    said = list(content("03300D00", data))
    assert said[0] == ("before forward active", "事前正向有功电能", "100.25 kWh")
    assert len(said) == 12 and lasts("03300D00") and not lasts("03300000")


def test_a_foreign_code_has_no_title() -> None:
    assert title("ERC14") is None and title("03300D01") is None and title("power_off") is None
