"""The worker's metrics, each declared once.

Calls to models have OpenTelemetry's names, units, attributes and bucket boundaries (semantic conventions for
generative AI, client metrics), with `_` for `.`. The model's name is whatever a job says, so the labels
`gen_ai_request_model` and `model` are bounded by `MODEL`. A counter whose first step is to be seen has its
series from the start: Prometheus takes the first value that it sees for no step.
"""

from prometheus_client import Counter, Gauge, Histogram

from prism.messages import MessageReason
from prism.service.metrics import BoundedLabel, LiveGauge, ServiceRegistry

REGISTRY = ServiceRegistry("model-worker")

# More than a worker ever has in hand; of names that a job can think of there is no end, so one that is no
# longer used makes room.
MODEL = BoundedLabel(50, lambda name: forget_model(name))
# A newer ingestor may reject rows for reasons that are not known here.
REASON = BoundedLabel(60)

# Calls to models

_GEN_AI = ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"]

# The document's "Inference Time" and, by error_type (empty for a call that was answered), its "Error Rate"
# and "Timeout Rate". From request to reply or error, canaries included: the client's view.
OPERATION_SECONDS = Histogram(
    "gen_ai_client_operation_duration_seconds",
    "Duration of one model call; error_type is empty where it was answered.",
    [*_GEN_AI, "error_type"],
    buckets=(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    registry=REGISTRY,
)
# Of answered calls, where the server counts tokens; gen_ai_token_type is input or output.
TOKEN_USAGE = Histogram(
    "gen_ai_client_token_usage",
    "Tokens of one model call, by type.",
    [*_GEN_AI, "gen_ai_token_type"],
    buckets=tuple(4**power for power in range(14)),
    registry=REGISTRY,
)
# Whether a slow call is a slow model or a full server. part: compute (reading the prompt and writing the
# reply), load (of the model), queue (for a slot at the server), transfer (the rest), untold (the server gives
# no timings).
MODEL_TIME = Counter(
    "prism_worker_model_time_seconds",
    "Seconds of answered calls, by what they went to.",
    ["model", "part"],
    registry=REGISTRY,
)
# Against the limit: how much of what the servers take is made use of.
CALLS_IN_FLIGHT = LiveGauge(
    "prism_worker_calls_in_flight", "Model calls that are under way.", registry=REGISTRY
)
# Found by trial; CONCURRENT_REQUESTS is a cap on it.
LIMIT = Gauge("prism_worker_concurrency_limit", "Most model calls at once.", registry=REGISTRY)
# Each is a call more. reason: a RowReason: what the model does wrong.
RETRIES = Counter(
    "prism_worker_retries",
    "Groups of rows asked again, by the reason of the last reply.",
    ["reason"],
    registry=REGISTRY,
)
# Calls that no row asked for: they tell an outage from a bad row.
CANARIES = Counter(
    "prism_worker_canaries", "Tiny calls made to find out if the model answers.", registry=REGISTRY
)

# Model servers, of the models that are wanted: the worker's own, and those of runs that have not ended

# The document's "Model Availability".
MODEL_UP = LiveGauge(
    "prism_worker_model_up", "1 while a server of the model lets calls through, else 0.", ["model"],
    registry=REGISTRY,
)  # fmt: skip
# Requests wait for this one alone; batches may be another's.
OWN_MODEL_UP = LiveGauge(
    "prism_worker_own_model_up", "1 while a server of the worker's own model lets calls through, else 0.",
    registry=REGISTRY,
)  # fmt: skip
# Against the open breakers: how many are left.
MODEL_SERVERS = LiveGauge(
    "prism_worker_model_servers", "Servers that are configured for a model.", ["model"], registry=REGISTRY
)
# reason: an error_type, or `starting` for a server that was not asked yet.
BREAKERS_OPEN = LiveGauge(
    "prism_worker_breakers_open", "Servers of a model that no call is let through to, by reason.",
    ["model", "reason"], registry=REGISTRY,
)  # fmt: skip
# Apart, because it is a matter of hours and of an account, not of a machine.
QUOTA_EXHAUSTED = LiveGauge(
    "prism_worker_quota_exhausted", "1 while a server of the model refuses for its quota, else 0.", ["model"],
    registry=REGISTRY,
)  # fmt: skip
# A worker with several models may be ready and have runs that wait all the same.
WAITING_RUNS = Gauge(
    "prism_worker_waiting_runs", "Runs in hand of which something gets no answer anywhere.", registry=REGISTRY
)

# Batches

# outcome: ok or failed; reason: empty for ok, else a RowReason. The document's "Success Rate".
ROWS = Counter("prism_worker_rows", "Rows by outcome and reason.", ["outcome", "reason"], registry=REGISTRY)
# Each is a row that was not paid for.
REUSED_ROWS = Counter(
    "prism_worker_reused_rows",
    "Rows answered as others that say the same, without a call.",
    registry=REGISTRY,
)
# outcome: ok (every row), partial, failed (every row).
BATCHES = Counter(
    "prism_worker_batches", "Batches whose result the broker acknowledged, by outcome of their rows.",
    ["outcome"], registry=REGISTRY,
)  # fmt: skip
# What would be asked again if this process died now.
IN_FLIGHT = Gauge(
    "prism_worker_in_flight_batches", "Batches taken and not yet acknowledged.", registry=REGISTRY
)
# The document's "Queue Depth". By end and committed offset; the end is as of the last fetch. For autoscaling
# ask the broker, which also knows the partitions that nobody holds.
LAG = LiveGauge(
    "prism_worker_lag_records", "Records of the own partitions that are not committed.",
    ["topic", "partition"], registry=REGISTRY,
)  # fmt: skip
# Commits are refused when a partition has moved on: routine, but many of them mean unrest in the group.
COMMITS_REFUSED = Counter("prism_worker_commits_refused", "Commits refused as stale.", registry=REGISTRY)
# To be read in the topic of the dead letters. reason: a MessageReason.
DEAD_LETTERS = Counter(
    "prism_worker_dead_letters", "Messages that could not be used, by reason.", ["reason"], registry=REGISTRY
)
for _reason in MessageReason:
    DEAD_LETTERS.labels(_reason)
for _outcome in ("ok", "partial", "failed"):
    BATCHES.labels(_outcome)
ROWS.labels("ok", "")


def forget_model(name: str) -> None:
    """End what was counted of a model's calls. What is looked up at each scrape ends by itself."""
    OPERATION_SECONDS.remove_by_labels({"gen_ai_request_model": name})
    TOKEN_USAGE.remove_by_labels({"gen_ai_request_model": name})
    MODEL_TIME.remove_by_labels({"model": name})


def count_dead_letter(reason: MessageReason) -> None:
    """Count a message that goes to the dead letters."""
    DEAD_LETTERS.labels(reason).inc()


# Photo and text requests

# outcome: answered, or the code of the error or of the skip.
REQUESTS = Counter(
    "prism_worker_requests", "Photo and text requests, by outcome.", ["outcome"], registry=REGISTRY
)
# At most 32; requests beyond wait in Kafka.
REQUESTS_IN_FLIGHT = LiveGauge(
    "prism_worker_in_flight_requests", "Requests taken and not yet acknowledged.", registry=REGISTRY
)
# What the requester waits for; the objective is at 10 s. outcome: answered; refused, by the requester's own
# fault; failed, by ours or the model's. A sender's clock that is wrong shows here.
REPLY_SECONDS = Histogram(
    "prism_worker_reply_seconds",
    "From a request's timestamp in Kafka to its reply, by outcome.",
    ["outcome"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300),
    registry=REGISTRY,
)
# What a request waits for beside the model is ours to keep short. part: model, own.
REQUEST_SECONDS = Histogram(
    "prism_worker_request_seconds",
    "Time from a request's receipt to its reply: the model's part and our own.",
    ["part"],
    buckets=(0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 1, 3, 10, 30, 120),
    registry=REGISTRY,
)
for _outcome in ("answered", "refused", "failed"):
    REPLY_SECONDS.labels(_outcome)
for _part in ("model", "own"):
    REQUEST_SECONDS.labels(_part)
REQUESTS.labels("answered")
