"""The worker's metrics, each declared once."""

from prometheus_client import Counter, Gauge, Histogram

from prism.service.metrics import new_registry

REGISTRY = new_registry()

# Where the time goes: compare with the model server's own figures.
CALL_SECONDS = Histogram(
    "prism_worker_call_seconds",
    "Time of one model call, from request to reply or error.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300),
    registry=REGISTRY,
)
CALL_ERRORS = Counter(
    "prism_worker_call_errors", "Model calls that gave no reply, by kind.", ["kind"], registry=REGISTRY
)
RETRIES = Counter(
    "prism_worker_retries",
    "Groups of rows asked again, by the reason of the last reply.",
    ["reason"],
    registry=REGISTRY,
)
# Canaries are calls that no row asked for: they tell an outage from a bad row.
CANARIES = Counter(
    "prism_worker_canaries", "Tiny calls made to find out if the model answers.", registry=REGISTRY
)
ROWS = Counter(
    "prism_worker_rows",
    "Rows with an outcome, by outcome (`ok` or the reason).",
    ["outcome"],
    registry=REGISTRY,
)
BATCHES = Counter("prism_worker_batches", "Batches whose result the broker acknowledged.", registry=REGISTRY)
IN_FLIGHT = Gauge(
    "prism_worker_in_flight_batches", "Batches taken and not yet acknowledged.", registry=REGISTRY
)
LIMIT = Gauge("prism_worker_concurrency_limit", "Most model calls at once.", registry=REGISTRY)
MODEL_UP = Gauge("prism_worker_model_up", "1 while the model's server answers.", ["model"], registry=REGISTRY)
REQUESTS = Counter(
    "prism_worker_requests", "Photo and text requests, by outcome.", ["outcome"], registry=REGISTRY
)
# What a request waits for beside the model is ours to keep short.
REQUEST_SECONDS = Histogram(
    "prism_worker_request_seconds",
    "Time from a request's receipt to its reply: the model's part and our own.",
    ["part"],
    buckets=(0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 1, 3, 10, 30, 120),
    registry=REGISTRY,
)
DEAD_LETTERS = Counter("prism_worker_dead_letters", "Messages that could not be used.", registry=REGISTRY)
TOKENS = Counter("prism_worker_tokens", "Tokens by direction.", ["direction"], registry=REGISTRY)
# Commits are refused when a partition has moved on: routine, but many of them mean unrest in the group.
COMMITS_REFUSED = Counter("prism_worker_commits_refused", "Commits refused as stale.", registry=REGISTRY)
