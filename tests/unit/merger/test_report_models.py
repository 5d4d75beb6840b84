"""What a run of several models leaves: each model's own figures, how far they agree, where they differ."""

import csv
import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism.messages import RunState
from prism.tables import neutralise
from prism_merger.accounts import ReportsState
from prism_merger.joining import Shape
from prism_merger.manifest import reports_of
from prism_merger.reporting import COMMAND
from prism_merger.reports import outline
from prism_merger.reports.__main__ import write_reports
from prism_merger.reports.blocks import joined_blocks
from prism_merger.reports.facts import Facts
from prism_merger.reports.figures import figures
from prism_merger.reports.page import page
from prism_merger.reports.summary import summary
from prism_merger.reports.tally import count_rows
from prism_merger.store import RowReader
from tests.unit.merger.report_world import HOSTILE, Compared, Row, compared, facts, finished, retried
from tests.unit.merger.world import World

ANSWER = st.none() | st.tuples(
    st.sampled_from(["Billing", "=Sum", "Own"]), st.sampled_from(["good", "bad"]), st.sampled_from(HOSTILE)
)
# Two alike, two that differ in one column each, one of which each model alone has failed.
ROWS: list[Compared] = [
    ("m", (("Billing", "good", "x"), ("Billing", "good", "y"))),
    ("m", (("=Sum", "bad", "x"), ("=Sum", "bad", "x"))),
    ("=cmd()", (("Billing", "good", "x"), ("=Sum", "good", "x"))),
    ("m", (("Other", "bad", "x"), ("Other", "good", "x"))),
    ("m", (None, ("Other", "good", "x"))),
    ("m", (("Billing", "good", "x"), None)),
]


def listed(folder: Path) -> list[list[str]]:
    text = (folder / "logs" / "r1" / "disagreements.csv").read_text()
    return list(csv.reader(io.StringIO(text, newline="")))


def table_of(told: Facts) -> list[dict[str, str]]:
    assert told.analytics is not None
    return list(csv.DictReader(io.StringIO(Path(told.analytics).read_text(), newline="")))


def written(world: World) -> Facts:
    told = facts(world)
    write_reports(told)
    return told


@pytest.mark.promise(1)
def test_rows_failing_with_one_model_count_for_the_other(tmp_path: Path) -> None:
    told = written(compared(tmp_path, ROWS))
    assert [one.label for one in told.files] == ["march"]
    assert [one.shown for one in told.coded][:4] == ["Topic_a", "Topic_b", "Mood_a", "Mood_b"]
    text = (tmp_path / "logs" / "r1" / "summary_r1.md").read_text()
    assert "6 rows by 2 models: 12 answers, 10 ok, 2 failed (16.7 %)." in text
    assert "4 of 6 rows have an answer of every model. The other 2 lack one at least" in text
    assert "All alike in 3 of 4 rows: **75.0 %**." in text
    assert "left out" not in text
    rows = table_of(told)
    figure = {one["column"]: one["value"] for one in rows if one["section"] == "performance"}
    assert [figure[name] for name in ("rows_total", "rows_ok", "error_count", "answers_ok")] == [
        "6", "4", "2", "10",
    ]  # fmt: skip
    for column, total in (("Topic_a", 5), ("Topic_b", 5), ("Mood_a", 5), ("Mood_b", 5)):
        counts = [int(one["count"]) for one in rows
                  if (one["section"], one["column"]) == ("distribution", column)]  # fmt: skip
        assert sum(counts) == total
    assert sum(int(one["count"]) for one in rows if one["section"] == "failures") == 2
    by_model = {(one["by_value"], one["column"]): one["value"] for one in rows if one["section"] == "model"}
    assert (by_model["a", "rows_failed"], by_model["b", "rows_ok"]) == ("1", "5")


def test_the_analytics_hold_the_measures(tmp_path: Path) -> None:
    rows = table_of(written(compared(tmp_path, ROWS)))

    def value(section: str, column: str) -> tuple[str, str]:
        found = [one for one in rows if (one["section"], one["column"]) == (section, column)]
        return found[0]["value"], found[0]["count"]

    # Topic of four rows: Billing Billing, =Sum =Sum, Billing =Sum, Other Other; by chance 5/16 alike.
    assert value("agreement", "Topic") == ("0.750000", "3")
    assert value("cohen_kappa", "Topic") == (f"{(0.75 - 5 / 16) / (1 - 5 / 16):.6f}", "4")
    # Labels 3, 3 and 2 of 8: they would differ in 42 of 56 pairs; observed 1 of 4 rows.
    assert value("krippendorff_alpha", "Topic") == (f"{1 - 0.25 / (42 / 56):.6f}", "4")
    cells = {(one["value"], one["by_value"]): int(one["count"]) for one in rows
             if one["section"] == "contingency" and one["column"] == "Topic_a"}  # fmt: skip
    assert cells["Billing", "'=Sum"] == 1
    assert sum(cells.values()) == 4


def test_disagreements_are_harmless_named_and_no_more_than_that(tmp_path: Path) -> None:
    world = compared(tmp_path, ROWS)
    written(world)
    assert listed(tmp_path) == [
        ["RowID", "Message", "Topic_a", "Topic_b", "Mood_a", "Mood_b", "Differs_in"],
        ["3", "'=cmd()", "Billing", "'=Sum", "good", "good", "Topic"],
        ["4", "m", "Other", "Other", "bad", "good", "Mood"],
    ]
    run, plan = world.run(), world.ledger.plan("r1")
    run.reports = ReportsState.WRITTEN
    assert "logs/r1/disagreements.csv" in (reports_of(run, plan, world.places) or [])
    (tmp_path / "logs" / "r1" / "disagreements.csv").unlink()
    assert "logs/r1/disagreements.csv" not in (reports_of(run, plan, world.places) or [])


def test_of_several_inputs_each_row_says_whose_it_is(tmp_path: Path) -> None:
    written(compared(tmp_path, ROWS, labels=("march", "april")))
    header, *rows = listed(tmp_path)
    assert header[:2] == ["File", "RowID"]
    assert [row[:2] for row in rows] == [["march", "3"], ["march", "4"], ["april", "3"], ["april", "4"]]


@pytest.mark.promise(1)
@settings(max_examples=12, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(HOSTILE), st.tuples(ANSWER, ANSWER, ANSWER)), min_size=1, max_size=25
    ),
    batch=st.integers(1, 7),
)
def test_what_is_counted_of_each_model_is_what_it_said(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Compared], batch: int
) -> None:
    folder = tmp_path_factory.mktemp("w")
    world = compared(folder, rows, models="abc", batch=batch)
    found = count_rows(facts(world))
    assert not found.problem
    by_column = {one.column: one for one in found.distributions}
    for number, model in enumerate("abc"):
        answers = [one[number] for _, one in rows if one[number] is not None]
        for column, name in enumerate(("Topic", "Mood")):
            counts = {part.value: part.count for part in by_column[f"{name}_{model}"].slices if part.count}
            assert counts == Counter(one[column] for one in answers if one is not None)
    differing = [
        number
        for number, (_, one) in enumerate(rows, 1)
        if any(len({given[column] for given in one if given is not None}) > 1 for column in (0, 1))
    ]
    assert [int(row[0]) for row in listed(folder)[1:]] == differing
    assert found.differing == len(differing)
    assert found.complete == sum(None not in one for _, one in rows)
    assert sum(one.count for one in found.failures) == sum(one.count(None) for _, one in rows)
    assert [(one.asked, one.rows) for one in found.agreement] == [(len(rows), found.complete)] * 2
    assert not [cell for row in listed(folder) for cell in row if neutralise(cell) != cell]
    world.close()


def test_a_run_that_was_broken_off_compares_what_came(tmp_path: Path) -> None:
    rows: list[Compared] = [("m", (("Billing", "good", "x"), ("=Sum", "good", "x")))] * 40
    gone = [("march.b", 1), ("march.a", 2), ("march.b", 2)]
    told = facts(compared(tmp_path, rows, without=gone), state=RunState.CANCELLED)
    found = count_rows(told)
    assert not found.problem
    assert (found.complete, found.differing) == (20, 20)
    assert [(one.reason, one.count) for one in found.failures] == [("cancelled", 30)]
    # Rows keep their numbers behind those that nobody got.
    assert [row[0] for row in listed(tmp_path)[1:]] == [str(one) for one in (*range(1, 11), *range(31, 41))]
    assert "40 rows by 2 models: 80 answers, 50 ok, 30 failed" in summary(told, figures(told), found)
    assert "30 answers never came back" in summary(told, figures(told), found)


def test_after_a_lost_volume_the_published_file_is_compared(tmp_path: Path) -> None:
    world = compared(tmp_path, ROWS)
    kept = count_rows(facts(world))
    lines = listed(tmp_path)
    with world.store.transaction():
        for file in world.run().files.values():
            while world.store.drop_rows(file.file_id, 100):
                pass
    told = facts(world)
    assert not told.files[0].file_ids
    again = count_rows(told)
    assert (again.agreement, again.distributions) == (kept.agreement, kept.distributions)
    assert listed(tmp_path) == lines
    assert [one.count for one in again.failures] == [2]


def test_rows_that_are_gone_leave_no_file_of_disagreements(tmp_path: Path) -> None:
    world = compared(tmp_path, ROWS * 5)
    told = facts(world)
    with world.store.transaction():
        world.store.drop_rows(world.run().files["march.b"].file_id, 1)
    found = count_rows(told)
    assert "60 with 10 were merged" in found.problem
    assert (found.agreement, found.complete) == ((), None)
    assert not list((tmp_path / "logs" / "r1").glob("*disagreements*"))
    text = summary(told, figures(told), found)
    assert "Agreement" not in text
    assert "30 rows by 2 models: 60 answers" in text


def test_models_that_all_fail_or_always_agree_leave_no_nonsense(tmp_path: Path) -> None:
    nobody: list[Compared] = [("m", (None, None))] * 3
    alike: list[Compared] = [("m", (("Other", "good", "x"),) * 2)] * 3
    for name, rows in (("nobody", nobody), ("alike", alike)):
        told = written(compared(tmp_path / name, rows))
        text = (tmp_path / name / "logs" / "r1" / "summary_r1.md").read_text()
        assert "alpha: **–**" in text
        assert "In no row." in text
        assert len(listed(tmp_path / name)) == 1
        assert not [one for one in table_of(told) if "nan" in (one["value"] + one["percent"]).lower()]


def test_the_page_has_a_heat_map_of_each_pair(tmp_path: Path) -> None:
    rows: list[Compared] = [
        (one, ((one, "good", "x"), (one, "bad", "y"), ("Other", "bad", "z"))) for one in HOSTILE
    ]
    told = facts(compared(tmp_path, rows, models="abc"))
    text = b"".join(page(told, figures(told), count_rows(told))).decode()
    plots = json.loads(text.split('id="plots">')[1].split("</script>")[0])
    maps = [one for one in plots if one["data"][0]["type"] == "heatmap"]
    # Three pairs of Topic and of Mood, and Topic by Mood.
    assert len(maps) == 7
    assert {len(one["data"][0]["z"]) for one in maps[:3]} == {13}
    assert "Agreement of the models" in text
    assert "<script>document.title" not in text


def test_a_manifest_without_the_models_figures_names_no_wrong_number(tmp_path: Path) -> None:
    told = facts(compared(tmp_path, ROWS))
    manifest = {name: one for name, one in told.manifest.items() if name != "by_model"}
    # As after a lost volume.
    bare = told.model_copy(update={"manifest": manifest})
    assert outline.headline(bare, figures(bare)).startswith("6 rows by 2 models: 12 answers")
    assert "## The models" not in summary(bare, figures(bare), count_rows(bare))


def test_a_file_without_rows_is_compared_with_nobody(tmp_path: Path) -> None:
    told = written(compared(tmp_path, []))
    text = (tmp_path / "logs" / "r1" / "summary_r1.md").read_text()
    assert "0 rows by 2 models: there was nothing to do." in text
    assert "Agreement" not in text
    assert [one.name for one in told.coded][::2] == ["Topic", "Mood", "Note"]


def test_a_column_without_labels_is_not_compared(tmp_path: Path) -> None:
    world = compared(tmp_path, [("m", (("Other", "good", "one"), ("Other", "good", "two")))])
    found = count_rows(facts(world))
    assert [one.column for one in found.agreement] == ["Topic", "Mood"]
    assert found.differing == 0


def test_where_summaries_are_off_no_disagreements_are_written(tmp_path: Path) -> None:
    job = {"monitoring": {"create_summaries": False}}
    told = written(compared(tmp_path, ROWS, job=job))
    assert told.disagreements is None
    assert sorted(one.name for one in (tmp_path / "logs" / "r1").glob("[ads]*")) == ["analytics_r1.csv"]
    assert [one for one in table_of(told) if one["section"] == "cohen_kappa"]


def test_one_model_or_a_share_for_each_is_compared_with_nobody(tmp_path: Path) -> None:
    rows: list[Row] = [("m", ("Other", "good", "x"))] * 4
    told = facts(finished(tmp_path, rows))
    found = count_rows(told)
    assert (told.disagreements, found.agreement, found.complete) == (None, (), None)
    split = told.model_copy(update={"manifest": told.manifest | shares()})
    text = summary(split, figures(split), found)
    assert "4 rows shared by 2 models: 4 ok." in text
    assert "| `a`" in text
    assert "Agreement" not in text
    assert outline.headline(told, figures(told)) == "4 rows: 4 ok."


def shares() -> dict[str, Any]:
    one = {
        "rows": {"ok": 2, "failed": 0}, "calls": 1, "tokens": {"prompt": 1, "completion": 1},
        "cost": {"amount": "0.50", "currency": "EUR"}, "model_seconds": 1.0, "digests": ["x"],
    }  # fmt: skip
    return {"model_mode": "split", "by_model": {"a": one, "b": one | {"cost": None, "digests": ["y"]}}}


def test_the_libraries_are_loaded_for_several_models_alone(tmp_path: Path) -> None:
    code = (
        "import sys; from prism_merger.reports.__main__ import main\n"
        "for path in sys.argv[1:]: print(main([path]), sorted({'pycm', 'nltk'} & sys.modules.keys()))"
    )
    one, several = tmp_path / "one.json", tmp_path / "several.json"
    one.write_text(facts(finished(tmp_path / "a", [("m", ("Other", "good", "x"))])).model_dump_json())
    several.write_text(facts(compared(tmp_path / "b", ROWS)).model_dump_json())
    # As the merger starts it: without a home.
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, *COMMAND[1:2], "-c", code, str(one), str(several)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("0 []\n0 ['nltk', 'pycm']\n", "")


def test_the_rows_side_by_side_come_in_blocks_that_have_an_end(tmp_path: Path) -> None:
    world = compared(tmp_path, [("m" * 1000, (("Other", "good", "x"), None))] * 30)
    ids = [one.file_id for one in world.run().files.values()]
    reader = RowReader(world.store.path)
    blocks = list(joined_blocks(reader, ids, Shape(3, 3, ("a", "b"), ","), 10_000))
    assert [one.stretches for one in blocks] == [((0, 10),), ((10, 10),), ((20, 10),)]
    reader.close()


def test_a_retry_has_each_models_own_rows(tmp_path: Path) -> None:
    # Of its three rows two are a's; b's is another one: no row is done by both.
    world = retried(tmp_path, {"a": [("Other", "good", "x"), None], "b": [("=Sum", "bad", "x")]})
    told = written(world)
    assert [(one.label, one.model, one.models) for one in told.files] == [
        ("march.a", "a", []),
        ("march.b", "b", []),
    ]
    found = count_rows(told)
    counts = {(one.column, part.value): part.count
              for one in found.distributions for part in one.slices if part.count}  # fmt: skip
    assert counts == {
        ("Topic_a", "Other"): 1, ("Mood_a", "good"): 1, ("Topic_b", "=Sum"): 1, ("Mood_b", "bad"): 1,
    }  # fmt: skip
    assert (told.disagreements, found.agreement) == (None, ())
    assert outline.headline(told, figures(told)) == "3 answers of 2 models: 2 ok, 1 failed (33.3 %)."
