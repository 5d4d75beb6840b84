"""The dashboard of the model servers."""

from tools.panels import (
    BAD_FROM_ONE,
    GREEN,
    RATE,
    RED,
    WARN_FROM_ONE,
    YELLOW,
    Dashboard,
    Panel,
    Query,
    Section,
    calm,
    of_workers,
    quantiles,
    stat,
)

CALLS = "gen_ai_client_operation_duration_seconds"

MODEL_SERVERS = Dashboard(
    "model-servers",
    "model servers",
    "Are the models there, how fast are they, and what holds them up.",
    (
        Section(
            "Now",
            (
                stat(
                    "Models that no worker can call",
                    of_workers("count(max by (model) (prism_worker_model_up) == 0)"),
                    "For whatever reason. See runbooks/model-away, runbooks/quota-exhausted.",
                    steps=BAD_FROM_ONE,
                    width=6,
                    empty="no workers",
                ),
                stat(
                    "Quotas used up",
                    of_workers("sum(max by (model) (prism_worker_quota_exhausted))"),
                    "Runs of these models wait for their provider. See runbooks/quota-exhausted.",
                    steps=WARN_FROM_ONE,
                    width=6,
                    empty="no workers",
                ),
                stat(
                    "Runs that wait for a model",
                    "max(prism_worker_waiting_runs)",
                    "Of some worker: runs in hand of which something gets no answer anywhere.",
                    steps=WARN_FROM_ONE,
                    width=6,
                    empty="no workers",
                ),
                stat(
                    "Calls answered (5 min)",
                    "min(prism:call_success:ratio_rate5m)",
                    "Of the model with the fewest. The document's Success Rate, of calls.",
                    unit="percentunit",
                    steps=((None, RED), (0.8, YELLOW), (0.95, GREEN)),
                    width=6,
                    empty="no calls",
                ),
            ),
        ),
        Section(
            "Availability",
            (
                Panel(
                    "Workers that can call the model",
                    "1: all of them. A used-up quota and a missing model count here, not in the objective.",
                    (Query("avg by (model) (prism_worker_model_up)", "{{model}}"),),
                    unit="percentunit",
                    most=1,
                ),
                Panel(
                    "Held back, by reason",
                    "Connections of workers to servers that take no calls: unreachable, model_missing, "
                    "access_refused, quota, busy, …. See runbooks/breaker-open.",
                    (
                        Query(
                            calm("sum by (model, reason) (prism_worker_breakers_open)", "reason"),
                            "{{model}} {{reason}}",
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Servers",
                    "That a worker is configured to use.",
                    (Query("max by (model) (prism_worker_model_servers)", "{{model}}"),),
                ),
            ),
        ),
        Section(
            "Calls",
            (
                Panel(
                    "Calls a second, by error",
                    "The first, without a name, is what was answered.",
                    (
                        Query(
                            f"sum by (gen_ai_request_model, error_type) (rate({CALLS}_count{RATE}))",
                            "{{gen_ai_request_model}} {{error_type}}",
                        ),
                    ),
                    unit="cps",
                    stacked=True,
                ),
                Panel(
                    "Time of a call",
                    "From request to reply, of calls that were answered.",
                    quantiles(CALLS, '{error_type=""}', "gen_ai_request_model"),
                    unit="s",
                ),
                Panel(
                    "What the time goes to",
                    "Seconds of calls in a second. queue: the server is full, a higher limit brings nothing. "
                    "load: the model is loaded again and again (keep-alive, too many models for the memory). "
                    "untold: the server gives no timings.",
                    (
                        Query(
                            f"sum by (part) (rate(prism_worker_model_time_seconds_total{RATE}))", "{{part}}"
                        ),
                    ),
                    unit="s",
                    stacked=True,
                ),
                Panel(
                    "Calls under way, and the limit",
                    "The limit is found by trial. Far below it: no work, or a cap.",
                    (
                        Query("sum(prism_worker_calls_in_flight)", "under way"),
                        Query("sum(prism_worker_concurrency_limit)", "limit"),
                    ),
                ),
                Panel(
                    "How much of the limit is used",
                    "1: more servers would make it faster.",
                    (Query("prism:limit_used:ratio", "used"),),
                    unit="percentunit",
                    most=1,
                ),
                Panel(
                    "Batches in hand",
                    "By worker.",
                    (Query("sum by (instance) (prism_worker_in_flight_batches)", "{{instance}}"),),
                    stacked=True,
                ),
            ),
        ),
        Section(
            "Answers",
            (
                Panel(
                    "Tokens a second",
                    "By type.",
                    (Query("prism:tokens:rate5m", "{{gen_ai_request_model}} {{gen_ai_token_type}}"),),
                    stacked=True,
                ),
                Panel(
                    "Tokens of a call",
                    "Half of the calls have fewer.",
                    (
                        Query(
                            "histogram_quantile(0.5, sum by (gen_ai_token_type, le) "
                            f"(rate(gen_ai_client_token_usage_bucket{RATE})))",
                            "{{gen_ai_token_type}}",
                        ),
                    ),
                ),
                Panel(
                    "Asked again a second, by reason",
                    "What the model does wrong: each is a call more.",
                    (
                        Query(
                            calm(f"sum by (reason) (rate(prism_worker_retries_total{RATE}))", "reason"),
                            "{{reason}}",
                        ),
                    ),
                    unit="cps",
                    stacked=True,
                ),
                Panel(
                    "Rows by worker",
                    "Rows a second with an outcome.",
                    (
                        Query(
                            f"sum by (instance, outcome) (rate(prism_worker_rows_total{RATE}))",
                            "{{instance}} {{outcome}}",
                        ),
                    ),
                    unit="rowsps",
                    stacked=True,
                ),
                Panel(
                    "Batches by outcome",
                    "partial: some of their rows failed.",
                    (Query(f"sum by (outcome) (rate(prism_worker_batches_total{RATE}))", "{{outcome}}"),),
                    stacked=True,
                ),
                Panel(
                    "Canaries in 15 minutes",
                    "Tiny calls to find out whether a server works again.",
                    (Query("sum(increase(prism_worker_canaries_total[15m]))", "canaries"),),
                ),
            ),
        ),
    ),
)
