"""What a model worker can be told, each setting with its unit, default and reason."""

import os
import socket

from pydantic import Field, SecretStr

from prism.service.settings import ServiceSettings, port_field
from prism_model_worker.sharing import MOST_ROWS


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
        default="prism-model-worker",
        min_length=1,
        validation_alias="CONSUMER_GROUP",
        description="Kafka group of all workers that share the batches.",
        json_schema_extra={"allowed": "a group name"},
    )
    ollama_host: str = Field(
        default="http://127.0.0.1:11434",
        min_length=1,
        validation_alias="OLLAMA_HOST",
        description="The model server. The default is a sidecar's address.",
        json_schema_extra={"allowed": "a URL or host:port"},
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
    concurrent_requests: int = Field(
        default=16,
        ge=1,
        le=1024,
        validation_alias="CONCURRENT_REQUESTS",
        description="Model calls at once. 16 keeps a small server busy without queueing for minutes.",
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
