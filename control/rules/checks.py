"""What each interlock (domain 9.4) looks at and says: pure functions over one `Evidence`.

Each answers PASS, FAIL or UNKNOWN with a text; which of them apply to what is the table in interlocks.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ...model.control import SwitchState
from ...model.lang import tr
from ...model.times import US
from .kinds import Effect, Use

ORDER_OVER_SHARE: Final = 1.15
OVERRIDE_AGE_S: Final = 900


class Verdict(StrEnum):
    """Result of one interlock; only PASS lets a command through."""

    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The parameters of 9.4 (ControlConfig holds the defaults). Times in seconds, minutes or days as named."""

    freshness_s: int = 300
    clock_offset_max_s: int = 60
    live_test_max_days: int = 365
    step_terminals: int = 20
    step_interval_s: int = 60
    county_share: float = 0.10
    county_load_kw: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything the interlocks look at, for one command to one round. None always means "not known".

    Powers in primary kW, instants in µs UTC. The defaults are the refusing side. round_kw: all rounds that the command
    may open, largest_kw the largest of them; limit_kw: what a LIMIT keeps the group below.
    """

    use: Use = Use.TRIP
    effect: Effect = Effect.CUT
    now_us: int
    # 1 authority
    plan_active: bool | None = None
    plan_hash_ok: bool | None = None
    plan_from_us: int | None = None
    plan_to_us: int | None = None
    row_in_level: bool | None = None
    order_active: bool | None = None
    order_number: str | None = None
    # 2 protection
    customer_class: str | None = None
    server_protected: bool | None = None
    has_protection: bool | None = None
    switch: SwitchState | None = None
    # 3 floor
    p_min15_kw: float | None = None
    round_kw: float | None = None
    pending_kw: float | None = None
    security_kw: float | None = None
    setpoint_kw: float | None = None
    has_setpoint: bool | None = None
    limit_kw: float | None = None
    largest_kw: float | None = None
    # 4 supply
    supply: str | None = None
    # 5 wear
    min_on_min: int | None = None
    min_off_min: int | None = None
    max_trips_day: int | None = None
    trips_today: int | None = None
    last_restored_us: int | None = None
    last_trip_us: int | None = None
    history_known: bool = False
    hours_today: float | None = None
    max_hours_day: float | None = None
    # 6 tags
    tag: str | None = None
    # 7 window
    not_before_us: int | None = None
    not_after_us: int | None = None
    # 8 notice
    notice_given: bool | None = None
    # 9 freshness
    power_us: int | None = None
    power_good: bool | None = None
    has_contact: bool | None = None
    # 10 terminal
    online: bool | None = None
    clock_offset_s: float | None = None
    has_clock: bool | None = None
    keys_ok: bool | None = None
    model_known: bool | None = None
    live_test_us: int | None = None
    live_test_ok: bool | None = None
    # 11 step
    step_kw: float | None = None
    step_terminals: int | None = None
    order_kw: float | None = None
    last_step_us: int | None = None
    # 12 address
    address: str | None = None
    targets: tuple[str | None, str | None, str | None] = (None, None, None)  # approved, in the archive, in the daemon
    has_exclusion: bool | None = None
    # 13 conflict
    conflicts: int | None = None
    rounds: tuple[int, ...] = ()
    # 14 environment
    test_environment: bool | None = None
    simulated: bool | None = None
    # 15 restore
    cause_ended: bool | None = None
    margin_kw: float | None = None
    pickup_kw: float | None = None
    # 16 freeze
    frozen: bool | None = None


Found = tuple[Verdict, str]
Check = Callable[[Evidence, Limits], Found]


def _ok(text: str) -> Found:
    return Verdict.PASS, text


def _no(text: str) -> Found:
    return Verdict.FAIL, text


def _unknown(what_en: str, what_zh: str) -> Found:
    return Verdict.UNKNOWN, tr(f"not known: {what_en}", f"未知: {what_zh}")


def authority(e: Evidence, _: Limits) -> Found:
    facts = (
        (e.plan_active, "plan is active", "方案生效"),
        (e.plan_hash_ok, "plan rows match the approved hash", "方案与批准散列一致"),
        (e.order_active, "order is active", "指令已生效"),
        (e.row_in_level, "row belongs to the order's level", "行属于指令等级"),
    )
    for value, en, zh in facts:
        if value is None:
            return _unknown(f"whether the {en}", zh)
        if not value:
            return _no(tr(f"does not hold: the {en}", f"不成立: {zh}"))
    if e.plan_from_us is None or e.plan_to_us is None:
        return _unknown("validity of the plan", "方案有效期")
    if not e.plan_from_us <= e.now_us < e.plan_to_us:
        return _no(tr("the plan is not valid today", "方案今日不在有效期"))
    if not e.order_number:
        return _no(tr("no order number", "无指令编号"))
    return _ok(tr(f"order {e.order_number}, plan valid", f"指令 {e.order_number}, 方案有效"))


def protected(e: Evidence, _: Limits) -> Found:
    if e.customer_class is None or e.server_protected is None:
        return _unknown("whether the customer is protected", "用户是否受保护")
    if e.customer_class == "P" or e.server_protected:
        return _no(tr("protected customer (保电)", "受保护用户(保电)"))
    if e.has_protection is None:
        return _unknown("whether the terminal has a protection state", "终端有无保电状态")
    if e.has_protection:
        if e.switch is None or e.switch.protected is None:
            return _unknown("protection state of the terminal", "终端保电状态")
        if e.switch.protected:
            return _no(tr("the terminal is in protection (保电)", "终端处于保电"))
    return _ok(tr("not protected", "未保电"))


def security_floor(security_kw: float | None, setpoint_kw: float | None, has_setpoint: bool | None) -> float | None:
    """floor = max(agreed security load, terminal setpoint) (8.6), kW; None if a part of it is not known."""
    if security_kw is None or has_setpoint is None or (has_setpoint and setpoint_kw is None):
        return None
    return max(security_kw, setpoint_kw or 0.0)


def rounds_within_floor(p_min15_kw: float, round_kw: Sequence[float], floor_kw: float) -> int:
    """How many of the rounds, in their order, may be tripped: P_min15 minus their sum stays at or above the floor."""
    left = p_min15_kw
    for n, kw in enumerate(round_kw):
        if left - kw < floor_kw:
            return n
        left -= kw
    return len(round_kw)


def floor(e: Evidence, _: Limits) -> Found:
    least = security_floor(e.security_kw, e.setpoint_kw, e.has_setpoint)
    if least is None:
        if e.security_kw is not None and e.has_setpoint:
            return _unknown(
                "the terminal's security setpoint (set and read it: AFN 04/0A F17)",
                "终端保安定值 (请设置并召测 AFN 04/0A F17)",
            )
        return _unknown("security load", "保安负荷")
    if e.p_min15_kw is None or e.round_kw is None or e.pending_kw is None:
        return _unknown("lowest power of the last 15 min or the rounds' load", "15分钟最低功率或轮次负荷")
    if e.p_min15_kw <= least:
        return _no(
            tr(
                f"nothing to cut: {e.p_min15_kw:.1f} kW is at or below the floor {least:.1f} kW",
                f"无可切: {e.p_min15_kw:.1f} kW 不高于保安负荷 {least:.1f} kW",
            )
        )
    left = e.p_min15_kw - e.pending_kw - e.round_kw
    text = tr(
        f"{e.p_min15_kw:.1f} - {e.pending_kw + e.round_kw:.1f} = {left:.1f} kW, floor {least:.1f} kW",
        f"{e.p_min15_kw:.1f} - {e.pending_kw + e.round_kw:.1f} = {left:.1f} kW, 保安负荷 {least:.1f} kW",
    )
    fits = bool(rounds_within_floor(e.p_min15_kw - e.pending_kw, [e.round_kw], least))
    if e.effect is not Effect.LIMIT:
        return _ok(text) if fits else _no(text)
    if e.limit_kw is None or e.largest_kw is None:
        return _unknown("limit of the control or the largest round", "控制定值或最大轮次")
    if e.limit_kw < least:
        return _no(tr(f"limit {e.limit_kw:.1f} kW below the floor {least:.1f} kW",
                      f"定值 {e.limit_kw:.1f} kW 低于保安负荷 {least:.1f} kW"))  # fmt: skip
    # The terminal opens the next round only above the limit: the last one to open leaves at least limit - its load.
    lowest = max(left, e.limit_kw - e.largest_kw)
    text = tr(
        f"limit {e.limit_kw:.1f} kW, at least {lowest:.1f} kW stay, floor {least:.1f} kW",
        f"定值 {e.limit_kw:.1f} kW, 至少余 {lowest:.1f} kW, 保安负荷 {least:.1f} kW",
    )
    return _ok(text) if lowest >= least else _no(text)


def dual_supply(e: Evidence, _: Limits) -> Found:
    if e.supply == "single":
        return _ok(tr("single supply", "单电源"))
    if e.supply == "dual":
        # Conflict sets and the other source's state are not recorded yet, so a dual-supply customer is refused.
        return _unknown("state of the other supply and its conflict set", "另一路电源状态及冲突组")
    return _unknown("number of supplies", "电源数")


def wear(e: Evidence, _: Limits) -> Found:
    if e.min_on_min is None or e.max_trips_day is None or e.min_off_min is None or not e.history_known:
        return _unknown("switching history of the round", "轮次动作历史")
    if e.use is Use.RELEASE:
        if e.last_trip_us is None:
            return _unknown("time of the trip", "跳闸时刻")
        off_min = (e.now_us - e.last_trip_us) / US / 60
        text = tr(
            f"off for {off_min:.0f} of at least {e.min_off_min} min", f"已停 {off_min:.0f} / 至少 {e.min_off_min} 分钟"
        )
        return _ok(text) if off_min >= e.min_off_min else _no(text)
    if e.trips_today is None or e.hours_today is None:
        return _unknown("trips and hours of today", "今日次数与时长")
    if e.trips_today >= e.max_trips_day:
        return _no(
            tr(
                f"{e.trips_today} trips today, at most {e.max_trips_day}",
                f"今日已 {e.trips_today} 次, 上限 {e.max_trips_day}",
            )
        )
    if e.last_restored_us is not None and e.now_us - e.last_restored_us < e.min_on_min * 60 * US:
        return _no(tr(f"on for less than {e.min_on_min} min", f"恢复供电不足 {e.min_on_min} 分钟"))
    if e.max_hours_day is not None and e.hours_today >= e.max_hours_day:
        return _no(
            tr(
                f"{e.hours_today:.1f} h today, at most {e.max_hours_day:.1f}",
                f"今日已 {e.hours_today:.1f} h, 上限 {e.max_hours_day:.1f}",
            )
        )
    return _ok(
        tr(f"trip {e.trips_today + 1} of {e.max_trips_day} today", f"今日第 {e.trips_today + 1} / {e.max_trips_day} 次")
    )


def tags(e: Evidence, _: Limits) -> Found:
    if e.tag is None:
        return _unknown("tags of the round", "轮次挂牌")
    if e.tag:
        return _no(tr(f"tagged: {e.tag}", f"挂牌: {e.tag}"))
    return _ok(tr("no tag, nobody at work, no process window", "无挂牌、无人工作、无关键工艺"))


def window(e: Evidence, _: Limits) -> Found:
    if e.not_before_us is None or e.not_after_us is None:
        return _unknown("time window of the command", "命令时间窗")
    if e.now_us < e.not_before_us:
        return _no(tr("too early", "未到时间"))
    if e.now_us >= e.not_after_us:
        return _no(tr("too late: the command has expired", "已过期"))
    return _ok(tr("inside the time window", "在时间窗内"))


def notice(e: Evidence, _: Limits) -> Found:
    if e.notice_given is None:
        return _unknown("notice to the customer", "用户通知")
    return _ok(tr("notice given", "已通知")) if e.notice_given else _no(tr("the customer was not told", "用户未通知"))


def power_age_s(e: Evidence) -> float | None:
    """Age of the newest power in seconds; None without one. A stamp in the future is as useless as none."""
    if e.power_us is None or e.power_us > e.now_us + 5 * US:
        return None
    return max(0.0, (e.now_us - e.power_us) / US)


def position_known(e: Evidence) -> bool:
    """The device told where the switch is: by its contact or, where none is wired, what it holds open."""
    if e.switch is None:
        return False
    if e.effect in (Effect.LIMIT, Effect.ENERGY):
        return e.switch.outputs is not None
    return e.switch.open is not None or (e.has_contact is False and e.switch.command_trip is not None)


def fresh(e: Evidence, limits: Limits) -> Found:
    age = power_age_s(e)
    if age is None or e.power_good is None:
        return _unknown("power of the last minutes", "最近功率")
    if not e.power_good:
        return _no(tr("power is not of quality A", "功率质量非 A"))
    if age > limits.freshness_s:
        return _no(
            tr(
                f"power is {age:.0f} s old, at most {limits.freshness_s}",
                f"功率已 {age:.0f} s, 上限 {limits.freshness_s}",
            )
        )
    if not position_known(e) or e.switch is None:
        return _unknown("position of the switch", "开关位置")
    if (e.now_us - e.switch.time_us) / US > limits.freshness_s:
        return _no(tr("the switch position is too old", "开关位置过旧"))
    return _ok(tr(f"power {age:.0f} s old, switch read back", f"功率 {age:.0f} s 前, 开关已回读"))


def terminal(e: Evidence, limits: Limits) -> Found:
    for value, en, zh in (
        (e.online, "terminal is online", "终端在线"),
        (e.keys_ok, "keys and passwords are valid", "密钥口令有效"),
        (e.model_known, "model and firmware are known", "型号固件已知"),
        (e.live_test_ok if e.use is Use.TRIP else True, "last live test passed", "上次实传试验合格"),
    ):
        if value is None:
            return _unknown(f"whether the {en}", zh)
        if not value:
            return _no(tr(f"does not hold: the {en}", f"不成立: {zh}"))
    if e.has_clock is None or (e.has_clock and e.clock_offset_s is None):
        return _unknown("clock offset of the terminal", "终端时钟偏差")
    if e.has_clock and abs(e.clock_offset_s or 0.0) > limits.clock_offset_max_s:
        return _no(tr(f"clock is off by {e.clock_offset_s:.0f} s", f"时钟偏差 {e.clock_offset_s:.0f} s"))
    if e.use is not Use.TRIP:
        return _ok(tr("online, clock in order", "在线, 时钟合格"))
    if e.live_test_us is None:
        return _unknown("date of the last live test", "上次实传试验日期")
    days = (e.now_us - e.live_test_us) / US / 86_400
    if not 0 <= days <= limits.live_test_max_days:
        return _no(tr(f"last live test {days:.0f} days ago", f"上次实传试验 {days:.0f} 天前"))
    return _ok(tr("online, clock and test in order", "在线, 时钟与试验合格"))


def step(e: Evidence, limits: Limits) -> Found:
    if e.step_kw is None or e.step_terminals is None or e.order_kw is None:
        return _unknown("size of the step", "本步规模")
    if limits.county_load_kw is None:
        return _unknown("county load (control.county_load_kw)", "全县负荷(control.county_load_kw)")
    most = min(e.order_kw * ORDER_OVER_SHARE, limits.county_load_kw * limits.county_share)
    if e.step_kw > most:
        return _no(
            tr(f"step of {e.step_kw:.1f} kW, at most {most:.1f} kW", f"本步 {e.step_kw:.1f} kW, 上限 {most:.1f} kW")
        )
    if e.step_terminals > limits.step_terminals:
        return _no(
            tr(
                f"{e.step_terminals} terminals in a step, at most {limits.step_terminals}",
                f"本步 {e.step_terminals} 终端, 上限 {limits.step_terminals}",
            )
        )
    if e.last_step_us is not None and e.now_us - e.last_step_us < limits.step_interval_s * US:
        return _no(
            tr(
                f"less than {limits.step_interval_s} s after the step before",
                f"距上一步不足 {limits.step_interval_s} s",
            )
        )
    return _ok(tr(f"step of {e.step_kw:.1f} kW, at most {most:.1f} kW", f"本步 {e.step_kw:.1f} kW, 上限 {most:.1f} kW"))


_HEX = re.compile(r"[0-9A-Fa-f]+")
_TERMINAL: Final = re.compile(r"([0-9A-Fa-f]{4})-([0-9]{1,5})")  # A1-A2; the digits of A1 are BCD on the wire
_TERMINAL_HEX: Final = re.compile(r"[0-9A-Fa-f]{8}")
TERMINALS: Final = 0xFFFF


def is_single_address(address: str) -> bool:
    """True if the address can mean one device only: no broadcast (9…9, 0, F…F), no wildcard digits, no topic wildcards.

    DL/T 645 uses 9×12 for broadcast and A as a wildcard digit; Modbus uses 0; terminals use A2 FFFF and 0.
    """
    text = address.strip()
    if terminal := _TERMINAL.fullmatch(text):
        return 1 <= int(terminal[2]) < TERMINALS and set(terminal[1].upper()) != {"F"}
    if _TERMINAL_HEX.fullmatch(text):
        return text[4:].upper() not in ("FFFF", "0000") and set(text[:4].upper()) != {"F"}
    if not text or any(c in text for c in "*#+?,;"):
        return False
    if _HEX.fullmatch(text) and len(text) == 12 and ("A" in text.upper() or set(text) == {"9"}):
        return False
    return (
        set(text) != {"0"}
        and set(text.upper()) != {"F"}
        and not (text.isdigit() and len(text) <= 3 and int(text) > 247)
    )


def single(e: Evidence, _: Limits) -> Found:
    if e.address is None:
        return _unknown("address of the terminal", "终端地址")
    text = tr(f"address {e.address}", f"地址 {e.address}")
    if not is_single_address(e.address):
        return _no(text + tr(" is a broadcast or group address", " 是广播或组地址"))
    if e.use in (Use.TRIP, Use.LIFT, Use.PARAMETER, Use.CLEAR):
        if None in e.targets:
            return _unknown("whether this is the terminal that was approved", "是否为所批准的终端")
        if len(set(e.targets)) > 1:
            return _no(
                tr(
                    "the terminal's line or address was changed since the approval, or the daemon has not loaded it",
                    "终端链路或地址在批准后已变更, 或守护进程尚未加载",
                )
            )
    if e.use is Use.TRIP:
        if e.has_exclusion is None or (e.has_exclusion and (e.switch is None or e.switch.excluded is None)):
            return _unknown("whether the terminal is excluded (剔除)", "终端是否剔除")
        if e.has_exclusion and e.switch is not None and e.switch.excluded:
            return _no(tr("the terminal is excluded from control (剔除)", "终端已剔除"))
    return _ok(text)


def conflict(e: Evidence, _: Limits) -> Found:
    if e.conflicts is None:
        return _unknown("other commands on this round", "本轮次其他命令")
    if e.conflicts:
        return _no(tr("another command is active on this round", "本轮次已有生效命令"))
    if e.use is not Use.TRIP:
        return _ok(tr("no other command", "无冲突命令"))
    if not position_known(e) or e.switch is None:
        return _unknown("position of the switch", "开关位置")
    if e.switch.open or e.switch.command_trip or set(e.switch.outputs or ()) & set(e.rounds):
        return _no(tr("the switch is already open or blocked, not by this command", "开关已分或已闭锁, 非本命令所致"))
    if e.effect in (Effect.LIMIT, Effect.ENERGY):
        if e.switch.engaged is None:
            return _unknown("controls engaged in the terminal", "终端已投入的控制")
        power = e.effect is Effect.LIMIT
        others = [n for n in e.switch.engaged if (n in ("month", "purchase")) != power]
        if others:
            names = ", ".join(others)
            return _no(tr(f"engaged already, not by this command: {names}", f"已投入, 非本命令所致: {names}"))
    return _ok(tr("no other command", "无冲突命令"))


def environment(e: Evidence, _: Limits) -> Found:
    if e.test_environment is None or e.simulated is None:
        return _unknown("environment of server or device", "主站或装置环境")
    if e.test_environment and not e.simulated:
        return _no(tr("a test server never commands a real device", "测试主站不得控制真实装置"))
    if e.simulated and not e.test_environment:
        return _no(tr("a production server never commands a simulated device", "生产主站不得控制模拟装置"))
    return _ok(tr("test to simulator", "测试对模拟") if e.simulated else tr("production to real device", "生产对真实"))


def restore(e: Evidence, _: Limits) -> Found:
    if e.use is not Use.RELEASE:
        return _ok(tr("not a restore", "非恢复"))
    if e.cause_ended is None or e.margin_kw is None or e.pickup_kw is None:
        return _unknown("end of the cause or spare margin", "原因是否结束或裕度")
    if not e.cause_ended:
        return _no(tr("the order still holds", "指令仍有效"))
    text = tr(
        f"pickup {e.pickup_kw:.1f} kW, margin {e.margin_kw:.1f} kW",
        f"冷负荷 {e.pickup_kw:.1f} kW, 裕度 {e.margin_kw:.1f} kW",
    )
    return _ok(text) if e.pickup_kw <= e.margin_kw else _no(text)


def freeze(e: Evidence, _: Limits) -> Found:
    if e.frozen is None:
        return _unknown("CONTROL-FREEZE flag", "总闭锁标志")
    return _no(tr("CONTROL-FREEZE is on", "总闭锁投入")) if e.frozen else _ok(tr("no freeze", "未闭锁"))
