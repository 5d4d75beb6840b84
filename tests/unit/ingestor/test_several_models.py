"""An input file with several models: read once, parted once, fed model after model or abreast."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prism.messages import FileProgress, FileReason, ModelProgress, Progress, RunRecord, RunState
from prism.runs.catalogue import Catalogue
from prism.runs.job import parse_job
from prism.runs.models import recorded_entries
from prism_ingestor import checking
from prism_ingestor.budget import FIRST_BATCHES, Fed, Meter
from prism_ingestor.feeding import AWAY_S, FileFeed, RunFeed
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
    for label, model in (("x.alpha", ""), ("x.alpha", "alpha")):
        files = [
            one.model_copy(update={"label": "x"}),
            other.model_copy(update={"label": label, "model": model}),
        ]
        found = checked_run(desk, files)
        assert found.reason is FileReason.BAD_JOB
        assert "would be called x.alpha" in found.detail
    fine = [one.model_copy(update={"label": "x"}), other.model_copy(update={"label": "x.1"})]
    assert checked_run(desk, fine).reason is None


def test_a_retry_keeps_its_labels_whatever_others_are_called(desk: Desk) -> None:
    """What one model does of `x` was called as another input is, `x.alpha`."""
    labels = {"x.alpha": "x", "x.alpha.alpha": "x.alpha"}
    files = [
        desk.file(csv_bytes(), "t.csv").model_copy(
            update={"label": label, "origin": origin, "model": "alpha"}
        )
        for label, origin in labels.items()
    ]
    entries = recorded_entries(Catalogue(), parse_job({"model": MODEL}).model)
    retry = RunRecord(
        run_id="r.r1",
        epoch=1,
        state=RunState.ACCEPTED,
        parent="r",
        files=files,
        job={"model": MODEL},
        **entries,
    )
    desk.checker.submit(retry)
    found = desk.checker.done.get(timeout=20)
    assert found.reason is None, found.detail
    assert [(one.label, one.rows) for one in found.files] == [("x.alpha", 3), ("x.alpha.alpha", 3)]


@pytest.mark.parametrize("key", ["sort_by", "columns"])
def test_the_output_columns_are_those_of_the_models(desk: Desk, key: str) -> None:
    def job(column: str) -> dict[str, Any]:
        return {"merge": {"sort_by": column}} if key == "sort_by" else {"output": {"columns": [column]}}

    coded = json.loads((desk.data.parent / "jobs" / "prompt.json").read_text())["columns_to_code"][0]
    assert checked_run(desk, [desk.file(csv_bytes(), "t.csv")], **job(f"{coded}_beta")).reason is None
    assert checked_run(desk, [desk.file(csv_bytes(), "t.csv")], **job("Error_alpha")).reason is None
    refused = checked_run(desk, [desk.file(csv_bytes(), "t.csv")], **job(coded))
    assert refused.reason is FileReason.BAD_JOB


@pytest.mark.promise(9)
def test_a_run_that_outgrows_its_record_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ranges for each model it may be several times what was accepted."""
    ranges = [(number, number) for number in range(1, 20_000, 2)]
    asked = [desk.file(csv_bytes(), "t.csv", ranges=ranges)]
    monkeypatch.setattr(checking, "MAX_RUN_BYTES", 200_000)
    assert checked_run(desk, asked, model={"batch_size": "2"}).reason is None
    found = checked_run(desk, asked)
    assert found.reason is FileReason.TOO_LARGE
    assert "at most 200000" in found.detail
    assert [one.label for one in found.files] == ["l"]


@pytest.mark.parametrize(
    ("currencies", "said"),
    [
        (["USD", None], "models.json has none for beta"),
        (["USD", "EUR"], "models.json has prices in EUR and USD"),
        (["USD", "USD"], ""),
    ],
)
def test_a_budget_in_money_needs_every_models_price(
    desk: Desk, currencies: list[str | None], said: str
) -> None:
    found = priced_run(desk, currencies, budget={"money": "1"})
    assert (found.reason, said in found.detail) == (FileReason.BAD_JOB if said else None, True)
    assert priced_run(desk, currencies, budget={"tokens": "1"}).reason is None


def priced_run(desk: Desk, currencies: list[str | None], **job: Any) -> Any:
    fields = {"model": MODEL, **job}
    entries = {
        name: {"name": name, "price": {"prompt": "1", "completion": "2", "currency": one}} if one else {}
        for name, one in zip(["alpha", "beta"], currencies, strict=True)
    }
    files = [desk.file(csv_bytes(), "t.csv")]
    record = RunRecord(run_id="r", epoch=1, state=RunState.ACCEPTED, files=files, job=fields)
    desk.checker.submit(record.model_copy(update={"model_entries": entries}))
    return desk.checker.done.get(timeout=20)


@pytest.mark.parametrize(
    ("coded", "twice"), [(["Topic", "Topic_a"], "Topic_a_b"), (["Error"], "Error_b"), (["Topic"], "")]
)
def test_columns_that_would_have_one_name_are_refused(desk: Desk, coded: list[str], twice: str) -> None:
    prompt = {"system_prompt": "Classify.", "columns_to_code": coded}
    (desk.data.parent / "jobs" / "prompt.json").write_text(json.dumps(prompt))
    found = checked_run(desk, [desk.file(csv_bytes(), "t.csv")], model={"names": ["b", "a_b"]})
    assert (found.reason, twice in found.detail) == (FileReason.BAD_JOB if twice else None, True)
    assert (
        checked_run(
            desk, [desk.file(csv_bytes(), "t.csv")], model={"names": ["b", "a_b"], "mode": "split"}
        ).reason
        is None
    )


def test_the_files_of_all_models_together_are_as_many_as_a_run_may_have(desk: Desk) -> None:
    one = desk.file(csv_bytes(), "t.csv")
    files = [one.model_copy(update={"label": f"l{number}"}) for number in range(501)]
    found = checked_run(desk, files)
    assert found.reason is FileReason.BAD_JOB
    assert "501 files with 2 models are 1002 files of a run, at most 1000" in found.detail


def variants(folder: Path, labels: list[str], rows: int = 6) -> list[FileFeed]:
    made = []
    for label in labels:
        feed = file_feed(folder / f"{label}.csv", rows, batches=rows // 2)
        origin, model = label.split(".")
        feed.file = feed.file.model_copy(update={"label": label, "origin": origin, "model": model})
        made.append(feed)
    return made


def order(feed: RunFeed, window: int = 1000, now: float = 0.0) -> list[str]:
    """Feed while there is room; return the labels in the order in which their batches are fed."""
    found = []
    while (file := feed.current(window, now)) is not None:
        batch, cut = file.next_batch()
        file.tracker.fed(cut.start, cut.end, 0)
        found.append(batch.label)
    return found


def answer(feed: RunFeed, away: set[str], now: float) -> None:
    """Merge all that is fed, but for the models that are away."""
    merged = {
        one.file.label: FileProgress(merged_through=one.tracker.next.sequence)
        for one in feed.files
        if one.file.model not in away
    }
    feed.apply(Progress(run_id="r", files=merged), now)


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


WINDOW = 8


@pytest.mark.promise(9)
@pytest.mark.parametrize("models", [["a", "dead"], ["dead", "a"], ["dead", "a", "b"]])
@pytest.mark.parametrize("abreast", [True, False])
def test_a_model_that_is_away_takes_its_share_and_no_more(
    tmp_path: Path, models: list[str], abreast: bool
) -> None:
    labels = [f"{file}.{model}" for file in ("x", "y") for model in models]
    feed = RunFeed("r", 5, 0, variants(tmp_path, labels, rows=40), abreast=abreast)
    fed: list[str] = []
    now = 0.0
    for _ in range(200):
        fed += order(feed, WINDOW, now)
        assert feed.unmerged <= WINDOW
        answer(feed, {"dead"}, now)
        now += 1.0
    assert {label: fed.count(label) for label in labels if not label.endswith("dead")} == {
        label: 20 for label in labels if not label.endswith("dead")
    }
    assert WINDOW // len(models) <= fed.count("x.dead") <= WINDOW
    assert not feed.all_fed
    for _ in range(40):
        answer(feed, set(), now)
        fed += order(feed, WINDOW, now)
    assert feed.all_fed
    assert sorted(fed) == sorted(label for label in labels for _ in range(20))


def test_a_model_that_waits_for_another_does_so_while_that_is_slow(tmp_path: Path) -> None:
    feed = RunFeed("r", 5, 0, variants(tmp_path, ["x.slow", "x.b"], rows=40))
    merged = 0
    for now in range(0, 200, int(AWAY_S) - 1):
        assert set(order(feed, WINDOW, float(now))) == {"x.slow"}
        merged += 1
        feed.apply(Progress(run_id="r", files={"x.slow": FileProgress(merged_through=merged)}), now + 0.5)
    for now in range(200, 260, int(AWAY_S) - 1):
        assert order(feed, 2, float(now)) == []  # workers went: its share is smaller than what it has
        merged += 1
        feed.apply(Progress(run_id="r", files={"x.slow": FileProgress(merged_through=merged)}), now + 0.5)
    assert set(order(feed, WINDOW, 1000.0)) == {"x.slow"}
    assert order(feed, WINDOW, 1000.0 + AWAY_S - 0.1) == []
    assert order(feed, WINDOW, 1000.0 + AWAY_S) == ["x.b"] * (WINDOW // 2)


@given(
    st.lists(st.tuples(st.sets(st.sampled_from("abc")), st.integers(1, 12)), min_size=1, max_size=30),
    st.booleans(),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_models_together_stay_within_the_window(
    tmp_path: Path, steps: list[tuple[set[str], int]], abreast: bool
) -> None:
    labels = [f"{file}.{model}" for file in "xyz" for model in "abc"]
    feed = RunFeed("r", 5, 0, variants(tmp_path, labels), abreast=abreast)
    now = 0.0
    for away, pause in steps:
        order(feed, WINDOW, now)
        assert feed.unmerged <= WINDOW
        assert feed.unmerged == sum(one.tracker.unmerged for one in feed.files)
        now += 4.0 * pause
        answer(feed, away, now)


@pytest.mark.promise(4)
def test_whoever_takes_over_counts_what_was_fed_of_every_variant(tmp_path: Path) -> None:
    """Files behind the one that is fed now may have batches in the topic: these count as well."""
    labels = ["x.a", "x.b", "y.a", "y.b"]
    feed = RunFeed("r", 5, 0, variants(tmp_path, labels), abreast=True, recover_at=5)
    feed.found = {"x.a": {0: (0, 1)}, "y.a": {0: (0, 2), 1: (0, 3)}, "x.b": {0: (1, 1)}}
    feed.apply(Progress(run_id="r", read_to=5), 1.0)
    assert feed.unmerged == 4
    assert order(feed, 6) == ["x.b", "x.b"]
    merged = {"x.a": FileProgress(merged_through=1), "y.a": FileProgress(merged_through=2)}
    assert len(feed.apply(Progress(run_id="r", read_to=9, files=merged), 2.0)) == 3
    assert order(feed, 1000) == ["x.a", "x.a", "y.b", "y.b", "y.a", "y.b"]
    assert feed.all_fed


def test_batches_are_counted_for_the_model_that_they_go_to(tmp_path: Path) -> None:
    one = file_feed(tmp_path / "x.csv", rows=14, batches=7)
    one.job = parse_job({"model": {"names": ["a", "b", "c"], "mode": "split", "batch_size": "2"}})
    feed = RunFeed("r", 5, 0, [one])
    models = []
    while (file := feed.current(100, 0.0)) is not None:
        models.append(file.next_model)
        _, cut = file.next_batch()
        file.tracker.fed(cut.start, cut.end, 0)
    assert models == ["a", "b", "c", "a", "b", "c", "a"]
    feed.apply(Progress(run_id="r", files={"l": FileProgress(merged_through=4)}), 1.0)
    assert dict(one.fed_by_model()) == {"a": Fed(2, 1), "b": Fed(1, 1), "c": Fed(1, 1)}


@pytest.mark.promise(9)
def test_a_model_of_which_nothing_is_known_holds_up_no_other_under_a_budget(tmp_path: Path) -> None:
    job = {"model": {"names": ["a", "dead"], "batch_size": "2"}, "budget": {"tokens": "100000"}}
    meter = Meter.of(RunRecord(run_id="r", epoch=1, state=RunState.RUNNING, job=job))
    feed = RunFeed("r", 5, 0, variants(tmp_path, ["x.dead", "x.a"], rows=100), abreast=True, meter=meter)
    for _ in range(10):
        order(feed, 64)
        merged = feed.files[1].tracker.next.sequence
        own = ModelProgress(calls=merged, rows_ok=merged, prompt_tokens=merged)
        answered = {"x.a": FileProgress(merged_through=merged)}
        feed.apply(Progress(run_id="r", files=answered, prompt_tokens=merged, models={"a": own}), 1.0)
    assert feed.files[1].exhausted
    assert feed.files[0].tracker.next.sequence == FIRST_BATCHES
