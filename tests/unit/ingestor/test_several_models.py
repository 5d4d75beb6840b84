"""An input file with several models: read once, parted once, fed model after model or abreast."""

import json
from pathlib import Path
from typing import Any

import pytest

from prism.messages import FileProgress, FileReason, Progress, RunRecord, RunState
from prism.runs.catalogue import Catalogue
from prism.runs.job import parse_job
from prism.runs.models import recorded_entries
from prism_ingestor.feeding import FileFeed, RunFeed
from tests.unit.ingestor.test_formats import Desk, csv_bytes
from tests.unit.ingestor.test_formats import desk as desk  # a fixture
from tests.unit.ingestor.test_parts import file_feed

MODEL = {"names": ["alpha", "beta"], "batch_size": "2"}


def checked_run(desk: Desk, files: list[Any], state: RunState = RunState.ACCEPTED, **job: Any) -> Any:
    fields = {"model": MODEL, **job}
    entries = recorded_entries(Catalogue(), parse_job(fields).model)
    desk.checker.submit(RunRecord(run_id="r", epoch=1, state=state, files=files, job=fields, **entries))
    return desk.checker.done.get(timeout=20)


def test_a_file_is_read_once_and_parted_for_each_model(desk: Desk) -> None:
    found = checked_run(desk, [desk.file(csv_bytes(), "t.csv")])
    assert found.reason is None, found.detail
    assert [(one.label, one.origin, one.model) for one in found.files] == [
        ("l.alpha", "l", "alpha"), ("l.beta", "l", "beta"),
    ]  # fmt: skip
    assert {(one.rows, one.batches, one.sha256) for one in found.files} == {(3, 2, found.files[0].sha256)}
    assert found.plains[0] is found.plains[1]


@pytest.mark.promise(4)
def test_whoever_takes_over_finds_it_parted_and_reads_it_once_more(desk: Desk) -> None:
    first = checked_run(desk, [desk.file(csv_bytes(), "t.csv")])
    again = checked_run(desk, list(first.files), RunState.RUNNING)
    assert again.reason is None, again.detail
    assert again.files == first.files
    assert again.plains[0] is again.plains[1]
    assert [one.name for one in desk.spool.rglob("*.raw")] in ([], ["l.raw"])


def test_two_files_that_would_have_one_name_are_refused(desk: Desk) -> None:
    one, other = desk.file(csv_bytes(), "t.csv"), desk.file(csv_bytes(), "u.csv")
    files = [one.model_copy(update={"label": "x"}), other.model_copy(update={"label": "x.alpha"})]
    found = checked_run(desk, files)
    assert found.reason is None
    files = [
        files[0],
        files[1].model_copy(update={"label": "x.alpha", "model": "alpha", "origin": "x.alpha"}),
    ]
    found = checked_run(desk, files)
    assert found.reason is FileReason.BAD_JOB
    assert "x.alpha" in found.detail


@pytest.mark.parametrize("key", ["sort_by", "columns"])
def test_the_output_columns_are_those_of_the_models(desk: Desk, key: str) -> None:
    def job(column: str) -> dict[str, Any]:
        return {"merge": {"sort_by": column}} if key == "sort_by" else {"output": {"columns": [column]}}

    coded = json.loads((desk.data.parent / "jobs" / "prompt.json").read_text())["columns_to_code"][0]
    assert checked_run(desk, [desk.file(csv_bytes(), "t.csv")], **job(f"{coded}_beta")).reason is None
    assert checked_run(desk, [desk.file(csv_bytes(), "t.csv")], **job("Error_alpha")).reason is None
    refused = checked_run(desk, [desk.file(csv_bytes(), "t.csv")], **job(coded))
    assert refused.reason is FileReason.BAD_JOB


def variants(folder: Path, labels: list[str]) -> list[FileFeed]:
    made = []
    for label in labels:
        feed = file_feed(folder / f"{label}.csv")
        feed.file = feed.file.model_copy(update={"label": label, "origin": label.split(".")[0], "model": "m"})
        made.append(feed)
    return made


def order(feed: RunFeed) -> list[str]:
    """Return the labels in the order in which their batches are fed."""
    found = []
    while (file := feed.current()) is not None:
        batch, cut = file.next_batch()
        file.tracker.fed(cut.start, cut.end, 0)
        found.append(batch.label)
    return found


def test_models_work_in_turns_or_abreast_file_by_file(tmp_path: Path) -> None:
    labels = ["x.a", "x.b", "y.a", "y.b"]
    in_turns = RunFeed("r", 5, 0, variants(tmp_path, labels))
    assert order(in_turns) == [label for label in labels for _ in range(3)]
    abreast = RunFeed("r", 5, 0, variants(tmp_path, labels), abreast=True)
    assert order(abreast) == ["x.a", "x.b"] * 3 + ["y.a", "y.b"] * 3


def test_credit_is_taken_for_each_variant(tmp_path: Path) -> None:
    feed = RunFeed("r", 5, 0, variants(tmp_path, ["x.a", "x.b"]), abreast=True)
    order(feed)
    assert feed.unmerged == 6
    feed.apply(Progress(run_id="r", files={"x.b": FileProgress(merged_through=2)}), 1.0)
    assert feed.unmerged == 4
