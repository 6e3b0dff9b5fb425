"""Reading rows of several layouts out of one binary COPY."""

from __future__ import annotations

import numpy as np
import pytest

from fuhe.storage.copying import RowType, array, read_mixed

SHORT = RowType([("form", "int2"), ("point", "int4"), ("vals", "int2[4]"), ("wide", "null")])
WIDE = RowType([("form", "int2"), ("point", "int4"), ("vals", "null"), ("wide", "int8[4]")])
HEAD, END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"


def row(layout: RowType, form: int, point: int, column: str, value: int) -> bytes:
    out = layout.rows(1)
    out["form"], out["point"] = form, point
    array(out, column)[...] = value
    return out.tobytes()


def test_mixed_rows_come_back_by_layout_in_their_order() -> None:
    body = [row(SHORT, 0, p, "vals", p) if p % 3 else row(WIDE, 1, p, "wide", 10**12 + p) for p in range(10)]
    short, wide = read_mixed(HEAD + b"".join(body) + END, (SHORT, WIDE))
    assert short["point"].tolist() == [1, 2, 4, 5, 7, 8]
    assert array(short, "vals")[3].tolist() == [5] * 4
    assert wide["point"].tolist() == [0, 3, 6, 9]
    assert array(wide, "wide")[1].tolist() == [10**12 + 3] * 4


@pytest.mark.parametrize("count", [0, 1, 7])
def test_rows_of_one_layout(count: int) -> None:
    body = b"".join(row(WIDE, 1, p, "wide", p) for p in range(count))
    short, wide = read_mixed(HEAD + body + END, (SHORT, WIDE))
    assert (len(short), wide["point"].tolist()) == (0, list(range(count)))
    assert np.array_equal(array(wide, "wide")[:, 0], np.arange(count))


def test_other_rows_are_refused() -> None:
    good = row(SHORT, 0, 1, "vals", 1)
    with pytest.raises(ValueError, match="unknown layout"):
        read_mixed(HEAD + row(SHORT, 2, 1, "vals", 1) + END, (SHORT, WIDE))
    with pytest.raises(ValueError, match="expected width"):
        read_mixed(HEAD + good + good[:-3] + END, (SHORT, WIDE))
