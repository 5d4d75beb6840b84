"""The job file for people and for editors: docs/jobs.md and docs/schemas/job.schema.json, from the models.

The schema speaks of values as an editor's YAML parser gives them: `version: 1.10` is a number there, and a
text in PRISM; `max_failed` may be `10` or `10%`; a switch may be `yes`; every key may be left empty.
"""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from prism.runs.job import Job
from prism.runs.job_text import example, render_job, sentence
from prism.runs.keys import section_of
from prism.runs.project_settings import ProjectSettings

_SWITCH = "^([Yy]([Ee][Ss])?|[Oo][Nn]|[Tt][Rr][Uu][Ee]|1|[Nn][Oo]?|[Oo][Ff][Ff]|[Ff][Aa][Ll][Ss][Ee]|0)$"
_WHOLE = "^[0-9][0-9_]*$"
_NUMBER = r"^[0-9_]*\.?[0-9]+$"
# What an editor may take a plain scalar for, by what PRISM takes it for.
_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": ["string", "number", "boolean"]},
    "integer": {"type": ["integer", "string"], "pattern": _WHOLE},
    "number": {"type": ["number", "string"], "pattern": _NUMBER},
    "boolean": {"type": ["boolean", "string", "integer"], "pattern": _SWITCH, "minimum": 0, "maximum": 1},
}
_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "yes or no"}
_KEPT = ("minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "minItems", "maxItems")

_INTRODUCTION = """# Job files

Made by `make schemas` from the code; do not edit. A job file says what is to be done with the rows of one or
several files. PRISM v6's `job_config.yaml` works unchanged. `prism init FILE` writes one for a file of yours;
[moving-from-v6.md](moving-from-v6.md) tells what is new.

- Every key may be left out, or left empty: it then has its default.
- A key that is none is refused, with its line and the nearest right name; so is a value that is not allowed.
- A value is the text that stands there: `NO`, `1.10`, `010`, `12:30`, `2026-11-21` are what they look like,
  in quotes or not. Where a number is asked for, `010` is 10. `null` in quotes is a word.
- Yes is `yes`, `on`, `true`, `y` or `1`, no is `no`, `off`, `false`, `n` or `0`, in any case.
- Refused, since they would change something in silence: keys that stand twice, tags (`!!python/…`, `!!int`),
  merge keys (`<<`), several documents in one file, tabs. An anchor (`&name`, `*name`) is followed.
- Paths are relative to the job file's folder.

Editors complete and check a job file by [schemas/job.schema.json](schemas/job.schema.json). With the YAML
extension of VS Code, or another editor with yaml-language-server, this is its first line:

```yaml
# yaml-language-server: $schema=path/to/docs/schemas/job.schema.json
```
"""
_SEVERAL = """
## Several models

```yaml
model:
  names: [llama3.2, qwen2.5]           # instead of `name`; up to eight
  mode: fanout                         # or split
```

Each is named as its server knows it, and [`models.json`](models.md) may say where that is.
`prism run --model X` asks X alone instead, `--model-server embedded` the embedded model alone.

| | `fanout` | `split` |
|---|---|---|
| each model does | every row | its share: batches go to the models in turn |
| columns | per coded column one for each model, then `Error_` of each: `Topic_llama3.2`, \
`Topic_qwen2.5`, …, `Error_llama3.2`, `Error_qwen2.5` | as with one model |
| `Model_Name` | all of them: `llama3.2, qwen2.5` | the one that answered this row |
| rows of the run | rows × models: these are counted while it runs | rows |

**A model that is away** (its server is down, or has no such model) does not stop the others of a `fanout`:
they go on with their rows, at once or after half a minute, and the output waits for the one that is missing,
or is published without its answers when the run is cancelled. In `split` it does stop them: batches go out in
the file's order, so within a window of batches the others wait too, until it is back.

What follows is of `fanout`.

- **A row of the output has failed if a model failed on it**: `Error` has the reason of the first one that
  did, `Error_…` those of each; the other models' answers stand. Such rows are what `merge.max_failed` counts;
  `any_success` wants one answer of any model.
- `output.columns` and `merge.sort_by` take the names of the output: `Topic_llama3.2`.
- Each model has its own rows of every file, under the file's label and the model's id in `models.json`, or
  its short name: `march.m1`, `march.qwen25`. So are part files called, failed rows
  (`failed_rows_march.m1.csv`) and the manifest's `files`; its `by_model` has each model's rows, calls, tokens
  and cost. The output is one file, `march`.
- **`prism retry`** asks a model only for the rows that it failed on, and completes the same output.
- **Where two share an Ollama** the models do a file one after the other, since it may have room for one only;
  the next file begins with the first model again. **On servers of their own** (`base_url`), or
  OpenAI-compatible ones, they do it abreast.
- **How far they agree** stands in summary and report: for each column with a list of labels the share of
  rows, Cohen's kappa of each pair and Krippendorff's alpha of all. The rows on which they differ are in
  `logs/RUN/disagreements.csv`.
- `--dry-run` asks each model a share of the sample, and says of each what it takes. Of `split` it asks the
  first model alone, as if that did every row.
"""
_SETTINGS = """
## settings.json

PRISM v6's `config/settings.json` says what holds for all jobs of a place. The first that is found is read:
beside the job file, in `config/` beside it, in `./config`. What a job says itself goes first; without a file,
or for a key that it leaves out, a job's own default of the tables above holds. So a missing `RowID` is
numbered, unless `required_input_columns` names it. An unknown key is refused, but for those that begin with
`_`, `$` or `/`. `models.json` is looked for in the same places; [models.md](models.md) describes it.

| key | type | as PRISM v6 ships it | meaning |
|---|---|---|---|"""


def job_schema() -> str:
    """Return the JSON Schema (draft 7) of a job file."""
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "PRISM job file",
        **_object(Job, nullable=True),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def jobs_page() -> str:
    """Return docs/jobs.md."""
    lines = [_INTRODUCTION, "## All keys\n", "```yaml", render_job(example()) + "```"]
    top = [name for name, field in Job.model_fields.items() if section_of(field) is None]
    for name, field in Job.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            lines += _chapter(name, field, inner, "##")
    lines += ["\n## At the top\n", *_table(Job, top), _SEVERAL]
    lines += [_SETTINGS.lstrip("\n"), *_settings_rows(ProjectSettings, "")]
    return "\n".join(lines) + "\n"


def _chapter(path: str, field: FieldInfo, section: type[BaseModel], level: str) -> Iterator[str]:
    yield f"\n{level} {path}\n"
    yield f"{sentence(_text(field.description or section.__doc__))}\n"
    yield from _table(section, list(section.model_fields))
    for name, one in section.model_fields.items():
        inner = section_of(one)
        if inner is not None:
            yield from _chapter(f"{path}.{name}", one, inner, level + "#")


def _table(section: type[BaseModel], names: list[str]) -> Iterator[str]:
    properties = section.model_json_schema()["properties"]
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for name in names:
        field = section.model_fields[name]
        inner = section_of(field)
        words = _words(properties[name]) if inner is None else _section_words(field)
        meaning = _text(field.description or (inner.__doc__ if inner else ""))
        yield f"| `{name}` | {words} | {_default(field)} | {meaning} |".replace("  |", " |")


def _settings_rows(section: type[BaseModel], above: str) -> Iterator[str]:
    properties = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            yield from _settings_rows(inner, f"{above}{name}.")
            continue
        default = json.dumps(field.get_default(), ensure_ascii=False)
        yield f"| `{above}{name}` | {_words(properties[name])} | `{default}` | {_text(field.description)} |"


def _section_words(field: FieldInfo) -> str:
    return "list" if _is_list(field) else "section"


def _words(prop: dict[str, Any]) -> str:
    """Return a property's type as people say it."""
    prop = _plain(prop)
    if "enum" in prop:
        return ", ".join(f"`{one}`" for one in prop["enum"])
    if prop["type"] == "array":
        return f"list of {_words(prop['items'])}"
    if prop["type"] == "object":
        return f"mapping to {_words(prop['additionalProperties'])}"
    return _WORDS[prop["type"]] + _limits(prop)


def _limits(prop: dict[str, Any]) -> str:
    least, most = prop.get("minimum"), prop.get("maximum")
    if "exclusiveMinimum" in prop:
        above = f", above {prop['exclusiveMinimum']:g}"
        return f"{above}, at most {most:g}" if most is not None else above
    if least is None:
        return ""
    return f", {least:g} – {most:g}" if most is not None else f", {least:g} or more"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == "" or section_of(field) is not None:
        return ""
    if value == {} or value == []:
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _text(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _object(section: type[BaseModel], nullable: bool) -> dict[str, Any]:
    properties = section.model_json_schema()["properties"]
    made: dict[str, Any] = {
        "description": _text(section.__doc__),
        "type": ["object", "null"] if nullable else "object",
        "additionalProperties": False,
        "properties": {
            name: _property(field, properties[name]) for name, field in section.model_fields.items()
        },
    }
    required = [name for name, field in section.model_fields.items() if field.is_required()]
    return {**made, "required": required} if required else made


def _property(field: FieldInfo, prop: dict[str, Any]) -> dict[str, Any]:
    inner = section_of(field)
    if inner is not None and not _is_list(field):
        return _object(inner, nullable=True)
    if inner is not None:
        made: dict[str, Any] = {"type": ["array", "null"], "items": _object(inner, nullable=False)}
    else:
        made = _value(_plain(prop))
        if not field.is_required():
            made = _or_empty(made)
    made["description"] = _text(field.description)
    if not field.is_required() and field.get_default() is not None:
        made["default"] = field.get_default()
    if field.examples:
        made["examples"] = field.examples
    return made


def _value(prop: dict[str, Any]) -> dict[str, Any]:
    limits = {key: prop[key] for key in _KEPT if key in prop}
    if "enum" in prop:
        return {"enum": list(prop["enum"])}
    if prop["type"] == "array":
        return {"type": "array", **limits, "items": _value(prop["items"])}
    if prop["type"] == "object":
        return {"type": "object", "additionalProperties": _value(prop["additionalProperties"])}
    pattern = {"pattern": prop["pattern"]} if "pattern" in prop and prop["type"] == "string" else {}
    return {**_TYPES[prop["type"]], **pattern, **limits}


def _or_empty(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a value that may be left out behind its key: YAML's null, or an empty text."""
    if "enum" in schema:
        return {"enum": [*schema["enum"], None]}
    types = schema["type"]
    return {**schema, "type": [*([types] if isinstance(types, str) else types), "null"]}


def _plain(prop: dict[str, Any]) -> dict[str, Any]:
    """Return a property without the alternatives that only JSON knows: null, and a number as text."""
    return prop["anyOf"][0] if "anyOf" in prop else prop


def _is_list(field: FieldInfo) -> bool:
    return isinstance(field.get_default(call_default_factory=True), list)
