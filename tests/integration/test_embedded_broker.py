"""The embedded broker against a real Kafka: start, stop, death, its ports and its folder."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from prism_embedded.broker import BrokerError, EmbeddedBroker
from prism_embedded.broker_files import MESSAGE_MAX_BYTES
from prism_embedded.errors import EmbeddedError
from prism_embedded.kafka_jars import kafka_jars

DEADLINE_S = 60.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    made = EmbeddedBroker(tmp_path / "broker")
    try:
        yield made
    finally:
        made.kill()


def await_true(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        select.select([], [], [], 0.02)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True


def create_topic(bootstrap: str, name: str, partitions: int = 1, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    for future in admin.create_topics([NewTopic(name, partitions, 1, config=config)]).values():
        future.result(DEADLINE_S)


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    failed: list[object] = []
    settings = {"bootstrap.servers": bootstrap, "acks": "all", "message.max.bytes": MESSAGE_MAX_BYTES}
    producer = Producer(settings)
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error) if error else None)
    assert producer.flush(DEADLINE_S) == 0
    assert failed == []


def consume(bootstrap: str, topic: str, count: int, group: str, commit: bool = False) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 1000,
            "fetch.message.max.bytes": MESSAGE_MAX_BYTES,
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    values: list[bytes] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(values) < count and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            values.append(message.value() or b"")
    if commit:
        consumer.commit(asynchronous=False)
    consumer.close()
    return values


def test_start_answers_and_stop_ends_it(broker: EmbeddedBroker) -> None:
    broker.start()
    assert broker.alive()
    assert broker.bootstrap.startswith("127.0.0.1:")
    create_topic(broker.bootstrap, "t")
    pid = broker.pid
    assert pid is not None
    broker.start()  # starting what runs changes nothing
    assert broker.pid == pid
    broker.stop()
    assert not broker.alive()
    assert is_gone(pid)


def test_listens_on_the_loopback_only(broker: EmbeddedBroker) -> None:
    broker.start()
    assert broker.pid is not None
    listening = [c for c in psutil.Process(broker.pid).net_connections("inet") if c.status == "LISTEN"]
    assert len(listening) == 2
    assert {connection.laddr.ip.removeprefix("::ffff:") for connection in listening} == {"127.0.0.1"}


@pytest.mark.chaos
@pytest.mark.promise(4)
def test_acknowledged_data_and_offsets_survive_sigkill(broker: EmbeddedBroker) -> None:
    broker.start()
    address = broker.bootstrap
    create_topic(address, "t")
    produce(address, "t", [b"%d" % number for number in range(1000)])
    assert len(consume(address, "t", 1000, "group", commit=True)) == 1000
    produce(address, "t", [b"after the commit"])
    broker.kill()
    assert not broker.alive()

    broker.start()
    assert broker.bootstrap == address
    assert consume(address, "t", 1, "group") == [b"after the commit"]
    assert len(consume(address, "t", 1001, "another")) == 1001


@pytest.mark.chaos
def test_another_object_goes_on_with_the_same_folder(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as first:
        address = first.bootstrap
        create_topic(address, "t")
        produce(address, "t", [b"kept"])
    with EmbeddedBroker(tmp_path) as second:
        assert second.bootstrap == address
        assert consume(address, "t", 1, "g") == [b"kept"]


def test_two_brokers_side_by_side(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "a") as one, EmbeddedBroker(tmp_path / "b") as other:
        assert one.bootstrap != other.bootstrap
        create_topic(one.bootstrap, "t")
        topics = AdminClient({"bootstrap.servers": other.bootstrap}).list_topics(timeout=10).topics
        assert "t" not in topics


def test_a_later_start_maps_the_classes_that_an_earlier_one_has_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRISM_KAFKA_JARS", str(kafka_jars()[0].parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broker = EmbeddedBroker(tmp_path / "broker")
    with broker:
        await_true(lambda: bool(dumping(tmp_path)), "the archive to be under way")
        makers = dumping(tmp_path)
    await_true(lambda: all(is_gone(one.pid) for one in makers), "what makes it ends with its broker")
    assert not list(tmp_path.rglob("*.jsa"))
    with broker:
        await_true(lambda: bool(list(tmp_path.rglob("*.jsa"))), "the archive")
    (archive,) = tmp_path.rglob("*.jsa")
    with broker:
        assert str(archive) in maps(broker)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 3] + bytes(10_000) + whole[len(whole) // 3 + 10_000 :])
    with broker:
        assert str(archive) not in maps(broker), "one with wrong bytes is no archive"


def maps(broker: EmbeddedBroker) -> str:
    return Path(f"/proc/{broker.pid}/maps").read_text()


def dumping(folder: Path) -> list[psutil.Process]:
    """Return the children that make an archive in a folder."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            words = " ".join(one.cmdline())
            if "-Xshare:dump" in words and str(folder) in words:
                found.append(one)
    return found


def test_a_record_of_16_mib_fits(broker: EmbeddedBroker) -> None:
    broker.start()
    create_topic(broker.bootstrap, "big")
    value = os.urandom(16 * 1024 * 1024)
    produce(broker.bootstrap, "big", [value])
    assert consume(broker.bootstrap, "big", 1, "g") == [value]


def test_delete_records_frees_the_disk(broker: EmbeddedBroker, tmp_path: Path) -> None:
    broker.start()
    create_topic(broker.bootstrap, "t")
    produce(broker.bootstrap, "t", [os.urandom(1024 * 1024) for _ in range(140)])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for future in admin.delete_records([TopicPartition("t", 0, 140)]).values():
        assert future.result(DEADLINE_S).low_watermark == 140
    segments = tmp_path / "broker" / "kafka" / "t-0"
    await_true(
        lambda: sum(f.stat().st_size for f in segments.glob("*.log*")) < 70_000_000, "segments are deleted"
    )


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"^port {port} of 127.0.0.1 is taken .*--port$") as caught:
            EmbeddedBroker(tmp_path, port=port).start()
    assert "\n" not in str(caught.value)


def test_a_folder_in_use_is_refused(broker: EmbeddedBroker, tmp_path: Path) -> None:
    broker.start()
    with pytest.raises(BrokerError, match="in use by another broker"):
        EmbeddedBroker(tmp_path / "broker").start()
    assert broker.alive()


def test_a_jvm_that_cannot_start_says_why(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path, heap_mb=1)
    with pytest.raises(BrokerError, match=r"died at its start.*heap") as caught:
        broker.start()
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "logs") in str(caught.value)
    assert not broker.alive()


OWNER = """
import sys, threading
from pathlib import Path
from prism_embedded.broker import EmbeddedBroker
broker = EmbeddedBroker(Path(sys.argv[1]))
starter = threading.Thread(target=broker.start)  # a thread that ends must not take the broker with it
starter.start(); starter.join()
print(broker.pid, broker.alive(), flush=True)
threading.Event().wait()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_the_broker_dies_with_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, alive = owner.stdout.readline().split()
        assert alive == "True"
        owner.kill()
    await_true(lambda: is_gone(int(pid)), "the broker dies with its parent")
    with EmbeddedBroker(tmp_path) as successor:
        assert successor.alive()


class Command:
    """`prism-embedded-broker` as a process."""

    def __init__(self, data_dir: Path, errors: Path) -> None:
        self.errors = errors
        command = [sys.executable, "-m", "prism_embedded.broker", "--data-dir", str(data_dir)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors.open("w"), text=True)
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline().strip()

    def jvm(self) -> int | None:
        for found in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if found.name() == "java" and found.status() != psutil.STATUS_ZOMBIE:
                    return found.pid
        return None

    def kill_jvm(self) -> None:
        await_true(lambda: self.jvm() is not None, "a JVM")
        pid = self.jvm()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await_true(lambda: is_gone(pid), "the JVM's end")


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    made = Command(tmp_path / "broker", tmp_path / "stderr")
    yield made
    made.process.kill()
    made.process.communicate()


@pytest.mark.chaos
def test_the_command_restarts_a_dead_jvm_and_stops_on_sigterm(command: Command) -> None:
    assert command.ready.startswith("ready 127.0.0.1:")
    address = command.ready.removeprefix("ready ")
    create_topic(address, "t")
    produce(address, "t", [b"one"])
    command.kill_jvm()
    assert consume(address, "t", 1, "g") == [b"one"]
    command.process.send_signal(signal.SIGTERM)
    assert command.process.wait(DEADLINE_S) == 0
    assert command.errors.read_text().count("starting it again") == 1


@pytest.mark.chaos
def test_the_command_gives_up_after_three_deaths(command: Command) -> None:
    for _ in range(3):
        command.kill_jvm()
    assert command.process.wait(DEADLINE_S) == 4
    last = command.errors.read_text().splitlines()[-1]
    assert last.startswith("prism-embedded-broker: the broker ")
    assert last.endswith(", 3 times within 60 s: given up")


def test_the_command_stops_while_it_starts(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    arguments = [sys.executable, "-m", "prism_embedded.broker", "--data-dir", str(folder)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
    await_true((folder / "logs" / "broker.out").exists, "the start has begun")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=DEADLINE_S)[0] == b""
    assert process.returncode == 0
