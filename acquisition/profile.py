"""A device profile (设备档): everything that differs between models, as data. profiles.py loads profiles/*.toml.

Testing for a device model in code means a missing field here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ..model.work import Duty


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """reply_timeout_s: longest silence before the first byte beyond line time; inter_byte_s: between two bytes.

    reply_delay_s: usual delay before the first byte; the plan checker reckons with it, the link does not.
    """

    reply_timeout_s: float = 0.55
    reply_delay_s: float = 0.1
    inter_byte_s: float = 0.5
    retries: int = 2
    lead_bytes: int = 4
    turnaround_ms: float | None = None


class ReadPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is read for a duty: protocol identifiers (DI hex for DL/T 645, quantity names for Modbus).

    records (duty event): when a count has risen, at most so many records of its kind are fetched; 0 = none.
    """

    items: tuple[str, ...]
    period_s: int | None = None
    retention_days: int | None = None
    records: int = 10


class CurvePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Stored curves of the device: slot step and memory depth, and which of them are read.

    classes: load records (DL/T 645 class 06); items: class-2 curves of a terminal ("0D:F81").
    """

    classes: tuple[int, ...] = ()
    items: tuple[str, ...] = ()
    quantities: tuple[str, ...] = ()
    step_s: int = 900
    retention_days: int = 10
    blocks_per_request: int = 8


class ControlPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the device's relays are driven. means: dlt645-1c | modbus-write | mqtt-command | qgdw1376-05.

    Modbus: `writes` maps an action kind to [function, address, value]; `state` = [function, address, mask, open value].
    What the model is able to tell, for the interlocks: protection: it has a supply-protection state (保电); contact:
    the switch position is a feedback contact; inputs: contacts are state inputs, wired as the list of rounds says;
    clock: commands are judged by its clock; keys: it wants a secret; exclusion: it has an exclusion state (剔除);
    setpoint: it holds a security setpoint (保安定值); kinds: the controls of a total-sum group that it has.
    """

    means: Literal["dlt645-1c", "modbus-write", "mqtt-command", "qgdw1376-05"]
    rounds: int = 1
    password_level: str = "02"
    short_form: bool = False
    writes: dict[str, tuple[int, int, int]] = {}
    state: tuple[int, int, int, int] | None = None
    protection: bool = False
    contact: bool = True
    inputs: bool = False
    clock: bool = False
    keys: bool = True
    exclusion: bool = False
    setpoint: bool = False
    kinds: tuple[str, ...] = ()


class TerminalPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How terminals of this model are spoken to (Q/GDW 376.1); empty fields follow the edition (`version`).

    protocol_id: of the length word; pw_length: bytes of PW; fcv: requests carry a valid frame count bit; con: reads set
    CON; tp: requests that carry a time tag; tp_delay_min: permitted delay in it (0 = the terminal does not check);
    auth: provider of PW; max_bytes: longest user data L1 that the terminal takes; heartbeat_s: its period.
    answer_bytes, units_per_request: how much one request may ask for (the terminal's buffer); budget_s: longest time
    for a request with its repeats; event_batch: events asked for at once.
    curve_label: whether the terminal labels a curve's points by the end or the start of their intervals (the device's
    option curve_label wins); settlement_day, settlement_hour: of the meters behind it, for "last month" of AFN 0C.
    """

    protocol_id: int | None = None
    pw_length: int | None = None
    fcv: bool = False
    con: bool = False
    tp: Literal["never", "control", "always"] = "control"
    tp_delay_min: int = 5
    auth: str = "cleartext"
    max_bytes: int = 16383
    heartbeat_s: int = 900
    answer_bytes: int = 1024
    units_per_request: int = 32
    budget_s: float = 60.0
    event_batch: int = 8
    curve_label: Literal["end", "start"] = "end"
    settlement_day: int = 1
    settlement_hour: int = 0


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One device profile. `version`: protocol edition (2007, 1997); `map`: Modbus register map by name.

    max_points: how many metering points may stand behind one address (1 for a plain meter); max_groups, max_dc: the
    same for total-sum groups (总加组) and DC analog ports, which most devices do not have.
    """

    name: str
    title_en: str
    title_zh: str
    protocol: Literal["dlt645", "modbus", "mqtt", "qgdw1376"]
    version: str = ""
    map: str = ""
    max_points: int = 1
    max_groups: int = 0
    max_dc: int = 0
    timing: Timing = Timing()
    read: dict[Duty, ReadPlan] = {}
    curve: CurvePlan | None = None
    control: ControlPlan | None = None
    terminal: TerminalPlan | None = None
    quirks: dict[str, str] = {}
