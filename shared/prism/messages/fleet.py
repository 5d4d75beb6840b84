"""`prism.workers`, `prism.control`, `prism.outputs` and the headers of `prism.dead-letter`."""

from enum import StrEnum

from pydantic import Field

from prism.messages.base import Message, Part

HEARTBEAT_SECONDS = 1.0
HEARTBEAT_EXPIRY_SECONDS = 6.0

DEAD_REASON = "prism_reason"
DEAD_DETAIL = "prism_detail"
DEAD_TOPIC = "prism_topic"
DEAD_PARTITION = "prism_partition"
DEAD_OFFSET = "prism_offset"


class WorkerState(StrEnum):
    """What a worker is doing."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    DRAINING = "draining"
    STOPPED = "stopped"


class RunShare(Part):
    """What one worker has done of one run since the worker's start; dead workers' shares are lost."""

    rows: int = Field(0, description="0: it has rows of the run in hand, and no result yet")
    failed: int = 0
    calls: int = 0
    tokens: int = 0
    tokens_per_sec: float = Field(0.0, description="tokens of its calls by their seconds")
    started_at: str = ""
    last_error: str | None = Field(None, description="reason of the last row that failed")


class Heartbeat(Message):
    """One worker's status, once a second."""

    worker_id: str
    session: str = Field("", description="made anew at each start of the process")
    state: WorkerState
    reason: str | None = Field(None, description="what a waiting worker waits for")
    model: str = ""
    model_server: str = ""
    limit: int = Field(0, description="most calls at once")
    in_flight: list[str] = Field(default=[], description="batch ids; see batch.batch_id")
    waiting: dict[str, str] = Field({}, description="runs in hand of which something gets no answer, and why")
    out_of_quota: list[str] = Field(
        [],
        description="runs, in hand or not, that wait for a used-up quota and for nothing else; at most 100",
    )
    partitions: list[int] = []
    started_at: str = ""
    updated_at: str = ""
    rows_processed: int = 0
    api_calls: int = 0
    rows_per_sec: float = 0.0
    tokens_per_sec: float = 0.0
    avg_tokens_per_row: float = 0.0
    tokens_total: int = 0
    runs: dict[str, RunShare] = Field({}, description="the runs worked on last, at most 16")
    errors: int = Field(0, description="rows that failed")
    last_error: str | None = Field(None, description="reason of the last row that failed")


class CommandName(StrEnum):
    """What can be asked of a run."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    MERGE = "merge"


class Command(Message):
    """`prism.control`: the key names the run."""

    command: CommandName
    issued_at: str = ""
    issued_by: str = ""


class OutputPublished(Message):
    """`prism.outputs`: a file is complete and under its final name."""

    run_id: str
    label: str
    format: str = "csv"
    uri: str
    path: str
    manifest: str = ""
    rows: int
    rows_ok: int
    rows_failed: int
    bytes: int
    sha256: str
    partial: bool = False
    published_at: str = ""
