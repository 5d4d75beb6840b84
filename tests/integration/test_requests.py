"""Photo and text requests through a real broker: what each is answered, and that none is lost."""

import base64
import io
import json
import struct
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from prism.kafka.admin import ensure_topics
from prism.kafka.records import Record
from prism.messages.topics import TopicSpec
from tests.harness.model_server import ModelControl
from tests.integration.stage import SHORT_SESSION, Service, Stage, await_value

WHO = "user@example.com"


def photo(size: tuple[int, int] = (320, 240), form: str = "JPEG") -> str:
    """Return a photo as base64."""
    out = io.BytesIO()
    Image.new("RGB", size, (200, 60, 30)).save(out, form)
    return base64.b64encode(out.getvalue()).decode()


class Line:
    """The topics of a worker that no test may disturb: each sees what has come since it began."""

    def __init__(self, stage: Stage, worker: Service) -> None:
        self.stage = stage
        self.worker = worker
        self.requests, self.photo_replies = stage.requests, stage.photo_replies
        self.text_replies, self.folder, self.put = stage.text_replies, stage.folder, stage.put
        topics = (self.photo_replies, self.text_replies, stage.topics.dead_letter)
        self._before = {topic: len(stage.seen(topic)) for topic in topics}
        self._logged = len(worker.lines())

    def seen(self, topic: str) -> list[Record]:
        return self.stage.seen(topic)[self._before[topic] :]

    def dead_letters(self, count: int) -> list[Record]:
        topic = self.stage.topics.dead_letter
        await_value(lambda: len(self.seen(topic)) >= count, f"{count} dead letters")
        return self.seen(topic)

    def lines(self, action: str) -> list[dict[str, Any]]:
        return [line for line in self.worker.lines()[self._logged :] if line["action"] == action]


@pytest.fixture(scope="module")
def quiet_worker(
    shared_broker: str, model_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stage, Service]]:
    stage = Stage(shared_broker, tmp_path_factory.mktemp("line"), f"l{uuid.uuid4().hex[:8]}.")
    try:
        worker = stage.worker(model_server)
        yield stage, worker
        assert worker.process.poll() is None, worker.lines()[-5:]
    finally:
        stage.close()


@pytest.fixture
def line(quiet_worker: tuple[Stage, Service], model: ModelControl) -> Line:
    assert model is not None, "well, whatever the last test did to it"
    return Line(*quiet_worker)


def ask(stage: Stage | Line, key: str = "k1", envelope: bool = True, **value: Any) -> None:
    body = {"user_email": WHO, **value}
    document = {"key": key, "value": body} if envelope else body
    stage.put(stage.requests, json.dumps(document).encode(), None if envelope else key)


def replies(stage: Stage | Line, topic: str, count: int) -> list[Record]:
    await_value(lambda: len(stage.seen(topic)) >= count, f"{count} replies in {topic}")
    return stage.seen(topic)


def reply(stage: Stage | Line, topic: str) -> dict[str, Any]:
    (record,) = replies(stage, topic, 1)
    found: dict[str, Any] = json.loads(record.value or b"")
    return found


def test_a_photo_is_analysed(line: Line) -> None:
    ask(line, prompt="What is it?", photo=photo(), timestamp=1732190000, image_id="i-7")
    found = reply(line, line.photo_replies)
    assert found["key"] == "k1"
    assert set(found["value"]) == {"user_email", "analysis", "timestamp", "image_id"}
    assert (found["value"]["user_email"], found["value"]["timestamp"]) == (WHO, 1732190000)
    analysis = json.loads(found["value"]["analysis"])
    assert set(analysis) == {
        "dish_name", "estimated_avg_calories", "ingredients", "total_avg_weight", "contains",
    }  # fmt: skip
    (record,) = line.seen(line.photo_replies)
    assert record.headers["prism_model"] == "prism-embedded"
    assert set(json.loads(record.headers["prism_timings"])) == {"total", "model"}


def test_a_text_is_answered_under_kafkas_own_key(line: Line) -> None:
    ask(line, "other", envelope=False, question="How are you?")
    found = reply(line, line.text_replies)
    assert set(found["value"]) == {"user_email", "response", "model"}
    assert (found["key"], found["value"]["model"]) == ("other", "prism-embedded")
    assert found["value"]["response"]


@pytest.mark.promise(8)
def test_an_answer_cannot_change_its_addressee(line: Line) -> None:
    schema = {
        "type": "object",
        "properties": {"user_email": {"type": "string"}, "key": {"type": "string"}},
        "required": ["user_email", "key"],
        "additionalProperties": False,
    }
    ask(line, prompt="Who am I?", photo=photo(), schema=schema)
    found = reply(line, line.photo_replies)
    assert (found["key"], found["value"]["user_email"]) == ("k1", WHO)
    assert "user_email" in json.loads(found["value"]["analysis"])


def bomb() -> str:
    """Return a PNG of 50,000 × 50,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    made = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    return base64.b64encode(made + chunk(b"IEND", b"")).decode()


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"prompt": "What?", "photo": "not base64 at all!"}, "bad_base64"),
        ({"prompt": "What?", "photo": base64.b64encode(b"<html>no photo</html>").decode()}, "not_an_image"),
        ({"prompt": "What?", "photo": photo()[:400]}, "truncated"),
        ({"prompt": "What?", "photo": bomb()}, "too_many_pixels"),
        ({"prompt": "What?", "photo": {"uri": "file:///etc/passwd"}}, "outside_folder"),
        ({"prompt": "What?", "photo": photo(), "schema": {"type": "string"}}, "bad_schema"),
        ({"prompt": "What?", "photo": photo(), "deadline": 1_000_000_000_000}, "deadline_exceeded"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_cannot_be_answered_gets_an_error_and_a_dead_letter(
    line: Line, value: dict[str, Any], code: str
) -> None:
    ask(line, **value)
    found = reply(line, line.photo_replies)
    assert (found["key"], found["value"]["user_email"]) == ("k1", WHO)
    assert found["value"]["error"]["code"] == code
    assert str(line.folder) not in json.dumps(found)
    (letter,) = line.dead_letters(1)
    assert letter.headers["prism_detail"] == code


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"no json", "not_json"),
        (b"[1, 2]", "not_an_object"),
        (b'{"key": "k", "value": "text"}', "not_an_object"),
        (b'{"key": "k", "value": null}', "not_an_object"),
        (b'{"value": {"prompt": "who asks?"}}', "no_user_email"),
        (b'{"user_email": "user@example.com", "photo": "aGk="}', "photo_without_prompt"),
        (b"\xff\xfe", "not_json"),
        (b"[" * 100_000, "not_json"),
    ],
)
def test_what_nobody_can_be_answered_for_is_skipped(line: Line, value: bytes, why: str) -> None:
    line.put(line.requests, value, b"\xff\xfe" if why == "not_json" else "k")
    ask(line, "after", prompt="And this one?")
    assert reply(line, line.text_replies)["key"] == "after"
    (letter,) = line.dead_letters(1)
    assert (letter.headers["prism_reason"], letter.headers["prism_detail"]) == ("request_skipped", why)
    assert line.seen(line.photo_replies) == []


def test_another_users_request_is_left_alone(stage: Stage, model: ModelControl) -> None:
    stage.worker(model.url, EXPECTED_USER_EMAIL=WHO)
    stage.put(stage.requests, b'{"user_email": "someone@else.org", "prompt": "Hello?"}', "a")
    ask(stage, "mine", prompt="Hello?")
    assert reply(stage, stage.text_replies)["key"] == "mine"
    (letter,) = stage.dead_letters(1)
    assert letter.headers["prism_detail"] == "other_user_email"
    assert len(stage.seen(stage.text_replies)) == 1


def test_requests_go_before_batches(stage: Stage, model: ModelControl) -> None:
    model.set(latency_ms=200)
    stage.worker(model.url, CONCURRENT_REQUESTS="1")
    stage.put_run()
    stage.put_batches([["I love it"]] * 40, partition=0)
    stage.results(2)
    ask(stage, prompt="And me?")
    (answered,) = replies(stage, stage.text_replies, 1)
    before = [one for one in stage.seen(stage.topics.results) if one.timestamp_ms < answered.timestamp_ms]
    assert len(before) < 20


@pytest.mark.promise(5)
def test_a_kill_loses_no_reply_and_repeats_it_under_the_same_id(stage: Stage, model: ModelControl) -> None:
    model.set(latency_ms=100)
    short: dict[str, str] = {"PRISM_WORKER_ID": "one", "CONCURRENT_REQUESTS": "4", **SHORT_SESSION}
    victim = stage.worker(model.url, ready=True, **short)
    for number in range(60):
        ask(stage, f"k{number}", prompt=f"Question {number}?")
    replies(stage, stage.text_replies, 10)
    victim.kill()
    stage.worker(model.url, PRISM_WORKER_ID="two", CONCURRENT_REQUESTS="16")

    def ids() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for record in stage.seen(stage.text_replies):
            found.setdefault(json.loads(record.value or b"")["key"], set()).add(record.headers["ce_id"])
        return found

    await_value(lambda: len(ids()) == 60, "a reply to each")
    assert set(map(len, ids().values())) == {1}
    assert Counter(map(len, ids().values())) == {1: 60}


@pytest.mark.promise(9)
def test_an_outage_is_waited_for(stage: Stage, model: ModelControl) -> None:
    worker = stage.worker(model.url)
    model.set(down=True)
    worker.await_ready(503, seconds=15)
    ask(stage, prompt="Is anybody there?")
    # Its deadline passes while nobody is.
    late = time.time() + 1
    ask(stage, "late", prompt="Quickly?", deadline=int(late * 1000))
    await_value(lambda: time.time() > late, "the deadline to pass")
    model.set(down=False)
    worker.await_ready()
    answers = [json.loads(one.value or b"") for one in replies(stage, stage.text_replies, 2)]
    codes = {one["key"]: one["value"].get("error", {}).get("code") for one in answers}
    assert codes == {"k1": None, "late": "deadline_exceeded"}


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("http_400", "refused"),
        ("http_403", "model_error"),
        ("http_500", "model_error"),
        ("http_502", "model_error"),
        ("reset", "model_error"),
        ("html", "model_error"),
        ("shortened", "prompt_too_long"),
        ("length", "answer_too_long"),
    ],
)
def test_a_request_at_which_a_healthy_server_fails_is_told_so(
    line: Line, model: ModelControl, fault: str, code: str
) -> None:
    model.set(faults=f"text:BOOM={fault}")
    ask(line, "bad", prompt="What goes BOOM?")
    ask(line, "good", prompt="And what does not?")
    answers = [json.loads(one.value or b"") for one in replies(line, line.text_replies, 2)]
    codes = {one["key"]: one["value"].get("error", {}).get("code") for one in answers}
    assert codes == {"bad": code, "good": None}
    (letter,) = line.dead_letters(1)
    assert letter.headers["prism_detail"] == code


def test_one_user_cannot_take_it_all(stage: Stage, model: ModelControl) -> None:
    stage.worker(model.url, PRISM_REQUESTS_PER_MINUTE="3")
    for number in range(5):
        ask(stage, f"k{number}", prompt="Again?")
    found = [json.loads(one.value or b"")["value"] for one in replies(stage, stage.text_replies, 5)]
    assert Counter(one.get("error", {}).get("code") for one in found) == {None: 3, "rate_limited": 2}
    assert stage.seen(stage.topics.dead_letter) == []


def test_nothing_of_a_request_is_logged_but_its_sizes(line: Line) -> None:
    ask(line, prompt="My secret is marmalade", photo=photo())
    reply(line, line.photo_replies)
    await_value(lambda: line.lines("request"), "the audit line")
    (told,) = line.lines("request")
    assert (told["user"], told["outcome"], told["prompt_chars"]) == (WHO, "answered", 22)
    assert "marmalade" not in line.worker.log.read_text()


def test_a_photo_by_reference(line: Line) -> None:
    folder = line.folder / "data"
    folder.mkdir(exist_ok=True)
    (folder / "dish.jpg").write_bytes(base64.b64decode(photo()))
    ask(line, prompt="What?", photo={"uri": (folder / "dish.jpg").as_uri()})
    assert "analysis" in reply(line, line.photo_replies)["value"]


@pytest.mark.promise(9)
def test_a_request_that_kills_each_worker_is_found(stage: Stage, model: ModelControl) -> None:
    ensure_topics(stage.admin, [TopicSpec(stage.requests, 1, {}), TopicSpec(stage.text_replies, 1, {})], 1)
    for number, prompt in enumerate(["One?", "deadly nightshade", "Two?", "Three?"]):
        stage.put(stage.requests, json.dumps({"user_email": WHO, "prompt": prompt}).encode(), f"k{number}")

    def next_worker() -> Service:
        return stage.worker(
            model.url, ready=False, PRISM_CRASH_AT="worker.before_call~nightshade", **SHORT_SESSION
        )

    def answered() -> dict[str, dict[str, Any]]:
        records = [json.loads(one.value or b"") for one in stage.seen(stage.text_replies)]
        return {one["key"]: one["value"] for one in records}

    worker, deaths = next_worker(), 0
    deadline = time.monotonic() + 90
    while len(answered()) < 4:
        assert time.monotonic() < deadline, f"{deaths} deaths, and only {answered()}"
        if worker.process.poll() is not None:
            deaths += 1
            worker = next_worker()
        time.sleep(0.02)
    codes = {key: value.get("error", {}).get("code") for key, value in answered().items()}
    assert codes == {"k0": None, "k1": "poison", "k2": None, "k3": None}
    assert deaths <= 7
