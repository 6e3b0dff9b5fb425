"""AFN 0C and 0D: every class of the field's lists is there, in the published sizes, with quantities that exist."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from fuhe.model.quantities import by_name
from fuhe.protocols.qgdw1376.layout import Field, Group, Node, When
from fuhe.protocols.qgdw1376.table import Row, lookup, table

REALTIME = (
    *range(2, 12), *range(17, 25), *range(25, 50), 57, 58, 65, 66, 67, 73, *range(81, 85), *range(89, 104),
    *range(105, 117), 121, *range(129, 163), *range(165, 171), 177, 178,
)  # fmt: skip
HISTORY = (
    *range(1, 13), *range(17, 47), *range(49, 55), *range(57, 63), 65, 66, *range(73, 77), *range(81, 96),
    *range(97, 111), *range(113, 119), *range(121, 124), 129, 130, 138, *range(145, 149), *range(153, 197),
    *range(201, 211), *range(213, 219),
)  # fmt: skip


def row(afn: int, fn: int, edition: str = "2013") -> Row:
    found = lookup(afn, fn, edition)
    assert found is not None, f"AFN {afn:02X} F{fn}"
    return found


def test_every_class_of_the_lists_is_there_and_no_other() -> None:
    rows = table().rows
    assert {r.fn for r in rows if r.afn == (0x0C,)} == {1, *REALTIME}
    assert {r.fn for r in rows if r.afn == (0x0D,)} == {*HISTORY, 96}  # 96: of one vendor


# fixed sizes behind the time scale: AFN, classes, bytes of each variant in the order of edition 2013
FIXED: tuple[tuple[int, Sequence[int], tuple[int, ...]], ...] = (
    (0x0C, (1,), (30,)), (0x0C, (2,), (6,)), (0x0C, (3,), (31,)), (0x0C, (4,), (1,)), (0x0C, (7, 9), (2,)),
    (0x0C, (8, 10), (8,)), (0x0C, (17, 18, 24), (2,)), (0x0C, (23,), (4,)), (0x0C, (25,), (67,)),
    (0x0C, (26,), (61, 57)), (0x0C, (27,), (60,)), (0x0C, (28,), (33,)), (0x0C, (29, 30), (15,)),
    (0x0C, (31, 32), (59,)), (0x0C, (49,), (12,)), (0x0C, (65,), (3,)), (0x0C, (66,), (72,)), (0x0C, (67,), (8, 4)),
    (0x0C, (73,), (2,)), (0x0C, (161,), (18, 16)), (0x0C, (162,), (12,)), (0x0C, (165,), (23,)), (0x0C, (166,), (29,)),
    (0x0C, (167,), (41,)), (0x0C, (170,), (18,)),
    (0x0D, (25, 33), (32,)), (0x0D, (26, 34), (24,)), (0x0D, (27, 35), (93, 66)), (0x0D, (28,), (14,)),
    (0x0D, (36,), (16,)), (0x0D, (29, 37), (38,)), (0x0D, (30, 38), (4,)), (0x0D, (31,), (10,)), (0x0D, (39,), (12,)),
    (0x0D, (32, 40), (61, 57)), (0x0D, (41,), (72,)), (0x0D, (42,), (4,)), (0x0D, (43, 44), (6,)),
    (0x0D, (45, 46), (10,)), (0x0D, (49, 51, 50, 52, 53, 54), (4,)), (0x0D, (57, 60), (12,)), (0x0D, (65, 66), (6,)),
    (0x0D, range(113, 119), (114,)), (0x0D, (121, 122, 123), (77,)), (0x0D, (129, 130), (14,)),
    (0x0D, (153, 155, 157, 159), (20,)), (0x0D, (154, 156, 158, 160), (17,)), (0x0D, (209,), (18, 16)),
    (0x0D, (210, 215), (41,)), (0x0D, (213,), (23,)), (0x0D, (214,), (29,)),
)  # fmt: skip


def scale(of: Row) -> int:
    """Bytes of the time scale in front."""
    assert of.request.single is not None
    return of.request.single.size or 0


def test_fixed_sizes_are_the_published_ones() -> None:
    for afn, classes, sizes in FIXED:
        for fn in classes:
            found = row(afn, fn)
            variants = found.fields.preferred("2013")
            assert tuple((v.size or 0) - scale(found) for v in variants) == sizes, f"AFN {afn:02X} F{fn}"


# bytes before the tariff count (behind the time scale), and bytes for each of its 1 + M values
TARIFFS: tuple[tuple[int, Sequence[int], int, int], ...] = (
    (0x0C, (19, 20, 21, 22), 0, 4), (0x0C, (33, 34, 37, 38), 5, 17), (0x0C, (35, 36, 39, 40), 5, 14),
    (0x0C, range(41, 49), 0, 4),
    (0x0C, (129, 131, 137, 139, *range(153, 161), 177, 178), 5, 5), (0x0C, (130, 132, *range(133, 137), 138), 5, 4),
    (0x0C, range(140, 145), 5, 4), (0x0C, range(145, 153), 5, 7),
    (0x0D, (1, 2, 9, 10, 17, 18), 5, 17), (0x0D, (3, 4, 11, 12, 19, 20), 5, 14),
    (0x0D, (5, 6, 7, 8, 21, 22, 23, 24, 58, 59, 61, 62), 0, 4),
    (0x0D, (161, 163, 169, 171, 177, 179, *range(201, 209)), 5, 5),
    (0x0D, (162, *range(164, 169), 170, *range(172, 177), 178, *range(180, 185)), 5, 4), (0x0D, range(185, 197), 5, 7),
)  # fmt: skip


@pytest.mark.parametrize("tariffs", [0, 1, 4, 12])
def test_sizes_with_tariffs_are_the_published_ones(tariffs: int) -> None:
    for afn, classes, before, each in TARIFFS:
        for fn in classes:
            found = row(afn, fn)
            wire = bytearray(2000)
            wire[scale(found) + before] = tariffs
            assert found.fields.single is not None
            _, at = found.fields.single.decode(bytes(wire), 0, len(wire), "2013")
            assert at - scale(found) == before + 1 + each * (1 + tariffs), f"AFN {afn:02X} F{fn}"


@pytest.mark.parametrize(("density", "points"), [(1, 4), (2, 2), (3, 1), (254, 12), (255, 60), (0, 0)])
def test_hour_frozen_points_follow_the_density(density: int, points: int) -> None:
    for fn in (*range(81, 85), *range(89, 104), *range(105, 117), 121):
        wire = bytes((0x16, density)) + bytes(400)
        single = row(0x0C, fn).fields.single
        assert single is not None
        data, _ = single.decode(wire, 0, len(wire), "2013")
        assert data["td_h"] == 16 and isinstance(data["points"], list) and len(data["points"]) == points


def fields(nodes: Sequence[Node]) -> Iterator[Field]:
    for node in nodes:
        if isinstance(node, Field):
            yield node
        elif isinstance(node, (Group, When)):
            yield from fields(node.fields)


def test_quantities_exist_and_have_the_unit_of_the_field() -> None:
    wrong = []
    for one in table().rows:
        for variant in one.fields.variants if set(one.afn) & {0x0C, 0x0D} else ():
            for field in fields(variant.nodes):
                known = by_name().get(field.quantity)
                if field.quantity and known is None:
                    wrong.append(f"F{one.fn} {field.name}: no quantity {field.quantity}")
                elif known is not None and known.kind != "time" and field.unit != known.unit:
                    percent = (field.unit, known.unit) == ("%", "")  # power factors are sent in per cent
                    if not percent:
                        wrong.append(f"F{one.fn} {field.name}: {field.unit}, but {known.name} is in {known.unit}")
    assert wrong == []


def test_settings_and_states_of_groups_carry_the_number_of_their_group() -> None:
    single = row(0x0C, 5).fields.single
    assert single is not None
    wire = bytes.fromhex("01 05 0001010000FF 0102000100F0")
    data, at = single.decode(wire, 0, len(wire), "2013")
    assert at == len(wire) and isinstance(data["settings"], list)
    assert [s["group"] for s in data["settings"]] == [1, 3]
    assert data["settings"][1]["prepaid"] == 0 and data["settings"][1]["energy_rounds"] == [5, 6, 7, 8]
    assert single.encode(data, "2013") == wire
