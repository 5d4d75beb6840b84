"""What a dry run says: the fields that scripts rely on, the table, and the budget's warnings."""

import re
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from prism.runs.catalogue import Price
from prism.runs.forecast import Taken, forecast
from prism.runs.job import Job, parse_job
from prism_cli.prediction import Prediction, screen, warnings
from prism_cli.survey import Survey
from prism_cli.trial import Outcome

README = Path(__file__).resolve().parents[3] / "cli" / "README.md"
PRICE = Price(prompt=Decimal(2), completion=Decimal(10), currency="EUR")
TAKEN = [
    Taken(10, 1000, 1, 250, 100, 2.0, 0),
    Taken(10, 1200, 2, 320, 140, 3.0, 1),
    Taken(10, 1100, 1, 270, 120, 2.5, 0),
]


def prediction(taken: list[Taken] = TAKEN, units: int = 10, **fields: Any) -> Prediction:
    rows = 10 * units
    survey = Survey(rows + 25, 5, 20, rows, 1100 * units, units)
    known: dict[str, Any] = {
        "filename": "march.csv",
        "job_name": "feedback",
        "job": Job(),
        "model": "tiny",
        "server": "http://here",
        "digest": "abc",
        "price": None,
        "workers": 1,
        "concurrency": None,
        "batches": 13,
        "survey": survey,
        "outcome": Outcome(taken, Counter(not_json=1), 4.5),
        "forecast": forecast(taken, survey.population),
    }
    return Prediction(**known | fields)


def budget(**limits: str) -> Job:
    return parse_job({"budget": limits, "model": {"name": "tiny"}})


def drawn(found: Prediction, width: int = 120) -> str:
    console = Console(width=width, highlight=False, markup=False, force_terminal=False)
    with console.capture() as captured:
        console.print(screen(found))
    return captured.get()


def test_what_a_script_gets() -> None:
    told = prediction(price=PRICE, concurrency=4).as_json()
    ahead = told.pop("forecast")
    assert told == {
        "dry_run": True,
        "file": "march.csv",
        "job": "feedback",
        "model": "tiny",
        "server": "http://here",
        "digest": "abc",
        "rows": 125,
        "rows_rejected": 5,
        "rows_reused": 20,
        "rows_asked": 100,
        "batches": 13,
        "workers": 1,
        "sample": {
            "batches": 3,
            "rows": 30,
            "calls": 4,
            "prompt_tokens": 840,
            "completion_tokens": 360,
            "seconds": 7.5,
            "seconds_per_call": 1.875,
            "load_seconds": 4.5,
            "failed": {"not_json": 1},
        },
        "budget": None,
    }
    assert {name: one["point"] for name, one in ahead.items() if isinstance(one, dict)} == {
        "calls": 13,
        "prompt_tokens": 2800,
        "completion_tokens": 1200,
        "tokens": 4000,
        # 2800 · 2 + 1200 · 10 millionths.
        "cost": 0.0176,
        # 5 that no model sees, and a thirtieth of the other 120.
        "rows_failed": 9,
        "failed_share": 0.072,
        "seconds": 25.0,
        "seconds_concurrent": 6.25,
    }
    assert (ahead["level"], ahead["currency"], ahead["concurrency"]) == (0.9, "EUR", 4)
    for one in ahead.values():
        if isinstance(one, dict):
            assert one["low"] < one["point"] < one["high"] or one["low"] == one["point"] == 13
    # What was seen is there for certain: 4 calls of the three, one of each of the other seven.
    assert ahead["calls"]["low"] >= 11


def test_every_field_is_in_the_readme() -> None:
    described = set(re.findall(r"`([a-z_]+)`", README.read_text().split("## What a dry run says")[1]))
    told = prediction(price=PRICE, concurrency=4, job=budget(tokens="10")).as_json()
    inner = [*told["sample"], *told["forecast"], *told["budget"], *told["forecast"]["calls"]]
    assert {*told, *inner} <= described


def test_without_a_price_or_concurrency_there_is_none() -> None:
    ahead = prediction().as_json()["forecast"]
    assert [ahead[name] for name in ("cost", "currency", "concurrency", "seconds_concurrent")] == [None] * 4


def test_no_more_calls_at_once_than_there_are_batches() -> None:
    assert prediction(concurrency=1000).as_json()["forecast"]["seconds_concurrent"]["point"] == 2.5


def test_a_whole_number_is_no_more_than_it_is() -> None:
    even = [Taken(3, 7, 1, 3, 1, 0.1, 0)] * 3
    found = prediction(even, units=3)
    ahead = replace(found, forecast=forecast(even, found.survey.population)).as_json()["forecast"]
    assert ahead["calls"] == {"point": 3, "low": 3, "high": 3}


def test_a_file_without_rows_to_ask() -> None:
    survey = Survey(2, 2)
    found = prediction([], survey=survey, outcome=Outcome(), forecast=forecast([], survey.population))
    told = found.as_json()
    assert told["sample"]["seconds_per_call"] is None
    assert told["forecast"]["rows_failed"] == {"point": 2, "low": 2, "high": 2}
    assert told["forecast"]["failed_share"]["point"] == 1.0
    assert "no call was made" in drawn(found)
    empty = prediction([], survey=Survey(), outcome=Outcome(), forecast=forecast([], Survey().population))
    assert empty.as_json()["forecast"]["failed_share"]["high"] == 0


@pytest.mark.parametrize(
    ("limits", "verdict", "says"),
    [
        ({"tokens": "1000000"}, "no", []),
        ({"tokens": "4001"}, "maybe", ["may reach its budget.tokens"]),
        ({"tokens": "3999"}, "yes", ["is expected to reach its budget.tokens"]),
        ({"money": "0.0175"}, "yes", ["is expected to reach its budget.money and stop there: 0.0176 EUR"]),
        ({"money": "0.0177", "tokens": "1"}, "yes", ["budget.tokens", "may reach its budget.money"]),
        ({"money": "100"}, "no", []),
    ],
)
def test_a_prediction_is_held_against_the_budget(
    limits: dict[str, str], verdict: str, says: list[str]
) -> None:
    found = prediction(price=PRICE, job=budget(**limits))
    told = found.as_json()["budget"]
    assert told["exceeded"] == verdict
    assert (told["tokens"], told["money"]) == (
        int(limits["tokens"]) if "tokens" in limits else None,
        limits.get("money"),
    )
    lines = list(warnings(found))
    assert len(lines) == len(says)
    assert all(part in line for part, line in zip(says, lines, strict=True))


def test_a_budget_of_money_that_does_not_hold_is_told() -> None:
    (line,) = warnings(prediction(job=budget(money="1")))
    assert "no price for tiny" in line
    (line,) = warnings(prediction(price=PRICE, job=parse_job({"budget": {"money": "1"}})))
    assert "names no model" in line


def test_what_a_person_gets() -> None:
    told = drawn(prediction(price=PRICE, concurrency=4))
    assert "march.csv: 125 rows in 13 batches, 5 rejected, 20 need no call: others say the same" in told
    assert "30 rows in 4 calls, 1.88 s each, 1 failed (not_json 1)" in told
    assert "loading  4.5 s" in told
    lines = {line[:24].strip(): line[24:].split() for line in told.splitlines() if line[:1].strip()}
    assert lines["calls"][0] == "13"
    assert lines["prompt tokens"][0] == "2,800"
    assert lines["cost, EUR"][0] == "0.0176"
    assert lines["failed rows"][0] == "9"
    assert lines["time, 1 call at once"][:2] == ["25", "s"]
    assert lines["time, 4 calls at once"][:2] == ["6.2", "s"]
    assert "90% confidence" in told
    assert "as if each took no longer" in told
    assert "as of 1 worker" in told


def test_what_was_asked_whole_is_no_estimate() -> None:
    told = drawn(prediction(units=3))
    assert "Every batch was asked" in told
    assert "confidence" not in told


def test_a_name_cannot_forge_a_line() -> None:
    found = prediction(filename="a\x1b[2J\nrows\udcff.csv", model="m\x1b[2J")
    assert "\x1b" not in drawn(found)
    assert found.as_json()["file"] == "a·[2J⏎rows·.csv"


@pytest.mark.parametrize("width", [40, 80])
def test_nothing_is_cut_on_a_narrow_screen(width: int) -> None:
    told = " ".join(drawn(prediction(price=PRICE, concurrency=4), width).split())
    assert "others say the same" in told
    assert "too rare for the sample is not in it." in told
