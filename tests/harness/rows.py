"""CSVs of n rows and the job that annotates them: deterministic, and awkward where a CSV may be."""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prism.messages import RowReason
from prism.runs.columns import META_COLUMNS

INPUT_COLUMNS = ("RowID", "Title", "Message", "Sentiment", "Note")
CODED = ("Topic", "Sentiment", "Urgency", "Key_Point")
JOB = "chaos"

_OPENINGS = (
    "The tablet",
    "My order",
    "Your hotline",
    "The refund",
    "Das Gerät",
    "アカウント",
    "La livraison",
)
_MIDDLES = (
    "arrived late",
    "broke after a day",
    "works, honestly",
    "was wonderful",
    'ist "kaputt"',
    "est perdue",
)
_ENDINGS = (
    "and nobody answers!",
    "thank you.",
    "what now?",
    "… 😀",
    "=SUM(A1:A9)",
    '\nSecond line, "quoted".',
)
_NOTES = ("", "NA", "001", "1.10", "=1+1", " two  spaces ", "a,b;c", "línea\r\nwith CRLF", "\u2028", "null")
_SENTIMENTS = ("Positive", "Negative", "Neutral", "")
# These rows have no message: they are rejected with a reason, and the others go on.
EMPTY_EVERY = 97


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV that was written: its rows as they must come back, and those that must fail with their reason."""

    path: Path
    rows: tuple[tuple[str, ...], ...]
    failures: dict[str, str]


def write_csv(path: Path, count: int, seed: int = 1, special: Iterable[tuple[int, str]] = ()) -> Table:
    """Write `count` rows; `special` puts a text of its own into the message of a row (counted from 1)."""
    texts = dict(special)
    dice = random.Random(seed)
    rows = tuple(_row(number, dice, texts.get(number)) for number in range(1, count + 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(INPUT_COLUMNS) + "\r\n")
        for number, row in enumerate(rows):
            file.write(",".join(_cell(cell, number) for cell in row) + ("\n" if number % 3 else "\r\n"))
    failures = {row[0]: RowReason.EMPTY_MESSAGE.value for row in rows if not row[2]}
    return Table(path, rows, failures)


def _row(number: int, dice: random.Random, text: str | None) -> tuple[str, ...]:
    words = [
        dice.choice(_OPENINGS),
        dice.choice(_MIDDLES),
        f"({number}/{dice.randrange(10**6)})",
        dice.choice(_ENDINGS),
    ]
    message = text or ("" if number % EMPTY_EVERY == 0 else " ".join(words))
    title = f"About {number}" if number % 4 else ""
    return (f"r{number:06d}", title, message, dice.choice(_SENTIMENTS), dice.choice(_NOTES))


def _cell(cell: str, number: int) -> str:
    if number % 5 == 0 or any(one in cell for one in ',"\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def write_job(jobs_dir: Path, batch_size: int = 5, interval: int = 50, name: str = JOB) -> None:
    """Write the job `name` and its prompt file."""
    jobs_dir.mkdir(parents=True, exist_ok=True)
    lines = (
        "project: {name: chaos, version: v1}",
        f"model: {{batch_size: {batch_size}, retries: 3, delay: 0.1}}",
        f"prompts: {{config_file: {name}_prompt.json}}",
        f"output: {{checkpoints: {{interval: {interval}}}}}",
        # Some rows say the same, and the checker counts how often each was asked.
        "dedupe: false",
    )
    (jobs_dir / f"{name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    prompt = {
        "system_prompt": "You read what customers write. Fill in four columns for every message.",
        "columns_to_code": list(CODED),
        "validation_rules": {
            "valid_topic": ["Product", "Support", "Billing", "Shipping", "Account", "Other"],
            "valid_sentiment": ["Positive", "Negative", "Neutral", "Mixed"],
            "valid_urgency": ["High", "Medium", "Low"],
        },
    }
    (jobs_dir / f"{name}_prompt.json").write_text(json.dumps(prompt), encoding="utf-8")


def width() -> int:
    """Return how many columns an output has."""
    return len(INPUT_COLUMNS) + len(CODED) + len(META_COLUMNS)
