"""What every message has in common: JSON, a schema version, and tolerance of unknown fields.

Two versions of a service run side by side during a roll, and after one that was taken back. So a message
changes by additions only: unknown fields are ignored, new ones have a default, and what was released keeps
its meaning. `schema_version` rises with an addition that a reader may want to know of; no reader refuses a
higher one, for what it would bury or wait for is somebody's rows. What cannot be said by an addition gets a
topic of its own. (`tests/unit/messages/test_schema_versions.py` holds today's messages against each release.)
"""

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

SCHEMA_VERSION = 1


class BadMessage(Exception):
    """A record's value is not the message its topic carries. Dead-letter it and go on."""


class Part(BaseModel):
    """A piece of a message: immutable, tolerant of fields it does not know."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Message(Part):
    """The value of one record."""

    schema_version: int = SCHEMA_VERSION

    def to_bytes(self) -> bytes:
        """Return the JSON that travels."""
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def parse(cls, value: bytes | None) -> Self:
        """Return the message in a record's value. Raise BadMessage when it is none."""
        if value is None:
            raise BadMessage(f"no value where a {cls.__name__} was expected")
        try:
            return cls.model_validate_json(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(step) for step in first["loc"]) or "the value"
            raise BadMessage(f"not a {cls.__name__}: {where}: {first['msg']}{_newer(value)}") from None


class _Version(Part):
    schema_version: int = 0


def _newer(value: bytes) -> str:
    """Return a hint where a message that cannot be read is of a newer version."""
    try:
        version = _Version.model_validate_json(value).schema_version
    except ValidationError:
        return ""
    if version <= SCHEMA_VERSION:
        return ""
    return f" (schema_version {version}, this service knows {SCHEMA_VERSION}: update it)"
