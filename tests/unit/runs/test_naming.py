"""Names made of what people send never leave a folder, collide or change."""

import re
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prism.runs.naming import (
    MAX_LABEL,
    MAX_OUTPUT_NAME,
    MAX_TAG,
    NAMING_FIELDS,
    PatternRefused,
    check_pattern,
    clean_label,
    generated_run_id,
    is_job_name,
    is_run_id,
    model_tag,
    models_tag,
    output_name,
    part_name,
    results_partition,
)

any_text = st.one_of(st.text(max_size=300), st.text(alphabet="./\\-_ ab\0\n:%é\ud800", max_size=40))
labels = any_text.map(clean_label)
run_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}", fullmatch=True).filter(is_run_id)


@pytest.mark.promise(8)
@given(any_text)
def test_a_label_is_fit_for_a_file_name(text: str) -> None:
    label = clean_label(text)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", label)
    assert ".." not in label
    assert len(label) <= MAX_LABEL
    assert clean_label(label) == label


def test_a_good_label_stays_and_others_get_a_hash() -> None:
    assert clean_label("march-2026_v1.2") == "march-2026_v1.2"
    assert clean_label("märz") == "m_rz-" + clean_label("märz")[-8:]
    assert clean_label("m rz") != clean_label("märz")
    assert len(clean_label("")) == 8
    assert clean_label("--rf").startswith("rf-")
    assert clean_label("a/../b").startswith("a_b-")


@pytest.mark.parametrize("text", ["", ".x", "-x", "a/b", "a..b", "a b", "a\n", "é", "x" * 121, "../x"])
def test_what_is_no_run_id(text: str) -> None:
    assert not is_run_id(text)


@pytest.mark.parametrize("text", ["", "../x", "a.b", "a/b", "-x", "a\n", "x" * 65])
def test_what_is_no_job_name(text: str) -> None:
    assert not is_job_name(text)


def test_the_same_record_gives_the_same_run() -> None:
    assert generated_run_id("feedback", "v1", "m1", 1_795_255_872_000, 3, 42) == (
        "feedback_v1_mm1_20261121_101112_3-42"
    )


@pytest.mark.promise(9)
@given(st.integers(-(2**63), 2**63 - 1))
def test_any_timestamp_makes_a_run_id(timestamp_ms: int) -> None:
    assert is_run_id(generated_run_id("p", "v1", "0", timestamp_ms, 0, 0))


TAGS = st.lists(st.from_regex(r"[A-Za-z0-9]{1,10}", fullmatch=True), min_size=1, max_size=8)


@pytest.mark.promise(9)
@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", fullmatch=True),
    TAGS,
    st.integers(0, 2**63 - 1),
)
@example("p" * 64, "v" * 32, ["x" * 10] * 8, 2**63 - 1)
@example("p", "1..2...3", ["x"], 0)
def test_any_project_and_models_make_a_run_id(
    project: str, version: str, tags: list[str], offset: int
) -> None:
    tag = models_tag(tags, tags)
    assert len(tag) <= MAX_TAG
    made = generated_run_id(project, version, tag, 0, 0, offset)
    assert is_run_id(made)
    assert made == generated_run_id(project, version, models_tag(tags, tags), 0, 0, offset)
    assert made != generated_run_id(project, version, tag, 0, 0, offset + 1)


def test_many_models_are_told_apart_by_all_of_their_names() -> None:
    tags = ["qwen25code"] * 8
    assert models_tag(["7", "llama32"], ["a", "b"]) == "7-llama32"
    assert models_tag(tags, ["a", *"bcdefgh"]) != models_tag(tags, ["b", *"acdefgh"])
    assert models_tag(tags, list("abcdefgh")).startswith("qwen25code-")


@pytest.mark.parametrize(
    ("name", "model_id", "tag"),
    [
        (None, None, "0"),
        ("llama3.2:1b", None, "llama321b"),
        ("llama3.2:1b", "m1", "m1"),
        ("::", None, "0"),
    ],
)
def test_a_models_tag(name: str | None, model_id: str | None, tag: str) -> None:
    assert model_tag(name, model_id) == tag


@given(run_ids, st.integers(1, 1000))
def test_a_runs_results_have_one_partition(run_id: str, partitions: int) -> None:
    found = results_partition(run_id, partitions)
    assert 0 <= found < partitions
    assert found == results_partition(run_id, partitions)


@pytest.mark.promise(8)
@given(pattern=any_text, label=labels, run_id=run_ids)
def test_no_pattern_leaves_the_folder(pattern: str, label: str, run_id: str) -> None:
    fields = dict.fromkeys(NAMING_FIELDS, "x") | {"label": label, "run_id": run_id, "version": "v1."}
    try:
        name = output_name(pattern, fields)
    except PatternRefused:
        return
    assert PurePosixPath(name).name == name
    assert name not in (".", "..")
    assert not name.startswith((".", "-"))
    assert "\0" not in name
    assert len(name) <= MAX_OUTPUT_NAME


@pytest.mark.parametrize(
    "pattern", ["{run_id}_{label}", "{project} {version}.{date}", "out-{label}", "{label}", "all"]
)
def test_patterns_that_are_fine(pattern: str) -> None:
    check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "", "../{label}", "/{label}", "a/{label}", "{label}/..", "{nope}", "{run_id!r}", "{label.__class__}",
        "{}", "{{label}}", "{label", ".{label}", "-{label}", "a\\b", "a\0b", "a\n", "a..b", "x" * 130,
    ],
)  # fmt: skip
def test_patterns_that_are_refused(pattern: str) -> None:
    with pytest.raises(PatternRefused):
        check_pattern(pattern)


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    fields = dict.fromkeys(NAMING_FIELDS, "x" * 100)
    one = output_name("{run_id}_{label}_{project}", fields)
    other = output_name("{run_id}_{label}_{project}", fields | {"project": "x" * 99 + "y"})
    assert len(one) == len(other) == MAX_OUTPUT_NAME
    assert one != other


def test_parts_are_counted_from_one() -> None:
    assert part_name("r", "l", 1) == "checkpoint_r_l_part0001.csv"
