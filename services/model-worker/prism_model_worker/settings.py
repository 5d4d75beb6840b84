"""What a model worker can be told, each setting with its unit, default and reason."""

import os
import re
import socket
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from prism.annotation.strict_json import NotStrictJson, load_strictly
from prism.messages import Topics, topics
from prism.messages.access import Names, Resource, Role, grants
from prism.messages.topics import MIB, TopicSpec
from prism.modelserver.cloud import CLOUD_HOST
from prism.modelserver.ollama import base_url
from prism.service.errors import FatalError
from prism.service.settings import ServiceSettings, port_field
from prism_model_worker.photos.photo import PhotoLimits
from prism_model_worker.requests.lane import LaneSettings
from prism_model_worker.requests.reply import ReplyTopics
from prism_model_worker.requests.schema import Schema, read_schema
from prism_model_worker.sharing import MOST_ROWS

# Go's durations; Ollama takes a bare number as seconds, in JSON as a number alone.
_DURATION = re.compile(r"-?[0-9]{1,9}|(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h))+")


def _duration(text: str | int | None) -> str | int | None:
    if text is None or not isinstance(text, str):
        return text
    if not _DURATION.fullmatch(text):
        raise ValueError("must be seconds, a duration such as 10m, or -1")
    return int(text) if text.lstrip("-").isdigit() else text


def _address(text: str) -> str:
    base_url(text)
    return text


def _default_worker_id() -> str:
    # A pod's host name is its name; two workers on one laptop differ by process.
    return f"{socket.gethostname()}-{os.getpid()}"


class WorkerSettings(ServiceSettings):
    """The model worker's settings."""

    port: int = port_field(5000)
    worker_id: str = Field(
        default_factory=_default_worker_id,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        validation_alias="PRISM_WORKER_ID",
        description="Name of this worker in heartbeats and results. Default: host name and process id.",
        json_schema_extra={"allowed": "letters, digits, `.`, `_`, `-`"},
    )
    consumer_group: str = Field(
        default=topics.WORKER_GROUP,
        min_length=1,
        validation_alias="CONSUMER_GROUP",
        description="Kafka group of all workers that share the batches.",
        json_schema_extra={"allowed": "a group name"},
    )
    ollama_host: str = Field(
        default="http://127.0.0.1:11434",
        min_length=1,
        validation_alias="OLLAMA_HOST",
        description="The model server, or several, with commas between them: the one with the most room is "
        "asked. The default is a sidecar's address.",
        json_schema_extra={"allowed": "a URL or host:port, or a list of them"},
    )
    ollama_model: str = Field(
        default="",
        validation_alias="OLLAMA_MODEL",
        description="Model for jobs that name none. Empty: such jobs wait, and `/ready` says so.",
        json_schema_extra={"allowed": "a model's name", "may_be_empty": True},
    )
    ollama_api_key: SecretStr | None = Field(
        default=None,
        validation_alias="OLLAMA_API_KEY",
        description="Bearer key for a model server that wants one.",
        json_schema_extra={"allowed": "a key"},
    )
    ollama_cloud_host: Annotated[str, AfterValidator(_address)] = Field(
        default=CLOUD_HOST,
        validation_alias="OLLAMA_CLOUD_HOST",
        description="Where models named `…-cloud` or `…:cloud` are asked for, with OLLAMA_API_KEY.",
        json_schema_extra={"allowed": "an address"},
    )
    keep_alive: Annotated[str | int | None, BeforeValidator(_duration)] = Field(
        default=None,
        validation_alias="OLLAMA_KEEP_ALIVE",
        description="How long an Ollama keeps the model loaded after a call. Default: as the server likes.",
        json_schema_extra={"allowed": "seconds, a duration such as 10m, or -1 for ever"},
    )
    request_timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        validation_alias="OLLAMA_REQUEST_TIMEOUT",
        description="Seconds a model call may take for its first row; each further row adds a tenth.",
        json_schema_extra={"allowed": "more than 0, at most 86400"},
    )
    health_timeout_s: float = Field(
        default=5.0,
        gt=0,
        le=60,
        validation_alias="OLLAMA_HEALTH_TIMEOUT",
        description="Seconds a question about the model server's health may take.",
        json_schema_extra={"allowed": "more than 0, at most 60"},
    )
    concurrent_requests: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        validation_alias="CONCURRENT_REQUESTS",
        description="Most model calls at once to one server. Unset: as many as the server has use for, "
        "which is found out while it works.",
        json_schema_extra={"allowed": "1 to 1024"},
    )
    revoke_drain_s: float = Field(
        default=5.0,
        ge=0,
        le=60,
        validation_alias="PRISM_REVOKE_DRAIN_SECONDS",
        description="Seconds for running calls when partitions move; longer ones finish late, harmlessly.",
        json_schema_extra={"allowed": "0 to 60"},
    )
    shared_rows: int = Field(
        default=MOST_ROWS,
        ge=0,
        le=10_000_000,
        validation_alias="PRISM_SHARED_ROWS",
        description="Answers that are remembered, so that rows that say the same are asked once. 0: none. "
        "20,000 take some 10 MB.",
        json_schema_extra={"allowed": "0 to 10000000"},
    )

    request_topic: str = Field(
        default=topics.REQUEST_TOPIC,
        validation_alias="LOCAL_MODEL_KAFKA_TOPIC",
        description="Topic of photo and text requests. Empty: this worker answers none.",
        json_schema_extra={"allowed": "a topic's name", "may_be_empty": True},
    )
    group_id: str = Field(
        default="",
        validation_alias="KAFKA_GROUP_ID",
        description="Kafka group of all workers that share the requests. Default: CONSUMER_GROUP where that "
        "is set, else `models-processor-group`.",
        json_schema_extra={"allowed": "a group name", "may_be_empty": True},
    )
    photo_reply_topic: str = Field(
        default=topics.PHOTO_REPLY_TOPIC,
        min_length=1,
        validation_alias="PRISM_PHOTO_REPLY_TOPIC",
        description="Topic of the replies to requests with a photo.",
        json_schema_extra={"allowed": "a topic's name"},
    )
    text_reply_topic: str = Field(
        default=topics.TEXT_REPLY_TOPIC,
        min_length=1,
        validation_alias="PRISM_TEXT_REPLY_TOPIC",
        description="Topic of the replies to requests without a photo.",
        json_schema_extra={"allowed": "a topic's name"},
    )
    expected_user_email: str = Field(
        default="",
        validation_alias="EXPECTED_USER_EMAIL",
        description="The only user whose requests are answered. Empty: all are.",
        json_schema_extra={"allowed": "an e-mail address", "may_be_empty": True},
    )
    request_schema: Path | None = Field(
        default=None,
        validation_alias="PRISM_REQUEST_SCHEMA",
        description="File with the JSON schema of photo answers, where a request brings none. Default: the "
        "analysis of a dish.",
        json_schema_extra={"allowed": "a path"},
    )
    requests_per_minute: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        validation_alias="PRISM_REQUESTS_PER_MINUTE",
        description="Most requests of one user in a minute, per worker; more get an error. 0: no limit.",
        json_schema_extra={"allowed": "0 to 1000000"},
    )
    photo_dir: Path | None = Field(
        default=None,
        validation_alias="PRISM_PHOTO_DIR",
        description="Folder that references to photos must lie in. Default: PRISM_DATA_DIR.",
        json_schema_extra={"allowed": "a path"},
    )
    photo_max_bytes: int = Field(
        default=20_000_000,
        ge=1,
        validation_alias="PRISM_PHOTO_MAX_BYTES",
        description="Bytes that a photo may have as it comes.",
        json_schema_extra={"allowed": "1 or more"},
    )
    photo_max_pixels: int = Field(
        default=50_000_000,
        ge=1,
        validation_alias="PRISM_PHOTO_MAX_PIXELS",
        description="Width × height that a photo's header may claim: more is refused before it is decoded.",
        json_schema_extra={"allowed": "1 or more"},
    )
    photo_side: int = Field(
        default=1344,
        ge=16,
        le=16_384,
        validation_alias="PRISM_PHOTO_SIDE",
        description="Pixels of the longer side that a model is sent. 1344 is what common vision models see.",
        json_schema_extra={"allowed": "16 to 16384"},
    )

    @property
    def ollama_hosts(self) -> list[str]:
        """The servers' addresses."""
        return [host.strip() for host in self.ollama_host.split(",") if host.strip()]

    @property
    def request_group(self) -> str:
        """Kafka group of the request lane."""
        own = self.consumer_group if "consumer_group" in self.model_fields_set else ""
        return self.group_id or own or topics.REQUEST_GROUP

    @property
    def names(self) -> Names:
        """The topics and groups that this worker uses, for its grants."""
        return Names(
            Topics(self.topic_prefix),
            worker_group=self.consumer_group,
            request_group=self.request_group,
            request_topic=self.request_topic,
            photo_reply_topic=self.photo_reply_topic,
            text_reply_topic=self.text_reply_topic,
        )


def lane_settings(settings: WorkerSettings, dead_letter: str, source: str) -> LaneSettings:
    """Return what the request lane has to know. Raises FatalError for a schema that cannot be used."""
    return LaneSettings(
        topic=settings.request_topic,
        group=settings.request_group,
        replies=ReplyTopics(settings.photo_reply_topic, settings.text_reply_topic),
        dead_letter=dead_letter,
        source=source,
        model=settings.ollama_model,
        expected_email=settings.expected_user_email.strip(),
        schema=_schema(settings.request_schema),
        per_minute=settings.requests_per_minute,
        grants=[
            one
            for one in grants(Role.MODEL_WORKER, settings.names)
            if one.resource is Resource.TOPIC and one.name in settings.names.request_topics
        ],
    )


def photo_limits(settings: WorkerSettings) -> PhotoLimits:
    """Return what a photo may cost."""
    return PhotoLimits(
        max_bytes=settings.photo_max_bytes,
        max_pixels=settings.photo_max_pixels,
        longest_side=settings.photo_side,
    )


def request_topics(settings: WorkerSettings) -> list[TopicSpec]:
    """Return the topics of the request lane as they are wanted."""
    if not settings.request_topic:
        return []
    # Base64 takes a third more than the photo, and the request's texts come on top.
    largest = settings.photo_max_bytes * 4 // 3 + MIB
    replies = dict.fromkeys((settings.photo_reply_topic, settings.text_reply_topic))  # it may be one for both
    return [
        TopicSpec(settings.request_topic, None, {"max.message.bytes": str(largest)}),
        *(TopicSpec(name, None, {}) for name in replies),
    ]


def _schema(path: Path | None) -> Schema | None:
    if path is None:
        return None
    try:
        return read_schema(load_strictly(path.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError, NotStrictJson) as error:
        raise FatalError(
            f"the schema cannot be used: {error}", "PRISM_REQUEST_SCHEMA", "correct it"
        ) from None
