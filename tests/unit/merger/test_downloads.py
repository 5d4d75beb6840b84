"""A run's files over HTTP, on the real server: who gets what, in which pieces, and who waits for whom."""

import hashlib
import http.client
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from prism.messages import RunState
from prism.runs.table import RunsTable
from prism.service.http import HealthServer
from prism.service.metrics import ServiceRegistry
from prism.service.readiness import Readiness
from prism_merger.downloads import pages
from prism_merger.known_runs import KnownRuns
from tests.unit.merger.test_run_files import HOSTILE, SECRET, manifest
from tests.unit.merger.world import World, result, run_record

TOKEN = "a-token-of-this-fleet"
OUTPUT = "/runs/r1/files/output/r1_march.csv"


class Site:
    """One merger's pages on a folder with a published run `r1`."""

    def __init__(self, root: Path, token: str | None = TOKEN, most: int = 4, **known: Any) -> None:
        self.known = KnownRuns(root, root / "merger-0" / "store.sqlite", **known)
        self.server = HealthServer(
            "127.0.0.1", 0, status=dict, readiness=Readiness(), registry=ServiceRegistry("merger"),
            pages=pages(self.known, token, most),
        )  # fmt: skip

    def ask(
        self, path: str, method: str = "GET", token: str | None = TOKEN, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        more = {"Authorization": f"Bearer {token}"} if token is not None else {}
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)) as connection:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in {**more, **headers}.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def stuck(self, path: str) -> socket.socket:
        """Ask for a file and read nothing of it."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", self.server.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 200"
        return client


def publish(root: Path) -> None:
    """Let a merger publish the run `r1`."""
    record = run_record(rows=25)
    world = World(root, [record])
    world.merge([result(record, number) for number in range(3)])
    world.write_parts()
    world.finish()
    world.close()


def add_large(root: Path, size: int = 300 * 1024 * 1024) -> str:
    """Add a run with one large part; return where it is asked for."""
    folder = root / "checkpoints" / "big"
    folder.mkdir(parents=True)
    with (folder / "checkpoint_big_x_part0001.csv").open("wb") as file:
        file.truncate(size)
    (root / "logs" / "big").mkdir(parents=True)
    (root / "logs/big/run_manifest.json").write_text(manifest("big", []))
    return "/runs/big/files/checkpoints/big/checkpoint_big_x_part0001.csv"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    publish(tmp_path)
    made = Site(tmp_path, table=RunsTable())
    yield made
    made.server.close()


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site of which nothing is changed."""
    root = tmp_path_factory.mktemp("still")
    publish(root)
    (root / "logs/r2").mkdir()
    (root / "logs/r2/run_manifest.json").write_bytes(SECRET)
    made = Site(root, table=RunsTable())
    yield made
    made.server.close()


def test_a_run_is_listed_with_what_the_manifest_knows(site: Site, tmp_path: Path) -> None:
    status, headers, body = site.ask("/runs/r1")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    told = json.loads(body)
    assert (told["run_id"], told["status"]) == ("r1", "completed_with_failures")
    content = (tmp_path / "output/r1_march.csv").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert told["files"][0] == {
        "path": "output/r1_march.csv", "kind": "output", "bytes": len(content), "sha256": digest,
        "etag": digest, "media_type": "text/csv",
    }  # fmt: skip
    others = {one["path"]: one["kind"] for one in told["files"][1:]}
    assert others == {
        "logs/r1/run_manifest.json": "manifest",
        "logs/r1/failed_ranges.json": "failures",
        "logs/r1/failed_rows.csv": "failures",
        "checkpoints/r1/checkpoint_r1_march_part0001.csv": "part",
    }
    for path in others:
        assert site.ask(f"/runs/r1/files/{path}")[2] == (tmp_path / path).read_bytes()


def test_a_file_comes_with_headers_that_keep_a_browser_from_running_it(site: Site, tmp_path: Path) -> None:
    status, headers, body = site.ask(OUTPUT)
    assert (status, body) == (200, (tmp_path / "output/r1_march.csv").read_bytes())
    assert headers["Content-Length"] == str(len(body))
    assert headers["ETag"] == f'"{hashlib.sha256(body).hexdigest()}"'
    assert headers["Content-Type"] == "text/csv; charset=utf-8"
    assert headers["Content-Disposition"].startswith('attachment; filename="r1_march.csv"')
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert headers["Cache-Control"] == "no-store"
    (tmp_path / "logs/r1/report_r1.html").write_text("<script>alert(1)</script>")
    policy = site.ask("/runs/r1/files/logs/r1/report_r1.html")[1]["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy


def test_head_tells_the_same_without_the_bytes(still: Site) -> None:
    for path in (OUTPUT, "/runs/r1"):
        whole, head = still.ask(path), still.ask(path, "HEAD")
        assert (head[0], head[2]) == (200, b"")
        volatile = {"Date"}
        assert {k: v for k, v in head[1].items() if k not in volatile} == {
            k: v for k, v in whole[1].items() if k not in volatile
        }


@pytest.mark.parametrize(
    ("wanted", "status", "first", "end"),
    [
        ("bytes=0-", 200, 0, None),
        ("bytes=10-", 206, 10, None),
        ("bytes=10-19", 206, 10, 20),
        ("bytes=0-0", 206, 0, 1),
        ("bytes=10-99999999", 206, 10, None),
        ("bytes=-5", 206, -5, None),
        ("bytes=-99999999", 200, 0, None),
        ("bytes=99999999-", 416, 0, 0),
        ("bytes=0-1,5-6", 200, 0, None),
        ("bytes=5-1", 200, 0, None),
        ("lines=1-2", 200, 0, None),
        ("bytes=--1", 200, 0, None),
        ("bytes=1-99999999999999999999999999", 206, 1, None),
        ("nonsense", 200, 0, None),
    ],
)
def test_a_range_gives_these_bytes(
    still: Site, wanted: str, status: int, first: int, end: int | None
) -> None:
    content = (still.known.root / "output/r1_march.csv").read_bytes()
    answer = still.ask(OUTPUT, Range=wanted)
    assert (answer[0], answer[2]) == (status, content[first:end])
    if status == 206:
        at = first % len(content)
        assert answer[1]["Content-Range"] == f"bytes {at}-{at + len(answer[2]) - 1}/{len(content)}"
    if status == 416:
        assert answer[1]["Content-Range"] == f"bytes */{len(content)}"


def test_a_range_of_another_version_gives_the_whole_file(still: Site) -> None:
    whole = still.ask(OUTPUT)
    etag = whole[1]["ETag"]
    assert still.ask(OUTPUT, Range="bytes=3-", If_Range=etag)[2] == whole[2][3:]
    assert still.ask(OUTPUT, Range="bytes=3-", If_Range='"other"')[2] == whole[2]
    assert still.ask(OUTPUT, If_None_Match=etag)[0::2] == (304, b"")


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN,
     "Bearer ü", f"Bearer {TOKEN.upper()}"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/runs/r1", OUTPUT, "/runs/nobody", "/runs/r1/files/../x"])
def test_without_the_token_nothing_is_told(still: Site, header: str | None, path: str) -> None:
    more = {} if header is None else {"Authorization": header.encode().decode("latin-1")}
    status, headers, body = still.ask(path, token=None, **more)
    assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="prism"')
    assert json.loads(body)["error"] == "no token, or another one"


def test_without_a_setting_nothing_is_served(tmp_path: Path) -> None:
    publish(tmp_path)
    site = Site(tmp_path, token=None)
    for token in (None, "", "None", TOKEN):
        status, _, body = site.ask(OUTPUT, token=token)
        assert status == 404
        assert json.loads(body)["hint"] == "set PRISM_FILES_TOKEN for the merger"
    site.server.close()


@pytest.mark.promise(8)
@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("path", HOSTILE, ids=repr)
def test_no_path_leads_elsewhere(still: Site, path: str, encoded: bool) -> None:
    plain = all("!" <= one <= "~" for one in path)  # others no HTTP client sends as they are
    text = path if plain and not encoded else "".join(f"%{one:02x}" for one in path.encode())
    status, _, body = still.ask(f"/runs/r1/files/{text}")
    assert status == 404
    assert SECRET not in body


@pytest.mark.parametrize(
    "run_id", ["..", "%2e%2e", "r1%2f..", "r1%00", "nobody", "merger-0", "services", "r1.", "*"]
)
def test_no_run_id_leads_elsewhere(still: Site, run_id: str) -> None:
    assert still.ask(f"/runs/{run_id}")[0] == 404
    assert still.ask(f"/runs/{run_id}/files/logs/r1/run_manifest.json")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_it_is_read_only(still: Site, method: str) -> None:
    for path in ("/runs/r1", OUTPUT):
        status, headers, _ = still.ask(path, method, Content_Length="0")
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_the_token_is_in_no_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        site.ask(OUTPUT)
        site.ask(OUTPUT, token=TOKEN + "x")
    lines = [str(vars(one)) for one in caplog.records]
    assert any("file_served" in one for one in lines)
    assert not any(TOKEN in one for one in lines)


def test_a_run_that_the_store_does_not_know_is_found_by_the_topic_or_by_its_manifest(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "merger-0/store.sqlite").unlink()
    site = Site(tmp_path)
    assert site.ask("/runs/r1")[0] == 200
    status, headers, _ = site.ask("/runs/r9")
    assert (status, headers["Retry-After"]) == (503, "5")  # the topic may know it
    job = {"monitoring": {"logs_dir": "elsewhere"}}
    record = run_record("r9", job=job, state=RunState.COMPLETED)
    (tmp_path / "elsewhere/r9").mkdir(parents=True)
    (tmp_path / "elsewhere/r9/run_manifest.json").write_text(manifest("r9", []))
    site.known.table = RunsTable()
    assert site.ask("/runs/r9")[0] == 404
    site.known.table.apply("r9", record.to_bytes())
    listed = json.loads(site.ask("/runs/r9")[2])["files"]
    assert [one["path"] for one in listed] == ["elsewhere/r9/run_manifest.json"]
    site.server.close()


def test_another_mergers_run_says_whose_it_is(tmp_path: Path) -> None:
    table = RunsTable()
    table.apply("r5", run_record("r5", partition=5).to_bytes())
    site = Site(tmp_path, ordinal=0, replicas=2, table=table)
    status, _, body = site.ask("/runs/r5")
    assert (status, json.loads(body)) == (
        404,
        {"error": "another merger's run", "hint": "merger 1 of 2 has it", "merger": 1},
    )
    site.server.close()


@pytest.mark.promise(9)
@pytest.mark.promise(10)
def test_clients_that_read_nothing_hold_up_nobody(site: Site, tmp_path: Path) -> None:
    path = add_large(tmp_path)
    waiting = [site.stuck(path) for _ in range(4)]
    began = time.monotonic()
    assert site.ask("/health", token=None)[0] == 200
    assert site.ask("/metrics", token=None)[0] == 200
    assert site.ask("/runs/r1")[0] == 200
    assert time.monotonic() - began < 2.0
    status, headers, _ = site.ask(OUTPUT)
    assert (status, headers["Retry-After"]) == (503, "5")
    assert site.ask(OUTPUT, "HEAD")[0] == 200
    for one in waiting:
        one.close()
    deadline = time.monotonic() + 10
    while site.ask(OUTPUT)[0] != 200:
        assert time.monotonic() < deadline, "the slots are not given back"
    descriptors = psutil.Process().open_files()
    assert not any("checkpoint_big" in one.path for one in descriptors)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="a matter of Linux")
def test_a_client_that_has_stopped_reading_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prism.service.http._STUCK_MS", 500)
    publish(tmp_path)
    site = Site(tmp_path, most=1, table=RunsTable())
    with closing(site.stuck(add_large(tmp_path))):
        deadline = time.monotonic() + 30
        while site.ask(OUTPUT)[0] != 200:
            assert time.monotonic() < deadline, "it keeps its slot"
    site.server.close()


def test_requests_behind_a_file_that_is_not_read_take_no_thread(site: Site, tmp_path: Path) -> None:
    path = add_large(tmp_path)
    one = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    with ExitStack() as stack:
        for _ in range(2):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", site.server.port)))
            client.sendall(one * 2)
            assert client.recv(12) == b"HTTP/1.1 200"
        assert site.ask("/health", token=None)[0] == 200


# Takes what comes without copying it: faster than it can be sent.
_FAST_CLIENT = """
import socket, sys
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
client.sendall(sys.argv[2].encode())
print(len(client.recv(1)), flush=True)
left = int(sys.argv[3])
while left > 0 and (read := client.recv(1 << 22, socket.MSG_TRUNC)):
    left -= len(read)
print("all" if left <= 0 else left)
"""


@pytest.mark.promise(10)
def test_a_fast_download_leaves_health_its_turns_and_takes_no_memory(site: Site, tmp_path: Path) -> None:
    size = 1024**3
    path = add_large(tmp_path, size)
    ask = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    command = [sys.executable, "-c", _FAST_CLIENT, str(site.server.port), ask, str(size)]
    before = psutil.Process().memory_info().rss
    asked: list[float] = []
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()
        while client.poll() is None:
            began = time.monotonic()
            assert site.ask("/health", token=None)[0] == 200
            asked.append(time.monotonic() - began)
        assert client.stdout.read() == b"all\n"
    # A download that keeps the loop lets the first question wait for all the rest of it.
    assert max(asked) < (time.monotonic() - started) / 2
    assert psutil.Process().memory_info().rss - before < 50 * 1024 * 1024


def test_a_file_that_gets_shorter_ends_the_connection(site: Site, tmp_path: Path) -> None:
    path = add_large(tmp_path)
    client = site.stuck(path)
    os.truncate(tmp_path / path.removeprefix("/runs/big/files/"), 1024)
    client.settimeout(10)
    with closing(client):
        while client.recv(1 << 20):
            pass
    assert site.ask("/health", token=None)[0] == 200
