"""The spans of results that are merged, and of the commit in which they become durable together."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from prism.kafka.records import Record, sent_trace
from prism.service import tracing


class ResultSpans:
    """One span for each result, in the trace of its batch; it ends with the commit."""

    def __init__(self, records: Sequence[Record] = ()) -> None:
        self._spans: dict[tuple[int, int], tracing.Span] = {}
        self._topic = records[0].topic if records else ""
        for record in records if tracing.is_on() else ():
            about = {"messaging.kafka.message.key": record.key}
            span = tracing.process(record, sent_trace(record.headers), about)
            if span.recording:
                self._spans[record.partition, record.offset] = span

    def refused(self, record: Record, reason: str) -> None:
        """Say why a result is not merged."""
        self._spans.get((record.partition, record.offset), tracing.OFF).fail(reason)

    def committing(self) -> AbstractContextManager[None]:
        """Be around what makes them durable. Its span is in the first one's trace, and linked with all."""
        return self._commit(list(self._spans.values())) if self._spans else nullcontext()

    @contextmanager
    def _commit(self, spans: list[tracing.Span]) -> Iterator[None]:
        about = {"messaging.batch.message_count": len(spans)}
        commit = tracing.commit(self._topic, spans[0], about, spans[1:])
        try:
            with commit:
                yield
        except BaseException as error:
            for one in spans:
                one.fail(type(error).__name__)
            raise
        finally:
            for one in spans:
                if one is not spans[0]:
                    one.link(commit)
                one.end()
