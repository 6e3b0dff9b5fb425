"""The kinds of control (domain 8.7, 9.3) as one table: what each does to the load, what it takes, who must sign it.

A command names one of these kinds, a number in the kind's scope and parameters; everything else in control asks this
table, never the name. What a kind becomes on the wire is the exchange's matter (acquisition/sessions).

Parameters are written `name=value; name=value`; lists with commas, periods as 14:00-18:00 or 14:00-16:00@800 (kW).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ...model.control import ActionKind
from ...model.lang import tr
from ...protocols.common.errors import UsageError

A = ActionKind
MAX_WINDOWS: Final = 8
ROUNDS: Final = 8
DAY_HALF_HOURS: Final = 48


class Scope(StrEnum):
    """What the number of a command counts: trip relays, total-sum groups, or nothing (the device itself, 0)."""

    ROUND = "round"
    GROUP = "group"
    DEVICE = "device"


class Effect(StrEnum):
    """What a kind does. CUT: opens its round; LIMIT: keeps the group below a power by opening one round after
    the other; ENERGY: opens rounds at an amount of energy; STATE: sets a state of the device; SETTINGS: writes
    parameters."""

    CUT = "cut"
    LIMIT = "limit"
    ENERGY = "energy"
    STATE = "state"
    SETTINGS = "settings"


class Use(StrEnum):
    """What the frame would do, for the interlocks. TRIP: takes supply away (at once or under a condition); RELEASE and
    DANGER: give it back, by order or for danger to people; CLEAR: gives free what no command of ours holds; SAFE:
    protects; LIFT: takes a protection off; PARAMETER: changes how the device works."""

    TRIP = "trip"
    RELEASE = "release"
    DANGER = "danger"
    CLEAR = "clear"
    SAFE = "safe"
    LIFT = "lift"
    PARAMETER = "parameter"


class Form(StrEnum):
    """How the text of a parameter is read."""

    INTEGER = "integer"
    NUMBER = "number"
    INTEGERS = "integers"
    CLOCK = "clock"
    DAY = "day"
    WINDOWS = "windows"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a kind; bounds belong to it. default None = it must be given (unless `optional`)."""

    name: str
    en: str
    zh: str
    form: Form = Form.INTEGER
    low: float = 0
    high: float = 255
    default: object = None
    optional: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One row of the table.

    engage, release: the actions; signatures: people who must sign (1 or 2); ordered: only under an order and a
    plan row; settings: parameters are written and read back before it is engaged; needs_limit: takes the plan row's
    limit in kW.
    """

    name: str
    en: str
    zh: str
    scope: Scope
    effect: Effect
    use: Use
    engage: ActionKind
    release: ActionKind | None = None
    signatures: int = 2
    ordered: bool = True
    settings: bool = False
    needs_limit: bool = False
    parameters: tuple[Parameter, ...] = ()

    @property
    def title(self) -> str:
        """Its name in the language in force."""
        return tr(self.en, self.zh)

    @property
    def takes_supply(self) -> bool:
        """It may leave somebody without supply."""
        return self.use is Use.TRIP


_ROUNDS = Parameter(
    name="rounds", en="rounds that take part", zh="参与轮次", form=Form.INTEGERS, low=1, high=ROUNDS
)  # fmt: skip
_SLIP = Parameter(name="slip_min", en="averaging window, min", zh="滑差时间 分钟", low=1, high=60, default=15)
_FLOAT = Parameter(
    name="float_percent", en="float of the setpoint, %", zh="定值浮动系数 %", low=-79, high=79, default=0
)
_HALF_HOURS = Parameter(
    name="limit_half_hours", en="half hours until it releases by itself, 0 = never",
    zh="限电时间 半小时, 0 为不自动恢复", low=0, high=15, default=0,
)  # fmt: skip


def _limit(name: str, en: str, zh: str, engage: ActionKind, release: ActionKind, *own: Parameter) -> Kind:
    return Kind(
        name=name, en=en, zh=zh, scope=Scope.GROUP, effect=Effect.LIMIT, use=Use.TRIP, engage=engage, release=release,
        settings=True, needs_limit=name != "float", parameters=(_ROUNDS, *own),
    )  # fmt: skip


def _energy(name: str, en: str, zh: str, engage: ActionKind, release: ActionKind, *own: Parameter) -> Kind:
    return Kind(
        name=name, en=en, zh=zh, scope=Scope.GROUP, effect=Effect.ENERGY, use=Use.TRIP, engage=engage, release=release,
        settings=True, parameters=(_ROUNDS, *own),
    )  # fmt: skip


def _state(name: str, en: str, zh: str, engage: ActionKind, use: Use, signatures: int, *own: Parameter) -> Kind:
    return Kind(
        name=name, en=en, zh=zh, scope=Scope.DEVICE, effect=Effect.STATE, use=use, engage=engage,
        signatures=signatures, ordered=False, parameters=own,
    )  # fmt: skip


def _energy_kwh(name: str, en: str, zh: str) -> Parameter:
    return Parameter(name=name, en=en, zh=zh, form=Form.NUMBER, low=0, high=9_999_999)


_TABLE: Final = (
    Kind(
        name="trip", en="remote trip", zh="遥控", scope=Scope.ROUND, effect=Effect.CUT, use=Use.TRIP, engage=A.TRIP,
        release=A.PERMIT_CLOSE, parameters=(_HALF_HOURS,),
    ),
    _limit(
        "period", "period power control", "时段控", A.PERIOD_ON, A.PERIOD_OFF,
        Parameter(name="windows", en="hours of the day, each with its limit if they differ", zh="控制时段及各自定值",
                  form=Form.WINDOWS),
        Parameter(name="scheme", en="setting scheme", zh="定值方案", low=1, high=3, default=1), _FLOAT, _SLIP,
    ),
    _limit(
        "rest", "plant-rest power control", "厂休控", A.REST_ON, A.REST_OFF,
        Parameter(name="start", en="begins at", zh="起始时间", form=Form.CLOCK),
        Parameter(name="half_hours", en="lasts, half hours", zh="持续 半小时", low=1, high=DAY_HALF_HOURS),
        Parameter(name="weekdays", en="days of the week, 1 = Monday", zh="厂休日, 1 为周一", form=Form.INTEGERS,
                  low=1, high=7),
        _SLIP,
    ),
    _limit(
        "suspension", "business-suspension power control", "营业报停控", A.SUSPENSION_ON, A.SUSPENSION_OFF,
        Parameter(name="from", en="first day", zh="起始日", form=Form.DAY),
        Parameter(name="to", en="last day", zh="结束日", form=Form.DAY), _SLIP,
    ),
    _limit(
        "float", "current-power down-float control", "当前功率下浮控", A.FLOAT_ON, A.FLOAT_OFF,
        Parameter(name="percent", en="change of the present power, %, negative = down", zh="浮动系数 %, 负为下浮",
                  low=-79, high=-1),
        Parameter(name="slip_min", en="averaging window, min", zh="定值滑差时间 分钟", low=1, high=60, default=15),
        Parameter(name="freeze_min", en="power is frozen after, min", zh="控后总加有功冻结延时 分钟", low=0, high=255,
                  default=5),
        Parameter(name="half_hours", en="control time, half hours", zh="控制时间 半小时", low=1, high=48),
    ),
    _energy(
        "month", "month energy control", "月电控", A.MONTH_ON, A.MONTH_OFF,
        _energy_kwh("kwh", "energy of the month, kWh", "月电量定值 kWh"), _FLOAT,
        Parameter(name="alarm_percent", en="alarm at, % of it", zh="告警门限 %", low=1, high=99, default=80),
    ),
    _energy(
        "purchase", "purchase control", "购电控", A.PURCHASE_ON, A.PURCHASE_OFF,
        Parameter(name="order_no", en="number of the purchase", zh="购电单号", low=0, high=2**32 - 1),
        Parameter(name="mode", en="add or refresh", zh="追加或刷新", form=Form.CHOICE, choices=("add", "refresh"),
                  default="add"),
        _energy_kwh("kwh", "bought, kWh", "购电量 kWh"), _energy_kwh("alarm_kwh", "alarm at, kWh", "报警门限 kWh"),
        _energy_kwh("trip_kwh", "trip at, kWh", "跳闸门限 kWh"),
    ),
    _state("protect", "protection on", "保电投入", A.PROTECT_ON, Use.SAFE, 1,
           Parameter(name="half_hours", en="lasts, half hours, 0 = until lifted", zh="持续 半小时, 0 为至解除",
                     default=0)),
    _state("unprotect", "protection off", "保电解除", A.PROTECT_OFF, Use.LIFT, 2),
    _state("exclude", "exclusion on", "剔除投入", A.EXCLUDE_ON, Use.SAFE, 1),
    _state("unexclude", "exclusion off", "剔除解除", A.EXCLUDE_OFF, Use.LIFT, 2),
    _state("remind", "arrears reminder on", "催费告警投入", A.REMIND_ON, Use.PARAMETER, 1),
    _state("unremind", "arrears reminder off", "催费告警解除", A.REMIND_OFF, Use.SAFE, 1),
    # What a device holds although no command of ours does (after a reconnection, by another master) is given free.
    Kind(
        name="permit", en="permit to close", zh="允许合闸", scope=Scope.ROUND, effect=Effect.STATE, use=Use.CLEAR,
        engage=A.PERMIT_CLOSE, signatures=1, ordered=False,
    ),
    *(
        Kind(
            name=f"un{name}", en=f"release of {en}", zh=f"{zh}解除", scope=Scope.GROUP, effect=Effect.STATE,
            use=Use.CLEAR, engage=engage, signatures=1, ordered=False,
        )
        for name, en, zh, engage in (
            ("period", "period power control", "时段控", A.PERIOD_OFF),
            ("rest", "plant-rest power control", "厂休控", A.REST_OFF),
            ("suspension", "business-suspension power control", "营业报停控", A.SUSPENSION_OFF),
            ("float", "current-power down-float control", "当前功率下浮控", A.FLOAT_OFF),
            ("month", "month energy control", "月电控", A.MONTH_OFF),
            ("purchase", "purchase control", "购电控", A.PURCHASE_OFF),
        )
    ),
    # How many sign depends on what is written (control/rules/parameters.py); two is what the table says for safety.
    Kind(
        name="parameters", en="parameters", zh="参数设置", scope=Scope.DEVICE, effect=Effect.SETTINGS,
        use=Use.PARAMETER, engage=A.WRITE_SETTINGS, ordered=False, settings=True,
    ),
)  # fmt: skip

KINDS: Final[Mapping[str, Kind]] = MappingProxyType({kind.name: kind for kind in _TABLE})
# What a row of a plan may name, in English and as the field says it.
PLAN_KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {name: kind for kind in _TABLE if kind.ordered for name in (kind.name, kind.zh)}
)
ENGAGED: Final = ("period", "rest", "suspension", "float", "month", "purchase")


def kind_of(name: str) -> Kind:
    """The kind called `name`; UsageError if there is none."""
    try:
        return KINDS[name]
    except KeyError:
        raise UsageError(tr(f"no control kind {name!r}", f"没有控制类型 {name!r}")) from None


# -- parameters -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """Part of a day in half hours: first 0..47, last behind the end 1..48; kw None = the row's limit."""

    first: int
    end: int
    kw: float | None = None


def parse_parameters(kind: Kind, text: str) -> tuple[dict[str, object], list[str]]:
    """(parameters with defaults filled in, faults) of a cell `name=value; ...`; plain JSON values."""
    given: dict[str, str] = {}
    faults: list[str] = []
    known = {p.name: p for p in kind.parameters}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, sign, value = (p.strip() for p in part.partition("="))
        if not sign or not value:
            faults.append(tr(f"{part!r} is not of the form name=value", f"{part!r} 不是 名称=值 的形式"))
        elif name not in known:
            may = ", ".join(known) or tr("none", "无")
            faults.append(tr(f"{name}: {kind.name} takes {may}", f"{name}: {kind.zh}可用参数为 {may}"))
        elif name in given:
            faults.append(tr(f"{name} stands twice", f"{name} 重复"))
        else:
            given[name] = value
    found: dict[str, object] = {}
    for parameter in kind.parameters:
        if parameter.name in given:
            try:
                found[parameter.name] = _read(parameter, given[parameter.name])
            except UsageError as error:
                faults.append(f"{parameter.name}: {error}")
        elif parameter.default is not None:
            found[parameter.name] = parameter.default
        elif not parameter.optional and not any(f.startswith(parameter.name) for f in faults):
            faults.append(
                tr(f"{parameter.name} is missing ({parameter.en})", f"缺少 {parameter.name} ({parameter.zh})")
            )
    if not faults:
        faults += _together(kind, found)
    return found, faults


def _read(parameter: Parameter, text: str) -> object:
    match parameter.form:
        case Form.INTEGER:
            return int(_number(parameter, text, whole=True))
        case Form.NUMBER:
            return _number(parameter, text, whole=False)
        case Form.INTEGERS:
            numbers = [int(_number(parameter, part, whole=True)) for part in re.split(r"[,，+]", text)]
            if len(set(numbers)) != len(numbers):
                raise UsageError(tr("a number stands twice", "数字重复"))
            return sorted(numbers)
        case Form.CLOCK:
            half_hour(text)
            return text
        case Form.DAY:
            try:
                return date.fromisoformat(text).isoformat()
            except ValueError:
                raise UsageError(tr(f"{text!r} is not a day YYYY-MM-DD", f"{text!r} 应为 YYYY-MM-DD")) from None
        case Form.WINDOWS:
            windows(text)
            return text
        case Form.CHOICE:
            if text not in parameter.choices:
                raise UsageError(
                    tr(f"must be {' or '.join(parameter.choices)}", f"应为 {' 或 '.join(parameter.choices)}")
                )
            return text


def _number(parameter: Parameter, text: str, *, whole: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (whole and value != int(value)):
        what = tr("a whole number", "整数") if whole else tr("a number", "数")
        raise UsageError(tr(f"{text!r} is not {what}", f"{text!r} 不是{what}"))
    if not parameter.low <= value <= parameter.high:
        bounds = f"{parameter.low:g}..{parameter.high:g}"
        raise UsageError(tr(f"{text} is not within {bounds}", f"{text} 不在 {bounds}"))
    return value


def half_hour(text: str) -> int:
    """Half hours since 00:00 of a time like 14:30 (24:00 = 48); UsageError for anything that is not on a half hour."""
    found = re.fullmatch(r"([0-9]{1,2}):(00|30)", text)
    value = int(found[1]) * 2 + (found[2] == "30") if found else DAY_HALF_HOURS + 1
    if value > DAY_HALF_HOURS:
        raise UsageError(tr(f"{text!r} is not a half hour of the day", f"{text!r} 不是整点或半点"))
    return value


def windows(text: str) -> list[Window]:
    """The parts of a day, ascending and apart; UsageError for anything else."""
    found: list[Window] = []
    for part in re.split(r"[,，]", text):
        span, sign, kw = part.strip().partition("@")
        begin, dash, end = span.partition("-")
        try:
            limit = float(kw) if sign else None
        except ValueError:
            limit = math.nan
        if not dash or (limit is not None and not 0 < limit < 1e7):
            raise UsageError(
                tr(f"{part!r} is not like 14:00-18:00 or 14:00-18:00@800", f"{part!r} 应如 14:00-18:00@800")
            )
        window = Window(half_hour(begin.strip()), half_hour(end.strip()), limit)
        if window.first >= window.end or (found and window.first < found[-1].end):
            raise UsageError(tr("periods must ascend and not overlap", "时段须递增且不重叠"))
        found.append(window)
    return found


def _together(kind: Kind, found: Mapping[str, object]) -> list[str]:
    """What the parameters cannot be together."""
    faults = []
    if kind.name == "suspension" and str(found["to"]) < str(found["from"]):
        faults.append(tr("to: the last day lies before the first", "to: 结束日早于起始日"))
    if kind.name == "purchase" and float(str(found["trip_kwh"])) > float(str(found["alarm_kwh"])):
        faults.append(tr("trip_kwh: more than alarm_kwh", "trip_kwh: 跳闸门限高于报警门限"))
    if kind.name == "period" and period_segments(windows(str(found["windows"]))) > MAX_WINDOWS:
        faults.append(tr(f"windows: more than {MAX_WINDOWS} periods a day", f"windows: 一日超过 {MAX_WINDOWS} 个时段"))
    return faults


def period_segments(found: list[Window]) -> int:
    """Periods of the day that the windows make: every change of the control code begins another one."""
    segments, at = 0, 0
    for window in found:
        segments += 1 + (window.first > at)
        at = window.end
    return segments + (at < DAY_HALF_HOURS)


# -- what a command with these parameters would do --------------------------------------------------------------------


def rounds_of(kind: Kind, number: int, params: Mapping[str, object]) -> tuple[int, ...]:
    """The rounds that a command may open."""
    if not kind.takes_supply:
        return ()
    if kind.scope is Scope.ROUND:
        return (number,)
    found = params.get("rounds")
    return tuple(int(n) for n in found) if isinstance(found, (list, tuple)) else ()


def limit_kw(kind: Kind, params: Mapping[str, object], row_kw: float, now_kw: float | None) -> float | None:
    """The power above which the kind acts, primary kW; of several the highest (the cautious side for what to expect).

    None: it does not limit power, or the present power is needed for it and not known.
    """
    if kind.effect is not Effect.LIMIT:
        return None
    if kind.name == "float":
        return None if now_kw is None else now_kw * (1 + float(str(params["percent"])) / 100)
    found = [row_kw]
    if kind.name == "period":
        found = [row_kw if w.kw is None else w.kw for w in windows(str(params["windows"]))]
    float_share = 1 + float(str(params.get("float_percent", 0))) / 100
    return max(found) * float_share


def acts_at(kind: Kind, params: Mapping[str, object], half_hours: int, day: date) -> bool:
    """Whether a limit is in force in this half hour of this business day (others than LIMIT: always)."""
    match kind.name:
        case "period":
            return any(w.first <= half_hours < w.end for w in windows(str(params["windows"])))
        case "rest":
            first = half_hour(str(params["start"]))
            days = params["weekdays"]
            today = isinstance(days, (list, tuple)) and day.isoweekday() in days
            return today and first <= half_hours < first + int(str(params["half_hours"]))
        case "suspension":
            return str(params["from"]) <= day.isoformat() <= str(params["to"])
        case _:
            return True


def lasts_half_hours(kind: Kind, params: Mapping[str, object]) -> int:
    """After how many half hours the device releases by itself; 0 = it does not."""
    name = "limit_half_hours" if kind.effect is Effect.CUT else "half_hours" if kind.name == "float" else ""
    return int(str(params.get(name, 0))) if name else 0
