"""The decoder's process: takes photos from stdin one by one, and hands them back on stdout.

Whoever breaks a decoder with a photo finds a process without environment, files, memory to fill or a way
to start another; it dies with its parent, by signal (Linux) or at the end of its stdin (elsewhere).
"""

import ctypes
import os
import resource
import signal
import sys
import warnings
from collections.abc import Sequence

from prism_model_worker.photos import developing, wire
from prism_model_worker.photos.photo import PhotoRefused

_PR_SET_PDEATHSIG = 1
_STANDARD_STREAMS = 3


def main(arguments: Sequence[str]) -> None:
    """Serve until stdin ends. Arguments: the parent's process id, then three of PhotoLimits."""
    parent, max_pixels, longest_side, memory_bytes = map(int, arguments)
    _die_with(parent)
    developing.warm_up()
    _be_quiet()
    _limit(memory_bytes)
    with open(0, "rb") as source, open(1, "wb") as target:
        target.write(wire.READY)
        target.flush()
        while len(header := source.read(wire.REQUEST.size)) == wire.REQUEST.size:
            kind, length = wire.unpack_request(header)
            data = source.read(length)
            if len(data) < length:
                return
            try:
                outcome: wire.Developed | PhotoRefused
                outcome = developing.develop(kind, data, max_pixels, longest_side)
            except PhotoRefused as refusal:
                outcome = refusal
            target.write(wire.pack_reply(outcome))
            target.flush()


def _die_with(parent: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the parent process is gone")


def _be_quiet() -> None:
    """What a decoder library prints of a photo must not reach the service's log."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    warnings.simplefilter("ignore")


def _limit(memory_bytes: int) -> None:
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_NPROC, 0)
    _lower(resource.RLIMIT_NOFILE, _STANDARD_STREAMS)
    if sys.platform.startswith("linux"):  # elsewhere the address space has no limit that holds
        _lower(resource.RLIMIT_AS, memory_bytes)


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


if __name__ == "__main__":
    main(sys.argv[1:])
