"""States outside any order: who may ask, what takes effect at once, what needs two, what is given free. And parameters:
signed by as many as they need, written, read back, closed only if equal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fuhe.control import accounts, audit, commands, incidents, parameters, terminals
from fuhe.control.commands import Command
from fuhe.control.parameters import Change
from fuhe.control.rules.states import State
from fuhe.model.control import ActionKind
from fuhe.protocols.common.errors import UsageError

from .conftest import PASSWORD


def ask(world: Any, who: str, device: str, name: str, **more: Any) -> Command:
    """A state asked for by a person."""
    actor, device_id = world.people[who], getattr(world, device)
    return terminals.order_state(
        world.conn, world.now_us, actor, device_id, name, more.pop("reason", "why"), world.config, **more
    )


def second(world: Any, who: str, command: Command, digits: str = "0012") -> Command:
    """The second signature under it."""
    return terminals.second(world.conn, world.now_us, world.people[who], {command.id: digits}, world.config)[0]


def sent(world: Any) -> list[str]:
    """What left, in order."""
    return [a.kind.value for _, a in world.field.frames]


def now(world: Any, command: Command) -> Command:
    """The command as it stands."""
    return commands.get(world.conn, command.id)


async def test_one_person_protects_and_the_terminal_is_asked_proven_and_closed(world: Any) -> None:
    c = ask(world, "guard", "alpha", "protect", params="half_hours=4")
    assert (c.signatures, c.state) == (1, State.CHECKING)
    await world.run(120)
    c = now(world, c)
    assert sent(world) == ["protect_on"] and c.state is State.CLOSED and world.field.devices[world.alpha].protected
    (held,) = terminals.protections(world.conn)
    assert held.device_id == world.alpha and held.until is not None and held.by_ == "guard"
    assert audit.verify(audit.read(world.conn))[1] is None


async def test_a_protected_customer_is_not_tripped_even_if_the_terminal_cannot_be_reached(world: Any) -> None:
    made = world.ready()
    await world.run(60)
    device = world.field.devices[world.alpha]
    device.mode, device.protected = "unsent", False
    c = ask(world, "guard", "alpha", "protect", reason="hospital generator out")
    world.execute([m for m in made if m.device_id == world.alpha])
    await world.run(60)
    assert world.field.trips(world.alpha, 1) == 0 and now(world, c).state is not State.CLOSED
    held = [m for m in world.all() if m.device_id == world.alpha and m.kind == "trip"]
    assert held and all(m.state is State.BLOCKED and "2 " in m.attention for m in held)


async def test_taking_a_protection_off_needs_two_people_and_ends_the_servers_own(world: Any) -> None:
    await world.run(60)
    ask(world, "guard", "alpha", "protect")
    await world.run(120)
    c = ask(world, "dispatcher", "alpha", "unprotect", reason="repaired")
    assert (c.signatures, c.state) == (2, State.SUBMITTED)
    await world.run(60)
    assert sent(world) == ["protect_on"] and terminals.protections(world.conn), "one signature moves nothing"
    with pytest.raises(UsageError, match="signed already"):
        second(world, "dispatcher", c)
    with pytest.raises(UsageError, match="digits"):
        second(world, "guard", c, "9999")
    world.log_in("inside")
    with pytest.raises(UsageError, match="may not"):
        second(world, "leading", c)
    with pytest.raises(UsageError, match="may not"):
        ask(world, "guard", "alpha", "unprotect")
    second(world, "guard", c)
    await world.run(120)
    assert sent(world) == ["protect_on", "protect_off"] and now(world, c).state is State.CLOSED
    assert not terminals.protections(world.conn) and world.field.devices[world.alpha].protected is False


@pytest.mark.parametrize("mode", ["silent", "refuse", "stuck"])
async def test_a_protection_stays_while_its_end_is_not_proven(world: Any, mode: str) -> None:
    await world.run(60)
    ask(world, "guard", "alpha", "protect")
    await world.run(120)
    device = world.field.devices[world.alpha]
    device.mode = mode
    if mode == "silent":
        device.reads = "none"
    second(world, "guard", ask(world, "dispatcher", "alpha", "unprotect"))
    await world.run(600)
    assert sent(world).count("protect_off") == 1, "never repeated"
    assert terminals.protections(world.conn), "the server goes on protecting"


async def test_a_device_without_the_state_is_protected_by_the_server_alone(world: Any) -> None:
    device = world.field.devices[world.alpha]
    device.facts = replace(device.facts, has_protection=False)
    c = ask(world, "guard", "alpha", "protect")
    await world.run(60)
    assert not sent(world) and now(world, c).state is State.CLOSED and terminals.protections(world.conn)
    second(world, "guard", ask(world, "dispatcher", "alpha", "unprotect"))
    await world.run(60)
    assert not sent(world) and not terminals.protections(world.conn)


async def test_exclusion_goes_on_by_one_and_off_by_two(world: Any) -> None:
    await world.run(60)
    device = world.field.devices[world.alpha]
    device.facts = replace(device.facts, has_exclusion=True)
    c = ask(world, "inside", "alpha", "exclude")
    await world.run(120)
    assert now(world, c).state is State.CLOSED and device.excluded
    c = ask(world, "inside", "alpha", "unexclude")
    assert c.state is State.SUBMITTED
    second(world, "guard", c)
    await world.run(120)
    assert now(world, c).state is State.CLOSED and device.excluded is False


async def test_a_block_that_no_command_holds_is_given_free_by_a_dispatcher(world: Any) -> None:
    world.activate_plan()
    device = world.field.devices[world.alpha]
    device.rounds[2].blocked = device.rounds[2].open = True
    await world.run(60)
    with pytest.raises(UsageError, match="may not"):
        ask(world, "guard", "alpha", "permit", number=2)
    with pytest.raises(UsageError, match="1 to 8"):
        ask(world, "dispatcher", "alpha", "permit")
    c = ask(world, "dispatcher", "alpha", "permit", number=2, reason="left from another master")
    await world.run(120)
    assert sent(world) == ["permit_close"] and now(world, c).state is State.CLOSED and not device.rounds[2].blocked


async def test_states_are_asked_for_with_a_reason_a_device_and_a_name(world: Any) -> None:
    for name, more, match in (
        ("trip", {}, "no state"), ("protect", {"reason": " "}, "reason"), ("protect", {"params": "x=1"}, "x"),
        ("unperiod", {"number": 9}, "1 to 8"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=match):
            ask(world, "dispatcher", "alpha", name, **more)
    world.nobody = 9999
    with pytest.raises(UsageError, match="no device"):
        ask(world, "dispatcher", "nobody", "protect")
    assert not world.all() and not terminals.protections(world.conn)
    refused = [r for r in audit.read(world.conn) if r.action.startswith("device.") and r.result != "ok"]
    assert len(refused) == 4, "what was refused is in the audit too"


# -- parameters -------------------------------------------------------------------------------------------------------

PLAIN = {"item": "F9", "pn": 0, "values": {"valid": [1, 2]}}
RATIO = {"item": "F25", "pn": 1, "values": {"pt": 100, "ct": 20}}


@pytest.fixture
def metering(world: Any) -> Any:
    """Two people of metering."""
    for name in ("meterman", "metershe"):
        accounts.add_account(world.conn, world.now_us, world.people["root"], name, "metering", PASSWORD)
        world.log_in(name)
    return world


def draft(world: Any, who: str, *settings: dict[str, Any]) -> list[parameters.Draft]:
    """One batch for alpha."""
    change = Change(device_id=world.alpha, settings=settings)
    return parameters.draft(world.conn, world.now_us, world.people[who], [change], "F25 was wrong", world.config)


def write(world: Any, who: str, *ids: int) -> None:
    """The daemon is asked."""
    parameters.execute(world.conn, world.now_us, world.people[who], ids)


async def test_a_plain_parameter_is_written_by_one_and_closed_when_it_reads_back_equal(metering: Any) -> None:
    world = metering
    await world.run(60)
    (d,) = draft(world, "meterman", PLAIN)
    assert not d.why and d.command.signatures == 1 and d.command.state is State.SUBMITTED
    write(world, "meterman", d.command.id)
    await world.run(60)
    c = now(world, d.command)
    assert c.state is State.CLOSED and sent(world) == ["write_settings"] and c.set_results[0]["equal"]
    actions = [r.action for r in audit.read(world.conn, object_=c.object)]
    assert actions.index("command.set") < actions.index("command.equal")
    assert parameters.batch(world.conn)[0].id == c.id


async def test_a_ratio_needs_two_signatures(metering: Any) -> None:
    world = metering
    await world.run(60)
    (d,) = draft(world, "meterman", PLAIN, RATIO)
    assert d.command.signatures == 2 and "ratio" in d.why[0]
    with pytest.raises(UsageError):
        write(world, "meterman", d.command.id)
    with pytest.raises(UsageError, match="signed already"):
        commands.approve(world.conn, world.now_us, world.people["meterman"], d.command.id, "0012", world.config)
    with pytest.raises(UsageError, match="may not"):
        commands.approve(world.conn, world.now_us, world.people["inside"], d.command.id, "0012", world.config)
    commands.approve(world.conn, world.now_us, world.people["metershe"], d.command.id, "0012", world.config)
    write(world, "meterman", d.command.id)
    await world.run(60)
    assert now(world, d.command).state is State.CLOSED and sent(world) == ["write_settings"]


@pytest.mark.parametrize(("mode", "spoils"), [("silent", ""), ("refuse", ""), ("unsent", ""), ("good", "F9")])
async def test_what_is_not_equal_is_failed_and_not_written_again(metering: Any, mode: str, spoils: str) -> None:
    world = metering
    await world.run(60)
    (d,) = draft(world, "meterman", PLAIN)
    device = world.field.devices[world.alpha]
    device.mode, device.spoils = mode, spoils
    write(world, "meterman", d.command.id)
    await world.run(300)
    c = now(world, d.command)
    assert c.state is State.FAILED and c.attention and sent(world).count("write_settings") <= 1
    assert not spoils or "F9 pn 0: differs in valid" in c.attention


async def test_a_lower_floor_needs_two_a_higher_one_does_not(metering: Any) -> None:
    world = metering
    world.conn.execute(
        "INSERT INTO parameter (time, device, item, value) VALUES (now(), %s, '0A:F17', %s)",
        (world.alpha, '{"kw": 100}'),
    )
    (up,) = draft(world, "meterman", {"item": "F17", "pn": 0, "values": {"kw": 200}})
    (down,) = draft(world, "meterman", {"item": "F17", "pn": 0, "values": {"kw": 50}})
    assert (up.command.signatures, down.command.signatures) == (1, 2) and "floor" in down.why[0]


async def test_drafts_are_refused_whole(metering: Any) -> None:
    world = metering
    with pytest.raises(UsageError, match="may not"):
        draft(world, "inside", PLAIN)
    with pytest.raises(UsageError, match="no parameters"):
        draft(world, "meterman")
    twice = [Change(device_id=world.alpha, settings=(PLAIN,))] * 2
    with pytest.raises(UsageError, match="twice"):
        parameters.draft(world.conn, world.now_us, world.people["meterman"], twice, "why", world.config)
    c = ask(world, "guard", "alpha", "protect")
    with pytest.raises(UsageError, match="no parameter commands"):
        write(world, "meterman", c.id)
    with pytest.raises(UsageError, match="of an order"):
        commands.execute(
            world.conn, world.now_us, world.people["inside"], [draft(world, "meterman", PLAIN)[0].command.id]
        )
    with pytest.raises(UsageError, match="may not"):
        commands.cancel(world.conn, world.now_us, world.people["inside"], c.id + 1, "why")


async def test_frozen_control_protects_but_neither_trips_nor_writes(metering: Any) -> None:
    from fuhe.control import freeze

    world = metering
    await world.run(60)
    (d,) = draft(world, "meterman", PLAIN)
    freeze.freeze(world.conn, world.now_us, world.people["guard"], "fire")
    write(world, "meterman", d.command.id)
    safe = ask(world, "guard", "alpha", "protect")
    await world.run(120)
    assert sent(world) == ["protect_on"] and now(world, safe).state is State.CLOSED
    assert now(world, d.command).state is State.BLOCKED and not incidents.incidents(world.conn)
    assert ActionKind.WRITE_SETTINGS not in [a.kind for _, a in world.field.frames]
