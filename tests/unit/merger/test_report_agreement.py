"""How far models agree: what the libraries say of the rows themselves, from counts that have an end."""

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.metrics.agreement import AnnotationTask

from prism_merger.reports.agreement import MOST_LABELS, MOST_PAIRS, Agreement, cohen, contingency
from prism_merger.reports.counting import BoundedCounter
from prism_merger.reports.findings import ColumnAgreement, Vocabulary

LABEL = st.sampled_from(["Billing", "'=Sum", "Other", "", "日本語"])


def counted(rows: Sequence[Sequence[str | None]], models: int) -> ColumnAgreement:
    names = [f"m{number}" for number in range(models)]
    agreement = Agreement(names, [f"Topic_{name}" for name in names])
    for row in rows:
        agreement.add(row)
    return agreement.result("Topic", Vocabulary({"Billing": "Billing", "'=Sum": "=Sum"}))


@st.composite
def answers(draw: st.DrawFn) -> tuple[int, list[list[str | None]]]:
    models = draw(st.integers(2, 4))
    row = st.lists(st.none() | LABEL, min_size=models, max_size=models)
    return models, draw(st.lists(row, max_size=30))


@settings(max_examples=150, deadline=None)
@given(answers())
def test_alpha_is_what_the_library_says_of_the_rows(drawn: tuple[int, list[list[str | None]]]) -> None:
    models, rows = drawn
    found = counted(rows, models)
    whole = [row for row in rows if None not in row]
    assert (found.asked, found.rows) == (len(rows), len(whole))
    assert found.same == sum(len(set(row)) == 1 for row in whole)
    data = [(coder, item, label) for item, row in enumerate(whole) for coder, label in enumerate(row)]
    if len({label for _, _, label in data}) < 2:
        assert found.alpha is None
    else:
        assert found.alpha == pytest.approx(AnnotationTask(data).alpha(), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(answers())
def test_kappa_is_what_the_other_library_says_of_the_rows_that_both_answered(
    drawn: tuple[int, list[list[str | None]]],
) -> None:
    models, rows = drawn
    found = counted(rows, models)
    assert len(found.pairs) == models * (models - 1) // 2
    for pair in found.pairs:
        first, second = int(pair.first[1:]), int(pair.second[1:])
        both = [(row[first], row[second]) for row in rows if None not in (row[first], row[second])]
        assert (pair.rows, pair.same) == (len(both), sum(one == other for one, other in both))
        if len({label for two in both for label in two}) < 2:
            assert pair.kappa is None
            continue
        data = [(coder, item, label) for item, two in enumerate(both) for coder, label in enumerate(two)]
        assert pair.kappa == pytest.approx(AnnotationTask(data).kappa(), abs=1e-9)


def test_kappa_of_a_table_reckoned_by_hand() -> None:
    # Of 50: alike 35 (0.7); by chance 25/50 * 30/50 + 25/50 * 20/50 = 0.5; so (0.7 - 0.5) / 0.5.
    cells = {("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15}
    assert cohen(cells) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("rows", "kappa"),
    [
        ([], None),
        ([("x", None), (None, "x")], None),
        ([("x", "x")] * 5, None),
        # Each gives one label alone: chance has them differ as always as they do.
        ([("x", "y")] * 5, 0.0),
    ],
)
def test_where_nothing_can_be_said_nothing_is(
    rows: list[tuple[str | None, str | None]], kappa: float | None
) -> None:
    found = counted(rows, 2)
    assert found.pairs[0].kappa == kappa
    assert found.alpha is None or math.isfinite(found.alpha)
    assert not found.crowded


def test_memory_has_an_end_and_shares_stay_exact() -> None:
    found = Agreement(["a", "b"], ["Topic_a", "Topic_b"])
    for number in range(3 * MOST_PAIRS):
        found.add((f"label {number}", f"label {number - number % 2}"))
    assert len(found._labels.counts) == MOST_LABELS
    assert {len(one.cells.counts) for one in found._pairs.values()} == {MOST_PAIRS}
    assert len(found._divisions) == 2
    result = found.result("Topic", Vocabulary())
    assert (result.crowded, result.alpha, result.pairs[0].kappa) == (True, None, None)
    assert (result.rows, result.same) == (3 * MOST_PAIRS, 3 * MOST_PAIRS // 2)
    assert result.pairs[0].same == result.same
    table = result.pairs[0].table
    assert table is not None
    assert table.total == 3 * MOST_PAIRS
    assert len(table.rows) == 13


def test_a_million_rows_take_no_more_than_their_kinds() -> None:
    kinds = [("x", "x", "y"), ("x", "y", "z"), ("z", "z", "z"), ("x", None, "x")]
    rows = random.Random(1).choices(kinds, k=400)
    bulk = Agreement(["a", "b", "c"], ["a", "b", "c"])
    for kind in kinds:
        bulk.add(kind, 2_500 * rows.count(kind))
    found, one_by_one = bulk.result("Topic", Vocabulary()), counted(rows, 3)
    assert found.asked == 1_000_000
    assert found.alpha == pytest.approx(one_by_one.alpha, abs=0.005)
    assert found.pairs[0].kappa == pytest.approx(one_by_one.pairs[0].kappa, abs=1e-9)


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("abcdexy"), st.integers(1, 5))))
def test_a_contingency_table_adds_up_and_has_the_same_labels_on_both_sides(
    pairs: list[tuple[str, str, int]],
) -> None:
    cells: BoundedCounter[tuple[str, str]] = BoundedCounter(20)
    for first, second, count in pairs:
        cells.add((first, second), count)
    table = contingency(("A", "B"), cells, Vocabulary({"b": "b", "a": "a"}), 4)
    if table is None:
        assert not pairs
        return
    assert table.total == sum(count for *_, count in pairs)
    assert table.rows == table.columns
    assert {len(row) for row in table.counts} == {len(table.counts)} == {len(table.rows)}
    if {"a", "b"} <= set(table.rows):
        assert table.rows.index("b") == 0
