"""Whatever a master sends: the terminal answers, denies or is silent, and goes on working."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuhe.protocols.qgdw1376.dadt import single
from fuhe.protocols.qgdw1376.frame import Frame, cut
from fuhe.protocols.qgdw1376.message import parse
from fuhe.protocols.qgdw1376.table import table
from fuhe.protocols.qgdw1376.units import Unit
from fuhe.simulator.terminal.device import Options

FIXTURE = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def sent(master: Any, user: bytes, control: int = 0x4A) -> None:
    """Any user data in a good frame: answers must be good frames of a terminal."""
    frame = Frame(control, master.address, user, master.edition.protocol_id)
    for reply in master.session.receive(frame.encode(), master.bench.now):
        frames, skipped = cut(reply.data)
        assert frames and not skipped
        for answer in frames:
            assert answer.up and parse(answer, master.edition).address.a2 == master.address.a2


@FIXTURE
@given(st.binary(max_size=80), st.sampled_from([0x4A, 0x4B, 0x41, 0x5A, 0x7B, 0x00, 0x0B, 0xC9]))
def test_any_bytes_in_a_frame(make_master: Any, user: bytes, control: int) -> None:
    sent(make_master(), user, control)


@FIXTURE
@given(st.binary(max_size=300))
def test_any_bytes_on_the_line(make_master: Any, noise: bytes) -> None:
    master = make_master()
    master.session.receive(noise, master.bench.now)
    master.bench.step(5)
    assert master.data(0x0C, 0, 2)


@pytest.mark.parametrize("edition", ["2005", "2009", "2013"])
def test_any_values_in_every_unit_of_every_afn(make_master: Any, edition: str) -> None:
    chance = random.Random(edition)
    master = make_master(edition=edition, options=Options(buffer=300))
    pw = bytes(master.edition.pw_length)
    rows = [(afn, row) for row in table().rows for afn in row.afn if edition in row.editions]
    for _ in range(12):
        chance.shuffle(rows)
        for afn, row in rows:
            if afn == 0x01 and chance.random() < 0.8:
                continue
            size = chance.choice((0, 1, 2, 3, 4, 8, 11, 17, 30, 57))
            data = bytes(
                chance.choice((0, 1, 2, 0x15, 0x55, 0x99, 0xEE, 0xFF, chance.randrange(256))) for _ in range(size)
            )
            layout = row.layout(afn, False)
            if chance.random() < 0.5 and layout.single is not None and layout.single.size:
                data = data[:1] * layout.single.size if data else bytes(layout.single.size)
            unit = single(chance.choice((0, 1, 2, 3, 8)), row.fn) + data
            tail = pw if afn in master.edition.pw_afn else b""
            sent(master, bytes((afn, 0x60 | chance.randrange(16))) + unit + tail)
        master.bench.step(chance.choice((1, 61, 600)))
    for _, row in rows:  # whatever was stored can be told
        if 0x0A in row.afn:
            sent(master, bytes((0x0A, 0x61)) + single(0 if "0" in row.pn else 1, row.fn))
    assert master.ask(0x0C, Unit(0, 7, {})).afn == 0x0C
