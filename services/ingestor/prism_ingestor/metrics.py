"""The ingestor's metrics, each declared once.

A stand-by shows what it reads too; sums over ingestors are right, for what only the active one knows is empty
or 0 at the others.
"""

from prometheus_client import Counter, Gauge, Histogram

from prism.messages import MessageReason, RunState
from prism.service.metrics import LiveGauge, ServiceRegistry

REGISTRY = ServiceRegistry("ingestor")

# The sum over ingestors is 1.
ACTIVE = Gauge("prism_ingestor_active", "1 on the ingestor that feeds, 0 on a stand-by.", registry=REGISTRY)
# Each is a time without feeding of a few seconds; many of them are unrest in the group.
TAKEOVERS = Counter(
    "prism_ingestor_takeovers", "Times that this process became the active one.", registry=REGISTRY
)

# Runs

# state: a RunState; one that is reached twice (running after a pause) counts twice.
RUNS = Counter("prism_ingestor_runs", "Runs by the state that they reached.", ["state"], registry=REGISTRY)
# What there is to do. state: a RunState.
RUNS_OPEN = LiveGauge(
    "prism_ingestor_runs_open", "Runs that have not ended, by state.", ["state"], registry=REGISTRY
)
# cause: a StallCause. `prism status` says the same in a sentence.
RUNS_STALLED = LiveGauge(
    "prism_ingestor_runs_stalled", "Runs of which nothing moves, by cause.", ["cause"], registry=REGISTRY
)
# To be read in the topic of the dead letters. reason: a MessageReason, of intake and control.
DEAD_LETTERS = Counter(
    "prism_ingestor_dead_letters", "Messages that could not be used, by reason.", ["reason"],
    registry=REGISTRY,
)  # fmt: skip

# Feeding under credit

# Against the rows merged: whether the way through the fleet holds them up.
ROWS_FED = Counter("prism_ingestor_rows_fed", "Rows fed for the first time.", registry=REGISTRY)
# A batch is one call of a model, if all goes well.
BATCHES_FED = Counter("prism_ingestor_batches_fed", "Batches fed for the first time.", registry=REGISTRY)
# More than a few of these mean that results or batches vanish: look at retention and at the broker's disks.
BATCHES_FED_AGAIN = Counter("prism_ingestor_batches_fed_again", "Lost batches fed again.", registry=REGISTRY)
# Together they say whether the fleet or the credit is what holds a run up.
WINDOW = Gauge("prism_ingestor_window_batches", "Most unmerged batches of one run.", registry=REGISTRY)
# Up to the window, for each run.
UNMERGED = Gauge(
    "prism_ingestor_unmerged_batches", "Batches fed and not merged, over all runs.", registry=REGISTRY
)
# What the objective "every row gets its outcome" is measured by. progress: moving; late, where nothing of the
# rows' run was merged for LATE_S although it is not paused, within its budget, and no quota holds it up.
UNMERGED_ROWS = Gauge(
    "prism_ingestor_unmerged_rows", "Rows fed and not merged, by the progress of their run.", ["progress"],
    registry=REGISTRY,
)  # fmt: skip
# The way of a batch as a whole: waiting in the broker, the model, merging. Batches that an earlier ingestor
# fed are left out: when that was is not known.
BATCH_SECONDS = Histogram(
    "prism_ingestor_batch_seconds",
    "From a batch's acknowledgement by the broker to the news that it is merged.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
    registry=REGISTRY,
)

# The fleet as the active ingestor sees it

# Exact, and of all partitions, whoever holds them; asked of the broker every two seconds while runs are fed,
# and 0 while none is.
WORKERS_LAG = LiveGauge(
    "prism_ingestor_workers_lag_records", "Batches that the workers have not committed, by partition.",
    ["partition"], registry=REGISTRY,
)  # fmt: skip
# state: a WorkerState. By heartbeat: a worker that Prometheus cannot scrape is still seen here.
WORKERS = LiveGauge(
    "prism_ingestor_live_workers", "Workers that have sent a heartbeat lately, by state.", ["state"],
    registry=REGISTRY,
)  # fmt: skip

# One run. The runs worked on, at most 16 of them; a run's series end a minute after the run (`showcase.py`).

# outcome: ok, failed.
RUN_ROWS = LiveGauge(
    "prism_ingestor_run_rows", "Rows of a run that are merged, by outcome.", ["run_id", "outcome"],
    registry=REGISTRY,
)  # fmt: skip
# 0 until the source was checked.
RUN_ROWS_IN = LiveGauge(
    "prism_ingestor_run_input_rows", "Rows that a run has altogether; each ends as ok or failed.", ["run_id"],
    registry=REGISTRY,
)  # fmt: skip
# Of the window: 0 for a run that is not fed.
RUN_UNMERGED = LiveGauge(
    "prism_ingestor_run_unmerged_batches", "Batches of a run that are fed and not merged.", ["run_id"],
    registry=REGISTRY,
)  # fmt: skip
# What the run costs so far. type: input, output.
RUN_TOKENS = LiveGauge(
    "prism_ingestor_run_tokens", "Tokens of a run's calls, by type.", ["run_id", "type"], registry=REGISTRY
)
# `prism status RUN` says why.
RUN_STALLED = LiveGauge(
    "prism_ingestor_run_stalled", "1 while nothing of a run moves, else 0.", ["run_id"], registry=REGISTRY
)

# Prometheus takes the first value that it sees for no step: what is counted begins at 0.
for _reason in MessageReason:
    DEAD_LETTERS.labels(_reason)
for _state in RunState:
    RUNS.labels(_state)


def count_dead_letter(reason: MessageReason) -> None:
    """Count a message that goes to the dead letters."""
    DEAD_LETTERS.labels(reason).inc()
