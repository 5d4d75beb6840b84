"""What a worker can be told of its model servers."""

import pytest
from pydantic import ValidationError

from prism.modelserver.cloud import CLOUD_HOST
from prism_model_worker.settings import WorkerSettings, request_topics


def settings(**environ: str) -> WorkerSettings:
    return WorkerSettings(BOOTSTRAP_SERVER="127.0.0.1:1", **environ)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "kept"),
    [("-1", -1), ("0", 0), ("300", 300), ("10m", "10m"), ("1h30m", "1h30m"), ("1.5s", "1.5s")],
)
def test_how_long_a_model_stays_loaded_is_told_as_ollama_takes_it(told: str, kept: str | int) -> None:
    assert settings(OLLAMA_KEEP_ALIVE=told).keep_alive == kept


def test_nothing_told_leaves_it_to_the_server() -> None:
    assert settings().keep_alive is None
    assert settings().ollama_cloud_host == CLOUD_HOST


@pytest.mark.parametrize(
    "wrong", [{"OLLAMA_KEEP_ALIVE": "ten minutes"}, {"OLLAMA_CLOUD_HOST": "http://gpu:80000"}]
)
def test_what_no_server_would_understand_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        settings(**wrong)


def test_one_topic_may_take_both_kinds_of_replies() -> None:
    both = settings(PRISM_PHOTO_REPLY_TOPIC="replies", PRISM_TEXT_REPLY_TOPIC="replies")
    assert [one.name for one in request_topics(both)] == ["eater-send-photo", "replies"]
