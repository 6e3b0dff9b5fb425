"""Who may do what (domain 9.2), as a table. A verb that is not listed for a role is refused; there is no superuser."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .audit import Actor


class Role(StrEnum):
    """The roles of 9.2."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    DISPATCHER = "dispatcher"
    GUARD = "guard"
    INSPECTION = "inspection"
    METERING = "metering"
    PRODUCTION = "production"
    LEADING = "leading"
    ADMINISTRATOR = "administrator"
    AUDITOR = "auditor"
    CUSTOMER = "customer"


ROLE_ZH: Final = {
    Role.INSIDE: "内勤",
    Role.OUTSIDE: "外勤",
    Role.DISPATCHER: "调度",
    Role.GUARD: "监护",
    Role.INSPECTION: "稽查",
    Role.METERING: "计量",
    Role.PRODUCTION: "生产技术",
    Role.LEADING: "领导小组",
    Role.ADMINISTRATOR: "管理员",
    Role.AUDITOR: "审计",
    Role.CUSTOMER: "客户",
}

R = Role
# verb -> roles. "view": read-only control pages; everything that moves something stands on a line of its own.
MAY: Final[dict[str, frozenset[Role]]] = {
    "view": frozenset(Role) - {R.CUSTOMER},
    "plan.import": frozenset({R.INSIDE, R.DISPATCHER}),
    "plan.review": frozenset({R.INSIDE, R.DISPATCHER, R.GUARD}),
    "plan.approve": frozenset({R.LEADING}),
    "plan.activate": frozenset({R.DISPATCHER}),
    "round.import": frozenset({R.INSIDE, R.METERING}),
    "round.tag": frozenset({R.INSIDE, R.OUTSIDE, R.DISPATCHER, R.GUARD, R.METERING}),
    "order.receive": frozenset({R.INSIDE, R.DISPATCHER}),
    "order.confirm": frozenset({R.DISPATCHER, R.GUARD}),
    "order.activate": frozenset({R.DISPATCHER}),
    "order.end": frozenset({R.DISPATCHER}),
    "order.evaluate": frozenset({R.INSIDE, R.DISPATCHER}),
    "order.notice": frozenset({R.INSIDE, R.OUTSIDE, R.DISPATCHER}),
    "command.propose": frozenset({R.INSIDE, R.DISPATCHER}),
    "command.submit": frozenset({R.INSIDE, R.DISPATCHER}),
    "command.approve": frozenset({R.DISPATCHER, R.GUARD}),
    "command.reject": frozenset({R.DISPATCHER, R.GUARD}),
    "command.execute": frozenset({R.INSIDE, R.DISPATCHER}),
    "command.cancel": frozenset({R.INSIDE, R.DISPATCHER, R.GUARD}),
    "command.release": frozenset({R.DISPATCHER}),
    "command.release_danger": frozenset({R.INSIDE, R.DISPATCHER, R.GUARD}),
    "command.override": frozenset({R.DISPATCHER}),
    "command.override_second": frozenset({R.DISPATCHER, R.GUARD}),
    "device.protect": frozenset({R.INSIDE, R.DISPATCHER, R.GUARD}),
    "device.unprotect": frozenset({R.INSIDE, R.DISPATCHER}),
    "device.remind": frozenset({R.INSIDE, R.DISPATCHER}),
    "device.clear": frozenset({R.DISPATCHER}),
    "parameter.set": frozenset({R.METERING}),
    "parameter.key": frozenset({R.METERING, R.ADMINISTRATOR}),
    "parameter.execute": frozenset({R.METERING, R.DISPATCHER, R.GUARD}),
    "parameter.approve": frozenset({R.METERING, R.DISPATCHER, R.GUARD}),
    "archive.edit": frozenset({R.INSIDE, R.METERING}),
    "archive.note": frozenset({R.INSIDE, R.OUTSIDE, R.METERING}),
    "archive.ratio": frozenset({R.METERING}),
    "archive.safety": frozenset({R.INSIDE}),
    "archive.approve_ratio": frozenset({R.METERING, R.DISPATCHER, R.GUARD, R.LEADING}),
    "archive.approve_safety": frozenset({R.DISPATCHER, R.GUARD, R.LEADING}),
    "archive.approve_protected": frozenset({R.LEADING}),
    "archive.reject": frozenset({R.INSIDE, R.METERING, R.DISPATCHER, R.GUARD, R.LEADING}),
    "key.propose": frozenset({R.INSIDE}),
    "key.approve": frozenset({R.LEADING}),
    "vee.edit": frozenset({R.METERING}),
    "vee.approve": frozenset({R.METERING}),
    "clock.set": frozenset({R.METERING, R.INSIDE}),
    "ledger.exempt": frozenset({R.INSIDE, R.METERING, R.PRODUCTION}),
    "case.handle": frozenset({R.INSIDE, R.OUTSIDE, R.DISPATCHER, R.GUARD, R.INSPECTION, R.METERING, R.PRODUCTION}),
    "incident.close": frozenset({R.INSIDE, R.DISPATCHER, R.GUARD}),
    "freeze.on": frozenset({R.INSIDE, R.DISPATCHER, R.GUARD}),
    "freeze.off": frozenset({R.DISPATCHER, R.GUARD}),
    "user.manage": frozenset({R.ADMINISTRATOR}),
    "audit.read": frozenset({R.AUDITOR, R.DISPATCHER, R.LEADING, R.ADMINISTRATOR}),
}


def require(actor: Actor, verb: str) -> None:
    """UsageError unless the actor's role may do `verb`; says which roles may."""
    if actor.role not in MAY[verb] or actor.account_id is None or actor.session_id is None:
        who = ", ".join(sorted(MAY[verb]))
        raise UsageError(
            tr(
                f"{actor.name} ({actor.role}) may not {verb}; allowed: {who}",
                f"{actor.name} ({actor.role}) 无权 {verb}; 允许: {who}",
            )
        )


def require_other_person(actor: Actor, account_id: int | None, session_id: int | None) -> None:
    """UsageError unless `actor` is another account in another session than the given one (two-person rule)."""
    if actor.account_id is None or actor.account_id == account_id:
        raise UsageError(
            tr("a second person is needed: this account has signed already", "需要第二人: 本账号已签过")
        )  # fmt: skip
    if actor.session_id is None or actor.session_id == session_id:
        raise UsageError(
            tr("a second person in a session of their own is needed: log in again", "第二人须用自己的会话: 请重新登录")
        )  # fmt: skip
