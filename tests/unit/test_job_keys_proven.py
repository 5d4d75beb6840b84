"""Every key of the job file has a test that turns red when the key does nothing; here is which.

A key stands here only after that was tried: with the key taken out of every job that is read, its tests fail.
"""

import ast
from pathlib import Path

import pytest

from prism.runs.job import Job
from prism.runs.keys import key_paths

ROOT = Path(__file__).parents[2]
WHOLE = "acceptance/test_job_keys.py::test_a_job_that_says_everything"
OWN_FLEET = "unit/cli/test_fleet_plans.py::test_a_fleet_has_the_jobs_workers_or_one_that_calls_one_at_a_time"
BUDGET = "unit/ingestor/test_budget.py::"
FORMATS = "unit/ingestor/test_formats.py::"
PUBLICATION = "unit/merger/test_publication.py::"
REPORTS = "unit/merger/test_reporting.py::test_what_the_job_does_not_want_is_not_written"
RANGES = "acceptance/test_failed_rows.py::test_rows_of_manual_ranges_are_taken_and_no_others"

PROVEN: dict[str, tuple[str, ...]] = {
    "project.name": (
        WHOLE,
        "unit/cli/test_job_spec.py::test_a_run_is_named_by_project_version_and_the_models_number",
    ),
    "project.version": (
        WHOLE,
        "unit/cli/test_job_spec.py::test_a_run_is_named_by_project_version_and_the_models_number",
    ),
    "project.description": (
        "unit/merger/test_report_texts.py::test_summary_and_report_say_what_the_job_is_for",
    ),
    "model.name": (
        WHOLE,
        "unit/cli/test_job_spec.py::test_a_run_is_named_by_project_version_and_the_models_number",
    ),
    "model.names": ("acceptance/test_job_keys.py::test_several_models_do_every_row_or_their_share",),
    "model.mode": ("acceptance/test_job_keys.py::test_several_models_do_every_row_or_their_share",),
    "model.batch_size": (WHOLE,),
    "model.retries": ("unit/worker/test_answering.py::test_a_row_has_its_jobs_tries",),
    "model.delay": ("unit/worker/test_answering.py::test_the_pauses_of_a_row_double_with_jitter",),
    "input_queue.path": (WHOLE, "unit/cli/test_job_spec.py::test_a_file_has_the_label_that_the_job_gives_it"),
    "input_queue.label": (
        WHOLE,
        "unit/cli/test_job_spec.py::test_a_file_has_the_label_that_the_job_gives_it",
    ),
    "parallelization.enabled": (OWN_FLEET,),
    "parallelization.workers": (
        OWN_FLEET,
        "acceptance/test_run.py::test_the_files_of_prism_v6_run_as_they_are",
    ),
    "parallelization.split_strategy": (RANGES,),
    "parallelization.manual_ranges.start": (RANGES,),
    "parallelization.manual_ranges.end": (RANGES,),
    "output.directory": (WHOLE,),
    "output.naming_pattern": (PUBLICATION + "test_two_labels_under_one_name_get_two_files",),
    "output.formats": ("unit/merger/test_outputs.py::test_chosen_columns_in_their_order",),
    "output.columns": ("unit/merger/test_outputs.py::test_chosen_columns_in_their_order",),
    "output.checkpoints.directory": (WHOLE,),
    "output.checkpoints.interval": ("acceptance/test_v6_failures.py::test_7_checkpoints_at_any_interval",),
    "output.checkpoints.cleanup_after_merge": (
        PUBLICATION + "test_parts_go_when_the_job_says_so_and_no_retry_needs_them",
    ),
    "error_handling.strategy": (
        "acceptance/test_failed_rows.py::test_strategy_stop_ends_the_run_with_its_first_failed_row",
    ),
    "error_handling.max_worker_retries": (
        "unit/cli/test_fleet_plans.py::test_a_worker_is_started_again_as_often_as_the_job_says",
    ),
    "error_handling.save_failed_ranges": (
        "unit/merger/test_failed_rows.py::test_a_job_may_want_no_files_of_failed_rows",
    ),
    "error_handling.prompt_on_failure": (
        "unit/cli/test_aftermath.py::test_a_job_says_whether_a_person_is_asked",
    ),
    "merge.auto_merge": (
        "acceptance/test_failed_rows.py::test_the_output_waits_for_prism_merge_where_the_job_says_so",
    ),
    "merge.condition": (
        "acceptance/test_failed_rows.py::test_no_row_ok_publishes_nothing_where_one_is_wanted",
        PUBLICATION + "test_any_success_without_any_is_withheld",
        PUBLICATION + "test_a_broken_off_run_counts_every_row",
    ),
    "merge.sort_by": (PUBLICATION + "test_sort_by",),
    "merge.max_failed": (
        "acceptance/test_failed_rows.py::test_ten_per_cent_failed",
        PUBLICATION + "test_merge_conditions",
    ),
    "prompts.config_file": (WHOLE,),
    "monitoring.status_dir": (WHOLE,),
    "monitoring.logs_dir": (WHOLE,),
    "monitoring.dashboard_refresh": (
        "unit/merger/test_status_files.py::test_files_are_written_as_often_as_the_job_says",
        "unit/cli/test_dashboard_history.py::test_a_job_that_says_how_often_is_obeyed",
    ),
    "monitoring.save_terminal_logs": ("unit/merger/test_run_log.py::test_a_job_may_want_no_log",),
    "monitoring.create_summaries": (REPORTS,),
    "monitoring.create_analytics": (REPORTS,),
    "table.format": (FORMATS + "test_what_the_job_says_goes_before_the_name",),
    "table.delimiter": (FORMATS + "test_what_the_job_says_goes_before_the_name",),
    "table.columns": (FORMATS + "test_columns_are_read_under_our_names",),
    "table.required_columns": (FORMATS + "test_a_job_says_which_columns_there_must_be",),
    "budget.tokens": (
        BUDGET + "test_what_is_under_way_counts_as_dear_as_what_is_merged",
        "unit/ingestor/test_run_states.py::test_a_run_whose_budget_is_reached_is_fed_no_more_and_says_so",
    ),
    "budget.money": (BUDGET + "test_money_is_counted_by_the_price_at_acceptance",),
    "dedupe": ("unit/worker/test_sharing.py::test_a_job_and_a_worker_can_do_without",),
}


def test_every_key_is_here() -> None:
    every = list(key_paths(Job))
    sections = {one.rpartition(".")[0] for one in every}
    assert set(PROVEN) == set(every) - sections


@pytest.mark.parametrize("key", PROVEN)
def test_what_proves_a_key_is_a_test_of_make_test_that_sets_it(key: str) -> None:
    assert PROVEN[key]
    for node in PROVEN[key]:
        source, function = found(node)
        marks = "".join(ast.unparse(one) for one in function.decorator_list)
        assert "mark.chaos" not in marks, f"{node} is no part of make test"
        assert "mark.skip" not in marks, f"{node} is not run"
        assert key.rpartition(".")[2] in source, f"{node.partition('::')[0]} does not say {key}"


def found(node: str) -> tuple[str, ast.FunctionDef]:
    """Return the module's source and the test function of `file::name`."""
    place, _, name = node.partition("::")
    path = ROOT / "tests" / place
    assert path.is_file(), f"there is no {place}"
    source = path.read_text(encoding="utf-8")
    functions = [
        one for one in ast.parse(source).body if isinstance(one, ast.FunctionDef) and one.name == name
    ]
    assert name.startswith("test_"), name
    assert functions, f"there is no {node}"
    return source, functions[0]
