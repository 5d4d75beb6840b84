"""CSV files: checked whole, read as a resumable stream, written. Standard library only.

header = read_header(path, fmt)
for row in check_rows(path, header, fmt, scratch): …     # pass 1: refuses the file whole
for row in read_rows(path, header, fmt, row.end): …      # pass 2: from any position
"""

from prism.tables.checks import check_rows
from prism.tables.formats import Header, Position, Row, TableFormat
from prism.tables.reader import read_header, read_rows
from prism.tables.refusals import TableRefused
from prism.tables.sources import file_digest, inflate, open_source
from prism.tables.writer import neutralise, render_line

__all__ = [
    "Header",
    "Position",
    "Row",
    "TableFormat",
    "TableRefused",
    "check_rows",
    "file_digest",
    "inflate",
    "neutralise",
    "open_source",
    "read_header",
    "read_rows",
    "render_line",
]
