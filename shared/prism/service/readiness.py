"""Can this process do its work now? Conditions that parts set, and loops that must beat (promise 10)."""

import threading
import time
from collections.abc import Callable

# Promise 10: a process that cannot do its work says so within this time.
MAX_SILENCE_S = 10.0


class Heartbeat:
    """The beat of one loop; `beat()` is one assignment and needs no lock."""

    __slots__ = ("_clock", "last", "max_age_s")

    def __init__(self, clock: Callable[[], float], max_age_s: float) -> None:
        self._clock = clock
        self.max_age_s = max_age_s
        self.last = clock()

    def beat(self) -> None:
        """Say that the loop has just come round."""
        self.last = self._clock()

    def silence(self) -> float:
        """Return the seconds since the last beat."""
        return self._clock() - self.last


class Readiness:
    """A board of named conditions and heartbeats; every method may be called from any thread.

    Conditions named at construction are not met until set. A board on which nothing was ever set is
    not ready: a service that forgot to report must not get traffic.
    """

    def __init__(self, *conditions: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._reasons: dict[str, str | None] = dict.fromkeys(conditions, "starting")
        self._heartbeats: dict[str, Heartbeat] = {}

    def set(self, name: str, ok: bool, reason: str = "") -> None:
        """Say whether condition `name` is met, and if not, why, in a few words."""
        with self._lock:
            self._reasons[name] = None if ok else (reason or "not ready")

    def forget(self, name: str) -> None:
        """Drop a condition or a heartbeat that no longer has a meaning (a lost partition, a closed lane)."""
        with self._lock:
            self._reasons.pop(name, None)
            self._heartbeats.pop(name, None)

    def heartbeat(self, name: str, max_age_s: float = 8.0) -> Heartbeat:
        """Watch the loop `name`, which must call `.beat()` on the result every `max_age_s` seconds.

        Raises ValueError above 10 s: a stuck loop has to be seen within that time.
        """
        if not 0 < max_age_s <= MAX_SILENCE_S:
            raise ValueError(
                f"heartbeat {name}: max_age_s is {max_age_s}; 0 to {MAX_SILENCE_S:.0f} s is allowed"
            )
        heartbeat = Heartbeat(self._clock, max_age_s)
        with self._lock:
            self._heartbeats[name] = heartbeat
        return heartbeat

    def reason(self) -> str | None:
        """Return why this process is not ready, or None when it is."""
        with self._lock:
            conditions = list(self._reasons.items())
            heartbeats = list(self._heartbeats.items())
        if not conditions:
            return "starting"
        reasons = [f"{name}: {reason}" for name, reason in conditions if reason is not None]
        for name, heartbeat in heartbeats:
            silence = heartbeat.silence()
            if silence > heartbeat.max_age_s:
                reasons.append(f"stuck: {name} silent for {silence:.0f} s")
        return "; ".join(reasons) or None
