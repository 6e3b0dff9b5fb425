"""MQTT payloads: the schema, batches, signatures, replays, and bad payloads that name their field."""

from __future__ import annotations

import re
from datetime import datetime
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.acquisition.mqtt_batch import events_batch, readings_batch
from fuhe.model.quality import Quality, Source
from fuhe.model.quantities import quantity
from fuhe.model.times import BUSINESS_ZONE
from fuhe.protocols.common.errors import PeerError, Refused, UsageError
from fuhe.protocols.mqtt import payload
from fuhe.protocols.mqtt.payload import (
    Answer,
    Command,
    State,
    encode,
    parse_answer,
    parse_command,
    parse_events,
    parse_readings,
    parse_status,
    split_topic,
    subscriptions,
    topic,
)
from fuhe.protocols.mqtt.signing import (
    ReplayGuard,
    build_answer,
    build_command,
    expiry_s,
    key_of,
    read_answer,
    verify_command,
)

KEY = bytes(range(32))
NOW_MS = 1_800_000_000_000
NOW_US = NOW_MS * 1000
DOC = Path(__file__).parent.parent.parent / "docs" / "mqtt.md"


def examples() -> list[bytes]:
    return [block.encode() for block in re.findall(r"```json\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)]


def command(**changes: object) -> Command:
    fields: dict[str, object] = {
        "device": "T-1", "id": "c1", "action": "trip", "round": 1, "valid_until_ms": NOW_MS + 60_000, "nonce": "0" * 32,
        **changes,
    }  # fmt: skip
    return build_command(KEY, **fields)  # type: ignore[arg-type]


def test_the_schema_file_is_fresh() -> None:
    stored = resources.files(payload.__package__).joinpath("schema.json").read_bytes()
    assert stored == payload.schema_json(), "run: python -m fuhe.protocols.mqtt.payload"
    assert msgspec.json.decode(stored)["version"] == 1


def test_the_documents_examples_are_true() -> None:
    readings, events, sent, answered = examples()
    assert len(parse_readings(readings).samples) == 1 and parse_events(events).events[0].code == "power_off"
    order = parse_command(sent)
    verify_command(KEY, order)
    answer = read_answer(KEY, order, answered)
    assert answer.accepted and answer.state is not None and answer.state.alarm is True and answer.state.open is None


def test_readings_become_arrays() -> None:
    batch = readings_batch(parse_readings(examples()[0]), {1: 77}.get, NOW_US)
    samples = batch.samples
    assert samples is not None and batch.received_us == NOW_US
    assert samples.point.tolist() == [77, 77]
    assert samples.quantity.tolist() == [quantity("voltage_a").id, quantity("active_power_total").id]
    assert samples.value.tolist() == [230.4, 152.75]
    assert set(samples.source) == {Source.LIVE} and set(samples.quality) == {Quality.A}
    (block,) = batch.curves
    assert block.step_s == 900 and block.point.tolist() == [77]
    assert np.array_equal(block.value, [[150.25, 151.5, np.nan, 149.0]], equal_nan=True)
    assert block.quality.tolist() == [[Quality.A, Quality.A, Quality.M, Quality.A]]
    assert block.value.dtype == np.float64 and block.quality.dtype == np.int16


def test_segments_of_one_shape_share_a_block() -> None:
    def segment(name: str, n: int, step: int = 900) -> dict[str, object]:
        return {"quantity": name, "start": "2026-11-22T00:00:00+08:00", "step_s": step, "values": [1.0] * n}

    curves = [segment("voltage_a", 4), segment("voltage_b", 4), segment("voltage_c", 5), segment("current_a", 4, 3600)]
    message = parse_readings(msgspec.json.encode({"v": 1, "device": "T", "curves": curves}))
    batch = readings_batch(message, {1: 5}.get, NOW_US)
    assert batch.samples is None and [len(b.point) for b in batch.curves] == [2, 1, 1] and batch.value_count == 17


def test_events_become_events() -> None:
    batch = events_batch(parse_events(examples()[1]), 9, {1: 77}.get, NOW_US)
    (event,) = batch.events
    assert (event.device, event.point, event.code, event.data) == (9, 77, "power_off", {"phase": "A"})


SAMPLE = '{"time":"2026-11-22T08:00:00+08:00","values":{"voltage_a":1}}'
CURVE = '"quantity":"voltage_a","step_s":900,"values":[1]'


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "$"),
        ("[]", "$"),
        ("{", "$"),
        ('{"v":2,"device":"T"}', "$.v"),
        ('{"v":1,"device":"a/b"}', "$.device"),
        ('{"v":1,"device":"T\\n"}', "$.device"),
        ('{"v":1}', "$"),
        ('{"v":1,"device":"T","samples":[' + SAMPLE.replace("+08:00", "") + "]}", "$.samples[0].time"),
        ('{"v":1,"device":"T","samples":[' + SAMPLE.replace(":1}", ":NaN}") + "]}", "$"),
        ('{"v":1,"device":"T","samples":[' + SAMPLE.replace(":1}", ':"1"}') + "]}", "$.samples[0].values"),
        ('{"v":1,"device":"T","samples":[' + SAMPLE.replace(":1}", ":1e999}") + "]}", "$"),
        ('{"v":1,"device":"T","curves":[{"start":"2026-11-22T00:00:00",' + CURVE + "}]}", "$.curves[0].start"),
        ('{"v":1,"device":"T","curves":[' + "[" * 100_000, "$"),
        ('{"v":1,"device":"T","x":' + "[" * 100_000, "$"),
    ],
)
def test_a_bad_message_names_its_field(text: str, path: str) -> None:
    with pytest.raises(PeerError, match=re.escape(f"`{path}")):
        parse_readings(text.encode())


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"v":1,"device":"T","samples":[' + SAMPLE.replace("voltage_a", "voltage_q") + "]}",
         "$.samples[0].values.voltage_q"),
        ('{"v":1,"device":"T","samples":[' + SAMPLE[:-1] + ',"point":9}]}', "$.samples[0].point"),
        ('{"v":1,"device":"T","curves":[{"start":"2026-11-22T00:07:00+08:00",' + CURVE + "}]}", "$.curves[0].start"),
        ('{"v":1,"device":"T","curves":[{"start":"2026-11-22T00:00:00Z",' + CURVE.replace("900", "1000") + "}]}",
         "$.curves[0].step_s"),
    ],
)  # fmt: skip
def test_what_the_archive_does_not_know_is_refused_whole(text: str, path: str) -> None:
    message = parse_readings(text.encode())
    with pytest.raises(PeerError, match=re.escape(path)):
        readings_batch(message, {1: 77}.get, NOW_US)


def test_sizes_are_bounded() -> None:
    with pytest.raises(PeerError, match="at most"):
        parse_readings(b" " * (payload.MAX_BYTES + 1))
    with pytest.raises(PeerError, match="at most"):
        parse_command(b" " * (payload.MAX_COMMAND_BYTES + 1))
    many = {"v": 1, "device": "T", "samples": [msgspec.json.decode(SAMPLE)] * 1025}
    with pytest.raises(PeerError, match=r"\$\.samples"):
        parse_readings(msgspec.json.encode(many))


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_messages_or_peer_errors(data: bytes) -> None:
    for parse in (parse_readings, parse_events, parse_command, parse_answer, parse_status):
        with pytest.raises(PeerError):
            parse(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["samples", "curves", "events", "device", "v"]), json_values)
def test_any_json_is_a_message_or_a_peer_error(field: str, value: object) -> None:
    data = msgspec.json.encode({"v": 1, "device": "T", "samples": [], "events": [], field: value})
    for parse in (parse_readings, parse_events):
        try:
            parse(data)
        except PeerError as error:
            assert "`$" in str(error)


@given(
    st.dictionaries(
        st.sampled_from(["voltage_a", "current_b", "frequency"]), st.floats(-1e9, 1e9) | st.none(), min_size=1
    ),
    st.datetimes(
        datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
        datetime(2099, 12, 31),  # noqa: DTZ001
        timezones=st.just(BUSINESS_ZONE),
    ),
)
def test_readings_round_trip(values: dict[str, float | None], time: datetime) -> None:
    message = payload.Readings(v=1, device="T", samples=[payload.Sample(time=time, values=values)])
    assert parse_readings(encode(message)) == message


# -- topics ----------------------------------------------------------------------------------------------------------


def test_topics_there_and_back() -> None:
    for kind in payload.KINDS:
        assert split_topic("fuhe/v1", topic("fuhe/v1", "T-1", kind)) == ("T-1", kind)
    assert "fuhe/v1/+/command" not in subscriptions("fuhe/v1") and len(subscriptions("fuhe/v1")) == 4


@pytest.mark.parametrize(
    "name", ["fuhe/v1/T/other", "fuhe/v1/T", "other/T/readings", "fuhe/v1/a/b/readings", "fuhe/v1//readings"]
)
def test_other_topics_are_refused(name: str) -> None:
    with pytest.raises(PeerError):
        split_topic("fuhe/v1", name)


@pytest.mark.parametrize("device", ["a/b", "+", "#", "", "a\n"])
def test_names_that_are_wildcards_make_no_topic(device: str) -> None:
    with pytest.raises(UsageError):
        topic("fuhe/v1", device, "command")


# -- signatures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"device": "T-2"}, {"id": "c2"}, {"action": "direct_close"}, {"round": 2}, {"valid_until_ms": NOW_MS + 60_001},
     {"nonce": "1" * 32}, {"alarm_min": 1}, {"limit_half_hours": 1}],
)  # fmt: skip
def test_every_field_of_a_command_is_signed(change: dict[str, object]) -> None:
    order = command()
    verify_command(KEY, order)
    with pytest.raises(PeerError, match="signature"):
        verify_command(KEY, msgspec.structs.replace(order, **change))
    with pytest.raises(PeerError, match="signature"):
        verify_command(bytes(32), order)


@pytest.mark.parametrize(
    "change",
    [{"accepted": False}, {"code": "busy"}, {"time_ms": NOW_MS + 1}, {"state": None}, {"state": State(open=False)}],
)
def test_every_field_of_an_answer_is_signed(change: dict[str, object]) -> None:
    order = command()
    answer = build_answer(KEY, order, accepted=True, time_ms=NOW_MS, state=State(open=True))
    assert read_answer(KEY, order, encode(answer)) == answer
    with pytest.raises(PeerError, match="signature"):
        read_answer(KEY, order, encode(msgspec.structs.replace(answer, **change)))


def test_an_answer_to_another_command_is_no_answer() -> None:
    answer = encode(build_answer(KEY, command(), accepted=True, time_ms=NOW_MS))
    for other, field in (
        (command(id="c2"), "id"),
        (command(nonce="1" * 32), "nonce"),
        (command(device="T-2"), "device"),
    ):
        with pytest.raises(PeerError, match=field):
            read_answer(KEY, other, answer)


def test_a_command_signature_is_no_answer_signature() -> None:
    order = command()
    forged = Answer(
        v=1, device="T-1", id="c1", nonce="0" * 32, accepted=True, time_ms=NOW_MS, signature=order.signature
    )
    with pytest.raises(PeerError, match="signature"):
        read_answer(KEY, order, encode(forged))


@pytest.mark.parametrize(
    ("change", "field"),
    [({"id": "a\nb"}, "id"), ({"id": "c1\n"}, "id"), ({"round": 0}, "round"), ({"nonce": "xyz"}, "nonce"),
     ({"action": "explode"}, "action"), ({"alarm_min": 256}, "alarm_min")],
)  # fmt: skip
def test_a_command_outside_the_schema_cannot_be_built(change: dict[str, object], field: str) -> None:
    with pytest.raises(UsageError, match=field):
        command(**change)


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "AAECAwQFBgcICQoLDA0O"])
def test_weak_keys_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        key_of(text)


def test_expiry_in_whole_seconds() -> None:
    order = command(valid_until_ms=NOW_MS + 1999)
    assert [expiry_s(order, NOW_MS), expiry_s(order, NOW_MS + 1500), expiry_s(order, NOW_MS + 9999)] == [1, 0, 0]


def test_only_a_question_is_no_write() -> None:
    assert payload.is_write(encode(command())) and payload.is_write(b"") and payload.is_write(b"{}")
    assert not payload.is_write(encode(command(action="read_state")))


# -- replay guard ----------------------------------------------------------------------------------------------------


def refusal(guard: ReplayGuard, order: Command, now_ms: int) -> str:
    with pytest.raises(Refused) as caught:
        guard.admit(order, now_ms)
    return caught.value.code


def test_an_id_passes_once_and_only_in_its_time() -> None:
    guard = ReplayGuard()
    order = command()
    guard.admit(order, NOW_MS)
    assert refusal(guard, order, NOW_MS + 1) == "repeated"
    assert refusal(guard, order, order.valid_until_ms) == "expired"
    assert refusal(guard, command(id="c2", valid_until_ms=NOW_MS + 3_600_001), NOW_MS) == "too-far"


def test_a_full_guard_refuses_and_never_forgets() -> None:
    guard = ReplayGuard(limit=3)
    orders = [command(id=f"c{i}", valid_until_ms=NOW_MS + 1000 + i) for i in range(4)]
    for order in orders[:3]:
        guard.admit(order, NOW_MS)
    assert refusal(guard, orders[3], NOW_MS) == "busy" and len(guard) == 3
    assert refusal(guard, orders[0], NOW_MS) == "repeated"
    guard.admit(orders[3], NOW_MS + 1001)
    assert len(guard) == 2  # those of the past are gone, and can only be refused as expired
    assert refusal(guard, orders[0], NOW_MS + 1001) == "expired"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 50), st.integers(0, 20)), max_size=60))
def test_no_id_is_ever_admitted_twice_while_it_lives(steps: list[tuple[int, int, int]]) -> None:
    guard, now, alive = ReplayGuard(limit=4), NOW_MS, dict[str, int]()
    for number, lasts, pause in steps:
        now += pause
        order = command(id=f"c{number}", valid_until_ms=now + lasts)
        try:
            guard.admit(order, now)
        except Refused:
            continue
        assert alive.get(order.id, 0) <= now
        alive[order.id] = order.valid_until_ms
        assert len(guard) <= 4


def test_what_no_store_can_hold_is_refused_at_the_door() -> None:
    case = Path(__file__).parents[1] / "cases" / "mqtt_unstorable_event_issue_2"
    told = []
    for line in (case / "input.jsonl").read_bytes().splitlines():
        with pytest.raises(PeerError) as caught:
            payload.parse_events(line)
        told.append(str(caught.value))
    assert told == (case / "expected.txt").read_text().splitlines()
