"""Pieces of CSV as tables of pandas: where which column stands, and which number each row has."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from prism.runs.columns import META_COLUMNS
from prism_merger.reports.blocks import Block
from prism_merger.reports.facts import CodedColumn, FileFacts

_ROW_ID, MESSAGE = "RowID", "Message"


class RowsChanged(Exception):
    """The rows that were read are not those that the merger has counted."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Numbers of the columns that are read, of one file.

    Attributes:
        coded: of the run's coded columns those that the file has, by their number.
        answerers: whose each of them is, as a number in `errors`.
        errors: why each model failed; of a file with one answer a row just `error`.
        error: why the row counts as failed.
    """

    width: int
    coded: dict[int, int]
    answerers: dict[int, int]
    errors: tuple[int, ...]
    error: int
    row_id: int | None
    message: int | None

    @classmethod
    def of(cls, file: FileFacts, coded: Sequence[CodedColumn]) -> "Layout":
        """Return a file's layout: the input's columns, the coded ones, several models' failures, ours."""
        count = len(file.columns)
        mine = [number for number, one in enumerate(coded) if not file.model or one.model == file.model]
        behind = count + len(mine)
        width = behind + len(file.models) + len(META_COLUMNS)
        return cls(
            width=width,
            coded={number: count + place for place, number in enumerate(mine)},
            answerers={
                number: file.models.index(coded[number].model) if file.models else 0 for number in mine
            },
            errors=tuple(range(behind, behind + len(file.models))) or (width - 1,),
            error=width - 1,
            row_id=file.columns.index(_ROW_ID) if _ROW_ID in file.columns else None,
            message=file.columns.index(MESSAGE) if MESSAGE in file.columns else None,
        )

    @property
    def read(self) -> list[int]:
        """All of them, in order."""
        optional = [one for one in (self.row_id, self.message) if one is not None]
        return sorted({*self.coded.values(), *self.errors, self.error, *optional})


def parse(block: Block, layout: Layout, delimiter: str) -> pd.DataFrame:
    """Return a block's rows as texts; columns have their numbers as names."""
    # The C parser takes a delimiter of one byte only.
    engine: Any = "c" if len(delimiter.encode()) == 1 else "python"
    return pd.read_csv(
        io.BytesIO(block.lines),
        sep=delimiter,
        header=None,
        names=list(range(layout.width)),
        usecols=layout.read,
        index_col=False,
        dtype=str,
        keep_default_na=False,
        na_filter=False,
        skip_blank_lines=False,
        encoding="utf-8",
        engine=engine,
    )


def row_numbers(block: Block, rows: int, before: int) -> np.ndarray[Any, Any]:
    """Return each row's number in the file, from 0; `before`: rows before the block. Raise RowsChanged."""
    if block.stretches is None:
        return np.arange(before, before + rows, dtype=np.int64)
    firsts, counts = (np.array(one, dtype=np.int64) for one in zip(*block.stretches, strict=True))
    if counts.sum() != rows:
        raise RowsChanged(f"{rows} rows where {counts.sum()} were stored")
    starts = np.repeat(firsts - (np.cumsum(counts) - counts), counts)
    return np.asarray(starts + np.arange(rows, dtype=np.int64))


def cell(table: pd.DataFrame, index: int, column: int | None) -> str:
    """Return one cell; nothing where the file has no such column."""
    return "" if column is None else str(table[column].iloc[index])


def texts(table: pd.DataFrame, column: int | None) -> list[str]:
    """Return a column's cells; nothing in each where the file has no such column."""
    return [""] * len(table) if column is None else list(table[column])
