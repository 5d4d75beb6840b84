"""The decoder's process: takes photos from stdin one by one, and hands them back on stdout.

Whoever breaks a decoder with a photo finds a process without environment, files, memory to fill or a way
to start another; it dies with its parent, by signal (Linux) or at the end of its stdin (elsewhere).
"""

import os
import resource
import sys
import warnings
from collections.abc import Sequence

from prism import confinement
from prism_model_worker.photos import developing, wire
from prism_model_worker.photos.photo import PhotoRefused

_STANDARD_STREAMS = 3
# Nothing to write, nothing to start, nothing to open.
_NOTHING = {
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NPROC: 0,
    resource.RLIMIT_NOFILE: _STANDARD_STREAMS,
}


def main(arguments: Sequence[str]) -> None:
    """Serve until stdin ends. Arguments: the parent's process id, then three of PhotoLimits."""
    parent, max_pixels, longest_side, memory_bytes = map(int, arguments)
    confinement.die_with(parent)
    developing.warm_up()
    _be_quiet()
    confinement.confine(memory_bytes, _NOTHING)
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


def _be_quiet() -> None:
    """What a decoder library prints of a photo must not reach the service's log."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    main(sys.argv[1:])
