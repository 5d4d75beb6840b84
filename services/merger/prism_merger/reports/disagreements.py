"""`disagreements.csv`: the rows on which models that answered differ, with what each of them gave."""

from collections.abc import Sequence

from prism.tables import neutralise, render_line
from prism_merger.reports.facts import Facts
from prism_merger.reports.findings import Difference

DIFFERS = "Differs_in"
_SEPARATOR = ", "


class Listing:
    """The file's lines. The input's label comes first where there are several inputs.

    Every cell is made harmless, the input's own too: this is for people, and goes nowhere else.
    """

    def __init__(self, facts: Facts, shown: Sequence[str]) -> None:
        self._several = len(facts.files) > 1
        self._row = "RowID" if any("RowID" in one.columns for one in facts.files) else "Row"
        self._shown = list(shown)

    def header(self) -> bytes:
        """Return the first line."""
        first = ["File"] if self._several else []
        return _line([*first, self._row, "Message", *self._shown, DIFFERS])

    def line(self, one: Difference) -> bytes:
        """Return a row's line. A row without a RowID is named by its number in the file."""
        first = [one.label] if self._several else []
        given = [answer for answers in one.answers for answer in answers.given]
        names = [answers.column for answers in one.answers if answers.differ]
        return _line([*first, one.row_id or str(one.row), one.message, *given, _SEPARATOR.join(names)])


def _line(cells: Sequence[str]) -> bytes:
    return render_line([neutralise(one) for one in cells]).encode()
