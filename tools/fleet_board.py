"""The dashboard of the fleet: is something wrong, does anybody suffer, and where to look."""

from tools.panels import (
    ALERTS_FIRING,
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
    quantiles,
    stat,
)

CPU = 'process_cpu_seconds_total{job=~"prism-.*"}'
DEAD_LETTERS = '{__name__=~"prism_(ingestor|worker|merger)_dead_letters_total"}'

FLEET = Dashboard(
    "fleet",
    "fleet overview",
    "Is something wrong, does anybody suffer, and where to look.",
    (
        Section(
            "Now",
            (
                stat(
                    "Alerts firing",
                    f"count({ALERTS_FIRING}) or vector(0)",
                    "The table below names them; each has a page in docs/runbooks.",
                    steps=BAD_FROM_ONE,
                ),
                stat(
                    "Active ingestors",
                    "sum(prism_ingestor_active) or vector(0)",
                    "One, always. None: nothing is accepted or fed. See runbooks/no-active-ingestor.",
                    steps=((None, RED), (1, GREEN), (2, RED)),
                ),
                stat(
                    "Services not ready",
                    "sum(prism_service_ready == bool 0)",
                    "Processes that live and cannot do their work. Their /ready says why.",
                    steps=WARN_FROM_ONE,
                    empty="no services",
                ),
                stat(
                    "Live workers",
                    "sum(prism_ingestor_live_workers)",
                    "Workers that sent a heartbeat lately, as the active ingestor sees them.",
                    steps=((None, RED), (1, GREEN)),
                    empty="no ingestor",
                ),
                stat(
                    "Runs under way",
                    "sum(prism_ingestor_runs_open)",
                    "Runs that have not ended, paused ones included.",
                    empty="no ingestor",
                ),
                stat(
                    "Runs that stand still",
                    "sum(prism_ingestor_runs_stalled)",
                    "Runs of which nothing moves. `prism status` says why, in a sentence.",
                    steps=WARN_FROM_ONE,
                    empty="no ingestor",
                ),
                Panel(
                    "Firing alerts",
                    "What fires now.",
                    (Query(calm(f"sum by (alertname, severity) ({ALERTS_FIRING})", "alertname")),),
                    kind="table",
                    instant=True,
                    width=24,
                    height=5,
                ),
            ),
        ),
        Section(
            "Does anybody suffer: the three objectives",
            (
                Panel(
                    "Rows that do not move (5 min)",
                    "Of the rows under way, those whose run has not moved for five minutes. Budget: 1 %.",
                    (Query("prism:rows_late:ratio_avg5m", "late"),),
                    unit="percentunit",
                    steps=((None, GREEN), (0.01, YELLOW), (0.144, RED)),
                    most=1,
                ),
                Panel(
                    "Requests answered late or not at all (5 min)",
                    "Of those that were not refused, without an answer within 10 s. Budget: 5 %.",
                    (Query("prism:replies_bad:ratio_rate5m", "bad"),),
                    unit="percentunit",
                    steps=((None, GREEN), (0.05, YELLOW), (0.72, RED)),
                    most=1,
                    empty="no requests",
                ),
                Panel(
                    "Models that cannot be called (5 min)",
                    "Of the workers, those that cannot call the model. Budget: 1 %.",
                    (Query("prism:model_unavailable:ratio_avg5m", "{{model}}"),),
                    unit="percentunit",
                    steps=((None, GREEN), (0.01, YELLOW), (0.144, RED)),
                    most=1,
                ),
            ),
        ),
        Section(
            "Flow",
            (
                Panel(
                    "Rows a second",
                    "Rows merged, by outcome.",
                    (Query("prism:rows:rate5m", "{{outcome}}"),),
                    unit="rowsps",
                    stacked=True,
                ),
                Panel(
                    "Rows under way",
                    "Fed and not merged. late: nothing of their run was merged for five minutes.",
                    (Query("sum by (progress) (prism_ingestor_unmerged_rows)", "{{progress}}"),),
                    stacked=True,
                ),
                Panel(
                    "Credit",
                    "Batches under way over all runs, and how many a run may have. At the window the fleet, "
                    "not the feeding, is what holds a run up.",
                    (
                        Query("sum(prism_ingestor_unmerged_batches)", "under way"),
                        Query("max(prism_ingestor_window_batches)", "window of one run"),
                    ),
                ),
                Panel(
                    "Records that wait or are worked on",
                    "Consumer lag as the workers see it, and results that the merger has not read. "
                    "Growing while calls are under way: add workers. Growing while none is: runbooks/"
                    "lag-while-workers-idle, runbooks/merger-stuck.",
                    (
                        Query("prism:queue_depth:records", "{{topic}}"),
                        Query("sum(prism_merger_lag_records)", "results"),
                    ),
                ),
                Panel(
                    "Lag by partition, batches",
                    "As the broker says, while runs are fed. One partition alone: its worker is stuck.",
                    (
                        Query(
                            calm("sum by (partition) (prism_ingestor_workers_lag_records)", "partition"),
                            "{{partition}}",
                        ),
                    ),
                ),
                Panel(
                    "How long a batch takes",
                    "From the broker to merged: waiting, model, merging.",
                    quantiles("prism_ingestor_batch_seconds"),
                    unit="s",
                ),
                Panel(
                    "Reorder buffer",
                    "Merged, and waiting for an earlier one. Many for long: one batch does not come.",
                    (Query("sum(prism_merger_reorder_buffer_batches)", "batches"),),
                ),
                Panel(
                    "Rows that cost nothing",
                    "Answered as others that say the same, without a call.",
                    (Query(f"sum(rate(prism_worker_reused_rows_total{RATE}))", "reused"),),
                    unit="rowsps",
                ),
                Panel(
                    "Runs by the state that they reach",
                    "In an hour.",
                    (Query("sum by (state) (increase(prism_ingestor_runs_total[1h]))", "{{state}}"),),
                    stacked=True,
                ),
            ),
        ),
        Section(
            "What goes wrong",
            (
                Panel(
                    "Failed rows a second, by reason",
                    "What the reasons mean: docs/analysts.md.",
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
                    "Dead letters in 15 minutes, by reason",
                    "Read them: kcat -C -t prism.dead-letter.",
                    (Query(f"sum by (reason) (increase({DEAD_LETTERS}[15m]))", "{{reason}}"),),
                    stacked=True,
                ),
                Panel(
                    "Paid twice, and fed again",
                    "Calls whose answer was there already (after deaths), and batches that vanished.",
                    (
                        Query("sum(increase(prism_merger_extra_calls_total[15m]))", "extra calls"),
                        Query("sum(increase(prism_ingestor_batches_fed_again_total[15m]))", "fed again"),
                    ),
                ),
                Panel(
                    "Unrest",
                    "Commits refused by the broker, takeovers of the ingestor, in 15 minutes.",
                    (
                        Query("sum(increase(prism_worker_commits_refused_total[15m]))", "commits refused"),
                        Query("sum(increase(prism_ingestor_takeovers_total[15m]))", "takeovers"),
                    ),
                ),
                Panel(
                    "Runs that stand still, by cause",
                    "What to look at: runbooks/run-stalled.",
                    (Query("sum by (cause) (prism_ingestor_runs_stalled)", "{{cause}}"),),
                    stacked=True,
                ),
                Panel(
                    "Ready",
                    "1: ready. A gap: not scraped.",
                    (
                        Query(
                            "min by (component, instance) (prism_service_ready)", "{{component}} {{instance}}"
                        ),
                    ),
                    most=1,
                ),
            ),
        ),
        Section(
            "Machines",
            (
                Panel(
                    "Memory",
                    "Of the processes, without their model servers.",
                    (
                        Query(
                            'sum by (job, instance) (process_resident_memory_bytes{job=~"prism-.*"})',
                            "{{job}} {{instance}}",
                        ),
                    ),
                    unit="bytes",
                ),
                Panel(
                    "CPU",
                    "Cores in use.",
                    (
                        Query(
                            f"sum by (job, instance) (rate({CPU}{RATE}))",
                            "{{job}} {{instance}}",
                        ),
                    ),
                ),
                Panel(
                    "Disk free",
                    "Of the volumes. Below a tenth an alert fires.",
                    (
                        Query(
                            "prism_service_disk_free_bytes / prism_service_disk_size_bytes",
                            "{{component}} {{instance}}",
                        ),
                    ),
                    unit="percentunit",
                    steps=((None, RED), (0.1, GREEN)),
                    most=1,
                ),
                Panel(
                    "One transaction of the merger",
                    "Mostly one fsync: a slow disk shows here first.",
                    quantiles("prism_merger_store_commit_seconds"),
                    unit="s",
                ),
                Panel(
                    "Writing part files",
                    "While runs go on.",
                    quantiles("prism_merger_checkpoint_seconds"),
                    unit="s",
                ),
                Panel(
                    "Publishing",
                    "From a run's last result to its announcement.",
                    quantiles("prism_merger_publish_seconds"),
                    unit="s",
                ),
                Panel(
                    "Versions",
                    "Two at once: a roll is under way.",
                    (Query("count by (component, version) (prism_build_info)", "{{component}} {{version}}"),),
                    stacked=True,
                ),
            ),
        ),
    ),
)
