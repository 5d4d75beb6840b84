"""Children that are kept up: started, awaited, started again when they die, stopped in order.

Argument. Each child has one thread, its keeper, that starts it, waits for its end and starts it again.
Nobody else starts it, and a stop first sets `stopping` and then takes the lock that the keeper holds
while it starts: so a stop meets either a child that runs or one that will never start. Every child is
made by `prism_embedded.child.spawn`, so it gets SIGKILL when this process dies, however it dies.
"""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from subprocess import Popen
from typing import Literal, Protocol

from prism_cli.service_log import last_words, rotate
from prism_embedded import child as children
from prism_embedded.broker import EmbeddedBroker
from prism_embedded.errors import EmbeddedError
from prism_embedded.loopback import HOST, free_port

Clock = Callable[[], float]
EventKind = Literal["started", "died", "given_up", "ready", "not_ready", "stopped", "interrupt"]

# A service's own word for a setting that no second start will mend.
_BAD_SETTINGS = 3
MOST_DEATHS = 5
DEATHS_WINDOW_S = 60.0
_AFTER_KILL_S = 0.1
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
# A start under way (a broker's takes seconds) is given this long before a stop goes over it.
_START_S = 10.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a child. `status` is an exit status, negative for a signal."""

    kind: EventKind
    id: str = ""
    pid: int | None = None
    status: int | None = None
    detail: str = ""
    restart_in_s: float | None = None


Events = SimpleQueue[Event]


class Child(Protocol):
    """What a keeper keeps up."""

    @property
    def name(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    def start(self) -> None: ...
    def wait(self) -> int | None: ...
    def stop(self, timeout_s: float) -> None: ...
    def kill(self) -> None: ...
    def last_words(self) -> str: ...


class ServiceChild:
    """A process with an HTTP port of its own on the loopback, given to it as `{port}` or PORT."""

    def __init__(
        self,
        name: str,
        id: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.id = id
        self._command = command
        self._environment = environment
        self._log = log
        self._folder = folder
        self._port = free_port()
        self._process: Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it, always on the port that others know."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        rotate(self._log)
        command = [word.format(port=self._port) for word in self._command]
        with self._log.open("ab") as log:
            environment = {**self._environment, "PORT": str(self._port)}
            self._process = children.spawn(command, log, environment, self._folder)

    def wait(self) -> int | None:
        return self._process.wait() if self._process else None

    def stop(self, timeout_s: float) -> None:
        if self._process is not None:
            children.stop(self._process, timeout_s)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def last_words(self) -> str:
        return last_words(self._log)


class BrokerChild:
    """The embedded broker: started when it answers."""

    name = "broker"
    id = "broker"

    def __init__(self, folder: Path, port: int | None) -> None:
        self._broker = EmbeddedBroker(folder, port)

    @property
    def url(self) -> str:
        return self._broker.bootstrap

    @property
    def pid(self) -> int | None:
        return self._broker.pid

    def start(self) -> None:
        self._broker.start()

    def wait(self) -> int | None:
        return self._broker.wait()

    def stop(self, timeout_s: float) -> None:
        self._broker.stop(timeout_s)

    def kill(self) -> None:
        self._broker.kill()

    def last_words(self) -> str:
        return f"see {self._broker.log_path}"


class Restarts:
    """When a child that died is started again: at once after a kill from outside, else later and later.

    `most`: how often at most, whatever it died of; None: until it has died MOST_DEATHS times in a minute.
    """

    def __init__(self, clock: Clock = time.monotonic, most: int | None = None) -> None:
        self._clock = clock
        self._left = most
        self._deaths: deque[tuple[float, int | None]] = deque(maxlen=100)

    def after(self, status: int | None) -> float | None:
        """Count a death; return the seconds until the next start, None when it stays down."""
        if self._left is not None:
            if self._left == 0:
                return None
            self._left -= 1
        if status == -signal.SIGKILL:
            return _AFTER_KILL_S
        if status == _BAD_SETTINGS:
            return None
        now = self._clock()
        self._deaths.append((now, status))
        same = sum(1 for at, why in self._deaths if why == status and now - at < DEATHS_WINDOW_S)
        if same >= MOST_DEATHS:
            return None
        return float(min(_FIRST_PAUSE_S * 2 ** (same - 1), _LONGEST_PAUSE_S))


class Keeper:
    """The thread of one child. What happens goes into `events`."""

    def __init__(self, child: Child, events: Events, restarts: Restarts | None = None) -> None:
        self.child = child
        self._events = events
        self._restarts = restarts or Restarts()
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self.runs = False

    def begin(self) -> None:
        """Start the child and keep it up from now on."""
        threading.Thread(target=self._keep, name=f"keeper-{self.child.id}", daemon=True).start()

    def stop(self, timeout_s: float) -> None:
        """Stop the child for good: SIGTERM, and SIGKILL after the time."""
        self._stopping.set()
        if self._starting.acquire(timeout=_START_S):
            try:
                self.child.stop(timeout_s)
            finally:
                self._starting.release()
        else:
            self.child.kill()
        self._tell("stopped")

    def kill(self) -> None:
        """SIGKILL, for good, without waiting."""
        self._stopping.set()
        with suppress(OSError):
            self.child.kill()

    def _keep(self) -> None:
        while True:
            status, detail = self._live()
            self.runs = False
            if self._stopping.is_set():
                return
            pause = self._restarts.after(status)
            detail = detail or self.child.last_words()
            self._events.put(
                Event(
                    "died" if pause is not None else "given_up",
                    self.child.id,
                    self.child.pid,
                    status,
                    detail,
                    pause,
                )
            )
            if pause is None or self._stopping.wait(pause):
                return

    def _live(self) -> tuple[int | None, str]:
        """Start the child and wait for its end; return its status, or why it did not start."""
        with self._starting:
            if self._stopping.is_set():
                return None, ""
            try:
                self.child.start()
            except (EmbeddedError, OSError) as error:
                return None, str(error)
        self.runs = True
        self._tell("started")
        return self.child.wait(), ""

    def _tell(self, kind: EventKind) -> None:
        self._events.put(Event(kind, self.child.id, self.child.pid))
