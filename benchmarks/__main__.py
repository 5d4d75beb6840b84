"""`python -m benchmarks [NAME …]`: measure, print a table, write benchmarks/results/latest.json."""

import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figure import Figure
from benchmarks.register import CASES

RESULTS = Path(__file__).resolve().parent / "results" / "latest.json"


def main(names: list[str]) -> int:
    """Run the cases; 1 when a figure is not what it should be."""
    unknown = [name for name in names if name not in CASES]
    if unknown:
        print(f"no benchmark {unknown[0]}; there are: {', '.join(CASES)}", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    for name in names or CASES:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        figures += CASES[name]()
    _print(figures)
    _write(figures)
    return 1 if any(figure.met is False for figure in figures) else 0


def _print(figures: list[Figure]) -> None:
    table = Table("case", "figure", "value", "unit", "wanted", "")
    for one in figures:
        mark = {True: "✓", False: "✗", None: ""}[one.met]
        table.add_row(
            one.case, one.name, f"{one.value:,.3f}".rstrip("0").rstrip("."), one.unit, one.wanted, mark
        )
    Console(width=110).print(table)


def _write(figures: list[Figure]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    RESULTS.write_text(
        json.dumps({"machine": machine, "figures": [asdict(one) for one in figures]}, indent=2)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
