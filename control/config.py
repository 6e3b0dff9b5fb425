"""Configuration of control: the `control:` section of config.yaml. Defaults are the cautious side of domain 8 and 9."""

from __future__ import annotations

import msgspec


class ControlConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits and times of the command sequence (domain 9.3, 9.4). Times in seconds or minutes as named.

    environment: "prod" or "test"; a test daemon commands only devices marked simulated, and the reverse.
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
    session_idle_s: int = 600
