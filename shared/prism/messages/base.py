"""What every message has in common: JSON, a schema version, and tolerance of unknown fields.

Unknown fields are ignored, so that two versions of a service can run side by side during a roll.
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
            raise BadMessage(f"not a {cls.__name__}: {where}: {first['msg']}") from None
