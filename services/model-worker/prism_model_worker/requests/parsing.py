"""A record becomes a request. Whatever its bytes are, the outcome is typed and nothing is raised.

Two forms are read: the envelope `{"key": …, "value": {…}}`, and the bare value under Kafka's own key. Who
cannot be answered is skipped; who can be is told what is wrong.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prism.annotation.strict_json import NotStrictJson, NumberText, load_strictly
from prism.kafka.records import read_key
from prism.messages import TraceContext
from prism_model_worker.photos.reference import PhotoReference
from prism_model_worker.requests.json_text import compact, is_text
from prism_model_worker.requests.request import (
    DEFAULT_LIMITS,
    Address,
    Refusal,
    RefusalCode,
    Request,
    RequestKind,
    RequestLimits,
    Skip,
    SkipReason,
    Turn,
)
from prism_model_worker.requests.schema import Schema, SchemaRefused, read_schema

# `message` last: the document's client reads it, and only when there is no `prompt`.
PROMPT_FIELDS = ("prompt", "question", "text", "content", "message")
SYSTEM_FIELDS = ("system_prompt", "system")
COPIED_FIELDS = ("timestamp", "date", "image_id")
HEADER_ID = "ce_id"
HEADER_DEADLINE = "deadline"

_ROLES: Mapping[str, Any] = {"user": "user", "human": "user", "assistant": "assistant", "model": "assistant"}
_ID = re.compile(r"[!-~]{1,256}")
_LANGUAGE = re.compile(r"[^\W\d_][\w ()'’-]*")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
# A time in seconds is taken for one in milliseconds of 1970 by whoever does not look.
_FIRST_MS, _LAST_MS = 100_000_000_000, 10_000_000_000_000

Object = Mapping[str, Any]


class _Skipped(Exception):
    def __init__(self, reason: SkipReason, detail: str, user_email: str = "") -> None:
        super().__init__(detail)
        self.skip = Skip(reason, detail, user_email)


class _Refused(Exception):
    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def parse(
    value: bytes | None,
    key: bytes | str | None,
    headers: Mapping[str, str],
    *,
    place: str,
    expected_email: str = "",
    limits: RequestLimits = DEFAULT_LIMITS,
) -> Request | Skip | Refusal:
    """Return what a record asks for.

    headers: as text, names in lower case. place: `topic/partition/offset`, the request's id where it has
    no `ce_id`. expected_email: the only user that is answered; empty for all.
    """
    try:
        document = _document(value)
        body, own_key = _body(document)
        email = _email(body, expected_email, limits)
        address = _address(body, email, own_key, key, headers, place, limits)
    except _Skipped as skipped:
        return skipped.skip
    try:
        _check_copied(body, limits)
        return _request(address, body, headers, limits)
    except _Skipped as skipped:
        return skipped.skip
    except _Refused as refused:
        return Refusal(address, refused.code, refused.message)


def _document(value: bytes | None) -> Object:
    try:
        document = load_strictly((value or b"").decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _Skipped(SkipReason.NOT_JSON, f"byte {error.start} is not UTF-8") from None
    except NotStrictJson as error:
        raise _Skipped(SkipReason.NOT_JSON, str(error)) from None
    if not isinstance(document, dict):
        raise _Skipped(SkipReason.NOT_AN_OBJECT, "the record is JSON, but no object")
    return document


def _body(document: Object) -> tuple[Object, Any]:
    """Return the request itself, and the key of the envelope that it came in."""
    inner = document.get("value")
    if isinstance(inner, dict):
        return inner, document.get("key")
    if "value" in document and "user_email" not in document:
        raise _Skipped(SkipReason.NOT_AN_OBJECT, "`value` is no object")
    return document, None


def _email(body: Object, expected: str, limits: RequestLimits) -> str:
    email = body.get("user_email")
    if not is_text(email) or not email.strip():
        raise _Skipped(SkipReason.NO_USER_EMAIL, "`user_email` is missing, empty or no text")
    if len(email) > limits.user_email:
        raise _Skipped(
            SkipReason.EMAIL_TOO_LONG, f"`user_email` is longer than {limits.user_email} characters"
        )
    if expected and email.strip() != expected.strip():
        raise _Skipped(SkipReason.OTHER_USER_EMAIL, "another user's", email)
    return email


def _address(
    body: Object,
    email: str,
    own_key: Any,
    record_key: bytes | str | None,
    headers: Mapping[str, str],
    place: str,
    limits: RequestLimits,
) -> Address:
    found = read_key(record_key) if record_key is not None else None
    if own_key is not None and not isinstance(own_key, str):
        raise _Skipped(SkipReason.BAD_KEY, "`key` is neither text nor a number", email)
    key = found if own_key is None else own_key
    if max(len(key or ""), len(found or "")) > limits.key:
        raise _Skipped(SkipReason.KEY_TOO_LONG, f"the key is longer than {limits.key} characters", email)
    raw = record_key.encode() if isinstance(record_key, str) else record_key
    given_id = headers.get(HEADER_ID, "")
    return Address(
        user_email=email,
        kind=RequestKind.PHOTO if _has_photo(body) else RequestKind.TEXT,
        key=key,
        record_key=raw if raw is not None or key is None else key.encode(),
        copied={name: body[name] for name in COPIED_FIELDS if _is_short(body.get(name), limits)},
        request_id=given_id if _ID.fullmatch(given_id) else place,
        trace=TraceContext.from_headers(headers),
    )


def _has_photo(body: Object) -> bool:
    return body.get("photo") not in (None, "")


def _is_short(value: Any, limits: RequestLimits) -> bool:
    return value is not None and len(compact(value)) <= limits.copied


def _check_copied(body: Object, limits: RequestLimits) -> None:
    for name in COPIED_FIELDS:
        if body.get(name) is not None and not _is_short(body[name], limits):
            raise _Refused(
                RefusalCode.FIELD_TOO_LONG, f"`{name}` is longer than {limits.copied} characters; shorten it"
            )


def _request(address: Address, body: Object, headers: Mapping[str, str], limits: RequestLimits) -> Request:
    return Request(
        address=address,
        prompt=_prompt(address, body, limits),
        photo=_photo(body, limits),
        system_prompt=_system_prompt(body, limits),
        language=_language(body, limits),
        history=_history(body, limits),
        schema=_schema(body),
        deadline_s=_deadline(body, headers),
    )


def _first_text(body: Object, names: tuple[str, ...]) -> str:
    texts = (body[name] for name in names if is_text(body.get(name)))
    return next((text for text in texts if text.strip()), "")


def _prompt(address: Address, body: Object, limits: RequestLimits) -> str:
    prompt = _first_text(body, PROMPT_FIELDS)
    if not prompt and address.kind is RequestKind.PHOTO:
        raise _Skipped(SkipReason.PHOTO_WITHOUT_PROMPT, "a photo comes with no `prompt`", address.user_email)
    if not prompt:
        raise _Refused(RefusalCode.NO_PROMPT, "there is nothing to answer; send a text as `prompt`")
    if len(prompt) > limits.prompt:
        raise _Refused(
            RefusalCode.PROMPT_TOO_LONG, f"the prompt is longer than {limits.prompt} characters; shorten it"
        )
    return prompt


def _photo(body: Object, limits: RequestLimits) -> str | PhotoReference | None:
    photo = body.get("photo")
    if not _has_photo(body):
        return None
    if is_text(photo):
        return photo
    uri = photo.get("uri") if isinstance(photo, dict) else None
    if not isinstance(photo, dict) or not is_text(uri) or not 0 < len(uri) <= limits.uri:
        raise _Refused(
            RefusalCode.BAD_PHOTO, '`photo` is neither base64 nor {"uri": …, "sha256": …}; send one of them'
        )
    sha256 = photo.get("sha256")
    if sha256 is not None and not (is_text(sha256) and _SHA256.fullmatch(sha256)):
        raise _Refused(RefusalCode.BAD_PHOTO, "`photo.sha256` is no SHA-256; send 64 hexadecimal digits")
    return PhotoReference(uri, None if sha256 is None else sha256.lower())


def _system_prompt(body: Object, limits: RequestLimits) -> str:
    for name in SYSTEM_FIELDS:
        if body.get(name) is not None and not is_text(body[name]):
            raise _Refused(RefusalCode.BAD_SYSTEM_PROMPT, f"`{name}` is no text; send a text or leave it out")
    text = _first_text(body, SYSTEM_FIELDS)
    if len(text) > limits.system_prompt:
        raise _Refused(
            RefusalCode.SYSTEM_PROMPT_TOO_LONG,
            f"the system prompt is longer than {limits.system_prompt} characters; shorten it",
        )
    return text


def _language(body: Object, limits: RequestLimits) -> str:
    given = body.get("respond_in_language")
    if given is None or given == "":
        return ""
    language = given.strip() if is_text(given) else ""
    # It stands among the instructions: a name has no room for one of its own.
    if len(language) > limits.language or not _LANGUAGE.fullmatch(language):
        raise _Refused(
            RefusalCode.BAD_LANGUAGE, '`respond_in_language` is no name of a language; send "German" or "de"'
        )
    return language


def _history(body: Object, limits: RequestLimits) -> tuple[Turn, ...]:
    given = body.get("history")
    if given is None:
        return ()
    if not isinstance(given, list):
        raise _Refused(RefusalCode.BAD_HISTORY, "`history` is no list; send a list of messages")
    if len(given) > limits.history:
        raise _Refused(
            RefusalCode.HISTORY_TOO_LONG, f"`history` has more than {limits.history} messages; send the last"
        )
    turns = [_turn(item) for item in given]
    if sum(len(turn.content) for turn in turns) > limits.history_text:
        raise _Refused(
            RefusalCode.HISTORY_TOO_LONG,
            f"`history` is longer than {limits.history_text} characters; send the last messages",
        )
    return tuple(turn for turn in turns if turn.content.strip())


def _turn(item: Any) -> Turn:
    if is_text(item):
        return Turn("user", item)
    role = item.get("role") if isinstance(item, dict) else None
    if not is_text(role) or role.lower() not in _ROLES or not is_text(item.get("content")):
        raise _Refused(
            RefusalCode.BAD_HISTORY,
            '`history` holds something else than texts and {"role": "user" or "assistant", "content": text}',
        )
    return Turn(_ROLES[role.lower()], item["content"])


def _schema(body: Object) -> Schema | None:
    if body.get("schema") is None:
        return None
    try:
        return read_schema(body["schema"])
    except SchemaRefused as error:
        raise _Refused(RefusalCode.BAD_SCHEMA, f"`schema` cannot be used: {error}") from None


def _deadline(body: Object, headers: Mapping[str, str]) -> float | None:
    given = body.get("deadline")
    given = headers.get(HEADER_DEADLINE) if given is None else given
    if given is None or given == "":
        return None
    moment = _unix_time(given) if isinstance(given, str) else None
    if moment is None:
        raise _Refused(
            RefusalCode.BAD_DEADLINE,
            "`deadline` is no time; send milliseconds since 1970 or a text like 2026-11-21T10:15:00Z",
        )
    return moment


def _unix_time(text: str) -> float | None:
    if isinstance(text, NumberText) or (text.isascii() and text.isdigit()):
        return float(text) / 1000 if _FIRST_MS <= float(text) < _LAST_MS else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
