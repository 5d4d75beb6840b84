"""One line per request, and no text of it."""

from collections.abc import Callable
from typing import Any

import pytest

from prism_model_worker.photos.photo import Photo, PhotoFacts
from prism_model_worker.requests import audit
from prism_model_worker.requests.audit import Work
from tests.unit.worker.requests.samples import EMAIL, PLACE, parsed, photo_body, text_body

PHOTO = Photo("SECRET", PhotoFacts("PNG", 40, 30, 999), PhotoFacts("JPEG", 20, 15, 99))
FULL = photo_body(
    prompt="SECRET",
    photo="SECRET",
    system="SECRET",
    history=["SECRET"],
    schema={"type": "object", "title": "SECRET"},
    timestamp="SECRET",
)
Line = Callable[..., dict[str, Any]]


@pytest.fixture
def line(caplog: pytest.LogCaptureFixture) -> Line:
    """Audit a record and return the values of its one line."""

    def write(subject: Any, *more: Any) -> dict[str, Any]:
        caplog.clear()
        with caplog.at_level("INFO", "prism"):
            audit.record(parsed(subject), PLACE, *more)
        (record,) = caplog.records
        found: dict[str, Any] = record.__dict__["prism_extras"]
        assert record.__dict__["prism_action"] == "request"
        assert "SECRET" not in str(found)
        return found

    return write


def test_an_answered_photo(line: Line) -> None:
    assert line(FULL, "", Work("m", PHOTO, 20, 1.5)) == {
        "place": PLACE,
        "user": EMAIL,
        "request_id": PLACE,
        "kind": "photo",
        "outcome": "answered",
        "code": "",
        "prompt_chars": 6,
        "system_chars": 6,
        "history": 1,
        "own_schema": True,
        "model": "m",
        "answer_chars": 20,
        "seconds": 1.5,
        "photo_format": "PNG",
        "photo_bytes": 999,
        "photo_pixels": 1200,
        "sent_bytes": 99,
    }


def test_a_failure_says_why(line: Line) -> None:
    found = line(text_body(), "model_timeout", Work(seconds=3))
    assert [found[name] for name in ("outcome", "code", "kind", "seconds", "own_schema")] == [
        "failed",
        "model_timeout",
        "text",
        3,
        False,
    ]
    assert "photo_bytes" not in found


def test_a_refusal_says_why(line: Line) -> None:
    found = line(text_body(prompt="SECRET", deadline="SECRET"))
    assert (found["outcome"], found["code"], found["user"]) == ("failed", "bad_deadline", EMAIL)


@pytest.mark.parametrize(
    ("subject", "user", "code"),
    [(b"SECRET", "", "not_json"), (photo_body(prompt="", photo="SECRET"), EMAIL, "photo_without_prompt")],
)
def test_a_skip_says_why(line: Line, subject: Any, user: str, code: str) -> None:
    assert line(subject) == {"place": PLACE, "user": user, "outcome": "skipped", "code": code}
