"""Several models in one run: side by side, each with its share, foretold, retried."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from prism_embedded.model_server import EmbeddedModelServer
from tests.acceptance.conftest import MODEL
from tests.acceptance.jobs import Desk, table

OTHER = "second:7b"
ROWS = 40
BROKEN = (7, 33)
NAMES = f"names: [{MODEL}, '{OTHER}'], batch_size: 5, delay: 0"


def content() -> str:
    return table(ROWS, mark=lambda number: "BROKEN" if number in BROKEN else "")


@pytest.fixture(scope="module")
def other() -> Iterator[EmbeddedModelServer]:
    """The second model, at an address of its own."""
    with EmbeddedModelServer(models=[OTHER]) as started:
        yield started


@pytest.fixture
def second(other: EmbeddedModelServer, tmp_path: Path) -> Desk:
    """What asks and changes the second model's server."""
    made = Desk(tmp_path, other)
    made.control(faults="", reset=True)
    return made


def work(desk: Desk, second: Desk, run_id: str, sections: str) -> Desk:
    """Return a folder with a job of two models, the second of which `models.json` knows."""
    made = Desk.made(desk.folder / "jobs" / run_id, desk.server, sections, march=content())
    entry = {"name": OTHER, "id": "2", "base_url": second.server.url}
    models = {"available_models": [{"name": MODEL, "id": "1"}, entry], "batch_sizes": []}
    (made.folder / "models.json").write_text(json.dumps(models))
    return made


@pytest.mark.promise(1)
@pytest.mark.promise(2)
def test_two_models_stand_side_by_side_and_a_retry_completes_one(desk: Desk, second: Desk) -> None:
    # The second one sees each text as if it were the next, and two of them not at all.
    second.control(faults="rotated=1,text:BROKEN=http_400")
    made = work(desk, second, "duo", f"model: {{{NAMES}}}\n")
    done = made.run("--data-dir", str(desk.data_dir), "--run-id", "duo")
    assert done.returncode == 6, done.stderr
    rows = desk.rows("duo", "march")
    assert [row["RowID"] for row in rows] == [str(number) for number in range(1, ROWS + 1)]
    assert [int(row["RowID"]) for row in rows if row[f"Error_{OTHER}"]] == list(BROKEN)
    assert {row[f"Error_{MODEL}"] for row in rows} == {""}
    assert sum(row[f"Topic_{MODEL}"] != row[f"Topic_{OTHER}"] for row in rows) > ROWS // 2
    assert all(row[f"Sentiment_{MODEL}"] for row in rows)
    assert {row["Model_Name"] for row in rows} == {f"{MODEL}, {OTHER}"}
    manifest = desk.manifest("duo")
    assert manifest["rows"] == {"in": 2 * ROWS, "ok": 2 * ROWS - 2, "failed": 2}
    assert manifest["by_model"][OTHER]["rows"] == {"ok": ROWS - 2, "failed": 2}
    assert desk.stats()["rows"] == ROWS, "the first model is asked about every row, once"

    second.control(faults="", reset=True)
    retried = desk.prism("retry", "duo", "--json")
    assert retried.returncode == 0, retried.stderr
    assert json.loads(retried.stdout)["rows"] == {"in": 2, "ok": 2, "failed": 0}
    whole = desk.rows("duo", "march")
    assert {row["Error"] for row in whole} == {""}
    assert [row[f"Topic_{MODEL}"] for row in whole] == [row[f"Topic_{MODEL}"] for row in rows]
    assert (second.stats()["rows"], desk.stats()["rows"]) == (2, ROWS), "nothing else is paid for again"


def test_each_model_does_its_share(desk: Desk, second: Desk) -> None:
    made = work(desk, second, "shares", f"model: {{{NAMES}, mode: split}}\n")
    done = made.run("--data-dir", str(desk.data_dir), "--run-id", "shares")
    assert done.returncode == 0, done.stderr
    names = [row["Model_Name"] for row in desk.rows("shares", "march")]
    assert names == [MODEL if number // 5 % 2 == 0 else OTHER for number in range(ROWS)]
    assert (second.stats()["rows"], desk.stats()["rows"]) == (ROWS // 2, ROWS // 2)


def test_a_dry_run_foretells_each_model_and_one_named_on_the_command_line_is_alone(
    desk: Desk, second: Desk
) -> None:
    made = work(desk, second, "foretold", f"model: {{{NAMES}}}\n")
    done = made.run("--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["models"], told["rows"], len(told["files"])) == ([MODEL, OTHER], ROWS, 2)
    alone = made.run("--data-dir", str(desk.data_dir), "--run-id", "alone", "--model", MODEL)
    assert alone.returncode == 0, alone.stderr
    assert "Topic" in desk.rows("alone", "march")[0]
