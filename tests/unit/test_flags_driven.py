"""Every flag of every command is given by some test to the real command, run as a process; here is which.

PRISM v6's own flags are those of `prism run` here: its two documents' command line references name them.
"""

import argparse
import ast
import re
from pathlib import Path

import pytest

from prism_cli.arguments import parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = next(
    (
        one / "shared" / "seeds"
        for one in ROOT.parents
        if (one / "shared" / "seeds" / "BEHAVIOUR.md").is_file()
    ),
    None,
)
V6 = {
    "--dry-run", "--workers", "--version", "--monitor-only", "--run-id", "--resume", "--summary",
    "--pause-run", "--resume-run",
}  # fmt: skip

# `prism admin` is for brokers that ask who comes.
SECURED = "../integration/test_security.py::secured"
AN_ADMIN = "../integration/test_security.py::test_what_only_an_admin_may"
CHANGED = "../integration/test_security.py::test_topics_are_compared_and_changed_under_a_fleet"
ALONE = "test_cli_alone.py::test_a_broker_that_is_not_there_is_exit_4_at_once"
ANYWHERE = "test_flags.py::test_a_run_is_found_from_anywhere"
CHECKED = "test_flags.py::test_the_models_of_a_fleet_or_a_server_are_listed_and_checked"
DASHBOARD = "test_dashboard.py::test_plain_is_lines_and_an_ended_run_needs_no_dashboard"
DOCTOR = "test_flags.py::test_the_doctor_looks_where_it_is_told_to"
FETCHED = "test_flags.py::test_what_a_run_left_is_shown_and_fetched_as_the_flags_say"
GONE = "test_run.py::test_the_run_goes_on_when_its_commands_are_gone"
PAUSED = "test_flags.py::test_a_run_is_paused_gone_on_with_and_followed_by_the_flags_of_prism_v6"
PLAN = "test_flags.py::test_a_plan_is_made_without_a_fleet"
PROPOSED = "test_flags.py::test_a_job_is_proposed_as_the_flags_say"
RETRIED = "test_flags.py::test_failed_rows_are_done_again_as_the_flags_say"
RETRIED_ALONE = "test_retry_alone.py::test_a_retry_brings_the_fleet_that_its_run_had"
SAID = "test_flags.py::test_flags_of_a_run_go_before_what_its_job_says"
SCRIPT = "test_runner.py::test_a_script_gives_every_answer_and_gets_the_four_files"
SLOW = "test_cli_fleet.py::test_pause_resume_and_cancel_say_what_came_of_it"
START = "conftest.py::start_fleet"
STOPPED = "test_cli_fleet.py::test_a_stop_leaves_nothing_running"
SUBMITTED = "test_flags.py::ended"
WITHHELD = "test_failed_rows.py::test_a_withheld_output_is_published_as_it_is"
V6_FILES = "test_run.py::test_the_files_of_prism_v6_run_as_they_are"
_PLACES = {"--json": ANYWHERE, "--data-dir": ANYWHERE, "--bootstrap": ANYWHERE}

DRIVEN: dict[str, dict[str, str]] = {
    "up": {
        "--json": START, "--model-server": START, "--jobs-dir": START, "--model": "conftest.py::jobs_fleet",
        "--output-root": "conftest.py::jobs_fleet", "--workers": SLOW, "--concurrency": SLOW,
        "--broker-port": STOPPED, "--worker-retries": STOPPED,
    },
    "down": {"--json": STOPPED, "--data-dir": "test_flags.py::test_down_says_whether_a_fleet_was_up"},
    "run": {
        "--json": SAID, "--data-dir": SAID, "--bootstrap": SAID, "--run-id": PAUSED, "--version": SAID,
        "--workers": GONE, "--model": SAID, "--rows": SAID, "--priority": SAID, "--reference": SAID,
        "--detach": PAUSED, "--follow": PAUSED, "--on-failure": RETRIED, "--timeout": PAUSED,
        "--plain": PAUSED, "--dry-run": V6_FILES, "--monitor-only": PAUSED, "--resume": PAUSED,
        "--summary": V6_FILES, "--pause-run": PAUSED, "--resume-run": PAUSED, "--sample": PLAN,
        "--concurrency": PLAN, "--model-server": PLAN,
    },
    "init": dict.fromkeys(("--json", "--project", "--model", "--columns", "--output", "--force"), PROPOSED),
    "runner": dict.fromkeys(
        (
            "--json", "--data-dir", "--bootstrap", "--project", "--create", "--input", "--copy", "--prompt",
            "--model", "--batch-size", "--rows", "--model-server", "--workers", "--on-failure", "--yes",
        ),
        SCRIPT,
    ),
    "submit": {
        "--json": SUBMITTED, "--data-dir": SUBMITTED, "--job": SUBMITTED, "--run-id": SUBMITTED,
        "--label": SUBMITTED, "--priority": SUBMITTED, "--wait": SUBMITTED, "--timeout": SUBMITTED,
        "--bootstrap": ALONE, "--dry-run": PLAN, "--sample": PLAN, "--model-server": PLAN, "--jobs-dir": PLAN,
        "--reference": "test_cli_fleet.py::test_a_file_in_the_fleets_folder_can_go_by_reference",
        "--concurrency": "test_dry_run.py::test_a_sample_of_ten_foretells_what_all_batches_take",
    },
    "status": {**_PLACES, "--bootstrap": ALONE},
    "watch": {**_PLACES, "--bootstrap": ALONE, "--plain": DASHBOARD},
    "pause": _PLACES,
    "resume": _PLACES,
    "cancel": {**_PLACES, "--bootstrap": ALONE},
    "merge": _PLACES,
    "retry": {
        "--json": RETRIED, "--data-dir": RETRIED, "--bootstrap": RETRIED, "--detach": RETRIED,
        "--timeout": RETRIED, "--publish": WITHHELD, "--model-server": RETRIED_ALONE,
    },
    "summary": _PLACES,
    "doctor": {"--json": DOCTOR, "--data-dir": DOCTOR, "--bootstrap": DOCTOR},
    "demo": {},
    "models": {"--json": CHECKED, "--data-dir": CHECKED, "--model-server": CHECKED, "--jobs-dir": CHECKED},
    "fetch": dict.fromkeys(
        ("--json", "--data-dir", "--url", "--to", "--only", "--token-file", "--force"), FETCHED
    ),
    "purge": {
        **dict.fromkeys(
            ("--json", "--data-dir", "--bootstrap", "--older-than", "--what", "--dry-run"), FETCHED
        ),
        "--yes": "test_cli_fleet.py::test_a_run_is_fetched_from_its_merger_and_what_it_left_is_purged",
    },
    "admin topics": {
        "--create": SECURED, "--partitions": SECURED, "--wait": SECURED,
        **dict.fromkeys(("--json", "--apply", "--replication", "--bootstrap", "--data-dir"), CHANGED),
    },
    "admin acls": {
        "--apply": SECURED, "--principal": SECURED, "--host": SECURED, "--json": SECURED,
        "--bootstrap": AN_ADMIN, "--data-dir": AN_ADMIN,
    },
}  # fmt: skip

# `prism run` gives them to the fleet that it brings up: the tests that need it to.
BY_RUN = {("up", "--data-dir"): V6_FILES, ("up", "--until-idle"): GONE}
# A second demonstration would take as long as the first, to see its last words in another form.
UNDRIVEN = {("demo", "--json")}


def options() -> dict[str, set[str]]:
    """Return each command's flags; those of an action that a command must be told are under both names."""
    found: dict[str, set[str]] = {}
    for name, command in subcommands(parser()).items():
        actions = subcommands(command) if name == "admin" else {}
        for action, one in actions.items():
            found[f"{name} {action}"] = flags_of(one)
        if not actions:
            found[name] = flags_of(command)
    return found


def subcommands(whole: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [one.choices for one in whole._actions if isinstance(one, argparse._SubParsersAction)]
    return dict(found[0]) if found else {}


def flags_of(command: argparse.ArgumentParser) -> set[str]:
    return {action.option_strings[-1] for action in command._actions if action.option_strings} - {"--help"}


def test_every_flag_is_here() -> None:
    elsewhere = {*BY_RUN, *UNDRIVEN}
    found = {
        name: flags - {flag for of, flag in elsewhere if of == name} for name, flags in options().items()
    }
    assert {name: set(flags) for name, flags in DRIVEN.items()} == found


@pytest.mark.parametrize("command", DRIVEN)
def test_what_drives_a_flag_says_it_to_the_command(command: str) -> None:
    for flag, node in DRIVEN[command].items():
        place, _, name = node.partition("::")
        text = (ROOT / "tests" / "acceptance" / place).read_text(encoding="utf-8")
        assert f'"{flag}"' in source_of(text, name, node), f"{node} does not give {flag}"
        words = ", ".join(f'"{word}"' for word in command.split())
        assert words in text or command in ("run", "up"), f"{place} does not run prism {command}"


@pytest.mark.parametrize("node", BY_RUN.values())
def test_what_prism_run_gives_on_is_needed_by_a_test(node: str) -> None:
    place, _, name = node.partition("::")
    text = (ROOT / "tests" / "acceptance" / place).read_text(encoding="utf-8")
    assert "fleet_pids() == []" in source_of(text, name, node)


def source_of(text: str, name: str, node: str) -> str:
    """Return a function's source, decorators included, that `make test` runs."""
    functions = [one for one in ast.parse(text).body if isinstance(one, ast.FunctionDef) and one.name == name]
    assert functions, f"there is no {node}"
    found = "\n".join(map(ast.unparse, (*functions[0].decorator_list, functions[0])))
    assert "mark.chaos" not in found, f"{node} is no part of make test"
    # Python writes strings with one kind of quotes.
    return found.replace("'", '"')


def test_every_flag_of_prism_v6_is_driven() -> None:
    assert set(DRIVEN["run"]) >= V6


@pytest.mark.parametrize("name", ["prism-v6-local.md", "prism-v6-cloud.md"])
def test_the_flags_of_prism_v6_are_those_of_its_documents(name: str) -> None:
    if DOCUMENTS is None:
        pytest.skip("the seeds are not at hand")
    text = (DOCUMENTS / name).read_text(encoding="utf-8")
    reference = text.partition("\n## CLI Reference\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^ +(--[a-z-]+)", reference, re.M)) == V6
