"""Bodies of Ollama's API: what is read, what is cut, what is answered."""

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from prism_embedded.ollama_api import (
    BadRequest,
    Call,
    Outcome,
    body_of,
    read_chat,
    read_generate,
    read_openai,
    stream_of,
    tokens,
    within_limit,
)
from prism_embedded.photos import NotAPhoto, photo_facts


def chat(content: str = "hello", **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "s" * 40}, {"role": "user", "content": content}]
    return {"model": "m", "messages": messages, **more}


def test_chat_is_read_as_ollama_reads_it() -> None:
    call = read_chat(chat(format={"type": "object"}, options={"num_ctx": 100, "num_predict": 5}))
    assert call.stream, "Ollama streams unless told otherwise"
    assert call.prompts == ("hello",)
    assert (call.num_ctx, call.num_predict, call.format) == (100, 5, {"type": "object"})
    assert call.prompt_tokens == tokens(45)


def test_openai_is_read_as_openai_reads_it() -> None:
    schema = {"type": "object"}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    call = read_openai(chat(response_format=form, max_tokens=7))
    assert not call.stream
    assert (call.format, call.num_predict) == (schema, 7)
    parts = [{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "data:;base64,AA"}}]
    call = read_openai({"model": "m", "messages": [{"role": "user", "content": parts}]})
    assert (call.prompts, call.images) == (("t",), ("data:;base64,AA",))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": 3},
        {"model": "m", "messages": "x"},
        {"model": "m", "messages": [{"role": "user", "content": 3}]},
        chat(format="yaml"),
        chat(options={"num_ctx": "x"}),
        {"model": "m", "messages": [{"role": "user", "content": "", "images": [1]}]},
    ],
)
def test_what_is_no_call_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        read_chat(body)


def test_a_prompt_over_num_ctx_loses_its_beginning() -> None:
    call = read_chat(chat("a" * 400 + "end!", options={"num_ctx": 61}))
    assert call.prompt_tokens == 111
    assert call.cut_to_context().prompts == ("a" * 200 + "end!",)
    assert json.loads(body_of(call, Outcome("x")))["prompt_eval_count"] == 61
    fitting = read_chat(chat("short"))
    assert fitting.cut_to_context() is fitting


@pytest.mark.parametrize("read", [read_chat, read_openai])
def test_a_prompt_may_be_said_to_fill_the_context(read: Callable[[dict[str, Any]], Call]) -> None:
    call = read(chat("short"))
    whole, cut = (json.loads(body_of(call, Outcome("x", shortened=one))) for one in (False, True))
    if read is read_chat:
        assert whole["prompt_eval_count"] < call.num_ctx == cut["prompt_eval_count"]
    else:
        assert whole["usage"]["prompt_tokens"] < call.num_ctx == cut["usage"]["prompt_tokens"]


def test_num_predict_cuts_the_answer() -> None:
    call = read_chat(chat(options={"num_predict": 2}))
    assert within_limit(call, Outcome("12345678")) == Outcome("12345678")
    assert within_limit(call, Outcome("123456789")) == Outcome("12345678", "length")


def test_no_more_tokens_are_counted_than_were_allowed() -> None:
    call = read_chat(chat(options={"num_predict": 50}))
    counts = [json.loads(body_of(call, Outcome("[" * length)))["eval_count"] for length in (40, 4000)]
    assert counts == [10, 50]


def test_a_stream_adds_up_to_the_answer() -> None:
    text = "word " * 30
    lines = [json.loads(line) for line in stream_of(read_chat(chat()), Outcome(text))]
    assert "".join(line["message"]["content"] for line in lines) == text
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["eval_count"] == tokens(len(text))
    call = read_generate({"model": "m", "prompt": "p"})
    assert "".join(json.loads(line)["response"] for line in stream_of(call, Outcome(text))) == text
    events = list(stream_of(read_openai(chat()), Outcome(text)))
    assert events[-1] == b"data: [DONE]\n\n"
    deltas = [json.loads(event[6:])["choices"][0] for event in events[:-1]]
    assert "".join(delta["delta"].get("content", "") for delta in deltas) == text
    assert deltas[-1]["finish_reason"] == "stop"


def encoded(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def test_facts_of_a_photo() -> None:
    facts = photo_facts(encoded(Image.new("RGB", (30, 20), (200, 30, 30)), "PNG"))
    assert (facts.format, facts.width, facts.height, facts.colour) == ("PNG", 30, 20, "red")
    assert facts == photo_facts(
        "data:image/png;base64," + encoded(Image.new("RGB", (30, 20), (200, 30, 30)), "PNG")
    )


@pytest.mark.parametrize("bad", ["", "%%%", base64.b64encode(b"not an image").decode()])
def test_what_is_no_photo_is_refused(bad: str) -> None:
    with pytest.raises(NotAPhoto):
        photo_facts(bad)


def test_a_photo_that_claims_too_much_is_refused() -> None:
    with pytest.raises(NotAPhoto, match="claims 8000 × 7000"):
        photo_facts(encoded(Image.new("1", (8000, 7000)), "PNG"))
