"""Which model server a fleet uses: what answers and has the model, else the embedded one, and it says so."""

import pytest

from prism.modelserver.errors import AwayReason, ServerAway
from prism_cli.exits import CommandFailed
from prism_cli.model_choice import EMBEDDED_MODEL, ModelChoice, choose, has_model

OLLAMA = "http://127.0.0.1:11434"


def choice(
    server: str = "auto",
    model: str | None = None,
    there: dict[str, list[str]] | None = None,
    **environ: str,
) -> ModelChoice:
    def ask(url: str) -> list[str]:
        if url not in (there or {}):
            raise ServerAway("connection refused", url, reason=AwayReason.UNREACHABLE)
        return (there or {})[url]

    return choose(server, model, environ, ask)


def test_without_an_ollama_the_embedded_one_answers() -> None:
    made = choice()
    assert (made.embedded, made.model) == (True, EMBEDDED_MODEL)
    assert OLLAMA in made.why


def test_an_ollama_on_its_usual_port_is_used() -> None:
    made = choice(there={OLLAMA: ["nomic-embed-text:latest", "llama3.2:latest", "qwen3:8b"]})
    assert (made.url, made.model) == (OLLAMA, "llama3.2:latest")


def test_the_address_may_come_from_the_environment() -> None:
    made = choice(there={"http://gpu:11434": ["qwen3:8b"]}, OLLAMA_HOST="gpu", OLLAMA_MODEL="qwen3:8b")
    assert (made.url, made.model) == ("http://gpu:11434", "qwen3:8b")


def test_an_ollama_without_the_environments_model_is_not_used() -> None:
    made = choice(there={OLLAMA: ["qwen3:8b"]}, OLLAMA_MODEL="llama3.2")
    assert made.embedded
    assert "no model llama3.2" in made.why
    assert "qwen3:8b" in made.why


def test_an_ollama_without_any_model_is_not_used() -> None:
    assert choice(there={OLLAMA: []}).embedded
    assert choice(there={OLLAMA: ["all-minilm:latest"]}).embedded


@pytest.mark.parametrize("there", [{}, {OLLAMA: ["qwen3:8b"]}])
def test_a_model_that_was_named_is_never_replaced_by_rules(there: dict[str, list[str]]) -> None:
    with pytest.raises(CommandFailed) as failed:
        choice(model="llama3.2", there=there)
    assert failed.value.code == 5
    assert "ollama pull llama3.2" in str(failed.value)


def test_a_server_that_was_named_must_answer_and_have_the_model() -> None:
    there = {"http://gpu:8000": ["qwen3:8b"]}
    assert choice("http://gpu:8000/", "qwen3:8b", there).url == "http://gpu:8000"
    for server, model in (("http://gpu:8000", "llama3.2"), ("http://cpu:8000", None)):
        with pytest.raises(CommandFailed) as failed:
            choice(server, model, there)
        assert failed.value.code == 5


def test_embedded_needs_nobody() -> None:
    assert choice("embedded", there={OLLAMA: ["llama3.2"]}).embedded


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(CommandFailed) as failed:
        choice("ftp://x")
    assert failed.value.code == 3


@pytest.mark.parametrize(
    ("names", "wanted", "there"),
    [
        (["llama3.2:latest"], "llama3.2", True),
        (["llama3.2"], "llama3.2:latest", True),
        (["llama3.2:1b"], "llama3.2", False),
        (["llama3.2:1b"], "llama3.2:1b", True),
        ([], "llama3.2", False),
    ],
)
def test_a_name_without_a_tag_means_latest(names: list[str], wanted: str, there: bool) -> None:
    assert has_model(names, wanted) is there
