"""The parent's side of one decoder process."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from prism_model_worker.photos import wire
from prism_model_worker.photos.kinds import Kind
from prism_model_worker.photos.photo import PhotoLimits

# Python and Pillow are up in 0.2 s; a machine that swaps needs longer.
START_S = 30.0
_LONGEST_REPLY_BYTES = 64 * 1024 * 1024
# glibc gives the memory of each photo back, and takes it again for the next: a tenth of the time.
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class DecoderLost(Exception):
    """The process has ended, or talks nonsense."""


class DecoderLate(Exception):
    """The process did not answer in time."""


class Decoder:
    """One process. For one thread; it dies with the thread that made it (Linux).

    Raises DecoderLost and DecoderLate from the constructor if it does not come up. After either of them,
    from any method, only `kill` may be called.
    """

    def __init__(self, limits: PhotoLimits, start_s: float = START_S) -> None:
        self.photos = 0
        self._seconds = limits.seconds
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _start(theirs, limits)
        except BaseException:
            self._socket.close()
            raise
        try:
            self._receive(len(wire.READY), time.monotonic() + start_s)
        except BaseException:
            self.kill()
            raise

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def develop(self, kind: Kind, data: bytes) -> wire.Developed:
        """Have one photo developed. Raises PhotoRefused, DecoderLost, DecoderLate."""
        self.photos += 1
        deadline = time.monotonic() + self._seconds
        self._send(wire.pack_request(kind, data), deadline)
        self._send(data, deadline)
        header = self._receive(wire.REPLY.size, deadline)
        length = wire.reply_length(header)
        if length > _LONGEST_REPLY_BYTES:
            raise DecoderLost("a reply of impossible length")
        try:
            return wire.unpack_reply(header, self._receive(length, deadline))
        except ValueError as error:
            raise DecoderLost("a reply that is none") from error

    def resident_bytes(self) -> int:
        """Return the memory that the process holds now; 0 where the system does not say."""
        try:
            return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * _PAGE_BYTES
        except (OSError, IndexError):
            return 0

    def kill(self) -> int:
        """End the process and return its exit status (negative: a signal)."""
        self._socket.close()
        self._process.kill()
        return self._process.wait()

    def _send(self, data: bytes, deadline: float) -> None:
        try:
            self._socket.settimeout(_left(deadline))
            self._socket.sendall(data)
        except TimeoutError:
            raise DecoderLate from None
        except OSError as error:
            raise DecoderLost(str(error)) from None

    def _receive(self, length: int, deadline: float) -> bytes:
        buffer = bytearray(length)
        view = memoryview(buffer)
        try:
            while view:
                self._socket.settimeout(_left(deadline))
                count = self._socket.recv_into(view)
                if count == 0:
                    raise DecoderLost("the process has ended")
                view = view[count:]
        except TimeoutError:
            raise DecoderLate from None
        except OSError as error:
            raise DecoderLost(str(error)) from None
        return bytes(buffer)


def _start(stream: socket.socket, limits: PhotoLimits) -> "subprocess.Popen[bytes]":
    numbers = (os.getpid(), limits.max_pixels, limits.longest_side, limits.memory_bytes)
    # No secret of the service's goes along.
    environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-I", "-m", "prism_model_worker.photos.child", *map(str, numbers)],
        stdin=stream.fileno(),
        stdout=stream.fileno(),
        cwd="/",
        env=environment | _KEEP_MEMORY,
        start_new_session=True,  # Ctrl-C goes to the parent
    )


def _left(deadline: float) -> float:
    """Return the seconds left; never 0, which would mean not to wait at all."""
    return max(0.001, deadline - time.monotonic())
