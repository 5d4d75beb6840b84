"""A request as it was understood, and the two ways in which a record is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from prism.messages import TraceContext
from prism_model_worker.photos.reference import PhotoReference
from prism_model_worker.requests.schema import Schema


class RequestKind(StrEnum):
    """What was asked, and with it the topic of the reply."""

    PHOTO = "photo"
    TEXT = "text"


class SkipReason(StrEnum):
    """Why a record gets no reply: there is nobody to answer, or nothing to answer that was ours."""

    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    NO_USER_EMAIL = "no_user_email"
    EMAIL_TOO_LONG = "email_too_long"
    OTHER_USER_EMAIL = "other_user_email"
    BAD_KEY = "bad_key"
    KEY_TOO_LONG = "key_too_long"
    PHOTO_WITHOUT_PROMPT = "photo_without_prompt"


class RefusalCode(StrEnum):
    """Why a request is answered with an error."""

    NO_PROMPT = "no_prompt"
    PROMPT_TOO_LONG = "prompt_too_long"
    BAD_PHOTO = "bad_photo"
    BAD_SYSTEM_PROMPT = "bad_system_prompt"
    SYSTEM_PROMPT_TOO_LONG = "system_prompt_too_long"
    BAD_LANGUAGE = "bad_language"
    BAD_HISTORY = "bad_history"
    HISTORY_TOO_LONG = "history_too_long"
    BAD_SCHEMA = "bad_schema"
    BAD_DEADLINE = "bad_deadline"
    FIELD_TOO_LONG = "field_too_long"
    # Not what is in it: its sender sends too many.
    RATE_LIMITED = "rate_limited"


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The most that a request may hold, in characters; `history` in messages.

    What a model can take is less, and is known only where it is asked; these keep one request from costing
    the others their memory. An email address has 254 characters at most (RFC 5321, erratum 1690).
    """

    user_email: int = 254
    key: int = 1_000
    prompt: int = 100_000
    system_prompt: int = 20_000
    language: int = 60
    history: int = 100
    history_text: int = 200_000
    copied: int = 1_000
    uri: int = 4_096


DEFAULT_LIMITS = RequestLimits()


@dataclass(frozen=True, slots=True)
class Address:
    """To whom the answer goes, and what it carries back. Made of the request alone, never of an answer.

    key: the request's, as the JSON of its reply repeats it; None where it has none.
    record_key: the key of the reply's record.
    copied: `timestamp`, `date` and `image_id`, as far as they were given.
    request_id: the request's `ce_id`, or its place in its topic: the same whenever it is read again.
    trace: what the request belongs to; None without a valid one.
    """

    user_email: str
    kind: RequestKind
    key: str | None
    record_key: bytes | None
    copied: Mapping[str, Any]
    request_id: str
    trace: TraceContext | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier message of the conversation."""

    role: Literal["user", "assistant"]
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. Texts are as they came, unchecked for what they say; `photo` is base64 or a reference.

    deadline_s: Unix time in seconds after which nobody waits for the answer; None for no such time.
    """

    address: Address
    prompt: str = field(repr=False)
    photo: str | PhotoReference | None = field(default=None, repr=False)
    system_prompt: str = field(default="", repr=False)
    language: str = ""
    history: tuple[Turn, ...] = ()
    schema: Schema | None = field(default=None, repr=False)
    deadline_s: float | None = None

    def is_late(self, now_s: float) -> bool:
        """Whether the deadline has passed at `now_s`, a Unix time in seconds."""
        return self.deadline_s is not None and now_s >= self.deadline_s


@dataclass(frozen=True, slots=True)
class Skip:
    """To be committed without a reply; it goes to the dead letters."""

    reason: SkipReason
    detail: str
    user_email: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """To be answered with an error. `message` is for the sender, and repeats none of the request's texts."""

    address: Address
    code: RefusalCode
    message: str
