"""`prism.intake`: a CSV's bytes, one chunk of it, or a reference to it.

The bytes themselves are no JSON: what describes them are the record's headers, named here once.
"""

from typing import Any, Literal

from pydantic import Field

from prism.messages.base import Message, Part

HEADER_JOB = "job"
HEADER_RUN_ID = "run-id"
HEADER_FILENAME = "filename"
HEADER_ENCODING = "content-encoding"
HEADER_TYPE = "content-type"
HEADER_PRIORITY = "priority"
HEADER_PART = "part"
HEADER_PARTS = "parts"
HEADER_FILE = "file"

MAX_FILES = 1000
INGESTOR_GROUP = "prism-ingestor"

REFERENCE_TYPE = "application/json"
REQUEST_TYPE = "application/vnd.prism.run+json"
DEFAULT_JOB = "default"
DEFAULT_PRIORITY = 5
MAX_PRIORITY = 9


def reading_group(ingestors: str) -> str:
    """Return the Kafka group under which a group of ingestors commits how far it has taken intake up."""
    return f"{ingestors}-intake"


class Reference(Message):
    """Where a CSV lies, for one that does not travel in the topic itself."""

    uri: str = Field(max_length=4096, description="file:///… inside an allowed folder")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="refused when the bytes differ")


class RequestedFile(Part):
    """One file of a requested run. Without a `uri` its bytes come in the topic, under the same `run-id`
    and with the header `file`: its number in the request, from 1."""

    label: str = Field(min_length=1, max_length=255)
    filename: str = Field("", max_length=255)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    uri: str | None = Field(None, max_length=4096, description="file:///… inside an allowed folder")
    encoding: Literal["gzip"] | None = Field(None, description="of what lies at the uri")
    ranges: list[tuple[int, int]] = Field([], max_length=100_000, description="rows taken, from 1; none: all")


class RunRequest(Message):
    """A run with all that it needs but its files' bytes: for a job that is not in the ingestor's folder.

    Sent with the content type `application/vnd.prism.run+json` and the header `run-id`.
    """

    job_name: str = Field("", max_length=255)
    job: dict[str, Any]
    prompt: dict[str, Any]
    model_entry: dict[str, Any] = {}
    model_entries: dict[str, dict[str, Any]] = Field({}, description="of several models, by name")
    files: list[RequestedFile] = Field(min_length=1, max_length=MAX_FILES)
    parent: str = Field("", description="the run whose failed rows these are")
