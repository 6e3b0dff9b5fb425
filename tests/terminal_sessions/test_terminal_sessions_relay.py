"""A meter behind a terminal: the meter's own exchange, its frames inside AFN 10, and the way from the device list."""

from __future__ import annotations

import pytest

from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.devices import conflicts, parse_devices
from fuhe.acquisition.io.stations import by_line
from fuhe.acquisition.profile import Profile, ReadPlan, Timing
from fuhe.acquisition.relay import port_of
from fuhe.acquisition.sessions import Carrier, open_relayed
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.quantities import by_id
from fuhe.model.times import US
from fuhe.model.work import Duty, Interruptible, Outcome, Request, Status
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.dlt645.frame import Frame, address_to_wire, cut
from fuhe.protocols.dlt645.items import encode_payload, lookup
from fuhe.protocols.qgdw1376.message import Message
from fuhe.protocols.qgdw1376.units import Unit

from .conftest import ADDRESS, DEVICE, NOW_US, answer, asked, deny, item, profile, session, wire

METER = "202600000017"
METER_PROFILE = Profile(
    name="m", title_en="m", title_zh="m", protocol="dlt645", version="2007", timing=Timing(retries=1),
    read={Duty.LIVE: ReadPlan(items=("02800002", "0201FF00"))},
)  # fmt: skip
BEHIND = Device(
    id=9, name="m17", link="l", profile="m", address=METER, points=(Point(id=91, name="m17"),),
    options={"via": "t1", "port": "2"},
)  # fmt: skip


def reply(frame: Frame) -> bytes | None:
    """The meter's answer: frequency and voltages; it knows nothing else."""
    di = frame.data[3::-1].hex().upper()
    contents = {"02800002": ("50.01",), "0201FF00": ("220.1", "221.0", None)}.get(di)
    row = lookup(di)
    if contents is None or row is None or frame.address != METER:
        return None
    data = frame.data[:4] + encode_payload(row, contents)
    return Frame(address_to_wire(METER), 0x91, data, 4).encode()


def terminal(request: Message, *, lost: bool = False, empty: bool = False) -> list[Message]:
    """Passes frames on to the meter at port 2."""
    unit = request.units[0]
    assert unit.data is not None and (request.afn, unit.fn) == (0x10, 1)
    assert (unit.data["port"], unit.data["baud"], unit.data["parity_enable"], unit.data["odd"]) == (2, 2400, 1, 0)
    if lost:
        return [deny(request)]
    frames, _ = cut(bytes.fromhex(str(unit.data["raw_hex"])))
    said = b"" if empty else reply(frames[0])
    if said is None:
        return [deny(request)]
    return [answer(request, [Unit(0, 1, {"port": 2, "len": len(said), "raw_hex": said.hex().upper()})])]


def read(answers: object, work: object = None, trip_s: float = 0.5) -> tuple[Outcome, list[Request]]:
    """Carry out a work item with the meter."""
    known = session(tp="always")
    carrier = Carrier(DEVICE, profile(), Credentials(), known)
    exchange = open_relayed(BEHIND, METER_PROFILE, work or item(Duty.LIVE), Credentials(), carrier)  # type: ignore[arg-type]
    assert isinstance(exchange, Interruptible)
    now_us = NOW_US
    sent: list[Request] = []
    for _ in range(100):
        request = exchange.next_request(now_us)
        if request is None:
            return exchange.outcome(now_us), sent
        sent.append(request)
        now_us += round(trip_s * US)
        data = wire(*answers(asked(request.data)))  # type: ignore[operator]
        done = [exchange.receive(data[i : i + 9], now_us) for i in range(0, len(data), 9)]
        if not any(done):
            exchange.silence(now_us)
    raise AssertionError("it does not end")


def test_a_meter_is_read_through_its_terminal() -> None:
    outcome, sent = read(terminal)
    assert (outcome.status, outcome.faults, len(sent)) == (Status.DONE, (), 2)
    assert outcome.batch is not None and outcome.batch.samples is not None
    s = outcome.batch.samples
    got = {by_id()[int(q)].name: float(v) for q, v in zip(s.quantity, s.value, strict=True)}
    assert got == {"frequency": 50.01, "voltage_a": 220.1, "voltage_b": 221.0} and set(s.point.tolist()) == {91}
    first = asked(sent[0].data)
    assert first.units[0].data is not None and first.tp is not None
    wait = first.units[0].data["packet_timeout"]
    assert wait == {"unit": "10ms", "value": 75}  # the meter's 0.55 s and the line time of its frames
    assert sent[0].timeout_s is not None and 10.7 < sent[0].timeout_s < 11


def test_a_meter_that_does_not_answer_is_silent_whatever_the_terminal_says() -> None:
    for answers in (
        lambda q: terminal(q, lost=True),
        lambda q: terminal(q, empty=True),
        lambda q: [],
        lambda q: [answer(q, [Unit(0, 3, {"afn": "10", "results": [{"dadt": "00000100", "err": 3}]})], afn=0)],
    ):
        outcome, sent = read(answers)
        assert (outcome.status, len(sent)) == (Status.SILENT, 2)  # the meter's own retry, as on a wire of its own
        assert len({r.data for r in sent}) == 2, "a new question each time, not the terminal's old answer"
    assert outcome.reason == "the terminal got no answer from the meter (ERR 3)"


def test_one_lost_answer_is_asked_again() -> None:
    calls = [0]

    def lossy(request: Message) -> list[Message]:
        calls[0] += 1
        return terminal(request, empty=calls[0] == 1)

    outcome, _ = read(lossy)
    assert (outcome.status, outcome.retries) == (Status.DONE, 1)


def test_an_answer_of_another_meter_is_none() -> None:
    def wrong(request: Message) -> list[Message]:
        good = terminal(request)[0]
        assert good.units[0].data is not None
        raw = bytearray.fromhex(str(good.units[0].data["raw_hex"]))
        stranger = Frame(address_to_wire("1"), 0x91, cut(bytes(raw))[0][0].data).encode()
        data: dict[str, object] = {"port": 2, "len": len(stranger), "raw_hex": stranger.hex()}
        return [answer(request, [Unit(0, 1, data)])]

    assert read(wrong)[0].status is Status.SILENT


@pytest.mark.parametrize(
    ("options", "words"),
    [({"via": "t1"}, "port"), ({"via": "t1", "port": "0"}, "port"), ({"via": "t1", "port": "2", "baud": "110"}, "baud"),
     ({"via": "t1", "port": "2", "parity": "X"}, "parity")],
)  # fmt: skip
def test_wrong_options(options: dict[str, str], words: str) -> None:
    import msgspec

    with pytest.raises(UsageError, match=words):
        port_of(msgspec.structs.replace(BEHIND, options=options), METER_PROFILE)


LINKS = {"d": LinkConfig(name="d", kind="listen-tcp"), "s": LinkConfig(name="s", kind="serial")}
PROFILES = {"t": profile(), "m": METER_PROFILE}
HEAD = "name,link,profile,address,options\n"


def parsed(rows: str) -> object:
    """A device list."""
    return parse_devices((HEAD + rows).encode(), links=LINKS, profiles=PROFILES)


def test_the_device_list_and_the_lines() -> None:
    found = parsed(
        f"t1,d,t,{ADDRESS},\nt2,d,t,3301-7,\nm1,d,m,{METER},via=t1;port=2\nm2,d,m,{METER},via=t2;port=1;baud=9600\n"
    )
    assert not found.faults  # type: ignore[attr-defined]
    devices = [
        Device(**{**{f: getattr(d, f) for f in d.__struct_fields__}, "id": i})
        for i, d in enumerate(found.devices, 1)  # type: ignore[attr-defined]
    ]
    lines, unserved = by_line(devices, PROFILES, LINKS)
    assert not unserved and sorted(lines) == ["d/3301-4660", "d/3301-7"]
    names = {line: sorted(s.device.name for s in stations.values()) for line, stations in lines.items()}
    assert names == {"d/3301-4660": ["m1", "t1"], "d/3301-7": ["m2", "t2"]}
    meter = next(s for s in lines["d/3301-4660"].values() if s.device.name == "m1")
    assert meter.via is not None and meter.via.device.name == "t1" and meter.wire == "qgdw1376"
    assert meter.session is None and port_of(meter.device, METER_PROFILE).baud == 2400
    lost = [d for d in devices if d.name != "t1"]
    lines, unserved = by_line(lost, PROFILES, LINKS)
    assert [*unserved.values()] == ["no terminal t1 on link d"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (f"t1,d,t,{ADDRESS},\nm1,d,m,1,via=t1\n", "port: give the terminal's port"),
        (f"t1,d,t,{ADDRESS},\nm1,s,m,1,via=t1;port=2\n", "must name the terminal's link"),
        ("m1,d,m,1,\nm2,d,m,2,via=m1;port=2\n", "m1 is no terminal"),
        (f"t1,d,t,{ADDRESS},\nt2,d,t,3301-9,via=t1;port=2\n", "cannot be read through a terminal"),
        (f"t1,d,t,{ADDRESS},\nm1,d,m,1,via=t1;port=2\nm2,d,m,1,via=t1;port=3\n", "already the address of m1"),
    ],
)
def test_faults_of_the_device_list(rows: str, words: str) -> None:
    assert words in "\n".join(map(str, parsed(rows).faults))  # type: ignore[attr-defined]


def test_a_terminal_outside_the_file() -> None:
    listed = parsed("m1,d,m,1,via=t1;port=2\n").devices  # type: ignore[attr-defined]
    assert conflicts(listed, (), LINKS) == ["m1: via=t1: there is no such terminal on link d"]
    assert conflicts(listed, parsed(f"t1,d,t,{ADDRESS},\n").devices, LINKS) == []  # type: ignore[attr-defined]
