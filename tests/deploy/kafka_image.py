"""What the image apache/kafka does with its environment, on this machine's Java: its own start-up class makes
the settings and formats the folder, then the broker runs on them.

Not as in the container: the addresses (`kafka`, every interface) are the loopback, the ports free ones, and
the folder of the data one of the test's.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from prism_embedded import child
from prism_embedded.broker import JVM_FLAGS
from prism_embedded.kafka_jars import find_java, kafka_jars
from prism_embedded.loopback import HOST, free_port
from tests.harness.process import await_true

_SETUP = "kafka.docker.KafkaDockerWrapper"
START_S = 60.0


class KafkaImage:
    """One broker, made of a container's environment; for one thread."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._folder = folder
        ports = {port: str(free_port()) for port in ("9092", "9093", "19092")}
        self.environment = {name: _here(value, ports) for name, value in environment.items()}
        self.environment["KAFKA_LOG_DIRS"] = str(folder / "data")
        # What the containers say, and what this machine's programs say.
        self.inside = f"{HOST}:{ports['9092']}"
        self.outside = f"{HOST}:{ports['19092']}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Set up and start as the image does; return when it answers at both addresses."""
        folders = {name: self._folder / name for name in ("default", "mounted", "final")}
        for one in folders.values():
            one.mkdir(parents=True)
        java = [str(find_java()), "-cp", os.pathsep.join(map(str, kafka_jars()))]
        options = [word for name, path in folders.items() for word in (f"--{name}-configs-dir", str(path))]
        environment = {**self.environment, "PATH": os.environ["PATH"]}
        made = subprocess.run(
            [*java, "-Xmx128m", *JVM_FLAGS, _SETUP, "setup", *options], env=environment, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        heap = self.environment["KAFKA_HEAP_OPTS"].split()
        command = [*java, *heap, *JVM_FLAGS, "kafka.Kafka", str(folders["final"] / "server.properties")]
        with (self._folder / "kafka.log").open("wb") as log:
            self._process = child.spawn(command, log, environment, self._folder)
        for address in (self.inside, self.outside):
            client = AdminClient({"bootstrap.servers": address, "log_level": 0, "reconnect.backoff.ms": 50})
            await_true(lambda: _answers(client), START_S, self._complaint)  # noqa: B023

    def _complaint(self) -> str:
        return f"the broker does not answer: {(self._folder / 'kafka.log').read_text()[-1500:]}"

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _here(value: str, ports: Mapping[str, str]) -> str:
    for name in ("kafka", "localhost"):
        value = value.replace(f"//{name}:", f"//{HOST}:").replace(f"@{name}:", f"@{HOST}:")
    value = value.replace("://:", f"://{HOST}:")
    for port, free in ports.items():
        value = value.replace(f"{HOST}:{port}", f"{HOST}:{free}")
    return value


def _answers(client: AdminClient) -> bool:
    try:
        return len(client.list_topics(timeout=1.0).brokers) > 0
    except KafkaException:
        return False
