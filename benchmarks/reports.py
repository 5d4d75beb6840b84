"""How long summary, analytics and report of a finished run take, and how much memory, at two sizes."""

import os
import random
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figure import Figure
from prism.messages import MessageSource, RunFile, RunRecord, RunState
from prism.tables import render_line
from prism_merger.accounts import Outcome, RunAccount, Stage
from prism_merger.places import Places
from prism_merger.plans import RunPlan
from prism_merger.rendering import FailedRow, RenderedBatch
from prism_merger.reporting import facts_of
from prism_merger.store import Store
from prism_merger.timeline import Moment

BATCH = 10
_TEXT = "the delivery was late and nobody answered my call about this invoice again please help"
_WORDS = _TEXT.split(" ")
_TOPICS = ("Billing", "Shipping", "Product", "Support", "Account", "Other")
_SENTIMENTS = ("Positive", "Negative", "Neutral", "Mixed")
_COLUMNS = ["RowID", "Message", "Title", "Country"]
_PROMPT = {
    "system_prompt": "Say what it is about.",
    "columns_to_code": ["Topic", "Sentiment", "Urgency", "Key_Point"],
    "validation_rules": {
        "valid_topic": list(_TOPICS), "valid_sentiment": list(_SENTIMENTS), "valid_urgency": ["High", "Low"],
    },
}  # fmt: skip


def reports(small: int = 100_000, large: int = 1_000_000) -> list[Figure]:
    """Seconds and highest resident memory of the process that writes them."""
    (less_s, less), (more_s, more) = _measured(small), _measured(large)
    return [
        Figure("reports", f"seconds at {small} rows", less_s, "s"),
        Figure("reports", f"seconds at {large} rows", more_s, "s", "≤ 30", more_s <= 30),
        Figure("reports", f"memory at {small} rows", less, "MiB"),
        Figure("reports", f"memory at {large} rows", more, "MiB", "≤ 400", more <= 400),
        Figure("reports", "memory, larger ÷ smaller", more / less, "", "≤ 1.25", more <= 1.25 * less),
    ]


def _measured(rows: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        facts = write_run(Path(folder), rows)
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "prism_merger.reports", str(facts)])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"the reports of {rows} rows failed")
        return time.monotonic() - began, usage.ru_maxrss / 1024


def write_run(folder: Path, rows: int, failing: float = 0.03) -> Path:
    """Make a store with a finished run's rows; return the path of its facts."""
    record = RunRecord(
        run_id=f"feedback_v1_m1_20261121_{rows}", epoch=1, state=RunState.COMPLETED_WITH_FAILURES,
        job={"project": {"name": "feedback"}, "model": {"name": "llama3.2", "batch_size": BATCH}},
        prompt=_PROMPT, created_at="2026-11-21T10:00:00Z",
        files=[RunFile(label="march", filename="march.csv", source=MessageSource(partition=0, offsets=[0]),
                       columns=_COLUMNS, rows=rows, batches=-(-rows // BATCH))],
    )  # fmt: skip
    plan, places = RunPlan.of(record), Places(folder)
    store = Store(folder / "merger-0")
    with store.transaction():
        run = store.add_run(record.run_id, ["march"], plan.to_json(), Stage.MERGING)
        for sequence, batch in enumerate(_batches(record.run_id, rows, failing)):
            store.add_batch(run.files["march"].file_id, sequence, batch)
            _count(run, batch)
        run.stage, run.outcome = Stage.TOLD, Outcome.PUBLISHED
        run.calls, run.prompt_tokens, run.completion_tokens = rows // BATCH, 61 * rows, 19 * rows
        run.models, run.model_seconds = ["llama3.2"], rows / 40
        run.first_result_at, run.merged_at = "2026-11-21T10:00:05Z", "2026-11-21T10:41:17Z"
        run.published_at = "2026-11-21T10:41:19Z"
        for step in range(100):
            share = step / 99
            tokens = int(80 * rows * share)
            run.timeline.note(
                Moment(2472 * share**0.9, int(rows * share), int(failing * rows * share), tokens)
            )
        store.save_run(run)
    facts = facts_of(run, plan, places, record.state, store)
    store.close()
    path = folder / "facts.json"
    path.write_text(facts.model_dump_json())
    return path


def _count(run: RunAccount, batch: RenderedBatch) -> None:
    file = run.files["march"]
    file.ok, file.failed = file.ok + batch.ok, file.failed + len(batch.failed)
    run.failed_by_reason.update(batch.reasons())


def _batches(run_id: str, rows: int, failing: float) -> Iterator[RenderedBatch]:
    chance = random.Random(7)
    for first in range(0, rows, BATCH):
        lines, failed = [], []
        for number in range(first, min(rows, first + BATCH)):
            message = " ".join(chance.choices(_WORDS, k=chance.randrange(5, 40)))
            cells = [str(number + 1), message, "A title", "DE"]
            # Failures come in clusters, as a model server's trouble does.
            bad = chance.random() < failing * (8 if number * 20 // rows == 13 else 0.6)
            if bad:
                reason = chance.choice(("schema_violation", "not_json", "schema_violation"))
                failed.append(FailedRow(number, cells[0], reason, '"Topic" is missing'))
            answers = ["", "", "", ""] if bad else _answers(chance, message)
            ours = ["llama3.2", str(BATCH), run_id, failed[-1].reason if bad else ""]
            lines.append(render_line([*cells, *answers, *ours]).encode())
        lengths = array("I", map(len, lines)).tobytes()
        yield RenderedBatch(first, b"".join(lines), lengths, tuple(failed), len(lines) - len(failed))


def _answers(chance: random.Random, message: str) -> list[str]:
    topic = chance.choices((*_TOPICS, "Returns", "Opening hours"), (30, 24, 18, 12, 8, 4, 3, 1))[0]
    weights = (1, 6, 2, 1) if topic in ("Billing", "Shipping") else (5, 2, 3, 1)
    sentiment = chance.choices(_SENTIMENTS, weights)[0]
    return [topic, sentiment, "High" if sentiment == "Negative" else "Low", message[:60]]
