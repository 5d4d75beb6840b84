"""What a table's columns are taken for, and what follows for a job and a prompt file."""

from typing import Any

import pytest

from prism.annotation import PromptFile
from prism_cli.peek import Sample
from prism_cli.proposal import Proposal, Wishes, project_name, propose, said_delimiter

LONG = ("I waited for three weeks and nobody called.", "Works as described.", "How do I reset it?", "Great!")


def table(kind: Any = "csv", delimiter: Any = ",", **columns: Any) -> Sample:
    return Sample(kind, delimiter, tuple(columns), tuple(zip(*columns.values(), strict=True)))


def proposed(sample: Sample, columns: tuple[str, ...] = ()) -> Proposal:
    found = propose(sample, Wishes("p", "data/t.csv", "t", columns=columns))
    PromptFile.parse(found.prompt)
    return found


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"Message": ("", "a", "", ""), "text": LONG}, "Message"),
        ({"id": ("1", "2", "3", "4"), "comment": LONG}, "comment"),
        ({"Customer Comment": LONG, "city": ("Bonn", "Rome", "Oslo", "Paris")}, "Customer Comment"),
        ({"reviewText": LONG, "review_date": ("2026-01-01",) * 4}, "reviewText"),
        ({"comment_id": ("abcdefgh" * 9,) * 4, "words": LONG}, "words"),
        ({"text": ("",) * 4, "other": LONG}, "other"),
        ({"note": ("ok", "no", "ok", "-"), "feedback": LONG}, "feedback"),
        ({"col1": LONG, "col2": ("x",) * 4}, "col1"),
        ({"url": ("https://a.example/" + "x" * 99,) * 4, "b": LONG}, "b"),
        ({"price": ("1.50", "2", "3", "4"), "count": ("1", "2", "3", "4")}, "price"),
        ({"only": ("1", "2", "3", "4")}, "only"),
        ({"Nachricht": LONG, "Titel": ("a", "b", "c", "d")}, "Nachricht"),
    ],
)
def test_which_column_is_the_message(columns: dict[str, tuple[str, ...]], message: str) -> None:
    assert proposed(table(**columns)).message == message


@pytest.mark.parametrize(
    ("columns", "row_id"),
    [
        ({"RowID": ("1", "1", "2", "3"), "id": ("1", "2", "3", "4")}, "RowID"),
        ({"ID": ("1", "2", "3", "4"), "text": LONG}, "ID"),
        ({"row_id": ("a", "b", "c", "d"), "id": ("1", "2", "3", "4"), "text": LONG}, "row_id"),
        ({"id": ("1", "2", "2", "3"), "text": LONG}, None),
        ({"id": ("1", "2", "", "3"), "text": LONG}, None),
        ({"ticket_id": ("a", "b", "c", "d"), "text": LONG}, "ticket_id"),
        ({"text": LONG, "city": ("Bonn", "Rome", "Oslo", "Paris")}, None),
        ({"id": ("1", "2", "3", "4")}, None),
    ],
)
def test_which_column_names_the_rows(columns: dict[str, tuple[str, ...]], row_id: str | None) -> None:
    assert proposed(table(**columns)).row_id == row_id


def test_columns_that_are_called_otherwise_are_mapped() -> None:
    sample = table(
        delimiter=";",
        id=("1", "2", "3", "4"),
        subject=("a", "b", "c", "d"),
        text=LONG,
        sentiment=("good", "bad", "bad", "good"),
    )
    found = proposed(sample)
    assert found.job["table"] == {
        "delimiter": ";",
        "columns": {"RowID": "id", "Message": "text", "Title": "subject", "Sentiment": "sentiment"},
    }
    assert found.prompt["validation_rules"]["valid_sentiment"] == ["good", "bad"]
    named = table(RowID=("1", "2", "3", "4"), Message=LONG, Title=LONG, Sentiment=("Positive",) * 4)
    assert proposed(named).job["table"] == {}


@pytest.mark.parametrize(
    ("kind", "delimiter", "expected", "said"),
    [
        ("csv", ",", {}, "CSV, comma between cells"),
        ("csv", "\t", {"delimiter": "\t"}, "CSV, tab between cells"),
        ("tsv", "\t", {"format": "tsv"}, "CSV, tab between cells"),
        ("tsv", ",", {"format": "csv"}, "CSV, comma between cells"),
        ("tsv", ";", {"format": "csv", "delimiter": ";"}, "CSV, semicolon between cells"),
        ("jsonl", ",", {}, "JSON lines"),
        ("parquet", ",", {}, "Parquet"),
    ],
)
def test_how_the_table_is_written(kind: str, delimiter: str, expected: dict[str, str], said: str) -> None:
    sample = table(kind, delimiter, Message=LONG)
    assert proposed(sample).job["table"] == expected
    assert said_delimiter(sample) == said


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (("Positive", "Negative", "Negative", "Positive"), ["Positive", "Negative", "Neutral", "Mixed"]),
        (("positive", "negative", "negative", "n/a"), ["positive", "negative", "neutral", "mixed"]),
        (("POSITIVE", "positive", "NEGATIVE", ""), ["POSITIVE", "NEGATIVE", "NEUTRAL", "MIXED"]),
        (("happy", "sad", "sad", "happy"), ["happy", "sad"]),
        (("a", "b", "c", "d"), ["Positive", "Negative", "Neutral", "Mixed"]),
        (("same",) * 4, ["Positive", "Negative", "Neutral", "Mixed"]),
        (("x" * 50, "y" * 50) * 2, ["Positive", "Negative", "Neutral", "Mixed"]),
        (("", "", "", ""), ["Positive", "Negative", "Neutral", "Mixed"]),
    ],
)
def test_labels_are_those_of_the_table_where_it_has_some(cells: tuple[str, ...], labels: list[str]) -> None:
    found = proposed(table(Message=LONG, sentiment=cells))
    assert found.prompt["validation_rules"]["valid_sentiment"] == labels


def test_columns_of_ones_own() -> None:
    sample = table(
        Message=LONG, Store=("North", "South", "South", "North"), Priority=("P1", "P2", "P2", "P1")
    )
    found = proposed(sample, ("Store", "Reason", "Urgency"))
    assert found.prompt["columns_to_code"] == ["Store", "Reason", "Urgency"]
    assert found.prompt["validation_rules"] == {
        "valid_store": ["North", "South"],
        "valid_urgency": ["P1", "P2"],
    }
    assert found.prompt["not_applicable_defaults"] == {"Store": "-", "Reason": "-", "Urgency": "-"}
    assert "- Reason: write here" in found.prompt["system_prompt"]


def test_the_starting_taxonomy_is_the_seeds() -> None:
    prompt = proposed(table(Message=LONG)).prompt
    assert prompt["columns_to_code"] == ["Topic", "Sentiment", "Urgency", "Key_Point"]
    assert prompt["validation_rules"]["valid_topic"][-1] == "Other"
    assert prompt["not_applicable_defaults"] == {
        "Topic": "Other",
        "Sentiment": "Neutral",
        "Urgency": "Low",
        "Key_Point": "-",
    }


@pytest.mark.parametrize(
    ("columns", "image", "message"),
    [
        ({"photo": ("a.jpg", "b/c.PNG", "", "d.webp"), "caption": LONG}, "photo", "caption"),
        ({"photo": ("a.jpg", "b.jpg", "c.jpg", "d.jpg"), "text": LONG}, "photo", "text"),
        (
            {
                "shot": ("file:///a/b", "data:image/png;base64,AA", "x.gif", "y.tif"),
                "n": ("1", "2", "3", "4"),
            },
            "shot",
            None,
        ),
        ({"photo": ("https://a.example/b.jpg",) * 4, "text": LONG}, None, "text"),
        ({"photo": ("see a.jpg please", "no", "b", "c"), "text": LONG}, None, "text"),
        ({" odd ": ("a.jpg",) * 4, "text": LONG}, None, "text"),
        ({"Topic": ("a.jpg",) * 4, "text": LONG}, None, "text"),
    ],
)
def test_photos(columns: dict[str, tuple[str, ...]], image: str | None, message: str | None) -> None:
    found = proposed(table(**columns))
    assert found.image == image
    assert found.prompt.get("image_column") == image
    if message is not None:
        assert found.message == message


def test_what_a_person_should_know_is_noted() -> None:
    twice = table(RowID=("1", "1", "2", "3"), Message=LONG)
    assert any("share one" in note for note in proposed(twice).notes)
    web = table(photo=("https://a.example/b.jpg",) * 4, text=LONG)
    assert any("not fetched" in note for note in proposed(web).notes)
    numbers = table(price=("1", "2", "3", "4"))
    assert any("does not look like text" in note for note in proposed(numbers).notes)
    empty = Sample("csv", ",", ("id", "text"), ())
    assert any("no row to look at" in note for note in proposed(empty).notes)
    assert proposed(empty).message == "text"
    damaged = Sample("csv", ",", ("Message",), (("a",),), left_out=2)
    assert any(note.startswith("2 of the first rows") for note in proposed(damaged).notes)
    assert proposed(table(Message=LONG)).notes == ()


@pytest.mark.parametrize(
    ("stem", "name"),
    [("feedback q1 (final)", "feedback_q1_final"), ("…", "project"), ("_a", "a"), ("x" * 99, "x" * 64)],
)
def test_a_projects_name(stem: str, name: str) -> None:
    assert project_name(stem) == name
