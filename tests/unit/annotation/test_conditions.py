import re
from typing import Any

import pytest

from prism.annotation import Answer, Problem, PromptFile, PromptRefused
from prism.annotation.answer import read_answer
from prism.messages.reasons import RowReason

N = {"when": {"Compared": "N"}, "set": {"Rival": "NONE", "Standing": "-"}}
Y = {"when": {"Compared": "Y"}, "default": {"Rival": "Other"}}
SAID = {"Topic": "Cards", "Compared": "N", "Rival": "NONE", "Standing": "-"}


def file(*conditions: Any, **changes: Any) -> PromptFile:
    return PromptFile.parse(
        {
            "system_prompt": "x",
            "columns_to_code": ["Topic", "Compared", "Rival", "Standing"],
            "validation_rules": {
                "valid_compared": ["Y", "N", "Maybe"],
                "valid_rival": ["Acme", "Other", "NONE"],
                "valid_standing": ["Better", "Worse"],
            },
            "strict": True,
            "conditions": list(conditions),
        }
        | changes
    )


def answer(prompt_file: PromptFile, **said: Any) -> Answer:
    found = read_answer(SAID | said, prompt_file)
    assert isinstance(found, Answer), found
    return found


def coded(prompt_file: PromptFile, **said: Any) -> tuple[str, str]:
    values = answer(prompt_file, **said).values
    return values["Rival"], values["Standing"]


def test_set_replaces_what_the_model_said_and_warns() -> None:
    assert answer(file(N), Rival="Acme", Standing="Better") == Answer(
        SAID,
        (
            '"Rival" was "Acme", set to "NONE" because "Compared" is "N"',
            '"Standing" was "Better", set to "-" because "Compared" is "N"',
        ),
    )


@pytest.mark.parametrize("said", ["NONE", "none", " None ", "", "\x00", None, [], {}])
def test_set_does_not_warn_where_nothing_is_replaced(said: Any) -> None:
    assert answer(file(N), Rival=said) == Answer(SAID, ())


@pytest.mark.parametrize("said", ["Initech", ["Acme"], {"name": "Acme"}, 7, True, "x" * 10_001])
def test_what_is_set_cannot_fail_the_row(said: Any) -> None:
    found = answer(file(N), Rival=said)
    assert found.values == SAID
    assert len(found.warnings) == 1
    assert len(found.warnings[0]) < 200
    without_key = {name: value for name, value in SAID.items() if name != "Rival"}
    assert read_answer(without_key, file(N)) == Answer(SAID, ())


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"Rival": None}, RowReason.SCHEMA_VIOLATION),
        ({"Rival": "Initech"}, RowReason.LABEL_NOT_ALLOWED),
        ({"Standing": "-"}, RowReason.LABEL_NOT_ALLOWED),
        ({"Compared": "perhaps"}, RowReason.LABEL_NOT_ALLOWED),
        ({"Compared": None}, RowReason.SCHEMA_VIOLATION),
    ],
)
def test_a_condition_that_does_not_hold_forgives_nothing(said: dict[str, Any], reason: RowReason) -> None:
    found = read_answer(SAID | {"Compared": "Y", "Rival": "Acme", "Standing": "Better"} | said, file(N))
    assert isinstance(found, Problem)
    assert found.reason == reason


@pytest.mark.parametrize("said", ["", " ", "-", "NONE", "none", "N/A", "Not Applicable", None, []])
def test_default_fills_what_was_left_empty(said: Any) -> None:
    assert coded(file(Y), Compared="Y", Rival=said, Standing="Better") == ("Other", "Better")


def test_default_leaves_an_answer_alone_and_excuses_no_wrong_one() -> None:
    said = {"Compared": "Y", "Standing": "Better"}
    assert coded(file(Y), **said, Rival="acme") == ("Acme", "Better")
    assert isinstance(read_answer(SAID | said | {"Rival": "Initech"}, file(Y)), Problem)
    assert answer(file(Y), **said, Rival="none").warnings == (
        '"Rival" was "none", set to "Other" because "Compared" is "Y"',
    )
    assert answer(file(Y), **said, Rival=None).warnings == ()


def test_when_takes_a_list_and_all_columns_must_hold() -> None:
    both = {"when": {"Compared": ["Y", "Maybe"], "Standing": "Better"}, "set": {"Rival": "Acme"}}
    assert coded(file(both), Compared="Maybe", Standing="better") == ("Acme", "Better")
    assert coded(file(both), Compared="Maybe", Standing="Worse") == ("NONE", "Worse")
    assert coded(file(both), Compared="N", Standing="Better") == ("NONE", "Better")
    (warning,) = answer(file(both), Compared="Y", Standing="Better").warnings
    assert warning.endswith('because "Compared" is "Y" and "Standing" is "Better"')


def test_when_is_matched_as_labels_are() -> None:
    free = file({"when": {"Topic": "credit card"}, "set": {"Rival": "Acme"}})
    assert coded(free, Topic="Credit Card", Standing="Better")[0] == "Acme"
    labelled = file({"when": {"Compared": "maybe"}, "set": {"Rival": "acme"}})
    assert coded(labelled, Compared="MAYBE", Standing="Better")[0] == "Acme"
    twins = file(
        {"when": {"Topic": "us"}, "set": {"Rival": "Acme"}}, validation_rules={"valid_topic": ["us", "US"]}
    )
    assert coded(twins, Topic="us")[0] == "Acme"
    assert coded(twins, Topic="US")[0] == "NONE"


def test_conditions_are_applied_in_order_once() -> None:
    to_maybe = {"when": {"Rival": "Acme"}, "set": {"Compared": "Maybe"}}
    to_acme = {"when": {"Compared": "N"}, "set": {"Rival": "Acme"}}
    assert answer(file(to_acme, to_maybe), Standing="Better").values["Compared"] == "Maybe"
    assert answer(file(to_maybe, to_acme), Standing="Better").values["Compared"] == "N"


def test_the_last_set_and_the_first_default_win() -> None:
    again = {"when": {"Compared": "N"}, "set": {"Rival": "Other"}}
    assert coded(file(N, again), Rival="Acme") == ("Other", "-")
    assert answer(file(N, again), Rival="Acme").warnings[0].startswith('"Rival" was "Acme", set to "Other"')
    fill = {"when": {"Compared": "N"}, "default": {"Rival": "Acme"}}
    assert coded(file(N, fill)) == ("NONE", "-")
    assert coded(file(fill, N | {"set": {"Standing": "-"}}, fill | {"default": {"Rival": "Other"}})) == (
        "Acme",
        "-",
    )


def test_a_value_that_a_condition_puts_is_no_organic_label() -> None:
    permissive = file(N, strict=False)
    assert answer(permissive).warnings == ()
    assert answer(permissive, Compared="Y").warnings == ('"Standing" is "-", which is not in its list',)


def test_not_applicable_goes_before_conditions() -> None:
    gated = file(N, not_applicable_defaults={"Compared": "N", "Rival": "Acme"})
    assert answer(gated, Topic="N/A").values == {
        "Topic": "-",
        "Compared": "N",
        "Rival": "Acme",
        "Standing": "-",
    }


def compared_first(*conditions: Any, **changes: Any) -> PromptFile:
    return file(*conditions, columns_to_code=["Compared", "Topic", "Rival", "Standing"], **changes)


def test_a_closed_row_takes_what_conditions_set() -> None:
    fill = {"when": {"Compared": "N"}, "default": {"Topic": "None"}}
    assert answer(compared_first(N, fill), Rival="Acme", Standing=None) == Answer(
        {"Compared": "N", "Topic": "-", "Rival": "NONE", "Standing": "-"}, ()
    )


@pytest.mark.parametrize(
    ("close_on", "said", "closed"),
    [
        (None, "N", True),
        ([], "N", False),
        ("N", "N", True),
        ("Maybe", "maybe", True),
        (["Maybe"], "N", False),
        (["n", "Maybe"], "N", True),
    ],
)
def test_which_answers_close_a_row_can_be_declared(close_on: Any, said: str, closed: bool) -> None:
    declared = compared_first(close_on=close_on)
    values = answer(declared, Compared=said, Rival="Acme", Standing="Better").values
    assert (values["Topic"], values["Rival"]) == (("-", "-") if closed else ("Cards", "Acme"))


def test_a_declared_answer_closes_where_n_means_no_no() -> None:
    letters = file(columns_to_code=["Topic", "Compared"], validation_rules={"valid_topic": ["M", "S"]})
    assert answer(letters, Topic="M", Compared="x").values["Compared"] == "x"
    spoken = letters.model_copy(update={"close_on": ("M",)})
    assert answer(spoken, Topic="M", Compared="x").values["Compared"] == "-"


def test_the_model_is_told() -> None:
    told = file(
        N, Y, {"when": {"Compared": ["Y", "Maybe"], "Topic": "a"}, "set": {"Standing": "-"}}
    ).system_message
    assert (
        "\nRules between the keys:\n"
        '- If "Compared" is "N": "Rival" is "NONE"; "Standing" is "-"\n'
        '- If "Compared" is "Y": "Rival" is never empty, and "Other" if nothing else fits\n'
        '- If "Compared" is "Y" or "Maybe" and "Topic" is "a": "Standing" is "-"\n'
    ) in told
    assert '- "Standing": one of "Better", "Worse"; "-" only where a rule below says so\n' in told
    assert '- "Rival": one of "Acme", "Other", "NONE"\n' in told
    assert "Rules between" not in file().system_message


def test_the_schema_allows_what_a_condition_puts() -> None:
    strict = file(N, Y)
    assert strict.column("Standing").schema["enum"] == ["-", "Better", "Worse"]
    assert strict.column("Rival").schema["enum"] == ["Acme", "Other", "NONE"]
    assert file(N, strict=False).column("Standing").schema["anyOf"][0]["enum"] == ["-", "Better", "Worse"]
    assert file().column("Standing").schema["enum"] == ["Better", "Worse"]
    spelled = file({"when": {"Compared": "N"}, "set": {"Rival": "none"}})
    assert spelled.column("Rival").schema["enum"] == ["Acme", "Other", "NONE"]
    empty = file({"when": {"Compared": "N"}, "set": {"Standing": ""}}, strict=False)
    assert empty.column("Standing").schema["anyOf"][0]["enum"] == ["Better", "Worse"]


@pytest.mark.parametrize(
    ("condition", "named"),
    [
        (1, "conditions.0"),
        ({}, "conditions.0.when"),
        ({"when": {"Compared": "N"}}, "conditions.0: changes nothing"),
        ({"when": {"Compared": "N"}, "set": {}}, "conditions.0: changes nothing"),
        ({"when": {}, "set": {"Rival": "NONE"}}, "conditions.0.when"),
        ({"set": {"Rival": "NONE"}}, "conditions.0.when"),
        ({"when": {"Compared": []}, "set": {"Rival": "NONE"}}, "conditions.0.when.Compared"),
        ({"when": {"Compared": [""]}, "set": {"Rival": "NONE"}}, "conditions.0.when.Compared"),
        ({"when": {"Compared": None}, "set": {"Rival": "NONE"}}, "conditions.0.when.Compared"),
        ({"when": {"Compared": {"not": "N"}}, "set": {"Rival": "NONE"}}, "conditions.0.when.Compared"),
        ({"when": {"compared": "N"}, "set": {"Rival": "NONE"}}, "conditions.0.when.compared"),
        ({"when": {"RowID": "1"}, "set": {"Rival": "NONE"}}, "conditions.0.when.RowID"),
        ({"when": {"Compared": "N"}, "set": {"Rivals": "NONE"}}, "conditions.0.set.Rivals"),
        ({"when": {"Compared": "N"}, "default": {"Rivals": "NONE"}}, "conditions.0.default.Rivals"),
        ({"when": {"Compared": "Never"}, "set": {"Rival": "NONE"}}, "conditions.0.when.Compared"),
        ({"when": {"Compared": "N"}, "set": {"Rival": "Initech"}}, "conditions.0.set.Rival"),
        ({"when": {"Compared": "N"}, "default": {"Rival": "Initech"}}, "conditions.0.default.Rival"),
        ({"when": {"Compared": "N"}, "set": {"Rival": None}}, "conditions.0.set.Rival"),
        ({"when": {"Compared": "N"}, "set": {"Topic": "a\x00b"}}, "conditions.0.set.Topic"),
        ({"when": {"Compared": "N"}, "set": {"Topic": "\ud800"}}, "conditions.0.set.Topic"),
        ({"when": {"Compared": "N"}, "set": {"Topic": "x" * 10_001}}, "conditions.0.set.Topic"),
        ({"when": {"Compared": "N"}, "set": ["Rival"]}, "conditions.0.set"),
        ({"when": ["Compared"], "set": {"Rival": "NONE"}}, "conditions.0.when"),
        ({"when": {"Compared": "N"}, "sets": {"Rival": "NONE"}}, "conditions.0.sets"),
        (
            {"when": {"Compared": "N"}, "set": {"Rival": "NONE"}, "default": {"Rival": "NONE"}},
            'conditions.0: names "Rival" twice',
        ),
        ({"when": {"Compared": "N"}, "set": {"Compared": "Y"}}, 'conditions.0: names "Compared" twice'),
        ({"when": {"Topic": "N/A"}, "set": {"Rival": "NONE"}}, "conditions.0.when"),
        ({"when": {"Compared": "N"}, "set": {"Ri\u202eval\n" * 99: "NONE"}}, "conditions.0.set"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_refused_in_one_line(condition: Any, named: str) -> None:
    with pytest.raises(PromptRefused, match=re.escape(named)) as refused:
        file(condition)
    message = str(refused.value)
    assert message.isprintable()
    assert len(message) < 400
    assert ";" in message  # what next


def test_conditions_are_a_list() -> None:
    with pytest.raises(PromptRefused, match="conditions"):
        file(conditions=N)


def test_a_value_outside_a_permissive_list_is_a_warning_of_the_file() -> None:
    odd = {"when": {"Compared": "Never"}, "set": {"Rival": "Initech"}, "default": {"Standing": "NONE"}}
    assert [warning.split(":")[0] for warning in file(odd, strict=False).warnings] == [
        "conditions.0.when.Compared",
        "conditions.0.set.Rival",
    ]
    assert file(N, Y).warnings == ()
