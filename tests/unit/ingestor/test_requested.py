"""Requested runs: several files under one job that travels with them, in any order."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prism.messages import FileReason, MessageSource, UriSource
from prism.messages.intake import REQUEST_TYPE
from prism_ingestor.intake import Submission
from prism_ingestor.requested import MAX_REQUEST_BYTES
from tests.unit.ingestor.test_intake import TIMEOUT_S, Intake, accepted, refused

PROMPT = {"system_prompt": "Classify.", "columns_to_code": ["Topic"]}
SHA = "a" * 64


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(tmp_path)


def request(files: list[dict[str, Any]], **fields: Any) -> bytes:
    whole = {"job_name": "mine", "job": {"project": {"name": "p"}}, "prompt": PROMPT, "files": files}
    return json.dumps(whole | fields).encode()


def ask(intake: Intake, value: bytes, run_id: str = "r", **headers: Any) -> Submission | None:
    return intake.read(value, key=b"r", content_type=REQUEST_TYPE, run_id=run_id, **headers)


def file(label: str, **fields: Any) -> dict[str, Any]:
    return {"label": label, "filename": f"{label}.csv", "sha256": SHA, **fields}


def test_a_run_of_references_needs_its_request_alone(intake: Intake) -> None:
    files = [file("q1", uri="file:///d/q1.csv"), file("q2", uri="file:///d/q2.csv.gz", encoding="gzip")]
    found = accepted(ask(intake, request(files), priority="7"))
    assert (found.run_id, found.job_name, found.priority, found.prompt) == ("r", "mine", 7, PROMPT)
    assert [one.label for one in found.files] == ["q1", "q2"]
    assert found.files[1].source == UriSource(uri="file:///d/q2.csv.gz", encoding="gzip")
    assert found.places == ((3, 0),)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(["request", "1", "2a", "2b", "2a"]))
def test_request_files_and_chunks_come_in_any_order(tmp_path: Path, order: list[str]) -> None:
    intake = Intake(tmp_path)
    send = {
        "request": lambda: ask(intake, request([file("one"), file("two")])),
        "1": lambda: intake.read(b"x", run_id="r", file="1"),
        "2a": lambda: intake.part(1, 2, run_id="r", file="2"),
        "2b": lambda: intake.part(2, 2, run_id="r", file="2"),
    }
    found = [one for one in (send[piece]() for piece in order) if one is not None]
    submission = accepted(found[0])
    assert [one.label for one in submission.files] == ["one", "two"]
    first, second = (one.source for one in submission.files)
    assert first == MessageSource(partition=3, offsets=[order.index("1")])
    assert isinstance(second, MessageSource)
    assert len(second.offsets) == 2
    assert len(found) == 1


def test_nothing_is_made_before_the_last_file(intake: Intake) -> None:
    assert ask(intake, request([file("one"), file("two")])) is None
    assert intake.read(b"x", run_id="r", file="1") is None
    assert intake.read(b"x", run_id="other", file="2") is None
    assert intake.reader.needed_from(3) == 0, "nothing of it may be deleted from the topic"
    found = accepted(intake.read(b"x", run_id="r", file="2"))
    assert found.places == ((3, 0), (3, 1), (3, 3))


def test_what_a_dead_sender_left_of_a_requested_run_is_no_part_of_the_next(intake: Intake) -> None:
    """It had sent one file, and a chunk of the second; the next one names the first, and sends the other."""
    assert intake.read(b"old", run_id="r", file="1") is None
    assert intake.part(1, 3, run_id="r", file="2") is None
    for number in (1, 2):
        assert intake.part(number, 2, run_id="r", file="2") is None
    found = accepted(ask(intake, request([file("one", uri="file:///d/one.csv"), file("two")])))
    assert [one.source for one in found.files] == [
        UriSource(uri="file:///d/one.csv"),
        MessageSource(partition=3, offsets=[2, 3]),
    ]
    assert sorted(found.places) == [(3, offset) for offset in range(5)]
    assert intake.reader.needed_from(3) is None


def test_what_never_comes_is_given_up_and_said(intake: Intake) -> None:
    ask(intake, request([file("one"), file("two")]))
    intake.read(b"x", run_id="r", file="1")
    intake.read(b"x", run_id="lonely", file="1")
    intake.now += TIMEOUT_S + 1
    by_run = {one.run_id: one for one in intake.reader.given_up()}
    assert refused(by_run["r"]) == (FileReason.INCOMPLETE_CHUNKS, "r")
    assert by_run["r"].refusal is not None
    assert "file 2 of 2 did not come" in by_run["r"].refusal.detail
    assert refused(by_run["lonely"]) == (FileReason.INCOMPLETE_CHUNKS, "lonely")
    assert by_run["r"].places == ((3, 0), (3, 1))
    assert intake.reader.needed_from(3) is None


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (b"{", {}, FileReason.BAD_REQUEST),
        (b" " * (MAX_REQUEST_BYTES + 1), {}, FileReason.TOO_LARGE),
        (request([]), {}, FileReason.BAD_REQUEST),
        (request([file("a"), file("a")]), {}, FileReason.BAD_REQUEST),
        (request([file("a", uri="file:///a", ranges=[[5, 1]])]), {}, FileReason.BAD_REQUEST),
        (request([file("a", uri="file:///a")], job={"model": {"batch_size": "x"}}), {}, FileReason.BAD_JOB),
        (request([file("a", uri="file:///a")], prompt={"columns_to_code": 3}), {}, FileReason.BAD_PROMPT),
        (request([file("a", uri="file:///a")]), {"run_id": "../x"}, FileReason.BAD_RUN_ID),
        (request([file("a", uri="file:///a")]), {"priority": "10"}, FileReason.BAD_HEADER),
    ],
)
def test_requests_that_are_refused(
    intake: Intake, value: bytes, headers: dict[str, str], reason: FileReason
) -> None:
    assert refused(ask(intake, value, **({"run_id": "r"} | headers)))[0] is reason


def test_a_file_without_its_run_is_refused(intake: Intake) -> None:
    assert refused(intake.read(b"x", file="1"))[0] is FileReason.BAD_HEADER
    assert refused(intake.read(b"x", run_id="r", file="0"))[0] is FileReason.BAD_HEADER


def test_rows_are_taken_as_the_request_says_or_else_the_job(intake: Intake) -> None:
    manual = {"split_strategy": "manual", "manual_ranges": [{"start": "2", "end": "3"}]}
    files = [file("a", uri="file:///a", ranges=[[7, 9]]), file("b", uri="file:///b")]
    found = accepted(ask(intake, request(files, job={"parallelization": manual})))
    assert [one.ranges for one in found.files] == [[(7, 9)], [(2, 3)]]


def test_of_a_file_that_is_sent_again_after_a_death_the_last_bytes_count(intake: Intake) -> None:
    """Its sender died before the request, and the file was changed meanwhile."""
    intake.read(b"old", run_id="r", file="1")
    intake.read(b"new", run_id="r", file="1")
    found = accepted(ask(intake, request([file("one")])))
    assert found.files[0].source == MessageSource(partition=3, offsets=[1])
    assert found.places == ((3, 0), (3, 1), (3, 2))


@pytest.mark.promise(9)
def test_what_waits_is_looked_through_once_a_second(intake: Intake) -> None:
    """Thousands of files whose request never comes would slow down every other record."""
    intake.read(b"x", run_id="r", file="1")
    intake.now += TIMEOUT_S + 1
    assert len(intake.reader.given_up()) == 1
    intake.read(b"x", run_id="r", file="1")
    intake.reader._requested["r"].last_at = -TIMEOUT_S
    assert intake.reader.given_up() == []
    intake.now += 1
    assert len(intake.reader.given_up()) == 1


@pytest.mark.promise(9)
def test_a_request_that_waits_takes_no_more_than_its_bytes(intake: Intake) -> None:
    """Parsed, the rows' ranges of one message took 90 MB."""
    ranges = [[2 * one + 1, 2 * one + 1] for one in range(500)]
    value = request([file(f"f{one}", ranges=ranges) for one in range(200)])
    tracemalloc.start()
    ask(intake, value)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < len(value)
