"""The runner and the disk: projects, tables, prompt files, the job it writes, the files it brings."""

import gzip
import json
from argparse import Namespace
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from prism.runs.job import read_job
from prism.runs.project_settings import LogSettings, ProjectSettings
from prism_cli.exits import CommandFailed
from prism_cli.job_spec import read_spec
from prism_cli.runner import deliveries, draft, inspection, prompts
from prism_cli.runner.choices import Choices, ModelPick, PromptPick, RowPick, Wrong
from prism_cli.runner.deliveries import Leavings
from prism_cli.runner.inspection import Inspection
from prism_cli.runner.projects import Project, listed, unusable
from prism_cli.runner.surroundings import Surroundings

NOW = datetime(2026, 11, 21, 10, 11)
PROMPT = {
    "system_prompt": "Sort it.",
    "columns_to_code": ["Topic"],
    "validation_rules": {"valid_topic": ["A"]},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a project in it."""
    monkeypatch.chdir(tmp_path)
    Project("demo").create()
    return tmp_path


def looked_at(text: str | bytes, name: str = "t.csv", settings: ProjectSettings | None = None) -> Inspection:
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return inspection.inspect(Path(name), settings or ProjectSettings(), Path("data-dir"), {})


def chosen(**changes: object) -> Choices:
    found = Choices(
        "demo", Path("t.csv"), False, PromptPick(None, PROMPT), ModelPick("m"), 2, RowPick(1, 2, 3)
    )
    return replace(found, **changes)  # type: ignore[arg-type]


# Projects


def test_a_project_has_the_folders_of_settings_json(here: Path) -> None:
    folders = [
        "analytics",
        "checkpoints",
        "data/inputs",
        "data/outputs",
        "logs/summaries",
        "logs/terminal_logs",
    ]
    for folder in folders:
        assert (here / "projects" / "demo" / folder).is_dir()
    (here / "config").mkdir()
    (here / "config" / "settings.json").write_text('{"project_structure": {"mine": ["in"]}}')
    Project("other").create()
    assert sorted(one.name for one in (here / "projects" / "other").iterdir()) == ["mine"]
    assert listed() == ["demo", "other"]


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "a/b", "..", "x" * 101, "-rf", " a", "ü"])
def test_folders_that_cannot_be_projects_say_what_to_do(name: str) -> None:
    assert unusable(name).startswith("rename it")


def test_a_folder_of_v6_with_spaces_is_a_project_with_a_plain_name_in_run_ids() -> None:
    assert unusable("My survey 2") == ""
    assert Project("My survey 2").id == "My_survey_2"


# Tables


def test_a_good_table_has_its_rows_and_the_rows_that_will_fail(here: Path) -> None:
    seen = looked_at("RowID,Message\n1,good\n2,a,b\n3,\n\n4,x\0y\n")
    assert (seen.rows, seen.refused, seen.failing) == (4, "", 3)
    assert seen.troubles[0].startswith("line 3: has 3 cells, the header 2")
    assert seen.troubles[1].startswith("line 4: has an empty message")
    assert seen.troubles[2].startswith("line 6: has a NUL character")
    assert seen.written == "CSV, comma between cells"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "The file is empty"),
        (b"RowID,Message\n1,a\n1,b\n", "line 3, column 1: this row has the RowID of line 2"),
        (b"RowID,Message\n1,\xff\n", "The file is not UTF-8: line 2"),
        (b'RowID,Message\n1,"never\n', "A quote is never closed: line 2"),
        (b"RowID,Message,Message\n1,a,b\n", "Two columns have the same name"),
    ],
)
def test_a_table_that_is_refused_says_where_and_what(here: Path, content: bytes, said: str) -> None:
    seen = looked_at(content)
    assert said in seen.refused
    assert seen.rows == 0


def test_what_settings_json_requires_is_required_here_too(here: Path) -> None:
    settings = ProjectSettings(required_input_columns=["RowID", "Message"])
    assert "RowID" in looked_at("Message\nhello there\n", settings=settings).refused
    assert looked_at("Message\nhello there\n").refused == ""


def test_another_delimiter_is_told_to_the_job(here: Path) -> None:
    seen = looked_at("RowID;Message\n1;hello you\n2;and me too\n")
    assert (seen.refused, seen.rows, seen.table) == ("", 2, {"delimiter": ";"})


def test_other_formats_and_packed_files_are_tables_too(here: Path) -> None:
    lines = '{"RowID": "1", "Message": "hello there"}\n{"RowID": "2", "Message": " "}\n'
    seen = looked_at(lines, "t.jsonl")
    assert (seen.refused, seen.rows, seen.written) == ("", 2, "JSON lines")
    assert seen.troubles == ("row 2: has an empty message; there is nothing to ask about",)
    packed = looked_at(gzip.compress(b"RowID\tMessage\n1\thello there\n"), "t.tsv.gz")
    assert (packed.refused, packed.rows) == ("", 1)
    assert packed.sample is not None
    assert packed.sample.rows == (("1", "hello there"),)
    assert looked_at(b"no gzip", "u.csv.gz").refused.startswith("The file is not packed as its name says")


def test_columns_called_otherwise_are_mapped_in_the_job(here: Path) -> None:
    seen = looked_at("id,comment\n1,hello there you\n2,and me too\n")
    assert (seen.refused, seen.rows) == ("", 2)
    assert seen.table == {"columns": {"RowID": "id", "Message": "comment"}}


def test_what_is_no_file_is_refused_in_words(here: Path) -> None:
    missing = inspection.inspect(Path("nothing.csv"), ProjectSettings(), Path("d"), {})
    assert missing.refused
    assert "Traceback" not in missing.refused


# Prompts


def test_the_projects_own_prompt_comes_first_then_the_shared_then_a_proposal(here: Path) -> None:
    for name in ("projects/demo/prompt.json", "config/prompts/default_prompt.json", "prompts/b.json"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(json.dumps(PROMPT))
    Path("prompts/a.json").write_text("{")
    found = prompts.found(Project("demo"), looked_at("Message\nhello there\n"))
    names = [
        "projects/demo/prompt.json",
        "config/prompts/default_prompt.json",
        "prompts/a.json",
        "prompts/b.json",
    ]
    assert [one.name for one in found[:-1]] == names
    assert found[-1].pick.path is None
    assert found[-1].columns == ("Topic", "Sentiment", "Urgency", "Key_Point")
    assert found[2].problem
    assert prompts.own(Project("demo")) == Path("projects/demo/prompt.json")
    with pytest.raises(Wrong, match=r"prompts/a\.json"):
        prompts.named("prompts/a.json")


def test_without_any_prompt_file_a_proposal_comes_first(here: Path) -> None:
    found = prompts.found(Project("demo"), looked_at("Message\nhello there\n"))
    assert [one.pick.path for one in found] == [None]


# The job


def options() -> Namespace:
    return Namespace(version=None, workers=None, model=None, rows=None)


def test_the_job_can_be_run_again_by_prism_run(here: Path) -> None:
    seen = looked_at("RowID;Message\n1;hello you\n2;and me too\n3;x y\n", "projects/demo/data/inputs/t.csv")
    choices = chosen(input=seen.path)
    before = draft.spec(Project("demo"), choices, seen, options())
    path = draft.write(Project("demo"), choices, seen, NOW)
    spec = read_spec(path, options())
    assert (spec.job, spec.prompt) == (before.job, before.prompt), "what was foretold is what is run"
    assert (spec.job.project.name, spec.job.project.version) == ("demo", "v_public")
    assert spec.files[0].label == "r1-2"
    assert spec.files[0].ranges == [(1, 2)]
    assert spec.job.output.directory == "projects/demo/data/outputs"
    assert spec.job.table.delimiter == ";"
    assert spec.prompt == PROMPT
    assert json.loads(Path("projects/demo/prompt.json").read_text()) == PROMPT
    draft.write(Project("demo"), choices, seen, NOW)
    assert not Path("projects/demo/prompt_2.json").exists(), "the same proposal is the same file"


def test_a_prompt_of_the_project_is_never_replaced_by_a_proposal(here: Path) -> None:
    Path("projects/demo/prompt.json").write_text("mine")
    draft.write(Project("demo"), chosen(), looked_at("RowID,Message\n1,a\n2,b\n3,c\n"), NOW)
    assert Path("projects/demo/prompt.json").read_text() == "mine"
    assert read_job(Path("projects/demo/job.yaml"))[0].prompts.config_file == "prompt_2.json"


def test_all_rows_are_no_range_and_hostile_names_are_quoted(here: Path) -> None:
    name = 'a "b": #c {x}\\n.csv'
    seen = looked_at("RowID,Message\n1,a\n2,b\n3,c\n", name)
    path = draft.write(Project("demo"), chosen(input=Path(name), rows=RowPick(1, 3, 3)), seen, NOW)
    spec = read_spec(path, options())
    assert spec.files[0].ranges == []
    assert spec.files[0].source.path.resolve() == (here / name).resolve()


def test_a_copy_is_made_once_and_never_over_another_file(here: Path) -> None:
    seen = looked_at("RowID,Message\n1,a\n2,b\n3,c\n")
    choices = chosen(copy=True)
    draft.write(Project("demo"), choices, seen, NOW)
    copied = Path("projects/demo/data/inputs/input.csv")
    assert copied.read_bytes() == Path("t.csv").read_bytes()
    assert read_job(Path("projects/demo/job.yaml"))[0].input_queue[0].path == "data/inputs/input.csv"
    Path("projects/demo/data/inputs/t.csv").write_text("somebody's own")
    with pytest.raises(CommandFailed, match="another file has this name"):
        draft.write(Project("demo"), choices, seen, NOW)
    assert Path("projects/demo/data/inputs/t.csv").read_text() == "somebody's own"
    assert not list(Path("projects/demo/data/inputs").glob(".*"))


def test_the_last_run_is_remembered_by_the_job_it_left(here: Path) -> None:
    world = Surroundings(Namespace(), {})
    assert world.last(Project("demo")).input is None
    seen = looked_at("RowID,Message\n1,a\n2,b\n3,c\n")
    draft.write(Project("demo"), chosen(), seen, NOW)
    last = world.last(Project("demo"))
    assert (last.input, last.prompt) == (Path("t.csv"), Path("projects/demo/prompt.json"))
    assert (last.model, last.batch_size, last.rows) == ("m", 2, "1-2")
    Path("projects/demo/job.yaml").write_text("garbage: [")
    assert world.last(Project("demo")).model is None


# What a run leaves


def test_the_four_files_come_to_their_places_in_the_project(here: Path) -> None:
    there = here / "elsewhere"
    (there / "logs").mkdir(parents=True)
    for name in ("run_r1.log", "summary_r1.md", "analytics_r1.csv"):
        (there / "logs" / name).write_text(name)
    (there / "r1_r1-2.csv").write_text("rows")
    left = Leavings("r1", (str(there / "r1_r1-2.csv"),), there / "logs")
    found = deliveries.deliver(Project("demo"), left, LogSettings())
    assert [(one.name, one.path) for one in found] == [
        ("results", "projects/demo/data/outputs/r1_r1-2.csv"),
        ("log", "projects/demo/logs/terminal_logs/run_r1.log"),
        ("summary", "projects/demo/logs/summaries/summary_r1.md"),
        ("analytics", "projects/demo/analytics/analytics_r1.csv"),
    ]
    for one in found:
        assert one.path is not None
        assert Path(one.path).read_text() in ("rows", Path(one.path).name)
    (there / "logs" / "report_r1.html").write_text("plots")
    assert deliveries.deliver(Project("demo"), left, LogSettings())[4].path == "elsewhere/logs/report_r1.html"
    (there / "logs" / "report_r1.html").unlink()
    settings = LogSettings(save_terminal_logs=False, create_summaries=False, create_analytics=False)
    assert [one.name for one in deliveries.deliver(Project("demo"), left, settings)] == ["results"]


def test_what_is_not_there_is_said_and_what_lies_in_its_place_stays(here: Path) -> None:
    output = here / "projects" / "demo" / "data" / "outputs" / "r1_r1-2.csv"
    output.write_text("rows")
    left = Leavings("r1", (str(output), "s3://far/r1.csv"), here / "nowhere")
    found = deliveries.deliver(Project("demo"), left, LogSettings())
    assert found[0].path == "projects/demo/data/outputs/r1_r1-2.csv"
    assert output.read_text() == "rows"
    assert (found[1].path, found[1].why) == ("s3://far/r1.csv", "not on this machine: prism fetch brings it")
    assert [(one.path, bool(one.why)) for one in found[2:]] == [(None, True)] * 3
    nothing = deliveries.deliver(Project("demo"), Leavings("r1", (), here), LogSettings())
    assert (nothing[0].path, nothing[0].why) == (None, "no output was published")
