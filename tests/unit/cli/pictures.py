"""Pictures of a run as tests of the dashboard need them."""

from datetime import timedelta
from typing import Any

from prism.messages import RunState
from prism_cli.board import WorkerView
from prism_cli.dashboard.history import Event
from prism_cli.dashboard.picture import Picture
from tests.unit.cli.views import NOW, run_view, worker_view

RUN = "feedback_v1_m1_20261121_101112_3-42"
ROWS = {"january": 1000, "february": 1200, "march": 2800}
LABELS = {"Topic": {"Product": 1210, "Support": 820}, "Sentiment": {"Negative": 1888, "Positive": 803}}


def picture(state: RunState = RunState.RUNNING, **fields: Any) -> Picture:
    """Return a picture of a run with three files and two workers.

    `fields` of the picture by their names, of record and progress as `run_view` takes them.
    """
    own = {
        name: fields.pop(name)
        for name in [*fields]
        if name in Picture.__dataclass_fields__ and name != "view"
    }
    source = {"kind": "message", "partition": 0, "offsets": [1]}
    told = {
        "record_run_id": RUN,
        "record_files": [
            {"label": name, "filename": f"{name}.csv", "source": source, "rows": rows}
            for name, rows in ROWS.items()
        ],
        "record_created_at": (NOW - timedelta(seconds=80)).isoformat(),
        "record_updated_at": NOW.isoformat(),
        "files": {
            "january": {"merged_through": 100, "rows_ok": 1000},
            "february": {"merged_through": 120, "rows_ok": 1190, "rows_failed": 10},
            "march": {"merged_through": 80, "merged_above": [(90, 99)], "rows_ok": 898, "rows_failed": 2},
        },
        "rows_ok": 3088,
        "rows_failed": 12,
        "failed_by_reason": {"not_json": 9, "model_timeout": 3},
        "calls": 322,
        "repeated_calls": 12,
        "extra_calls": 2,
        "prompt_tokens": 500_000,
        "completion_tokens": 120_000,
        "rows_per_s": 41.3,
        "mean_rows_per_s": 38.8,
        "eta_s": 46.0,
        "labels": LABELS,
    }
    view = run_view(state, **{**told, **fields})
    return Picture(**{"run_id": RUN, "view": view, "now": NOW, "workers": crew(), "events": past(), **own})


def crew(silent: int = 0, working: int = 2) -> tuple[WorkerView, ...]:
    """Return workers, the last ones silent."""
    return tuple(
        worker_view(
            silent_s=42.0 if at >= working else 0.5,
            worker_id=f"worker-{at + 1}",
            rows_per_sec=20.3,
            in_flight=[f"{RUN}/march/{at}"],
            model_server="http://127.0.0.1:11434",
            runs={RUN: {"rows": 1500 + at, "failed": 6, "calls": 160, "tokens": 300_000}},
        )
        for at in range(silent + working)
    )


def past(number: int = 3) -> tuple[Event, ...]:
    """Return what happened."""
    return tuple(Event(NOW - timedelta(seconds=at), f"event {number - at}") for at in range(number))
