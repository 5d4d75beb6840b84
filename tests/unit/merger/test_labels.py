"""Labels are counted as rows are merged: exactly those of the output, and never too many."""

import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.messages import Result, RunRecord
from prism_merger.accounts import run_from_json, run_to_json
from prism_merger.labels import (
    MOST_CHARACTERS,
    MOST_IN_ALL,
    MOST_LABELS,
    LabelCounts,
    by_column,
    count_labels,
)
from tests.unit.merger.world import World, result, run_record, shuffled

ROWS = 95


def results_of(record: RunRecord) -> list[Result]:
    return [result(record, number) for number in range(10)]


def in_the_output(world: World, column: str) -> dict[str, int]:
    text = world.files()["r1_march.csv"].decode()
    return Counter(row[column] for row in csv.DictReader(text.splitlines(True)) if not row["Error"])


@pytest.mark.promise(1)
def test_the_counts_are_those_of_the_output_whatever_comes_twice(tmp_path: Path) -> None:
    record = run_record(rows=ROWS)
    world = World(tmp_path, [record])
    found = shuffled(results_of(record), 7)
    world.merge(found[:4])
    world.merge([*found[2:6], found[0]], 4)
    before = world.run().labels
    world.close()
    world = World(tmp_path, [record], world.outlet)  # another life: the store knows
    assert world.run().labels == before
    world.merge([*found, *found], 9)
    run = world.finish()
    told = world.outlet.told[-1]
    assert set(told.labels) == {"Topic", "Urgency"}
    for column, counts in told.labels.items():
        assert counts == in_the_output(world, column)
        assert sum(counts.values()) == run.ok < ROWS
    assert "'=Billing" in told.labels["Topic"]  # as it stands in the output, made harmless
    world.close()


def test_what_was_counted_and_not_committed_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run_record(rows=ROWS)
    world = World(tmp_path, [record])
    world.merge([result(record, 0)])
    before = json.dumps(world.run().labels)

    def full(_: Mapping[int, int]) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(world.store, "set_offsets", full)
    with pytest.raises(OSError, match="disk full"):
        world.merge([result(record, 1)], 1)
    world.ledger.reload()
    assert json.dumps(world.run().labels) == before
    world.close()


def test_free_text_is_dropped_for_good(tmp_path: Path) -> None:
    counts: LabelCounts = []
    count_labels(counts, [["a", "short", f"text {number}"] for number in range(MOST_LABELS)])
    count_labels(counts, [["b", "x" * MOST_CHARACTERS, "text 0"]])
    assert [column and len(column) for column in counts] == [2, 2, MOST_LABELS]
    count_labels(counts, [["b", "x" * (MOST_CHARACTERS + 1), "one more"]])
    count_labels(counts, [["b", "short", "text 0"]])
    assert counts == [{"a": MOST_LABELS, "b": 3}, None, None]
    assert by_column(counts, ["A", "B", "C"]) == {"A": {"a": MOST_LABELS, "b": 3}}
    record = run_record()
    world = World(tmp_path, [record])
    run = world.run()
    run.labels = counts
    assert run_from_json(run_to_json(run), run.files).labels == counts
    world.close()


def test_an_account_that_counted_no_labels_cannot_catch_up(tmp_path: Path) -> None:
    record = run_record(rows=ROWS)
    world = World(tmp_path, [record])
    world.merge([result(record, 0)])
    run = world.run()
    old = json.loads(run_to_json(run))
    del old["labels"]
    loaded = run_from_json(json.dumps(old), run.files)
    assert loaded.labels == []
    world.ledger.runs["r1"] = loaded
    world.merge([result(record, number) for number in range(1, 10)], 1)
    assert world.finish().labels == []
    assert world.outlet.told[-1].labels == {}
    world.close()


@given(
    st.integers(1, 30).flatmap(
        lambda width: st.lists(
            st.lists(st.text(max_size=80) | st.sampled_from("abc"), min_size=width, max_size=width),
            max_size=40,
        )
    ),
    st.integers(1, 9),
)
def test_what_is_kept_is_exact_and_bounded(rows: list[list[str]], size: int) -> None:
    counts: LabelCounts = []
    for start in range(0, len(rows), size):
        count_labels(counts, rows[start : start + size])
    assert sum(len(column or ()) for column in counts) <= MOST_IN_ALL
    for number, column in enumerate(counts):
        values = [row[number] for row in rows]
        if column is not None:
            assert column == Counter(values)
            assert max(map(len, column)) <= MOST_CHARACTERS


def test_many_columns_of_many_labels_stay_small(tmp_path: Path) -> None:
    counts: LabelCounts = []
    width = 500
    for row in range(60):
        count_labels(counts, [[f"{row % (number % 60 + 1)}" * 20 for number in range(width)]])
    assert 0 < sum(len(column or ()) for column in counts) <= MOST_IN_ALL
    record = run_record()
    world = World(tmp_path, [record])
    world.run().labels = counts
    assert len(run_to_json(world.run())) < 100_000
    world.close()
