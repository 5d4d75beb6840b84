"""A merger as a process, and what is around it: topics, a producer, readers of what it says."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from http.client import HTTPException
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from prism.kafka.admin import ensure_topics
from prism.kafka.records import Record
from prism.messages import Cursor, Heartbeat, MergeState, Progress, Result, RunRecord, Topics, cursor_key
from tests.harness.topics import TopicReaders

DEADLINE_S = 30.0
PARTITIONS = 2


class Fleet:
    """What is around a merger: topics of its own, a producer, and readers of what it says."""

    def __init__(self, bootstrap: str, folder: Path, prefix: str) -> None:
        self.bootstrap = bootstrap
        self.data_dir = folder
        self.topics = Topics(prefix)
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        ensure_topics(self.admin, self.topics.specs(), PARTITIONS)
        self.producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 1})
        self._readers = TopicReaders(bootstrap)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._port = 0

    def merger(self, **extra: str) -> "subprocess.Popen[bytes]":
        self._port = _free_port()
        environ = {
            **{
                name: value for name, value in os.environ.items() if not name.startswith(("PRISM_", "KAFKA_"))
            },
            "BOOTSTRAP_SERVER": self.bootstrap,
            "PRISM_DATA_DIR": str(self.data_dir),
            "PRISM_TOPIC_PREFIX": self.topics.prefix,
            "PRISM_HTTP_HOST": "127.0.0.1",
            "PORT": str(self._port),
            "PRISM_LOG_FORMAT": "json",
            "PRISM_MERGER_WATCH_SECONDS": "0.3",
            "PRISM_MERGER_QUIET_SECONDS": "1",
            "PRISM_MERGER_PROGRESS_SECONDS": "0.3",
            "PRISM_MERGER_DELETE_SECONDS": "0.5",
            # A second of processor time for each run: where they are not tested they are left out.
            "PRISM_MERGER_REPORTS": "false",
            **extra,
        }
        with (self.data_dir / "merger.log").open("ab") as out:
            process = subprocess.Popen([sys.executable, "-m", "prism_merger"], env=environ, stderr=out)
        self._processes.append(process)
        return process

    def ready(self) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/ready", timeout=2) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except (OSError, HTTPException):  # it ends while it answers
            return 0, {}

    def put_run(self, record: RunRecord) -> None:
        self._put(self.topics.runs, record.run_id, record.to_bytes(), 0)

    def put_results(self, results: Iterable[Result | bytes], partition: int = 0) -> None:
        for one in results:
            value = one if isinstance(one, bytes) else one.to_bytes()
            self._put(self.topics.results, "k", value, partition, flush=False)
        assert self.producer.flush(10) == 0

    def _put(self, topic: str, key: str, value: bytes, partition: int, flush: bool = True) -> None:
        self.producer.produce(topic, key=key, value=value, partition=partition)
        if flush:
            assert self.producer.flush(10) == 0

    def put_heartbeat(self, heartbeat: Heartbeat) -> None:
        self._put(self.topics.workers, heartbeat.worker_id, heartbeat.to_bytes(), 0)

    def put_cursor(self, cursor: Cursor) -> None:
        self._put(self.topics.runs, cursor_key(cursor.run_id), cursor.to_bytes(), 0)

    def records(self, topic: str) -> list[Record]:
        """Everything in a topic so far."""
        return self._readers.records(topic)

    def progress(self, run_id: str) -> Progress | None:
        found = [one for one in self.records(self.topics.progress) if one.key == run_id]
        return Progress.parse(found[-1].value) if found else None

    def announcements(self) -> list[Record]:
        return self.records(self.topics.outputs)

    def await_state(self, run_id: str, state: MergeState) -> Progress:
        def there() -> bool:
            found = self.progress(run_id)
            return found is not None and found.state is state

        await_true(there, f"{run_id} {state}", self.log)
        found = self.progress(run_id)
        assert found is not None
        return found

    def output(self, run_id: str, label: str = "march") -> bytes:
        return (self.data_dir / "output" / f"{run_id}_{label}.csv").read_bytes()

    def visible(self) -> dict[str, bytes]:
        return {
            one.name: one.read_bytes()
            for pattern in ("output/*", "output/.*", "checkpoints/*/*", "checkpoints/*/.*")
            for one in self.data_dir.glob(pattern)
        }

    def manifest(self, run_id: str) -> dict[str, Any]:
        text = (self.data_dir / "logs" / run_id / "run_manifest.json").read_text()
        return dict(json.loads(text))

    def workers(self, run_id: str) -> dict[int, tuple[str, str]]:
        """Session and state of each worker, as the status files say."""
        found = [
            json.loads(one.read_bytes()) for one in (self.data_dir / "status" / run_id).glob("worker_*.json")
        ]
        return {one["worker_id"]: (one["session"], one["state"]) for one in found}

    def log(self) -> str:
        return (self.data_dir / "merger.log").read_text()[-3000:]

    def close(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        self._readers.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_true(condition: Callable[[], bool], what: str, log: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}\n{log()}"
        time.sleep(0.01)
