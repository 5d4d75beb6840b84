"""`prism models`: what is listed with which state, what a check concludes, and the exit codes."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prism_cli import fleet_file
from prism_cli.__main__ import main
from tests.unit.modelserver.server import Request, ScriptedServer, respond_json

NOBODY = "http://127.0.0.1:9"


class Ollama:
    """A scripted Ollama (and OpenAI API) with one model, `tiny`; `says` replaces its replies."""

    def __init__(self) -> None:
        self.eyes = True
        self.reply = '{"answer": "yes"}'
        self.status = 200
        self.error = ""
        self.logprobs: list[dict[str, Any]] = [{"logprob": -0.5}]
        self.image_tokens = 4
        self.refuses_images = False
        self.server = ScriptedServer(self._answer)
        self.url = f"http://127.0.0.1:{self.server.port}"

    def _answer(self, connection: socket.socket, request: Request) -> None:
        asked = request.json if request.body else {}
        if self.status != 200 and "chat" in request.path:
            respond_json(connection, self.status, {"error": self.error})
        elif asked.get("model", "tiny").removesuffix(":latest") != "tiny":
            respond_json(connection, 404, {"error": f"model '{asked['model']}' not found"})
        elif self.refuses_images and "image" in request.body.decode():
            respond_json(connection, 400, {"error": "no images here"})
        else:
            respond_json(connection, 200, self._body(request.path, "image" in request.body.decode()))

    def _body(self, path: str, image: bool) -> dict[str, Any]:
        tokens = 20 + (self.image_tokens if image else 0)
        message = {"role": "assistant", "content": self.reply}
        bodies: dict[str, dict[str, Any]] = {
            "/api/tags": {"models": [{"name": "tiny:latest", "digest": "abcdef1234567890"}]},
            "/api/show": {
                "capabilities": ["completion", *(["vision"] if self.eyes else [])],
                "model_info": {"general.architecture": "a", "a.context_length": 8192},
                "details": {"parameter_size": "1B", "quantization_level": "Q4"},
            },
            "/api/chat": {
                "message": message,
                "done": True,
                "done_reason": "stop",
                "prompt_eval_count": tokens,
                "eval_count": 10,
                "total_duration": 3_000_000_000,
                "load_duration": 1_000_000_000,
                "logprobs": self.logprobs,
            },
            "/v1/models": {"data": [{"id": "tiny", "max_model_len": 4096}, {"id": "other"}]},
            "/v1/chat/completions": {
                "choices": [
                    {"message": message, "finish_reason": "stop", "logprobs": {"content": self.logprobs}}
                ],
                "usage": {"prompt_tokens": tokens, "completion_tokens": 10},
            },
        }
        return bodies[path]


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ollama]:
    """A server at OLLAMA_HOST, and an empty folder of jobs and data."""
    for name in [one for one in os.environ if one.startswith(("OLLAMA", "PRISM", "BOOTSTRAP"))]:
        monkeypatch.delenv(name)
    made = Ollama()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OLLAMA_HOST", made.url)
    (tmp_path / "jobs").mkdir()
    yield made
    made.server.close()


def catalogue(*models: dict[str, Any]) -> None:
    Path("jobs/models.json").write_text(json.dumps({"available_models": models}))


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[tuple[str, str], dict[str, Any]]:
    assert main(["models", "--json", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    return {(one["name"], one["backend"]): one for one in told["models"]}


def checked(capsys: pytest.CaptureFixture[str], name: str = "tiny") -> dict[str, Any]:
    assert main(["models", "check", name, "--json"]) == 0
    (server,) = json.loads(capsys.readouterr().out)["servers"]
    return dict(server)


def refusal(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    assert main(["models", *words]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("prism: ")
    assert told.err.count("\n") == 1
    return told.err


def test_without_a_catalogue_the_servers_models_are_listed(
    ollama: Ollama, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listed(capsys) == {
        ("tiny:latest", "ollama"): {
            "name": "tiny:latest",
            "id": None,
            "description": "",
            "recommended_for": "",
            "backend": "ollama",
            "server": ollama.url,
            "state": "there",
            "detail": "",
            "digest": "abcdef1234567890",
            "context_length": 8192,
            "images": True,
            "schema": True,
            "parameters": "1B",
            "quantisation": "Q4",
        }
    }


def test_the_fleet_of_this_folder_goes_before_the_environment(
    ollama: Ollama, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", NOBODY)
    folder = Path("prism-data").absolute()
    Path("other").mkdir()
    Path("other/models.json").write_text('{"available_models": [{"name": "tiny", "id": 7}]}')
    fleet = fleet_file.FleetFile(
        bootstrap="b",
        embedded_broker=True,
        topic_prefix="",
        model_server=ollama.url,
        model="tiny",
        data_dir=folder,
        jobs_dir=Path("other").absolute(),
        source_dir=folder,
        pid=1,
    )
    with fleet_file.owned(folder):
        fleet.write()
        assert [(one["name"], one["id"]) for one in listed(capsys).values()] == [("tiny", "7")]
    assert "connection refused" in refusal(capsys, 5)


def test_each_model_says_how_it_is(
    ollama: Ollama, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    openai = {"backend": "openai", "base_url": f"{ollama.url}/v1"}
    catalogue(
        {"id": 1, "name": "tiny", "recommended_for": "general"},
        {"id": 2, "name": "absent"},
        {"name": "away", "backend": "openai", "base_url": NOBODY, "supports_images": True},
        {"name": "locked", **openai, "api_key_env": "EXAMPLE_API_KEY"},
        {"name": "other", **openai, "context_length": 2048, "supports_images": False},
    )
    found = listed(capsys)
    states = {name: (one["id"], one["state"]) for (name, _), one in found.items()}
    assert states == {
        "tiny": ("1", "there"),
        "absent": ("2", "missing"),
        "away": (None, "server away"),
        "locked": (None, "no access"),
        "other": (None, "there"),
    }
    assert "ollama pull absent" in found["absent", "ollama"]["detail"]
    assert "EXAMPLE_API_KEY" in found["locked", "openai"]["detail"]
    assert found["tiny", "ollama"]["recommended_for"] == "general"
    assert found["away", "openai"]["images"] is True
    other = found["other", "openai"]
    assert (other["context_length"], other["images"], other["schema"]) == (2048, False, None)


def test_a_server_that_is_away_is_asked_once_and_named_on_stderr(
    ollama: Ollama, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = ScriptedServer(lambda connection, _: respond_json(connection, 503, {"error": "no room"}))
    url = f"http://127.0.0.1:{busy.port}"
    catalogue(*({"name": f"m{n}", "base_url": url} for n in range(3)))
    assert main(["models"]) == 0
    busy.close()
    told = capsys.readouterr()
    assert told.out.count("server away") == 3
    assert told.err.count("\n") == 1
    assert told.err.startswith(f"prism: {url}: HTTP 503: no room")
    assert len(busy.requests) == 1


def test_nobody_at_all_is_exit_5(ollama: Ollama, capsys: pytest.CaptureFixture[str]) -> None:
    assert "connection refused" in refusal(capsys, 5, "--model-server", NOBODY)
    assert "connection refused" in refusal(capsys, 5, "check", "tiny", "--model-server", NOBODY)


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--model-server", "ftp://x"], "no address"), (["--jobs-dir", "wrong"], "models.json: not JSON")],
)
def test_what_is_wrong_is_exit_3(
    ollama: Ollama, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    Path("wrong").mkdir()
    Path("wrong/models.json").write_text("{")
    assert says in refusal(capsys, 3, *words)
    assert says in refusal(capsys, 3, "check", "tiny", *words)


def test_a_key_that_is_none_is_exit_3_and_not_shown(
    ollama: Ollama, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "hunter2\nhunter2")
    assert "hunter2" not in refusal(capsys, 3)


def test_a_name_cannot_forge_a_line(ollama: Ollama, capsys: pytest.CaptureFixture[str]) -> None:
    ollama.status, ollama.error = 500, "a\nprism: all is well\x1b[2J"
    told = refusal(capsys, 1, "check", "tiny")
    assert "\x1b" not in told


def test_a_check_of_a_model_that_can_everything(ollama: Ollama, capsys: pytest.CaptureFixture[str]) -> None:
    found = checked(capsys)
    assert (found["digest"], found["context_length"]) == ("abcdef1234567890", 8192)
    assert (found["load_s"], found["tokens_per_s"]) == (1.0, 5.0)
    assert (found["prompt_tokens"], found["completion_tokens"]) == (20, 10)
    assert 0 <= found["latency_s"] < 5
    assert [found[what]["works"] for what in ("schema", "images", "logprobs")] == [True] * 3
    chats = [one.json for one in ollama.server.requests if one.path == "/api/chat"]
    assert len(chats) == 3
    assert {chat["options"]["num_ctx"] for chat in chats} == {4096}


def test_a_check_of_a_model_that_can_nothing(ollama: Ollama, capsys: pytest.CaptureFixture[str]) -> None:
    ollama.eyes, ollama.reply, ollama.logprobs = False, "Yes, it is.", []
    found = checked(capsys)
    assert [found[what]["works"] for what in ("schema", "images", "logprobs")] == [False] * 3
    assert "would be ignored" in found["images"]["detail"]
    assert not any("images" in one.body.decode() for one in ollama.server.requests)


@pytest.mark.parametrize(
    "reply", ['{"answer": "maybe"}', '{"answer": "yes", "more": 1}', '["yes"]', "yes", "{"]
)
def test_what_does_not_obey_the_schema(
    ollama: Ollama, capsys: pytest.CaptureFixture[str], reply: str
) -> None:
    ollama.reply = reply
    assert checked(capsys)["schema"]["works"] is False


@pytest.mark.parametrize(
    ("tokens", "refuses", "works"), [(4, False, True), (0, False, None), (4, True, False)]
)
def test_what_nobody_tells_of_images_is_told_by_the_tokens(
    ollama: Ollama, capsys: pytest.CaptureFixture[str], tokens: int, refuses: bool, works: bool | None
) -> None:
    catalogue({"name": "tiny", "backend": "openai", "base_url": ollama.url})
    ollama.image_tokens, ollama.refuses_images = tokens, refuses
    found = checked(capsys)
    assert found["images"]["works"] is works
    assert found["context_length"] == 4096
    assert found["logprobs"]["works"] is True


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (401, "unauthorized", 5),
        (503, "busy", 5),
        (504, "", 5),
        (429, "weekly usage limit reached", 7),
        (500, "broken", 1),
    ],
)
def test_the_exit_code_says_why_a_check_failed(
    ollama: Ollama, capsys: pytest.CaptureFixture[str], status: int, error: str, code: int
) -> None:
    ollama.status, ollama.error = status, error
    assert error in refusal(capsys, code, "check", "tiny")


def test_a_missing_model_is_exit_5_with_the_way_to_get_it(
    ollama: Ollama, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "ollama pull absent" in refusal(capsys, 5, "check", "absent")


def test_every_server_of_a_model_is_checked(ollama: Ollama, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue({"name": "tiny", "base_url": [ollama.url, NOBODY]})
    assert main(["models", "check", "tiny"]) == 5
    told = capsys.readouterr()
    assert f"tiny at {ollama.url}, digest abcdef123456, context 8,192" in told.out
    assert "✓ schema" in told.out
    assert "5.0 tokens/s" in told.out
    assert "connection refused" in told.err


def test_the_options_may_stand_before_or_behind_the_name(
    ollama: Ollama, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--json", "check", "tiny"], ["check", "tiny", "--json"], ["check", "--json", "tiny"]):
        assert main(["models", *words]) == 0
        assert json.loads(capsys.readouterr().out)["model"] == "tiny"
    assert main(["models", "--model-server", NOBODY, "check", "tiny"]) == 5


def test_a_check_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["models", "check"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
