"""`prism purge`: what ended runs left goes, and nothing else, whatever lies beside it."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prism.messages import RunRecord, RunState
from prism_cli import fleet_file, leavings, purging
from prism_cli.__main__ import main
from prism_cli.exits import CommandFailed
from prism_cli.purging import Known
from prism_merger.volume import VolumeLock
from tests.unit.merger.test_downloads import publish
from tests.unit.merger.world import run_record

ALL = ("parts", "stores", "sources", "outputs", "logs")
# What PRISM did not write, and what belongs to others: it all lies where PRISM's own files lie.
FOREIGN = [
    "notes.txt",
    "output/mine.csv",
    "output/.hidden",
    "checkpoints/notes.csv",
    "checkpoints/r1/notes.txt",
    "checkpoints/r1/store.sqlite",
    "checkpoints/open/checkpoint_open_march_part0001.csv",
    "logs/r1/thoughts.md",
    "logs/services/notes.log",
    "logs/open/run_open.log",
    "status/open/worker_1.json",
    "ingestor/ing-1/spool/open/march.csv",
    "ingestor/ing-1/spool/r1/secrets.txt",
    "broker/data/meta.properties",
    "jobs/feedback.yaml",
]
MANIFEST = "logs/r1/run_manifest.json"
LEFT = {
    "status/r1/worker_1.json": "logs",
    "logs/r1/summary_r1.md": "logs",
    "logs/r1/disagreements.csv": "logs",
    "logs/services/merger.log.1": "logs",
    "logs/services/worker-1.log": "logs",
    "ingestor/ing-1/spool/r1/march.csv": "sources",
    "ingestor/ing-1/spool/r1/march.csv.part": "sources",
    "output/r1_march.csv": "outputs",
    "checkpoints/r1/checkpoint_r1_march_part0001.csv": "parts",
    "output/.r1.march.0.tmp": "parts",
    MANIFEST: "logs",
    "logs/r1/failed_ranges.json": "logs",
    "logs/r1/failed_rows.csv": "logs",
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("BOOTSTRAP_SERVER", "PRISM_DATA_DIR", "PRISM_OUTPUT_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "prism-data"
    publish(folder)
    for path in [*FOREIGN, *LEFT]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / path).exists():
            (folder / path).write_text(path)
    (folder / "output/.r1.march.0.tmp").touch()
    os.utime(folder / "output/.r1.march.0.tmp", (0, 0))
    return folder


def options(*run_ids: str, **more: Any) -> Namespace:
    given = {"older_than": None, "what": ("parts",), "yes": True, "dry_run": False, "json": False}
    return Namespace(run_ids=list(run_ids), data_dir=None, bootstrap=None, **{**given, **more})


def files(folder: Path) -> set[str]:
    found = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if not one.is_dir()}
    return {one for one in found if not one.startswith("merger-0")}


@pytest.mark.parametrize("what", [(one,) for one in ALL] + [ALL, ("parts", "logs")], ids=",".join)
def test_what_is_named_goes_and_nothing_else(data: Path, what: tuple[str, ...]) -> None:
    before = files(data)
    assert purging.run(options(what=what)) == 0
    # As long as there are rows the manifest tells whose they are.
    stays = set() if what == ALL else {MANIFEST}
    assert before - files(data) == {path for path, kind in LEFT.items() if kind in what} - stays
    assert files(data) >= set(FOREIGN)
    assert purging.run(options(what=what)) == 0


def test_empty_folders_go_with_what_was_in_them(data: Path) -> None:
    for path in FOREIGN:
        if "/r1/" in path:
            (data / path).unlink()
    assert purging.run(options("r1", what=ALL)) == 0
    assert not list(data.rglob("r1"))
    assert (data / "checkpoints/open").is_dir()


def test_a_dry_run_removes_nothing_and_says_all(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(data)
    assert purging.run(options(what=ALL, dry_run=True, json=True)) == 0
    told = json.loads(capsys.readouterr().out)
    assert files(data) == before
    assert {Path(one["path"]).relative_to(data).as_posix(): one["what"] for one in told["files"]} == LEFT
    assert told["removed"] == {"files": 0, "bytes": 0}
    assert told["warnings"] == ["r1 has 3 failed rows: prism retry needs what goes"]


def test_nobody_to_ask_is_exit_2_and_removes_nothing(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(data)
    assert main(["purge"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert files(data) == before


@pytest.mark.parametrize(
    ("answer", "goes"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_a_person_is_asked(data: Path, monkeypatch: pytest.MonkeyPatch, answer: str, goes: bool) -> None:
    read, write = os.openpty()
    with os.fdopen(read, "wb", buffering=0) as typed, os.fdopen(write) as terminal:
        typed.write(answer.encode() or b"\x04")
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        code = purging.run(options(yes=False))
    assert (data / "checkpoints/r1/checkpoint_r1_march_part0001.csv").exists() is not goes
    assert code == (0 if goes else 1)


def test_a_run_without_a_manifest_stays(data: Path) -> None:
    with pytest.raises(CommandFailed, match="open stays: it has no manifest") as failed:
        purging.run(options("open", what=ALL))
    assert failed.value.code == 3


def records(*runs: RunRecord) -> Mapping[str, RunRecord]:
    return {one.run_id: one for one in runs}


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        (records(run_record("r1", state=RunState.COMPLETED)), None),
        (records(), None),
        (records(run_record("r1", state=RunState.PAUSED)), "it has not ended (paused)"),
        (records(run_record("r1", state=RunState.MERGING)), "it has not ended (merging)"),
        (
            records(
                run_record("r1", state=RunState.COMPLETED_WITH_FAILURES),
                run_record("r1.r1").model_copy(update={"parent": "r1"}),
            ),
            "r1.r1 does its failed rows again",
        ),
    ],
    ids=["ended", "forgotten", "paused", "merging", "retried"],
)
def test_the_broker_has_the_last_word(
    data: Path, monkeypatch: pytest.MonkeyPatch, known: Mapping[str, RunRecord], kept: str | None
) -> None:
    before = files(data)
    monkeypatch.setattr(purging, "_known", lambda *_: Known(known))
    assert purging.run(options(what=ALL)) == 0
    if kept is None:
        assert "output/r1_march.csv" not in files(data)
        return
    gone = before - files(data)
    assert not [path for path in gone if "r1" in path]
    with pytest.raises(CommandFailed) as failed:
        purging.run(options("r1", what=ALL))
    assert f"r1 stays: {kept}" in str(failed.value)


def test_services_whose_broker_nobody_knows_are_not_disturbed(data: Path) -> None:
    lock = VolumeLock(data / "merger-0")
    assert lock.take()
    with pytest.raises(CommandFailed, match="nobody knows their broker") as failed:
        purging.run(options())
    assert failed.value.code == 3
    del lock


def test_a_fleet_whose_broker_is_gone_is_exit_4_and_removes_nothing(data: Path, tmp_path: Path) -> None:
    from tests.unit.cli.test_submission import fleet_file as fleet_file_of

    before = files(data)
    with fleet_file.owned(data):
        fleet_file_of(data, tmp_path).model_copy(update={"bootstrap": "127.0.0.1:9"}).write()
        with pytest.raises(CommandFailed) as failed:
            purging.run(options(what=ALL))
    assert failed.value.code == 4
    assert before <= files(data)


def test_the_age_counts_from_the_end_of_a_run(data: Path) -> None:
    path = data / "logs/r1/run_manifest.json"
    told = json.loads(path.read_text())
    for days, goes in ((29, False), (31, True)):
        when = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        path.write_text(json.dumps({**told, "finished_at": when}))
        assert purging.run(options(older_than=30 * 86400.0)) == 0
        assert (data / "checkpoints/r1/checkpoint_r1_march_part0001.csv").exists() is not goes


def test_an_output_that_is_not_the_runs_any_more_stays(data: Path) -> None:
    path = data / "output/r1_march.csv"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert purging.run(options(what=("outputs",))) == 0
    assert path.exists()


@pytest.mark.promise(8)
def test_no_link_is_followed(data: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("checkpoint_r1_x_part0001.csv", "worker_1.json", "march.csv"):
        (outside / name).write_text("mine")
    (data / "checkpoints/r1/checkpoint_r1_x_part0001.csv").symlink_to(
        outside / "checkpoint_r1_x_part0001.csv"
    )
    for folder in ("status/r1", "ingestor/ing-1/spool/r1"):
        for one in (data / folder).iterdir():
            one.unlink()
        (data / folder).rmdir()
        (data / folder).symlink_to(outside)
    assert purging.run(options(what=ALL)) == 0
    assert sorted(one.name for one in outside.iterdir()) == [
        "checkpoint_r1_x_part0001.csv", "march.csv", "worker_1.json",
    ]  # fmt: skip
    assert (data / "checkpoints/r1/checkpoint_r1_x_part0001.csv").is_symlink()


def test_what_has_taken_a_files_place_since_it_was_shown_stays(data: Path) -> None:
    path = data / "checkpoints/r1/checkpoint_r1_march_part0001.csv"
    found = purging.gather(options(), data, data, Known(None), running=False)
    path.rename(data / "moved.csv")
    path.write_text("another")
    leavings.remove(found.leavings)
    assert path.read_text() == "another"


def test_the_folders_of_a_job_are_found(data: Path) -> None:
    job = {
        "output": {"checkpoints": {"directory": "projects/p/parts"}},
        "monitoring": {"logs_dir": "projects/p/logs"},
    }
    part = data / "projects/p/parts/r7/checkpoint_r7_a_part0001.csv"
    log = data / "projects/p/logs/r7/run_manifest.json"
    for path in (part, log):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"run_id": "r7", "config_snapshot": job, "files": []}))
    assert purging.run(options("r7")) == 0
    assert not part.exists()
    assert log.exists()


def test_a_store_is_made_as_small_as_its_content_and_serves_on(data: Path) -> None:
    from prism_cli.store_files import stores
    from prism_merger.store import Store

    store = Store(data / "merger-0")
    with store.transaction():
        store.set_meta("x", "x" * 5_000_000)
    with store.transaction():
        store.set_meta("x", "")
    before = store.path.stat().st_size
    store.close()
    (found,) = stores(data)
    assert found.free > 4_000_000
    assert found.runs == 1
    assert purging.run(options(what=("stores",))) == 0
    assert (data / "merger-0/store.sqlite").stat().st_size < before - 4_000_000
    again = Store(data / "merger-0")
    assert again.load_run("r1") is not None
    again.close()
