"""The dashboard of the photo and text requests."""

from tools.panels import (
    GREEN,
    RATE,
    RED,
    Dashboard,
    Panel,
    Query,
    Section,
    of_workers,
    quantiles,
    stat,
)

DEAD_LETTERS = 'prism_worker_dead_letters_total{reason=~"request_.*"}'

REQUESTS = Dashboard(
    "requests",
    "requests",
    "Photos and texts: how many, how fast, and what is refused.",
    (
        Section(
            "Now",
            (
                stat(
                    "Within 10 s (5 min)",
                    "1 - prism:replies_bad:ratio_rate5m",
                    "Of the requests that were not refused. Objective: 95 %.",
                    unit="percentunit",
                    steps=((None, RED), (0.95, GREEN)),
                    width=6,
                    empty="no requests",
                ),
                stat(
                    "95 of 100 answered within",
                    "prism:reply_seconds:p95_rate5m",
                    "From Kafka to the reply.",
                    unit="s",
                    steps=((None, GREEN), (10, RED)),
                    width=6,
                    empty="no requests",
                ),
                stat(
                    "In hand",
                    of_workers("sum(prism_worker_in_flight_requests)"),
                    "At most 32 for each worker.",
                    width=6,
                    empty="no workers",
                ),
                stat(
                    "Waiting in Kafka, or in hand",
                    of_workers('sum(prism_worker_lag_records{topic!~".*batches"})'),
                    "Requests that are not committed, as the workers saw them when they last fetched: while "
                    "the model is away there may be more, and without workers nobody knows.",
                    width=6,
                    empty="no workers",
                ),
            ),
        ),
        Section(
            "Course",
            (
                Panel(
                    "Requests a second, by outcome",
                    "answered, or the code of the error: docs/product.md.",
                    (Query(f"sum by (outcome) (rate(prism_worker_requests_total{RATE}))", "{{outcome}}"),),
                    unit="reqps",
                    stacked=True,
                    width=12,
                ),
                Panel(
                    "Time to the reply",
                    "From the request's timestamp in Kafka, of those that were answered.",
                    quantiles("prism_worker_reply_seconds", '{outcome="answered"}'),
                    unit="s",
                    width=12,
                    steps=((None, GREEN), (10, RED)),
                ),
                Panel(
                    "The model's part",
                    "Seconds in calls, retries included.",
                    quantiles("prism_worker_request_seconds", '{part="model"}'),
                    unit="s",
                ),
                Panel(
                    "Our own part",
                    "Waiting for a permit, decoding photos, checking answers.",
                    quantiles("prism_worker_request_seconds", '{part="own"}'),
                    unit="s",
                ),
                Panel(
                    "By whose fault",
                    "refused: the requester's. failed: ours or the model's.",
                    (
                        Query(
                            f"sum by (outcome) (rate(prism_worker_reply_seconds_count{RATE}))", "{{outcome}}"
                        ),
                    ),
                    unit="reqps",
                    stacked=True,
                ),
                Panel(
                    "Waiting, by partition",
                    "One partition alone: its worker is stuck.",
                    (
                        Query(
                            'sum by (partition) (prism_worker_lag_records{topic!~".*batches"})',
                            "{{partition}}",
                        ),
                    ),
                ),
                Panel(
                    "In hand, by worker",
                    "At most 32.",
                    (Query("sum by (instance) (prism_worker_in_flight_requests)", "{{instance}}"),),
                    stacked=True,
                ),
                Panel(
                    "Dead letters of requests in 15 minutes",
                    "Skipped, refused, failed.",
                    (
                        Query(
                            f"sum by (reason) (increase({DEAD_LETTERS}[15m]))",
                            "{{reason}}",
                        ),
                    ),
                    stacked=True,
                ),
            ),
        ),
    ),
)
