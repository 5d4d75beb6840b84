"""The metrics registry of a process. Each service declares its own metrics, once, in its `metrics.py`."""

from prometheus_client import CollectorRegistry, ProcessCollector


def new_registry() -> CollectorRegistry:
    """Return a registry with `process_…` (memory in bytes, CPU in seconds, open files) and nothing else.

    Not prometheus_client's global one: a test can build a service twice in one process.
    """
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    return registry
