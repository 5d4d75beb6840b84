"""An active ingestor on a stage, and what a person does with it: drop a file, look at its run."""

import io
import json
import uuid

import pyarrow as pa
import pyarrow.parquet as pq

from prism.messages import Batch, MergeState, RunRecord, RunState
from tests.integration.stage import Stage, await_value


def csv_of(rows: int, text: str = "text") -> bytes:
    return ("RowID,Message\n" + "".join(f'{n},"{text} {n}, ""quoted"""\n' for n in range(rows))).encode()


def parquet_of(rows: int, text: str = "text") -> bytes:
    found, sink = expected_rows(rows, text), io.BytesIO()
    columns = {"RowID": [int(one) for one, _ in found], "Message": [cell for _, cell in found]}
    pq.write_table(pa.table(columns), sink, row_group_size=37)
    return sink.getvalue()


def rows_of(batches: list[Batch]) -> list[list[str]]:
    return [row.cells for batch in batches for row in batch.rows]


def expected_rows(count: int, text: str = "text") -> list[list[str]]:
    return [[str(n), f'{text} {n}, "quoted"'] for n in range(count)]


class Desk:
    """A stage with one active ingestor that no test may disturb."""

    def __init__(self, stage: Stage, **environ: str) -> None:
        self.stage = stage
        self.ingestor = stage.ingestor(active=True, **environ)

    def drop(self, value: bytes, key: str = "march", run_id: str | None = None, **headers: str) -> str:
        """Send a file as kcat does; return its run id."""
        run_id = run_id or f"r{uuid.uuid4().hex[:8]}"
        named = {name.replace("_", "-"): text for name, text in headers.items()} | {"run-id": run_id}
        self.stage.put(self.stage.topics.intake, value, key, named)
        return run_id

    def running(self, run_id: str) -> RunRecord:
        return self.stage.await_state(run_id, RunState.RUNNING, RunState.MERGING, RunState.REFUSED)

    def refused(self, run_id: str) -> RunRecord:
        found = self.stage.await_state(run_id, RunState.REFUSED, RunState.RUNNING, RunState.FAILED)
        assert found.state is RunState.REFUSED
        return found

    def fed(self, run_id: str, count: int) -> list[Batch]:
        """Wait for so many batches of a run and return them by sequence."""
        await_value(lambda: len(self.stage.batches(run_id)) >= count, f"{count} batches of {run_id}")
        return sorted(self.stage.batches(run_id), key=lambda batch: (batch.sequence, batch.fed))

    def complete(self, run_id: str) -> None:
        self.stage.put_progress(run_id, 10**6, state=MergeState.PUBLISHED, label="march", rows=1)
        self.stage.await_state(run_id, RunState.COMPLETED)


def reference(desk: Desk, name: str, content: bytes | None, **fields: str) -> bytes:
    path = desk.stage.folder / "data" / name
    if content is not None:
        path.write_bytes(content)
    return json.dumps({"uri": path.as_uri()} | fields).encode()


JOBS = {
    "semicolon.yaml": "table: {delimiter: ';'}\n",
    "broken.yaml": "model: {batch_size: many}\n",
    "quote.yaml": "table: {delimiter: '\"'}\n",
    "deep.yaml": "[" * 3000,
    "noprompt.yaml": "prompts: {config_file: nope.json}\n",
    "outside.yaml": "prompts: {config_file: ../../etc/passwd}\n",
    "nul.yaml": 'prompts: {config_file: "a\\0b"}\n',
    "badprompt.yaml": "prompts: {config_file: bad.json}\n",
    "bad.json": "[" * 100_000,
    "three.yaml": "model: {batch_size: 3}\nproject: {name: march, version: v2}\n",
}
