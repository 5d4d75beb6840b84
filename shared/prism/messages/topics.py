"""The topics: their names and what the broker keeps of them (DESIGN.md section 2)."""

from dataclasses import dataclass

MIB = 1024 * 1024
MINUTE_MS = 60 * 1000
DAY_MS = 24 * 3600 * 1000
# Kafka counts a record's key, headers and framing too: leave room beside the 16 MiB of value.
INTAKE_MAX_BYTES = 16 * MIB
# A row that is refused for its length (8 MiB at most) still travels, to come back as it was.
RESULT_MAX_BYTES = 16 * MIB
FRAMING_BYTES = 64 * 1024

# The defaults of CONSUMER_GROUP, KAFKA_GROUP_ID, LOCAL_MODEL_KAFKA_TOPIC and the two reply topics.
WORKER_GROUP = "prism-model-worker"
REQUEST_GROUP = "models-processor-group"
REQUEST_TOPIC = "eater-send-photo"
PHOTO_REPLY_TOPIC = "photo-analysis-response"
TEXT_REPLY_TOPIC = "gemini-response"
# Of consumers that join no group and never commit: librdkafka wants a group's name of them all the same.
READER_GROUP = "prism-reader"

# By need: no time limit, no size limit; the reader deletes what no unpublished run needs.
_BY_NEED = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
_COMPACT = {"cleanup.policy": "compact"}


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it is wanted: `partitions` None means the fleet's setting."""

    name: str
    partitions: int | None
    config: dict[str, str]


# Settings that an operator may have set higher, or lower, for reasons of his own.
_AT_LEAST = ("max.message.bytes", "retention.ms", "retention.bytes")
_AT_MOST = ("segment.bytes", "segment.ms")


def as_wanted(name: str, value: str | None, wanted: str) -> bool:
    """Return whether a topic's setting does what is wanted: keeps as long, takes as much, frees as soon."""
    if value is None or value == wanted:
        return value is not None
    if name == "cleanup.policy":
        return {one.strip() for one in value.split(",")} == set(wanted.split(","))
    # -1 is without end.
    is_, least = (float("inf") if one == "-1" else float(one) for one in (value, wanted))
    return (name in _AT_LEAST and is_ >= least) or (name in _AT_MOST and is_ <= least)


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of all topics under one prefix."""

    prefix: str = "prism."

    @property
    def intake(self) -> str:
        return self.prefix + "intake"

    @property
    def control(self) -> str:
        return self.prefix + "control"

    @property
    def runs(self) -> str:
        return self.prefix + "runs"

    @property
    def batches(self) -> str:
        return self.prefix + "batches"

    @property
    def results(self) -> str:
        return self.prefix + "results"

    @property
    def progress(self) -> str:
        return self.prefix + "progress"

    @property
    def workers(self) -> str:
        return self.prefix + "workers"

    @property
    def dead_letter(self) -> str:
        return self.prefix + "dead-letter"

    @property
    def outputs(self) -> str:
        return self.prefix + "outputs"

    def specs(self) -> list[TopicSpec]:
        """Return every topic as it is wanted."""
        big = {"max.message.bytes": str(INTAKE_MAX_BYTES + FRAMING_BYTES)}
        rows = {"max.message.bytes": str(RESULT_MAX_BYTES + FRAMING_BYTES)}
        # Small segments: compaction and deletion act on closed segments only. No smaller than a record.
        small = {"segment.bytes": str(32 * MIB), "segment.ms": str(DAY_MS)}
        # Of what is merged nothing is needed again: a segment a minute keeps the disk to the window.
        passing = {"segment.bytes": str(32 * MIB), "segment.ms": str(MINUTE_MS)}
        return [
            TopicSpec(self.intake, 4, {**_BY_NEED, **passing, **big}),
            TopicSpec(self.control, 1, {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS)}),
            TopicSpec(self.runs, 1, {**_COMPACT, **small, **rows}),
            TopicSpec(self.batches, None, {**_BY_NEED, **passing, **rows}),
            TopicSpec(self.results, None, {**_BY_NEED, **small, **rows}),
            TopicSpec(self.progress, 1, {**_COMPACT, **small}),
            TopicSpec(
                self.workers, 1,
                {"cleanup.policy": "compact,delete", "retention.ms": str(DAY_MS), **small},
            ),
            TopicSpec(
                self.dead_letter, 1,
                {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS), **big},
            ),
            TopicSpec(self.outputs, 1, {**_COMPACT, **small}),
        ]  # fmt: skip
