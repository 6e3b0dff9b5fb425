"""Service indicators: the table is whole, rows say what they rest on, figures given by hand are checked row by row."""

from __future__ import annotations

import pytest

from fuhe.analytics.kpi import Absent, Found, Manual, indicators, manual_row, needs, read_manual, row_of
from fuhe.protocols.common.errors import UsageError

ALL = [*map(str, range(1, 25)), "G1", "G2", *(f"F{n}" for n in range(1, 11)), *(f"Q{n}" for n in range(1, 12))]


def test_every_indicator_has_its_row_and_says_what_it_needs() -> None:
    plain = {number.rstrip("ab") for number in indicators()}
    assert plain == set(ALL)
    for indicator in indicators().values():
        assert indicator.source or (indicator.needs_en and indicator.needs_zh)
        assert indicator.auto != "M" or not indicator.source, "a manual register is not reckoned"
        assert indicator.target is None or 0 < indicator.target <= 1


def test_a_row_is_provisional_below_95_percent_or_before_the_month_is_over() -> None:
    nine = indicators()["9"]
    row = row_of(nine, "2026-09", Found(numerator=985, denominator=1000, completeness=0.95), over=True)
    assert (row.value, row.provisional, row.meets, row.origin) == (0.985, False, True, "system")
    assert row_of(nine, "2026-09", Found(numerator=1, denominator=1, completeness=0.9499), over=True).provisional
    assert row_of(nine, "2026-09", Found(numerator=1, denominator=1, completeness=1.0), over=False).provisional
    assert row_of(nine, "2026-09", Found(numerator=979, denominator=1000, completeness=1.0), over=True).meets is False


def test_without_input_there_is_no_number() -> None:
    row = row_of(indicators()["1"], "2026-09", needs(indicators()["1"]), over=True)
    assert (row.value, row.numerator, row.origin, row.missing) == (None, None, "none", "survey results")
    nothing = row_of(
        indicators()["6"], "2026-09", Found(numerator=0, denominator=0, completeness=0, exempt=3), over=True
    )
    assert (
        nothing.value is None and nothing.note and not nothing.missing and nothing.exempt == 3 and nothing.meets is None
    )
    assert isinstance(needs(indicators()["Q5"]), Absent)


def test_units_and_direction() -> None:
    hours = row_of(indicators()["G1"], "2026-09", Found(numerator=4, denominator=2, completeness=1.0), over=True)
    assert hours.value == 2.0
    ppm = row_of(indicators()["F5"], "2026-09", Found(numerator=3, denominator=1500, completeness=1.0), over=True)
    assert ppm.value == 2000.0


def test_figures_by_hand() -> None:
    text = "\ufeffindicator,numerator,denominator\n1,198,200\n\nG2,90.5,100\n"
    found = read_manual(text, {"9"})
    assert found == [Manual(indicator="1", numerator=198, denominator=200),
                     Manual(indicator="G2", numerator=90.5, denominator=100)]  # fmt: skip
    row = manual_row(indicators()["1"], "2026-09", found[0], over=True)
    assert (row.value, row.meets, row.completeness, row.origin, row.provisional) == (0.99, True, None, "manual", False)


def test_every_fault_of_figures_by_hand_is_named_with_its_row() -> None:
    text = "indicator,numerator,denominator\n1,201,200\n77,1,2\n9,1,1\n2,-1,x\n3,1,0\n1,1,1\n5,1\n2,nan,1e3\n"
    with pytest.raises(UsageError) as caught:
        read_manual(text, {"9"})
    lines = str(caught.value).splitlines()[1:]
    assert [line.strip().split(":")[0] for line in lines] == [
        "row 2, numerator", "row 3, indicator", "row 4, indicator", "row 5, numerator", "row 5, denominator",
        "row 6, denominator", "row 7, indicator", "row 8", "row 9, numerator", "row 9, denominator",
        "row 9, indicator",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "indicator,numerator\n", "indicator,numerator,denominator,extra\n", "indicator,numerator,denominator\n"],
)
def test_a_file_without_figures_or_with_a_wrong_heading_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_manual(text, set())
