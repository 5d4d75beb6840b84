"""The command line: what is accepted, and one line for what is not."""

import pytest

from prism_cli.__main__ import main
from prism_cli.arguments import MODULES, parser

WRONG = [
    [],
    ["run"],
    ["again", "t1"],
    ["init"],
    ["init", "x.csv", "--project", "a b"],
    ["init", "x.csv", "--columns", "Topic,,Urgency"],
    ["runner", "a.csv"],
    ["runner", "--workers", "0"],
    ["submit"],
    ["submit", "x.csv"],
    ["submit", "x.csv", "--job", "a/b"],
    ["submit", "x.csv", "--job", "j", "--run-id", "../x"],
    ["submit", "x.csv", "--job", "j", "--priority", "10"],
    ["submit", "x.csv", "--job", "j", "--timeout", "inf"],
    ["submit", "x.csv", "--job", "j", "--wait", "--timeout", "0"],
    ["submit", "x.csv", "--job", "j", "--dry-run", "--sample", "1"],
    ["submit", "x.csv", "--job", "j", "--dry-run", "--sample", "few"],
    ["submit", "x.csv", "--job", "j", "--dry-run", "--concurrency", "0"],
    ["up", "--workers", "-1"],
    ["up", "--workers", "two"],
    ["up", "--broker-port", "0"],
    ["pause"],
    ["cancel", "a b"],
    ["fetch"],
    ["fetch", "../x"],
    ["fetch", "t1", "--only", "parts"],
    ["purge", "--older-than", "soon"],
    ["purge", "--older-than", "-1d"],
    ["purge", "--what", "everything"],
    ["purge", "a/b"],
    ["status", "one", "two"],
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_wrong_command_line_is_one_line_and_exit_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith("prism")
    assert "--help" in told.err


@pytest.mark.parametrize("deed", ["--resume", "--summary", "--pause-run", "--resume-run"])
def test_what_is_done_to_a_run_needs_its_id(deed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "job.yaml", deed]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert f"{deed} needs --run-id" in told.err


def test_every_command_takes_json() -> None:
    needed = {
        "init": ["x.csv"],
        "submit": ["x.csv", "--job", "feedback"],
        "pause": ["t1"],
        "resume": ["t1"],
        "cancel": ["t1"],
        "merge": ["t1"],
        "retry": ["t1"],
        "summary": ["t1"],
        "run": ["job.yaml"],
        "fetch": ["t1"],
        "admin": ["topics"],
    }
    for command in MODULES:
        assert parser().parse_args([command, *needed.get(command, []), "--json"]).json


def test_the_defaults_of_up() -> None:
    options = parser().parse_args(["up"])
    assert (options.workers, options.model_server, options.broker_port) == (2, "auto", None)


@pytest.mark.parametrize(
    "words", [["--sample", "5"], ["--concurrency", "2"], ["--jobs-dir", "."], ["--model-server", "embedded"]]
)
def test_what_only_a_dry_run_heeds_does_not_send_a_file(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "x.csv", "--job", "j", "--bootstrap", "127.0.0.1:9", *words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == f"prism: {words[0]} is for --dry-run only; see prism submit --help\n"
