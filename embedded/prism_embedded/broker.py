"""A real Apache Kafka (KRaft, one node) as a child process.

Durability: an acknowledged record is in the kernel's page cache, so it survives the death of the JVM,
however it dies; it does not survive a power cut, for which a cluster is the answer. A start after a
SIGKILL recovers the last segments and goes on with the same ports, topics and committed offsets.
The JVM dies with the process that started it (see `child`), so nothing stays running.
"""

import argparse
import contextlib
import fcntl
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from prism_embedded import child
from prism_embedded.broker_files import BrokerFiles, Ports
from prism_embedded.broker_security import BrokerSecurity
from prism_embedded.class_archive import ClassArchive
from prism_embedded.errors import EmbeddedError
from prism_embedded.kafka_jars import find_java, kafka_jars
from prism_embedded.loopback import HOST
from prism_embedded.supervisor import EXIT_FAILED, supervise

# Measured on 2 cores with 600,000 records of 1 kB: start 1.7 s, 198 MB, 170,000 produced a second, 2.6 s of
# the JVM's CPU. With C2 as well: 2.1 s, 236 MB, 132,000, 4.8 s. With C2 and G1: 2.1 s, 318 MB, 155,000, 4.4 s
JVM_FLAGS: tuple[str, ...] = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
)
_FORMAT_TIMEOUT_S = 60.0
_POLL_S = 0.02


class BrokerError(EmbeddedError):
    """The broker cannot start or did not stay up."""


class EmbeddedBroker:
    """One broker of one data folder; use it from one thread at a time.

    :param data_dir: where the broker keeps everything; a second broker on the same folder is refused.
    :param port: the client port; None: the one of the last start, or a free one.
    :param heap_mb: the JVM's heap (`-Xmx`), in MiB.
    :param clock: seconds, monotonic; decides about timeouts.
    :param users: with any, the broker is secured: TLS, these users, and nothing but what ACLs allow. The
        first one may do everything. Fixed at the first start of the data folder.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        heap_mb: int = 512,
        clock: Callable[[], float] = time.monotonic,
        users: Sequence[str] = (),
    ) -> None:
        self._files = BrokerFiles(Path(data_dir).absolute())
        # Certificates and passwords; None: plain text, and everybody may do everything.
        self.security = BrokerSecurity(self._files.folder / "security", users) if users else None
        self._wanted_port = port
        self._heap_mb = heap_mb
        self._clock = clock
        self._ports: Ports | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._archive: ClassArchive | None = None

    @property
    def bootstrap(self) -> str:
        """`127.0.0.1:PORT`, known from the first start on."""
        if self._ports is None:
            raise BrokerError("the broker was never started, so it has no address yet; call start() first")
        return f"{HOST}:{self._ports.client}"

    @property
    def mutual(self) -> str:
        """Where a secured broker listens for clients with certificates, known from the first start on."""
        if self._ports is None or not self._ports.mutual:
            raise BrokerError("the broker takes no certificates; give it users, and call start() first")
        return f"{HOST}:{self._ports.mutual}"

    @property
    def pid(self) -> int | None:
        """The JVM's process id; None before the first start."""
        return self._process.pid if self._process else None

    @property
    def log_path(self) -> Path:
        """Kafka's log file."""
        return self._files.log

    def alive(self) -> bool:
        """Whether the JVM's process runs (it may be stopped or hang all the same)."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = 60.0) -> None:
        """Start and wait until the broker answers a metadata request; nothing to do if it runs.

        The first start on a machine resolves Kafka's jars before, which the timeout does not count.

        :raises EmbeddedError: it cannot start, or does not answer in time; nothing is left running.
        """
        if self.alive():
            return
        program, jars = find_java(), kafka_jars()
        java = [str(program), "-cp", os.pathsep.join(str(jar) for jar in jars)]
        archive = self._archive = self._archive or ClassArchive(program, jars, JVM_FLAGS)
        self._own_folder()
        try:
            wanted = self._ports.client if self._ports else self._wanted_port
            self._ports = self._files.take_ports(wanted, self.security is not None)
            self._secure()
            self._files.write_settings(self._ports, self.security)
            self._format([*java, *archive.flags()])
            self._process = self._spawn([*java, *archive.flags(self._files.classes)])
            self._await_ready(timeout_s)
            archive.make(self._files.classes, self._files.classes_log)
        except OSError as error:
            self.kill()
            raise BrokerError(f"cannot start the Kafka broker in {self._files.folder}: {error}") from error
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout_s: float = 20.0) -> None:
        """Stop in order (SIGTERM), by SIGKILL after `timeout_s` seconds; nothing to do if it is down."""
        if self._process is not None:
            child.stop(self._process, timeout_s)
        self._release()

    def kill(self) -> None:
        """SIGKILL, as if the machine had taken it; returns when the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._release()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until the JVM ends; its exit status, or None after `timeout_s` seconds."""
        if self._process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout_s)
        return None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _own_folder(self) -> None:
        if self._lock is not None:
            return
        try:
            self._files.folder.mkdir(parents=True, exist_ok=True)
            lock = self._files.lock.open("w")
        except OSError as error:
            raise BrokerError(
                f"cannot write the broker's data folder {self._files.folder}: {error.strerror}; "
                "choose another"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise BrokerError(
                f"the data folder {self._files.folder} is in use by another broker; stop it or choose another"
            ) from error
        self._lock = lock

    def _release(self) -> None:
        if self._archive is not None:
            self._archive.leave()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _secure(self) -> None:
        # Users are made by the format: a folder stays what it was then.
        secured = (self._files.folder / "security").exists()
        if not self._files.needs_format() and secured != (self.security is not None):
            state = "secured" if secured else "not secured"
            raise BrokerError(f"the broker of {self._files.folder} is {state}; choose another data folder")
        if self.security is not None:
            self.security.prepare()

    def _format(self, java: Sequence[str]) -> None:
        if not self._files.needs_format():
            return
        flags = ["-Xmx128m", *JVM_FLAGS, self._log4j_option()]
        tool = ["kafka.tools.StorageTool", "format", "-t", self._files.cluster_id()]
        users = self.security.scram_options() if self.security else []
        command = [*java, *flags, *tool, "-c", str(self._files.properties), *users]
        with self._files.out.open("wb") as out:
            process = child.spawn(command, out)
            try:
                status: int | str = process.wait(_FORMAT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.stop(process, 0)
                status = f"timeout of {_FORMAT_TIMEOUT_S:.0f} s"
        if status != 0:
            raise self._failure(f"cannot format its data folder (status {status})")
        self._files.mark_formatted()

    def _spawn(self, java: Sequence[str]) -> "subprocess.Popen[bytes]":
        self._files.rotate_out()
        heap = [f"-Xms{min(self._heap_mb, 64)}m", f"-Xmx{self._heap_mb}m"]
        logs = [
            f"-XX:ErrorFile={self._files.logs}/hs_err_%p.log",
            # Native libraries are unpacked there; a killed broker would leave them in the system's /tmp.
            f"-Djava.io.tmpdir={self._files.logs}",
            self._log4j_option(),
        ]
        command = [*java, *heap, *JVM_FLAGS, *logs, "kafka.Kafka", str(self._files.properties)]
        with self._files.out.open("wb") as out:
            return child.spawn(command, out, folder=self._files.logs)

    def _log4j_option(self) -> str:
        return f"-Dlog4j2.configurationFile={self._files.log4j}"

    def _await_ready(self, timeout_s: float) -> None:
        assert self._ports is not None
        deadline = self._clock() + timeout_s
        while not _listens(self._ports.client):
            self._check_start(deadline, timeout_s)
            time.sleep(_POLL_S)
        known = self.security.client_properties(self.security.users[0]) if self.security else {}
        client = AdminClient(
            {"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.ms": 20, **known}
        )
        while not _answers(client):
            self._check_start(deadline, timeout_s)
            time.sleep(_POLL_S)
        _warm_up(client)

    def _check_start(self, deadline: float, timeout_s: float) -> None:
        if not self.alive():
            status = self._process.returncode if self._process else None
            raise self._failure(f"died at its start (status {status})")
        if self._clock() > deadline:
            raise self._failure(f"did not answer on {self.bootstrap} within {timeout_s:.0f} s")

    def _failure(self, what: str) -> BrokerError:
        return BrokerError(
            f"the Kafka broker {what}: {self._files.cause()}; its logs are in {self._files.logs}"
        )


class _ForPeople(EmbeddedBroker):
    """A broker that leaves each of its users what is needed to come to it."""

    def start(self, timeout_s: float = 60.0) -> None:
        super().start(timeout_s)
        if self.security is not None:
            self.security.write_environments(self.bootstrap, self.mutual)


def main(arguments: Sequence[str] | None = None) -> int:
    """`prism-embedded-broker`: a broker in the foreground, restarted when it dies."""
    parser = argparse.ArgumentParser(
        prog="prism-embedded-broker",
        description="A real Apache Kafka broker (one node, on the loopback). Prints `ready HOST:PORT` on "
        "stdout; starts the broker again when it dies; stops on SIGTERM or Ctrl-C.",
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="where the broker keeps everything")
    parser.add_argument("--port", type=int, help="client port (default: the last one, or a free one)")
    parser.add_argument("--heap-mb", type=int, default=512, help="the JVM's heap in MiB (default: 512)")
    parser.add_argument(
        "--users",
        type=_users,
        default=(),
        metavar="ADMIN[,NAME…]",
        help="secured: TLS, these users, and nothing but what ACLs allow; the first one may do everything. "
        "Each one's settings are written to DATA_DIR/security/NAME.env",
    )
    options = parser.parse_args(arguments)
    broker = _ForPeople(options.data_dir, options.port, options.heap_mb, users=options.users)
    try:
        return supervise(broker, sys.stdout, sys.stderr)
    except EmbeddedError as error:
        sys.stderr.write(f"prism-embedded-broker: {error}\n")
        return EXIT_FAILED


def _users(text: str) -> tuple[str, ...]:
    names = tuple(one.strip() for one in text.split(","))
    if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", one) for one in names):
        raise argparse.ArgumentTypeError(f"{text!r}: names of letters, digits, '.', '_', '-', by commas")
    return tuple(dict.fromkeys(names))


def _warm_up(client: AdminClient) -> None:
    """Have Kafka make `__consumer_offsets` now (0.1 s); at its first use a consumer would wait 3 s for it."""
    for answer in client.describe_consumer_groups(["prism-warm-up"], request_timeout=2).values():
        with contextlib.suppress(KafkaException):  # "not coordinator": it is being made
            answer.result()


def _listens(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((HOST, port)) == 0


def _answers(client: AdminClient) -> bool:
    try:
        return len(client.list_topics(timeout=1.0).brokers) > 0
    except KafkaException:
        return False


if __name__ == "__main__":
    sys.exit(main())
