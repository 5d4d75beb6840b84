"""Fleet files, locks, where a command finds its broker, logs, and the demonstration's folder."""

import csv
import json
from argparse import Namespace
from pathlib import Path

import pytest

from prism_cli import connection, demo, doctor, fleet_file, service_log, up
from prism_cli.console import duration, printable
from prism_cli.exits import CommandFailed
from prism_cli.local_runs import output_root
from prism_cli.places import note_root, noted_root
from tests.unit.cli.test_submission import fleet_file as fleet_file_of

OPTIONS = Namespace(bootstrap=None, data_dir=None, jobs_dir=None, json=False)


@pytest.fixture(autouse=True)
def _plain_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("BOOTSTRAP_SERVER", "PRISM_DATA_DIR", "PRISM_JOBS_DIR", "PRISM_TOPIC_PREFIX"):
        monkeypatch.delenv(name, raising=False)


def test_one_fleet_per_folder(tmp_path: Path) -> None:
    assert not fleet_file.alive(tmp_path)
    with fleet_file.owned(tmp_path):
        assert fleet_file.alive(tmp_path)
        with pytest.raises(CommandFailed, match="a fleet runs here already"), fleet_file.owned(tmp_path):
            pass
    assert not fleet_file.alive(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandFailed) as refused, fleet_file.owned(tmp_path / "file" / "data"):
        pass
    assert refused.value.code == 3


def test_a_fleet_file_comes_back_as_it_was(tmp_path: Path) -> None:
    told = fleet_file_of(tmp_path, tmp_path)
    told.write()
    assert fleet_file.read(tmp_path) == told
    fleet_file.remove(tmp_path)
    assert fleet_file.read(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"bootstrap": 1}', b"\xff"])
def test_a_broken_fleet_file_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / fleet_file.FILE).write_bytes(content)
    assert fleet_file.read(tmp_path) is None


def test_the_broker_is_the_flags_then_the_environments_then_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "prism-data"
    with fleet_file.owned(folder):
        fleet_file_of(folder.absolute(), tmp_path).write()
        assert connection.find(OPTIONS).origin == "prism-data/fleet.json"
        monkeypatch.setenv("BOOTSTRAP_SERVER", "kafka:9092")
        assert connection.find(OPTIONS).bootstrap == "kafka:9092"
        flag = Namespace(**{**vars(OPTIONS), "bootstrap": "other:9092"})
        assert connection.find(flag).bootstrap == "other:9092"


def test_a_dot_env_counts_as_environment() -> None:
    Path(".env").write_text("BOOTSTRAP_SERVER=kafka:9092\nPRISM_TOPIC_PREFIX=mine.\n")
    found = connection.find(OPTIONS)
    assert (found.bootstrap, found.topics.intake) == ("kafka:9092", "mine.intake")


def test_a_fleet_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    folder = tmp_path / "prism-data"
    folder.mkdir()
    fleet_file_of(folder, tmp_path).write()
    with pytest.raises(
        CommandFailed, match=r"the fleet of this folder is gone .*; start it: prism up"
    ) as gone:
        connection.find(OPTIONS)
    assert gone.value.code == 4


def test_no_broker_at_all_is_exit_4() -> None:
    with pytest.raises(CommandFailed) as failed:
        connection.find(OPTIONS)
    assert failed.value.code == 4


def test_an_embedded_broker_is_spoken_to_without_security() -> None:
    environ = {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SASL_PASSWORD": "x", "KAFKA_LINGER_MS": "5"}
    plain = connection.without_security(environ)
    assert plain == {"KAFKA_SECURITY_PROTOCOL": "", "KAFKA_SASL_PASSWORD": "", "KAFKA_LINGER_MS": "5"}


def test_the_jobs_folder(tmp_path: Path) -> None:
    assert up.jobs_dir(None, {}) == Path("jobs")
    example = tmp_path / "examples" / "feedback"
    example.mkdir(parents=True)
    assert up.jobs_dir(None, {}) == Path("examples/feedback")
    (tmp_path / "jobs").mkdir()
    assert up.jobs_dir(None, {}) == Path("jobs")
    assert up.jobs_dir(None, {"PRISM_JOBS_DIR": "/there"}) == Path("/there")
    assert up.jobs_dir(Path("/mine"), {"PRISM_JOBS_DIR": "/there"}) == Path("/mine")


def test_last_words_are_what_a_service_said_last(tmp_path: Path) -> None:
    log = tmp_path / "merger.log"
    assert "empty" in service_log.last_words(log)
    fatal = {"action": "fatal", "what": "disk full", "where": "/data", "next": "make room"}
    log.write_text(json.dumps({"action": "started"}) + "\n" + json.dumps(fatal) + "\n\n")
    assert service_log.last_words(log) == f"fatal: disk full; /data; make room (log: {log})"
    log.write_text("No module named x\n")
    assert service_log.last_words(log).startswith("No module named x")


def test_a_large_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "merger.log"
    log.write_text("x" * 100)
    service_log.rotate(log)
    assert log.exists()
    monkeypatch.setattr(service_log, "_KEEP_BYTES", 50)
    service_log.rotate(log)
    assert not log.exists()
    assert (tmp_path / "merger.log.1").exists()


def test_the_demonstration_is_nobodys_fleet() -> None:
    environ = {"PATH": "/bin", "BOOTSTRAP_SERVER": "x:1", "OLLAMA_HOST": "y", "PRISM_TOPIC_PREFIX": "z."}
    environ |= {"KAFKA_SASL_PASSWORD": "s", "PORT": "1", "PRISM_KAFKA_JARS": "/jars"}
    assert demo.plain_environment(environ) == {"PATH": "/bin", "PRISM_KAFKA_JARS": "/jars"}


def test_the_last_demonstration_is_cleared_away(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    folder = tmp_path / "demo"
    (folder / "output").mkdir(parents=True)
    (folder / "link").symlink_to(outside)
    with fleet_file.owned(folder):
        demo.clear(folder)
    assert [entry.name for entry in folder.iterdir()] == [fleet_file.LOCK]
    assert (outside / "kept").exists()


def test_the_first_rows_of_an_output_fit_a_screen(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["RowID", "Title", "Message", "Topic", "Model_Name", "Error"])
        writer.writerows([[n, "t", "a\nb\x1b[31m" + "x" * 99, "Product", "m", ""] for n in range(9)])
    columns, rows = demo.first_rows(path, ["Topic", "Missing"])
    assert [name for name, _ in columns] == ["RowID", "Message", "Topic", "Error"]
    assert len(rows) == demo.SHOWN_ROWS
    assert rows[0][1].startswith("a⏎b·[31mxxx")
    assert len(rows[0][1]) == 30


def test_the_doctor_reads_each_job_and_its_prompt(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("prompts: {config_file: p.json}\n")
    assert doctor.job(path).code == 3
    (tmp_path / "p.json").write_text('{"system_prompt": "x", "columns_to_code": ["Topic"]}')
    assert doctor.job(path).detail == "codes Topic"
    (tmp_path / "p.json").write_text('{"system_prompt": "x", "columns_to_code": []}')
    assert "columns_to_code" in doctor.job(path).detail
    path.write_text("model: {batch_size: many}\n")
    assert "batch_size" in doctor.job(path).detail


def test_durations_as_people_say_them() -> None:
    assert [duration(s) for s in (0.4, 59, 61, 7265)] == ["0 s", "59 s", "1 min 01 s", "2 h 01 min"]


def test_printable_text_is_one_line() -> None:
    assert printable("a\r\nb\tc\x00\u202e") == "a⏎b c··"
    assert printable("abcdef", 4) == "abc…"


def test_a_later_fleet_of_a_data_folder_finds_its_outputs_again(tmp_path: Path) -> None:
    data, root = tmp_path / "prism-data", tmp_path / "work"
    data.mkdir()
    root.mkdir()
    assert noted_root(data) is None
    assert output_root(data, {}) == data
    note_root(data, root)
    assert noted_root(data) == output_root(data, {}) == root
    assert output_root(data, {"PRISM_OUTPUT_ROOT": str(tmp_path)}) == tmp_path
    for gone in ("/no/such/folder\n", "relative\n", "\0\n"):
        (data / "output-root").write_text(gone)
        assert noted_root(data) is None
