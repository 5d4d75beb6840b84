"""`prism-model-worker`: answers batches with a model server until it is told to stop."""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from confluent_kafka.admin import AdminClient

from prism.kafka.admin import assert_allowed, committed_offsets, ensure_topics
from prism.kafka.clients import ErrorWatch, KafkaSettings, first_contact
from prism.kafka.errors import BrokerAway, BrokerFatal, TopicAbsent
from prism.messages import Topics
from prism.messages.access import Names, Role, grants
from prism.modelserver import backends
from prism.modelserver.server import ModelServer
from prism.runs.catalogue import ModelEntry
from prism.service import logs, tracing
from prism.service.errors import FatalError
from prism.service.http import HealthServer
from prism.service.lifecycle import StopSignal, run_service
from prism.service.readiness import Readiness
from prism.service.secret_files import SecretEnvironment
from prism.service.settings import load
from prism_model_worker import metrics
from prism_model_worker.callers import MOST_THREADS
from prism_model_worker.endpoints import Connect
from prism_model_worker.patience import Patience
from prism_model_worker.settings import WorkerSettings, request_topics
from prism_model_worker.worker import Worker

BROKER_WAIT_S = 30.0


def serve(stop: StopSignal) -> None:
    """Run one worker."""
    settings = load(WorkerSettings)
    logs.configure(
        settings.log_level, settings.log_format, service="model-worker", instance=settings.worker_id
    )
    tracing.configure("prism-model-worker", settings.worker_id)
    topics = Topics(settings.topic_prefix)
    readiness = Readiness("broker", "model server")
    details = {"topic": settings.request_topic or topics.batches}
    http = HealthServer(
        settings.http_host,
        settings.port,
        status=lambda: {"model": settings.ollama_model, "worker_id": settings.worker_id},
        readiness=readiness,
        registry=metrics.REGISTRY,
        ready_details=lambda: details,
    )
    kafka = KafkaSettings(settings.bootstrap_server, settings.worker_id, settings.kafka_properties())
    try:
        first_contact(kafka, BROKER_WAIT_S, partial(readiness.set, "broker", False))
        if settings.create_topics:
            specs = [*topics.specs(), *request_topics(settings)]
            ensure_topics(kafka.admin(), specs, settings.topic_partitions)
        _assert_allowed(kafka.admin(), settings.names)
        connect = connector(settings, SecretEnvironment(os.environ))
        patience = Patience(partial(_assert_all_allowed, kafka, settings.names))
        Worker(settings, kafka, connect, readiness, details, patience).run(stop)
    except BrokerFatal as error:
        raise FatalError(str(error)) from None
    except TopicAbsent as error:
        raise FatalError(str(error), next="make it: prism admin topics --create") from None
    except BrokerAway as error:
        raise FatalError(str(error), "BOOTSTRAP_SERVER", "start the broker or correct the address") from None
    finally:
        http.close()


def _assert_allowed(admin: AdminClient, names: Names) -> None:
    """Raise what is missing; where the topics of requests are, batches are done all the same."""
    try:
        assert_allowed(admin, grants(Role.MODEL_WORKER, names))
    except TopicAbsent:
        assert_allowed(admin, grants(Role.MODEL_WORKER, replace(names, request_topic="")))


def _assert_all_allowed(kafka: KafkaSettings, names: Names) -> None:
    """Raise what is missing, also of the groups: a member that was refused once hears nothing more of it."""
    _assert_allowed(kafka.admin(), names)
    for group in {names.worker_group, names.request_group if names.request_topic else names.worker_group}:
        asker = kafka.reader(ErrorWatch(), **{"group.id": group})
        try:
            committed_offsets(asker, names.topics.batches, [0])
        finally:
            asker.close()


def connector(settings: WorkerSettings, environ: Mapping[str, str]) -> Connect:
    """Return what makes clients for the servers of a model. Raises FatalError for an address that is none."""
    key = settings.ollama_api_key.get_secret_value() if settings.ollama_api_key else None
    ollama = backends.Endpoint(
        "ollama", "", key, cloud_host=settings.ollama_cloud_host, keep_alive=settings.keep_alive
    )
    defaults = [replace(ollama, address=host) for host in settings.ollama_hosts]

    def connect(entry: ModelEntry) -> list[tuple[str, ModelServer]]:
        made = {}
        for default in defaults:
            for one in backends.endpoints(entry, default, environ):
                made[one.address] = backends.connect(
                    one,
                    pool_size=settings.concurrent_requests or MOST_THREADS,
                    health_timeout_s=settings.health_timeout_s,
                )
        return list(made.items())

    try:
        connect(ModelEntry.model_construct(name=""))
    except ValueError as error:
        raise FatalError(str(error), "OLLAMA_HOST", "correct it") from None
    return connect


def main() -> None:
    """Run the service; the exit status is the process's."""
    sys.exit(run_service("model-worker", serve))


if __name__ == "__main__":
    main()
