"""`prism-model-worker`: answers batches with a model server until it is told to stop."""

import sys

from prism.kafka.admin import ensure_topics
from prism.kafka.clients import KafkaSettings, first_contact
from prism.kafka.errors import BrokerAway
from prism.messages import Topics
from prism.modelserver.ollama import Ollama
from prism.service import logs
from prism.service.errors import FatalError
from prism.service.http import HealthServer
from prism.service.lifecycle import StopSignal, run_service
from prism.service.readiness import Readiness
from prism.service.settings import load
from prism_model_worker import metrics
from prism_model_worker.settings import WorkerSettings
from prism_model_worker.worker import Worker

BROKER_WAIT_S = 30.0


def serve(stop: StopSignal) -> None:
    """Run one worker."""
    settings = load(WorkerSettings)
    logs.configure(
        settings.log_level, settings.log_format, service="model-worker", instance=settings.worker_id
    )
    topics = Topics(settings.topic_prefix)
    readiness = Readiness("broker", "model server")
    server = Ollama(
        settings.ollama_host,
        pool_size=settings.concurrent_requests + 1,
        health_timeout_s=settings.health_timeout_s,
        api_key=settings.ollama_api_key.get_secret_value() if settings.ollama_api_key else None,
    )
    http = HealthServer(
        settings.http_host,
        settings.port,
        status=lambda: {"model": settings.ollama_model, "worker_id": settings.worker_id},
        readiness=readiness,
        registry=metrics.REGISTRY,
        ready_details=lambda: {"topic": topics.batches},
    )
    kafka = KafkaSettings(settings.bootstrap_server, settings.worker_id, settings.kafka_properties())
    try:
        first_contact(kafka, BROKER_WAIT_S)
        if settings.create_topics:
            ensure_topics(kafka.admin(), topics.specs(), settings.topic_partitions)
        Worker(settings, kafka, server, readiness).run(stop)
    except BrokerAway as error:
        raise FatalError(str(error), "BOOTSTRAP_SERVER", "start the broker or correct the address") from None
    finally:
        http.close()
        server.close()


def main() -> None:
    """Run the service; the exit status is the process's."""
    sys.exit(run_service("model-worker", serve))


if __name__ == "__main__":
    main()
