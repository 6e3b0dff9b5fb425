"""`control.ports.Field` over the acquisition engine: one call, one conversation; silence stays "unknown"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from ..acquisition.io.clock import Clock
from ..acquisition.io.engine import Engine
from ..acquisition.profile import Profile
from ..control.ports import DeviceFacts, Epoch, PowerWindow, target_of
from ..model.control import ActionKind, ControlAction, ControlAnswer, Setting, Spot, SwitchState
from ..model.devices import Device
from ..model.lang import tr
from ..model.times import US
from ..model.work import Duty, Outcome, Priority, Status, WorkItem
from ..protocols.common.errors import LinkError, UsageError
from .livepower import LivePower

NEVER_LEFT = frozenset({Status.EXPIRED, Status.CANCELLED, Status.LINK_DOWN, Status.READ_ONLY, Status.QUARANTINED})
"""Statuses of an item without an answer of its own that say that no byte of it was sent."""
CLOCK_KEPT_S = 26 * 3600
"""A measured clock offset counts so long: a little more than the daily check."""


class EngineField:
    """What control sees of the devices. Lives on the event loop's thread, like the engine."""

    def __init__(
        self,
        engine: Engine,
        live: LivePower,
        clock: Clock,
        keys_known: Callable[[Device], bool],
        *,
        online_s: int = 300,
        patience_s: float = 20.0,
    ) -> None:
        """`online_s`: a device that answered within it is online; `patience_s`: longest wait for the line."""
        self._engine, self._live, self._clock, self._keys_known = engine, live, clock, keys_known
        self._online_us, self._patience_s = online_s * US, patience_s
        self._devices: dict[int, Device] = {}
        self._profiles: Mapping[str, Profile] = {}
        self._offsets: dict[int, tuple[int, float]] = {}
        self._seen: dict[int, int] = {}
        self._reads = 0

    def set_devices(self, devices: Sequence[Device], profiles: Mapping[str, Profile]) -> None:
        """Take over the archive in force."""
        self._devices, self._profiles = {d.id: d for d in devices}, profiles

    def note(self, device: int, seen_us: int, clock_offset_s: float | None = None) -> None:
        """The device was heard (and its clock read)."""
        self._seen[device] = seen_us
        if clock_offset_s is not None:
            self._offsets[device] = (seen_us, clock_offset_s)

    async def operate(self, device_id: int, action: ControlAction) -> ControlAnswer:
        """See `Field`. Without an answer of the exchange, what may have left counts as sent and unknown."""
        outcome = await self._submit(device_id, action)
        if outcome.answer is not None:
            return outcome.answer
        return ControlAnswer(
            action_id=action.id,
            sent=outcome.status not in NEVER_LEFT,
            acknowledged=None,
            refusal=outcome.reason or str(outcome.status),
        )

    async def read_state(self, device_id: int, spot: Spot) -> SwitchState | None:
        """See `Field`. LinkError in read-only mode where the question itself is a message that the guard stops (MQTT).

        The id is new in every life of the daemon: a device refuses an id that it has seen (domain 9.5).
        """
        self._reads += 1
        now_us = self._clock.now_us()
        action = ControlAction(
            id=f"state-{device_id}-{spot.round}-{now_us}-{self._reads}",
            kind=ActionKind.READ_STATE,
            round=spot.round,
            group=spot.group,
            rounds=spot.rounds,
            contact=spot.contact,
            valid_until_us=now_us + round_us(self._patience_s),
        )
        outcome = await self._submit(device_id, action)
        if outcome.status is Status.READ_ONLY:
            raise LinkError(outcome.reason)
        return outcome.answer.state if outcome.answer is not None else None

    def power(self, device_id: int, now_us: int, back_s: int) -> PowerWindow:
        """See `Field`. The quantum is the least digit of the power format (0.0001 kW) x multiplier."""
        time_us, kw, quality = self._live.window(device_id, now_us - back_s * US, now_us)
        device = self._devices.get(device_id)
        largest = max((p.multiplier for p in device.measuring), default=Decimal(0)) if device else Decimal(0)
        return PowerWindow(time_us, kw, quality, float(largest * Decimal("0.0001")))

    def online(self, device_id: int) -> bool | None:
        """See `Field`."""
        seen = self._seen.get(device_id)
        return None if seen is None else self._clock.now_us() - seen <= self._online_us

    def clock_offset_s(self, device_id: int) -> float | None:
        """See `Field`; an offset older than the daily check (CLOCK_KEPT_S) is not known any more."""
        at_us, offset_s = self._offsets.get(device_id, (None, 0.0))
        return None if at_us is None or self._clock.now_us() - at_us > CLOCK_KEPT_S * US else offset_s

    def facts(self, device_id: int) -> DeviceFacts | None:
        """See `Field`: the profile's control section, and whether the secrets that the device names are there."""
        device = self._devices.get(device_id)
        if device is None:
            return None
        profile = self._profiles.get(device.profile)
        plan = profile.control if profile is not None else None
        if profile is None or plan is None:
            return DeviceFacts(can_control=False, model_known=profile is not None)
        return DeviceFacts(
            can_control=True,
            has_protection=plan.protection,
            has_exclusion=False,
            has_contact=plan.contact,
            has_clock=plan.clock,
            has_setpoint=False,
            keys_ok=not plan.keys or self._keys_known(device),
            model_known=True,
            target=target_of(device.link, device.address),
        )

    def settings(self, device_id: int, action: ControlAction) -> tuple[Setting, ...]:
        """See `Field`."""
        device = self._devices.get(device_id)
        profile = self._profiles.get(device.profile) if device is not None else None
        if device is None or profile is None:
            raise UsageError(tr(f"device {device_id} is not in the list in force", f"装置 {device_id} 不在生效档案中"))
        raise UsageError(
            tr(f"profile {profile.name} has no {action.kind}", f"设备档 {profile.name} 没有 {action.kind}")
        )

    def epoch(self, device_id: int) -> Epoch | None:
        """See `Field`."""
        return None

    async def _submit(self, device_id: int, action: ControlAction) -> Outcome:
        item = WorkItem(
            device=device_id,
            duty=Duty.CONTROL,
            priority=Priority.CONTROL,
            expires_s=self._clock.monotonic_s() + self._patience_s,
            action=action,
            forced=True,
        )
        return await self._engine.submit(item)


def round_us(seconds: float) -> int:
    """Seconds as whole microseconds."""
    return round(seconds * US)
