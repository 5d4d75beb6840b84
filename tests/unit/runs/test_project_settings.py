"""`settings.json`: a job takes from it where it is silent, and whatever is wrong is one line."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.runs.config_files import find_catalogue, find_settings
from prism.runs.job import Job, parse_job
from prism.runs.project_settings import (
    MAX_SETTINGS_BYTES,
    ProjectSettings,
    SettingsRefused,
    parse_settings,
    read_settings,
    with_settings,
)

WHOLE = {
    "checkpoint_interval": 70,
    "retry_attempts": 4,
    "retry_delay_seconds": 2.5,
    "required_input_columns": ["RowID", "Text"],
}


def settings(**fields: Any) -> ProjectSettings:
    return parse_settings(json.dumps(fields).encode())


def refusal(source: object) -> str:
    text = source if isinstance(source, bytes) else json.dumps(source).encode()
    with pytest.raises(SettingsRefused) as refused:
        parse_settings(text)
    line = str(refused.value)
    assert line.startswith("settings.json: ")
    assert "\n" not in line
    assert len(line) <= 400
    return line


def filled(fields: dict[str, Any], **said: Any) -> tuple[int, int, float, list[str]]:
    job = parse_job(with_settings(fields, settings(**said)))
    return job.output.checkpoints.interval, job.model.retries, job.model.delay, job.table.required_columns


def test_a_job_that_is_silent_takes_what_the_settings_say() -> None:
    assert filled({}, **WHOLE) == (70, 4, 2.5, ["RowID", "Text"])
    silent: dict[str, Any] = {
        "model": None,
        "output": {"checkpoints": ""},
        "table": {"required_columns": None},
    }
    assert filled(silent, **WHOLE) == (70, 4, 2.5, ["RowID", "Text"])


def test_a_job_that_speaks_is_heard() -> None:
    spoken: dict[str, Any] = {
        "model": {"retries": "7", "delay": "0", "name": "m"},
        "output": {"checkpoints": {"interval": "9"}},
        "table": {"required_columns": ["Message"]},
    }
    before = copy.deepcopy(spoken)
    assert filled(spoken, **WHOLE) == (9, 7, 0.0, ["Message"])
    assert spoken == before


def test_only_what_the_file_says_counts() -> None:
    assert parse_job(with_settings({}, read_settings(None))) == Job()
    job = parse_job(with_settings({}, settings(retry_attempts=5)))
    assert (job.model.retries, job.model.delay) == (5, Job().model.delay)
    # A missing RowID is numbered, unless somebody says that it must be there.
    assert job.table.required_columns == ["Message"]
    assert filled({}, required_input_columns=["RowID", "Message"])[3] == ["RowID", "Message"]


trees = st.recursive(
    st.none() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["model", "output", "table", "checkpoints", "retries", "interval"]), inner
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["model", "output", "table", "merge"]), trees))
def test_whatever_a_job_says_it_is_not_changed(fields: dict[str, Any]) -> None:
    before = copy.deepcopy(fields)
    result = with_settings(fields, settings(**WHOLE))
    assert fields == before
    assert with_settings(result, settings(**WHOLE)) == result
    for section, value in fields.items():
        if isinstance(value, str | list) and value:
            assert result[section] == value


def test_all_keys() -> None:
    found = settings(
        input_filename="rows.csv",
        project_structure={"data": ["in", "out"], "notes of mine": []},
        log_settings={"create_summaries": False},
        interactive_version="v2",
        _comment="kept for later",
        **{"$schema": "x", "//": "y"},
    )
    assert found.project_structure == {"data": ["in", "out"], "notes of mine": []}
    assert (found.input_filename, found.interactive_version) == ("rows.csv", "v2")
    assert (found.log_settings.create_summaries, found.log_settings.create_analytics) == (False, True)
    assert settings(retry_attempts=None) == ProjectSettings()


def test_every_key_has_its_description() -> None:
    assert all(field.description for field in ProjectSettings.model_fields.values())


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON in UTF-8"),
        (b'{"a": 1, "a": 2}', "a key given twice"),
        (b'{"retry_attempts": NaN}', "NaN"),
        (b"[" * 1000, "deeper"),
        (b"[]", "must be an object with checkpoint_interval, retry_attempts"),
        (b"{}" + b" " * MAX_SETTINGS_BYTES, "more than 100000 bytes"),
        ({"retry_attempt": 1}, "retry_attempt: no such key; did you mean retry_attempts?"),
        ({"log_settings": {"zzz": 1}}, "log_settings.zzz: no such key; there are: save_terminal_logs"),
        ({"create_summaries": True}, "it belongs to another section: log_settings.create_summaries"),
        ({"retry_attempts": 0}, "retry_attempts: Input should be greater than or equal to 1 (it is '0')"),
        ({"retry_attempts": 1.5}, "retry_attempts"),
        ({"retry_attempts": True}, "retry_attempts: must be a number"),
        ({"retry_delay_seconds": False}, "retry_delay_seconds: must be a number"),
        ({"retry_delay_seconds": -1}, "retry_delay_seconds"),
        ({"checkpoint_interval": "often"}, "checkpoint_interval"),
        ({"required_input_columns": "RowID"}, "required_input_columns: must be a list (it is 'RowID')"),
        ({"required_input_columns": [None]}, "required_input_columns.0"),
        ({"input_filename": "../input.csv"}, "input_filename: must be a plain name"),
        ({"input_filename": ""}, "input_filename: must be a plain name"),
        ({"project_structure": {"../up": []}}, "project_structure.../up: must be a plain name"),
        ({"project_structure": {"data": ["/etc"]}}, "project_structure.data.0: must be a plain name"),
        ({"project_structure": {"data": "inputs"}}, "project_structure.data: must be a list"),
        ({"project_structure": ["data"]}, "project_structure: must be a mapping"),
        ({"log_settings": {"create_analytics": "maybe"}}, "log_settings.create_analytics"),
        ({"log_settings": []}, "log_settings: must be a mapping"),
        ({"interactive_version": "a b"}, "interactive_version: not allowed; version of"),
        ({"\n" * 300: 1}, "no such key"),
    ],
)
def test_what_is_wrong_is_one_line(source: object, says: str) -> None:
    assert says in refusal(source)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "settings.json").mkdir()
    with pytest.raises(SettingsRefused, match=r"settings\.json: cannot be read: Is a directory"):
        read_settings(tmp_path / "settings.json")


@pytest.mark.parametrize(
    ("find", "name"), [(find_settings, "settings.json"), (find_catalogue, "models.json")]
)
def test_the_nearest_file_counts(tmp_path: Path, find: Any, name: str) -> None:
    job, here = tmp_path / "jobs" / "job_config.yaml", tmp_path / "here"
    places = [here / "config", tmp_path / "jobs" / "config", tmp_path / "jobs"]
    assert find(job, here) is None
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("{}")
        assert find(job, here) == place / name


def test_without_a_folder_it_is_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "settings.json").write_text('{"retry_attempts": 2}')
    assert read_settings(find_settings(Path("elsewhere/job.yaml"))).retry_attempts == 2


def test_a_link_to_nowhere_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "settings.json").symlink_to(tmp_path / "gone")
    with pytest.raises(SettingsRefused, match="cannot be read: No such file"):
        read_settings(find_settings(tmp_path / "job.yaml"))
