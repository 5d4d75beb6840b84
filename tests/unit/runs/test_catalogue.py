"""`models.json`: the seed's own file is read, and whatever is wrong is one line that says what is allowed."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from prism.runs.catalogue import (
    FILE_NAME,
    MAX_CATALOGUE_BYTES,
    Catalogue,
    CatalogueRefused,
    ModelEntry,
    entry_of,
    parse_catalogue,
    read_catalogue,
)

SEED = """
{
  "available_models": [
    {
      "id": 1,
      "name": "llama3.2",
      "description": "Meta Llama 3.2 - Fast, general purpose",
      "recommended_for": "general"
    },
    {
      "id": 3,
      "name": "qwen2.5:14b",
      "description": "Qwen 2.5 14B - High accuracy",
      "recommended_for": "complex_tasks"
    }
  ],
  "batch_sizes": [
    {"size": 1, "description": "Maximum accuracy", "speed_multiplier": 1},
    {"size": 15, "description": "Very fast", "speed_multiplier": 15}
  ]
}
"""
EXAMPLE = Path(__file__).parents[3] / "examples" / "feedback"


def model(**fields: Any) -> dict[str, Any]:
    return {"available_models": [{"name": "m"} | fields]}


def refusal(source: object) -> str:
    text = source if isinstance(source, bytes) else json.dumps(source).encode()
    with pytest.raises(CatalogueRefused) as refused:
        parse_catalogue(text)
    line = str(refused.value)
    assert line.startswith("models.json: ")
    assert "\n" not in line
    assert len(line) < 450
    return line


def test_the_seeds_own_file_is_read() -> None:
    catalogue = parse_catalogue(SEED.encode())
    first = catalogue.entry("llama3.2")
    assert (first.id, first.recommended_for) == ("1", "general")
    assert (first.backend, first.base_url, first.price) == ("ollama", (), None)
    assert catalogue.ids == {"llama3.2": "1", "qwen2.5:14b": "3"}
    assert [(one.size, int(one.speed_multiplier)) for one in catalogue.batch_sizes] == [(1, 1), (15, 15)]


def test_the_example_is_read() -> None:
    catalogue = read_catalogue(EXAMPLE)
    assert len(catalogue.available_models) > 3
    assert {entry.backend for entry in catalogue.available_models} == {"ollama", "openai"}


def test_our_own_fields() -> None:
    entry = parse_catalogue(
        json.dumps(
            model(
                backend="openai",
                base_url=["https://a.example/v1", "gpu:8000"],
                api_key_env="EXAMPLE_API_KEY",
                price={"prompt": 0.15, "completion": 0.6, "unknown": 1},
                context_length=131072,
                supports_schema="json_object",
                supports_images=False,
                unknown=[1],
            )
        ).encode()
    ).entry("m")
    assert entry.base_url == ("https://a.example/v1", "gpu:8000")
    assert (entry.api_key_env, entry.context_length) == ("EXAMPLE_API_KEY", 131072)
    assert (entry.supports_schema, entry.supports_images) == ("json_object", False)
    assert parse_catalogue(json.dumps(model(base_url="gpu")).encode()).entry("m").base_url == ("gpu",)


def test_a_model_that_is_not_listed_has_an_entry() -> None:
    catalogue = parse_catalogue(SEED.encode())
    assert catalogue.entry("any model") == ModelEntry.model_construct(name="any model")
    assert catalogue.entry("qwen2.5").id is None
    assert catalogue.entry("llama3.2:latest").id == "1"


@pytest.mark.parametrize("address", ["http://[::1]:8000", "gpu:65535", "https://a.example/v1", "127.0.0.1"])
def test_addresses(address: str) -> None:
    assert parse_catalogue(json.dumps(model(base_url=address)).encode()).entry("m").base_url == (address,)


def test_a_runs_entry_may_be_of_a_newer_version_or_of_a_model_with_any_name() -> None:
    newer = entry_of({"name": "m", "backend": "vllm", "base_url": ["http://gpu:80000"], "new": 1}, "m")
    assert (newer.backend, newer.base_url) == ("vllm", ("http://gpu:80000",))
    odd = Catalogue().entry("my model").model_dump(mode="json", exclude_defaults=True)
    assert entry_of(odd, "my model").name == "my model"
    assert (entry_of({}, None).name, entry_of({}, "m").name) == ("-", "m")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"price": {"prompt": "free", "completion": 1}}, "model_entry: price.prompt: "),
        ({"context_length": -1}, "model_entry: context_length: "),
        ({"base_url": 7}, "model_entry: base_url: must be a list"),
        ({"backend": None}, "model_entry: backend: "),
    ],
)
def test_a_runs_entry_that_cannot_be_read_is_refused_in_one_line(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(CatalogueRefused) as refused:
        entry_of(fields, "m")
    assert str(refused.value).startswith(says)
    assert str(refused.value).isprintable()


def test_a_price_is_exact() -> None:
    entry = parse_catalogue(json.dumps(model(price={"prompt": 0.1, "completion": 0.2})).encode()).entry("m")
    assert entry.price is not None
    assert entry.price.currency == "USD"
    assert entry.cost(3, 1) == Decimal("0.0000005")
    assert entry.cost(0, 0) == 0
    assert entry.cost(2_000_000, 1_000_000) == Decimal("0.4")
    assert Catalogue().entry("m").cost(1, 1) is None


def test_without_a_file_the_catalogue_is_empty(tmp_path: Path) -> None:
    assert read_catalogue(tmp_path) == Catalogue()
    (tmp_path / FILE_NAME).write_text("\ufeff{}", encoding="utf-8")
    assert read_catalogue(tmp_path) == Catalogue()


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(CatalogueRefused, match=r"^models.json: cannot be read: "):
        read_catalogue(tmp_path)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON in UTF-8"),
        (b'{"a": 1, "a": 2}', "a key given twice"),
        (b'{"a": NaN}', "NaN"),
        (b"[" * 100_000, "deeper"),
        (b"[]", "must be an object with available_models"),
        ({"available_models": {}}, "available_models: must be a list"),
        ({"available_models": [7]}, "available_models.0: must be an object"),
        ({"available_models": [{}]}, "available_models.0.name: Field required"),
        (model(name="a b"), "available_models.0.name"),
        (model(name=""), "available_models.0.name"),
        (model(id="a b"), "available_models.0.id"),
        (model(id=-1), "available_models.0.id"),
        (model(backend="azure"), "'ollama' or 'openai' (it is 'azure')"),
        (model(backend="openai"), "needs a base_url"),
        (model(base_url="ftp://x"), "must be http(s)://host"),
        (model(base_url=["http://ok", "a b"]), "must be http(s)://host"),
        (model(base_url="http://h/v1?key=x"), "without user, password and query"),
        (model(base_url="http://gpu:80000"), "a port up to 65535"),
        (model(base_url="http://[::::]:80"), "must be http(s)://host"),
        (model(price={"prompt": 1}), "price.completion: Field required"),
        (model(price={"prompt": -1, "completion": 1}), "price.prompt"),
        (model(price={"prompt": 1, "completion": "free"}), "price.completion"),
        (model(price={"prompt": 1, "completion": 1, "currency": "dollar"}), "price.currency"),
        (model(context_length=0), "context_length"),
        (model(context_length=1.5), "context_length"),
        (model(supports_schema="maybe"), "True, False or 'json_object'"),
        (model(supports_images="maybe"), "supports_images"),
        ({"batch_sizes": [{"size": 0}]}, "batch_sizes.0.size"),
        ({"batch_sizes": [{"size": 201}]}, "batch_sizes.0.size"),
        ({"batch_sizes": [{"size": 1, "speed_multiplier": 0}]}, "speed_multiplier"),
        ({"available_models": [{"name": "m"}, {"name": "m"}]}, "the name m:latest stands there twice"),
        ({"available_models": [{"name": "m"}, {"name": "m:latest"}]}, "stands there twice"),
        (
            {"available_models": [{"name": "a", "id": 1}, {"name": "b", "id": "1"}]},
            "the id 1 stands there twice",
        ),
        (model(description="x" * 1001), "at most 1000"),
        (b'{"x": "' + b"x" * MAX_CATALOGUE_BYTES + b'"}', "more than 256000 bytes"),
    ],
)
def test_what_is_wrong_is_one_line(source: object, says: str) -> None:
    assert says in refusal(source)


@pytest.mark.parametrize(
    "name", ["api_key", "KEY1", "1KEY", "MY-KEY", "PASSWORD", "HOME", "KEY ", "sk-hunter2"]
)
def test_only_the_name_of_a_key_is_taken_and_never_repeated(name: str) -> None:
    line = refusal(model(api_key_env=name))
    assert "api_key_env" in line
    assert "KEY|TOKEN" in line
    assert "hunter2" not in line


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "HF_TOKEN", "K8S_TOKEN"])
def test_names_of_keys(name: str) -> None:
    assert parse_catalogue(json.dumps(model(api_key_env=name)).encode()).entry("m").api_key_env == name


def test_a_password_in_an_address_is_not_repeated() -> None:
    assert "hunter2" not in refusal(model(base_url="http://u:hunter2@gpu"))
    assert "hunter2" not in refusal(model(base_url=["http://u:hunter2@gpu"]))
