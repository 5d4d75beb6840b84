"""The dashboard of one run."""

from tools.panels import (
    BAD_FROM_ONE,
    RATE,
    WARN_FROM_ONE,
    Dashboard,
    Panel,
    Query,
    Section,
    Variable,
    calm,
    last,
)

_RUN = '{run_id="$run"}'
_MERGED = f"sum(prism_ingestor_run_rows{_RUN})"
_LEFT = f"(sum(prism_ingestor_run_input_rows{_RUN}) - {_MERGED})"
_PACE = f"sum(deriv(prism_ingestor_run_rows{_RUN}[2m]))"

RUN = Dashboard(
    "run",
    "one run",
    "One run while it is worked on, and for a minute after.",
    (
        Section(
            "The run",
            (
                Panel(
                    "What is shown here",
                    "At most 16 runs at once have series of their own, the first ones, from their "
                    "acceptance to a minute after their end; others get theirs as places come free. A run "
                    "that is over between two scrapes never shows. The counts are those of the "
                    "last scrape: for the account use `prism status RUN`, and after its end the manifest.",
                    (),
                    kind="text",
                    width=24,
                    height=3,
                ),
                last("Rows in", f"sum(prism_ingestor_run_input_rows{_RUN})", "Each ends as ok or failed."),
                last("Rows ok", 'sum(prism_ingestor_run_rows{run_id="$run",outcome="ok"})', "Merged."),
                last(
                    "Rows failed",
                    'sum(prism_ingestor_run_rows{run_id="$run",outcome="failed"})',
                    "With a reason each; the fleet's reasons stand below.",
                    steps=WARN_FROM_ONE,
                ),
                last(
                    "Done",
                    f"{_MERGED} / sum(prism_ingestor_run_input_rows{_RUN} > 0)",
                    "Share of the rows.",
                    unit="percentunit",
                    empty="not checked yet",
                ),
                last(
                    "Left at this pace",
                    f"{_LEFT} / clamp_min({_PACE}, 0.001)",
                    "By the rows merged in the last two minutes.",
                    unit="s",
                ),
                last(
                    "Stands still",
                    f"max(prism_ingestor_run_stalled{_RUN})",
                    "1: nothing of it moves. `prism status` says why.",
                    steps=BAD_FROM_ONE,
                ),
            ),
        ),
        Section(
            "Its course",
            (
                Panel(
                    "Rows",
                    "Merged, by outcome, and how many there are.",
                    (
                        Query(f"sum by (outcome) (prism_ingestor_run_rows{_RUN})", "{{outcome}}"),
                        Query(f"sum(prism_ingestor_run_input_rows{_RUN})", "in"),
                    ),
                ),
                Panel(
                    "Rows a second",
                    "Merged.",
                    (Query(f"clamp_min({_PACE}, 0)", "rows"),),
                    unit="rowsps",
                ),
                Panel(
                    "Batches under way",
                    "Its share of the credit. 0 while it is paused, or all is merged.",
                    (
                        Query(f"sum(prism_ingestor_run_unmerged_batches{_RUN})", "under way"),
                        Query("max(prism_ingestor_window_batches)", "window"),
                    ),
                ),
                Panel(
                    "Tokens",
                    "Of its calls so far.",
                    (Query(f"sum by (type) (prism_ingestor_run_tokens{_RUN})", "{{type}}"),),
                    stacked=True,
                ),
                Panel(
                    "Stands still",
                    "1: nothing of it moves.",
                    (Query(f"max(prism_ingestor_run_stalled{_RUN})", "stalled"),),
                    most=1,
                ),
            ),
        ),
        Section(
            "The fleet meanwhile: all runs together",
            (
                Panel(
                    "Failed rows a second, by reason",
                    "Of all runs.",
                    (
                        Query(
                            calm(
                                f'sum by (reason) (rate(prism_merger_rows_total{{outcome="failed"}}{RATE}))',
                                "reason",
                            ),
                            "{{reason}}",
                        ),
                    ),
                    unit="rowsps",
                    stacked=True,
                ),
                Panel(
                    "How much of the limit is used",
                    "1: the model servers are what it waits for.",
                    (Query("prism:limit_used:ratio", "used"),),
                    unit="percentunit",
                    most=1,
                ),
                Panel(
                    "Runs under way",
                    "Which share the fleet.",
                    (Query("sum by (state) (prism_ingestor_runs_open)", "{{state}}"),),
                    stacked=True,
                ),
            ),
        ),
    ),
    (Variable("run", "Run", "label_values(prism_ingestor_run_input_rows, run_id)"),),
)
