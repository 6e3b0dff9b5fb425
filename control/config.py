"""Configuration of control: the `control:` section of config.yaml. Defaults are the cautious side of domain 8 and 9."""

from __future__ import annotations

import msgspec

from .rules.checks import Limits


class ArchiveConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who is a key customer (domain 2.2): any one of the thresholds; removal after key_remove_months below all."""

    key_running_kva: int = 1000
    key_energy_kwh: int = 5_000_000
    key_supplies: int = 2
    key_remove_months: int = 12

    def __post_init__(self) -> None:
        if min(self.key_running_kva, self.key_energy_kwh, self.key_supplies, self.key_remove_months) < 1:
            raise ValueError("archive: thresholds of key customers are at least 1")
        if self.key_remove_months > 60:
            raise ValueError("archive.key_remove_months is at most 60")


class ControlConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits and times of the command sequence (domain 9.3, 9.4). Times in seconds or minutes as named.

    environment: "prod" or "test"; a test daemon commands only devices marked simulated, and the reverse.
    restore_margin_kw: spare margin for restoring when the releasing person names none (None = it must be named).
    unknown_read_s: interval of reading the state of a command nobody answered; supervise_s: of looking at held rounds.
    pace_per_s: trips, parameters and other changes that may leave in a second, 0 = no limit; group_commands: how many
    commands share a transaction at most; reconcile_devices: devices that came back and are looked at in one step.
    anchor_s: interval of writing the audit's count and last hash to data_dir/audit-anchor.jsonl.
    lease_s: how long a daemon that went silent still holds the control lease against others.
    """

    enabled: bool = True
    environment: str = "prod"
    approval_within_s: int = 600
    select_s: int = 30
    freshness_s: int = 300
    clock_offset_max_s: int = 60
    live_test_max_days: int = 365
    min_off_min: int = 30
    min_on_min: int = 60
    max_trips_day: int = 4
    step_limit_terminals: int = 20
    step_interval_s: int = 60
    county_load_share: float = 0.10
    county_load_kw: float | None = None
    command_valid_s: int = 600
    verify_at_s: tuple[int, ...] = (120, 300, 900)
    power_before_s: int = 300
    restore_block_share: float = 0.20
    restore_wait_s: int = 300
    restore_reminder_s: int = 1800
    restore_margin_kw: float | None = None
    session_idle_s: int = 600
    eta_direct: float = 0.95
    eta_voluntary: float = 0.8
    unknown_read_s: int = 30
    supervise_s: int = 300
    pace_per_s: float = 200.0
    group_commands: int = 500
    reconcile_devices: int = 50
    anchor_s: int = 3600
    lease_s: int = 10

    def __post_init__(self) -> None:
        if self.environment not in ("prod", "test"):
            raise ValueError('control.environment must be "prod" or "test"')
        if not self.verify_at_s or list(self.verify_at_s) != sorted(set(self.verify_at_s)) or self.verify_at_s[0] < 0:
            raise ValueError("control.verify_at_s must be ascending seconds, at least one")
        if self.pace_per_s < 0 or self.group_commands < 1 or self.reconcile_devices < 1:
            raise ValueError("control.pace_per_s must not be negative, group_commands and reconcile_devices at least 1")

    @property
    def limits(self) -> Limits:
        """The parameters of the interlocks."""
        return Limits(
            freshness_s=self.freshness_s,
            clock_offset_max_s=self.clock_offset_max_s,
            live_test_max_days=self.live_test_max_days,
            step_terminals=self.step_limit_terminals,
            step_interval_s=self.step_interval_s,
            county_share=self.county_load_share,
            county_load_kw=self.county_load_kw,
        )
