"""`prism init`: the files are usable at once, nothing is overwritten, and nobody's names break them."""

import csv
import io
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prism.annotation import PromptFile
from prism.runs.job import Job, read_job
from prism_cli import init
from prism_cli.__main__ import main
from prism_merger.volume import NameTaken

FEEDBACK = Path(__file__).parents[3] / "examples" / "feedback" / "feedback.csv"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text(
        "id;text\n1;Late again, sorry\n2;Well done\n", encoding="utf-8"
    )
    return tmp_path


def read(folder: Path) -> tuple[Job, PromptFile]:
    job, _ = read_job(folder / "job_config.yaml")
    return job, PromptFile.parse((folder / job.prompts.config_file).read_bytes())


def test_the_files_are_there_and_can_be_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "data/rows.csv", "--model", "llama3.2", "--columns", "Topic, Reason"]) == 0
    job, prompt = read(folder)
    assert (job.project.name, job.model.name) == ("rows", "llama3.2")
    assert [(one.path, one.label) for one in job.input_queue] == [("data/rows.csv", "rows")]
    assert (job.table.delimiter, job.table.columns) == (";", {"RowID": "id", "Message": "text"})
    assert job.prompts.config_file == "prompts/rows_prompt.json"
    assert prompt.columns_to_code == ("Topic", "Reason")
    assert prompt.warnings == ()
    told = capsys.readouterr()
    assert "text" in told.out
    assert "next:  prism run job_config.yaml --dry-run" in told.err
    assert sorted(os.listdir(folder)) == ["data", "job_config.yaml", "prompts"]
    assert os.listdir(folder / "prompts") == ["rows_prompt.json"]


def test_all_that_is_not_decided_is_as_it_is_without(folder: Path) -> None:
    assert main(["init", "data/rows.csv"]) == 0
    job, _ = read(folder)
    changed = {"project", "input_queue", "table", "prompts"}
    assert job.model_dump(exclude=changed) == Job().model_dump(exclude=changed)


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(FEEDBACK), "--json", "--project", "shop", "--output", "new/place"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    found = json.loads(told.out)
    assert found["job"] == "new/place/job_config.yaml"
    assert found["prompt"] == "new/place/prompts/shop_prompt.json"
    assert (found["message"], found["row_id"], found["rows_seen"]) == ("Message", "RowID", 500)
    assert found["next"] == "prism run new/place/job_config.yaml"
    job, _ = read(folder / "new" / "place")
    assert (folder / "new" / "place" / job.input_queue[0].path).resolve() == FEEDBACK


def test_nothing_is_overwritten_unless_it_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "job_config.yaml").write_text("mine")
    assert main(["init", "data/rows.csv"]) == 3
    assert capsys.readouterr().err == (
        "prism: there already, so nothing was written (job_config.yaml); "
        "--force replaces it, --output DIR writes elsewhere\n"
    )
    assert (folder / "job_config.yaml").read_text() == "mine"
    assert not (folder / "prompts").exists()
    assert main(["init", "data/rows.csv", "--force"]) == 0
    assert read(folder)[0].project.name == "rows"


def test_a_file_that_comes_meanwhile_is_not_overwritten(folder: Path) -> None:
    path = folder / "job_config.yaml"
    path.write_text("mine")
    with pytest.raises(NameTaken):
        init._write_one(path, b"theirs", force=False)
    assert path.read_text() == "mine"
    assert sorted(os.listdir(folder)) == ["data", "job_config.yaml"]


def test_a_death_in_the_middle_leaves_no_half_of_a_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prism_merger.volume.os.fsync", die)
    for words in (["init", "data/rows.csv"], ["init", "data/rows.csv", "--force"]):
        assert main(words) == 130
        assert not list(folder.glob("job_config*"))
        assert not list((folder / "prompts").iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data"], "this is a folder"),
        (["none.csv"], "there is no such file"),
        (["data/rows.csv", "--columns", "RowID"], "reserved for the row's identity"),
        (["data/rows.csv", "--columns", "A,a"], "stands there twice"),
        (["data/rows.csv", "--output", "data/rows.csv"], "cannot be written: "),
        (["data/\udcff.csv"], "the file's name is not UTF-8"),
        (["data/long.csv"], "too long for a job file"),
    ],
)
def test_what_goes_wrong_is_one_line_and_exit_3(
    folder: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "data" / "\udcff.csv").write_text("Message\nhello\n")
    (folder / "data" / "long.csv").write_text("text " * 30_000 + "\nhello\n")
    assert main(["init", *words]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert says in told.err
    assert told.err.count("\n") == 1
    assert sorted(os.listdir(folder)) == ["data"]


def test_a_folder_with_an_odd_name_can_be_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = folder / "a b: #'\"\n{x} 👩‍💻"
    odd.mkdir()
    (odd / "1.10: NO.csv").write_text("Message\nhello\n")
    assert main(["init", str(odd / "1.10: NO.csv"), "--output", str(odd)]) == 0
    job, _ = read(odd)
    assert [one.path for one in job.input_queue] == ["1.10: NO.csv"]
    assert job.project.name == "1_10_NO"
    assert all(line.isprintable() for line in capsys.readouterr().err.splitlines())


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=25)
tables = st.lists(names, min_size=2, max_size=6, unique=True).filter(any)


@settings(max_examples=60, deadline=None)
@given(tables, names)
@example(["id: #1", 'the "text"', "NO", "1.10"], "null")
@example(["- a\n- b", "{x}", "!!python/name:os", "&a *a"], "\ufeff\x85\u2028")
@example(["Message text", "Sentiment ", "👩‍💻", "<<", "\\"], "~")
@example(["Message", "photo"], "a.jpg")
def test_whatever_the_columns_are_called_the_job_says_them(header: list[str], cell: str) -> None:
    stream = io.StringIO()
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerows(
        [header, *([f"{cell}{n}"] * len(header) for n in "ab")]
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "t.csv").write_bytes(stream.getvalue().encode())
        assert main(["init", str(folder / "t.csv"), "--output", name]) == 0
        job, prompt = read(folder)
    assert set(job.table.columns.values()) <= set(header)
    assert set(job.table.columns) <= {"RowID", "Message", "Title", "Sentiment"}
    assert not set(job.table.columns) & set(header)
    assert "Message" in {*job.table.columns, *header} or prompt.image_column
