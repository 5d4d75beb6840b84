"""A model server that fails and lies in every way that is known: each row gets its own answer, or a reason.

What a row's own answer is says the embedded server's rules, asked here directly: the texts differ, and a
row's key point is made of its text.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from prism.annotation import Answer, PromptFile, PromptRow, build_prompt, read_reply
from prism.messages import RowReason
from prism_embedded.answers import Question, answer
from prism_embedded.faults import CONTENT_FAULTS, FAULTS
from prism_embedded.model_state import Behaviour
from tests.harness.cases import Case
from tests.harness.fleet import Fleet, Plan
from tests.harness.promises import Account, check
from tests.harness.rows import CODED, JOB, Table, write_csv

ROWS, BATCH = 10_000, 10
ROWS_AWAY = 2000
WAIT_S = 240.0
# With it the first calls of the batches meet every fault, whatever becomes of the others.
SEED = 38
# A call that hangs or drips lasts for 2 s, and a fifth of a second more for each further row.
TIMEOUT_S = 2
PLAN = Plan(
    limit=8,
    batch_size=BATCH,
    interval=1000,
    behaviour=Behaviour(latency_ms=20.0),
    environment={"OLLAMA_REQUEST_TIMEOUT": str(TIMEOUT_S)},
)
# Share of the calls that meet each fault: of 100 calls some 45 meet one.
LIES = dict.fromkeys((*CONTENT_FAULTS, "shortened", "html", "error_200"), 0.02)
FAILURES = {
    "http_400": 0.01,
    "http_500": 0.01,
    "disconnect": 0.005,
    "reset": 0.005,
    "hang": 0.003,
    "drip": 0.003,
}
OUTAGES = {
    "http_401": 0.003,
    "http_403": 0.003,
    "http_404": 0.003,
    "http_429": 0.003,
    "http_502": 0.005,
    "http_503": 0.005,
    "quota": 0.001,
}
# A call meets the first that its lot falls on: the rare ones come first.
RATES = OUTAGES | FAILURES | LIES
# What of the faults must never be found in an output.
FAULT_TEXTS = (
    "on purpose",
    "unauthorized",
    "upgrade",
    "not found",
    "too many requests",
    "server busy",
    "bad gateway",
    "<html",
    "Sure!",
    "```",
    "<think>",
    "first draft",
    "NaN",
    "[[",
    "999999",
    "\\ud800",
    "no label",
    "another",
    "Remark",
)
# One row each meets these faults whenever it is asked about: what becomes of it, "" for its answer. Those
# that spare the first row of a batch spare it. Others are answered meanwhile: to them it is no outage.
ALWAYS: dict[str, str] = {
    "http_401": RowReason.MODEL_REFUSED,
    "http_403": RowReason.MODEL_REFUSED,
    "http_404": RowReason.MODEL_REFUSED,
    "http_502": RowReason.MODEL_ERROR,
    "http_400": RowReason.MODEL_REFUSED,
    "http_500": RowReason.MODEL_ERROR,
    "hang": RowReason.MODEL_TIMEOUT,
    "drip": RowReason.MODEL_TIMEOUT,
    "html": RowReason.MODEL_ERROR,
    "error_200": RowReason.MODEL_ERROR,
    "disconnect": RowReason.MODEL_ERROR,
    "reset": RowReason.MODEL_ERROR,
    "shortened": RowReason.ROW_TOO_LONG,
    "length": RowReason.TRUNCATED_REPLY,
    "truncated_json": RowReason.NOT_JSON,
    "prose": "",
    "fences": "",
    "thoughts_first": "",
    "thoughts_only": RowReason.EMPTY_REPLY,
    "empty": RowReason.EMPTY_REPLY,
    "too_few": "",
    "too_many": "",
    "swapped": "",
    "wrong_identity": RowReason.MISSING_ROW,
    "missing_key": RowReason.SCHEMA_VIOLATION,
    "extra_key": "",
    "wrong_label": RowReason.LABEL_NOT_ALLOWED,
    "nan": RowReason.NOT_JSON,
    "duplicate_keys": RowReason.NOT_JSON,
    "brackets": RowReason.NOT_JSON,
    "long_number": RowReason.NOT_JSON,
    "surrogate": RowReason.NOT_JSON,
}
# Each is the first row of its batch, far from the others.
_SPREAD = 20 * BATCH


@pytest.fixture(scope="module")
def strict_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two workers, and a job that takes no label but those of its lists."""
    with Fleet(tmp_path_factory.mktemp("hostile"), PLAN) as fleet:
        job = fleet.jobs_dir / f"{JOB}.yaml"
        job.write_text(job.read_text().replace("delay: 0.1", "delay: 0.05"))
        prompt = fleet.jobs_dir / f"{JOB}_prompt.json"
        prompt.write_text(json.dumps(json.loads(prompt.read_bytes()) | {"strict": True}))
        yield fleet


def _mark(fault: str) -> str:
    return f"({fault})"


def answers_to(table: Table, fleet: Fleet) -> dict[str, list[str]]:
    """Return the values of each row that has a message, as the rules give them."""
    prompt_file = PromptFile.parse((fleet.jobs_dir / f"{JOB}_prompt.json").read_bytes())
    return {row[0]: values_by_rules(row, prompt_file) for row in table.rows if row[2]}


def values_by_rules(row: tuple[str, ...], prompt_file: PromptFile) -> list[str]:
    row_id, title, message, sentiment, _note = row
    prompt = build_prompt(prompt_file, [PromptRow(row_id, title or None, message, sentiment or None)])
    question = Question([prompt.user], prompt.schema)
    (found,) = read_reply(answer(question, question.mentions()).text, prompt, prompt_file)
    assert isinstance(found, Answer)
    return [found.values[name] for name in CODED]


def drop(fleet: Fleet, table: Table, run_id: str, faults: str) -> Case:
    """Drop the table on a fleet whose model server meets these faults."""
    fleet.model_server.control(faults=faults, seed=SEED, reset=True)
    return Case(fleet, table, run_id).drop()


def by_rate(rates: Mapping[str, float]) -> str:
    return ",".join(f"{fault}={rate}" for fault, rate in rates.items())


def finish(case: Case, expected: Mapping[str, str]) -> tuple[Account, Counter[str]]:
    """Wait for the end and check every promise; return the account, and why others than `expected` failed."""
    evidence = case.evidence(WAIT_S)
    failed = {row[0]: row[-1] for row in cells(case.output)[1:] if row[-1]}
    assert {row: failed.get(row) for row in expected} == expected
    by_chance = Counter(reason for row, reason in failed.items() if row not in expected)
    return check(replace(evidence, failures=failed)), by_chance


def cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


def assert_own_answers(output: Path, answers: Mapping[str, list[str]]) -> None:
    """Every row that did not fail has its own answer, and nobody's words but the model's are in it."""
    header, *rows = cells(output)
    first = header.index("Topic")
    found = {row[0]: row[first : first + len(CODED)] for row in rows if not row[-1]}
    wrong = {row: (values, answers[row]) for row, values in found.items() if values != answers[row]}
    assert not wrong, list(wrong.items())[:5]
    text = output.read_text(encoding="utf-8")
    assert [one for one in FAULT_TEXTS if one in text] == []


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(7)
@pytest.mark.promise(9)
def test_10000_rows_through_every_fault(strict_fleet: Fleet, tmp_path: Path) -> None:
    assert set(RATES) == set(FAULTS) == {*ALWAYS, *OUTAGES}
    special = [(1 + _SPREAD * number, f"It always meets {_mark(one)}.") for number, one in enumerate(ALWAYS)]
    table = write_csv(tmp_path / "in.csv", ROWS, special=special)
    always = ",".join(f"text:{_mark(fault)}={fault}" for fault in ALWAYS)
    case = drop(strict_fleet, table, "hostile", f"{always},{by_rate(RATES)}")
    rows = (table.rows[number - 1][0] for number, _ in special)
    ends = dict(zip(rows, ALWAYS.values(), strict=True))
    account, by_chance = finish(case, table.failures | {row: end for row, end in ends.items() if end})
    assert account.rows == ROWS
    assert_own_answers(case.output, answers_to(table, strict_fleet))
    met = strict_fleet.model_server.stats()["by_fault"]
    assert set(met) == set(FAULTS)
    # By chance fails what stands alone and is answered badly three times in a row.
    assert set(by_chance) <= set(ALWAYS.values())
    assert by_chance.total() <= ROWS // 200


@pytest.mark.promise(9)
def test_a_server_that_is_away_fails_no_row(strict_fleet: Fleet, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "in.csv", ROWS_AWAY)
    case = drop(strict_fleet, table, "away", by_rate({outage: 10 * rate for outage, rate in OUTAGES.items()}))
    account, by_chance = finish(case, table.failures)
    assert (account.failed, by_chance) == (len(table.failures), {})
    assert_own_answers(case.output, answers_to(table, strict_fleet))
    stats = strict_fleet.model_server.stats()
    assert set(stats["by_fault"]) == set(OUTAGES)
    manifest = json.loads((strict_fleet.data_dir / "logs" / "away" / "run_manifest.json").read_bytes())
    # Who meets two outages in a row is asked in halves; what was not taken is no call.
    assert ROWS_AWAY // BATCH <= manifest["calls"] <= stats["completed"]
