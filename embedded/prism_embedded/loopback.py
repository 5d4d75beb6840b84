"""Ports on the loopback.

Listening ports are chosen *below* the range from which the kernel takes the ports of outgoing
connections. Inside that range a client that keeps trying to reach a broker that is down may be
given the broker's own port as its source: it then connects to itself, and the broker cannot come back.
"""

import random
import socket
import time
from pathlib import Path

HOST = "127.0.0.1"
_LOWEST = 10_000
_TRIES = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def becomes_free(port: int, timeout_s: float) -> bool:
    """Whether the port is free within so many seconds."""
    deadline = time.monotonic() + timeout_s
    while not is_free(port):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def free_port(avoid: frozenset[int] = frozenset()) -> int:
    """A port of the loopback that is free now, outside the range of outgoing connections if possible."""
    highest = _first_outgoing_port() - 1
    for _ in range(_TRIES if highest > _LOWEST + 1000 else 0):
        port = random.randint(_LOWEST, highest)
        if port not in avoid and is_free(port):
            return port
    return _any_port(avoid)


def _first_outgoing_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


def _any_port(avoid: frozenset[int]) -> int:
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port not in avoid:
            return port
