"""A child process confined: it ends with its parent, and has no more than it is left.

For children that read what anybody sent. The standard library alone: what is imported here is time and
memory of each of them.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Mapping

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have this process killed when its parent ends (Linux). parent: its process id."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # A parent that ended before this was asked for sends no signal any more.
        if os.getppid() != parent:
            sys.exit("the parent process is gone")


def confine(memory_bytes: int, others: Mapping[int, int] | None = None) -> None:
    """Leave this process so much memory (Linux) and no core dump. others: RLIMIT_* to value."""
    for limit, value in {resource.RLIMIT_CORE: 0, **(others or {})}.items():
        _lower(limit, value)
    if sys.platform.startswith("linux"):  # elsewhere the address space has no limit that holds
        _lower(resource.RLIMIT_AS, memory_bytes)


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))
