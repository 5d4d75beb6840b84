"""What the reports count is what the rows say: nothing is lost, nothing twice."""

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism.tables import neutralise, render_line
from prism_merger.reports.blocks import Block, file_blocks, stored_blocks
from prism_merger.reports.counting import EDGES, BoundedCounter, Lengths
from prism_merger.reports.facts import FileFacts
from prism_merger.reports.findings import Origin, Vocabulary, cross_table, distribution
from prism_merger.reports.tally import count_rows
from prism_merger.store import RowReader
from tests.unit.merger.report_world import HOSTILE, Row, facts, finished

CELL = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(HOSTILE)
LABEL = st.sampled_from(["Billing", "=Sum", "Other", "-", "NONE", *HOSTILE])
ROW = st.tuples(CELL, st.none() | st.tuples(LABEL, LABEL, CELL))


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=80),
    most=st.integers(1, 40),
    top=st.integers(1, 25),
)
def test_a_distribution_adds_up(counts: list[tuple[int, int]], most: int, top: int) -> None:
    counted: BoundedCounter[str] = BoundedCounter(most)
    for value, count in counts:
        counted.add(str(value), count)
    whole = sum(count for _, count in counts)
    words = Vocabulary({"1": "one", "61": "never"}, frozenset({"2"}))
    for vocabulary in (None, words):
        one = distribution("c", vocabulary, counted)
        assert one.total == sum(part.count for part in one.top(top)) == whole
        assert one.total == sum(part.count for part in one.slices) + one.beyond
        assert len(one.top(top)) <= top + 1
        assert len(counted.counts) <= most


def test_a_long_tail_is_counted_together() -> None:
    counted: BoundedCounter[str] = BoundedCounter()
    for number in range(10_000):
        counted.add(f"label {number}", 1 + (number < 5))
    shown = distribution("c", None, counted).top()
    assert (len(shown), shown[-1].count, shown[-1].value) == (21, 10_005 - 25, "9,980 others")


@given(
    pairs=st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("uvwxyz"), st.integers(1, 5))),
    most=st.integers(1, 5),
    room=st.integers(1, 20),
)
def test_a_cross_table_adds_up(pairs: list[tuple[str, str, int]], most: int, room: int) -> None:
    counted: BoundedCounter[tuple[str, str]] = BoundedCounter(room)
    for first, second, count in pairs:
        counted.add((first, second), count)
    table = cross_table(("A", "B"), (Vocabulary(), Vocabulary()), counted, most)
    if table is None:
        assert not pairs
        return
    assert table.total == sum(count for *_, count in pairs)
    assert len(table.rows) == len(table.counts) <= most + 1
    assert {len(row) for row in table.counts} == {len(table.columns)}


@given(st.lists(st.integers(0, 3_000_000), min_size=1, max_size=50), st.floats(0, 1))
def test_quantiles_lie_among_the_lengths(found: list[int], share: float) -> None:
    lengths = Lengths()
    for one in found:
        bins = [0] * (len(EDGES) + 1)
        bins[next((number for number, edge in enumerate(EDGES) if edge >= one), len(EDGES))] = 1
        lengths.add(bins, one, one, one)
    exact = sorted(found)[max(0, -(-int(share * len(found) * 1_000_000) // 1_000_000) - 1)]
    got = lengths.quantile(share)
    assert min(found) <= got <= max(found)
    if exact <= EDGES[-1] and share in (0.0, 1.0):
        assert abs(got - exact) <= 0.25 * exact + 1
    assert lengths.mean == sum(found) / len(found)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=30), size=st.integers(1, 400))
def test_a_published_csv_is_cut_between_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], size: int
) -> None:
    lines = [render_line(row).encode() for row in rows]
    path = tmp_path_factory.mktemp("cut") / "x.csv"
    path.write_bytes(b'"a\nb",c\n' + b"".join(lines))
    blocks = [block.lines for block in file_blocks(path, size)]
    assert b"".join(blocks) == b"".join(lines)
    ends = {len(b"".join(lines[:number])) for number in range(len(lines) + 1)}
    assert {len(b"".join(blocks[:number])) for number in range(len(blocks) + 1)} <= ends


@pytest.mark.promise(1)
@settings(max_examples=25, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=40), batch=st.integers(1, 7))
def test_what_is_counted_is_what_was_merged(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], batch: int
) -> None:
    world = finished(tmp_path_factory.mktemp("w"), rows, batch=batch)
    found = count_rows(facts(world))
    assert not found.problem
    answers = [values for _, values in rows if values is not None]
    for number, one in enumerate(found.distributions[:2]):
        expected = Counter(neutralise(values[number])[:200] for values in answers)
        got = {neutralise(part.value): part.count for part in one.slices if part.count}
        assert got == expected
        assert one.total == len(answers)
    assert sum(one.count for one in found.failures) == len(rows) - len(answers)
    assert found.cross is None if not answers else found.cross is not None
    assert sum(chain.from_iterable(one.rows for one in found.stretches)) == len(rows)
    assert sum(chain.from_iterable(one.failed for one in found.stretches)) == len(rows) - len(answers)
    world.close()


def test_labels_of_the_models_own_are_proposed_and_rules_are_not(tmp_path: Path) -> None:
    said = ["Billing", "=Sum", "Returns", "Returns", "NOT_APPLICABLE", "-", "NONE", "Other", "'odd"]
    rows: list[Row] = [(f"m {value}", (value, "neutral", "x")) for value in said]
    found = count_rows(facts(finished(tmp_path, rows)))
    assert [(one.value, one.count) for one in found.organic] == [("Returns", 2), ("'odd", 1)]
    assert [(one.row_id, one.text) for one in found.organic[0].samples] == [
        ("3", "m Returns"),
        ("4", "m Returns"),
    ]
    origins = {part.value: part.origin for part in found.distributions[0].slices}
    assert origins["=Sum"] is Origin.LISTED
    assert origins["-"] is origins["NOT_APPLICABLE"] is Origin.RULED
    assert {part.value: part.origin for part in found.distributions[1].slices}["neutral"] is Origin.RULED


@pytest.mark.parametrize("delimiter", ["§", "\t", " ", "\\"])
def test_any_delimiter(tmp_path: Path, delimiter: str) -> None:
    rows: list[Row] = [(f"{text}{delimiter}", (text, "good", "n")) for text in HOSTILE]
    found = count_rows(facts(finished(tmp_path, rows, delimiter=delimiter)))
    assert not found.problem
    assert found.distributions[0].total == len(rows)


def test_free_text_has_lengths_and_few_values_a_distribution(tmp_path: Path) -> None:
    few: list[Row] = [("m", ("Other", "good", "yes" if number % 3 else "no")) for number in range(30)]
    many: list[Row] = [("m", ("Other", "good", f"text {number}")) for number in range(40)]
    assert [one.column for one in count_rows(facts(finished(tmp_path / "a", few))).distributions][2:] == [
        "Note"
    ]
    found = count_rows(facts(finished(tmp_path / "b", many)))
    assert [one.column for one in found.distributions] == ["Topic", "Mood"]
    assert (found.free_texts[0].lengths.count, found.free_texts[0].lengths.most) == (40, 7)


def test_rows_that_are_gone_are_a_problem_not_a_wrong_number(tmp_path: Path) -> None:
    world = finished(tmp_path, [("m", ("Other", "good", "x")), ("n", None)] * 20)
    told = facts(world)
    with world.store.transaction():
        world.store.drop_rows(world.run().files["march"].file_id, 2)
    found = count_rows(told)
    assert "20 rows with 10 failed were read, 40 with 20 were merged" in found.problem
    assert (found.distributions, [(one.reason, one.count) for one in found.failures]) == (
        (),
        [("not_json", 20)],
    )


def test_after_a_lost_volume_the_published_file_is_read(tmp_path: Path) -> None:
    world = finished(tmp_path, [("m\n\n", ("Other", "good", "x")), ("n", None)] * 20)
    kept = count_rows(facts(world))
    with world.store.transaction():
        while world.store.drop_rows(world.run().files["march"].file_id, 100):
            pass
    told = facts(world)
    assert not told.files[0].file_ids
    again = count_rows(told)
    assert again.distributions == kept.distributions
    assert [one.count for one in again.failures] == [20]
    (tmp_path / "output" / "r1_march.csv").write_text("RowID,Topic\n")
    assert "not in the store" in count_rows(facts(world)).problem


def test_blocks_have_an_end_in_rows_and_in_bytes(tmp_path: Path) -> None:
    world = finished(tmp_path, [("m" * 1000, ("Other", "good", "x"))] * 50)
    reader = RowReader(world.store.path)
    file_id = world.run().files["march"].file_id

    def sizes(**most: int) -> list[int]:
        return [
            sum(count for _, count in block.stretches or ())
            for block in stored_blocks(reader, file_id, **most)
        ]

    assert sizes(most_rows=20) == [20, 20, 10]
    assert sizes(most_bytes=10_000) == [10] * 5
    assert next(iter(stored_blocks(reader, file_id, most_rows=20))).stretches == ((0, 10), (10, 10))
    assert isinstance(next(iter(stored_blocks(reader, file_id))), Block)
    reader.close()


def test_samples_have_the_numbers_that_the_file_gives_its_rows() -> None:
    file = FileFacts(label="march", ranges=[(3, 4), (10, 12)])
    assert [file.number(ordinal) for ordinal in range(5)] == [3, 4, 10, 11, 12]
    assert FileFacts(label="march").number(7) == 8
