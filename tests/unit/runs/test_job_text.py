"""A job file as text: whatever stands in a value comes back, and the rest is commented out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.runs.job import Job, read_job_text
from prism.runs.job_text import example, render_job

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
jobs = st.fixed_dictionaries(
    {},
    optional={
        "project": st.fixed_dictionaries({}, optional={"description": texts}),
        "model": st.fixed_dictionaries({}, optional={"name": texts, "batch_size": st.integers(1, 200)}),
        "input_queue": st.lists(
            st.fixed_dictionaries({"path": texts}, optional={"label": texts}), min_size=1, max_size=3
        ),
        "table": st.fixed_dictionaries(
            {},
            optional={
                "columns": st.lists(
                    st.tuples(texts, texts),
                    min_size=1,
                    max_size=3,
                    unique_by=(lambda pair: pair[0], lambda pair: pair[1]),
                ).map(dict),
                "required_columns": st.lists(texts, max_size=3),
            },
        ),
        "output": st.fixed_dictionaries(
            {}, optional={"columns": st.lists(texts, min_size=1, max_size=3, unique=True)}
        ),
        "dedupe": st.booleans(),
    },
)


@given(jobs, st.lists(st.text(alphabet="ab :#\"'{"), max_size=2))
def test_what_is_written_is_what_is_read(values: dict[str, Any], heading: list[str]) -> None:
    assert read_job_text(render_job(values, heading), "job")[0] == Job.model_validate(values)


def test_the_example_is_read_as_it_is() -> None:
    assert read_job_text(render_job(example()), "job")[0] == Job.model_validate(example())


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        render_job({"input_queue": [{"path": "\udcff.csv"}]})


def test_lines_fit_a_screen() -> None:
    assert max(map(len, render_job(example()).split("\n"))) <= 104
