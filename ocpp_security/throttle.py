"""Count what repeats: failed attempts, log lines that would flood, connections that displace each other."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from datetime import datetime, timedelta

__all__ = ["RepeatFilter", "WindowCounter"]


class WindowCounter:
    """Counts events per key within a sliding window; memory is bounded by `max_keys` (the oldest keys go first)."""

    def __init__(self, window: timedelta, limit: int, *, max_keys: int = 20_000) -> None:
        self._window, self._limit, self._max_keys = window, limit, max_keys
        self._events: OrderedDict[Hashable, deque[datetime]] = OrderedDict()

    def add(self, key: Hashable, now: datetime) -> int:
        """Count one event and return how many lie within the window, this one included; never more than `limit`."""
        events = self._events.setdefault(key, deque(maxlen=self._limit))
        self._events.move_to_end(key)
        events.append(now)
        if len(self._events) > self._max_keys:
            self._events.popitem(last=False)
        return self._count(events, now)

    def reached(self, key: Hashable, now: datetime) -> bool:
        """Return whether `limit` events of *key* lie within the window."""
        events = self._events.get(key)
        return events is not None and self._count(events, now) >= self._limit

    def forget(self, key: Hashable) -> None:
        """Start *key* afresh (it proved to be right after all)."""
        self._events.pop(key, None)

    def _count(self, events: deque[datetime], now: datetime) -> int:
        while events and now - events[0] > self._window:
            events.popleft()
        return len(events)


class RepeatFilter:
    """Lets the first of a series through, then one per window with the number that was held back.

    Clause: A00.FR.316/419 (one event for a series); EVerest/libocpp issue 1156 is the flood that it avoids.
    """

    def __init__(self, window: timedelta, *, max_keys: int = 10_000) -> None:
        self._window, self._max_keys = window, max_keys
        self._seen: OrderedDict[Hashable, tuple[datetime, int]] = OrderedDict()

    def admit(self, key: Hashable, now: datetime) -> int | None:
        """Return how many were held back since the last one let through, or ``None`` when this one is held back too."""
        last = self._seen.get(key)
        if last is not None and now - last[0] < self._window:
            self._seen[key] = (last[0], last[1] + 1)
            return None
        self._seen[key] = (now, 0)
        self._seen.move_to_end(key)
        if len(self._seen) > self._max_keys:
            self._seen.popitem(last=False)
        return 0 if last is None else last[1]
