"""The merger's settings, with unit, default and reason."""

import re
from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator

from prism.service.settings import Schemes, ServiceSettings, port_field, schemes_field

DEFAULT_PORT = 8083


class MergerSettings(ServiceSettings):
    """What a merger needs to know beside what every service does."""

    port: int = port_field(DEFAULT_PORT)
    ordinal: int = Field(
        default=0,
        ge=0,
        validation_alias="PRISM_MERGER_ORDINAL",
        description="Which of the mergers this one is: it owns the results partitions p "
        "with p mod replicas = ordinal.",
        json_schema_extra={"allowed": "0 to PRISM_MERGER_REPLICAS - 1"},
    )
    replicas: int = Field(
        default=1,
        ge=1,
        validation_alias="PRISM_MERGER_REPLICAS",
        description="How many mergers there are. Change it only while none runs.",
        json_schema_extra={"allowed": "1 or more"},
    )
    output_root: Path | None = Field(
        default=None,
        validation_alias="PRISM_OUTPUT_ROOT",
        description="Folder below which the folders lie that jobs name (output, checkpoints, logs, status). "
        "Default: PRISM_DATA_DIR.",
        json_schema_extra={"allowed": "a path"},
    )
    output_schemes: Schemes = schemes_field()
    files_token: SecretStr | None = Field(
        default=None,
        validation_alias="PRISM_FILES_TOKEN",
        description="Bearer token for `/runs/…`, where outputs and run folders can be fetched. Unset: "
        "nothing is served, because whoever reaches the port could read every row.",
        json_schema_extra={"allowed": "16 to 512 printable ASCII characters without spaces"},
    )
    commit_ms: int = Field(
        default=25,
        ge=1,
        le=1000,
        validation_alias="PRISM_MERGER_COMMIT_MS",
        description="Milliseconds that results are gathered for one commit. The ingestor's credit comes "
        "back after it: 25 keeps a fast model busy under the smallest window, and costs 40 fsyncs a second.",
        json_schema_extra={"allowed": "1 to 1000"},
    )
    commit_results: int = Field(
        default=500,
        ge=1,
        le=10_000,
        validation_alias="PRISM_MERGER_COMMIT_RESULTS",
        description="Most results of one commit: bounds the memory that a burst takes.",
        json_schema_extra={"allowed": "1 to 10000"},
    )
    progress_s: float = Field(
        default=1.0,
        gt=0,
        le=60,
        validation_alias="PRISM_MERGER_PROGRESS_SECONDS",
        description="Seconds between progress messages of a run to which nothing happens: a second is what a "
        "person, and an ingestor that has just taken over, can wait.",
        json_schema_extra={"allowed": "above 0, at most 60"},
    )
    delete_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        validation_alias="PRISM_MERGER_DELETE_SECONDS",
        description="Seconds between deletions of results that no unpublished run needs. The broker deletes "
        "by whole segments of 16 MiB, so that more often would not free more.",
        json_schema_extra={"allowed": "above 0, at most 3600"},
    )
    watch_s: float = Field(
        default=2.0,
        gt=0,
        le=60,
        validation_alias="PRISM_MERGER_WATCH_SECONDS",
        description="Seconds between looks at the results topic's id: a topic that was deleted and made "
        "again is noticed within it.",
        json_schema_extra={"allowed": "above 0, at most 60"},
    )
    quiet_s: float = Field(
        default=10.0,
        gt=0,
        le=600,
        validation_alias="PRISM_MERGER_QUIET_SECONDS",
        description="Seconds without a result after which a cancelled or failed run is closed although fed "
        "batches are missing: a model call in flight at the cancel may still end in that time.",
        json_schema_extra={"allowed": "above 0, at most 600"},
    )
    reports: bool = Field(
        default=True,
        validation_alias="PRISM_MERGER_REPORTS",
        description="Whether summary, analytics and report of each run are written. They take a process of "
        "their own for a second, and half a minute for a million rows; false spares a small machine that.",
        json_schema_extra={"allowed": "true or false"},
    )

    @field_validator("files_token")
    @classmethod
    def _fit_for_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and re.fullmatch(r"[!-~]{16,512}", value.get_secret_value()) is None:
            raise ValueError("not fit for a token")
        return value

    @model_validator(mode="after")
    def _owns_something(self) -> "MergerSettings":
        if self.ordinal >= self.replicas:
            raise ValueError(
                f"PRISM_MERGER_ORDINAL={self.ordinal} must be below PRISM_MERGER_REPLICAS={self.replicas}"
            )
        return self

    @property
    def root(self) -> Path:
        """The absolute folder of what is written for people."""
        return (self.output_root or self.data_dir).absolute()

    @property
    def store_dir(self) -> Path:
        """The folder of lock and store: this merger's own volume."""
        return self.data_dir / f"merger-{self.ordinal}"

    @property
    def client_id(self) -> str:
        """The name under which the broker knows this merger."""
        return f"prism-merger-{self.ordinal}"
