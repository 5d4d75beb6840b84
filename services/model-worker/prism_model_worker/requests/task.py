"""A request in hand: from its offset to its reply."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prism.kafka.records import Record
from prism.service import tracing
from prism_model_worker.endpoints import ServerGroup
from prism_model_worker.photos.photo import Photo
from prism_model_worker.requests.request import Request


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request is not answered. `message` is for its sender: nothing internal is in it."""

    code: str
    message: str


@dataclass(slots=True)
class RequestTask:
    """One request. Owned by one thread at a time, as a `BatchTask` is.

    received_at: by the monotonic clock; taken_at: the same in Unix time, seconds. num_ctx: context length of
    its calls in tokens. model_seconds: spent in calls. on_done: called once, by the caller that ended it.
    """

    record: Record
    request: Request
    epoch: int
    model: str
    servers: ServerGroup
    num_ctx: int
    received_at: float
    on_done: Callable[["RequestTask"], None]
    taken_at: float = field(default_factory=time.time)
    photo: Photo | None = None
    model_seconds: float = 0.0
    tries: int = 0
    repair: tuple[str, str] | None = None
    repaired: bool = False
    blamed_at: float | None = None
    answer: str | None = None
    failure: Failure | None = None
    span: tracing.Span = tracing.OFF

    @property
    def done(self) -> bool:
        """Whether there is something to reply."""
        return self.answer is not None or self.failure is not None

    @property
    def place(self) -> tuple[int, int, int]:
        """Partition, epoch and offset: what names it while it is held."""
        return self.record.partition, self.epoch, self.record.offset

    @property
    def partition(self) -> int:
        """The partition that it came from."""
        return self.record.partition

    @property
    def needs_no_call(self) -> bool:
        """Whether it can be ended without a server: nobody waits for its answer any more."""
        return self.request.is_late(time.time())

    def fail(self, code: str, message: str) -> None:
        """End it without an answer."""
        self.failure = Failure(code, message)
