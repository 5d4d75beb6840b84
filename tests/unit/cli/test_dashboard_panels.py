"""The dashboard's panels: never wider than their place, whatever the names, and they say what there is."""

from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from prism.messages import RunState
from prism_cli.dashboard import crew, frame, overview, tallies
from prism_cli.dashboard.amounts import rounded_share
from prism_cli.dashboard.cells import block, fit, fit_id, folded, left, right, sparkline, track
from prism_cli.dashboard.history import Event
from prism_cli.dashboard.picture import Picture
from tests.unit.cli import pictures
from tests.unit.cli.views import NOW, worker_view

Panel = Callable[[Picture, int], list[Text]]


def large_farewell(picture: Picture, width: int) -> list[Text]:
    return frame.farewell(picture, width, 1000)


def small_farewell(picture: Picture, width: int) -> list[Text]:
    return frame.farewell(picture, width, 1)


# Each panel, and the narrowest place that it has on a terminal of 80 columns.
PANELS: dict[Panel, int] = {
    overview.header: 70,
    overview.progress: 70,
    overview.figures: 70,
    overview.speed_line: 40,
    crew.workers: 72,
    crew.servers: 40,
    tallies.labels: 34,
    tallies.failures: 34,
    tallies.failures_line: 70,
    tallies.worker_errors: 60,
    tallies.events: 34,
    frame.keys: 70,
    frame.failure_lines: 60,
    large_farewell: 70,
    small_farewell: 70,
}
# Control characters, markup, wide, right-to-left and combining characters, selectors, joined emoji.
HOSTILE = [
    "a\x1b[2Jb",
    "[red]x[/red]",
    "名" * 40,
    "שלום עולם",
    "e\u0301" * 50,
    "❤\ufe0f👩\u200d👧",
    "x" * 500,
    "",
    "\u202eevil",
]
hostile = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=60))


def shown(lines: list[Text]) -> str:
    return "\n".join(one.plain for one in lines)


@settings(deadline=None, max_examples=60)
@given(text=hostile, width=st.integers(1, 220), number=st.integers(0, 10**12))
@example(text="名" * 40, width=72, number=0)
def test_nobodys_text_breaks_a_line(text: str, width: int, number: int) -> None:
    name = text or "x"
    beat: dict[str, Any] = {
        "worker_id": name,
        "model": name,
        "model_server": name,
        "last_error": name,
        "reason": name,
    }
    picture = pictures.picture(
        rows_ok=number,
        calls=number,
        prompt_tokens=number,
        rows_per_s=float(number),
        eta_s=float(number),
        labels={name: {name: number, "b": 1}},
        failed_by_reason={name: number + 1},
        record_stalled=name,
        workers=(worker_view(**beat, state="waiting"), worker_view(99.0, **{**beat, "worker_id": "w"})),
        events=(Event(NOW, name),),
        notice=name,
        rates=(1.0, float(number)),
    )
    for panel, least in PANELS.items():
        for line in panel(picture, width):
            assert line.cell_len <= max(width, least), (panel.__name__, line.plain)
            assert line.plain.isprintable(), (panel.__name__, line.plain)


@given(text=hostile, width=st.integers(1, 60))
def test_text_is_cut_and_padded_to_cells(text: str, width: int) -> None:
    assert cell_len(fit(text, width)) <= width
    assert cell_len(fit_id(text, width)) <= width
    assert cell_len(left(text, width)) == width
    assert cell_len(right(text, width)) == width
    lines = folded(text, width)
    assert all(cell_len(one) <= max(2, width) for one in lines)
    assert len(folded(text, width, most=2)) <= 2


def test_a_line_is_broken_where_a_person_would() -> None:
    assert folded("one two three", 8) == ["one two", "three"]
    assert folded("prism-data/logs/run/failed_ranges.json", 25) == [
        "prism-data/logs/run/",
        "failed_ranges.json",
    ]
    assert folded("unbreakable", 4) == ["unbr", "eaka", "ble"]
    assert folded("one two three four", 8, most=2) == ["one two", "three f…"]
    assert fit_id("feedback_20261121_3-42", 11) == "feedb…_3-42"


@given(share=st.floats(0, 1), width=st.integers(1, 100))
def test_bars_say_no_more_than_is_done(share: float, width: int) -> None:
    drawn = track(share, width, "cyan")
    assert drawn.cell_len == width
    assert (drawn.plain == "━" * width) == (share == 1.0)
    assert cell_len(block(share, width)) <= width
    assert bool(block(share, width)) == (share > 0)


def test_a_sparkline_is_of_the_last_values() -> None:
    assert sparkline([9.0, 0.0, 1.0, 2.0], 3) == "▁▅█"
    assert sparkline([], 10) == sparkline([0.0], 10) == ""


@pytest.mark.parametrize("width", [78, 118])
def test_the_figures_are_all_there_whole(width: int) -> None:
    text = shown(overview.figures(pictures.picture(reused_rows=120), width))
    for said in ("41.3", "38.8", "46 s", "8,260", "200", "620,000", "322", "12 (0.4 %)", "no price", "120"):
        assert said in text
    for name in ("rows/s, mean", "time left", "tokens/row", "extra calls", "rows from cache", "failed rows"):
        assert name in text


def test_the_cost_is_what_the_tokens_cost_and_what_of_the_budget() -> None:
    entry = {"name": "llama3.2", "price": {"prompt": "1", "completion": "5", "currency": "EUR"}}
    priced = pictures.picture(record_model_entry=entry, record_job={"budget": {"money": 20}})
    assert "1.10 of 20.00 EUR" in shown(overview.figures(priced, 118))
    counted = pictures.picture(record_job={"budget": {"tokens": 1_240_000}})
    assert "50 % of budget" in shown(overview.figures(counted, 118))


def test_each_file_has_its_bar() -> None:
    whole, *files = overview.progress(pictures.picture(), 78)
    assert whole.plain.endswith(" 62 %  3,100/5,000")
    assert [one.plain.split()[0] for one in files] == ["january", "february", "march"]
    assert files[1].plain.endswith("100 %  1,200/1,200 10 failed")
    assert "100 %" not in files[2].plain


def test_nearly_all_is_not_all() -> None:
    assert "99 %  4,999/5,000" in shown(overview.progress(pictures.picture(rows_ok=4987), 78))


def test_the_head_says_what_is_wrong() -> None:
    head = shown(overview.header(pictures.picture(record_stalled="no worker: start one"), 80))
    assert "● running · stalled" in head
    assert "stalled: no worker: start one" in head
    away = shown(overview.header(pictures.picture(away_s=70.0, unsure=True), 80))
    assert "The broker has not answered for 1 min 10 s" in away
    assert "merger is silent for 9 s" in shown(overview.header(pictures.picture(merger_silent_s=9.0), 80))
    failed = pictures.picture(
        RunState.FAILED, record_reason="source_changed", record_detail="march.csv has changed"
    )
    assert "source_changed: march.csv has changed" in shown(overview.header(failed, 80))


def test_a_paused_run_says_what_is_still_under_way() -> None:
    paused = pictures.picture(RunState.PAUSED)
    assert "‖ paused · 2 batches under way" in shown(overview.header(paused, 80))
    assert "resume" in shown(frame.keys(paused, 80))
    assert "pause " not in shown(frame.keys(paused, 80))


def test_a_run_that_is_not_taken_up_yet_has_a_picture() -> None:
    empty = Picture("t1", None, NOW)
    for panel in PANELS:
        assert all(one.cell_len <= 80 for one in panel(empty, 80))
    assert "sent, not yet taken up" in shown(overview.header(empty, 80))
    assert "no model worker is running" in shown(crew.workers(empty, 80))


def test_a_silent_worker_comes_first_and_is_red_and_no_other() -> None:
    head, *rows = crew.workers(pictures.picture(workers=pictures.crew(silent=1, working=11)), 78)
    assert head.plain.split() == [
        "worker",
        "state",
        "rows",
        "rows/s",
        "in",
        "flight",
        "limit",
        "errors",
        "seen",
    ]
    assert [one.plain.split()[0] for one in rows[:3]] == ["worker-12", "worker-1", "worker-2"]
    assert rows[-1].plain.startswith("worker-11")
    assert ["silent" in one.plain for one in rows] == [True] + [False] * 11
    assert any("red" in str(span.style) for span in rows[0].spans)
    assert rows[0].plain.endswith("42 s")
    assert crew.workers_title(pictures.picture(workers=pictures.crew(1, 2))) == "3 workers, 1 silent"


def test_a_workers_row_is_of_this_run() -> None:
    _, row, _ = crew.workers(pictures.picture(), 78)
    assert row.plain.split() == ["worker-1", "●", "running", "1,500", "20.3", "1", "16", "6", "now"]


def test_nobody_is_called_silent_while_the_broker_may_be() -> None:
    text = shown(crew.workers(pictures.picture(workers=pictures.crew(2, 0), unsure=True), 78))
    assert "silent" not in text
    assert text.count("unknown") == 2


def test_a_model_server_without_an_answer_says_why() -> None:
    beat: dict[str, Any] = {"model": "llama3.2", "model_server": "http://gpu:11434"}
    waits = worker_view(**beat, state="waiting", reason="connection refused")
    text = shown(crew.servers(pictures.picture(workers=(waits,)), 78))
    assert "✗ llama3.2 at http://gpu:11434" in text
    assert "connection refused" in text
    assert "no answer" in shown(overview.header(pictures.picture(workers=(waits,)), 80))


def test_labels_stand_by_number_with_their_share() -> None:
    lines = [one.plain for one in tallies.labels(pictures.picture(), 60)]
    assert lines[0].split() == ["Topic", "2", "labels"]
    assert lines[1].startswith("Product")
    assert lines[1].endswith("1,210  60 %")
    assert lines[1].count("▇") > lines[2].count("▇") > 0


@pytest.mark.parametrize(
    ("part", "said"), [(0, "0 %"), (1, "<1 %"), (500, "50 %"), (999, ">99 %"), (1000, "100 %")]
)
def test_a_share_is_none_or_all_only_if_it_is(part: int, said: str) -> None:
    assert rounded_share(part, 1000) == said


def test_very_many_labels_are_counted_not_drawn() -> None:
    many = {f"label {at}": 1 for at in range(1000)}
    lines = tallies.labels(pictures.picture(labels={"Organic": many}), 60)
    assert len(lines) < 110
    assert lines[-1].plain == "and 900 more labels in 900 rows"


def test_what_happened_has_its_time_of_day() -> None:
    first, *_ = tallies.events(pictures.picture(), 60, zone=UTC)
    assert first.plain == "10:11:12 event 3"


def test_the_failures_say_where_they_will_be() -> None:
    text = shown(frame.failure_lines(pictures.picture(folder=Path("/data")), 100))
    assert f"/data/logs/{pictures.RUN}/failed_ranges.json" in text
    unwritten = pictures.picture(record_job={"error_handling": {"save_failed_ranges": False}})
    assert "failed_ranges.json" not in shown(frame.failure_lines(unwritten, 100))


def test_the_last_look_has_the_labels_and_the_failures() -> None:
    done = pictures.picture(RunState.COMPLETED_WITH_FAILURES)
    for height in (20, 50):
        text = shown(frame.farewell(done, 80, height))
        for said in ("✓ completed with failures", "took", "not_json", "Negative", "1 min 20 s", "70 %"):
            assert said in text
        assert "time left" not in text
        assert text.count("▇") > 100 or height == 20
        assert len(text.splitlines()) <= height - 4
    assert "Sentiment  Negative 70 % · Positive 30 %" in shown(frame.farewell(done, 80, 20))
