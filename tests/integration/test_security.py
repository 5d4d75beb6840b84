"""A broker with TLS, users and ACLs: the fleet works with what `access.py` grants, and nobody may do more."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from prism.kafka import acls
from prism.kafka.admin import ensure_topics, partition_count, topic_ends
from prism.kafka.clients import ErrorWatch, KafkaSettings, first_contact
from prism.kafka.errors import BrokerRefused
from prism.kafka.records import Headers, Record
from prism.kafka.topic_admin import change_settings, topic_states
from prism.messages import OutputPublished, Topics
from prism.messages.access import CLUSTER, Names, Operation, Resource, Role, allowed, grants
from prism.messages.topics import READER_GROUP, TopicSpec
from prism_embedded.broker import EmbeddedBroker
from prism_embedded.broker_security import environment
from tests.harness.model_server import ModelControl
from tests.integration.stage import DEADLINE_S, MODEL, PROMPT, Service, await_value

ROOT = "root"
# What the fleet's names are, by its settings, and those of another fleet of the same people, for the table.
NAMES = Names(
    Topics("s."), worker_group="s-workers", ingestor_group="s-ingestors", request_group="s-requests"
)
OTHER = Names(
    Topics("t."), "t-workers", "t-ingestors", "t-requests", "t-photos", "t-photo-replies", "t-replies"
)  # fmt: skip
NEWER = Path(__file__).parent / "newer_version"
SERVICES = {
    Role.INGESTOR: "prism_ingestor",
    Role.MODEL_WORKER: "prism_model_worker",
    Role.MERGER: "prism_merger",
}


@dataclass(slots=True)
class Secured:
    """A secured broker, and processes with the credentials of one user or another."""

    broker: EmbeddedBroker
    folder: Path
    services: list[Service] = field(default_factory=list)

    def properties(self, user: str) -> dict[str, str]:
        assert self.broker.security is not None
        return self.broker.security.client_properties(user)

    def kafka(self, user: str) -> KafkaSettings:
        return KafkaSettings(
            self.broker.bootstrap, f"test-{user}", {"log_level": "0", **self.properties(user)}
        )

    def environ(self, user: str) -> dict[str, str]:
        """What a service of this user is started with; its password comes as a file."""
        found = environment(self.properties(user))
        secret = self.folder / f"{user}.password"
        secret.write_text(found.pop("KAFKA_SASL_PASSWORD") + "\n")
        return {
            **found,
            "KAFKA_SASL_PASSWORD_FILE": str(secret),
            "BOOTSTRAP_SERVER": self.broker.bootstrap,
            "PRISM_TOPIC_PREFIX": NAMES.topics.prefix,
            "CONSUMER_GROUP": NAMES.worker_group,
            "KAFKA_GROUP_ID": NAMES.request_group,
            "PRISM_INGESTOR_GROUP": NAMES.ingestor_group,
            "PRISM_TOPIC_PARTITIONS": "2",
            "PRISM_CREATE_TOPICS": "false",
            "PRISM_DATA_DIR": str(self.folder / "data"),
            "PRISM_JOBS_DIR": str(self.folder / "jobs"),
            "OLLAMA_MODEL": MODEL,
        }

    def service(self, role: Role, **changes: str) -> Service:
        """Start a service; `changes` go before the settings of its own role."""
        log = self.folder / f"{role}-{len(self.services)}.log"
        made = Service(SERVICES[role], {**self.environ(role), **changes}, log)
        self.services.append(made)
        return made

    def prism(self, user: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `prism` with a user's credentials."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PRISM_", "KAFKA_"))
        }
        return subprocess.run(
            [sys.executable, "-m", "prism_cli", *arguments],
            env={**kept, **self.environ(user)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Users, ACLs and topics as an operator makes them: by `prism admin`."""
    folder = tmp_path_factory.mktemp("secured")
    broker = EmbeddedBroker(folder / "broker", heap_mb=256, users=(ROOT, *Role))
    made = Secured(broker, folder)
    (folder / "jobs").mkdir()
    (folder / "jobs" / "prompt.json").write_text(json.dumps(PROMPT))
    (folder / "jobs" / "default.yaml").write_text("model: {batch_size: 2}\n")
    broker.start()
    try:
        principals = [word for role in Role for word in ("--principal", f"{role}=User:{role}")]
        done = made.prism(ROOT, "admin", "acls", "--apply", "--json", "--host", "*", *principals)
        assert done.returncode == 0, done.stderr
        assert {one["principal"] for one in json.loads(done.stdout)["acls"]} == {
            f"User:{one}" for one in Role
        }
        await_acls(
            made.kafka(ROOT).admin(),
            [one for role in Role for one in acls.bindings(f"User:{role}", grants(role, NAMES))],
        )
        done = made.prism(Role.ADMIN, "admin", "topics", "--create", "--partitions", "2", "--wait", "10")
        assert done.returncode == 0, done.stderr
        yield made
    finally:
        for service in made.services:
            service.kill()
        broker.kill()


@pytest.fixture(scope="module")
def fleet(secured: Secured, model_server: str) -> dict[Role, Service]:
    """Every service with its own credentials; the worker comes with a certificate.

    Ingestor and worker are of a version to come, as in the middle of a roll: all that they send says more
    than the merger knows.
    """
    security = secured.broker.security
    assert security is not None
    certificate = environment(security.certificate_properties(Role.MODEL_WORKER))
    sasl = dict.fromkeys(("KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD_FILE"), "")
    worker = {**sasl, **certificate, "BOOTSTRAP_SERVER": secured.broker.mutual, "OLLAMA_HOST": model_server}
    newer = {"PYTHONPATH": os.pathsep.join([str(NEWER), os.environ.get("PYTHONPATH", "")])}
    started = {
        # What was sent is to be looked at afterwards: nobody deletes it.
        Role.INGESTOR: secured.service(Role.INGESTOR, PRISM_TRIM_SECONDS="3600", **newer),
        Role.MODEL_WORKER: secured.service(Role.MODEL_WORKER, **worker, **newer),
        Role.MERGER: secured.service(
            Role.MERGER, PRISM_MERGER_REPORTS="false", PRISM_MERGER_DELETE_SECONDS="3600"
        ),
    }
    for service in started.values():
        service.await_ready()
    return started


def send(kafka: KafkaSettings, topic: str, value: bytes, key: str, **headers: str) -> None:
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        failures.extend([error] if error is not None else [])

    producer = kafka.producer(ErrorWatch())
    sent: Headers = [(name.replace("_", "-"), text.encode()) for name, text in headers.items()]
    producer.produce(topic, value, key, headers=sent, on_delivery=delivered)
    assert producer.flush(DEADLINE_S) == 0
    assert failures == []


def first_record(kafka: KafkaSettings, topic: str) -> bytes:
    """Return a topic's first record, as a member of a client's group."""
    consumer = kafka.group_consumer("client-1", ErrorWatch())
    consumer.subscribe([topic])
    try:
        message = await_value(lambda: consumer.poll(0.5), f"a record of {topic}")
        assert message.error() is None, message.error()
        value = message.value()
        assert isinstance(value, bytes)
        return value
    finally:
        consumer.close()


def test_a_file_is_annotated_with_nothing_but_what_is_granted(
    secured: Secured, fleet: dict[Role, Service]
) -> None:
    sender = secured.kafka(Role.SENDER)
    csv = "RowID,Message\n" + "".join(f"{n},I love it {n}\n" for n in range(20))
    send(sender, NAMES.topics.intake, csv.encode(), "march", run_id="r1")
    event = OutputPublished.parse(first_record(sender, NAMES.topics.outputs))
    assert (event.run_id, event.rows_ok, event.rows_failed) == ("r1", 20, 0)
    shown = secured.prism(Role.OPERATOR, "status", "r1", "--json")
    assert json.loads(shown.stdout)["state"] == "completed", shown.stderr


def test_two_versions_work_side_by_side(secured: Secured, fleet: dict[Role, Service]) -> None:
    csv = "RowID,Message\n" + "".join(f"{n},I hate it {n}\n" for n in range(20))
    send(secured.kafka(Role.SENDER), NAMES.topics.intake, csv.encode(), "april", run_id="r2")
    topics = NAMES.topics

    def told(topic: str) -> list[dict[str, Any]]:
        return [json.loads(value) for value in records(secured.kafka(ROOT), topic)]

    await_value(lambda: any(one["run_id"] == "r2" for one in told(topics.outputs)), "the output of r2")
    newer = (topics.runs, topics.batches, topics.results, topics.workers)
    for topic in (*newer, topics.progress, topics.outputs):
        versions = {one["schema_version"] for one in told(topic)}
        assert versions == ({2} if topic in newer else {1}), topic
    assert [one.lines("run_not_read") + one.lines("progress_not_read") for one in fleet.values()] == [[]] * 3
    letters = list(records(secured.kafka(ROOT), topics.dead_letter))
    assert letters == []


def records(kafka: KafkaSettings, topic: str) -> Iterator[bytes]:
    """Yield the values of all that is in a topic now."""
    admin = kafka.admin()
    ends = topic_ends(admin, topic, range(partition_count(admin, topic)))
    open_ends = {one: high for one, high in ends.high.items() if high > ends.low[one]}
    consumer = kafka.reader(ErrorWatch(), **{"enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, one, ends.low[one]) for one in open_ends])
    try:
        while open_ends:
            message = consumer.poll(DEADLINE_S)
            assert message is not None, f"{topic} was not read to its end"
            record = Record.of(message)
            if message.error() is not None or record.offset + 1 >= open_ends.get(record.partition, 0):
                open_ends.pop(record.partition, None)
            if message.error() is None and record.value is not None:
                yield record.value
    finally:
        consumer.close()


def test_a_request_is_answered_with_nothing_but_what_is_granted(
    secured: Secured, fleet: dict[Role, Service], model: ModelControl
) -> None:
    requester = secured.kafka(Role.REQUESTER)
    asked = {"key": "k", "value": {"user_email": "a@b.c", "prompt": "How are you?"}}
    send(requester, NAMES.request_topic, json.dumps(asked).encode(), "k")
    worker = fleet[Role.MODEL_WORKER]
    try:
        reply = json.loads(first_record(requester, NAMES.text_reply_topic))
    except AssertionError as error:
        raise AssertionError(f"{error}; the worker: {worker.ready()}, {worker.lines()[-20:]}") from None
    assert reply["key"] == "k"
    assert reply["value"]["response"]


@pytest.mark.promise(5)
def test_a_moment_without_acls_ends_no_worker_and_nothing_is_paid_twice(
    secured: Secured, fleet: dict[Role, Service], model: ModelControl
) -> None:
    """As when somebody removes a principal's ACLs and makes them anew; its group's are kept here."""
    root, worker = secured.kafka(ROOT).admin(), fleet[Role.MODEL_WORKER]
    given = acls.bindings(f"User:{Role.MODEL_WORKER}", grants(Role.MODEL_WORKER, NAMES))
    model.set(latency_ms=500)
    csv = "RowID,Message\n" + "".join(f"{n},It is fine {n}\n" for n in range(60))
    send(secured.kafka(Role.SENDER), NAMES.topics.intake, csv.encode(), "may", run_id="r3")
    await_value(lambda: model.stats()["in_flight"], "calls in hand")
    nothing: Any = None
    of_topics = AclBindingFilter(
        ResourceType.TOPIC, nothing, ResourcePatternType.ANY, f"User:{Role.MODEL_WORKER}", nothing,
        AclOperation.ANY, AclPermissionType.ANY,
    )  # fmt: skip
    assert root.delete_acls([of_topics])[of_topics].result(DEADLINE_S)
    try:
        assert "Write of s.results" in await_value(
            lambda: "Write of" in (told := worker.await_ready(503)["reason"]) and told, "what is missing"
        )
        await_value(lambda: not model.stats()["in_flight"], "answers whose results are refused")
    finally:
        acls.create(root, given)
        model.set(latency_ms=0)
    worker.await_ready()
    outputs = NAMES.topics.outputs

    def published() -> OutputPublished | None:
        events = [OutputPublished.parse(value) for value in records(secured.kafka(ROOT), outputs)]
        return next((one for one in events if one.run_id == "r3"), None)

    event = await_value(published, "the output of r3")
    assert (event.rows_ok, event.rows_failed) == (60, 0)
    assert set(model.stats()["calls_by_rows"].values()) == {1}
    assert sum(model.stats()["calls_by_rows"].values()) == 60
    assert worker.lines("fatal") == worker.lines("crashed") == []
    assert len(worker.lines("refused_for_now")) == len(worker.lines("allowed_again")) >= 1


def test_no_secret_is_told(secured: Secured, fleet: dict[Role, Service]) -> None:
    security = secured.broker.security
    assert security is not None
    secrets = [security.store_password, *(security.password(user) for user in security.users)]
    told = "".join(service.log.read_text() for service in secured.services)
    assert "partitions_assigned" in told, "the logs are there"
    told += "".join(json.dumps(service.ready()) for service in fleet.values())
    told += "".join(metrics(service) for service in fleet.values())
    assert not [one for one in secrets if one in told]


def metrics(service: Service) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def last_words(service: Service) -> dict[str, Any]:
    """Wait for a service's end, which must be one line and exit status 1, and return the line."""
    assert service.process.wait(DEADLINE_S) == 1
    assert "Traceback" not in service.log.read_text()
    (line,) = service.lines("fatal")
    return line


@pytest.mark.promise(10)
@pytest.mark.parametrize(
    ("role", "other", "missing"),
    [
        (Role.INGESTOR, Role.MERGER, "Write of s.runs"),
        (Role.MODEL_WORKER, Role.INGESTOR, "Write of s.results"),
        (Role.MERGER, Role.MODEL_WORKER, "Read, Delete of s.results"),
    ],
)
def test_a_service_with_anothers_credentials_is_refused(
    secured: Secured, tmp_path: Path, role: Role, other: Role, missing: str
) -> None:
    service = secured.service(role, **{**secured.environ(other), "PRISM_DATA_DIR": str(tmp_path)})
    line = last_words(service)
    assert line["what"].startswith("the broker does not allow us ")
    assert missing in line["what"]
    assert line["what"].endswith("grant it: prism admin acls says what is needed")


@pytest.mark.promise(10)
def test_a_wrong_password_and_an_unknown_authority_are_no_outage(secured: Secured, tmp_path: Path) -> None:
    wrong = {"KAFKA_SASL_PASSWORD_FILE": "", "KAFKA_SASL_PASSWORD": "not-the-password"}
    mistaken = secured.service(Role.INGESTOR, **wrong, PRISM_DATA_DIR=str(tmp_path / "a"))
    trusting = secured.service(Role.MERGER, KAFKA_SSL_CA_LOCATION="", PRISM_DATA_DIR=str(tmp_path / "b"))

    def reason() -> str | None:
        told = str(trusting.ready()[1].get("reason", ""))
        return told if "TLS" in told else None

    assert "KAFKA_SSL_CA_LOCATION" in await_value(reason, "/ready to say it")
    assert "KAFKA_SASL_PASSWORD" in last_words(mistaken)["what"]
    assert "not-the-password" not in mistaken.log.read_text()
    assert "KAFKA_SSL_CA_LOCATION" in last_words(trusting)["what"]


def test_without_a_certificate_the_door_for_certificates_is_shut(secured: Secured) -> None:
    assert secured.broker.security is not None
    authority = {"security.protocol": "SSL", "ssl.ca.location": str(secured.broker.security.authority)}
    kafka = KafkaSettings(secured.broker.mutual, "nobody", {"log_level": "0", **authority})
    with pytest.raises(BrokerRefused, match="does not take our certificate"):
        first_contact(kafka, 10.0)


def test_what_only_an_admin_may(secured: Secured) -> None:
    refused = secured.prism(Role.OPERATOR, "admin", "topics", "--create")
    assert refused.returncode == 4
    assert refused.stderr.count("\n") == 1
    assert "the broker does not allow it" in refused.stderr
    refused = secured.prism(
        Role.INGESTOR, "admin", "acls", "--apply", "--bootstrap", secured.broker.bootstrap,
        "--data-dir", str(secured.folder),
    )  # fmt: skip
    assert refused.returncode == 4
    assert "make the ACL of User:ingestor" in refused.stderr


def test_topics_are_compared_and_changed_under_a_fleet(secured: Secured, fleet: dict[Role, Service]) -> None:
    letters = NAMES.topics.dead_letter
    root = secured.kafka(ROOT).admin()
    change_settings(root, letters, {"retention.ms": "1000"})
    await_value(
        lambda: topic_states(root, [letters])[letters].config["retention.ms"] == "1000", "the setting to show"
    )
    shown = secured.prism(Role.ADMIN, "admin", "topics", "--json", "--partitions", "3")
    assert shown.returncode == 3
    differing = {one["name"]: one["differs"] for one in json.loads(shown.stdout)["topics"] if one["differs"]}
    growing = {NAMES.topics.batches, NAMES.topics.results, NAMES.request_topic}
    assert set(differing) == {letters, *growing}
    assert (differing[letters][0]["is"], differing[letters][0]["wanted"]) == ("1000", "2592000000")
    done = secured.prism(
        Role.ADMIN, "admin", "topics", "--apply", "--partitions", "3", "--replication", "1",
        "--bootstrap", secured.broker.bootstrap, "--data-dir", str(secured.folder),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"changed {letters}: retention.ms from 1000 to 2592000000" in done.stderr
    wanted = dict.fromkeys(growing, 3)
    # The controller has answered; the broker knows of it a moment later.
    await_value(
        lambda: {name: one.partitions for name, one in topic_states(root, sorted(growing)).items()} == wanted,
        "three partitions each",
    )
    for service in fleet.values():
        service.await_ready()


# The table: for each (role, resource, operation) the broker allows exactly what `access.py` grants.

FOREIGN = "foreign"
TOPICS = [*(spec.name for spec in OTHER.topics.specs()), *OTHER.request_topics, FOREIGN]
GROUPS = [
    OTHER.worker_group, OTHER.ingestor_group, f"{OTHER.ingestor_group}-intake", OTHER.request_group,
    READER_GROUP, "client-9", FOREIGN,
]  # fmt: skip
KAFKAS = {AclOperation[one.name]: one for one in Operation}


@pytest.fixture(scope="module")
def table(secured: Secured) -> Secured:
    """Another fleet's topics, with a record each, and a topic of nobody's."""
    kafka = secured.kafka(ROOT)
    admin = kafka.admin()
    ensure_topics(admin, [TopicSpec(name, 1, {}) for name in TOPICS], 1)
    wanted = [one for role in Role for one in acls.bindings(f"User:{role}", grants(role, OTHER))]
    acls.create(admin, wanted)
    await_acls(admin, wanted)
    producer = kafka.producer(ErrorWatch())
    for name in TOPICS:
        producer.produce(name, b"x", b"k")
    assert producer.flush(DEADLINE_S) == 0
    return secured


def await_acls(admin: AdminClient, wanted: Iterable[AclBinding]) -> None:
    """Wait until the broker goes by them: the controller answers a moment before."""
    nothing: Any = None  # the stub wants names
    every = AclBindingFilter(
        ResourceType.ANY, nothing, ResourcePatternType.ANY, nothing, nothing, AclOperation.ANY,
        AclPermissionType.ANY,
    )  # fmt: skip
    await_value(lambda: set(admin.describe_acls(every).result(DEADLINE_S)) >= set(wanted), "the ACLs")


@pytest.mark.parametrize("role", Role)
def test_the_broker_says_what_the_table_says(table: Secured, role: Role) -> None:
    admin, given = table.kafka(role).admin(), grants(role, OTHER)
    told = {
        (Resource.TOPIC, name): operations
        for name, operations in topics_told(admin).items()
    }  # fmt: skip
    told |= {(Resource.GROUP, name): operations for name, operations in groups_told(admin).items()}
    cluster = admin.describe_cluster(include_authorized_operations=True).result(DEADLINE_S)
    told[Resource.CLUSTER, CLUSTER] = known(cluster.authorized_operations)
    wanted = {
        (resource, name): {one for one in Operation if allowed(given, resource, name, one)}
        for resource, name in told
    }
    assert told == wanted


def topics_told(admin: AdminClient) -> dict[str, set[Operation]]:
    answers = admin.describe_topics(TopicCollection(TOPICS), include_authorized_operations=True)
    return {
        name: operations(answer, KafkaError.TOPIC_AUTHORIZATION_FAILED) for name, answer in answers.items()
    }


def groups_told(admin: AdminClient) -> dict[str, set[Operation]]:
    answers = admin.describe_consumer_groups(GROUPS, include_authorized_operations=True)
    return {
        name: operations(answer, KafkaError.GROUP_AUTHORIZATION_FAILED) for name, answer in answers.items()
    }


def operations(answer: Any, nothing: int) -> set[Operation]:
    try:
        return known(answer.result(DEADLINE_S).authorized_operations)
    except KafkaException as error:
        return none_allowed(error, nothing)


def none_allowed(error: KafkaException, code: int) -> set[Any]:
    """Return nothing for a refusal; any other error is one."""
    if error.args[0].code() != code:
        raise error
    return set()


def known(told: Any) -> set[Operation]:
    # None: nothing at all.
    return {KAFKAS[AclOperation(one)] for one in told or () if AclOperation(one) in KAFKAS}


@pytest.mark.parametrize("role", Role)
def test_the_broker_does_what_the_table_says(table: Secured, role: Role) -> None:
    kafka, given = table.kafka(role), grants(role, OTHER)

    def may(operation: Operation) -> set[str]:
        return {name for name in TOPICS if allowed(given, Resource.TOPIC, name, operation)}

    assert written(kafka) == may(Operation.WRITE)
    assert read(kafka) == may(Operation.READ)
    assert deleted(kafka) == may(Operation.DELETE)
    groups = {name for name in GROUPS if allowed(given, Resource.GROUP, name, Operation.READ)}
    assert joined(kafka, sorted(may(Operation.READ))) == groups


def written(kafka: KafkaSettings) -> set[str]:
    """Produce to every topic; return those that took it."""
    taken: set[str] = set()
    refused: set[str] = set()

    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED, error
        (taken if error is None else refused).add(str(message.topic()))

    # Who may write nothing at all gets no producer id: that a plain one is refused is to be seen here.
    producer = kafka.producer(ErrorWatch(), **{"enable.idempotence": False})
    for name in TOPICS:
        producer.produce(name, b"x", b"k", on_delivery=delivered)
    assert producer.flush(DEADLINE_S) == 0
    assert taken | refused == set(TOPICS)
    return taken


def read(kafka: KafkaSettings) -> set[str]:
    """Fetch from every topic; return those that gave a record."""
    seen = {name for name, told in topics_told(kafka.admin()).items() if told}
    given: set[str] = set()
    # Of what may not even be seen a client learns no broker to fetch from.
    refused = set(TOPICS) - seen
    consumer = kafka.reader(ErrorWatch())
    consumer.assign([TopicPartition(name, 0, 0) for name in seen])

    def all_told() -> bool:
        for message in consumer.consume(100, 0.2):
            error, topic = message.error(), str(message.topic())
            if error is None:
                given.add(topic)
            elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                refused.add(topic)
            else:
                assert error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED, error
        return given | refused >= set(TOPICS)

    await_value(all_told, "an answer for each topic")
    consumer.close()
    return given


def deleted(kafka: KafkaSettings) -> set[str]:
    """Delete nothing (below offset 0) of every topic; return those that allowed it."""
    admin = kafka.admin()
    seen = [name for name, told in topics_told(admin).items() if told]
    answers = admin.delete_records([TopicPartition(name, 0, 0) for name in seen]) if seen else {}
    found = set()
    for place, answer in answers.items():
        try:
            answer.result(DEADLINE_S)
            found.add(place.topic)
        except KafkaException as error:
            none_allowed(error, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    return found


def joined(kafka: KafkaSettings, topics: list[str]) -> set[str]:
    """Join every group, for a topic that may be read; return the groups that took the member."""
    return {name for name in (GROUPS if topics else []) if joins(kafka, name, topics[0])}


def joins(kafka: KafkaSettings, group: str, topic: str) -> bool:
    consumer = kafka.group_consumer(group, ErrorWatch())
    consumer.subscribe([topic])

    def told() -> KafkaError | bool:
        message = consumer.poll(0.1)
        return (message.error() or True) if message is not None else bool(consumer.assignment())

    try:
        answer = await_value(told, f"an answer for the group {group}")
    finally:
        consumer.close()
    if isinstance(answer, KafkaError):
        none_allowed(KafkaException(answer), KafkaError.GROUP_AUTHORIZATION_FAILED)
    return answer is True
