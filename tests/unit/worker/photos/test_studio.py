"""Decoders that die, hang, lie or wear out: one photo's failure, and the next photo is fine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from PIL import Image

from prism.service.errors import RetryLater
from prism_model_worker.photos import decoder as decoders
from prism_model_worker.photos import studio as studios
from prism_model_worker.photos import wire
from prism_model_worker.photos.photo import Photo, PhotoLimits, PhotoProblem, PhotoRefused
from prism_model_worker.photos.studio import Studio
from tests.unit.worker.photos.samples import encoded, picture

PHOTO = encoded(picture(), "PNG")
LINUX = sys.platform.startswith("linux")
Open = Callable[..., Studio]


@pytest.fixture
def open_studio() -> Iterator[Open]:
    opened: list[Studio] = []

    def open_one(seconds: float = 20.0, **options: float) -> Studio:
        opened.append(Studio(PhotoLimits(seconds=seconds), **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for studio in opened:
        studio.close()


def children() -> dict[int, psutil.Process]:
    """The decoders of this process, by process id."""
    found = psutil.Process().children()
    return {one.pid: one for one in found if "prism_model_worker.photos.child" in one.cmdline()}


class Watched:
    """A studio with one decoder, and that decoder's process."""

    def __init__(self, studio: Studio) -> None:
        before = children()
        self.studio = studio
        studio.develop(PHOTO)
        (self.process,) = (one for pid, one in children().items() if pid not in before)

    def in_progress(self) -> "Future[Photo]":
        """Begin a photo that the decoder, which is stopped, cannot finish."""
        (decoder,) = self.studio._decoders.values()
        begun = decoder.photos
        self.process.suspend()
        pool = ThreadPoolExecutor(1)
        future = pool.submit(self.studio.develop, PHOTO)
        pool.shutdown(wait=False)
        _wait_until(lambda: decoder.photos > begun)
        return future


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def code_of(future: "Future[Photo]") -> PhotoProblem:
    with pytest.raises(PhotoRefused) as refused:
        future.result(10)
    return refused.value.code


@pytest.mark.promise(9)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_decoder_that_dies_costs_one_photo(open_studio: Open, number: int) -> None:
    watched = Watched(open_studio())
    future = watched.in_progress()
    watched.process.send_signal(number)
    with contextlib.suppress(psutil.NoSuchProcess):
        watched.process.resume()  # what is stopped meets only SIGKILL
    assert code_of(future) == PhotoProblem.DECODER_DIED
    assert watched.studio.develop(PHOTO).sent.width == picture().width
    assert not watched.process.is_running()


@pytest.mark.promise(9)
def test_a_decoder_that_hangs_costs_one_photo(open_studio: Open) -> None:
    watched = Watched(open_studio(seconds=0.5))
    started = time.monotonic()
    assert code_of(watched.in_progress()) == PhotoProblem.DECODER_TIMEOUT
    assert 0.4 < time.monotonic() - started < 5
    assert watched.studio.develop(PHOTO).sent.width == picture().width
    assert not watched.process.is_running()


def test_a_photo_that_a_hanging_decoder_does_not_even_read_has_the_same_end(open_studio: Open) -> None:
    watched = Watched(open_studio(seconds=0.5))
    watched.process.suspend()
    with pytest.raises(PhotoRefused) as refused:
        watched.studio.develop(PHOTO[:8] + bytes(5_000_000))
    assert refused.value.code == PhotoProblem.DECODER_TIMEOUT


def test_a_decoder_that_dies_between_two_photos_costs_none(open_studio: Open) -> None:
    watched = Watched(open_studio())
    watched.process.kill()
    os.waitid(os.P_PID, watched.process.pid, os.WEXITED | os.WNOWAIT)
    assert watched.studio.develop(PHOTO).sent.width == picture().width


LIES = {
    "nothing": "",
    "half a header": "os.write(1, bytes(5))",
    "no code": "os.write(1, wire.REPLY.pack(False, 0, 0, 0, 0, 3) + b'abc')",
    "no text": "os.write(1, wire.REPLY.pack(False, 0, 0, 0, 0, 3) + b'\\xff\\xff\\xff')",
    "too long": "os.write(1, wire.REPLY.pack(True, 0, 0, 0, 0, 2**32 - 1)); time.sleep(60)",
    "cut off": "os.write(1, wire.REPLY.pack(True, 1, 1, 1, 1, 100) + bytes(50))",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_decoder_that_lies_costs_one_photo(
    open_studio: Open, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    def start(stream: socket.socket, limits: PhotoLimits) -> "subprocess.Popen[bytes]":
        imports = "import os, time\nfrom prism_model_worker.photos import wire"
        script = f"{imports}\nos.write(1, b'R')\nos.read(0, 99)\n{lie}"
        return subprocess.Popen([sys.executable, "-c", script], stdin=stream.fileno(), stdout=stream.fileno())

    studio = open_studio(seconds=5.0)
    with monkeypatch.context() as patch:
        patch.setattr(decoders, "_start", start)
        with pytest.raises(PhotoRefused) as refused:
            studio.develop(PHOTO)
    assert refused.value.code == PhotoProblem.DECODER_DIED
    assert studio.develop(PHOTO).sent.width == picture().width


def test_a_decoder_that_does_not_start_is_not_the_photos_fault(
    open_studio: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = open_studio()
    for executable in ("/bin/false", "/nowhere/python"):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", executable)
            with pytest.raises(RetryLater, match="no photo decoder could be started"):
                studio.develop(PHOTO)
    assert studio.develop(PHOTO).sent.width == picture().width


def test_a_decoder_that_does_not_come_up_is_given_up() -> None:
    before = children()
    with pytest.raises(decoders.DecoderLate):
        decoders.Decoder(PhotoLimits(), start_s=0.001)
    assert children() == before


def test_a_decoder_is_replaced_when_it_is_worn(open_studio: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(open_studio(photos_per_decoder=2))
    watched.studio.develop(PHOTO)
    assert not watched.process.is_running()
    watched = Watched(open_studio())
    watched.studio.develop(PHOTO)
    assert watched.process.is_running()
    monkeypatch.setattr(studios, "MOST_RESIDENT_BYTES", 1_000_000)
    watched.studio.develop(PHOTO)
    assert not watched.process.is_running()


def test_who_waits_too_long_is_told_to_come_again(open_studio: Open) -> None:
    watched = Watched(open_studio(wait_s=0.3))
    future = watched.in_progress()
    with pytest.raises(RetryLater, match="busy"):
        watched.studio.develop(PHOTO)
    watched.process.resume()
    # The one that had begun was not given up for its wait.
    assert future.result(10).sent.width == picture().width


def test_a_closed_studio_takes_no_photo_and_leaves_no_process(open_studio: Open) -> None:
    watched = Watched(open_studio())
    future = watched.in_progress()
    waiting = ThreadPoolExecutor(1).submit(watched.studio.develop, PHOTO)
    _wait_until(lambda: watched.studio._keepers._work_queue.qsize() == 1)
    closing = threading.Thread(target=watched.studio.close)
    closing.start()
    with pytest.raises(RetryLater, match="closed"):
        waiting.result(10)
    watched.process.resume()
    closing.join(10)
    assert future.result(10).sent.width == picture().width
    assert not watched.process.is_running()
    with pytest.raises(RetryLater, match="closed"):
        watched.studio.develop(PHOTO)


def test_everyone_gets_the_own_photo_back(open_studio: Open) -> None:
    studio = open_studio(decoders=2)
    sizes = [(40 + number, 90 - number) for number in range(48)]
    files = [encoded(Image.new("RGB", size), "PNG") for size in sizes]
    with ThreadPoolExecutor(8) as pool:
        photos = list(pool.map(studio.develop, files))
    assert [(photo.sent.width, photo.sent.height) for photo in photos] == sizes
    assert [photo.original.bytes for photo in photos] == [len(file) for file in files]


@pytest.mark.skipif(not LINUX, reason="/proc and these limits are Linux's")
def test_a_decoder_is_fenced_in(open_studio: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "secret")
    process = Watched(open_studio()).process
    limits = {
        psutil.RLIMIT_CORE: 0,
        psutil.RLIMIT_FSIZE: 0,
        psutil.RLIMIT_NPROC: 0,
        psutil.RLIMIT_NOFILE: 3,
        psutil.RLIMIT_AS: PhotoLimits().memory_bytes,
    }
    assert {limit: process.rlimit(limit) for limit in limits} == {
        limit: (value, value) for limit, value in limits.items()
    }
    assert "secret" not in str(process.environ())
    assert "OLLAMA_API_KEY" not in process.environ()
    assert sorted(os.listdir(f"/proc/{process.pid}/fd")) == ["0", "1", "2"]
    assert os.readlink(f"/proc/{process.pid}/fd/2") == os.devnull
    assert os.getsid(process.pid) == process.pid


ORPHAN = """
import sys, time
from prism_model_worker.photos.photo import PhotoLimits
from prism_model_worker.photos.studio import Studio
studio = Studio(PhotoLimits())
studio.develop(open(sys.argv[1], "rb").read())
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not LINUX, reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("stopped", [False, True])
def test_a_decoder_dies_with_its_parent(tmp_path: Path, stopped: bool) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(PHOTO)
    with subprocess.Popen([sys.executable, "-c", ORPHAN, str(photo)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        (child,) = psutil.Process(parent.pid).children()
        if stopped:
            child.suspend()  # one that cannot see the end of its stdin
        parent.kill()
    gone, _ = psutil.wait_procs([child], timeout=10)
    assert gone == [child]


def test_a_decoder_whose_parent_has_gone_before_does_not_stay() -> None:
    numbers = ["1", "100", "100", "100000000"] if os.getppid() != 1 else ["2", "100", "100", "100000000"]
    command = [sys.executable, "-I", "-m", "prism_model_worker.photos.child", *numbers]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"the parent process is gone" in done.stderr


def test_the_wire_carries_what_is_packed() -> None:
    developed = wire.Developed(1, 2, 3, 4, b"jpeg")
    packed = wire.pack_reply(developed)
    assert wire.reply_length(packed[: wire.REPLY.size]) == 4
    assert wire.unpack_reply(packed[: wire.REPLY.size], packed[wire.REPLY.size :]) == developed
    packed = wire.pack_reply(PhotoRefused(PhotoProblem.DAMAGED, "why; näxt"))
    with pytest.raises(PhotoRefused) as refused:
        wire.unpack_reply(packed[: wire.REPLY.size], packed[wire.REPLY.size :])
    assert (refused.value.code, refused.value.message) == (PhotoProblem.DAMAGED, "why; näxt")
