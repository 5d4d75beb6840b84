"""Lines of a CSV, and a model's cells made harmless for whoever opens it."""

import re
import unicodedata
from collections.abc import Sequence

NUMBER = re.compile(r" *[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?%? *", re.ASCII)
# What a spreadsheet, or whoever trims a cell first, skips: white space, controls, invisible characters.
SKIPPED = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2060-\u2064\ufeff]*")
UNWRITABLE = re.compile("[\0\ud800-\udfff]")  # NUL breaks readers of CSV, a lone surrogate has no UTF-8
FORMULA_STARTS = "=+-@"
_SPECIAL: dict[str, re.Pattern[str]] = {}


def render_line(cells: Sequence[str], delimiter: str = ",") -> str:
    """One row as a line with "\\n": RFC 4180, quoted only where needed; reads back as the same cells.

    Raises:
        ValueError: no cells; that would be a blank line, which is not a row.
    """
    if not cells:
        raise ValueError("a row needs at least one cell")
    if len(cells) == 1 and not cells[0]:
        return '""\n'
    needs_quotes = (_SPECIAL.get(delimiter) or _compile_special(delimiter)).search
    return (
        delimiter.join(
            ['"' + cell.replace('"', '""') + '"' if needs_quotes(cell) else cell for cell in cells]
        )
        + "\n"
    )


def _compile_special(delimiter: str) -> re.Pattern[str]:
    # U+FEFF at the beginning of a file would be taken for a BOM.
    return _SPECIAL.setdefault(delimiter, re.compile('["\r\n' + re.escape(delimiter) + "]|^\ufeff"))


def neutralise(cell: str) -> str:
    """A model's cell that no spreadsheet takes for a formula: an apostrophe goes before one.

    "-" alone (the product's "not applicable") and plain numbers such as "-1.5" stay as they are. What a
    CSV cannot carry (NUL, lone surrogates) becomes U+FFFD. Never for the input's own cells.
    """
    cell = UNWRITABLE.sub("\ufffd", cell)
    if cell == "-" or NUMBER.fullmatch(cell):
        return cell
    return "'" + cell if _starts_formula(cell) else cell


def _starts_formula(cell: str) -> bool:
    if cell.startswith(("\t", "\r")):
        return True
    found = SKIPPED.match(cell)
    first = cell[found.end() : found.end() + 1] if found else ""
    # NFKC: the full-width and small forms of the four are read as formulas by some spreadsheets.
    return bool(first) and unicodedata.normalize("NFKC", first)[:1] in FORMULA_STARTS
