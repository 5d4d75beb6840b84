"""What an ingestor can be told, each setting with its unit, default and reason."""

import os
import socket
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from prism.messages import Topics, intake, topics
from prism.messages.access import Names
from prism.service.settings import Schemes, ServiceSettings, port_field, schemes_field
from prism_ingestor.model_servers import origin_of

GIB = 1024**3


def _as_servers(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.strip().lower() == "any":
        return None
    origins = {one.strip(): origin_of(one) for one in value.split(",") if one.strip()}
    for one, origin in origins.items():
        if not origin.startswith(("http://", "https://")):
            raise ValueError(f"{one!r} is no address of a server")
    return frozenset(origins.values())


# None: any.
Servers = Annotated[frozenset[str] | None, NoDecode, BeforeValidator(_as_servers)]


def _servers_field() -> Any:
    # A text as default: it is validated like one from the environment, and shown as one can type it.
    return Field(
        default="any",
        validation_alias="PRISM_MODEL_SERVERS",
        description="Servers that a sent run may name for its model, by commas. Empty: none but those of the "
        "`models.json` in PRISM_JOBS_DIR, with their keys. Default: any, since whoever may send runs is "
        "trusted with the workers' network.",
        json_schema_extra={"allowed": "any, or http(s)://host[:port] by commas", "may_be_empty": True},
    )


class IngestorSettings(ServiceSettings):
    """The ingestor's settings."""

    port: int = port_field(8081)
    instance: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        validation_alias="PRISM_INGESTOR_ID",
        description="Name of this ingestor in what it writes. Default: host name and process id.",
        json_schema_extra={"allowed": "letters, digits, `.`, `_`, `-`"},
    )
    group: str = Field(
        default=intake.INGESTOR_GROUP,
        min_length=1,
        validation_alias="PRISM_INGESTOR_GROUP",
        description="Kafka group of the ingestors; the owner of its one partition of control is active.",
        json_schema_extra={"allowed": "a group name"},
    )
    worker_group: str = Field(
        default=topics.WORKER_GROUP,
        min_length=1,
        validation_alias="CONSUMER_GROUP",
        description="Kafka group of the model workers: what it committed tells lost batches from slow ones.",
        json_schema_extra={"allowed": "a group name"},
    )
    source_dir: Path | None = Field(
        default=None,
        validation_alias="PRISM_SOURCE_DIR",
        description="Folder that `file://` references must lie in. Default: PRISM_DATA_DIR.",
        json_schema_extra={"allowed": "a path"},
    )
    max_source_bytes: int = Field(
        default=64 * GIB,
        ge=1,
        validation_alias="PRISM_MAX_SOURCE_BYTES",
        description="Bytes that one CSV may have, unpacked. More is refused before it fills the disk.",
        json_schema_extra={"allowed": "1 or more"},
    )
    output_schemes: Schemes = schemes_field()
    model_servers: Servers = _servers_field()
    window_floor: int = Field(
        default=0,
        ge=0,
        validation_alias="PRISM_WINDOW_FLOOR",
        description="Least batches of a run in the broker at once. Raise it where workers are scaled by lag.",
        json_schema_extra={"allowed": "0 or more"},
    )
    chunk_timeout_s: float = Field(
        default=900.0,
        gt=0,
        validation_alias="PRISM_CHUNK_TIMEOUT_SECONDS",
        description="Seconds without the next chunk after which a chunked file is given up.",
        json_schema_extra={"allowed": "more than 0"},
    )
    command_wait_s: float = Field(
        default=600.0,
        ge=0,
        validation_alias="PRISM_COMMAND_WAIT_SECONDS",
        description="Seconds that a command for an unknown run waits for it.",
        json_schema_extra={"allowed": "0 or more"},
    )
    trim_every_s: float = Field(
        default=30.0,
        gt=0,
        validation_alias="PRISM_TRIM_SECONDS",
        description="Seconds between deletions of what no unended run needs.",
        json_schema_extra={"allowed": "more than 0"},
    )

    @property
    def allowed_dir(self) -> Path:
        """The folder that references must lie in."""
        return self.source_dir or self.data_dir

    @property
    def names(self) -> Names:
        """The topics and groups that this ingestor uses, for its grants."""
        return Names(Topics(self.topic_prefix), worker_group=self.worker_group, ingestor_group=self.group)
