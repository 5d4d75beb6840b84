"""Keys of the job file in a run of `prism run`: each of them set to something that it would not be by itself.

Which test proves which key is written in `tests/unit/test_job_keys_proven.py`.
"""

import json

import pytest

from tests.acceptance.conftest import MODEL, OTHER_MODEL
from tests.acceptance.jobs import PROMPT, SEEDS, Desk, job, table

WHOLE = f"""\
project: {{name: voices, version: v2, description: What callers want}}
model: {{name: {OTHER_MODEL}, batch_size: 4, delay: 0}}
input_queue:
  - {{path: in/first.txt, label: january}}
  - {{path: in/second.txt, label: february}}
output:
  directory: results/
  naming_pattern: "{{project}}-{{version}}-{{label}}"
  formats: [csv, jsonl]
  columns: [RowID, Topic, Model_Name, Batch_Size]
  checkpoints: {{directory: pieces/, interval: 5}}
merge: {{sort_by: Number}}
prompts: {{config_file: ask/what.json}}
monitoring: {{status_dir: states/, logs_dir: notes/, save_terminal_logs: no, create_summaries: no}}
table: {{format: csv, delimiter: ";", columns: {{RowID: Nr, Message: Text}}}}
dedupe: false
"""


@pytest.mark.promise(1)
@pytest.mark.promise(2)
def test_a_job_that_says_everything(desk: Desk) -> None:
    """The same text in all rows: asked once per row all the same, since `dedupe` is off."""
    home = desk.folder / "jobs" / "whole"
    (home / "in").mkdir(parents=True)
    (home / "ask").mkdir()
    (home / "ask" / "what.json").write_text(json.dumps(PROMPT))
    for name, first in (("first", 0), ("second", 100)):
        lines = [f"n{first + number};{(number * 7) % 12};late shipping\n" for number in range(12)]
        (home / "in" / f"{name}.txt").write_text("Nr;Number;Text\n" + "".join(lines))
    (home / "job.yaml").write_text(WHOLE)
    where = ("--data-dir", str(desk.data_dir), "--run-id", "whole")
    done = desk.prism("run", str(home / "job.yaml"), *where, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["rows"] == {"in": 24, "ok": 24, "failed": 0}
    results = desk.folder / "results"
    assert sorted(one.name for one in results.iterdir()) == [
        "voices-v2-february.csv", "voices-v2-february.jsonl",
        "voices-v2-january.csv", "voices-v2-january.jsonl",
    ]  # fmt: skip
    header, *rows = [
        line.split(";") for line in (results / "voices-v2-february.csv").read_text().splitlines()
    ]
    assert header == ["RowID", "Topic", "Model_Name", "Batch_Size"]
    assert [row[0] for row in rows] == [f"n{100 + number * 7 % 12}" for number in range(12)]
    assert {(row[2], row[3]) for row in rows} == {(OTHER_MODEL, "4")}
    first = json.loads((results / "voices-v2-january.jsonl").read_text().splitlines()[0])
    assert first == {"RowID": "n0", "Topic": rows[0][1], "Model_Name": OTHER_MODEL, "Batch_Size": 4}
    stats = desk.stats()
    assert (stats["calls"], stats["rows"]) == (6, 24)
    notes = {one.name for one in (desk.folder / "notes" / "whole").iterdir()}
    assert notes == {"run_manifest.json", "analytics_whole.csv"}
    assert list((desk.folder / "states" / "whole").glob("worker_*.json"))
    parts = [
        len(one.read_text().splitlines()) - 1 for one in (desk.folder / "pieces" / "whole").glob("*.csv")
    ]
    assert sorted(parts) == [2, 2, 5, 5, 5, 5]
    assert not (desk.folder / "logs" / "whole").exists()
    assert not (desk.folder / "checkpoints" / "whole").exists()


@pytest.mark.promise(1)
def test_the_cloud_files_of_prism_v6_run_as_they_are(desk: Desk) -> None:
    """Their model is in the cloud: the fleet's own answers instead, as the flag says."""
    home = desk.folder / "jobs" / "cloud"
    for place, name in (("job_config.yaml", "job_config.yaml"),
                        ("prompts/classification_prompt.json", "prompt_cloud.json")):  # fmt: skip
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_bytes((SEEDS / f"cloud_{name}").read_bytes())
    (home / "data").mkdir()
    (home / "data" / "feedback.csv").write_text(table(40))
    words = ("--model", MODEL, "--data-dir", str(desk.data_dir), "--run-id", "cloud")
    done = desk.prism("run", str(home / "job_config.yaml"), *words)
    assert done.returncode == 0, done.stderr
    prompt = json.loads((SEEDS / "cloud_prompt_cloud.json").read_bytes())
    rows = desk.rows("cloud", "feedback")
    assert [row["RowID"] for row in rows] == [str(number) for number in range(1, 41)]
    assert {row["Topic"] for row in rows} <= set(prompt["validation_rules"]["valid_topic"])
    assert (desk.folder / "logs" / "cloud" / "summary_cloud.md").is_file()


def test_several_models_do_every_row_or_their_share(desk: Desk) -> None:
    models = f"names: [{MODEL}, {OTHER_MODEL}], batch_size: 5, delay: 0"
    for mode in ("fanout", "split"):
        desk.control(reset=True)
        job(desk, mode, table(20), f"model: {{{models}, mode: {mode}}}\n")
        assert desk.stats()["rows"] == (40 if mode == "fanout" else 20)
    every, shares = desk.rows("fanout", "t"), desk.rows("split", "t")
    assert len(every) == len(shares) == 20
    assert {f"Topic_{MODEL}", f"Topic_{OTHER_MODEL}"} <= every[0].keys()
    assert {row["Model_Name"] for row in every} == {f"{MODEL}, {OTHER_MODEL}"}
    assert [row["Model_Name"] for row in shares] == ([MODEL] * 5 + [OTHER_MODEL] * 5) * 2
