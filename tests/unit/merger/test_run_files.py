"""Which files are a run's: nothing else can be named, listed or opened, whatever lies there."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prism_merger.places import Places
from prism_merger.run_files import Kind, NotThere, RunFiles, places_of

SECRET = b"not of this run"
FILES = {
    "output/r1_march.csv": Kind.OUTPUT,
    "logs/r1/run_manifest.json": Kind.MANIFEST,
    "logs/r1/failed_ranges.json": Kind.FAILURES,
    "logs/r1/failed_rows_march.csv": Kind.FAILURES,
    "logs/r1/summary_r1.md": Kind.REPORT,
    "logs/r1/analytics_r1.csv": Kind.REPORT,
    "logs/r1/report_r1.html": Kind.REPORT,
    "logs/r1/disagreements.csv": Kind.REPORT,
    "logs/r1/run_r1.log": Kind.LOG,
    "logs/terminal_logs/run_r1.log": Kind.LOG,
    "status/r1/worker_1.json": Kind.STATUS,
    "checkpoints/r1/checkpoint_r1_march_part0001.csv": Kind.PART,
}
OTHERS = [
    "merger-0/store.sqlite",
    "fleet.json",
    "output/r2_march.csv",
    "jobs/other.csv",
    "output/.r1.march.0.tmp",
    "logs/r1/.run_manifest.json.tmp",
    "logs/r1/notes.txt",
    "logs/r2/run_manifest.json",
    "logs/services/merger.log",
    "checkpoints/r1/.checkpoint_r1_march_part0002.csv.tmp",
    "checkpoints/r1/store.sqlite",
    "checkpoints/r2/checkpoint_r2_march_part0001.csv",
    "status/r1/x.json",
]
HOSTILE = [
    *OTHERS,
    "",
    ".",
    "..",
    "/",
    "output",
    "output/",
    "/output/r1_march.csv",
    "output//r1_march.csv",
    "./output/r1_march.csv",
    "output/./r1_march.csv",
    "output/../output/r1_march.csv",
    "logs/r1/../r2/run_manifest.json",
    "logs/r1/../../merger-0/store.sqlite",
    "../secret.csv",
    "logs/r1/run_manifest.json\0",
    "logs/r1/run_manifest.json/",
    "logs/r1\\run_manifest.json",
    "logs/r1/%2e%2e/r2/run_manifest.json",
    "output/r1_march.csv\n",
    "logs/r1/failed_rows_link.csv",
    "logs/r1/failed_rows_pipe.csv",
    "logs/r1/failed_rows_folder.csv",
    "output/passwd.csv",
    "output/../secret.csv",
]


def manifest(run_id: str, outputs: list[str], **more: object) -> str:
    files = [
        {"label": "march", "merged_output": one, "sha256": "ab" * 32, "bytes": len(f"{one}\n")}
        for one in outputs
    ]
    return json.dumps({"run_id": run_id, "status": "completed", "files": files, **more})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.csv").write_bytes(SECRET)
    root = folder / "root"
    for path in [*FILES, *OTHERS]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{path}\n")
    lies = [
        "output/r1_march.csv",
        "../secret.csv",
        "/etc/passwd",
        "output/passwd.csv",
        "merger-0/store.sqlite",
    ]
    (root / "logs/r1/run_manifest.json").write_text(
        manifest(
            "r1",
            [*lies, "output/../secret.csv", "logs/r2/run_manifest.json", "output/gone.csv", "jobs/other.csv"],
        )
    )
    (root / "output/passwd.csv").symlink_to("/etc/passwd")
    (root / "logs/r1/failed_rows_link.csv").symlink_to(folder / "secret.csv")
    os.mkfifo(root / "logs/r1/failed_rows_pipe.csv")
    (root / "logs/r1/failed_rows_folder.csv").mkdir()
    (root / "status/r3").symlink_to(root / "status/r1")
    return root


def read(files: RunFiles, path: str) -> bytes:
    opened = files.open(path)
    with os.fdopen(opened.descriptor, "rb") as file:
        return file.read()


def test_a_run_has_its_own_files_and_no_others(root: Path) -> None:
    files = RunFiles("r1", Places(root))
    assert {one.path: one.kind for one in files.listing()} == FILES
    for path in FILES:
        assert read(files, path) == (root / path).read_bytes()


@pytest.mark.promise(8)
@pytest.mark.parametrize("path", HOSTILE, ids=repr)
def test_nothing_else_can_be_opened(root: Path, path: str) -> None:
    with pytest.raises(NotThere):
        RunFiles("r1", Places(root)).open(path)


_PIECES = st.sampled_from(
    ["..", ".", "", "output", "logs", "r1", "r2", "merger-0", "store.sqlite", "run_manifest.json", "\0", "~",
     "%2e%2e", "secret.csv", "r1_march.csv", "status", "worker_1.json", "a" * 300, "ü", "\ud800"]
)  # fmt: skip


@pytest.mark.promise(8)
@given(path=st.one_of(st.lists(_PIECES, max_size=8).map("/".join), st.text(max_size=60)))
@example(path="output/../output/r1_march.csv")
def test_whatever_is_asked_for_only_the_runs_own_files_are_opened(root: Path, path: str) -> None:
    files = RunFiles("r1", Places(root))
    try:
        content = read(files, path)
    except NotThere:
        assert path not in FILES
    else:
        assert path in FILES
        assert content == (root / path).read_bytes()


def test_a_link_for_a_folder_shows_nothing(root: Path) -> None:
    files = RunFiles("r3", Places(root))
    assert list(files.listing()) == []
    with pytest.raises(NotThere):
        files.open("status/r3/worker_1.json")


@pytest.mark.parametrize("folder", ["merger-0", "broker/data", ".", "logs"])
def test_a_job_that_names_somebody_elses_folder_shows_nothing_of_it(tmp_path: Path, folder: str) -> None:
    run_id = "prism.batches-0"
    for name in ("store.sqlite", "00000000000000000000.log", "fleet.json", "ingestor.log"):
        for place in (tmp_path / folder, tmp_path / folder / run_id):
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(SECRET)
    job = {
        "output": {"directory": folder, "checkpoints": {"directory": folder}},
        "monitoring": {"logs_dir": folder, "status_dir": folder},
    }
    assert list(RunFiles(run_id, places_of(tmp_path, job)).listing()) == []


def test_the_folders_of_the_job_are_looked_in(tmp_path: Path) -> None:
    job = {
        "output": {"directory": "projects/p/out/", "checkpoints": {"directory": "./parts"}},
        "monitoring": {"logs_dir": "projects/p/logs", "status_dir": "."},
    }
    wanted = {
        "projects/p/out/x.parquet",
        "projects/p/logs/r1/run_manifest.json",
        "parts/r1/checkpoint_r1_a_part0001.csv",
        "r1/worker_w.json",
    }
    for path in wanted:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "projects/p/logs/r1/run_manifest.json").write_text(
        json.dumps(
            {
                "run_id": "r1",
                "files": [
                    {"outputs": [{"path": "projects/p/out/x.parquet", "sha256": "cd" * 32, "bytes": 24}]}
                ],
            }
        )
    )
    found = {one.path: one.sha256 for one in RunFiles("r1", places_of(tmp_path, job)).listing()}
    assert found == {path: "cd" * 32 if "x.parquet" in path else None for path in wanted}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"run_id": "r2", "files": []}',
        '{"run_id": "r1", "files": [1, {"outputs": 3}]}',
    ],
    ids=["empty", "list", "deep", "another run's", "odd"],
)
def test_a_manifest_that_is_none_names_no_output(tmp_path: Path, text: str) -> None:
    (tmp_path / "logs/r1").mkdir(parents=True)
    (tmp_path / "logs/r1/run_manifest.json").write_text(text)
    assert [one.kind for one in RunFiles("r1", Places(tmp_path)).listing()] == [Kind.MANIFEST]


def test_a_file_of_another_length_has_no_hash_of_the_manifest(root: Path) -> None:
    files = RunFiles("r1", Places(root))
    (before,) = [one for one in files.listing() if one.kind is Kind.OUTPUT]
    assert before.sha256 == before.etag == "ab" * 32
    path = root / before.path
    text = path.read_text()
    path.write_text(text + "more")
    (after,) = [one for one in files.listing() if one.kind is Kind.OUTPUT]
    path.write_text(text)
    assert after.sha256 is None
    assert after.etag != before.etag
