from typing import Any

import pytest

from prism.annotation import Answer, Problem, PromptFile
from prism.annotation.answer import read_answer
from prism.annotation.strict_json import load_strictly
from prism.messages.reasons import RowReason
from tests.unit.annotation.samples import item, prompt_file

PERMISSIVE, STRICT = prompt_file(), prompt_file(strict=True)
NA_ROW = {"Topic": "Other", "Sentiment": "Neutral", "Urgency": "Low", "Key_Point": "-"}


def gated(labels: list[Any] | None, **changes: Any) -> PromptFile:
    """Two columns, the first with these labels and without defaults."""
    rules = {} if labels is None else {"valid_first": labels}
    return prompt_file(
        **({"columns_to_code": ["First", "Second"], "validation_rules": rules, "not_applicable_defaults": {}})
        | changes
    )


def answer(file: PromptFile, values: dict[str, Any]) -> Answer:
    found = read_answer(values, file)
    assert isinstance(found, Answer), found
    return found


def problem(file: PromptFile, values: dict[str, Any]) -> Problem:
    found = read_answer(values, file)
    assert isinstance(found, Problem), found
    return found


@pytest.mark.parametrize("file", [PERMISSIVE, STRICT])
@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Product", "Product"),
        (" product\n", "Product"),
        ("NOT SURE", "Not Sure"),
        ("notsure", "Not Sure"),
        ("Not\t Sure", "Not Sure"),
        ("Pro\x00duct", "Product"),
    ],
)
def test_labels_are_matched_up_to_case_and_whitespace(file: PromptFile, said: str, kept: str) -> None:
    found = answer(file, item(Topic=said))
    assert (found.values["Topic"], found.warnings) == (kept, ())


def test_a_label_that_fits_two_is_not_normalised() -> None:
    file = gated(["us", "US"], strict=True)
    assert answer(file, {"First": "US", "Second": "x"}).values["First"] == "US"
    assert problem(file, {"First": "Us", "Second": "x"}).reason == RowReason.LABEL_NOT_ALLOWED


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert (
        answer(gated(["Qualit\u00e9"]), {"First": "qualite\u0301", "Second": ""}).values["First"] == "Qualité"
    )


def test_an_organic_label_is_kept_with_a_warning() -> None:
    found = answer(PERMISSIVE, item(Topic="Packaging of\nthe box " + "x" * 200))
    assert found.values["Topic"].startswith("Packaging of\nthe box xxx")
    (warning,) = found.warnings
    assert warning.startswith('"Topic" is "Packaging of the box xxx')
    assert len(warning) < 120


@pytest.mark.promise(7)
def test_strict_refuses_an_organic_label() -> None:
    found = problem(STRICT, item(Urgency="Soon"))
    assert found.reason == RowReason.LABEL_NOT_ALLOWED
    assert '"Urgency" is "Soon"' in found.detail


@pytest.mark.parametrize("empty", ["", "  ", "\x00"])
def test_an_empty_label_is_no_label_but_an_empty_text_is_a_text(empty: str) -> None:
    assert problem(PERMISSIVE, item(Urgency=empty)).reason == RowReason.SCHEMA_VIOLATION
    assert answer(PERMISSIVE, item(Key_Point=empty)).values["Key_Point"] == ""


@pytest.mark.parametrize(
    ("json_text", "kept"),
    [
        ("1", "1"),
        ("-2.50", "-2.50"),
        ("1e400", "1e400"),
        ("true", "true"),
        ("false", "false"),
        ('"TRUE"', "true"),
    ],
)
def test_numbers_and_booleans_become_their_text(json_text: str, kept: str) -> None:
    value = load_strictly(f'{{"First": {json_text}, "Second": {json_text}}}')
    found = answer(gated([1, "-2.50", "1e400", True, False]), value)
    assert (found.values["First"], found.warnings) == (kept, ())
    assert type(found.values["Second"]) is str


def test_values_are_trimmed_cleaned_and_capped() -> None:
    said = " \x07one\r\ntwo\x1b[31m\tthree\x85 "
    assert answer(PERMISSIVE, item(Key_Point=said)).values["Key_Point"] == "one\ntwo[31m\tthree"
    assert answer(PERMISSIVE, item(Key_Point="x" * 10_000 + " "))
    assert problem(PERMISSIVE, item(Key_Point="x" * 10_001)).reason == RowReason.SCHEMA_VIOLATION


@pytest.mark.parametrize("file", [PERMISSIVE, STRICT])
@pytest.mark.parametrize("said", ["NOT_APPLICABLE", "not_applicable", "N/A", "n/a", "NA", "Not Applicable"])
def test_not_applicable_takes_the_defaults_whatever_else_is_said(file: PromptFile, said: str) -> None:
    assert answer(file, item(Topic=said, Urgency=None, Sentiment="zz")) == Answer(NA_ROW, ())
    assert answer(file, {"Topic": said}) == Answer(NA_ROW, ())


def test_not_applicable_in_another_column_is_no_gate() -> None:
    assert answer(PERMISSIVE, item(Urgency="N/A")).values["Urgency"] == "N/A"
    assert problem(STRICT, item(Urgency="NOT_APPLICABLE")).reason == RowReason.LABEL_NOT_ALLOWED


@pytest.mark.parametrize("labels", [["N/A", "A"], ["na", "n/a"]])
def test_an_allowed_label_that_looks_like_not_applicable_is_a_label(labels: list[str]) -> None:
    file = gated(labels, not_applicable_defaults={"First": "none"})
    assert answer(file, {"First": labels[0], "Second": "x"}).values == {"First": labels[0], "Second": "x"}


def test_not_applicable_that_is_listed_still_gates_when_there_are_defaults() -> None:
    said = {"First": "NOT_APPLICABLE", "Second": "x"}
    with_defaults = gated(["A", "NOT_APPLICABLE"], not_applicable_defaults={"First": "none"})
    assert answer(with_defaults, said).values == {"First": "none", "Second": "-"}
    assert answer(gated(["A", "NOT_APPLICABLE"]), said).values == said


def test_not_applicable_without_defaults() -> None:
    said = {"First": "N/A", "Second": "x"}
    dashes = {"First": "-", "Second": "-"}
    assert answer(gated(["A"]), said).values == dashes
    assert answer(gated(None, strict=True), said).values == dashes
    assert problem(gated(["A"], strict=True), said).reason == RowReason.LABEL_NOT_ALLOWED


@pytest.mark.parametrize(
    ("labels", "said", "closed"),
    [
        (["Y", "N"], "N", True),
        (["Y", "N"], "n", True),
        (["Y", "N"], "Y", False),
        (["Yes", "No"], "N", True),
        (["Yes", "No"], "No", False),
        (["A", "B"], "N", False),
        (None, "N", True),
        (None, "n", False),
    ],
)
def test_n_in_the_first_column_closes_the_others(labels: list[str] | None, said: str, closed: bool) -> None:
    found = answer(gated(labels), {"First": said, "Second": "x"})
    assert found.values["Second"] == ("-" if closed else "x")


def test_n_needs_nothing_of_the_others() -> None:
    assert answer(gated(["Y", "N"]), {"First": "N"}).values == {"First": "N", "Second": "-"}
