"""What is sent for a file: one message, chunks, or a reference; and what is refused before."""

import gzip
import hashlib
import json
import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.messages import Reference
from prism_cli import submission
from prism_cli.exits import CommandFailed
from prism_cli.fleet_file import FleetFile
from tests.unit.cli.views import NOW, nowhere

ENVELOPE = submission.Envelope("feedback", "t1", "march", "march.csv")
OPTIONS = Namespace(job="feedback", run_id=None, label=None, priority=None, reference=False)


def csv_of(folder: Path, size: int, name: str = "march.csv") -> submission.Source:
    path = folder / name
    path.write_bytes(bytes(number % 251 for number in range(size)))
    return submission.examine(path)


def test_a_small_file_is_one_message_with_its_headers(tmp_path: Path) -> None:
    source = csv_of(tmp_path, 1000)
    envelope = replace(ENVELOPE, priority=7)
    (part,) = submission.parts(source, envelope, reference=False)
    assert part.value == source.path.read_bytes()
    assert part.headers == {"job": "feedback", "run-id": "t1", "filename": "march.csv", "priority": "7"}


def test_an_empty_file_is_one_empty_message(tmp_path: Path) -> None:
    (part,) = submission.parts(csv_of(tmp_path, 0), ENVELOPE, reference=False)
    assert part.value == b""


@given(size=st.integers(101, 400), chunk=st.integers(1, 50))
def test_a_large_file_comes_as_chunks_that_make_it_again(
    tmp_path_factory: pytest.TempPathFactory, size: int, chunk: int
) -> None:
    source = csv_of(tmp_path_factory.mktemp("chunks"), size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submission, "ONE_MESSAGE_BYTES", 100)
        patch.setattr(submission, "CHUNK_BYTES", chunk)
        sent = list(submission.parts(source, ENVELOPE, reference=False))
    assert b"".join(part.value for part in sent) == source.path.read_bytes()
    assert all(0 < len(part.value) <= chunk for part in sent)
    assert [part.headers["part"] for part in sent] == [str(n) for n in range(1, len(sent) + 1)]
    assert {part.headers["parts"] for part in sent} == {str(len(sent))}


def test_a_message_fits_the_topic(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    with path.open("wb") as file:
        file.truncate(submission.ONE_MESSAGE_BYTES + 1)
    sizes = [len(part.value) for part in submission.parts(submission.examine(path), ENVELOPE, False)]
    assert sizes == [8 * 1024**2, 7 * 1024**2 + 1]


def test_a_file_that_shrinks_while_it_is_sent_is_refused(tmp_path: Path) -> None:
    source = csv_of(tmp_path, 1000)
    source.path.write_bytes(b"short")
    with pytest.raises(CommandFailed, match="changed while it was sent"):
        list(submission.parts(source, ENVELOPE, reference=False))


def test_a_reference_names_the_file_and_its_checksum(tmp_path: Path) -> None:
    source = csv_of(tmp_path, 1000, "märz 2026.csv")
    (part,) = submission.parts(source, ENVELOPE, reference=True)
    assert part.headers["content-type"] == "application/json"
    told = Reference.parse(part.value)
    assert told.uri == f"file://{tmp_path}/m%C3%A4rz%202026.csv"
    assert told.sha256 == hashlib.sha256(source.path.read_bytes()).hexdigest()


def test_a_gzipped_file_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "march.csv.gz"
    path.write_bytes(gzip.compress(b"Message\nhello\n"))
    source = submission.examine(path)
    assert ENVELOPE.headers(source)["content-encoding"] == "gzip"
    assert submission.address(OPTIONS_OF(file=path), source, NOW).label == "march"


@pytest.mark.parametrize("name", ["march.tsv", "march.jsonl.gz", "march.parquet", "march.NDJSON", "march.gz"])
def test_a_label_is_the_name_without_its_endings(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    envelope = submission.address(OPTIONS_OF(file=path), submission.examine(path), NOW)
    assert (envelope.label, envelope.filename) == ("march", name)


def OPTIONS_OF(**fields: object) -> Namespace:
    return Namespace(**{**vars(OPTIONS), **fields})


def test_a_run_without_an_id_gets_one_that_its_sender_knows(tmp_path: Path) -> None:
    source = csv_of(tmp_path, 10, "Café März.csv")
    envelope = submission.address(OPTIONS, source, NOW)
    assert envelope.run_id == f"feedback_20261121_101112_{source.sha256[:4]}"
    assert envelope.filename == "Café März.csv"
    assert envelope.label.startswith("Caf_M_rz-")


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device"])
def test_what_is_no_file_is_refused_with_exit_3(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.csv"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    with pytest.raises(CommandFailed) as refused:
        submission.examine(path)
    assert refused.value.code == 3
    assert str(path) in str(refused.value)


def fleet_file(data_dir: Path, jobs_dir: Path) -> FleetFile:
    return FleetFile(
        bootstrap="127.0.0.1:1",
        embedded_broker=True,
        topic_prefix="prism.",
        model_server="http://127.0.0.1:2",
        model="prism-embedded",
        data_dir=data_dir,
        jobs_dir=jobs_dir,
        source_dir=data_dir,
        pid=1,
    )


def test_a_large_file_inside_the_fleets_folder_goes_by_reference(tmp_path: Path) -> None:
    inside = replace(csv_of(tmp_path, 10), size=submission.REFERENCE_BYTES + 1)
    connection = nowhere(tmp_path)
    assert not submission.by_reference(OPTIONS, inside, connection)
    connection = replace(connection, fleet=fleet_file(tmp_path, tmp_path))
    assert submission.by_reference(OPTIONS, inside, connection)
    assert not submission.by_reference(OPTIONS, replace(inside, size=10), connection)
    outside = replace(connection, fleet=fleet_file(tmp_path / "data", tmp_path))
    assert not submission.by_reference(OPTIONS, inside, outside)
    assert submission.by_reference(OPTIONS_OF(reference=True), inside, outside)


def test_a_job_that_the_local_fleet_does_not_have_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "feedback.yaml").write_text("")
    connection = replace(nowhere(tmp_path), fleet=fleet_file(tmp_path, tmp_path))
    submission.check_job("feedback", connection)
    with pytest.raises(CommandFailed, match="take one of: feedback"):
        submission.check_job("feedbak", connection)
    submission.check_job("anything", nowhere(tmp_path))


def test_a_reference_is_json(tmp_path: Path) -> None:
    (part,) = submission.parts(csv_of(tmp_path, 5), ENVELOPE, reference=True)
    assert set(json.loads(part.value)) == {"uri", "sha256"}
