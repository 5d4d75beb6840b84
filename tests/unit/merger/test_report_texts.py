"""Summary, analytics and page: right, readable, and nothing in them but text, whatever rows hold."""

import base64
import csv
import hashlib
import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.messages import RunState
from prism_merger.reports import outline
from prism_merger.reports.analytics import HEADER, analytics
from prism_merger.reports.facts import Facts
from prism_merger.reports.figures import figures
from prism_merger.reports.page import page
from prism_merger.reports.summary import summary
from prism_merger.reports.tally import count_rows
from prism_merger.reports.texts import bar, code, duration, measure, number, percent, table, width
from tests.unit.merger.report_world import HOSTILE, Row, facts, finished

HOSTILE_ROWS: list[Row] = [(one, (one, other, one)) for one in HOSTILE for other in ("good", HOSTILE[0])] + [
    (one, None) for one in HOSTILE
]
JOB = {
    "project": {"name": "voice", "description": "<b>|`of` the customer</b>"},
    "merge": {"sort_by": "Nothing"},
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    world = finished(tmp_path_factory.mktemp("hostile"), HOSTILE_ROWS, job=JOB)
    return facts(world)


def markdown(told: Facts) -> str:
    return summary(told, figures(told), count_rows(told))


def document(told: Facts) -> str:
    return b"".join(page(told, figures(told), count_rows(told))).decode()


def cells_of(line: str) -> list[str]:
    """Cut a table's line as GitHub does: at pipes without a backslash, which pairs of backslashes are not."""
    return re.findall(r"((?:\\.|[^|\\])*)\|", line)[1:]


@given(st.text(max_size=60))
def test_a_code_span_holds_any_text(text: str) -> None:
    span = code(text)
    assert len(span.splitlines()) == 1
    assert len(cells_of(f"| {span} | x |")) == 2
    if span != "*(empty)*":
        fence = re.match("`+", span)
        assert fence is not None
        inner = span[len(fence[0]) : -len(fence[0])]
        assert fence[0] not in re.findall("`+", inner)
        assert inner[0] != "`" != inner[-1]


@given(st.lists(st.lists(st.text(max_size=9), min_size=2, max_size=2), max_size=5))
def test_a_table_stands_in_line(rows: list[list[str]]) -> None:
    lines = table(("a", "b"), [[code(cell) for cell in row] for row in rows], "lr").split("\n")
    assert len({width(line) for line in lines}) == 1
    assert {len(cells_of(line)) for line in lines} == {2}


def test_every_line_of_a_hostile_summary_is_what_it_should_be(told: Facts) -> None:
    text = markdown(told)
    width_of_table = 0
    for line in text.splitlines():
        if line.startswith("|"):
            width_of_table = width_of_table or len(cells_of(line))
            assert len(cells_of(line)) == width_of_table, line
        else:
            width_of_table = 0
            assert not re.search(r"</?[a-z]", re.sub(r"`[^`]*`", "", line)), line
    assert all(line.isprintable() for line in text.split("\n"))


def test_summary_and_report_say_what_the_job_is_for(tmp_path: Path) -> None:
    job = {"project": {"description": "What callers want"}}
    said = facts(finished(tmp_path, [("m", ("Other", "good", "n"))], job=job))
    assert "What callers want" in markdown(said)
    assert "What callers want" in document(said)


@pytest.mark.promise(1)
def test_all_three_say_how_many_rows_there_are(told: Facts) -> None:
    rows, failed = len(HOSTILE_ROWS), len(HOSTILE)
    assert f"{rows} rows: {rows - failed} ok, {failed} failed" in markdown(told)
    assert f"{rows} rows: {rows - failed} ok, {failed} failed" in document(told)
    read = list(
        csv.DictReader(io.StringIO(b"".join(analytics(told, figures(told), count_rows(told))).decode()))
    )
    by = {one["column"]: one["value"] for one in read if one["section"] == "performance"}
    assert int(by["rows_total"]) == int(by["rows_ok"]) + int(by["error_count"]) == rows
    for column in ("Topic", "Mood"):
        counts = [int(one["count"]) for one in read
                  if one["section"] == "distribution" and one["column"] == column]  # fmt: skip
        assert sum(counts) == rows - failed
    assert sum(int(one["count"]) for one in read if one["section"] == "failures") == failed
    assert sum(int(one["count"]) for one in read if one["section"] == "crosstab") == rows - failed


def test_figures_that_do_not_add_up_are_refused(told: Facts) -> None:
    rows = told.manifest["rows"] | {"ok": 1}
    with pytest.raises(ValueError, match="rows in"):
        figures(told.model_copy(update={"manifest": told.manifest | {"rows": rows}}))


def test_no_cell_of_the_analytics_starts_a_formula(told: Facts) -> None:
    text = b"".join(analytics(told, figures(told), count_rows(told))).decode()
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert tuple(read[0]) == HEADER
    assert {len(row) for row in read} == {len(HEADER)}
    assert not [cell for row in read for cell in row if re.match(r"[=+@]|-[^\d]", cell)]
    assert "'=Sum" in {row[2] for row in read}


class _Outline(HTMLParser):
    """The tags of a page, with what refers to something, and its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.scripts: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._inside = tag == "script"
        self.references += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")
        ]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if self._inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def test_a_hostile_page_is_text_and_two_known_scripts(told: Facts) -> None:
    text = document(told)
    outline = _Outline()
    outline.feed(text)
    assert not outline.tags & {"img", "a", "iframe", "link", "object", "base", "form", "svg"}
    assert not outline.references
    assert not outline.handlers
    plots, *programs = outline.scripts
    allowed = re.search(r"script-src ([^;]*);", text)
    assert allowed is not None
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in programs]
    assert allowed[1].split() == [f"'sha256-{one}'" for one in digests]
    assert "default-src 'none'" in text
    assert not re.search("[<>&]", plots)


def test_labels_reach_the_plots_as_text(told: Facts) -> None:
    text = document(told)
    plots = json.loads(re.findall(r'<script type="application/json" id="plots">(.*?)</script>', text)[0])
    shown = [
        one
        for plot in plots
        for axis in ("xaxis", "yaxis")
        for one in plot["layout"][axis].get("ticktext", [])
    ]
    assert html.escape(HOSTILE[1]).replace("&quot;", '"')[:20] in {one[:20] for one in shown}
    assert not [one for one in shown if re.search("[<>$]", one)]
    for plot in plots:
        for trace in plot["data"]:
            assert all(isinstance(one, int | float) for one in trace.get("y", []) if one is not None)


def test_warnings_come_first_and_settings_are_told(told: Facts) -> None:
    text = markdown(told)
    assert "> ⚠ sort\\_by: no such column: input order kept in march." in text
    assert f"`{told.manifest['prompt_sha256']}`" in text
    # The job names neither: the defaults were in force.
    assert re.search(r"\| rows per call +\| `10` ", text)
    assert "`3, the second after 1 s`" in text
    assert "prism retry r1" in text
    assert "`logs/r1/failed_rows.csv`" in text
    assert told.manifest["files"][0]["sha256"] in text
    assert text.index("⚠") < text.index("## At a glance")


@pytest.mark.parametrize("state", [RunState.CANCELLED, RunState.FAILED])
def test_a_run_without_rows_is_told_too(tmp_path: Path, state: RunState) -> None:
    world = finished(tmp_path, [("m", None)], job={"merge": {"max_failed": "0"}})
    withheld = facts(world)
    assert "withheld: nothing was published" in markdown(withheld)
    assert "1 of 1 rows failed" in document(withheld)
    manifest = withheld.manifest | {
        "rows": {"in": 0, "ok": 0, "failed": 0}, "files": [], "status": state.value, "failed_by_reason": {},
    }  # fmt: skip
    empty = withheld.model_copy(update={"manifest": manifest, "files": [], "coded": []})
    assert "0 rows: there was nothing to do." in markdown(empty)
    assert state.value in document(empty)


def test_words_for_numbers() -> None:
    assert [number(one) for one in (12_345, 12_345.6, 123.45, 1.234, "0.5")] == [
        "12,345", "12,346", "123.5", "1.23", "0.5",
    ]  # fmt: skip
    assert [percent(*one) for one in ((0, 0), (0, 9), (1, 9_999), (9_998, 9_999), (1, 3), (3, 3))] == [
        "–", "0.0 %", "< 0.1 %", "> 99.9 %", "33.3 %", "100.0 %",
    ]  # fmt: skip
    assert [duration(one) for one in (None, 5.04, 65, 3_725, 200_000)] == [
        "–", "5.0 s", "1 min 05 s", "1 h 02 min", "2 d 7 h 33 min",
    ]  # fmt: skip
    assert [measure(one) for one in (None, 0.81249, -1e-9, -0.5)] == ["–", "0.812", "0.000", "-0.500"]
    assert (len(bar(1, 1)), bar(1, 10_000), bar(0, 5)) == (24, "▏", "")


def test_outputs_of_several_formats_are_listed(told: Facts) -> None:
    files = told.manifest["files"]
    outputs = [
        {"path": f"output/x.{form}", "rows": 3, "bytes": 9, "sha256": "ab", "renamed_because": because}
        for form, because in (("csv", None), ("parquet", "x.parquet was there already"))
    ]
    several = told.model_copy(
        update={"manifest": told.manifest | {"files": [files[0] | {"outputs": outputs}]}}
    )
    assert [one.path for one in outline.outputs(several)] == ["output/x.csv", "output/x.parquet"]
    assert "x.parquet was there already" in "".join(
        outline.warnings(several, figures(several), count_rows(several))
    )
    assert [one.path for one in outline.outputs(told)] == ["output/r1_march.csv"]
