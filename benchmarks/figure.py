"""One measured figure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; `met` is None where nothing was asked for."""

    case: str
    name: str
    value: float
    unit: str
    wanted: str = ""
    met: bool | None = None
