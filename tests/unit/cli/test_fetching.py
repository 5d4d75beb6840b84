"""`prism fetch` from a real merger's server, and from one that lies, breaks off and changes its mind."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from prism.runs.table import RunsTable
from prism_cli import fetching, fleet_file
from prism_cli.exits import CommandFailed
from prism_cli.fetching import Fetcher, chosen, patiently, temporary_of
from prism_cli.file_sources import Content, Gone, MergerSource, Offer, Offered, TryAgain, is_safe, merger_urls
from tests.unit.cli.test_submission import fleet_file as fleet_file_of
from tests.unit.merger.test_downloads import TOKEN, Site, publish
from tests.unit.merger.test_run_files import manifest

DATA = bytes(range(256)) * 4000


class Liar(BaseHTTPRequestHandler):
    """A server that gives one answer to everything."""

    status, headers_sent, body = 200, dict[str, str](), b""

    def do_GET(self) -> None:
        self.send_response(self.status)
        for name, value in {"Content-Length": str(len(self.body)), **self.headers_sent}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def lying() -> Iterator[Callable[..., MergerSource]]:
    servers: list[ThreadingHTTPServer] = []

    def lie(status: int = 200, headers: dict[str, str] | None = None, body: Any = b"") -> MergerSource:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        names = {"status": status, "headers_sent": headers or {}, "body": content}
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), type("OneLie", (Liar,), names)))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return MergerSource("r1", [f"http://127.0.0.1:{servers[-1].server_port}"], TOKEN)

    yield lie
    for one in servers:
        one.shutdown()
        one.server_close()


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRISM_MERGER_URL", "PRISM_FILES_TOKEN", "PRISM_DATA_DIR", "PRISM_OUTPUT_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Site]:
    publish(tmp_path / "far")
    site = Site(tmp_path / "far", table=RunsTable())
    yield site
    site.server.close()


def options(run_id: str = "r1", **more: Any) -> Namespace:
    given = {"url": None, "to": None, "only": None, "token_file": None, "force": False, "json": False}
    return Namespace(run_id=run_id, data_dir=None, **{**given, **more})


def url(site: Site) -> str:
    return f"http://127.0.0.1:{site.server.port}"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        one.relative_to(folder).as_posix(): one.read_bytes() for one in folder.rglob("*") if one.is_file()
    }


def test_a_run_is_brought_without_the_parts_that_its_output_holds(
    far: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRISM_FILES_TOKEN", TOKEN)
    assert fetching.run(options(url=url(far))) == 0
    there = tree(tmp_path / "far")
    wanted = ["output/r1_march.csv", "logs/r1/failed_ranges.json", "logs/r1/run_manifest.json"]
    wanted.append("logs/r1/failed_rows.csv")
    assert tree(Path("r1")) == {one: there[one] for one in wanted}
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(f"r1/{one}" for one in wanted)
    assert fetching.run(options(url=url(far), only="all", json=True)) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in told["files"]].count("there") == len(wanted)
    assert "checkpoints/r1/checkpoint_r1_march_part0001.csv" in tree(Path("r1"))


def test_the_token_may_lie_in_a_file_and_a_wrong_one_is_exit_3(far: Site, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    assert fetching.run(options(url=url(far), token_file=tmp_path / "token", only="outputs")) == 0
    (tmp_path / "token").write_text("some-other-token-of-mine")
    for words, what in (
        (tmp_path / "token", "another token"),
        (tmp_path / "no", "cannot read"),
        (None, "no token"),
    ):
        with pytest.raises(CommandFailed, match=what) as failed:
            fetching.run(options(url=url(far), token_file=words))
        assert failed.value.code == 3


def test_another_file_of_that_name_stays_unless_it_is_forced_away(
    far: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRISM_FILES_TOKEN", TOKEN)
    mine = {"output/r1_march.csv": b"mine", "logs/r1/run_manifest.json": b"mine, too"}
    for path, content in mine.items():
        (tmp_path / "to" / path).parent.mkdir(parents=True)
        (tmp_path / "to" / path).write_bytes(content)
    with pytest.raises(CommandFailed, match="2 files of the same name") as failed:
        fetching.run(options(url=url(far), to=tmp_path / "to"))
    assert failed.value.code == 3
    found = tree(tmp_path / "to")
    assert {path: found[path] for path in mine} == mine
    assert set(found) == {*mine, "logs/r1/failed_ranges.json", "logs/r1/failed_rows.csv"}
    assert fetching.run(options(url=url(far), to=tmp_path / "to", force=True)) == 0
    there = tree(tmp_path / "far")
    assert tree(tmp_path / "to") == {path: there[path] for path in found}


def test_a_run_that_is_unknown_or_anothers_says_where_to_look(
    far: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit.merger.world import run_record

    monkeypatch.setenv("PRISM_FILES_TOKEN", TOKEN)
    with pytest.raises(CommandFailed, match="no run r9 there") as failed:
        fetching.run(options("r9", url=url(far)))
    assert failed.value.code == 3
    table = RunsTable()
    table.apply("r1", run_record("r1", partition=1).to_bytes())
    other = Site(tmp_path / "other", replicas=2, table=table)
    with pytest.raises(CommandFailed, match=r"merger 1 of 2 has it.*add its address"):
        fetching.run(options(url=url(other)))
    assert fetching.run(options(url=f"{url(other)}, {url(far)}/")) == 0
    other.server.close()


def test_nobody_there_is_one_line_after_some_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRISM_FILES_TOKEN", TOKEN)
    pauses: list[float] = []
    source = MergerSource("r1", ["http://127.0.0.1:9"], TOKEN)
    with pytest.raises(CommandFailed, match=r"given up after 6 tries: .*: no answer: .*refused") as failed:
        patiently(source.offer, pauses.append)
    assert (failed.value.code, pauses) == (1, [0.5, 1.0, 2.0, 4.0, 8.0])


@pytest.mark.parametrize("text", ["merger:8083", "ftp://x", "http://", "http://me:secret@x", "http://x/?a=1"])
def test_an_address_that_is_none_is_exit_3(text: str) -> None:
    with pytest.raises(CommandFailed, match="not the address") as failed:
        merger_urls(text)
    assert failed.value.code == 3


def test_a_withheld_run_is_brought_and_says_that_there_is_no_output(
    far: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRISM_FILES_TOKEN", TOKEN)
    folder = tmp_path / "far/logs/w1"
    folder.mkdir()
    text = json.loads(manifest("w1", []))
    (folder / "run_manifest.json").write_text(
        json.dumps({**text, "status": "withheld", "detail": "5 failed, 1 allowed"})
    )
    assert fetching.run(options("w1", url=url(far))) == 0
    assert "there is no output: w1 is withheld: 5 failed, 1 allowed" in capsys.readouterr().err
    assert fetching.run(options("w1", url=url(far), only="outputs")) == 1


def test_files_of_this_machine_are_named_and_copied_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(Path("prism-data").absolute())
    assert fetching.run(options()) == 0
    told = capsys.readouterr()
    assert str(Path("prism-data/output/r1_march.csv").absolute()) in told.out.splitlines()
    assert "on this machine" in told.err
    assert not Path("r1").exists()
    assert fetching.run(options(to=tmp_path / "copy", only="all")) == 0
    copied, there = tree(tmp_path / "copy"), tree(Path("prism-data"))
    assert copied == {path: there[path] for path in there if not path.startswith("merger-0")}
    with pytest.raises(CommandFailed, match=r"no run r2 here.*PRISM_MERGER_URL") as failed:
        fetching.run(options("r2"))
    assert failed.value.code == 3


def test_the_fleet_of_this_folder_lends_its_token(far: Site, tmp_path: Path) -> None:
    folder = Path("prism-data").absolute()
    told = fleet_file_of(folder, tmp_path).model_copy(
        update={
            "services": [fleet_file.Service(name="merger", id="merger", pid=1, url=url(far))],
            "files_token": SecretStr(TOKEN),
        }
    )
    with fleet_file.owned(folder):
        told.write()
        assert (folder / fleet_file.FILE).stat().st_mode & 0o777 == 0o600
        assert TOKEN not in json.dumps(told.as_json()) + repr(told)
        assert fetching.run(options()) == 0
    assert "output/r1_march.csv" in tree(Path("r1"))


def offered(data: bytes = DATA, path: str = "output/x.csv", known: bool = True) -> Offered:
    digest = hashlib.sha256(data).hexdigest()
    return Offered(path, "output", len(data), digest if known else "v1", digest if known else None)


class Shaky:
    """Serves one file by a script: what each question gets."""

    def __init__(self, *script: Callable[[int, str], Content]) -> None:
        self._script = list(script)
        self.asked: list[int] = []
        self.versions: list[str] = []

    def offer(self) -> Offer:
        raise NotImplementedError

    def read(self, file: Offered, start: int, etag: str) -> Content:
        del file
        self.asked.append(start)
        self.versions.append(etag)
        return self._script.pop(0)(start, etag)


def sends(
    data: bytes = DATA, upto: int | None = None, etag: str | None = None
) -> Callable[[int, str], Content]:
    """Send a version from where it is asked for, break off after `upto`."""
    version = etag or hashlib.sha256(data).hexdigest()

    def send(start: int, wanted: str) -> Content:
        first = start if wanted == version else 0

        def pieces() -> Iterator[bytes]:
            yield data[first:upto]
            if upto is not None:
                raise TryAgain("the connection broke")

        return Content(first, len(data), version, pieces())

    return send


def fails(start: int, etag: str) -> Content:
    raise TryAgain("503")


def fetcher(source: Shaky, folder: Path) -> Fetcher:
    return Fetcher(source, folder, force=False, sleep=lambda _: None)


def test_what_breaks_off_goes_on_from_there(tmp_path: Path) -> None:
    source = Shaky(sends(upto=1000), fails, sends(upto=70_000), sends(upto=None))
    assert fetcher(source, tmp_path).bring(offered()).state == "brought"
    assert source.asked == [0, 1000, 1000, 70_000]
    assert tree(tmp_path) == {"output/x.csv": DATA}


@pytest.mark.promise(3)
def test_nothing_gets_the_name_that_has_not_the_hash(tmp_path: Path) -> None:
    wrong = DATA[:-1] + b"x"
    source = Shaky(sends(wrong, etag=offered().etag))
    with pytest.raises(CommandFailed, match="another SHA-256") as failed:
        fetcher(source, tmp_path).bring(offered())
    assert failed.value.code == 1
    assert tree(tmp_path) == {}


def test_two_versions_are_never_stuck_together(tmp_path: Path) -> None:
    new = b"new" * 1000
    source = Shaky(sends(upto=1000, etag="v1"), sends(new, upto=500, etag="v2"), sends(new, etag="v2"))
    assert fetcher(source, tmp_path).bring(offered(known=False)).state == "brought"
    assert tree(tmp_path) == {"output/x.csv": new}
    assert (source.asked, source.versions) == ([0, 1000, 500], ["v1", "v1", "v2"])


@pytest.mark.parametrize(
    "left", [b"", DATA[:10], DATA, DATA + b"more"], ids=["none", "some", "all", "too much"]
)
def test_a_fetch_that_was_killed_is_gone_on_with(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "output/x.csv"
    path.parent.mkdir()
    temporary_of(path, offered()).write_bytes(left)
    old = temporary_of(path, offered(b"old"))
    old.write_bytes(b"old")
    source = Shaky(sends())
    assert fetcher(source, tmp_path).bring(offered()).state == "brought"
    assert source.asked == [min(len(left), len(DATA) - 1)]
    assert tree(tmp_path) == {"output/x.csv": DATA}


def test_more_than_was_announced_is_not_taken(tmp_path: Path) -> None:
    def endless(start: int, etag: str) -> Content:
        return Content(0, len(DATA), etag, iter(lambda: b"x" * 65536, b""))

    with pytest.raises(CommandFailed, match="another SHA-256"):
        fetcher(Shaky(endless), tmp_path).bring(offered())


def test_an_empty_file_and_one_that_is_gone(tmp_path: Path) -> None:
    assert fetcher(Shaky(sends(b"")), tmp_path).bring(offered(b"")).state == "brought"

    def gone(start: int, etag: str) -> Content:
        raise Gone

    assert fetcher(Shaky(gone), tmp_path).bring(offered(path="logs/y")).state == "gone"


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a\0b", "a\\b", "C:x", "a\nb", "x" * 2000],
)
def test_a_server_cannot_name_a_place_outside(path: str) -> None:
    assert not is_safe(path)


def listing(**more: object) -> dict[str, object]:
    entry = {"path": "output/x.csv", "kind": "output", "bytes": 3, "sha256": None, "etag": "e"}
    return {"run_id": "r1", "status": "completed", "detail": None, "files": [{**entry, **more}]}


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ({"body": listing(path="../../.bashrc")}, "a file outside of the folder"),
        ({"body": listing(bytes="many")}, "no merger of this version"),
        ({"body": {"run_id": "r2", "files": []}}, "no merger of this version"),
        ({"body": {"run_id": "r1", "files": {}}}, "no merger of this version"),
        ({"body": b"[" * 100_000}, "no merger of this version"),
        ({"body": b"<html>"}, "no merger of this version"),
        ({"status": 404, "body": b"<html>"}, "no merger of this version"),
        ({"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}}, "unexpected answer: 302"),
        ({"status": 500, "body": {"error": "\x1b[2Jboo"}}, "unexpected answer: 500, ·"),
    ],
)
def test_a_server_that_is_none_or_lies_is_told_in_one_line(
    lying: Callable[..., MergerSource], answer: dict[str, Any], what: str
) -> None:
    with pytest.raises(CommandFailed, match=what) as failed:
        lying(**answer).offer()
    assert failed.value.code in (1, 3)
    assert "\n" not in str(failed.value)


def test_a_busy_server_is_asked_again_when_it_says(lying: Callable[..., MergerSource]) -> None:
    pauses: list[float] = []
    source = lying(503, {"Retry-After": "7"}, {"error": "too many downloads at once"})
    with pytest.raises(CommandFailed, match=r"given up.*503, too many downloads"):
        patiently(source.offer, pauses.append)
    assert pauses == [7.0] * 5


def test_the_parts_come_where_there_is_no_output() -> None:
    part = Offered("checkpoints/r/p", "part", 1, "e", None)
    output = Offered("output/o", "output", 1, "e", None)
    assert chosen(Offer("r", None, None, (part,)), None) == [part]
    assert chosen(Offer("r", "completed", None, (output, part)), None) == [output]
    assert chosen(Offer("r", "completed", None, (output, part)), "all") == [output, part]


def test_a_fetch_killed_in_the_middle_goes_on_and_gives_the_same_bytes(
    far: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    size = 100 * 1024 * 1024
    large = tmp_path / "far/output/big.csv"
    with large.open("wb") as file:
        file.truncate(size)
    digest = fetching.sha256(large)
    entry = {"label": "b", "merged_output": "output/big.csv", "sha256": digest, "bytes": size}
    (tmp_path / "far/logs/big").mkdir()
    (tmp_path / "far/logs/big/run_manifest.json").write_text(
        json.dumps({"run_id": "big", "status": "completed", "files": [entry]})
    )
    command = [
        sys.executable,
        "-m",
        "prism_cli",
        "fetch",
        "big",
        "--url",
        url(far),
        "--to",
        str(tmp_path / "to"),
    ]
    environ = {**os.environ, "PRISM_FILES_TOKEN": TOKEN}
    process = subprocess.Popen([*command, "--only", "outputs"], env=environ)
    temporary = temporary_of(
        tmp_path / "to/output/big.csv", Offered("output/big.csv", "output", size, digest, digest)
    )
    while not (temporary.is_file() and temporary.stat().st_size > 1 << 20):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = temporary.stat().st_size
    assert 0 < left < size
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert fetching.sha256(tmp_path / "to/output/big.csv") == digest
    assert not temporary.exists()
    served = [vars(one)["prism_extras"] for one in caplog.records if one.getMessage() == "file_served"]
    assert [one["start"] for one in served if one["path"] == "output/big.csv"] == [0, left]
