"""Control of a Q/GDW 376.1 terminal as data units (AFN 05) and the parameters that must stand before (AFN 04). Pure.

    order_unit    an action -> the unit of AFN 05
    settings_of   an action -> what F9 … F16 act by: periods, limits, rounds, sliding and alarm times
    state_of      units of AFN 0C (clock, F5, F6, F9, F17) and of AFN 0A F17 -> what control wants to know

Limits in kW go up to the next number that format A.2 can say (three digits): rounding never takes more than was meant.
Periods (F18): every change of the half hours' codes begins the next period, which some firmware counts only where there
is control. So all eight periods carry a limit and all are switched on; where the limits of a day differ, periods are
counted as the standard says, the uncontrolled ones included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from ..model.control import ActionKind, ControlAction, Setting, Spot, SwitchState
from ..model.lang import tr
from ..model.times import US, business_to_us
from ..protocols.common.errors import UsageError
from ..protocols.qgdw1376.table import lookup
from ..protocols.qgdw1376.units import Unit
from . import parameter_rows, parameters
from .terminal_events import is_secret, plain_of

A = ActionKind
CONTROL_AFN: Final = 0x05
SET_AFN: Final = 0x04
WRITE_BYTES: Final = 240  # data units of one AFN 04 frame: what every terminal's buffer takes
HALF_HOURS: Final = 48
PERIODS: Final = 8
CONTROL_1, CONTROL_2 = 1, 2
FLOAT_ALARM_ROUNDS: Final = 4
ADD, REFRESH = 0x55, 0xAA
# Where a power control stands in F5 and F6, and what control calls it.
_POWER: Final = (("period", "period"), ("day_off", "rest"), ("suspension", "suspension"), ("reduction", "float"))
_ENERGY: Final = (("month", "month"), ("prepaid", "purchase"))


# -- orders -----------------------------------------------------------------------------------------------------------


def _none(_: ControlAction) -> dict[str, object]:
    return {}


def _trip(action: ControlAction) -> dict[str, object]:
    return {"alarm_delay_min": action.alarm_min, "limit_half_hours": action.limit_half_hours}


def _period(action: ControlAction) -> dict[str, object]:
    return {"periods": list(range(1, PERIODS + 1)), "scheme": _whole(action, "scheme") - 1}


def _float(action: ControlAction) -> dict[str, object]:
    alarms = [action.alarm_min if n in action.rounds else 0 for n in range(1, FLOAT_ALARM_ROUNDS + 1)]
    return {
        "slide_min": _whole(action, "slip_min"), "float_percent": _whole(action, "percent"),
        "freeze_delay_min": _whole(action, "freeze_min"), "control_half_hours": _whole(action, "half_hours"),
        "alarm_min": alarms,
    }  # fmt: skip


def _protect(action: ControlAction) -> dict[str, object]:
    return {"half_hours": _whole(action, "half_hours")}


Fill = Callable[[ControlAction], dict[str, object]]
# action -> (Fn, what pn means, data of the unit). A terminal never drives a switch: both ways of closing are a permit.
_ORDERS: Final[Mapping[ActionKind, tuple[int, str, Fill]]] = {
    A.TRIP: (1, "R", _trip),
    A.PERMIT_CLOSE: (2, "R", _none),
    A.DIRECT_CLOSE: (2, "R", _none),
    A.PERIOD_ON: (9, "G", _period),
    A.REST_ON: (10, "G", _none),
    A.SUSPENSION_ON: (11, "G", _none),
    A.FLOAT_ON: (12, "G", _float),
    A.MONTH_ON: (15, "G", _none),
    A.PURCHASE_ON: (16, "G", _none),
    A.PERIOD_OFF: (17, "G", _none),
    A.REST_OFF: (18, "G", _none),
    A.SUSPENSION_OFF: (19, "G", _none),
    A.FLOAT_OFF: (20, "G", _none),
    A.MONTH_OFF: (23, "G", _none),
    A.PURCHASE_OFF: (24, "G", _none),
    A.PROTECT_ON: (25, "0", _protect),
    A.REMIND_ON: (26, "0", _none),
    A.EXCLUDE_ON: (28, "0", _none),
    A.PROTECT_OFF: (33, "0", _none),
    A.REMIND_OFF: (34, "0", _none),
    A.EXCLUDE_OFF: (36, "0", _none),
}


def order_unit(action: ControlAction) -> Unit:
    """The unit of AFN 05. UsageError: no such control, or it names a round or group that no terminal has."""
    if action.kind not in _ORDERS:
        raise UsageError(tr(f"a terminal has no {action.kind}", f"终端没有 {action.kind}"))
    fn, points, fill = _ORDERS[action.kind]
    pn = {"R": action.round, "G": action.group, "0": 0}[points]
    if points != "0" and not 1 <= pn <= 8:
        raise UsageError(tr(f"{action.kind}: number {pn} is not 1 to 8", f"{action.kind}: 序号 {pn} 应为 1 至 8"))
    if not 0 <= action.alarm_min <= 15 or not 0 <= action.limit_half_hours <= 15:
        raise UsageError(tr("alarm and limit time are 0 to 15", "告警延时与限电时间为 0 至 15"))
    return Unit(pn, fn, fill(action))


def _whole(action: ControlAction, name: str) -> int:
    value = action.params.get(name)
    if not isinstance(value, int):
        raise UsageError(tr(f"{action.kind} needs {name}", f"{action.kind} 缺少 {name}"))
    return value


def _text(action: ControlAction, name: str) -> str:
    value = action.params.get(name)
    if value is None:
        raise UsageError(tr(f"{action.kind} needs {name}", f"{action.kind} 缺少 {name}"))
    return str(value)


# -- parameters -------------------------------------------------------------------------------------------------------


def kw_text(value: object) -> str:
    """A power as A.2 can say it: three digits, upwards."""
    number = Decimal(str(value))
    if not number.is_finite() or number <= 0:
        raise UsageError(tr(f"{value} kW is no limit", f"{value} kW 不是定值"))
    step = Decimal(1).scaleb(max(number.adjusted() - 2, -3))
    return f"{number.quantize(step, rounding=ROUND_CEILING):f}"


def _period_settings(action: ControlAction) -> list[Setting]:
    spans = _spans(_text(action, "windows"))
    row_kw = action.params.get("limit_kw")
    codes, limits = [0] * HALF_HOURS, dict[int, str]()
    code, number, at = CONTROL_1, 0, 0
    highest = max((kw for _, _, kw in spans if kw is not None), key=float, default=str(row_kw))
    for first, end, kw in spans:
        if first > at:
            number += 1  # the uncontrolled half hours before it are a period too
        code = CONTROL_2 if first == at and at and code == CONTROL_1 else CONTROL_1
        number += 1
        codes[first:end] = [code] * (end - first)
        limits[number] = kw_text(row_kw if kw is None else kw)
        at = end
    values = [limits.get(n, kw_text(highest)) for n in range(1, PERIODS + 1)]
    own = {"periods": list(range(1, PERIODS + 1)), "limits_kw": values}
    return [
        Setting(item="F18", values={"half_hours": codes}),
        Setting(item="F19", values={"float_percent": _whole(action, "float_percent")}),
        Setting(item="F41", pn=action.group, values={"schemes": [_whole(action, "scheme")], "limits": [own]}),
    ]


def _spans(text: str) -> list[tuple[int, int, str | None]]:
    """(first half hour, half hour behind the end, kW or None) of `14:00-18:00@800,...`."""
    found = []
    for part in text.split(","):
        span, sign, kw = part.strip().partition("@")
        begin, _, end = span.partition("-")
        found.append((_half(begin), _half(end), kw if sign else None))
    return found


def _half(text: str) -> int:
    hour, _, minute = text.strip().partition(":")
    return int(hour) * 2 + (minute == "30")


def _rest_settings(action: ControlAction) -> list[Setting]:
    days = action.params.get("weekdays")
    values = {
        "limit_kw": kw_text(action.params.get("limit_kw")), "start": _text(action, "start").rjust(5, "0"),
        "half_hours": _whole(action, "half_hours"), "weekdays": list(days) if isinstance(days, (list, tuple)) else [],
    }  # fmt: skip
    return [Setting(item="F42", pn=action.group, values=values)]


def _suspension_settings(action: ControlAction) -> list[Setting]:
    values = {
        "start": _text(action, "from"), "end": _text(action, "to"),
        "limit_kw": kw_text(action.params.get("limit_kw")),
    }  # fmt: skip
    return [Setting(item="F44", pn=action.group, values=values)]


def _month_settings(action: ControlAction, edition: str) -> list[Setting]:
    values: dict[str, object] = {"limit": _energy(action, "kwh")}
    if edition == "2013":
        values["alarm_percent"] = _whole(action, "alarm_percent")
    return [
        Setting(item="F20", values={"float_percent": _whole(action, "float_percent")}),
        Setting(item="F46", pn=action.group, values=values),
    ]


def _purchase_settings(action: ControlAction) -> list[Setting]:
    values = {
        "order_no": _whole(action, "order_no"), "mode": ADD if _text(action, "mode") == "add" else REFRESH,
        "amount": _energy(action, "kwh"), "alarm_limit": _energy(action, "alarm_kwh"),
        "trip_limit": _energy(action, "trip_kwh"),
    }  # fmt: skip
    return [Setting(item="F47", pn=action.group, values=values)]


def _energy(action: ControlAction, name: str) -> str:
    number = Decimal(_text(action, name)).to_integral_value(rounding=ROUND_CEILING)
    return f"{number:f}"


def _common(action: ControlAction, *, energy: bool) -> list[Setting]:
    """Rounds of the group; for power controls sliding time and alarm time of each round."""
    rounds = Setting(item="F48" if energy else "F45", pn=action.group, values={"rounds": list(action.rounds)})
    if energy:
        return [rounds]
    alarms = [Setting(item="F49", pn=n, values={"alarm_min": action.alarm_min}) for n in action.rounds]
    return [Setting(item="F43", pn=action.group, values={"slide_min": _whole(action, "slip_min")}), rounds, *alarms]


def settings_of(action: ControlAction, edition: str) -> tuple[Setting, ...]:
    """What must stand in the terminal before the action engages; values as they will be read back.

    UsageError: the action engages nothing, names no rounds, or a value does not fit.
    """
    if not action.rounds or not 1 <= action.group <= 8:
        raise UsageError(tr(f"{action.kind} names no rounds or no group", f"{action.kind} 未指明轮次或总加组"))
    match action.kind:
        case A.PERIOD_ON:
            found = [*_period_settings(action), *_common(action, energy=False)]
        case A.REST_ON:
            found = [*_rest_settings(action), *_common(action, energy=False)]
        case A.SUSPENSION_ON:
            found = [*_suspension_settings(action), *_common(action, energy=False)]
        case A.FLOAT_ON:
            found = _common(action, energy=False)
        case A.MONTH_ON:
            found = [*_month_settings(action, edition), *_common(action, energy=True)]
        case A.PURCHASE_ON:
            found = [*_purchase_settings(action), *_common(action, energy=True)]
        case _:
            raise UsageError(tr(f"{action.kind} has no parameters", f"{action.kind} 没有参数"))
    return tuple(settled(s, edition) for s in found)


def native(setting: Setting, edition: str, device: str = "") -> parameters.Setting:
    """A setting with the codec's own values. UsageError: no such parameter, or values that do not fit it."""
    number = setting.item.removeprefix("F")
    row = lookup(SET_AFN, int(number), edition) if number.isdigit() and 1 <= int(number) <= 248 else None
    if row is None:
        raise UsageError(tr(f"no parameter {setting.item!r}", f"没有参数 {setting.item!r}"))
    raw = parameters.Setting(
        device=device, edition=edition, fn=row.fn, name=row.name, pn=setting.pn, data=dict(setting.values)
    )
    return replace(raw, data=parameter_rows.settled(raw))


def settled(setting: Setting, edition: str) -> Setting:
    """The same setting with its values as plain JSON, exactly as they will be read back."""
    return replace(setting, values=plain_values(native(setting, edition).data))


def plain_values(data: Mapping[str, object]) -> dict[str, object]:
    """Decoded values as plain JSON; of passwords only whether there is one."""

    def plain(value: object) -> object:
        if isinstance(value, Mapping):
            return {str(k): ("**" if v else v) if is_secret(str(k)) else plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return plain_of(value)

    found = plain(data)
    assert isinstance(found, dict)
    return found


def unlike(result: Mapping[str, Any], edition: str) -> list[str]:
    """A result of writing or reading ({item, pn, wanted, read, differences, fault}), every difference in words."""
    read = result.get("read")
    if read is None:
        return [str(result.get("fault") or tr("not read back", "未回读"))]
    fn = int(str(result["item"]).removeprefix("F"))
    row = lookup(SET_AFN, fn, edition)
    assert row is not None
    setting = parameters.Setting(
        device="", edition=edition, fn=fn, name=row.name, pn=int(result["pn"]), data=dict(result["wanted"])
    )
    found = {d.path: str(d) for d in parameters.compare(setting, read)}
    hidden = tr("another than the one wanted", "与设置值不同")  # of secrets only that
    return [found.get(str(path), f"{path}: {hidden}") for path in result["differences"]]


# -- state ------------------------------------------------------------------------------------------------------------


def state_units(spot: Spot) -> tuple[Unit, ...]:
    """What is asked of AFN 0C for one spot: clock, control settings and state, the group's power, contacts if wired."""
    units = [Unit(0, 2, {}), Unit(0, 5, {}), Unit(0, 6, {}), Unit(spot.group, 17, {})]
    if spot.contact:
        units.append(Unit(0, 9, {}))
    return tuple(units)


def state_of(units: Sequence[Unit], spot: Spot, now_us: int, setpoint_kw: float | None = None) -> SwitchState:
    """What the terminal told about the spot; what it left out is None."""
    found: dict[tuple[int, int], Mapping[str, Any]] = {(u.pn, u.fn): u.data for u in units if u.data is not None}
    status, now = found.get((0, 5)), found.get((0, 6))
    tripped = _rounds(now, "remote_rounds")
    state = _of_group(now, "states", spot.group)
    outputs = None
    if now is not None and tripped is not None:
        every = [s for s in now.get("states") or [] if isinstance(s, Mapping)]
        held = {
            n for s in every for name in ("power_rounds", "month_rounds", "prepaid_rounds") for n in s.get(name) or ()
        }
        outputs = tuple(sorted({*tripped, *held}))
    power = found.get((spot.group, 17))
    return SwitchState(
        time_us=now_us,
        open=_contact(found.get((0, 9)), spot.contact),
        command_trip=None if tripped is None else spot.round in tripped,
        protected=_flag(status, "protected"),
        excluded=_flag(status, "removed"),
        remind=_flag(status, "arrears"),
        tripped=tripped,
        outputs=outputs,
        engaged=_engaged(status, spot.group),
        limit_kw=_number(state, "limit"),
        power_kw=_number(power, "power"),
        setpoint_kw=setpoint_kw,
        clock_offset_s=_offset(found.get((0, 2)), now_us),
    )


def _of_group(data: Mapping[str, Any] | None, name: str, group: int) -> Mapping[str, Any] | None:
    """The entry of a group in F5 or F6 (entries follow the set of groups in order)."""
    groups = list(data.get("groups") or ()) if data is not None else []
    entries = list(data.get(name) or ()) if data is not None else []
    if group not in groups or len(entries) != len(groups):
        return None
    entry = entries[groups.index(group)]
    return entry if isinstance(entry, Mapping) else None


def _engaged(status: Mapping[str, Any] | None, group: int) -> tuple[str, ...] | None:
    if status is None:
        return None
    if group not in (status.get("groups") or ()):
        return ()
    entry = _of_group(status, "settings", group)
    if entry is None:
        return None
    return tuple(name for field, name in (*_POWER, *_ENERGY) if entry.get(field))


def _rounds(data: Mapping[str, Any] | None, name: str) -> tuple[int, ...] | None:
    value = None if data is None else data.get(name)
    return tuple(int(n) for n in value) if isinstance(value, (list, tuple)) else None


def _flag(data: Mapping[str, Any] | None, name: str) -> bool | None:
    value = None if data is None else data.get(name)
    return None if value is None else bool(value)


def _number(data: Mapping[str, Any] | None, name: str) -> float | None:
    value = None if data is None else data.get(name)
    return float(value) if isinstance(value, (Decimal, int, float)) and not isinstance(value, bool) else None


def _contact(data: Mapping[str, Any] | None, contact: int) -> bool | None:
    """Whether the switch is open: its input stands at 0, or (wired the other way round) at 1."""
    state = _rounds(data, "state")
    if state is None or not contact:
        return None
    return (abs(contact) in state) == (contact < 0)


def _offset(data: Mapping[str, Any] | None, now_us: int) -> float | None:
    clock = None if data is None else data.get("clock")
    return (business_to_us(clock) - now_us) / US if isinstance(clock, datetime) else None
