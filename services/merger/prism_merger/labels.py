"""How often each label was given, by column, counted as rows are merged.

Free text is no label: a column with too many different values, or with a long one, is dropped for good, and
so is the richest one while all columns together have too many. So an account, which is saved with every
commit, and a progress message stay small whatever a model says.
"""

from collections.abc import Mapping, Sequence

MOST_LABELS = 50
MOST_CHARACTERS = 60
MOST_IN_ALL = 400

# By the column's number in the prompt; None: dropped.
LabelCounts = list[dict[str, int] | None]


def count_labels(counts: LabelCounts, rows: Sequence[Sequence[str]]) -> None:
    """Count the values of some rows in."""
    if not rows:
        return
    if not counts:
        counts.extend({} for _ in rows[0])
    grown = False
    for number, values in enumerate(zip(*rows, strict=True)):
        column = counts[number]
        if column is None:
            continue
        before = len(column)
        for value in values:
            column[value] = column.get(value, 0) + 1
        if len(column) > before:
            grown = True
            if _is_free_text(column):
                counts[number] = None
    if grown:
        _drop_the_richest(counts)


def by_column(counts: LabelCounts, columns: Sequence[str]) -> dict[str, Mapping[str, int]]:
    """Return the counts under the columns' names, those of free text left out."""
    return {name: found for name, found in zip(columns, counts, strict=False) if found is not None}


def _is_free_text(column: Mapping[str, int]) -> bool:
    return len(column) > MOST_LABELS or max(map(len, column)) > MOST_CHARACTERS


def _drop_the_richest(counts: LabelCounts) -> None:
    sizes = [0 if column is None else len(column) for column in counts]
    while sum(sizes) > MOST_IN_ALL:
        richest = sizes.index(max(sizes))
        counts[richest], sizes[richest] = None, 0
