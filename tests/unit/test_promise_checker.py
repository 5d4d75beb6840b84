"""The checker of the promises objects to each thing that can be wrong, with the promise's number."""

import csv
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from prism.messages import (
    FileProgress,
    MergeState,
    OutputFile,
    OutputPublished,
    Progress,
    RunRecord,
    RunState,
)
from prism.runs.columns import output_columns
from prism.runs.naming import part_name
from prism.tables import render_line
from tests.harness.promises import Calls, Evidence, PromisesBroken, check
from tests.harness.rows import CODED, INPUT_COLUMNS, Table, write_csv
from tests.harness.watch import Announcement

ROWS, INTERVAL, RUN, LABEL = 120, 50, "t1", "march"


@dataclass
class Published:
    """A run as it is left behind, to be spoilt: the lines of its output, then everything made from them."""

    folder: Path
    table: Table
    lines: list[list[str]]

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def output(self) -> Path:
        return self.data_dir / "output" / f"{RUN}_{LABEL}.csv"

    @property
    def manifest_path(self) -> Path:
        return self.data_dir / "logs" / RUN / "run_manifest.json"

    def write(self) -> None:
        """Write output, parts, manifest and failed ranges as the lines are: all of them agree."""
        header = render_line(output_columns(INPUT_COLUMNS, CODED))
        self._put(self.output, header + "".join(map(render_line, self.lines)))
        for number in range((len(self.lines) + INTERVAL - 1) // INTERVAL):
            some = self.lines[number * INTERVAL : (number + 1) * INTERVAL]
            path = self.data_dir / "checkpoints" / RUN / part_name(RUN, LABEL, number + 1)
            self._put(path, header + "".join(map(render_line, some)))
        self.change_manifest(lambda manifest: manifest.update(self._manifest()))
        ranges = [
            {"label": LABEL, "row_range": {"start": n, "end": n}, "reason": line[-1], "count": 1}
            for n, line in enumerate(self.lines, 1)
            if line[-1]
        ]
        self._put(self.manifest_path.with_name("failed_ranges.json"), json.dumps(ranges))
        rows = [render_line(line[: len(INPUT_COLUMNS)]) for line in self.lines if line[-1]]
        self._put(self.manifest_path.with_name("failed_rows.csv"), render_line(INPUT_COLUMNS) + "".join(rows))
        figures = {
            "rows_total": len(self.lines),
            "rows_ok": len(self.lines) - len(rows),
            "error_count": len(rows),
        }
        text = "".join(f"performance,{name},{count}\n" for name, count in figures.items())
        self._put(self.manifest_path.with_name("analytics_t1.csv"), text)

    def _put(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())

    def change_manifest(self, change: Callable[[dict[str, Any]], object]) -> None:
        manifest = json.loads(self.manifest_path.read_bytes()) if self.manifest_path.exists() else {}
        change(manifest)
        self._put(self.manifest_path, json.dumps(manifest))

    @property
    def failed(self) -> list[str]:
        return [line[-1] for line in self.lines if line[-1]]

    def _manifest(self) -> dict[str, Any]:
        data = self.output.read_bytes()
        rows, failed = len(self.lines), len(self.failed)
        file = {
            "label": LABEL, "status": "published", "rows_in": rows, "rows_ok": rows - failed,
            "rows_failed": failed, "rows_missing": 0, "merged_output": f"output/{self.output.name}",
            "rows_out": rows, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "parts": 3,
            "failed_rows": f"logs/{RUN}/failed_rows.csv" if failed else None,
        }  # fmt: skip
        return {
            "status": "completed_with_failures",
            "rows": {"in": rows, "ok": rows - failed, "failed": failed},
            "failed_by_reason": {reason: self.failed.count(reason) for reason in self.failed},
            "files": [file],
            "reports": {"state": "written", "files": [f"logs/{RUN}/analytics_t1.csv"], "failures": 0},
        }

    def evidence(self) -> Evidence:
        file = json.loads(self.manifest_path.read_bytes())["files"][0]
        told = {"rows": file["rows_out"], "bytes": file["bytes"], "sha256": file["sha256"]}
        event = OutputPublished(
            run_id=RUN, label=LABEL, uri="file:///x", path=file["merged_output"],
            rows_ok=file["rows_ok"], rows_failed=file["rows_failed"], **told,
        )  # fmt: skip
        progress = Progress(
            run_id=RUN, state=MergeState.PUBLISHED, files={LABEL: FileProgress()},
            rows_ok=file["rows_ok"], rows_failed=file["rows_failed"],
            outputs=[OutputFile(label=LABEL, path=file["merged_output"], **told)],
        )  # fmt: skip
        asked = {row[0]: 1 for row in self.table.rows if row[0] not in self.table.failures}
        return Evidence(
            run_id=RUN, label=LABEL, input_csv=self.table.path, data_dir=self.data_dir, coded=CODED,
            interval=INTERVAL, failures=self.table.failures,
            announcements=[Announcement("t1/march/csv", event)] * 2,
            run=RunRecord(run_id=RUN, epoch=1, state=RunState.COMPLETED_WITH_FAILURES), progress=progress,
            calls=Calls(asked, {}), undisturbed=None,
        )  # fmt: skip


@pytest.fixture
def published(tmp_path: Path) -> Published:
    table = write_csv(tmp_path / "in.csv", ROWS)
    lines = []
    for row in table.rows:
        reason = table.failures.get(row[0], "")
        values = [""] * len(CODED) if reason else ["Product", "Neutral", "Low", f"about {row[0]}"]
        lines.append([*row, *values, "prism-embedded", "5", RUN, reason])
    made = Published(tmp_path, table, lines)
    made.write()
    return made


def objections(evidence: Evidence) -> set[int]:
    with pytest.raises(PromisesBroken) as caught:
        check(evidence)
    return caught.value.numbers


def test_accepts_what_is_right(published: Published) -> None:
    account = check(replace(published.evidence(), undisturbed=published.output.read_bytes()))
    assert (account.rows, account.ok, account.failed, account.extra_rows) == (120, 119, 1, 0)


def test_reads_the_generated_csv_as_it_was_meant(published: Published) -> None:
    text = published.table.path.read_bytes().decode()
    _, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert [tuple(row) for row in rows] == list(published.table.rows)
    joined = "".join("".join(row) for row in rows)
    assert all(one in joined for one in ('"', "\n", "\r\n", "😀", "ア", "\u2028", "=SUM"))


def drop(lines: list[list[str]]) -> None:
    del lines[7]


def duplicate(lines: list[list[str]]) -> None:
    lines.insert(8, lines[7])


def replace_by_neighbour(lines: list[list[str]]) -> None:
    lines[8] = list(lines[7])


def swap(lines: list[list[str]]) -> None:
    lines[7], lines[8] = lines[8], lines[7]


def spoil_input_cell(lines: list[list[str]]) -> None:
    lines[7][2] += " "


def swap_messages(lines: list[list[str]]) -> None:
    lines[7][2], lines[8][2] = lines[8][2], lines[7][2]


def start_formula(lines: list[list[str]]) -> None:
    lines[7][8] = "=HYPERLINK(1)"


def error_text_in_cell(lines: list[list[str]]) -> None:
    lines[7][-1] = "Connection refused"


def reason_beside_values(lines: list[list[str]]) -> None:
    lines[7][-1] = "poison"


def neither_values_nor_reason(lines: list[list[str]]) -> None:
    lines[7][5:9] = ["", "", "", ""]


def fail_a_good_row(lines: list[list[str]]) -> None:
    lines[7][5:9] = ["", "", "", ""]
    lines[7][-1] = "lost"


def spare_a_bad_row(lines: list[list[str]]) -> None:
    lines[96][5:9] = ["Other", "Neutral", "Low", "nothing"]
    lines[96][-1] = ""


def row_of_another_run(lines: list[list[str]]) -> None:
    lines[7][-2] = "t2"


SPOILT_ROWS = [
    (drop, 1),
    (duplicate, 1),
    (replace_by_neighbour, 1),
    (swap, 2),
    (spoil_input_cell, 8),
    (swap_messages, 8),
    (start_formula, 8),
    (error_text_in_cell, 1),
    (reason_beside_values, 1),
    (neither_values_nor_reason, 1),
    (fail_a_good_row, 9),
    (spare_a_bad_row, 9),
    (spare_a_bad_row, 7),
    (row_of_another_run, 1),
]


@pytest.mark.parametrize(
    ("spoil", "promise"), SPOILT_ROWS, ids=lambda one: getattr(one, "__name__", str(one))
)
def test_objects_to_a_spoilt_output_whose_every_file_agrees(
    published: Published, spoil: Callable[[list[list[str]]], None], promise: int
) -> None:
    spoil(published.lines)
    published.write()
    assert promise in objections(published.evidence())


def test_objects_to_a_byte_changed_after_publication(published: Published) -> None:
    data = bytearray(published.output.read_bytes())
    data[-20] ^= 1
    published.output.write_bytes(data)
    assert 3 in objections(published.evidence())


def test_objects_to_a_cut_file(published: Published) -> None:
    published.output.write_bytes(published.output.read_bytes()[:-300])
    assert {1, 3} <= objections(published.evidence())


def test_objects_to_a_missing_file(published: Published) -> None:
    published.output.unlink()
    assert objections(published.evidence()) == {3}


@pytest.mark.parametrize(("name", "promise"), [("in", 1), ("ok", 1), ("failed", 1)])
def test_objects_to_wrong_counts(published: Published, name: str, promise: int) -> None:
    evidence = published.evidence()
    published.change_manifest(lambda manifest: manifest["rows"].update({name: manifest["rows"][name] + 1}))
    assert objections(evidence) == {promise}


FILE_FIELDS = [
    ("sha256", "0" * 64, 3),
    ("bytes", 1, 3),
    ("rows_out", 1, 3),
    ("status", "not_published", 3),
    ("rows_in", 1, 1),
    ("rows_ok", 1, 1),
    ("rows_failed", 0, 1),
    ("rows_missing", 1, 1),
    ("parts", 2, 1),
]


@pytest.mark.parametrize(("name", "value", "promise"), FILE_FIELDS)
def test_objects_to_a_wrong_field_of_the_file(
    published: Published, name: str, value: object, promise: int
) -> None:
    evidence = published.evidence()
    published.change_manifest(lambda manifest: manifest["files"][0].update({name: value}))
    assert objections(evidence) == {promise}


def test_objects_to_wrong_reasons_and_status(published: Published) -> None:
    evidence = published.evidence()
    published.change_manifest(lambda manifest: manifest.update(failed_by_reason={}, status="completed"))
    assert objections(evidence) == {1}


def test_objects_to_failed_ranges_that_are_gone(published: Published) -> None:
    published.manifest_path.with_name("failed_ranges.json").unlink()
    assert objections(published.evidence()) == {1}


def test_objects_to_failed_rows_that_are_gone_or_others(published: Published) -> None:
    path = published.manifest_path.with_name("failed_rows.csv")
    text = path.read_text()
    path.write_text(text.replace(",", ";", 1))
    assert objections(published.evidence()) == {1}
    path.write_text("".join(text.splitlines(keepends=True)[:-1]))
    assert objections(published.evidence()) == {1}
    path.unlink()
    assert objections(published.evidence()) == {1}


def test_objects_to_analytics_that_are_gone_or_count_otherwise(published: Published) -> None:
    path = published.manifest_path.with_name("analytics_t1.csv")
    path.write_text(path.read_text().replace(",120", ",119"))
    assert objections(published.evidence()) == {1}
    path.unlink()
    assert objections(published.evidence()) == {3}


@pytest.mark.parametrize(
    "name", ["output/.t1.march.0.tmp", "checkpoints/t1/.x.csv.tmp", "logs/t1/.run_manifest.json.tmp"]
)
def test_objects_to_temporary_files(published: Published, name: str) -> None:
    (published.data_dir / name).write_bytes(b"")
    assert objections(published.evidence()) == {3}


def test_objects_to_a_part_that_is_gone_or_in_disorder(published: Published) -> None:
    first, second, _ = published.evidence().parts
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    assert objections(published.evidence()) == {2}
    first.unlink()
    assert 1 in objections(published.evidence())


def test_objects_to_a_second_publication(published: Published) -> None:
    (published.data_dir / "output" / "t1_march-2.csv").write_bytes(published.output.read_bytes())
    assert objections(published.evidence()) == {5}


def test_objects_to_announcements(published: Published) -> None:
    evidence = published.evidence()
    one = evidence.announcements[0]
    other = Announcement("another", one.event)
    assert objections(replace(evidence, announcements=[])) == {5}
    assert objections(replace(evidence, announcements=[one, other])) == {5}
    wrong = Announcement(one.ce_id, one.event.model_copy(update={"sha256": "0" * 64}))
    assert objections(replace(evidence, announcements=[one, wrong])) == {3, 5}
    wrong = Announcement(one.ce_id, one.event.model_copy(update={"rows_ok": 0}))
    assert objections(replace(evidence, announcements=[wrong])) == {1}


def test_objects_to_progress_and_state(published: Published) -> None:
    evidence = published.evidence()
    assert evidence.progress is not None
    assert evidence.run is not None
    assert objections(replace(evidence, progress=evidence.progress.model_copy(update={"rows_ok": 1}))) == {1}
    assert objections(
        replace(evidence, run=evidence.run.model_copy(update={"state": RunState.COMPLETED}))
    ) == {1}


def test_objects_to_other_bytes_than_undisturbed(published: Published) -> None:
    calm = published.output.read_bytes().replace(b"about r000042", b"about r000043")
    assert objections(replace(published.evidence(), undisturbed=calm)) == {5}


def test_bounds_the_calls(published: Published) -> None:
    evidence = published.evidence()
    asked = {row[0]: 1 for row in published.table.rows if row[0] not in published.table.failures}
    twice = {**asked, "r000007": 2}
    assert objections(replace(evidence, calls=Calls(twice, {}))) == {5}
    assert check(replace(evidence, calls=Calls(twice, {"r000007": 1}))).extra_rows == 1
    assert objections(replace(evidence, calls=Calls({**twice, "r000007": 3}, {"r000007": 1}))) == {5}
    rejected = next(iter(published.table.failures))
    assert objections(replace(evidence, calls=Calls({**asked, rejected: 1}, {}))) == {9}
    never = {row: count for row, count in asked.items() if row != "r000007"}
    assert objections(replace(evidence, calls=Calls(never, {}))) == {7}
