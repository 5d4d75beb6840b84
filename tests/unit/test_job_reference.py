"""The job file for people and for editors: every key is there, and the schema agrees with the reader."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from prism.runs.job import Job, JobRefused, read_job_text
from prism.runs.job_text import render_job
from prism.runs.keys import key_paths, section_of
from tools.job_reference import job_schema, jobs_page

SCHEMA = json.loads(job_schema())
PAGE = jobs_page()
SEED = Path(__file__).parents[1] / "data" / "seeds" / "local_job_config.yaml"
EXAMPLE = re.search(r"## All keys\n\n```yaml\n(.*?)```", PAGE, re.DOTALL)
_TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def _is_a(value: Any, name: str) -> bool:
    if name == "null" or value is None:
        return name == "null" and value is None
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name])  # type: ignore[arg-type]


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is as a schema says: as much of JSON Schema as job.schema.json uses."""
    if "enum" in schema:
        return any(value == one for one in schema["enum"])
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is_a(value, name) for name in types):
        return False
    if isinstance(value, dict):
        return _object_fits(value, schema)
    if isinstance(value, list):
        least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
        return least <= len(value) <= most and all(fits(item, schema["items"]) for item in value)
    if isinstance(value, str):
        long = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        return long and re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, int | float) and not isinstance(value, bool):
        least, most = schema.get("minimum", value), schema.get("maximum", value)
        return bool(least <= value <= most and value > schema.get("exclusiveMinimum", value - 1))
    return True


def _object_fits(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    properties, others = schema.get("properties", {}), schema["additionalProperties"]
    return all(name in value for name in schema.get("required", [])) and all(
        fits(inner, properties[name]) if name in properties else bool(others) and fits(inner, others)
        for name, inner in value.items()
    )


def test_every_key_has_a_description_and_stands_in_page_and_schema() -> None:
    def check(section: Any, schema: dict[str, Any]) -> None:
        assert section.__doc__
        assert schema["additionalProperties"] is False
        assert set(schema["properties"]) == set(section.model_fields)
        for name, field in section.model_fields.items():
            inner, found = section_of(field), schema["properties"][name]
            assert found["description"]
            assert "\n" not in found["description"]
            if inner is None:
                assert field.description
                assert f"| `{name}` | " in PAGE
            else:
                check(inner, found.get("items", found))

    check(Job, SCHEMA)


def test_the_example_says_every_key_and_is_the_seeds_job() -> None:
    assert EXAMPLE is not None
    job, fields = read_job_text(EXAMPLE[1], "docs/jobs.md")
    for path in key_paths(Job):
        found: Any = fields
        for step in path.split("."):
            found = (found[0] if isinstance(found, list) else found)[step]
        assert found not in (None, ""), path
    seed, written = read_job_text(SEED.read_text(encoding="utf-8"), "seed")
    assert job.model_dump(include={"project", "model", "input_queue", "parallelization", "prompts"}) == (
        seed.model_dump(include={"project", "model", "input_queue", "parallelization", "prompts"})
    )
    assert job.error_handling == seed.error_handling
    assert (job.merge.condition, job.merge.sort_by) == (seed.merge.condition, seed.merge.sort_by)
    assert set(written) <= set(fields)


def test_what_is_commented_out_is_the_default() -> None:
    text = render_job({})
    assert read_job_text(text, "job")[0] == Job()
    # Without the keys that have no default, whose line is an example.
    unset = r"description|name|workers|columns|sort_by|max_failed|tokens|money|path|label|- |start|end"
    lines = [
        line
        for line in text.split("\n")
        if not re.match(rf" {{0,6}}#? *({unset}|manual_ranges|dashboard_refresh)\b", line)
    ]
    spoken = re.sub(r"(?m)^( {0,6})# (?=[a-z_]+: )", r"\1", "\n".join(lines)).replace("#   -", "#")
    job, fields = read_job_text(spoken, "job")
    assert job == Job()
    assert fields["output"]["checkpoints"]["interval"] == "1000"
    assert fields["dedupe"] == "true"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        None,
        {"project": None, "model": {"name": None}},
        {"project": {"version": 1.10, "name": 5}},
        {"merge": {"max_failed": "10%"}},
        {"merge": {"max_failed": 10}},
        {"merge": {"max_failed": "0.5%", "sort_by": True}},
        {"parallelization": {"enabled": "yes", "workers": 4}},
        {"parallelization": {"enabled": False, "manual_ranges": [{"start": 1, "end": 5}]}},
        {"model": {"batch_size": "10", "delay": "0.5", "retries": "1_0"}},
        {"input_queue": [{"path": "a.csv"}, {"path": "b.csv", "label": 2026}]},
        {"table": {"columns": {"Message": "text", "RowID": 1}, "delimiter": ";", "required_columns": []}},
        {"output": {"formats": ["csv", "parquet"], "columns": ["a"], "checkpoints": {"interval": 1}}},
        {"budget": {"tokens": 5, "money": 0.5}},
        {"dedupe": "off"},
        {"dedupe": 1},
        {"dedupe": "True"},
    ],
)
def test_what_a_job_may_say_fits_the_schema(fields: Any) -> None:
    assert fits(fields, SCHEMA)
    read_job_text(json.dumps(fields), "job")


@pytest.mark.parametrize(
    "fields",
    [
        [],
        "job",
        {"modell": {}},
        {"model": {"batchsize": 5}},
        {"model": {"batch_size": 0}},
        {"model": {"batch_size": 201}},
        {"model": {"batch_size": "many"}},
        {"model": {"delay": -1}},
        {"model": []},
        {"project": {"name": "a b"}},
        {"project": {"name": ["a"]}},
        {"merge": {"condition": "sometimes"}},
        {"merge": {"max_failed": "5 %"}},
        {"merge": {"max_failed": "some"}},
        {"parallelization": {"enabled": "maybe"}},
        {"parallelization": {"manual_ranges": [{"start": 1}]}},
        {"input_queue": [{}]},
        {"input_queue": [{"path": "a", "lable": "b"}]},
        {"input_queue": {"path": "a"}},
        {"output": {"formats": []}},
        {"output": {"formats": ["xlsx"]}},
        {"output": {"checkpoints": {"intervall": 5}}},
        {"monitoring": {"dashboard_refresh": 0}},
        {"table": {"delimiter": "ab"}},
        {"table": {"columns": {"Message": ["text"]}}},
        {"budget": {"money": 0}},
        {"dedupe": 0.5},
        {"dedupe": 2},
    ],
)
def test_what_a_job_may_not_say_does_not_fit(fields: Any) -> None:
    assert not fits(fields, SCHEMA)
    with pytest.raises(JobRefused):
        read_job_text(json.dumps(fields), "job")


def test_the_seeds_and_the_example_fit_the_schema() -> None:
    for text in (SEED.read_text(encoding="utf-8"), EXAMPLE[1] if EXAMPLE else ""):
        assert fits(yaml.safe_load(text), SCHEMA)
