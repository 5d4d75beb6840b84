"""`python -m benchmarks [NAME …]`: measure, print a table, write benchmarks/results/latest.json."""

import inspect
import json
import os
import platform
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figure import Figure
from benchmarks.register import CASES

RESULTS = Path(__file__).resolve().parent / "results" / "latest.json"


def main(words: list[str]) -> int:
    """Run the cases; 1 when a figure is not what it should be."""
    options = _parse(words)
    figures: list[Figure] = []
    for name in options.name or CASES:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        figures += CASES[name](**({"rows": options.rows} if options.rows else {}))
    _print(figures)
    _write(figures)
    return 1 if any(figure.met is False for figure in figures) else 0


def _parse(words: list[str]) -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks", description=f"There are: {', '.join(CASES)}.")
    parser.add_argument("name", nargs="*", metavar="NAME", help="what to measure (default: all)")
    parser.add_argument("--rows", type=int, help="another number of rows, for cases of one size")
    options = parser.parse_args(words)
    unknown = [name for name in options.name if name not in CASES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]}; there are: {', '.join(CASES)}")
    sized = [name for name in options.name if "rows" in inspect.signature(CASES[name]).parameters]
    if options.rows and sized != (options.name or list(CASES)):
        parser.error("--rows goes with names of cases that run one number of rows")
    return options


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
