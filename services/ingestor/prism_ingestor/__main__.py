"""`prism-ingestor`: accepts CSVs and feeds their rows until it is told to stop."""

import sys
from functools import partial

from prism.kafka.admin import assert_allowed, ensure_topics
from prism.kafka.clients import KafkaSettings, first_contact
from prism.kafka.errors import BrokerAway, BrokerFatal, TopicAbsent
from prism.messages import Topics
from prism.messages.access import Role, grants
from prism.service import logs, tracing
from prism.service.errors import FatalError
from prism.service.http import HealthServer
from prism.service.lifecycle import StopSignal, run_service
from prism.service.readiness import Readiness
from prism.service.settings import load
from prism_ingestor import metrics
from prism_ingestor.ingestor import Ingestor
from prism_ingestor.settings import IngestorSettings

BROKER_WAIT_S = 30.0


def serve(stop: StopSignal) -> None:
    """Run one ingestor."""
    settings = load(IngestorSettings)
    logs.configure(settings.log_level, settings.log_format, service="ingestor", instance=settings.instance)
    tracing.configure("prism-ingestor", settings.instance)
    topics = Topics(settings.topic_prefix)
    readiness = Readiness("broker")
    http = HealthServer(
        settings.http_host,
        settings.port,
        status=lambda: {"instance": settings.instance},
        readiness=readiness,
        registry=metrics.REGISTRY,
        ready_details=lambda: {"topic": topics.intake},
    )
    metrics.REGISTRY.show_disk(settings.data_dir)
    kafka = KafkaSettings(settings.bootstrap_server, settings.instance, settings.kafka_properties())
    try:
        first_contact(kafka, BROKER_WAIT_S, partial(readiness.set, "broker", False))
        if settings.create_topics:
            ensure_topics(kafka.admin(), topics.specs(), settings.topic_partitions)
        assert_allowed(kafka.admin(), grants(Role.INGESTOR, settings.names))
        Ingestor(settings, kafka, readiness).run(stop)
    except BrokerFatal as error:
        raise FatalError(str(error)) from None
    except TopicAbsent as error:
        raise FatalError(str(error), next="make it: prism admin topics --create") from None
    except BrokerAway as error:
        raise FatalError(str(error), "BOOTSTRAP_SERVER", "start the broker or correct the address") from None
    finally:
        http.close()


def main() -> None:
    """Run the service; the exit status is the process's."""
    sys.exit(run_service("ingestor", serve))


if __name__ == "__main__":
    main()
