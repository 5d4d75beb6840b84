"""Runs and workers as tests need them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prism.messages import Heartbeat, OutputFile, Progress, RunRecord, RunState, WorkerState
from prism_cli.board import RunView, WorkerView
from prism_cli.connection import Connection

NOW = datetime(2026, 11, 21, 10, 11, 12, tzinfo=UTC)


def run_view(state: RunState = RunState.RUNNING, rows: int = 10, **fields: Any) -> RunView:
    """Return a run; `fields` of the progress by their names, of the record with `record_` before them."""
    of_record = {name.removeprefix("record_"): value for name, value in fields.items() if "record_" in name}
    of_progress = {name: value for name, value in fields.items() if "record_" not in name}
    source = {"kind": "message", "partition": 0, "offsets": [1]}
    file = {"label": "march", "filename": "march.csv", "source": source, "rows": rows}
    record = RunRecord.model_validate(
        {"run_id": "t1", "epoch": 1, "state": state, "job_name": "feedback", "files": [file], **of_record}
    )
    return RunView(record, Progress.model_validate({"run_id": "t1", **of_progress}))


def worker_view(silent_s: float = 0.5, **fields: Any) -> WorkerView:
    """Return a worker."""
    beat = {"worker_id": "worker-1", "state": WorkerState.RUNNING, "limit": 16, "model": "prism-embedded"}
    return WorkerView(Heartbeat.model_validate({**beat, **fields}), silent_s)


def output_file(path: str = "output/t1_march.csv", **fields: Any) -> OutputFile:
    """Return a published file."""
    known = {"label": "march", "path": path, "rows": 10, "bytes": 99, "sha256": "a" * 64}
    return OutputFile.model_validate({**known, **fields})


def nowhere(data_dir: Path) -> Connection:
    """Return a connection that no test may use."""
    from prism.kafka.clients import KafkaSettings
    from prism.messages import Topics

    return Connection(KafkaSettings("127.0.0.1:1", "test"), Topics(), "the test", data_dir, None)
