"""Every case by its name, in the order in which all of them are measured. Some take a number of `rows`."""

from collections.abc import Callable

from benchmarks.cases import (
    at_once,
    duplicates,
    memory,
    recovery,
    request_share,
    saturation,
    slow_worker,
    small_in_large,
)
from benchmarks.controller import controller
from benchmarks.dashboard import dashboard
from benchmarks.figure import Figure
from benchmarks.formats import formats
from benchmarks.reports import reports
from benchmarks.tracing import cost_of_tracing

CASES: dict[str, Callable[..., list[Figure]]] = {
    "at_once": at_once,
    "saturation": saturation,
    "slow_worker": slow_worker,
    "controller": controller,
    "small_in_large": small_in_large,
    "duplicates": duplicates,
    "requests": request_share,
    "recovery": recovery,
    "memory": memory,
    "dashboard": dashboard,
    "reports": reports,
    "formats": formats,
    "tracing": cost_of_tracing,
}
