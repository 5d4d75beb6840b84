"""`prism.intake`: a CSV's bytes, one chunk of it, or a reference to it.

The bytes themselves are no JSON: what describes them are the record's headers, named here once.
"""

from pydantic import Field

from prism.messages.base import Message

HEADER_JOB = "job"
HEADER_RUN_ID = "run-id"
HEADER_FILENAME = "filename"
HEADER_ENCODING = "content-encoding"
HEADER_TYPE = "content-type"
HEADER_PRIORITY = "priority"
HEADER_PART = "part"
HEADER_PARTS = "parts"

INGESTOR_GROUP = "prism-ingestor"

REFERENCE_TYPE = "application/json"
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
