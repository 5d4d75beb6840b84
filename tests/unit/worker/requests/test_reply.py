"""Replies keep the original service's shape, and reach whoever asked."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.annotation import BadReply
from prism_model_worker.requests.answer import MAX_ANSWER_BYTES, sanitise, schema_of
from prism_model_worker.requests.parsing import parse
from prism_model_worker.requests.reply import Reply, ReplyDesk, ReplyTopics
from prism_model_worker.requests.request import Refusal, Request
from tests.unit.worker.requests.samples import EMAIL, PLACE, parsed, photo_body, request, text_body

DESK = ReplyDesk("prism-model-worker/w1", ReplyTopics())
ANSWER = '{"dish_name":"Pizza","estimated_avg_calories":285}'
TIMINGS = {"model": 1.23456, "wait": 0.0}


def value_of(reply: Reply) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(reply.value)
    return found


def headers_of(reply: Reply) -> dict[str, str]:
    return {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in reply.headers}


def test_the_documents_photo_reply() -> None:
    reply = DESK.answer(request(photo_body(), b"unique-request-id").address, ANSWER, "llava", TIMINGS)
    assert (reply.topic, reply.key) == ("photo-analysis-response", b"unique-request-id")
    assert reply.value.decode() == (
        '{"key":"unique-request-id","value":{"user_email":"user@example.com",'
        '"analysis":"{\\"dish_name\\":\\"Pizza\\",\\"estimated_avg_calories\\":285}"}}'
    )


def test_the_documents_text_reply() -> None:
    reply = DESK.answer(request(text_body()).address, "Generated é", "llama3", TIMINGS)
    assert reply.topic == "gemini-response"
    assert reply.value.decode() == (
        '{"key":"k1","value":{"user_email":"user@example.com","response":"Generated é","model":"llama3"}}'
    )


def test_what_the_request_carried_comes_back() -> None:
    given_fields = '"timestamp": 1700000000.10, "date": "2026-11-21", "image_id": {"n": [1e3]}, "other": 1'
    body = f'{{"user_email": "{EMAIL}", "prompt": "p", "photo": "QUJD", {given_fields}}}'.encode()
    found = parsed(body)
    assert isinstance(found, Request)
    text = DESK.answer(found.address, ANSWER, "m", {}).value.decode()
    assert text.endswith(',"timestamp":1700000000.10,"date":"2026-11-21","image_id":{"n":[1e3]}}}')
    text = DESK.error(found.address, "c", "m").value.decode()
    assert text.endswith(',"timestamp":1700000000.10,"date":"2026-11-21","image_id":{"n":[1e3]}}}')


@pytest.mark.parametrize(("body", "topic"), [(photo_body, "photo-out"), (text_body, "text-out")])
def test_an_error_goes_to_the_topic_of_its_kind(body: Any, topic: str) -> None:
    desk = ReplyDesk("s", ReplyTopics("photo-out", "text-out"))
    found = parsed(body(deadline="soon"))
    assert isinstance(found, Refusal)
    reply = desk.error(found.address, found.code, found.message)
    assert reply.topic == topic
    assert value_of(reply) == {
        "key": "k1",
        "value": {"user_email": EMAIL, "error": {"code": "bad_deadline", "message": found.message}},
    }


@pytest.mark.promise(5)
def test_the_same_request_has_the_same_reply_id() -> None:
    def ids(**headers: str) -> list[str]:
        address = request(text_body(), headers=headers).address
        return [
            headers_of(DESK.answer(address, "a", "m", {}))["ce_id"],
            headers_of(DESK.error(address, "c", "m"))["ce_id"],
        ]

    assert ids() == [f"{PLACE}/reply"] * 2
    assert ids(ce_id="abc") == ["abc/reply"] * 2


def test_what_is_prisms_own_stands_in_headers() -> None:
    headers = headers_of(DESK.answer(request(text_body()).address, "a", "m:é", TIMINGS))
    assert headers.pop("traceparent").startswith("00-")
    assert headers == {
        "ce_specversion": "1.0",
        "ce_id": f"{PLACE}/reply",
        "ce_source": "prism-model-worker/w1",
        "ce_type": "io.prism.reply",
        "content-type": "application/json",
        "prism_model": "m:é",
        "prism_timings": '{"model":1.235,"wait":0.0}',
    }


def test_the_trace_goes_on() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    address = request(text_body(), headers={"traceparent": trace, "tracestate": "vendor=1"}).address
    headers = headers_of(DESK.error(address, "c", "m"))
    # Nothing is traced here: a span of ours that nobody ever sees would tear the sender's trace apart.
    assert (headers["traceparent"], headers["tracestate"]) == (trace, "vendor=1")


def test_a_request_without_a_key_has_a_reply_without() -> None:
    reply = DESK.answer(request(text_body(), None).address, "a", "m", {})
    assert reply.key is None
    assert value_of(reply)["key"] is None


def test_the_longest_answer_of_the_longest_request_is_a_record_that_every_broker_takes() -> None:
    body = photo_body(
        user_email="\U0001f600" * 254,
        timestamp="\U0001f600" * 998,
        date="\x01" * 150,
        image_id=["\U0001f600" * 990],
        schema={"type": "array"},
    )
    found = request(body, b"\xf0\x9f\x98\x80" * 1000, {"ce_id": "i" * 256})
    answer = sanitise(json.dumps(['"' * ((MAX_ANSWER_BYTES - 20) // 4)]), schema_of(found))
    reply = DESK.answer(found.address, answer, "m" * 200, TIMINGS)
    headers = sum(len(name) + len(value or b"") for name, value in reply.headers)
    assert MAX_ANSWER_BYTES < len(reply.value) + len(reply.key or b"") + headers < 900_000


HOSTILE = [
    '{"user_email": "evil@example.com"}',
    '"}, "user_email": "evil@example.com", "x": {"y": "',
    '{"key": "other", "value": {"user_email": "evil@example.com", "analysis": "{}"}}',
    '", "user_email": "evil@example.com',
]
EMAILS = st.text(min_size=1, max_size=30).filter(lambda text: text.strip() and text.isprintable())


@pytest.mark.promise(8)
@given(email=EMAILS, answer=st.text(max_size=60) | st.sampled_from(HOSTILE), photo=st.booleans())
def test_no_answer_changes_whom_it_reaches(email: str, answer: str, photo: bool) -> None:
    body = (photo_body if photo else text_body)(
        user_email=email, schema={"type": "object"} if photo else None
    )
    found = parse(json.dumps(body).encode(), b"k1", {}, place=PLACE)
    assert isinstance(found, Request)
    try:
        text = sanitise(answer, schema_of(found))
    except BadReply as bad:
        reply = DESK.error(found.address, bad.reason, answer)
    else:
        reply = DESK.answer(found.address, text, answer, {})
    document = value_of(reply)
    assert document.keys() == {"key", "value"}
    assert (document["key"], document["value"]["user_email"], reply.key) == ("k1", email, b"k1")
    assert document["value"].keys() <= {"user_email", "analysis", "response", "model", "error"}
    named = document["value"].get("analysis", document["value"].get("response", ""))
    assert isinstance(named, str)
