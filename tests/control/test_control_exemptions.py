"""Exemptions of the ledger: only who may, with a reason, audited; withdrawn or ended, never deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fuhe.control import audit, exemptions
from fuhe.model.times import from_us
from fuhe.protocols.common.errors import UsageError
from fuhe.storage.exemptions import StoredExemption

DAY = timedelta(days=1)


def add(world: Any, who: str = "inside", **changes: Any) -> StoredExemption:
    now = from_us(world.now_us)
    fields: dict[str, Any] = {
        "device": "alpha", "point": None, "since": now, "until": now + 10 * DAY, "kind": "suspension",
        "reason": "transformer stopped, form 12",
    }  # fmt: skip
    return exemptions.add(world.conn, world.now_us, world.people[who], **(fields | changes))


def test_an_exemption_is_registered_with_person_and_reason_and_audited(world: Any) -> None:
    made = add(world)
    assert (made.made_by, made.reason, made.kind) == ("inside", "transformer stopped, form 12", "suspension")
    assert exemptions.listed(world.conn) == [made]
    (record,) = audit.read(world.conn, last=1)
    assert (record.action, record.actor, record.object) == ("exemption.add", "inside", f"exemption:{made.id}")
    assert "form 12" in record.after and record.reason == made.reason
    assert audit.verify(audit.read(world.conn))[1] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "nobody"},
        {"point": "nowhere"},
        {"kind": "holiday"},
        {"reason": "  "},
        {"until": from_us(0)},
        {"who": "dispatcher"},
        {"who": "auditor"},
    ],
    ids=lambda c: next(iter(c)),
)
def test_what_is_wrong_is_refused_changes_nothing_and_is_recorded(world: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        add(world, **changes)
    assert exemptions.listed(world.conn, withdrawn=True) == []
    (record,) = audit.read(world.conn, last=1)
    assert (record.action, record.result) == ("exemption.add", "refused")


def test_one_may_be_withdrawn_or_ended_and_stays_on_record(world: Any) -> None:
    inside = world.people["inside"]
    first, second = add(world), add(world, until=None, kind="outage")
    gone = exemptions.remove(world.conn, world.now_us, inside, first.id, "wrong customer")
    assert (gone.withdrawn_by, gone.withdrawn_reason) == ("inside", "wrong customer")
    end = second.since + 3 * DAY
    ended = exemptions.remove(world.conn, world.now_us, inside, second.id, "supply is back", ends=end)
    assert ended.until == end and ended.withdrawn_at is None
    assert exemptions.listed(world.conn) == [ended]
    assert exemptions.listed(world.conn, withdrawn=True) == [gone, ended]
    assert [r.action for r in audit.read(world.conn, last=2)] == ["exemption.remove", "exemption.end"]
    guard = world.people["guard"]
    for who, number, reason, ends in (
        (inside, first.id, "again", None),
        (inside, second.id, "later", end + DAY),
        (inside, second.id, " ", None),
        (guard, second.id, "no right", None),
    ):
        with pytest.raises(UsageError):
            exemptions.remove(world.conn, world.now_us, who, number, reason, ends=ends)
    assert exemptions.listed(world.conn) == [ended]
