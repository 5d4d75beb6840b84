"""A run is the same if its job means the same; else the key that was changed is named."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from prism.messages import RunFile, RunRecord, RunState, UriSource
from prism.runs.job import Job, read_job_text
from prism.runs.job_text import render_job
from prism.runs.keys import section_of
from prism.runs.sameness import INDIFFERENT, difference
from tests.unit.runs.test_job import SEED

SHA = "a" * 64


def files(*names: str) -> list[RunFile]:
    return [
        RunFile(label=one.partition(".")[0], filename=one, source=UriSource(uri=""), sha256=SHA)
        for one in names
    ]


def compared(
    known: dict[str, Any], job: dict[str, Any], given_files: Sequence[RunFile] = tuple(files("t.csv"))
) -> str | None:
    """Say what differs between a run that was begun with one job and a request with another."""
    record = RunRecord(
        run_id="r",
        epoch=1,
        state=RunState.RUNNING,
        job_name="j",
        job=known,
        prompt={},
        files=list(given_files),
        results_partition=0,
        created_at="",
    )
    return difference(record, job, {}, given_files)


def written(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a job's fields as they are read from a file that says these."""
    return read_job_text(render_job(fields), "job.yaml")[1]


def of_path(path: str, value: Any) -> dict[str, Any]:
    found = value
    for name in reversed(path.split(".")):
        found = {name: found}
    return dict(found)


def together(*parts: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = together(found[key], value) if both else value
    return found


def defaults(section: type[BaseModel] = Job, above: str = "") -> dict[str, Any]:
    """Return every key's default, by its path."""
    found: dict[str, Any] = {}
    for name, info in section.model_fields.items():
        default = info.get_default(call_default_factory=True)
        inner = section_of(info)
        if inner is None or isinstance(default, list):
            found[above + name] = default
        else:
            found |= defaults(inner, f"{above}{name}.")
    return found


DEFAULTS = defaults()
# What else a key may say.
OTHERS: dict[str, Any] = {
    "project.name": "p",
    "project.version": "v2",
    "project.description": "what for",
    "model.name": "m1",
    "model.names": ["m1", "m2"],
    "model.mode": "split",
    "model.batch_size": 11,
    "model.retries": 4,
    "model.delay": 1.5,
    "input_queue": [{"path": "t.csv"}],
    "parallelization.enabled": False,
    "parallelization.workers": 3,
    "parallelization.split_strategy": "manual",
    "parallelization.manual_ranges": [{"start": 1, "end": 3}],
    "output.directory": "out",
    "output.naming_pattern": "{label}",
    "output.formats": ["csv", "jsonl"],
    "output.columns": ["RowID"],
    "output.checkpoints.directory": "parts",
    "output.checkpoints.interval": 1001,
    "output.checkpoints.cleanup_after_merge": True,
    "error_handling.strategy": "stop",
    "error_handling.max_worker_retries": 3,
    "error_handling.save_failed_ranges": False,
    "error_handling.prompt_on_failure": False,
    "merge.auto_merge": False,
    "merge.condition": "always",
    "merge.sort_by": "RowID",
    "merge.max_failed": "10%",
    "prompts.config_file": "other.json",
    "monitoring.status_dir": "states",
    "monitoring.logs_dir": "log",
    "monitoring.dashboard_refresh": 2.0,
    "monitoring.save_terminal_logs": False,
    "monitoring.create_summaries": False,
    "monitoring.create_analytics": False,
    "table.format": "jsonl",
    "table.delimiter": ";",
    "table.columns": {"RowID": "id"},
    "table.required_columns": ["Message", "RowID"],
    "budget.tokens": 1000,
    "budget.money": 2.5,
    "dedupe": False,
}
# What a key's other value asks of another key.
WITH_IT = {
    "parallelization.split_strategy": of_path("parallelization.manual_ranges", [{"start": 1, "end": 3}])
}
jobs = st.sets(st.sampled_from(sorted(OTHERS.keys() - {"model.name"}))).map(
    lambda paths: together(
        *(together(of_path(one, OTHERS[one]), WITH_IT.get(one, {})) for one in sorted(paths))
    )
)
some_keys = st.sets(st.sampled_from(sorted(DEFAULTS)))


def says(job: dict[str, Any], path: str) -> bool:
    found: Any = job
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return False
        found = found[name]
    return True


def test_each_key_has_another_value_here() -> None:
    assert set(OTHERS) == set(DEFAULTS)
    assert set(OTHERS) >= INDIFFERENT


@settings(max_examples=40)
@given(job=jobs, keys=some_keys)
def test_a_default_that_is_written_down_changes_no_job(job: dict[str, Any], keys: set[str]) -> None:
    explicit = together(*(of_path(one, DEFAULTS[one]) for one in sorted(keys) if not says(job, one)), job)
    assert compared(written(job), written(explicit)) is None
    assert compared(written(explicit), written(job)) is None


@settings(max_examples=40)
@given(job=jobs, path=st.sampled_from(sorted(OTHERS)))
def test_another_value_is_named_by_its_key(job: dict[str, Any], path: str) -> None:
    job = together(job, WITH_IT.get(path, {}))
    if says(job, path) or (path == "model.name" and says(job, "model.names")):
        return
    other = written(together(job, of_path(path, OTHERS[path])))
    found = compared(written(job), other), compared(other, written(job))
    if path in INDIFFERENT:
        assert found == (None, None)
    else:
        assert all(one is not None and one.startswith(f"the job differs at {path}") for one in found), found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("model: {batch_size: 10}", 'model: {batch_size: "010"}'),
        ("dedupe: yes", "dedupe: on"),
        ("merge: {max_failed: 10%}", 'merge: {max_failed: "10%", sort_by: }'),
        ("budget: {money: 2.5}", "budget: {money: 2.50}"),
        ("input_queue: [{path: d/t.csv}]", "input_queue: [{path: d/t.csv, label: t}]"),
        ("table: {columns: {RowID: a, Message: b}}", "table: {columns: {Message: b, RowID: a}}"),
    ],
)
def test_the_same_in_other_words_is_the_same(before: str, after: str) -> None:
    assert compared(read_job_text(before, "j")[1], read_job_text(after, "j")[1]) is None


def test_a_label_that_is_another_is_named() -> None:
    before = {"input_queue": [{"path": "d/t.csv"}]}
    after = {"input_queue": [{"path": "d/t.csv", "label": "march"}]}
    assert compared(before, after) == "the job differs at input_queue"


def test_the_delimiter_of_a_tsv_is_a_tab_until_somebody_says_another() -> None:
    comma, tab = {"table": {"delimiter": ","}}, {"table": {"delimiter": "\t"}}
    assert compared({}, comma) is None
    assert compared({}, tab) == "the job differs at table.delimiter"
    for names in (("t.tsv",), ("t.tsv.gz",), ("a.csv", "t.tab")):
        assert compared({}, comma, files(*names)) == "the job differs at table.delimiter"
    assert compared({}, tab, files("t.tsv")) is None
    assert compared({}, tab, files("a.csv", "t.tsv")) == "the job differs at table.delimiter"


def test_a_job_of_another_version_is_compared_as_far_as_it_is_known() -> None:
    """Keys that only a newer version has count as they are written; so does a value that is none here."""
    seed = read_job_text(SEED, "j")[1]
    newer = together(seed, {"model": {"temper": "hot"}, "newer": {"key": "1"}})
    assert compared(newer, newer) is None
    assert compared(newer, together(newer, {"dedupe": "true"})) is None
    assert compared(newer, together(newer, {"newer": {"key": "2"}})) == "the job differs at newer.key"
    assert compared(newer, seed) == "the job differs at model.temper"
    assert compared(seed, together(seed, {"newer": {"key": None}, "more": None})) is None
    strange = together(seed, {"merge": {"condition": "most"}})
    assert compared(strange, strange) is None
    assert compared(strange, seed) == "the job differs at merge.condition"
