"""One log line per request: who asked what kind of thing, how large, and what became of it; never a text."""

from dataclasses import dataclass
from enum import StrEnum

from prism.service.logs import get_logger
from prism_model_worker.photos.photo import Photo
from prism_model_worker.requests.request import Address, Refusal, Request, Skip

log = get_logger(__name__)


class Outcome(StrEnum):
    """What became of a request."""

    ANSWERED = "answered"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Work:
    """What was done for a request. seconds: from its receipt to its reply; the answer in characters."""

    model: str = ""
    photo: Photo | None = None
    answer: int = 0
    seconds: float = 0.0


def record(subject: Request | Refusal | Skip, place: str, code: str = "", work: Work = Work()) -> None:
    """Write the line of one record, which came from `place` (`topic/partition/offset`).

    code: why it was not answered, for a Request that was not.
    """
    if isinstance(subject, Skip):
        log.info(
            "request", place=place, user=subject.user_email, outcome=Outcome.SKIPPED, code=subject.reason
        )
        return
    code = subject.code if isinstance(subject, Refusal) else code
    log.info(
        "request",
        place=place,
        **_who(subject.address),
        **(_sizes(subject) if isinstance(subject, Request) else {}),
        **_work(work),
        outcome=Outcome.FAILED if code else Outcome.ANSWERED,
        code=code,
    )


def _who(address: Address) -> dict[str, object]:
    return {"user": address.user_email, "request_id": address.request_id, "kind": address.kind}


def _sizes(request: Request) -> dict[str, object]:
    return {
        "prompt_chars": len(request.prompt),
        "system_chars": len(request.system_prompt),
        "history": len(request.history),
        "own_schema": request.schema is not None,
    }


def _work(work: Work) -> dict[str, object]:
    found: dict[str, object] = {"model": work.model, "answer_chars": work.answer, "seconds": work.seconds}
    if work.photo is not None:
        original, sent = work.photo.original, work.photo.sent
        found |= {
            "photo_format": original.format,
            "photo_bytes": original.bytes,
            "photo_pixels": original.width * original.height,
            "sent_bytes": sent.bytes,
        }
    return found
