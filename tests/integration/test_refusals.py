"""Every CSV, header, job, prompt and reference that is refused: its exact outcome, and nobody else's."""

import gzip
import json
import os
from typing import Any

import pytest

from prism.messages import FileReason, RunRecord
from tests.integration.desk import Desk, csv_of, reference
from tests.integration.stage import Stage, await_value

BIG = b"\x01" * 3_000_000
GZIP = {"content_encoding": "gzip"}
LONG = {"filename": "\x01" * 3_000_000, "priority": "x"}

REFUSALS: list[tuple[str, bytes, dict[str, str], FileReason, int | None, int | None]] = [
    ("empty", b"", {}, FileReason.EMPTY_FILE, 1, None),
    ("blank", b"\n \n\n", {}, FileReason.MISSING_COLUMN, 2, None),
    ("only newlines", b"\n\n\n", {}, FileReason.NO_HEADER, 1, None),
    ("unnamed", b",\n1,2\n", {}, FileReason.NO_HEADER, 1, None),
    ("no Message", b"RowID,Text\n1,a\n", {}, FileReason.MISSING_COLUMN, 1, None),
    ("duplicate header", b"RowID,Message,Message\n1,a,b\n", {}, FileReason.DUPLICATE_COLUMN, 1, 15),
    ("duplicate RowID", b"RowID,Message\n1,a\n2,b\n1,c\n", {}, FileReason.DUPLICATE_ROW_ID, 4, 1),
    ("not UTF-8", b"RowID,Message\n1,a\xff\n", {}, FileReason.NOT_UTF8, 2, 4),
    ("UTF-16", "RowID,Message\n1,a\n".encode("utf-16"), {}, FileReason.NOT_UTF8, 1, 1),
    ("unclosed quote", b'RowID,Message\n1,"a\nb\n', {}, FileReason.UNCLOSED_QUOTE, 2, 3),
    ("stray quote", b'RowID,Message\n1,"a"b\n', {}, FileReason.MALFORMED_CSV, 2, 6),
    ("delimiter", b"RowID;Message\n1;a\n", {}, FileReason.WRONG_DELIMITER, 1, 6),
    ("delimiter of the job", b"RowID,Message\n", {"job": "semicolon"}, FileReason.WRONG_DELIMITER, 1, 6),
    ("not gzip", b"RowID,Message\n", GZIP, FileReason.NOT_GZIP, None, None),
    ("cut gzip", gzip.compress(csv_of(9))[:-4], GZIP, FileReason.NOT_GZIP, None, None),
    ("gzip undeclared", gzip.compress(csv_of(9)), {}, FileReason.NOT_UTF8, 1, 1),
    ("gzip bomb", gzip.compress(bytes(1 << 25)), GZIP, FileReason.GZIP_BOMB, None, None),
    ("wide header", b"Message," + BIG[:200_000] + b"\n", {}, FileReason.TOO_LARGE, 1, None),
    ("row of controls", b"Message\nfine\n" + BIG + b"\n", {}, FileReason.TOO_LARGE, 3, None),
    ("unknown job", csv_of(1), {"job": "nope"}, FileReason.UNKNOWN_JOB, None, None),
    ("job outside", csv_of(1), {"job": "../jobs/default"}, FileReason.UNKNOWN_JOB, None, None),
    ("bad job", csv_of(1), {"job": "broken"}, FileReason.BAD_JOB, None, None),
    ("quote as delimiter", csv_of(1), {"job": "quote"}, FileReason.BAD_JOB, None, None),
    ("deep job", csv_of(1), {"job": "deep"}, FileReason.BAD_JOB, None, None),
    ("no prompt", csv_of(1), {"job": "noprompt"}, FileReason.BAD_PROMPT, None, None),
    ("prompt outside", csv_of(1), {"job": "outside"}, FileReason.BAD_PROMPT, None, None),
    ("prompt with NUL", csv_of(1), {"job": "nul"}, FileReason.BAD_PROMPT, None, None),
    ("deep prompt", csv_of(1), {"job": "badprompt"}, FileReason.BAD_PROMPT, None, None),
    ("priority", csv_of(1), {"priority": "high"}, FileReason.BAD_HEADER, None, None),
    ("encoding", csv_of(1), {"content_encoding": "br"}, FileReason.BAD_HEADER, None, None),
    ("long names", csv_of(1), LONG, FileReason.BAD_HEADER, None, None),
    ("part 0", csv_of(1), {"part": "0", "parts": "2"}, FileReason.BAD_HEADER, None, None),
    ("no parts", csv_of(1), {"part": "1"}, FileReason.BAD_HEADER, None, None),
    ("bad reference", b"{}", {"content_type": "application/json"}, FileReason.BAD_REFERENCE, None, None),
]  # fmt: skip


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    ("content", "headers", "reason", "line", "column"),
    [case[1:] for case in REFUSALS],
    ids=[case[0] for case in REFUSALS],
)
def test_what_is_refused(
    desk: Desk,
    content: bytes,
    headers: dict[str, str],
    reason: FileReason,
    line: int | None,
    column: int | None,
) -> None:
    record = desk.refused(desk.drop(content, **headers))
    assert (record.reason, record.line, record.column) == (reason, line, column)
    assert record.detail
    assert "\n" not in record.detail
    assert desk.stage.batches(record.run_id) == []


URIS: list[tuple[str, FileReason]] = [
    ("file:///etc/passwd", FileReason.OUTSIDE_DATA_FOLDER),
    ("{data}/../jobs/default.yaml", FileReason.OUTSIDE_DATA_FOLDER),
    ("{data}/none.csv", FileReason.NOT_FOUND),
    ("{data}/" + "x" * 300, FileReason.NOT_FOUND),
    ("{data}/a%00b", FileReason.NOT_FOUND),
    ("{data}/pipe", FileReason.NOT_A_FILE),
    ("{data}/ring", FileReason.NOT_FOUND),
    ("{data}", FileReason.NOT_A_FILE),
    ("http://169.254.169.254/x", FileReason.SCHEME_NOT_ALLOWED),
    ("file://[x", FileReason.BAD_REFERENCE),
]


@pytest.mark.promise(8)
@pytest.mark.parametrize(("uri", "reason"), URIS, ids=[uri[:30] for uri, _ in URIS])
def test_references_that_are_refused(desk: Desk, uri: str, reason: FileReason) -> None:
    data = desk.stage.folder / "data"
    if not (data / "pipe").exists():
        os.mkfifo(data / "pipe")
        (data / "ring").symlink_to(data / "ring")
    value = json.dumps({"uri": uri.format(data=data.as_uri())}).encode()
    record = desk.refused(desk.drop(value, content_type="application/json"))
    assert record.reason == reason


def test_a_reference_with_another_checksum(desk: Desk) -> None:
    value = reference(desk, "sum.csv", csv_of(1), sha256="0" * 64)
    record = desk.refused(desk.drop(value, content_type="application/json"))
    assert record.reason == FileReason.CHECKSUM_MISMATCH


@pytest.mark.promise(9)
def test_a_header_in_latin_1_is_refused_and_kills_nobody(desk: Desk) -> None:
    """confluent-kafka cannot read its name: one such record must not end every ingestor that meets it."""
    desk.stage.kcat(desk.stage.topics.intake, csv_of(1), "-k", "latin", "-H", b"gr\xf6\xdfe=1")
    found = await_value(
        lambda: [
            one
            for record in desk.stage.seen(desk.stage.topics.runs)
            if record.key.startswith("run_v1_m0_")
            and (one := json.loads(record.value or b"{}")).get("reason") == "bad_header"
        ],
        "its run",
    )
    assert found[0]["files"][0]["label"] == "latin"
    desk.stage.kcat(desk.stage.topics.control, b"x", "-k", "r", "-H", b"gr\xf6\xdfe=1")
    marker = desk.drop(csv_of(2))
    desk.fed(marker, 1)
    desk.complete(marker)


def test_a_run_id_that_is_none(desk: Desk) -> None:
    desk.stage.put(desk.stage.topics.intake, csv_of(1), "march", {"run-id": "../../etc"})
    found: Any = await_value(
        lambda: [
            one
            for record in desk.stage.seen(desk.stage.topics.runs)
            if record.key.startswith("run_v1_m0_")
            and not record.key.endswith("/cursor")
            and (one := RunRecord.parse(record.value)).reason == FileReason.BAD_RUN_ID
        ],
        "its run",
    )
    assert found[0].reason == FileReason.BAD_RUN_ID


@pytest.mark.promise(10)
def test_a_missing_jobs_folder_refuses_runs_and_nothing_else(stage: Stage) -> None:
    desk = Desk(stage)
    for path in sorted(stage.jobs.iterdir()):
        path.unlink()
    stage.jobs.rmdir()
    record = desk.refused(desk.drop(csv_of(1)))
    assert record.reason == FileReason.UNKNOWN_JOB
    assert desk.ingestor.ready()[0] == 200
