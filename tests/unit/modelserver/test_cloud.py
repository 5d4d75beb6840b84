"""Which names mean Ollama's cloud; the examples are prism-v6-cloud.md's and Ollama's own tests'."""

import pytest

from prism.modelserver.cloud import bare_name, cloud_name, is_cloud

NAMES = {
    "deepseek-v3.1:671b-cloud": "deepseek-v3.1:671b",
    "gpt-oss:20b-cloud": "gpt-oss:20b",
    "gpt-oss:120b-cloud": "gpt-oss:120b",
    "kimi-k2:1t-cloud": "kimi-k2:1t",
    "kimi-k2-thinking:cloud": "kimi-k2-thinking",
    "qwen3-coder:480b-cloud": "qwen3-coder:480b",
    "glm-4.6:cloud": "glm-4.6",
    "minimax-m2:cloud": "minimax-m2",
    "registry:5000/library/foo:cloud": "registry:5000/library/foo",
    "someone/foo:7b-cloud": "someone/foo:7b",
}


@pytest.mark.parametrize(("name", "bare"), NAMES.items())
def test_a_cloud_models_names(name: str, bare: str) -> None:
    assert is_cloud(name)
    assert bare_name(name) == bare
    assert cloud_name(bare) == name
    assert not is_cloud(bare)


@pytest.mark.parametrize(("name", "bare"), [("gpt-oss:20b:cloud", "gpt-oss:20b"), ("A:1B-Cloud", "A:1B")])
def test_other_spellings(name: str, bare: str) -> None:
    assert bare_name(name) == bare


@pytest.mark.parametrize(
    "name",
    [
        "llama3.2",
        "my-cloud-model",
        "my-cloud",
        "cloud",
        ":cloud",
        "foo:-cloud",
        "foo:bar-cloud/baz",
        "x:clouds",
    ],
)
def test_what_is_a_local_model(name: str) -> None:
    assert not is_cloud(name)
    assert bare_name(name) == name
