"""Sources of every format through pass 1: the same rows, the same columns, the same bytes at a takeover."""

import gzip
import hashlib
import io
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prism.messages import CutPosition, FileReason, MessageSource, RunFile, RunRecord, RunState, UriSource
from prism.runs.job import parse_job
from prism.tables import TableFormat, read_header, read_rows
from prism_ingestor import checking
from prism_ingestor.checking import Checked, Checker, source_kind, table_format
from prism_ingestor.feeding import FileFeed
from prism_ingestor.sources import PlainFile, Sources

PROMPT = {"system_prompt": "Classify.", "columns_to_code": ["Mood"]}
ROWS = [["1", 'he said "hi",\nthen left'], ["2", "01.10"], ["3", "ünï"]]


def csv_bytes(delimiter: str = ",") -> bytes:
    quoted = ['"he said ""hi"",\nthen left"', "01.10", "ünï"]
    lines = [f"RowID{delimiter}Message", *(f"{n}{delimiter}{text}" for n, text in enumerate(quoted, 1))]
    return ("\n".join(lines) + "\n").encode()


def jsonl_bytes() -> bytes:
    return b"".join(json.dumps({"RowID": int(n), "Message": text}).encode() + b"\n" for n, text in ROWS)


def parquet_bytes(names: tuple[str, str] = ("RowID", "Message")) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({names[0]: [1, 2, 3], names[1]: [text for _, text in ROWS]}), sink)
    return sink.getvalue()


class Desk:
    """A real Checker over real Sources; the topic is a dict."""

    def __init__(self, folder: Path, schemes: frozenset[str] = frozenset()) -> None:
        self.data = folder / "data"
        self.spool = folder / "spool"
        for one in (self.data, self.spool, folder / "jobs"):
            one.mkdir(exist_ok=True)
        (folder / "jobs" / "prompt.json").write_text(json.dumps(PROMPT))
        self.topic: dict[int, bytes] = {}
        self.sources = Sources(self.spool, self.data, 1 << 24, lambda _, offset: self.topic.get(offset))
        self.checker = Checker(self.sources, folder / "jobs", folder / "scratch", schemes)
        self.checker.start()

    def file(self, data: bytes, name: str, by_reference: bool = False, **fields: Any) -> RunFile:
        encoding = fields.pop("encoding", None)
        if by_reference:
            (self.data / name).write_bytes(data)
            uri = UriSource(uri=(self.data / name).as_uri(), encoding=encoding)
            return RunFile(label="l", source=uri, **fields)
        self.topic[len(self.topic)] = data
        source = MessageSource(partition=0, offsets=[len(self.topic) - 1], encoding=encoding)
        return RunFile(label="l", filename=name, source=source, **fields)

    def check(self, file: RunFile, run_id: str = "r", **job: Any) -> Checked:
        state = RunState.RUNNING if file.columns else RunState.ACCEPTED
        record = RunRecord(run_id=run_id, epoch=1, state=state, files=[file], job=job)
        self.checker.submit(record)
        return self.checker.done.get(timeout=20)

    def rows(self, found: Checked, **job: Any) -> list[list[str]]:
        assert found.reason is None, found.detail
        assert found.plains
        fmt = table_format(parse_job(job), PROMPT, found.files[0])
        header = read_header(found.plains[0].path, fmt)
        assert list(header.columns) == found.files[0].columns
        return [list(row.cells) for row in read_rows(found.plains[0].path, header, fmt)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.checker.close()


SOURCES = [
    ("t.csv", csv_bytes()),
    ("t", csv_bytes()),
    ("t.tsv", csv_bytes("\t")),
    ("t.csv.gz", gzip.compress(csv_bytes())),
    ("T.JSONL", jsonl_bytes()),
    ("t.ndjson.gz", gzip.compress(jsonl_bytes())),
    ("t.parquet", parquet_bytes()),
    ("t.parquet.gz", gzip.compress(parquet_bytes())),
    # A name that promises too much.
    ("t.tsv.gz", csv_bytes("\t")),
]


@pytest.mark.parametrize("by_reference", [False, True])
@pytest.mark.parametrize(("name", "data"), SOURCES, ids=[name for name, _ in SOURCES])
def test_every_format_gives_the_same_rows(desk: Desk, name: str, data: bytes, by_reference: bool) -> None:
    found = desk.check(desk.file(data, name, by_reference))
    assert desk.rows(found) == ROWS
    assert (found.files[0].columns, found.files[0].rows) == (["RowID", "Message"], 3)
    assert found.files[0].sha256 == hashlib.sha256(data).hexdigest()
    assert found.files[0].bytes == len(data)
    assert [one.name for one in desk.spool.rglob("*") if one.is_file()] in ([], ["l.csv"])


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_the_sender_may_say_that_it_is_packed(desk: Desk, name: str) -> None:
    data = jsonl_bytes() if name == "t.jsonl" else parquet_bytes()
    for told in (name, f"{name}.gz"):
        found = desk.check(desk.file(gzip.compress(data), told, encoding="gzip"))
        assert desk.rows(found) == ROWS


@pytest.mark.parametrize(
    ("name", "data", "table"),
    [
        ("t.txt", jsonl_bytes(), {"format": "jsonl"}),
        ("t.csv", parquet_bytes(), {"format": "parquet"}),
        ("t.txt", csv_bytes("\t"), {"format": "tsv"}),
        ("t.tsv", csv_bytes(), {"format": "csv"}),
        ("t.tsv", csv_bytes("|"), {"delimiter": "|"}),
        ("t.jsonl", jsonl_bytes(), {"delimiter": ";"}),
    ],
)
def test_what_the_job_says_goes_before_the_name(
    desk: Desk, name: str, data: bytes, table: dict[str, str]
) -> None:
    found = desk.check(desk.file(data, name), table=table)
    assert desk.rows(found, table=table) == ROWS
    assert found.files[0].delimiter == table.get("delimiter", "\t" if table.get("format") == "tsv" else ",")


@pytest.mark.parametrize(
    ("name", "data", "reason", "what"),
    [
        ("t.csv", parquet_bytes(), FileReason.NOT_UTF8, "the file is Parquet"),
        ("t.csv", jsonl_bytes(), FileReason.MALFORMED_CSV, "looks like JSON"),
        ("t.csv", b'{"Message":"x","b":"y"}\n', FileReason.MALFORMED_CSV, "looks like JSON"),
        ("t.csv", b'[\n  {\n "Message": "x"}]', FileReason.MALFORMED_CSV, "looks like JSON"),
        ("t.jsonl", csv_bytes(), FileReason.MALFORMED_JSONL, "line 1"),
        ("t.jsonl", parquet_bytes(), FileReason.NOT_UTF8, "Parquet"),
        ("t.parquet", csv_bytes(), FileReason.MALFORMED_PARQUET, "is it a CSV?"),
        ("t.parquet", parquet_bytes()[:-9], FileReason.MALFORMED_PARQUET, "cut off"),
        ("t.parquet", b"", FileReason.EMPTY_FILE, "no bytes"),
        ("t.jsonl", b'{"Text": "x"}', FileReason.MISSING_COLUMN, 'there are: "Text"'),
        (
            "t.jsonl",
            b'{"RowID":"a","Message":"x\\ny"}\n\n{"RowID":"b","Message":"x"}\n{"RowID":"a","Message":"x"}\n',
            FileReason.DUPLICATE_ROW_ID,
            "row 3 has the RowID of row 1",
        ),
        ("t.tsv", csv_bytes(), FileReason.WRONG_DELIMITER, "comma"),
    ],
)
def test_what_is_refused(desk: Desk, name: str, data: bytes, reason: FileReason, what: str) -> None:
    found = desk.check(desk.file(data, name))
    assert found.reason is reason
    assert what in found.detail
    if name != "t.csv" and reason is not FileReason.MALFORMED_JSONL:
        assert found.line is None or name == "t.tsv"


def test_rows_without_rowids_are_numbered_in_every_format(desk: Desk) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"Message": ["a", "b"]}), sink)
    for name, data in (
        ("t.csv", b"Message\na\nb\n"),
        ("t.jsonl", b'{"Message":"a"}\n{"Message":"b"}\n'),
        ("t.parquet", sink.getvalue()),
    ):
        found = desk.check(desk.file(data, name))
        assert found.plains
        fmt = table_format(parse_job({}), PROMPT, found.files[0])
        rows = read_rows(found.plains[0].path, read_header(found.plains[0].path, fmt), fmt)
        assert [(row.row_id, row.cells) for row in rows] == [("1", ("a",)), ("2", ("b",))]
        assert found.files[0].columns == ["Message"]


@pytest.mark.parametrize(
    ("required", "reason", "what"),
    [
        (["Message"], None, ""),
        (["Message", "Channel"], FileReason.MISSING_COLUMN, '"Channel"'),
        (["RowID", "Message"], FileReason.MISSING_COLUMN, '"RowID"'),
    ],
)
def test_a_job_says_which_columns_there_must_be(
    desk: Desk, required: list[str], reason: FileReason | None, what: str
) -> None:
    found = desk.check(desk.file(b"Message\nx\n", "t.csv"), table={"required_columns": required})
    assert found.reason is reason
    assert what in found.detail


def test_bad_rows_of_a_converted_source_fail_alone(desk: Desk) -> None:
    lines = [{"RowID": "1", "Message": "a\0b"}, {"RowID": "2"}, {"RowID": "3", "Message": "x" * 200_000}]
    data = "\n".join(map(json.dumps, lines)).encode()
    found = desk.check(desk.file(data, "t.jsonl"))
    assert found.plains
    fmt = table_format(parse_job({}), PROMPT, found.files[0])
    rows = read_rows(found.plains[0].path, read_header(found.plains[0].path, fmt), fmt)
    assert [row.problem for row in rows] == ["nul_character", "empty_message", "field_too_long"]


def test_pieces_of_the_topic_are_put_together_first(desk: Desk) -> None:
    data = parquet_bytes()
    desk.topic = {0: data[:100], 1: data[100:]}
    source = MessageSource(partition=0, offsets=[0, 1])
    found = desk.check(RunFile(label="l", filename="t.parquet", source=source))
    assert desk.rows(found) == ROWS


def test_limits_hold_for_what_comes_out(desk: Desk) -> None:
    data = (
        b'{"Message":""}\n'
        + b'{"Message":"x"}\n' * 400
        + json.dumps({f"k{n}": 1 for n in range(400)}).encode()
    )
    assert len(data) < 20_000
    desk.sources._max_bytes = 100_000
    found = desk.check(desk.file(data, "t.jsonl"))
    assert found.reason is FileReason.TOO_LARGE


# Columns


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_columns_are_read_under_our_names(desk: Desk, name: str) -> None:
    data = (
        parquet_bytes(("id", "text"))
        if name == "t.parquet"
        else b"id,text\n" + csv_bytes().split(b"\n", 1)[1]
    )
    table = {"columns": {"RowID": "id", "Message": "text"}}
    found = desk.check(desk.file(data, name), table=table)
    assert desk.rows(found, table=table) == ROWS
    assert found.files[0].columns == ["RowID", "Message"]
    twice = b"id,text\n1,a\n1,b\n"
    assert desk.check(desk.file(twice, "t.csv"), table=table).reason is FileReason.DUPLICATE_ROW_ID


@pytest.mark.parametrize(
    ("header", "columns", "reason", "what"),
    [
        ("id,note", {"Message": "text"}, FileReason.MISSING_COLUMN, 'there are: "id", "note"'),
        ("Message,text", {"Message": "text"}, FileReason.DUPLICATE_COLUMN, '"Message" already'),
        ("a,text", {"Message": "text", "text": "a"}, None, ""),
        ("Message,text", {"Message": "text", "text": "Message"}, None, ""),
        ("id", {"RowID": "id"}, FileReason.MISSING_COLUMN, '"Message"'),
        ("Message,id", {"Text": "Message", "RowID": "id"}, FileReason.MISSING_COLUMN, '"Message"'),
    ],
)
def test_mappings(
    desk: Desk, header: str, columns: dict[str, str], reason: FileReason | None, what: str
) -> None:
    found = desk.check(desk.file(f"{header}\n1,x\n".encode(), "t.csv"), table={"columns": columns})
    assert found.reason is reason
    assert what in found.detail


def test_a_mapping_is_looked_for_under_other_delimiters(desk: Desk) -> None:
    table = {"columns": {"Message": "text"}}
    found = desk.check(desk.file(b"id;text\n1;x\n", "t.csv"), table=table)
    assert found.reason is FileReason.WRONG_DELIMITER


@pytest.mark.parametrize(
    ("job", "what"),
    [
        ({"output": {"columns": ["RowID", "Mod"]}}, 'output.columns: the output has no column "Mod"'),
        ({"merge": {"sort_by": "Nowhere"}}, 'merge.sort_by: the output has no column "Nowhere"'),
        ({"output": {"columns": ["RowID", "Mood", "Error"]}, "merge": {"sort_by": "Mood"}}, ""),
        ({"merge": {"sort_by": "RowID"}}, ""),
        ({"output": {"directory": "s3://bucket/x"}}, "PRISM_OUTPUT_SCHEMES: none"),
    ],
)
def test_columns_and_places_of_the_output_are_known_before_the_first_call(
    desk: Desk, job: dict[str, Any], what: str
) -> None:
    for header in ("RowID,Message", "Message,Other"):
        if "RowID" in job.get("output", {}).get("columns", []) and not header.startswith("RowID"):
            continue
        found = desk.check(desk.file(f"{header}\n1,x\n".encode(), "t.csv"), **job)
        assert found.reason is (FileReason.BAD_JOB if what else None)
        assert what in found.detail
        if "column" in what:
            assert '"Mood"' in found.detail


def test_a_store_that_is_allowed_is(tmp_path: Path) -> None:
    desk = Desk(tmp_path, frozenset({"s3"}))
    found = desk.check(desk.file(csv_bytes(), "t.csv"), output={"directory": "s3://bucket/x"})
    assert found.reason is None
    desk.checker.close()


# Takeover


@pytest.mark.promise(6)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_takeover_converts_again_and_goes_on_from_the_same_offsets(tmp_path: Path, kind: str) -> None:
    rows = [{"RowID": str(n), "Message": f"text {n}\nü" * (n % 5)} for n in range(200)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=17)
    data = sink.getvalue() if kind == "parquet" else "\n".join(map(json.dumps, rows)).encode()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = Desk(tmp_path / "one"), Desk(tmp_path / "two")
    accepted = one.check(one.file(data, f"t.{kind}"))
    cuts = list(fed(accepted, CutPosition()))
    assert [cell[0] for batch in cuts for cell in batch[1]] == [str(n) for n in range(200)]
    two.file(data, f"t.{kind}")
    again = two.check(
        accepted.files[0].model_copy(update={"source": MessageSource(partition=0, offsets=[0])})
    )
    assert again.reason is None
    assert again.files[0].plain_sha256 == accepted.files[0].plain_sha256 is not None
    for number, (start, _) in enumerate(cuts):
        assert list(fed(again, start)) == cuts[number:]
    one.checker.close()
    two.checker.close()


def fed(checked: Checked, start: CutPosition) -> Iterator[tuple[CutPosition, list[tuple[str, ...]]]]:
    assert checked.plains
    job = parse_job({"model": {"batch_size": "7"}})
    feed = FileFeed(
        "r", checked.files[0], checked.plains[0], job, table_format(job, PROMPT, checked.files[0])
    )
    for cut in feed.cuts_from(start):
        yield cut.start, [row.cells for row in cut.rows]


@pytest.mark.promise(6)
def test_another_csv_than_the_accepted_one_is_never_fed(desk: Desk) -> None:
    accepted = desk.check(desk.file(jsonl_bytes(), "t.jsonl"))
    changed = accepted.files[0].model_copy(update={"plain_sha256": "0" * 64})
    found = desk.check(changed)
    assert found.reason is FileReason.SOURCE_CHANGED
    assert "another CSV" in found.detail


@pytest.mark.promise(6)
def test_a_source_that_changes_while_it_is_converted_is_not_taken(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = desk.file(jsonl_bytes(), "t.jsonl", by_reference=True)
    bring = desk.sources.bring

    def then_touch(*args: Any) -> PlainFile:
        brought = bring(*args)
        assert brought.stamp is not None
        return replace(brought, stamp=(0, 0, 0))

    monkeypatch.setattr(desk.sources, "bring", then_touch)
    assert desk.check(found).reason is FileReason.SOURCE_CHANGED


def test_a_uri_without_an_ending_has_the_name_that_was_told() -> None:
    source = UriSource(uri="file:///data/source")
    assert source_kind(parse_job({}), RunFile(label="l", filename="a.parquet", source=source)) == "parquet"
    assert source_kind(parse_job({}), RunFile(label="l", source=source)) == "csv"
    named = UriSource(uri="file:///data/a%20b.jsonl.gz")
    assert source_kind(parse_job({}), RunFile(label="l", filename="a.csv", source=named)) == "jsonl"
    assert TableFormat().converted is False


@pytest.mark.promise(9)
def test_a_reader_that_breaks_down_fails_no_run_that_was_accepted(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = desk.check(desk.file(parquet_bytes(), "t.parquet"))
    (tmp_path / "stand_in.py").write_text("import os; os.kill(os.getpid(), 9)")
    started = subprocess.Popen
    broken: list[int] = []

    def start(command: list[str], **options: Any) -> Any:
        if len(broken) < 2:
            broken.append(1)
            command = [command[0], str(tmp_path / "stand_in.py")]
        return started(command, **options)

    monkeypatch.setattr(checking, "RETRY_S", 0.05)
    monkeypatch.setattr(subprocess, "Popen", start)
    assert desk.check(desk.file(parquet_bytes(), "t.parquet")).reason is FileReason.MALFORMED_PARQUET
    again = desk.check(accepted.files[0])
    assert (again.reason, len(broken)) == (None, 2)


def test_rows_that_no_file_has_are_refused(desk: Desk) -> None:
    found = desk.check(desk.file(csv_bytes(), "t.csv", ranges=[(4, 9)]))
    assert (found.reason, "4-9" in found.detail) == (FileReason.BAD_JOB, True)
    assert desk.check(desk.file(csv_bytes(), "t.csv", ranges=[(3, 9)])).files[0].rows == 1


def test_a_file_without_rows_is_a_run_of_none_whatever_rows_are_asked_for(desk: Desk) -> None:
    found = desk.check(desk.file(b"RowID,Message\n", "t.csv", ranges=[(1, 9)]))
    assert (found.reason, [file.rows for file in found.files]) == (None, [0])


def test_the_ranges_that_match_nothing_are_named_with_their_file(desk: Desk) -> None:
    empty = desk.file(b"RowID,Message\n", "empty.csv")
    other = desk.file(csv_bytes(), "other.csv", ranges=[(7, 8)]).model_copy(update={"label": "o"})
    for files in ([empty, other], [empty.model_copy(update={"ranges": [(1, 2)]}), other]):
        desk.checker.submit(RunRecord(run_id="r", epoch=1, state=RunState.ACCEPTED, files=files))
        found = desk.checker.done.get(timeout=20)
        assert found.reason is FileReason.BAD_JOB
        assert found.detail.startswith("other.csv: none of the rows that are asked for is there (7-8)")
