"""The output's header: the input's columns first, and no name twice."""

from hypothesis import given
from hypothesis import strategies as st

from prism.runs.columns import META_COLUMNS, output_columns


def test_input_then_coded_then_ours() -> None:
    assert output_columns(["RowID", "Message"], ["Sentiment", "Topic"]) == [
        "RowID", "Message", "Sentiment", "Topic", "Model_Name", "Batch_Size", "Run_ID", "Error",
    ]  # fmt: skip


def test_a_coded_column_that_the_input_has_is_validated() -> None:
    columns = output_columns(["Sentiment", "Message"], ["Sentiment"])
    assert columns[:3] == ["Sentiment", "Message", "Validated_Sentiment"]


def test_any_other_clash_is_numbered() -> None:
    columns = output_columns(["Error", "Error_2", "Validated_A", "A"], ["A"])
    assert columns == [
        "Error", "Error_2", "Validated_A", "A", "Validated_A_2", "Model_Name", "Batch_Size", "Run_ID",
        "Error_3",
    ]  # fmt: skip


names = st.text(alphabet="ABE_2rork", max_size=6) | st.sampled_from([*META_COLUMNS, "Error_2", "Validated_A"])


@given(st.lists(names, unique=True, max_size=8), st.lists(names, unique=True, max_size=8))
def test_no_name_is_there_twice_and_the_input_comes_first(given_: list[str], coded: list[str]) -> None:
    columns = output_columns(given_, coded)
    assert columns[: len(given_)] == given_
    assert len(set(columns)) == len(columns) == len(given_) + len(coded) + len(META_COLUMNS)
