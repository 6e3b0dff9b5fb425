"""Archive values as the text of a cell and back, and what a record must hold by itself. Pure.

Text cells that a spreadsheet would take for a formula (beginning with = + - @, tab) are written with an apostrophe in
front, and one such apostrophe is taken off again when they are read: both ways, for every text.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from .archive import (
    SEPARATOR,
    Contact,
    Customer,
    Entity,
    Field,
    GroupMember,
    Meter,
    MeteringPoint,
    MeterReading,
    Record,
    SecurityLoad,
    Subscription,
)
from .lang import tr
from .times import BUSINESS_ZONE, from_us, to_us

MAX_TEXT: Final = 4000
_NUMBER: Final = re.compile(r"-?\d{1,20}(\.\d{1,12})?")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_DANGEROUS: Final = re.compile(r"'*[=+\-@\t\r]")
_YES: Final = {"1": True, "yes": True, "true": True, "是": True, "0": False, "no": False, "false": False, "否": False}
_QUIET: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")
_TOPIC: Final = re.compile(r"N([1-9]|1[01])")


class CellError(ValueError):
    """What is wrong with a cell, in words."""


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return "'" + text if _DANGEROUS.match(text) else text


def unguarded(text: str) -> str:
    """What `guarded` was given."""
    return text[1:] if text.startswith("'") and _DANGEROUS.match(text) else text


def write_cell(value: object) -> str:
    """A field's value as text; empty for None."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case Decimal():
            return format(value, "f")
        case date():
            return value.isoformat()
        case tuple():
            return ";".join(value)
        case _:
            return str(value)


def read_cell(field: Field, text: str, *, key: bool = False) -> Any:
    """The value of a cell's text (not guarded), checked against type, choices and bounds; CellError says what is wrong.

    An empty cell gives the field's default; a required field must not be empty. key: the text is part of a key.
    """
    text = text.replace("\r\n", "\n").strip()
    if not text:
        if field.required:
            raise CellError(tr("is empty", "为空"))
        return field.default
    if field.choices:
        if text not in field.choices:
            may = ", ".join(c for c in field.choices if c)
            raise CellError(tr(f"{text!r} is none of {may}", f"{text!r} 不在 {may} 之中"))
        return text
    if field.kind is str:
        return _plain(text, key)
    if field.kind is bool:
        found = _YES.get(text.lower())
        if found is None:
            raise CellError(tr(f"{text!r} is not yes or no", f"{text!r} 不是 是/否"))
        return found
    if field.kind in (int, Decimal):
        return _number(field, text)
    if field.kind is date:
        return read_day(text)
    items = [_plain(p.strip(), False) for p in text.replace("；", ";").split(";")]
    return tuple(i for i in items if i)


def _plain(text: str, key: bool) -> str:
    if _CONTROL.search(text) or (key and "\n" in text):
        raise CellError(tr("holds a control character", "含控制字符"))
    if key and SEPARATOR in text:
        raise CellError(tr(f"a key must not hold {SEPARATOR!r}", f"关键字不得含 {SEPARATOR!r}"))
    if len(text) > MAX_TEXT:
        raise CellError(tr(f"is longer than {MAX_TEXT} characters", f"超过 {MAX_TEXT} 个字符"))
    return text


def _number(field: Field, text: str) -> int | Decimal:
    if not _NUMBER.fullmatch(text):
        raise CellError(tr(f"{text!r} is not a number", f"{text!r} 不是数"))
    value = Decimal(text)
    if field.kind is int and value != value.to_integral_value():
        raise CellError(tr(f"{text} is not a whole number", f"{text} 不是整数"))
    b = field.bounds
    if b is not None and not Decimal(str(b.least)) <= value <= Decimal(str(b.most)):
        raise CellError(tr(f"{text} is not within {b.least:g} to {b.most:g}", f"{text} 不在 {b.least:g} 至 {b.most:g}"))
    return int(value) if field.kind is int else value


def read_day(text: str) -> date:
    """A day YYYY-MM-DD (a midnight behind it is allowed, as spreadsheets write it)."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CellError(tr(f"{text!r} is not a day like 2026-03-01", f"{text!r} 不是 2026-03-01 形式的日期")) from None
    return found.date()


def write_instant(time_us: int | None) -> str:
    """A day where it is midnight of business time, else business time to the second (µs where there are any)."""
    if time_us is None:
        return ""
    found = from_us(time_us).astimezone(BUSINESS_ZONE).replace(tzinfo=None)
    midnight = found == datetime(found.year, found.month, found.day)  # noqa: DTZ001 (business time without its zone)
    return found.date().isoformat() if midnight else found.isoformat(" ")


def read_instant(text: str) -> int | None:
    """µs UTC of a day or an instant; without a zone it is business time. Empty = None."""
    text = text.strip()
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return to_us(found if found.tzinfo is not None else found.replace(tzinfo=BUSINESS_ZONE))
    except (ValueError, OverflowError):
        raise CellError(
            tr(f"{text!r} is not a time like 2026-03-01 or 2026-03-01 10:37", f"{text!r} 不是 2026-03-01 形式的时间")
        ) from None


def record_faults(entity: Entity, record: Record) -> list[tuple[str, str]]:
    """(field, what is wrong) of a record by itself: forms that types and bounds cannot tell."""
    found: list[tuple[str, str]] = []

    def fault(name: str, wrong: bool, en: str, zh: str) -> None:
        if wrong:
            found.append((name, tr(en, zh)))

    match record:
        case Customer():
            days = set(map(str, range(1, 8)))
            fault("rest_day", not set(record.rest_day) <= days, "days are 1 (Monday) to 7", "应为 1(周一)至 7")
        case MeteringPoint():
            fault("source_no", bool(record.source_no and not record.customer), "needs a customer", "须有客户")
        case Meter():
            wrong = bool(record.address) and not re.fullmatch(r"\d{1,12}", record.address)
            fault("address", wrong, "is not up to 12 digits", "应为至多 12 位数字")
            wrong = bool(record.digits) and not re.fullmatch(r"\d{1,2}(\.\d)?", record.digits)
            fault("digits", wrong, 'is not of the form "6.2"', '应为 "6.2" 形式')
        case MeterReading():
            registers = (record.forward_kwh, record.reverse_kwh, record.forward_kvarh, record.reverse_kvarh)
            fault("forward_kwh", all(r is None for r in registers), "no register at all", "没有任何示数")
        case GroupMember():
            fault("group", record.group not in set("12345678"), "groups are 1 to 8", "总加组为 1 至 8")
        case Contact():
            wrong = any(not _TOPIC.fullmatch(t) for t in record.receives)
            fault("receives", wrong, "topics are N1 to N11", "主题为 N1 至 N11")
        case Subscription():
            wrong = bool(record.quiet) and not _QUIET.fullmatch(record.quiet)
            fault("quiet", wrong, "is not of the form 22:00-07:00", "应为 22:00-07:00 形式")
        case SecurityLoad():
            fault("expires", record.expires <= record.signed, "does not lie behind the signing", "不在签订日之后")
        case _:
            pass
    return found
