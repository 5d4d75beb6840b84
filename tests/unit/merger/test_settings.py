"""The merger's settings: defaults that are promised, and what is refused."""

from pathlib import Path

import pytest

from prism.service.settings import load
from prism_merger.settings import MergerSettings

BROKER = {"BOOTSTRAP_SERVER": "localhost:9092"}


def test_promised_defaults() -> None:
    found = load(MergerSettings, BROKER)
    assert (found.ordinal, found.replicas, found.commit_ms, found.commit_results) == (0, 1, 25, 500)
    assert (found.progress_s, found.delete_s, found.quiet_s) == (1.0, 30.0, 10.0)
    assert found.store_dir == Path("prism-data/merger-0")


def test_an_ordinal_beyond_the_replicas_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        load(MergerSettings, {**BROKER, "PRISM_MERGER_ORDINAL": "2", "PRISM_MERGER_REPLICAS": "2"})
    assert stopped.value.code == 3
    assert "PRISM_MERGER_ORDINAL=2 must be below PRISM_MERGER_REPLICAS=2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "token", ["short", "with a space in it..", "ümläute-ümläute-ü", "line\nbreak-line-break"]
)
def test_a_token_that_no_header_takes_is_refused_and_not_shown(
    token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        load(MergerSettings, {**BROKER, "PRISM_FILES_TOKEN": token})
    told = capsys.readouterr().err
    assert told.startswith("PRISM_FILES_TOKEN: the value (hidden) is wrong; allowed: 16 to 512")
    assert token not in told
