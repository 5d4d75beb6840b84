"""What integration tests stand on: topics of their own, services as processes, readers that wait."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

import pytest
from confluent_kafka import Producer

from prism.kafka.admin import ensure_topics
from prism.kafka.clients import KafkaSettings
from prism.kafka.records import Record
from prism.messages import (
    Batch,
    BatchRow,
    FileProgress,
    Heartbeat,
    MergeState,
    MessageSource,
    Progress,
    Result,
    RunFile,
    RunRecord,
    RunState,
    Topics,
    WorkerState,
)
from tests.harness.topics import TopicReaders

T = TypeVar("T")

PARTITIONS = 4
DEADLINE_S = 30.0
MODEL = "prism-embedded"
PROMPT = {
    "system_prompt": "You are a customer feedback analyst.",
    "columns_to_code": ["Sentiment"],
    "validation_rules": {"valid_sentiment": ["Positive", "Negative", "Neutral", "Mixed"]},
}
# For a member that is to be killed: it is missed after a second, not after six. No others: on a busy machine
# one that lives may be silent for so long.
SHORT_SESSION = {"KAFKA_SESSION_TIMEOUT_MS": "1500", "KAFKA_HEARTBEAT_INTERVAL_MS": "300"}


def await_value(ask: Callable[[], T | None], what: str, seconds: float = DEADLINE_S) -> T:
    """Return what `ask` returns once it is neither None nor false."""
    deadline = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


class Service:
    """One service as a process."""

    def __init__(self, module: str, environ: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.port = _free_port()
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PRISM_", "KAFKA_", "OLLAMA_"))
        }
        env = {
            **kept,
            "PRISM_HTTP_HOST": "127.0.0.1",
            "PRISM_LOG_FORMAT": "json",
            **environ,
            "PORT": str(self.port),
        }
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module], env=env, stdout=out, stderr=out, cwd=log.parent
            )

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Return status and body of `/ready`; 0 while nobody serves it."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except (OSError, HTTPException):  # it ends while it answers
            return 0, {}

    def await_ready(self, status: int = 200, seconds: float = DEADLINE_S) -> dict[str, Any]:
        """Wait until `/ready` answers so; the process must live."""

        def asked() -> dict[str, Any] | None:
            assert self.process.poll() is None, f"it died: {self.lines()[-3:]}"
            found, body = self.ready()
            return body if found == status else None

        return await_value(asked, f"/ready {status}: {self.lines()[-3:]}", seconds)

    def lines(self, action: str | None = None) -> list[dict[str, Any]]:
        """Return its log, or the lines of one action."""
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if action in (None, line["action"])]

    def terminate(self, seconds: float = DEADLINE_S) -> int:
        """SIGTERM; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


class Stage:
    """One fleet's topics on a broker, and what is around a service under test."""

    def __init__(self, bootstrap: str, folder: Path, prefix: str) -> None:
        self.bootstrap = bootstrap
        self.folder = folder
        self.topics = Topics(prefix)
        self.group = f"{prefix}workers"
        self.requests, self.photo_replies, self.text_replies = (
            f"{prefix}{name}" for name in ("eater-send-photo", "photo-analysis-response", "gemini-response")
        )
        self.kafka = KafkaSettings(bootstrap, "test", {"log_level": "0"})
        self.admin = self.kafka.admin()
        ensure_topics(self.admin, self.topics.specs(), PARTITIONS)
        self.producer = Producer(
            {"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0, "message.max.bytes": 17_000_000}
        )
        self.jobs = folder / "jobs"
        self.jobs.mkdir(exist_ok=True)
        (self.jobs / "prompt.json").write_text(json.dumps(PROMPT))
        (self.jobs / "default.yaml").write_text("model: {batch_size: 2}\n")
        self._readers = TopicReaders(bootstrap)
        self._services: list[Service] = []

    def close(self) -> None:
        for service in self._services:
            service.kill()
        self._readers.close()

    # Services

    def _environ(self) -> dict[str, str]:
        return {
            "BOOTSTRAP_SERVER": self.bootstrap,
            "PRISM_TOPIC_PREFIX": self.topics.prefix,
            "PRISM_TOPIC_PARTITIONS": str(PARTITIONS),
            "PRISM_DATA_DIR": str(self.folder / "data"),
            "PRISM_JOBS_DIR": str(self.jobs),
            "CONSUMER_GROUP": self.group,
            "PRISM_INGESTOR_GROUP": f"{self.topics.prefix}ingestors",
            "LOCAL_MODEL_KAFKA_TOPIC": self.requests,
            "PRISM_PHOTO_REPLY_TOPIC": self.photo_replies,
            "PRISM_TEXT_REPLY_TOPIC": self.text_replies,
        }

    def service(self, module: str, name: str, **environ: str) -> Service:
        log = self.folder / f"{name}{len(self._services)}.log"
        made = Service(module, self._environ() | environ, log)
        self._services.append(made)
        return made

    def worker(self, model_server: str, ready: bool = True, **environ: str) -> Service:
        made = self.service(
            "prism_model_worker", "worker", OLLAMA_HOST=model_server, OLLAMA_MODEL=MODEL, **environ
        )
        if ready:
            made.await_ready()
        return made

    def ingestor(self, active: bool = True, **environ: str) -> Service:
        made = self.service("prism_ingestor", "ingestor", **environ)
        if active:
            await_value(lambda: made.lines("active"), "the active ingestor")
        return made

    # Records in

    def put(
        self,
        topic: str,
        value: bytes | None,
        key: str | bytes | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        partition: int | None = None,
        flush: bool = True,
    ) -> None:
        place: dict[str, Any] = {} if partition is None else {"partition": partition}
        self.producer.produce(topic, value, key, headers=list((headers or {}).items()), **place)
        if flush:
            assert self.producer.flush(DEADLINE_S) == 0

    def kcat(self, topic: str, value: bytes, *options: str | bytes) -> None:
        """Send a record as a person does, with what no other client here could send."""
        if shutil.which("kcat") is None:
            pytest.skip("kcat is not installed")
        command = ["kcat", "-P", "-b", self.bootstrap, "-t", topic, "-D", "\x04", *options]
        subprocess.run(command, input=value, check=True, timeout=DEADLINE_S)

    def put_run(
        self,
        state: RunState = RunState.RUNNING,
        run_id: str = "r",
        dedupe: bool = False,
        entry: dict[str, Any] | None = None,
        **model: Any,
    ) -> RunRecord:
        file = RunFile(
            label="l",
            source=MessageSource(partition=0, offsets=[0]),
            columns=["RowID", "Message"],
            rows=1000,
            batches=100,
        )
        record = RunRecord(
            run_id=run_id,
            epoch=1,
            state=state,
            # The texts of these tests are all alike, and each is to be asked.
            job={"model": model, "dedupe": str(dedupe)},
            model_entry=entry or {},
            prompt=PROMPT,
            files=[file],
            results_partition=1,
        )
        self.put(self.topics.runs, record.to_bytes(), run_id)
        return record

    def put_batches(
        self, texts: Iterable[Sequence[str]], run_id: str = "r", first: int = 0, partition: int | None = None
    ) -> None:
        for sequence, rows in enumerate(texts, first):
            batch = Batch(
                run_id=run_id,
                label="l",
                sequence=sequence,
                first_row=0,
                rows=[
                    BatchRow(row_id=f"{sequence}-{n}", cells=[f"{sequence}-{n}", text])
                    for n, text in enumerate(rows)
                ],
            )
            place = sequence % PARTITIONS if partition is None else partition
            self.put(self.topics.batches, batch.to_bytes(), batch.id, partition=place, flush=False)
        assert self.producer.flush(DEADLINE_S) == 0

    def put_progress(
        self,
        run_id: str,
        through: int,
        read_to: int = 0,
        state: MergeState = MergeState.MERGING,
        label: str = "l",
        rows: int | None = None,
        failed: int = 0,
    ) -> None:
        progress = Progress(
            run_id=run_id,
            state=state,
            read_to=read_to,
            files={label: FileProgress(merged_through=through)},
            rows_ok=2 * through if rows is None else rows,
            rows_failed=failed,
        )
        self.put(self.topics.progress, progress.to_bytes(), run_id)

    def put_heartbeat(self, limit: int, worker_id: str = "w") -> None:
        beat = Heartbeat(worker_id=worker_id, state=WorkerState.RUNNING, limit=limit)
        self.put(self.topics.workers, beat.to_bytes(), worker_id)

    # Records out

    def seen(self, topic: str) -> list[Record]:
        """Return every record of a topic so far."""
        return self._readers.records(topic)

    def results(self, count: int, seconds: float = DEADLINE_S) -> list[Result]:
        """Wait for so many results and return them."""
        await_value(lambda: len(self.seen(self.topics.results)) >= count, f"{count} results", seconds)
        return [Result.parse(record.value) for record in self.seen(self.topics.results)]

    def batches(self, run_id: str | None = None) -> list[Batch]:
        """Return the batches fed so far, in the order of each partition."""
        found = [Batch.parse(record.value) for record in self.seen(self.topics.batches)]
        return [batch for batch in found if run_id in (None, batch.run_id)]

    def states(self, run_id: str) -> list[RunRecord]:
        """Return the records of a run so far."""
        return [
            RunRecord.parse(record.value) for record in self.seen(self.topics.runs) if record.key == run_id
        ]

    def await_state(self, run_id: str, *states: RunState, seconds: float = DEADLINE_S) -> RunRecord:
        """Wait until the last record of a run shows one of these states."""

        def reached() -> RunRecord | None:
            found = self.states(run_id)
            return found[-1] if found and found[-1].state in states else None

        return await_value(reached, f"{run_id} to be {states}", seconds)

    def dead_letters(self, count: int) -> list[Record]:
        topic = self.topics.dead_letter
        await_value(lambda: len(self.seen(topic)) >= count, f"{count} dead letters")
        return self.seen(topic)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
