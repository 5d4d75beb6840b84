"""What both lanes share: the queue, the callers that empty it, the model servers, and the photos.

The worker's owner thread makes and ends it. Callers and the lane of the requests touch the queue, the servers
and the photos, which guard themselves, and read the contexts, which only the owner changes.
"""

from collections import Counter
from collections.abc import Callable

from prism.runs.catalogue import ModelEntry
from prism_model_worker import metrics
from prism_model_worker.answering import Answerer, Deadlines
from prism_model_worker.callers import MOST_THREADS, Callers
from prism_model_worker.contexts import RunContexts
from prism_model_worker.endpoints import Connect, Endpoints
from prism_model_worker.photos.album import Album
from prism_model_worker.photos.studio import Studio
from prism_model_worker.requests.asking import RequestAnswerer
from prism_model_worker.settings import WorkerSettings, photo_limits
from prism_model_worker.tasks import TaskQueue

# Tokens of a request's call: a photo, a question and an answer.
REQUEST_CONTEXT = 8192


class ModelCalls:
    """`default`: the servers of the fleet's own model, for requests and for jobs that name none."""

    def __init__(self, settings: WorkerSettings, connect: Connect, clock: Callable[[], float]) -> None:
        self._model = settings.ollama_model
        self._most = settings.concurrent_requests or MOST_THREADS
        self.tasks = TaskQueue(clock)
        self.endpoints = Endpoints(
            connect, clock, self.tasks.wake, settings.health_timeout_s, settings.concurrent_requests
        )
        self.contexts = RunContexts(settings.ollama_model, self.endpoints)
        limits = photo_limits(settings)
        self._studio = Studio(limits)
        self.album = Album(self._studio, settings.photo_dir or settings.data_dir, limits)
        self.callers = Callers(
            self.tasks,
            Answerer(Deadlines(settings.request_timeout_s), clock, album=self.album),
            RequestAnswerer(settings.request_timeout_s, clock),
        )
        self.default = self.endpoints.group(ModelEntry.model_construct(name=settings.ollama_model))

    def start(self) -> None:
        """Look after the fleet's own model."""
        self._show()
        if self._model:
            self.endpoints.watch(self.default, self._model)

    def _show(self) -> None:
        """Let the metrics say how the servers are."""
        endpoints = self.endpoints
        metrics.CALLS_IN_FLIGHT.read(lambda: {(): float(endpoints.in_flight)})
        metrics.MODEL_UP.read(lambda: self._by_model(lambda causes: float(None in causes)))
        metrics.OWN_MODEL_UP.read(lambda: {(): float(self.default.may_call(self._model))})
        metrics.MODEL_SERVERS.read(lambda: self._by_model(lambda causes: float(len(causes))))
        metrics.QUOTA_EXHAUSTED.read(lambda: self._by_model(lambda causes: float("quota" in causes)))
        metrics.BREAKERS_OPEN.read(self._open_breakers)

    def _by_model(self, value: Callable[[list[str | None]], float]) -> dict[tuple[str, ...], float]:
        wanted = self.contexts.wanted_models()
        return {(metrics.MODEL(one),): value(self.endpoints.closed_causes(one)) for one in sorted(wanted)}

    def _open_breakers(self) -> dict[tuple[str, ...], float]:
        found: Counter[tuple[str, ...]] = Counter()
        for one in self.contexts.wanted_models():
            causes = self.endpoints.closed_causes(one)
            found.update((metrics.MODEL(one), cause) for cause in causes if cause is not None)
        return {labels: float(count) for labels, count in found.items()}

    @property
    def broken(self) -> BaseException | None:
        """What ended a thread that must not end."""
        return self.callers.broken or self.endpoints.broken

    @property
    def limit(self) -> int:
        """Most calls at once now: what the servers take, and what is allowed."""
        return min(self.endpoints.limit, self._most)

    def away_reason(self) -> str | None:
        """Return why nothing can be asked now."""
        return self.endpoints.closed_reason() or self.endpoints.starved_reason()

    def grow(self) -> None:
        """Have as many callers as the limit wants."""
        metrics.LIMIT.set(self.endpoints.limit)
        # One more to watch the clock, one that is on its way back with a reply.
        self.callers.grow_to(self.limit + 2)

    def request_context(self) -> int:
        """Return the context length of requests: that of the model's runs, for a change reloads it."""
        used = [
            one.num_ctx
            for one in self.contexts.all()
            if one.model == self._model and not one.record.state.ended
        ]
        return max([REQUEST_CONTEXT, *used])

    def close(self) -> None:
        """End what has threads and processes."""
        self.tasks.close()
        self.endpoints.close()
        self._studio.close()
