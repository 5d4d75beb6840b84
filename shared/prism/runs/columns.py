"""The columns of an output: the input's, then the model's, then the product's own."""

from collections.abc import Sequence

META_COLUMNS = ("Model_Name", "Batch_Size", "Run_ID", "Error")
VALIDATED_PREFIX = "Validated_"
# What a row's failure with one of several models is called.
ERROR_PREFIX = "Error_"


def output_columns(input_columns: Sequence[str], coded: Sequence[str]) -> list[str]:
    """Return the output's header.

    A coded column that the input has too becomes `Validated_…`; any other clash gets `_2`, `_3`, …
    """
    columns = list(input_columns)
    for name in coded:
        wanted = VALIDATED_PREFIX + name if name in input_columns else name
        columns.append(_free(wanted, columns))
    for name in META_COLUMNS:
        columns.append(_free(name, columns))
    return columns


def of_model(name: str, model: str) -> str:
    """Return what a coded column is called that one of several models fills."""
    return f"{name}_{model}"


def joined(coded: Sequence[str], models: Sequence[str]) -> list[str]:
    """Return the columns in which several models' answers stand side by side, and which of them failed."""
    return [
        *(of_model(name, model) for name in coded for model in models),
        *(f"{ERROR_PREFIX}{model}" for model in models),
    ]


def _free(name: str, taken: Sequence[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate
