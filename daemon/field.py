"""`control.ports.Field` over the acquisition engine: one call, one conversation; silence stays "unknown"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from ..acquisition.io.clock import Clock
from ..acquisition.io.engine import Engine
from ..acquisition.profile import ControlPlan, Profile
from ..acquisition.setting_secrets import resolved
from ..acquisition.terminal_control import settings_of
from ..control.ports import DeviceFacts, Epoch, PowerWindow, a2_quantum, target_of
from ..model.control import ActionKind, ControlAction, ControlAnswer, Setting, Spot, SwitchState
from ..model.devices import Device
from ..model.lang import tr
from ..model.readings import DeviceEvent
from ..model.times import DAY_US, US
from ..model.work import Duty, Outcome, Priority, Status, WorkItem
from ..protocols.common.errors import LinkError, UsageError
from .livepower import LivePower
from .lives import Lives

NEVER_LEFT = frozenset({Status.EXPIRED, Status.CANCELLED, Status.LINK_DOWN, Status.READ_ONLY, Status.QUARANTINED})
"""Statuses of an item without an answer of its own that say that no byte of it was sent."""
SETPOINT_KEPT_S = 2 * 3600
"""A security setpoint counts so long after it was read; it is read again at half of it."""
WRONG_KEY = "ERC20"
_UNSETTLES = frozenset({"ERC1", "ERC2", "ERC3"})
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
        password_of: Callable[[str], str] = lambda name: name,
        online_s: int = 300,
        patience_s: float = 20.0,
    ) -> None:
        """`password_of`: the secret of a name that stands in a parameter; `online_s`: a device that answered within it
        is online; `patience_s`: longest wait for the line."""
        self._engine, self._live, self._clock, self._keys_known = engine, live, clock, keys_known
        self._password_of = password_of
        self._online_us, self._patience_s = online_s * US, patience_s
        self._devices: dict[int, Device] = {}
        self._profiles: Mapping[str, Profile] = {}
        self._offsets: dict[int, tuple[int, float]] = {}
        self._setpoints: dict[int, tuple[int, float]] = {}
        self._refused: set[int] = set()
        self._seen: dict[int, int] = {}
        self._lives = Lives(engine.session)
        self._reads = 0

    def set_devices(self, devices: Sequence[Device], profiles: Mapping[str, Profile]) -> None:
        """Take over the archive in force."""
        self._devices, self._profiles = {d.id: d for d in devices}, profiles

    def note(self, device: int, seen_us: int, clock_offset_s: float | None = None) -> None:
        """The device was heard (and its clock read)."""
        self._seen[device] = seen_us
        if clock_offset_s is not None:
            self._offsets[device] = (seen_us, clock_offset_s)

    def saw(self, event: DeviceEvent) -> None:
        """An event passes: it may begin another life of a session, make a setpoint unsure, tell of a wrong password."""
        self._lives.saw(event, self._clock.now_us())
        if event.code in _UNSETTLES:
            self._setpoints.pop(event.device, None)
        if event.code == WRONG_KEY and self._clock.now_us() - event.time_us < DAY_US:
            self._refused.add(event.device)

    async def operate(self, device_id: int, action: ControlAction) -> ControlAnswer:
        """See `Field`. Without an answer of the exchange, what may have left counts as sent and unknown."""
        try:
            action = self._with_secrets(action)
        except UsageError as error:
            return ControlAnswer(action_id=action.id, sent=False, acknowledged=None, refusal=str(error))
        outcome = await self._submit(device_id, action)
        if outcome.answer is not None:
            if outcome.answer.acknowledged:
                self._refused.discard(device_id)
            if action.kind is ActionKind.WRITE_SETTINGS:
                self._setpoints.pop(device_id, None)
            return outcome.answer
        return ControlAnswer(
            action_id=action.id,
            sent=outcome.status not in NEVER_LEFT,
            acknowledged=None,
            refusal=outcome.reason or str(outcome.status),
        )

    async def read_settings(self, device_id: int, settings: tuple[Setting, ...]) -> Outcome:
        """Parameters read and compared with `settings`; writes nothing."""
        self._reads += 1
        now_us = self._clock.now_us()
        action = ControlAction(
            id=f"settings-{device_id}-{now_us}-{self._reads}",
            kind=ActionKind.READ_SETTINGS,
            settings=settings,
            valid_until_us=now_us + round_us(self._patience_s),
        )
        return await self._submit(device_id, self._with_secrets(action), Priority.LIVE)

    def _with_secrets(self, action: ControlAction) -> ControlAction:
        if not action.settings:
            return action
        real = tuple(replace(s, values=resolved(s.values, self._password_of)) for s in action.settings)
        return replace(action, settings=real)

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
            params={"setpoint": True} if self._wants_setpoint(device_id, now_us) else {},
            valid_until_us=now_us + round_us(self._patience_s),
        )
        outcome = await self._submit(device_id, action)
        if outcome.status is Status.READ_ONLY:
            raise LinkError(outcome.reason)
        state = outcome.answer.state if outcome.answer is not None else None
        self.told(device_id, state)
        return state

    def told(self, device_id: int, state: SwitchState | None) -> None:
        """A state was read: what of it counts for a while is kept."""
        if state is None:
            return
        self.note(device_id, state.time_us, state.clock_offset_s)
        if state.setpoint_kw is not None:
            self._setpoints[device_id] = (state.time_us, state.setpoint_kw)

    def watch(self, device_id: int) -> ControlAction | None:
        """The question that supervision asks each minute of a terminal: power, clock and control state in one; None for
        a device whose power is read otherwise."""
        device, plan = self._devices.get(device_id), self._plan(device_id)
        if device is None or plan is None or plan.means != "qgdw1376-05":
            return None
        if not self._live.has_group(device_id, 1):
            return None
        self._reads += 1
        now_us = self._clock.now_us()
        return ControlAction(
            id=f"watch-{device_id}-{now_us}-{self._reads}",
            kind=ActionKind.READ_STATE,
            params={"setpoint": True} if self._wants_setpoint(device_id, now_us) else {},
            valid_until_us=now_us + round_us(self._patience_s),
        )

    def _wants_setpoint(self, device_id: int, now_us: int) -> bool:
        """The security setpoint is read with the state now and then; what may have changed it makes it unknown."""
        plan = self._plan(device_id)
        at_us, _ = self._setpoints.get(device_id, (-SETPOINT_KEPT_S * US, 0.0))
        return plan is not None and plan.setpoint and now_us - at_us > SETPOINT_KEPT_S * US // 2

    def _plan(self, device_id: int) -> ControlPlan | None:
        device = self._devices.get(device_id)
        profile = self._profiles.get(device.profile) if device is not None else None
        return profile.control if profile is not None else None

    def power(self, device_id: int, now_us: int, back_s: int, group: int = 1) -> PowerWindow:
        """See `Field`. The quantum is the least digit of the power format x multiplier."""
        time_us, kw, quality = self._live.window(device_id, now_us - back_s * US, now_us, group)
        if self._live.has_group(device_id, group):
            return PowerWindow(time_us, kw, quality, a2_quantum(float(kw[-1]) if len(kw) else 0.0))
        device = self._devices.get(device_id)
        largest = max((p.multiplier for p in device.measuring), default=Decimal(0)) if device else Decimal(0)
        return PowerWindow(time_us, kw, quality, float(largest * Decimal("0.0001")))

    def online(self, device_id: int) -> bool | None:
        """See `Field`: a terminal that dials in is online while it is connected, others while they answer."""
        connected = self._engine.online(device_id)
        if connected is not None:
            return connected
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
            has_exclusion=plan.exclusion,
            has_contact=plan.contact,
            contact_inputs=plan.inputs,
            has_clock=plan.clock,
            has_setpoint=plan.setpoint,
            setpoint_kw=self._setpoint(device_id),
            keys_ok=(not plan.keys or self._keys_known(device)) and device_id not in self._refused,
            model_known=True,
            target=target_of(device.link, device.address),
        )

    def settings(self, device_id: int, action: ControlAction) -> tuple[Setting, ...]:
        """See `Field`."""
        device = self._devices.get(device_id)
        profile = self._profiles.get(device.profile) if device is not None else None
        if device is None or profile is None:
            raise UsageError(tr(f"device {device_id} is not in the list in force", f"装置 {device_id} 不在生效档案中"))
        plan, kind = profile.control, action.kind.value.removesuffix("_on")
        if plan is None or plan.means != "qgdw1376-05" or kind not in plan.kinds:
            raise UsageError(
                tr(f"profile {profile.name} has no {action.kind}", f"设备档 {profile.name} 没有 {action.kind}")
            )
        return settings_of(action, device.options.get("edition") or profile.version)

    def _setpoint(self, device_id: int) -> float | None:
        at_us, kw = self._setpoints.get(device_id, (None, 0.0))
        return None if at_us is None or self._clock.now_us() - at_us > SETPOINT_KEPT_S * US else kw

    def epoch(self, device_id: int) -> Epoch | None:
        """See `Field`."""
        return self._lives.epoch(device_id, self._clock.now_us())

    async def _submit(self, device_id: int, action: ControlAction, priority: Priority = Priority.CONTROL) -> Outcome:
        item = WorkItem(
            device=device_id,
            duty=Duty.CONTROL,
            priority=priority,
            expires_s=self._clock.monotonic_s() + self._patience_s,
            action=action,
            forced=True,
        )
        return await self._engine.submit(item)


def round_us(seconds: float) -> int:
    """Seconds as whole microseconds."""
    return round(seconds * US)
