"""Which of several models does which rows, and how files are parted and put together again."""

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.messages import MessageSource, ModelProgress, Progress, RunFile, RunRecord, RunState
from prism.runs.catalogue import Catalogue, ModelEntry, Price
from prism.runs.costs import cost_of
from prism.runs.job import Job, JobRefused, parse_job
from prism.runs.models import (
    entries,
    entry_for,
    fan_out,
    inputs,
    model_of,
    recorded_entries,
    share_a_server,
    tag_of,
)
from prism.runs.naming import is_run_id, part_name

NAMES = ["llama3.2:1b", "qwen2.5-coder:7b", "qwen2.5-coder:14b"]


def job(**model: Any) -> Job:
    return parse_job({"model": {"names": NAMES, **model}})


def file(label: str) -> RunFile:
    return RunFile(label=label, source=MessageSource(partition=0, offsets=[1]), sha256="ab" * 32, rows=7)


def record(files: list[RunFile], parent: str = "", **more: Any) -> RunRecord:
    return RunRecord(run_id="r", epoch=1, state=RunState.RUNNING, files=files, parent=parent, **more)


@given(labels=st.lists(st.text(min_size=1, max_size=90), min_size=1, max_size=5, unique=True))
def test_variants_have_names_of_their_own_and_come_together_again(labels: list[str]) -> None:
    given_ = [file(f"f{number}") for number, _ in enumerate(labels)]
    models = [ModelEntry(name=name) for name in NAMES]
    parted = [variant for one in given_ for variant in fan_out(one, job(), models)]
    assert len({one.label for one in parted}) == len(given_) * len(NAMES)
    assert [one.model for one in parted] == NAMES * len(given_)
    assert {(one.input_label, one.rows, one.sha256) for one in parted} == {
        (one.label, 7, "ab" * 32) for one in given_
    }
    assert inputs(record(parted)) == given_
    # Parted already, it stays as it is: an ingestor that takes over meets it so.
    assert [one for variant in parted for one in fan_out(variant, job(), models)] == parted


def test_a_long_label_is_cut_for_each_model_apart() -> None:
    parted = fan_out(file("x" * 80), job(), [ModelEntry(name=name) for name in NAMES])
    assert len({one.label for one in parted}) == 3
    assert max(len(part_name("r" * 100, one.label, 1)) for one in parted) < 255


def test_a_retry_was_asked_for_variants() -> None:
    parted = fan_out(file("march"), job(), [ModelEntry(name=name) for name in NAMES])
    assert inputs(record(parted[1:2], parent="r0")) == parted[1:2]


def test_one_model_and_split_part_nothing() -> None:
    assert fan_out(file("march"), job(mode="split"), []) == [file("march")]
    assert fan_out(file("march"), Job(), []) == [file("march")]
    single = parse_job({"model": {"names": ["a"]}})
    assert fan_out(file("march"), single, [ModelEntry(name="a")]) == [file("march")]
    assert (single.model.only, single.model.several) == ("a", False)


@given(sequence=st.integers(0, 10**9))
def test_split_gives_a_batch_to_the_same_model_always(sequence: int) -> None:
    found = model_of(job(mode="split"), file("march"), sequence)
    assert found == NAMES[sequence % 3]
    assert model_of(job(mode="split"), file("march"), sequence + 3) == found


def test_a_variant_is_its_models_and_a_run_with_one_its_own() -> None:
    variant = fan_out(file("march"), job(), [ModelEntry(name=name) for name in NAMES])[1]
    assert {model_of(job(), variant, sequence) for sequence in range(9)} == {NAMES[1]}
    assert model_of(Job(), file("march"), 5) is None
    assert model_of(parse_job({"model": {"name": "a"}}), file("march"), 5) == "a"


def test_the_record_keeps_every_models_entry() -> None:
    listed = ModelEntry(name=NAMES[0], id="7", price=Price(prompt=Decimal(1), completion=Decimal(2)))
    catalogue = Catalogue(available_models=(listed,))
    kept = record([], **recorded_entries(catalogue, job().model))
    again = RunRecord.parse(kept.to_bytes())
    assert [one.name for one in entries(again, job())] == NAMES
    assert entry_for(again, job(), NAMES[0]) == listed
    assert entry_for(again, job(), NAMES[1]).price is None
    assert [one.name for one in entries(again, job())] == NAMES
    assert recorded_entries(catalogue, Job().model) == {"model_entry": {}}
    tag = tag_of(job().model, catalogue)
    assert re.fullmatch("7-qwen25code-[0-9a-f]{6}", tag)
    assert is_run_id(f"p_v1_m{tag}_20261122")


def test_a_model_keeps_the_name_that_the_job_has() -> None:
    """`models.json` may have it with its tag: counts, columns and contexts go by the job's."""
    catalogue = Catalogue(available_models=(ModelEntry(name="careful:latest", id="9"), ModelEntry(name="b")))
    wanted = parse_job({"model": {"names": ["careful", "b"]}})
    kept = record([], **recorded_entries(catalogue, wanted.model))
    found = entries(kept, wanted)
    assert [(one.name, one.id) for one in found] == [("careful", "9"), ("b", None)]
    assert [one.model for one in fan_out(file("march"), wanted, found)] == ["careful", "b"]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"name": "a", "names": ["b"]}, "give one of the two"),
        ({"names": ["a", "a"]}, "'a' stands there twice"),
        ({"names": ["a:latest", "a"]}, "'a:latest' stands there twice"),
        ({"names": ["a, b", "c"]}, "names"),
        ({"names": ["a\nb", "c"]}, "names"),
        ({"names": ["a", ""]}, "names"),
        ({"names": [str(number) for number in range(9)]}, "names"),
        ({"names": ["a", "b"], "mode": "fan-out"}, "did you mean fanout"),
    ],
)
def test_names_that_cannot_be_are_refused(model: dict[str, Any], said: str) -> None:
    with pytest.raises(JobRefused, match=said):
        parse_job({"model": model})


def test_models_of_one_ollama_share_it() -> None:
    def model(name: str, *urls: str, backend: str = "ollama") -> ModelEntry:
        return ModelEntry(name=name, base_url=urls, backend=backend)

    assert share_a_server([model("a"), model("b")])
    assert share_a_server([model("a", "http://x"), model("b", "http://y", "http://x")])
    assert share_a_server([model("a", "http://x:11434"), model("b", "http://x:11434/")])
    assert not share_a_server([model("a"), model("b", "http://x")])
    assert not share_a_server([model("a", "http://x"), model("b", "http://y")])
    v1 = "http://x/v1"
    assert not share_a_server([model("a", v1, backend="openai"), model("b", v1, backend="openai")])


def test_what_several_models_cost_is_the_sum_of_their_shares() -> None:
    def priced(name: str, currency: str = "USD") -> ModelEntry:
        price = Price(prompt=Decimal(int(name)), completion=Decimal(0), currency=currency)
        return ModelEntry(name=name, price=price)

    whole = Progress(run_id="r", prompt_tokens=3_000_000)
    shares = {"1": ModelProgress(prompt_tokens=1_000_000), "10": ModelProgress(prompt_tokens=2_000_000)}
    found = cost_of([priced("1"), priced("10")], whole, shares)
    assert found is not None
    assert (found.amount, found.currency) == (Decimal(21), "USD")
    alone = cost_of([priced("10")], whole, {})
    assert alone is not None
    assert alone.amount == 30
    assert cost_of([priced("1"), priced("10", "EUR")], whole, shares) is None
    assert cost_of([priced("1"), ModelEntry(name="10")], whole, shares) is None
    assert cost_of([ModelEntry(name="x")], whole, {}) is None
