"""Intake records as submissions: headers, chunks in any order, references, and what is wrong with them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prism.kafka.records import Record
from prism.messages import FileReason, MessageSource, RunRecord, RunState, UriSource
from prism.runs.catalogue import Catalogue
from prism.runs.naming import is_run_id
from prism_ingestor.intake import MAX_NAME, IntakeReader, Submission
from tests.unit.kafka.test_records import FakeMessage

JOB = "project: {name: feedback, version: v2}\nmodel: {name: 'llama3.2:1b'}\n"
TIMEOUT_S = 900.0


class Intake:
    """A reader, its clock, and records at the next offsets."""

    def __init__(self, folder: Path) -> None:
        (folder / "feedback.yaml").write_text(JOB)
        (folder / "default.yaml").write_text("")
        (folder / "broken.yaml").write_text("model: {batch_size: many}")
        self.now = 0.0
        self.offset = 0
        self.reader = IntakeReader(folder, Catalogue, TIMEOUT_S, lambda: self.now)

    def read(
        self, value: bytes | None = b"x", key: bytes | None = b"march", **headers: Any
    ) -> Submission | None:
        pairs = [
            (name.replace("_", "-"), text.encode() if isinstance(text, str) else text)
            for name, text in headers.items()
        ]
        message = FakeMessage(value, key, pairs)
        record = Record.of(message)  # type: ignore[arg-type]
        self.offset += 1
        return self.reader.read(
            replace(record, partition=3, offset=self.offset - 1, timestamp_ms=1_795_255_872_000)
        )

    def part(self, number: object, parts: object, run_id: str = "big", **headers: Any) -> Submission | None:
        return self.read(part=str(number), parts=str(parts), run_id=run_id, **headers)


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(tmp_path)


def accepted(submission: Submission | None) -> Submission:
    assert submission is not None
    assert submission.refusal is None
    return submission


def refused(submission: Submission | None) -> tuple[FileReason, str]:
    assert submission is not None
    assert submission.refusal is not None
    assert is_run_id(submission.run_id)
    return submission.refusal.reason, submission.run_id


def test_a_file_and_nothing_else(intake: Intake) -> None:
    found = accepted(intake.read())
    assert found.run_id == "run_v1_m0_20261121_101112_3-0"
    assert (found.files[0].label, found.job_name, found.priority) == ("march", "default", 5)
    assert found.files[0].source == MessageSource(partition=3, offsets=[0])


def test_every_header(intake: Intake) -> None:
    found = accepted(
        intake.read(
            key=b"m\xc3\xa4rz",
            job="feedback",
            run_id="t1",
            filename="C:\\data\\march.csv",
            content_encoding="GZIP",
            priority="9",
        )
    )
    assert (found.run_id, found.job_name, found.files[0].filename, found.priority) == (
        "t1",
        "feedback",
        "march.csv",
        9,
    )
    assert found.files[0].label.startswith("m_rz-")
    assert found.files[0].source.encoding == "gzip"
    assert found.job_fields["project"] == {"name": "feedback", "version": "v2"}


def test_a_generated_id_is_of_job_time_and_place(intake: Intake) -> None:
    assert accepted(intake.read(job="feedback")).run_id == "feedback_v2_mllama321b_20261121_101112_3-0"


@pytest.mark.parametrize(
    ("key", "filename", "label"),
    [(None, "a.csv", "a.csv"), (b"", "a.csv", "a.csv"), (None, "", "t1"), (b"k", "a", "k")],
)
def test_what_the_label_is(intake: Intake, key: bytes | None, filename: str, label: str) -> None:
    assert accepted(intake.read(key=key, filename=filename, run_id="t1")).files[0].label == label


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"job": "../etc"}, FileReason.UNKNOWN_JOB),
        ({"job": "nope"}, FileReason.UNKNOWN_JOB),
        ({"job": "broken"}, FileReason.BAD_JOB),
        ({"run_id": "../x"}, FileReason.BAD_RUN_ID),
        ({"run_id": "x" * 121}, FileReason.BAD_RUN_ID),
        ({"run_id": b"\xff"}, FileReason.BAD_RUN_ID),
        ({"priority": "10"}, FileReason.BAD_HEADER),
        ({"priority": "-1"}, FileReason.BAD_HEADER),
        ({"priority": "²"}, FileReason.BAD_HEADER),
        ({"priority": "9" * 5000}, FileReason.BAD_HEADER),
        ({"content_encoding": "br"}, FileReason.BAD_HEADER),
        ({"part": "1"}, FileReason.BAD_HEADER),
        ({"part": "1", "parts": "2"}, FileReason.BAD_HEADER),
        ({"part": "0", "parts": "2", "run_id": "b"}, FileReason.BAD_HEADER),
        ({"part": "3", "parts": "2", "run_id": "b"}, FileReason.BAD_HEADER),
        ({"part": "1", "parts": "1000000", "run_id": "b"}, FileReason.BAD_HEADER),
        ({"part": "one", "parts": "2", "run_id": "b"}, FileReason.BAD_HEADER),
    ],
)
def test_headers_that_are_refused(intake: Intake, headers: dict[str, Any], reason: FileReason) -> None:
    assert refused(intake.read(**headers))[0] is reason


@pytest.mark.promise(9)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "job",
                    "run-id",
                    "filename",
                    "content-encoding",
                    "content-type",
                    "priority",
                    "part",
                    "parts",
                    "x",
                ]
            ),
            st.one_of(
                st.none(),
                st.binary(max_size=20),
                st.sampled_from([b"1", b"2", b"feedback", b"application/json"]),
            ),
        ),
        max_size=6,
    ),
    key=st.one_of(st.none(), st.binary(max_size=20)),
    value=st.one_of(st.none(), st.binary(max_size=40)),
    timestamp=st.integers(-(2**63), 2**63 - 1),
)
def test_whatever_somebody_sends_becomes_a_run_or_waits(
    intake: Intake, headers: list[Any], key: bytes | None, value: bytes | None, timestamp: int
) -> None:
    record = Record.of(FakeMessage(value, key, headers))  # type: ignore[arg-type]
    intake.offset += 1
    found = intake.reader.read(replace(record, partition=0, offset=intake.offset, timestamp_ms=timestamp))
    if found is not None:
        assert is_run_id(found.run_id)
        RunRecord(run_id=found.run_id, epoch=1, state=RunState.ACCEPTED, job=found.job_fields).to_bytes()


@pytest.mark.promise(9)
def test_headers_that_the_client_cannot_read_are_no_default_job(intake: Intake) -> None:
    record = Record.of(FakeMessage(b"x", headers=SystemError("a name is no UTF-8")))  # type: ignore[arg-type]
    assert refused(intake.reader.read(record))[0] is FileReason.BAD_HEADER


@pytest.mark.promise(9)
def test_a_megabyte_in_a_header_does_not_travel(intake: Intake) -> None:
    found = intake.read(filename="\x01" * 1_000_000, job="\x01" * 1_000_000)
    assert found is not None
    assert len(found.files[0].filename) == len(found.job_name) == MAX_NAME


def test_a_reference(intake: Intake) -> None:
    sha256 = "a" * 64
    found = accepted(
        intake.read(
            b'{"uri": "file:///x.csv", "sha256": "%s"}' % sha256.encode(),
            content_type="application/json; charset=utf-8",
            content_encoding="gzip",
        )
    )
    assert found.files[0].source == UriSource(uri="file:///x.csv", encoding="gzip")
    assert found.files[0].sha256 == sha256


@pytest.mark.parametrize(
    "value", [b"RowID,Message\n", b"[]", b"{}", None, b'{"uri": 7}', b'{"uri": "x", "sha256": "x"}']
)
def test_a_reference_that_is_none(intake: Intake, value: bytes | None) -> None:
    assert refused(intake.read(value, content_type="application/json"))[0] is FileReason.BAD_REFERENCE


@pytest.mark.promise(1)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(1, 6)), twice=st.lists(st.integers(1, 5), max_size=4))
def test_chunks_in_any_order_and_some_twice(tmp_path: Path, order: list[int], twice: list[int]) -> None:
    intake = Intake(tmp_path)
    sent: list[int] = []
    for number in [*order[:-1], *[one for one in twice if one != order[-1]]]:
        assert intake.part(number, 5) is None
        sent.append(number)
        assert intake.reader.needed_from(3) == 0
    found = accepted(intake.part(order[-1], 5))
    sent.append(order[-1])
    assert found.files[0].source == MessageSource(
        partition=3, offsets=[len(sent) - 1 - sent[::-1].index(number) for number in range(1, 6)]
    )
    assert sorted(found.places) == [(3, offset) for offset in range(len(sent))]  # all can be committed
    assert intake.reader.needed_from(3) is None


@pytest.mark.promise(7)
@pytest.mark.parametrize("total", [3, 4, 5])
def test_a_file_that_is_begun_again_is_the_second_one_alone(intake: Intake, total: int) -> None:
    """A sender died after three of four chunks; the next one's file is another, under the same run id."""
    for number in (1, 2, 3):
        assert intake.part(number, 4, job="broken", content_encoding="gzip") is None
    for number in range(1, total):
        assert intake.part(number, total, job="feedback") is None
        assert intake.reader.needed_from(3) == 0
    found = accepted(intake.part(total, total, job="feedback"))
    assert found.run_id == "big"
    assert found.job_name == "feedback"
    assert found.files[0].source == MessageSource(partition=3, offsets=list(range(3, 3 + total)))
    assert sorted(found.places) == [(3, offset) for offset in range(3 + total)]


def test_two_files_do_not_mix(intake: Intake) -> None:
    assert intake.part(1, 2, run_id="a") is None
    assert intake.part(1, 2, run_id="b") is None
    assert intake.part(2, 2, run_id="a", key=b"other") is None
    found = accepted(intake.part(2, 2, run_id="b"))
    assert (found.run_id, found.files[0].source) == ("b", MessageSource(partition=3, offsets=[1, 3]))


@pytest.mark.promise(7)
def test_chunks_that_disagree_make_no_file_with_a_hole(intake: Intake) -> None:
    assert intake.part(1, 2) is None
    assert refused(intake.part(3, 3)) == (FileReason.BAD_HEADER, "big")
    found = accepted(intake.part(2, 2))
    assert found.files[0].source == MessageSource(partition=3, offsets=[0, 2])


def test_a_file_is_given_up_when_its_next_chunk_does_not_come(intake: Intake) -> None:
    intake.part(1, 3, filename="big.csv")
    intake.now += TIMEOUT_S - 1
    intake.part(3, 3)
    intake.part(3, 3)
    intake.now += TIMEOUT_S
    assert intake.reader.given_up() == []
    intake.now += 1
    (found,) = intake.reader.given_up()
    assert refused(found) == (FileReason.INCOMPLETE_CHUNKS, "big")
    assert found.refusal is not None
    assert "2 of 3 chunks came, part 2 did not" in found.refusal.detail
    assert found.files[0].filename == "big.csv"
    assert found.files[0].source == MessageSource(partition=3, offsets=[0, 2])
    assert sorted(found.places) == [(3, 0), (3, 1), (3, 2)]
    assert intake.reader.given_up() == []
    assert intake.reader.needed_from(3) is None


def test_a_waiting_chunk_keeps_no_bytes(intake: Intake) -> None:
    intake.part(1, 2)
    (parts,) = intake.reader._parts.values()
    assert not any(isinstance(field, Record | bytes) for field in parts.first)
