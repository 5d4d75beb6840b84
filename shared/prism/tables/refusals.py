"""The one error of this package: a file that is refused whole."""

from collections.abc import Sequence

from prism.messages.reasons import FileReason

SHOWN_NAMES = 12  # of the columns that an error text lists
SHOWN_CHARS = 60  # of a name that an error text repeats: enough to recognise it, too little to flood a log


class TableRefused(Exception):
    """A file cannot be used at all; nothing of it may reach a model.

    The caller must not retry: the same bytes are refused again. `str()` is one line that says where,
    what, and what to do next; it repeats names of columns, never the text of a row.

    Attributes:
        reason: the typed reason that manifests and dead letters show.
        detail: what is wrong and what to do next, without the place.
        line: physical line, from 1; None where no single line is to blame.
        column: character position in that line, from 1 (a BOM not counted); None where it is not known.
    """

    def __init__(
        self, reason: FileReason, detail: str, *, line: int | None = None, column: int | None = None
    ) -> None:
        super().__init__(reason, detail, line, column)
        self.reason = reason
        self.detail = detail
        self.line = line
        self.column = column

    def __str__(self) -> str:
        if self.line is None:
            return self.detail
        if self.column is None:
            return f"line {self.line}: {self.detail}"
        return f"line {self.line}, column {self.column}: {self.detail}"


def shown(name: str) -> str:
    """A column's name as an error text may repeat it: quoted, shortened, no control characters."""
    short = name if len(name) <= SHOWN_CHARS else name[: SHOWN_CHARS - 1] + "…"
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short) + '"'


def listed(names: Sequence[str]) -> str:
    """Columns as an error text may list them: what there is, for somebody who looked for something else."""
    more = f", and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return f"there are: {', '.join(map(shown, names[:SHOWN_NAMES]))}{more}"
