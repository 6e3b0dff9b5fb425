"""Who goes next on a link: a bounded queue of work items by priority class, fair between devices by line time.

Pure; time is an argument (monotonic seconds). Not for the conversation (link.py) nor for silence (quarantine.py).

Order: strictly by class (control > event > live > scheduled > recall). Inside a class the device that has used least
line time goes first (start-time fair queueing), equal devices take turns, one device's own items are first in first
out. So a slow device gets its share of *seconds*, not of turns, and cannot starve its neighbours.
Full queue: the newest item of the lowest class below the new one's gives way (recall first). An item that finds nothing
below it is refused. Control is never dropped; it is refused only when the whole queue is control.

An empty queue owns next to nothing: thousands of lines are idle at any moment.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence

from ..model.work import Exchange, Priority, WorkItem

CLASSES = len(Priority)


class Entry:
    """A queued item: `probe` = the one try of a quarantined device; `exchange` is set once it has begun.

    `turn`: the number of this conversation among all of its device, renewed each time that it gets the line.
    """

    __slots__ = ("enqueued_s", "exchange", "item", "key", "probe", "replies", "silences", "turn")

    def __init__(self, item: WorkItem, key: Hashable, enqueued_s: float, *, probe: bool = False) -> None:
        self.item = item
        self.key = key
        self.enqueued_s = enqueued_s
        self.probe = probe
        self.exchange: Exchange | None = None
        self.replies = 0
        self.silences = 0
        self.turn = 0


class _Class:
    """The queues of one priority class; `heap` holds (line time used, turn, device) once for each waiting device."""

    __slots__ = ("entries", "heap", "in_heap", "queues")

    def __init__(self) -> None:
        self.entries: dict[Entry, None] = {}  # in order of arrival
        self.queues: dict[int, deque[Entry]] = {}
        self.heap: list[tuple[float, int, int]] = []
        self.in_heap: set[int] = set()


_NOTHING = _Class()  # stands for every class without entries; never written to
_EMPTY = (_NOTHING,) * CLASSES


class Arbiter:
    """Bounded, fair, prioritised queue of one link. `capacity`: items of all classes together."""

    __slots__ = ("_classes", "_count", "_next_expiry_s", "_turn", "_used_s", "_virtual_s", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = max(1, capacity)
        self._classes: Sequence[_Class] = _EMPTY
        self._used_s: dict[int, float] | None = None
        self._virtual_s = 0.0
        self._turn = 0
        self._next_expiry_s = math.inf
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def depth_by_class(self) -> tuple[int, ...]:
        """Waiting items of each class, in the order of `Priority`."""
        return tuple(len(c.entries) for c in self._classes)

    @property
    def next_expiry_s(self) -> float:
        """No waiting item expires before this instant (a lower bound)."""
        return self._next_expiry_s

    def oldest_age_s(self, now_s: float) -> float:
        """Age of the item that waits longest; 0 for an empty queue."""
        first = [next(iter(c.entries)).enqueued_s for c in self._classes if c.entries]
        return max(0.0, now_s - min(first)) if first else 0.0

    def waits(self, priority: Priority) -> bool:
        """True if an item of this class is waiting."""
        return bool(self._classes[priority].entries)

    def others_wait(self, device: int, priority: Priority) -> bool:
        """True if another device has an item of this or a higher class."""
        return any(
            len(queues) > 1 or (queues and device not in queues)
            for queues in (self._classes[p].queues for p in range(priority + 1))
        )

    def put(self, entry: Entry) -> tuple[bool, Entry | None]:
        """Queue an entry: (accepted, the entry that had to give way). The caller has checked that the key is new."""
        dropped: Entry | None = None
        if self._count >= self.capacity:
            lowest = next((p for p in range(CLASSES - 1, entry.item.priority, -1) if self._classes[p].entries), None)
            if lowest is None:
                return False, None
            newest = next(reversed(self._classes[lowest].entries))
            self._remove(newest)
            dropped = newest
        self._add(entry, front=False)
        return True, dropped

    def put_back(self, entry: Entry, *, front: bool) -> None:
        """Return an entry that was taken (an exchange that stepped aside); it held its place, so no bound applies."""
        self._add(entry, front=front)

    def take(self, *, only_control: bool = False) -> Entry | None:
        """The next entry, or None. Expired ones are the caller's to sweep first (`expire`)."""
        for rank, cls in enumerate(self._classes):
            if only_control and rank:
                return None
            while cls.entries:
                tag, _, device = heapq.heappop(cls.heap)
                queue = cls.queues.get(device)
                if not queue:
                    cls.in_heap.discard(device)
                    continue
                used = self._used(device)
                if used > tag:  # it was served since this turn was noted
                    if cls.heap:
                        heapq.heappush(cls.heap, (used, self._next_turn(), device))
                        continue
                    tag = used
                if tag > self._virtual_s:
                    self._virtual_s = tag
                entry = queue.popleft()
                del cls.entries[entry]
                if queue:
                    heapq.heappush(cls.heap, (tag, self._next_turn(), device))
                else:
                    del cls.queues[device]
                    cls.in_heap.discard(device)
                self._left()
                return entry
        return None

    def charge(self, device: int, seconds: float) -> None:
        """Line time that a device has used."""
        if self._used_s is None:
            self._used_s = {}
        used_s = self._used_s.get(device, 0.0)
        self._used_s[device] = (used_s if used_s > self._virtual_s else self._virtual_s) + seconds

    def expire(self, now_s: float) -> list[Entry]:
        """Take out what has expired."""
        if now_s < self._next_expiry_s:
            return []
        gone = self.remove_where(lambda e: e.item.expires_s <= now_s and e.exchange is None)
        waiting = (e.item.expires_s for c in self._classes for e in c.entries if e.exchange is None)
        self._next_expiry_s = min(waiting, default=math.inf)
        return gone

    def remove_where(self, condition: Callable[[Entry], bool]) -> list[Entry]:
        """Take out every entry that meets a condition."""
        found = [e for c in self._classes for e in c.entries if condition(e)]
        for entry in found:
            self._remove(entry)
        return found

    def forget_devices(self, keep: Callable[[int], bool]) -> None:
        """Drop the accounts of devices that are no longer on the link."""
        if self._used_s is not None:
            self._used_s = {d: used for d, used in self._used_s.items() if keep(d)} or None

    def _add(self, entry: Entry, *, front: bool) -> None:
        rank, device = entry.item.priority, entry.item.device
        if self._classes[rank] is _NOTHING:
            self._classes = (*self._classes[:rank], _Class(), *self._classes[rank + 1 :])
        cls = self._classes[rank]
        cls.entries[entry] = None
        self._count += 1
        queue = cls.queues.get(device)
        if queue is None:
            queue = cls.queues[device] = deque()
        if front:
            queue.appendleft(entry)
        else:
            queue.append(entry)
        if entry.exchange is None and entry.item.expires_s < self._next_expiry_s:
            self._next_expiry_s = entry.item.expires_s
        if device not in cls.in_heap:
            cls.in_heap.add(device)
            tag = max(self._used(device), self._virtual_s)
            heapq.heappush(cls.heap, (tag, self._next_turn(), device))

    def _remove(self, entry: Entry) -> None:
        cls, device = self._classes[entry.item.priority], entry.item.device
        del cls.entries[entry]
        queue = cls.queues[device]
        if queue[-1] is entry:
            queue.pop()
        else:
            queue.remove(entry)
        if not queue:
            del cls.queues[device]
        self._left()

    def _left(self) -> None:
        self._count -= 1
        if not self._count:
            self._classes = _EMPTY

    def _used(self, device: int) -> float:
        return self._used_s.get(device, 0.0) if self._used_s is not None else 0.0

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn
