"""The embedded model server over HTTP: each endpoint, each fault, slots, statistics, its process."""

import base64
import http.client
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from PIL import Image

from prism_embedded.faults import CONTENT_FAULTS, FAULTS, HTTP_FAULTS, OPINIONS, TRANSPORT_FAULTS
from prism_embedded.mentions import row_hash
from prism_embedded.model_server import EmbeddedModelServer, ModelServerError
from prism_embedded.model_state import Behaviour

RULER = "═" * 16
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedModelServer]:
    with EmbeddedModelServer(models=["tiny:1b"]) as running:
        yield running


@pytest.fixture
def server(shared: EmbeddedModelServer) -> EmbeddedModelServer:
    defaults = {
        "latency_ms": 0,
        "jitter_ms": 0,
        "slots": 0,
        "queue": 512,
        "faults": "",
        "seed": 0,
        "down": False,
        "count_rows": False,
    }
    control(shared, **defaults, reset=True)
    return shared


def control(server: EmbeddedModelServer, **changes: Any) -> dict[str, Any]:
    answer = requests.post(server.url + "/prism/control", json=changes, timeout=DEADLINE_S)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def stats(server: EmbeddedModelServer) -> dict[str, Any]:
    return dict(requests.get(server.url + "/prism/stats", timeout=DEADLINE_S).json())


def await_stats(server: EmbeddedModelServer, condition: Callable[[dict[str, Any]], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition(stats(server)):
        assert time.monotonic() < deadline, stats(server)
        select.select([], [], [], 0.01)


def batch(texts: list[str], stream: bool = False, **more: Any) -> dict[str, Any]:
    sections = "".join(
        f"{RULER}\n[MENTION {n} of {len(texts)}]\nRowID: r{n}\n\nContent: {text}\n"
        for n, text in enumerate(texts)
    )
    properties = {"RowID": {"type": "string"}, "Mood": {"enum": ["Positive", "Negative", "Neutral"]}}
    mentions = {"type": "array", "items": {"type": "object", "properties": properties}}
    return {
        "model": "prism-embedded",
        "messages": [{"role": "user", "content": f"{sections}{RULER}\n"}],
        "format": {"type": "object", "properties": {"mentions": mentions}},
        "stream": stream,
        **more,
    }


def post(server: EmbeddedModelServer, path: str, body: Any, **more: Any) -> requests.Response:
    return requests.post(server.url + path, json=body, timeout=DEADLINE_S, **more)


def items(response: requests.Response) -> list[dict[str, Any]]:
    return list(json.loads(response.json()["message"]["content"])["mentions"])


TEXTS = ["I love it", "I hate it", "It is a box"]


def test_what_there_is(server: EmbeddedModelServer) -> None:
    def get(path: str) -> Any:
        return requests.get(server.url + path, timeout=DEADLINE_S)

    assert "no language model" in get("/").text
    assert "prism-embedded" in get("/api/version").json()["version"]
    for path in ("/api/tags", "/api/ps"):
        models = get(path).json()["models"]
        assert [model["name"] for model in models] == ["prism-embedded:latest", "tiny:1b"]
        assert len(models[0]["digest"]) == 64
    assert [model["id"] for model in get("/v1/models").json()["data"]] == ["prism-embedded", "tiny:1b"]
    shown = post(server, "/api/show", {"model": "prism-embedded"}).json()
    assert shown["model_info"]["prism-embedded.context_length"] > 100_000
    assert post(server, "/api/show", {"model": "x"}).status_code == 404


def test_chat(server: EmbeddedModelServer) -> None:
    response = post(server, "/api/chat", batch(TEXTS))
    assert [(item["RowID"], item["Mood"]) for item in items(response)] == [
        ("r0", "Positive"),
        ("r1", "Negative"),
        ("r2", "Neutral"),
    ]
    body = response.json()
    assert (body["model"], body["done"], body["done_reason"]) == ("prism-embedded", True, "stop")
    assert body["prompt_eval_count"] > 40
    assert body["eval_count"] > 10
    assert body["total_duration"] >= body["prompt_eval_duration"] + body["eval_duration"] - 4
    load = post(server, "/api/chat", {"model": "tiny:1b", "messages": []}).json()
    assert load["done_reason"] == "load"


def test_a_stream_is_lines_of_json(server: EmbeddedModelServer) -> None:
    response = post(server, "/api/chat", batch(TEXTS, stream=True), stream=True)
    assert response.headers["Content-Type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in response.iter_lines()]
    assert len(lines) > 3
    assert lines[-1]["done"]
    text = "".join(line["message"]["content"] for line in lines)
    assert len(json.loads(text)["mentions"]) == 3


def test_generate(server: EmbeddedModelServer) -> None:
    body = {"model": "prism-embedded", "prompt": "I love it.", "stream": False}
    assert post(server, "/api/generate", body).json()["response"] == "The text is positive: I love it."


def test_openai(server: EmbeddedModelServer) -> None:
    body = batch(TEXTS)
    schema = body.pop("format")
    body["response_format"] = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    answer = post(server, "/v1/chat/completions", body).json()
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert len(json.loads(choice["message"]["content"])["mentions"]) == 3
    assert answer["usage"]["total_tokens"] > 50
    missing = post(server, "/v1/chat/completions", {"model": "x", "messages": []})
    assert missing.status_code == 404
    assert missing.json()["error"]["message"] == "model 'x' not found"


def test_a_photo(server: EmbeddedModelServer) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (30, 60, 190)).save(buffer, "JPEG")
    image = base64.b64encode(buffer.getvalue()).decode()
    schema = {
        "type": "object",
        "properties": {"description": {"type": "string"}, "width": {"type": "integer"}},
    }
    message = {"role": "user", "content": "What is it?", "images": [image]}
    body = {"model": "prism-embedded", "messages": [message], "format": schema, "stream": False}
    found = json.loads(post(server, "/api/chat", body).json()["message"]["content"])
    assert found["width"] == 64
    assert "blue" in found["description"]
    message["images"] = ["bm8="]
    assert post(server, "/api/chat", body).json() == {"error": "the image cannot be decoded"}


def test_over_long_prompts_are_shortened_and_long_answers_cut(server: EmbeddedModelServer) -> None:
    texts = ["good " * 100] * 5
    body = post(server, "/api/chat", batch(texts, options={"num_ctx": 200})).json()
    assert body["prompt_eval_count"] == 200
    assert len(json.loads(body["message"]["content"])["mentions"]) < 5
    body = post(server, "/api/chat", batch(texts, options={"num_predict": 5})).json()
    assert (body["done_reason"], len(body["message"]["content"])) == ("length", 20)


def test_what_is_wrong_is_said(server: EmbeddedModelServer) -> None:
    missing = post(server, "/api/chat", batch(TEXTS, model="other"))
    assert (missing.status_code, missing.json()) == (404, {"error": "model 'other' not found"})
    broken = requests.post(server.url + "/api/chat", data=b"{", timeout=DEADLINE_S)
    assert broken.status_code == 400
    assert "invalid JSON" in broken.json()["error"]
    wrong = requests.post(server.url + "/prism/control", json={"faults": "x=1"}, timeout=DEADLINE_S)
    assert wrong.status_code == 400


def test_every_fault_has_its_test_here() -> None:
    shown = {"hang", "drip", "html", "error_200", "disconnect", "reset"}
    assert set(TRANSPORT_FAULTS) == shown
    assert set(FAULTS) == {*HTTP_FAULTS, *shown, "shortened", *CONTENT_FAULTS}
    assert {fault for fault in HTTP_FAULTS if fault != "quota"} == {
        f"http_{status}" for status in (400, 401, 403, 404, 429, 500, 502, 503)
    }


@pytest.mark.parametrize(("fault", "status"), [(fault, status) for fault, (status, _) in HTTP_FAULTS.items()])
def test_http_faults(server: EmbeddedModelServer, fault: str, status: int) -> None:
    control(server, faults=f"text:BOOM={fault}")
    response = post(server, "/api/chat", batch(["calm", "a BOOM"]))
    assert response.status_code == status
    assert response.json()["error"]
    assert response.headers.get("Retry-After") == ("1" if status == 429 else None)
    assert post(server, "/api/chat", batch(["calm"])).status_code == 200
    assert stats(server)["by_fault"] == {fault: 1}
    assert post(server, "/api/show", {"model": "prism-embedded"}).status_code == 200, "a fault is one call's"


@pytest.mark.parametrize("fault", [*CONTENT_FAULTS, *OPINIONS])
def test_content_faults(server: EmbeddedModelServer, fault: str) -> None:
    good = post(server, "/api/chat", batch(TEXTS)).json()["message"]["content"]
    control(server, faults=f"{fault}=1")
    response = post(server, "/api/chat", batch(TEXTS))
    assert response.status_code == 200
    assert response.json()["message"]["content"] != good
    assert response.json()["done_reason"] == ("length" if fault == "length" else "stop")


def test_html(server: EmbeddedModelServer) -> None:
    control(server, faults="html=1")
    response = post(server, "/api/chat", batch(TEXTS))
    assert (response.status_code, response.headers["Content-Type"][:9]) == (200, "text/html")


def test_an_error_under_200(server: EmbeddedModelServer) -> None:
    control(server, faults="error_200=1")
    for path in ("/api/chat", "/v1/chat/completions"):
        response = post(server, path, batch(TEXTS))
        assert response.status_code == 200
        assert response.json().keys() == {"error"}


@pytest.mark.parametrize(
    ("fault", "end"), [("disconnect", http.client.IncompleteRead), ("reset", ConnectionResetError)]
)
def test_a_cut_connection(server: EmbeddedModelServer, fault: str, end: type[Exception]) -> None:
    control(server, faults=f"{fault}=1")
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=DEADLINE_S)
    connection.request("POST", "/api/chat", json.dumps(batch(TEXTS)))
    response = connection.getresponse()
    assert response.status == 200
    with pytest.raises(end):
        response.read()
    connection.close()


def test_a_shortened_prompt_is_answered_all_the_same(server: EmbeddedModelServer) -> None:
    good = post(server, "/api/chat", batch(TEXTS, options={"num_ctx": 2048}))
    control(server, faults="shortened=1")
    response = post(server, "/api/chat", batch(TEXTS, options={"num_ctx": 2048}))
    assert response.json()["done_reason"] == "stop"
    assert good.json()["prompt_eval_count"] < 2048 == response.json()["prompt_eval_count"]
    assert [item["RowID"] for item in items(response)] == ["r0", "r1", "r2"]
    assert items(response) != items(good), "of rows that it has not seen"


def test_hang_lasts_until_the_client_goes(server: EmbeddedModelServer) -> None:
    control(server, faults="text:HANG=hang", slots=1)
    with pytest.raises(requests.ReadTimeout):
        requests.post(server.url + "/api/chat", json=batch(["HANG"]), timeout=0.3)
    await_stats(server, lambda now: now["in_flight"] == 0)
    assert post(server, "/api/chat", batch(TEXTS)).status_code == 200, "its slot is free again"


def test_drip_comes_byte_by_byte(server: EmbeddedModelServer) -> None:
    control(server, faults="drip=1")
    with post(server, "/api/chat", batch(["x"]), stream=True) as response:
        started = time.monotonic()
        assert response.raw.read(4) is not None
        assert time.monotonic() - started > 0.25


def test_slots_are_honoured_and_the_queue_is_bounded(server: EmbeddedModelServer) -> None:
    # Long enough for all six to be there at once on a busy machine.
    control(server, latency_ms=1500, slots=2, queue=2, reset=True)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: post(server, "/api/chat", batch([f"text {n}"])), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [503] * 2
    assert stats(server)["max_in_flight"] == 2
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json()["error"] == "server busy, please try again.  maximum pending requests exceeded"


def test_latency(server: EmbeddedModelServer) -> None:
    control(server, latency_ms=100, latency_per_row_ms=50)
    started = time.monotonic()
    post(server, "/api/chat", batch(TEXTS))
    assert time.monotonic() - started >= 0.25
    control(server, latency_per_row_ms=0)


def test_stats_count_calls_and_rows(server: EmbeddedModelServer) -> None:
    control(server, count_rows=True, faults="text:BOOM=http_500", reset=True)
    for texts in (TEXTS, TEXTS[:1], ["BOOM"]):
        post(server, "/api/chat", batch(texts))
    now = stats(server)
    assert (now["calls"], now["completed"], now["rows"], now["in_flight"]) == (3, 2, 4, 0)
    assert now["by_fault"] == {"http_500": 1}
    assert now["calls_by_rows"][row_hash("r0", "I love it")] == 2
    assert now["calls_by_rows"][row_hash("r1", "I hate it")] == 1
    control(server, reset=True)
    assert stats(server)["calls"] == 0


def test_down_cuts_every_connection(server: EmbeddedModelServer) -> None:
    control(server, latency_ms=10_000)
    failures: list[Exception] = []

    def call() -> None:
        try:
            post(server, "/api/chat", batch(TEXTS))
        except requests.ConnectionError as error:
            failures.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    await_stats(server, lambda now: now["in_flight"] == 1)
    control(server, down=True, latency_ms=0)
    caller.join(DEADLINE_S)
    assert len(failures) == 1, "a call in flight is cut"
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url + "/api/version", timeout=DEADLINE_S)
    control(server, down=False)
    assert post(server, "/api/chat", batch(TEXTS)).status_code == 200


def test_two_processes_meet_the_same_faults_and_give_the_same_answers() -> None:
    behaviour = Behaviour(faults="http_500=0.2,too_few=0.2,prose=0.2", seed=7)
    seen: list[dict[tuple[int, int], str]] = []
    for order in (range(30), reversed(range(30))):
        with EmbeddedModelServer(behaviour) as server:
            answers: dict[tuple[int, int], str] = {}
            for number in order:
                for attempt in range(2):
                    response = post(server, "/api/chat", batch([f"good {number}", f"bad {number}"]))
                    said = response.json().get("message", {}).get("content", "")
                    answers[number, attempt] = f"{response.status_code} {said}"
            seen.append(answers)
    assert seen[0] == seen[1]
    assert len({answer[:3] for answer in seen[0].values()}) == 2
    assert any(seen[0][number, 0] != seen[0][number, 1] for number in range(30)), "a retry may fare better"


def test_it_stops_and_starts_on_the_same_port() -> None:
    server = EmbeddedModelServer(Behaviour(faults="hang=1"))
    server.start()
    url = server.url
    with pytest.raises(requests.ReadTimeout):
        requests.post(url + "/api/chat", json=batch(TEXTS), timeout=0.2)
    server.stop()
    assert not server.alive()
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=1)
    server.start()
    assert server.url == url
    server.kill()


def test_a_taken_port_is_one_line() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ModelServerError, match=r"^port \d+ of 127.0.0.1 is taken .*choose another port$"),
    ):
        EmbeddedModelServer(port=taken.getsockname()[1]).start()


def test_the_command_is_ready_and_ends_at_once_on_sigterm() -> None:
    command = [sys.executable, "-m", "prism_embedded.model_server", "--faults", "hang=1", "--model", "other"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        assert ready[0] == "ready"
        with pytest.raises(requests.ReadTimeout):
            requests.post(ready[1] + "/api/chat", json=batch(TEXTS, model="other"), timeout=0.2)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(5) == 0


def test_a_wrong_option_is_one_line() -> None:
    command = [sys.executable, "-m", "prism_embedded.model_server", "--faults", "nonsense=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 2
    assert done.stderr.startswith("prism-embedded-model-server: unknown fault 'nonsense'")
    assert len(done.stderr.splitlines()) == 1
