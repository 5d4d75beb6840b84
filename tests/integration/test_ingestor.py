"""An ingestor as a process: CSVs in, batches out under credit, commands."""

import gzip
import hashlib
import json
import uuid
from collections import Counter

import pytest
from confluent_kafka import TopicPartition

from prism.kafka.admin import topic_ends
from prism.kafka.clients import ErrorWatch
from prism.messages import FileReason, MergeState, Progress, RunState
from prism.runs.credit import MIN_WINDOW
from tests.integration.desk import Desk, csv_of, expected_rows, reference, rows_of
from tests.integration.stage import PARTITIONS, Stage, await_value

# Acceptance


@pytest.mark.promise(1)
def test_a_dropped_file_is_accepted_checked_and_fed(desk: Desk) -> None:
    run_id = desk.drop(csv_of(20), job="three", filename="march.csv", priority="7")
    record = desk.running(run_id)
    assert [one.state for one in desk.stage.states(run_id)] == [RunState.ACCEPTED, RunState.RUNNING]
    assert (record.job_name, record.priority, record.prompt["columns_to_code"]) == ("three", 7, ["Sentiment"])
    file = record.files[0]
    assert (file.label, file.filename, file.rows, file.batches, file.columns) == (
        "march", "march.csv", 20, 7, ["RowID", "Message"],
    )  # fmt: skip
    assert file.sha256 == hashlib.sha256(csv_of(20)).hexdigest()
    batches = desk.fed(run_id, 7)
    assert [batch.sequence for batch in batches] == list(range(7))
    assert [batch.first_row for batch in batches] == [0, 3, 6, 9, 12, 15, 18]
    assert rows_of(batches) == expected_rows(20)
    records = [one for one in desk.stage.seen(desk.stage.topics.batches) if one.key.startswith(f"{run_id}/")]
    assert {one.key for one in records} == {f"{run_id}/march/{n}" for n in range(7)}
    assert {one.headers["ce_id"] for one in records} == {one.key for one in records}
    desk.complete(run_id)


def test_a_file_dropped_with_kcat(desk: Desk) -> None:
    desk.stage.kcat(
        desk.stage.topics.intake, csv_of(6), "-k", "march", "-H", "job=three", "-H", "run-id=kcat1"
    )
    assert rows_of(desk.fed("kcat1", 2)) == expected_rows(6)
    desk.complete("kcat1")


def test_a_file_without_any_header_gets_a_name_of_its_own(desk: Desk) -> None:
    desk.stage.put(desk.stage.topics.intake, csv_of(2), None, partition=2)
    offset = topic_ends(desk.stage.admin, desk.stage.topics.intake, [2]).high[2] - 1
    runs = desk.stage.topics.runs
    found = await_value(
        lambda: [one for one in desk.stage.seen(runs) if one.key.endswith(f"_2-{offset}")], "its run"
    )
    run_id = found[0].key
    assert run_id.startswith("run_v1_m0_")
    assert desk.running(run_id).files[0].label == run_id
    desk.fed(run_id, 1)
    desk.stage.put_progress(run_id, 1, state=MergeState.PUBLISHED, label=run_id)
    desk.stage.await_state(run_id, RunState.COMPLETED)


def test_batches_go_where_there_are_least(desk: Desk) -> None:
    run_id = desk.drop(csv_of(48))
    desk.fed(run_id, 24)
    partitions = Counter(
        one.partition
        for one in desk.stage.seen(desk.stage.topics.batches)
        if one.key.startswith(f"{run_id}/")
    )
    assert set(partitions.values()) == {24 // PARTITIONS}
    desk.complete(run_id)


def test_a_header_without_rows_is_a_run_of_no_rows(desk: Desk) -> None:
    run_id = desk.drop(b"RowID,Message\n")
    assert desk.running(run_id).rows == 0
    desk.stage.put_progress(run_id, 0, label="march")
    assert desk.stage.await_state(run_id, RunState.MERGING).files[0].batches == 0
    desk.complete(run_id)


def test_cells_arrive_as_they_were_and_bad_rows_with_their_reason(desk: Desk) -> None:
    content = '\ufeffRowID,Message,Note\r\n001,"a\nb",NA\n\n1.10,,x\n2,\u2028é,"=1"\n3,short\n'.encode()
    run_id = desk.drop(content)
    rows = [row for batch in desk.fed(run_id, 2) for row in batch.rows]
    assert [(row.row_id, row.cells, row.rejected) for row in rows] == [
        ("001", ["001", "a\nb", "NA"], None),
        ("1.10", ["1.10", "", "x"], "empty_message"),
        ("2", ["2", "\u2028é", "=1"], None),
        ("3", ["3", "short"], "wrong_cell_count"),
    ]
    desk.complete(run_id)


def test_chunks_in_any_order_one_twice_and_some_of_a_dead_sender(desk: Desk) -> None:
    content = csv_of(30)
    pieces = {1: content[:100], 2: content[100:333], 3: content[333:]}
    run_id = f"r{uuid.uuid4().hex[:8]}"
    for number in (1, 2):  # of a sender that died, whose file was another
        desk.drop(b"RowID,Text\n", run_id=run_id, part=str(number), parts="4")
    for number in (1, 3, 1, 2):
        desk.drop(pieces[number], run_id=run_id, part=str(number), parts="3")
    assert rows_of(desk.fed(run_id, 15)) == expected_rows(30)
    partition = _partition_of(desk, run_id)
    await_value(
        lambda: _intake_committed(desk)[partition] == _intake_end(desk, partition), "every chunk is committed"
    )
    desk.complete(run_id)


def _partition_of(desk: Desk, run_id: str) -> int:
    source = desk.running(run_id).files[0].source
    assert source.kind == "message"
    return source.partition


def _intake_end(desk: Desk, partition: int) -> int:
    return topic_ends(desk.stage.admin, desk.stage.topics.intake, [partition]).high[partition]


def _intake_committed(desk: Desk) -> dict[int, int]:
    reader = desk.stage.kafka.reader(
        ErrorWatch(), **{"group.id": f"{desk.stage.topics.prefix}ingestors-intake"}
    )
    places = reader.committed([TopicPartition(desk.stage.topics.intake, n) for n in range(4)], timeout=10)
    reader.close()
    return {one.partition: one.offset for one in places}


def test_gzip(desk: Desk) -> None:
    run_id = desk.drop(gzip.compress(csv_of(6)), content_encoding="gzip")
    assert rows_of(desk.fed(run_id, 3)) == expected_rows(6)
    desk.complete(run_id)


def test_a_reference(desk: Desk) -> None:
    value = reference(desk, "big file.csv", csv_of(8))
    run_id = desk.drop(value, content_type="application/json")
    assert rows_of(desk.fed(run_id, 4)) == expected_rows(8)
    desk.complete(run_id)


@pytest.mark.promise(1)
def test_the_same_file_under_the_same_id_is_the_same_run(desk: Desk) -> None:
    run_id = desk.drop(csv_of(4))
    desk.running(run_id)
    desk.drop(csv_of(4), run_id=run_id)
    marker = desk.drop(csv_of(2))
    desk.fed(marker, 1)
    assert _accepted(desk, run_id) == 1
    assert len(desk.fed(run_id, 2)) == 2
    desk.drop(csv_of(5), run_id=run_id)
    (letter,) = await_value(
        lambda: [
            one
            for one in desk.stage.seen(desk.stage.topics.dead_letter)
            if one.headers.get("run-id") == run_id
        ],
        "a dead letter",
    )
    assert letter.headers["prism_reason"] == "run_id_taken"
    assert letter.value == csv_of(5)
    assert _accepted(desk, run_id) == 1
    desk.complete(run_id)
    desk.complete(marker)


def _accepted(desk: Desk, run_id: str) -> int:
    """How often a run began: of one that goes on there may be more records, such as why it stalls."""
    states = [one.state for one in desk.stage.states(run_id)]
    assert set(states) <= {RunState.ACCEPTED, RunState.RUNNING}
    return states.count(RunState.ACCEPTED)


# Feeding


@pytest.mark.promise(4)
def test_no_more_than_the_window_is_unmerged(desk: Desk) -> None:
    run_id = desk.drop(csv_of(400))
    desk.fed(run_id, MIN_WINDOW)
    marker = desk.drop(csv_of(2))
    desk.fed(marker, 1)  # another run is fed meanwhile
    assert len(desk.fed(run_id, MIN_WINDOW)) == MIN_WINDOW
    desk.stage.put_progress(run_id, 10, label="march")
    assert len(desk.fed(run_id, MIN_WINDOW + 10)) == MIN_WINDOW + 10
    desk.stage.put_progress(run_id, 10, label="march")  # absolute: said twice it counts once
    desk.stage.put_heartbeat(50)
    assert len(desk.fed(run_id, 110)) == 110
    desk.complete(marker)
    desk.complete(run_id)


def test_pause_resume_and_cancel(desk: Desk) -> None:
    run_id = desk.drop(csv_of(1000))
    desk.fed(run_id, MIN_WINDOW)
    _command(desk, run_id, "pause")
    desk.stage.await_state(run_id, RunState.PAUSED)
    count = len(desk.stage.batches(run_id))
    desk.stage.put_progress(run_id, 20, label="march")
    marker = desk.drop(csv_of(2))
    desk.fed(marker, 1)
    assert len(desk.stage.batches(run_id)) == count
    _command(desk, run_id, "resume")
    desk.stage.await_state(run_id, RunState.RUNNING)
    desk.fed(run_id, count + 20)
    _command(desk, run_id, "cancel")
    record = desk.stage.await_state(run_id, RunState.CANCELLED)
    assert record.reason == "cancelled"
    cursors = [
        json.loads(one.value or b"{}")
        for one in desk.stage.seen(desk.stage.topics.runs)
        if one.key == f"{run_id}/cursor"
    ]
    fed = max(batch.sequence for batch in desk.stage.batches(run_id)) + 1
    assert cursors[-1]["files"]["march"]["next"]["sequence"] == fed
    desk.complete(marker)


def _command(desk: Desk, run_id: str, command: str) -> None:
    desk.stage.put(desk.stage.topics.control, json.dumps({"command": command}).encode(), run_id)


def test_a_command_comes_before_its_run(desk: Desk) -> None:
    run_id = f"r{uuid.uuid4().hex[:8]}"
    _command(desk, run_id, "cancel")
    desk.drop(csv_of(4), run_id=run_id)
    desk.stage.await_state(run_id, RunState.CANCELLED)


def test_runs_are_cancelled_while_they_are_checked(stage: Stage) -> None:
    """Each takes pass 1 a quarter of a minute: the last file is fed in time only if all are broken off."""
    desk = Desk(stage)
    stage.service("prism_merger", "merger").await_ready()  # a new one leaves alone what has ended
    hours = gzip.compress(b"Message\n" + b"x\n" * 7_000_000)
    runs = [desk.drop(hours, content_encoding="gzip") for _ in range(4)]
    spool = stage.folder / "data" / "ingestor"
    await_value(lambda: any(spool.glob(f"*/spool/{runs[0]}")), "pass 1 of the first")
    for run_id in runs:
        _command(desk, run_id, "pause")
        _command(desk, run_id, "cancel")
    desk.fed(desk.drop(csv_of(2)), 1)
    for run_id in runs:
        assert stage.await_state(run_id, RunState.CANCELLED).reason == "cancelled"
        assert {one.state for one in stage.states(run_id)} == {RunState.ACCEPTED, RunState.CANCELLED}
        assert not any(spool.glob(f"*/spool/{run_id}"))
    # Nothing was fed, so the merger waits for nothing.
    await_value(lambda: _withheld(stage) >= set(runs), "the merger to give up every run")
    manifest = json.loads((stage.folder / "data" / "logs" / runs[0] / "run_manifest.json").read_text())
    assert (manifest["status"], manifest["rows"]) == ("cancelled", {"in": 0, "ok": 0, "failed": 0})


def _withheld(stage: Stage) -> set[str]:
    told = [Progress.parse(one.value) for one in stage.seen(stage.topics.progress)]
    return {one.run_id for one in told if one.state is MergeState.WITHHELD}


def test_a_command_that_is_none_is_buried(desk: Desk) -> None:
    desk.stage.put(desk.stage.topics.control, b"explode", "x")
    letters = await_value(
        lambda: [one for one in desk.stage.seen(desk.stage.topics.dead_letter) if one.value == b"explode"],
        "a dead letter",
    )
    assert letters[0].headers["prism_reason"] == "unknown_command"


@pytest.mark.promise(6)
def test_a_source_that_changes_fails_its_run_alone(desk: Desk) -> None:
    value = reference(desk, "changing.csv", csv_of(4000))
    run_id = desk.drop(value, content_type="application/json")
    desk.fed(run_id, MIN_WINDOW)
    reference(desk, "changing.csv", csv_of(10, "other"))
    desk.stage.put_progress(run_id, MIN_WINDOW, label="march")
    record = desk.stage.await_state(run_id, RunState.FAILED)
    assert record.reason == FileReason.SOURCE_CHANGED
    assert {batch.rows[0].cells[1][:4] for batch in desk.stage.batches(run_id)} == {"text"}


def test_a_run_without_progress_says_why(desk: Desk) -> None:
    """Promise 10 takes ten quiet seconds: the longest wait of this file."""
    run_id = desk.drop(csv_of(2))
    desk.fed(run_id, 1)
    found = await_value(lambda: desk.stage.states(run_id)[-1].stalled, "a reason")
    assert "no merger" in found
    count = len(desk.stage.states(run_id))
    desk.stage.put_progress(run_id, 0, label="march")
    await_value(lambda: "no worker" in (desk.stage.states(run_id)[-1].stalled or ""), "another reason")
    assert len(desk.stage.states(run_id)) == count + 1  # a record for each change, and no more
    desk.complete(run_id)
    assert desk.stage.states(run_id)[-1].stalled is None
