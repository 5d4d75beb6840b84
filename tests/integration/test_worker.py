"""A model worker as a process: batches in, results out, deaths, outages, orders to stop."""

import json
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition

from prism.kafka.admin import ensure_topics, topic_id
from prism.kafka.clients import ErrorWatch
from prism.kafka.commit_note import CAREFUL_AFTER, CommitNote
from prism.messages import Batch, BatchRow, Heartbeat, Result, RunState, WorkerState
from prism.messages.topics import TopicSpec
from prism.runs.credit import MIN_WINDOW
from prism_embedded.model_server import EmbeddedModelServer
from prism_embedded.model_state import Behaviour
from tests.harness.model_server import ModelControl
from tests.integration.stage import MODEL, PARTITIONS, SHORT_SESSION, Service, Stage, await_value

GOOD = "This is great, I love it."


def texts(count: int, rows: int = 3) -> list[list[str]]:
    return [[GOOD] * rows for _ in range(count)]


def committed(stage: Stage) -> dict[int, tuple[int, CommitNote]]:
    """Return offset and note by partition."""
    reader = stage.kafka.reader(ErrorWatch(), **{"group.id": stage.group})
    places = reader.committed(
        [TopicPartition(stage.topics.batches, one) for one in range(PARTITIONS)], timeout=10
    )
    reader.close()
    return {one.partition: (one.offset, CommitNote.decode(one.metadata, one.offset)) for one in places}


def outcomes(results: list[Result]) -> dict[str, str]:
    """Return row id → `ok` or the reason; a row that is there twice is an error."""
    rows = [row for result in results for row in result.rows]
    assert len({row.row_id for row in rows}) == len(rows)
    return {row.row_id: row.reason or "ok" for row in rows}


def rows_asked(model: ModelControl) -> Counter[int]:
    """Return how many rows were asked about how often."""
    return Counter(model.stats()["calls_by_rows"].values())


def heartbeats(stage: Stage) -> list[Heartbeat]:
    return [Heartbeat.parse(record.value) for record in stage.seen(stage.topics.workers)]


@pytest.mark.promise(1)
def test_each_batch_is_answered_once_and_a_stop_gives_everything_back(
    stage: Stage, model: ModelControl
) -> None:
    stage.put_run()
    stage.put_batches(texts(24))
    worker = stage.worker(model.url, PRISM_WORKER_ID="w1")
    results = stage.results(24)
    assert Counter(result.id for result in results) == Counter(f"r/l/{n}" for n in range(24))
    assert set(outcomes(results).values()) == {"ok"}
    assert rows_asked(model) == {1: 72}
    assert {record.partition for record in stage.seen(stage.topics.results)} == {1}  # the run's own
    first = results[0]
    assert (first.model, first.worker_id, first.batch_size, first.usage.calls) == (
        "prism-embedded",
        "w1",
        10,
        1,
    )
    assert first.model_digest
    assert first.rows[0].values == ["Positive"]
    headers = stage.seen(stage.topics.results)[0].headers
    assert headers["ce_id"] == f"{first.id}/result"
    await_value(
        lambda: any(beat.rows_processed == 72 for beat in heartbeats(stage)), "a heartbeat that counts"
    )
    share = next(beat for beat in heartbeats(stage) if beat.rows_processed == 72).runs["r"]
    assert (share.rows, share.failed, share.calls) == (72, 0, sum(one.usage.calls for one in results))
    assert share.tokens == sum(one.usage.prompt_tokens + one.usage.completion_tokens for one in results)
    assert worker.await_ready() == {"status": "ready", "topic": stage.requests}

    assert worker.terminate() == 0
    assert heartbeats(stage)[-1].state is WorkerState.STOPPED
    for offset, note in committed(stage).values():
        assert (offset, note.owner, note.losses, note.finished) == (6, "", 0, ())
    assert worker.lines("crashed") == worker.lines("fatal") == []


@pytest.mark.promise(9)
def test_garbage_goes_to_the_dead_letters_and_stops_nothing(stage: Stage, model: ModelControl) -> None:
    stage.put_run()
    worker = stage.worker(model.url)
    batch = Batch(run_id="r", label="l", sequence=7, first_row=0, rows=[])
    garbage: list[bytes | None] = [
        b"not json",
        b"",
        b"[" * 100_000,
        b"\xff\x00",
        json.dumps({"run_id": "r", "label": "l"}).encode(),
        batch.model_copy(update={"run_id": "nobody"}).to_bytes(),
        batch.model_copy(update={"label": "other"}).to_bytes(),
        b"x" * 4_000_000,
        None,
    ]
    for value in garbage:
        stage.put(stage.topics.batches, value, b"\xff", {"who": b"\xff\xfe"}, partition=0)
    strange = BatchRow.model_construct(row_id="s", cells=[], rejected="a_reason_of_tomorrow")
    odd = batch.model_copy(update={"sequence": 50, "rows": [strange]})
    stage.put(stage.topics.batches, odd.to_bytes(), odd.id, partition=0)
    stage.put_batches(texts(4), partition=0)

    results = stage.results(5)
    assert outcomes(results) == {f"{b}-{n}": "ok" for b in range(4) for n in range(3)} | {
        "s": "a_reason_of_tomorrow"
    }
    letters = stage.dead_letters(len(garbage))
    assert [letter.value for letter in letters] == [
        value or None if value is None else value for value in garbage
    ]
    reasons = [letter.headers["prism_reason"] for letter in letters]
    assert reasons == ["not_parsed"] * 5 + ["unknown_run"] * 2 + ["not_parsed"] * 2
    assert [letter.headers["prism_offset"] for letter in letters] == [str(n) for n in range(len(garbage))]
    await_value(lambda: committed(stage)[0][0] == len(garbage) + 5, "garbage is committed past")
    assert worker.process.poll() is None


@pytest.mark.promise(9)
def test_without_the_topics_of_requests_batches_are_done_and_they_are_looked_for(
    stage: Stage, model: ModelControl
) -> None:
    worker = stage.worker(model.url, PRISM_CREATE_TOPICS="false")
    off = f"off: topic {stage.requests} is not there; make it: prism admin topics --create"
    assert await_value(lambda: worker.await_ready().get("requests"), "it to say so") == off
    stage.put_run()
    stage.put_batches(texts(1))
    assert set(outcomes(stage.results(1)).values()) == {"ok"}
    topics = [TopicSpec(one, 1, {}) for one in (stage.requests, stage.photo_replies, stage.text_replies)]
    ensure_topics(stage.admin, topics, 1)
    stage.put(stage.requests, b'{"user_email": "a@b.c", "prompt": "Who is there?"}', "k")
    await_value(lambda: stage.seen(stage.text_replies), "a reply")
    assert worker.await_ready() == {"status": "ready", "topic": stage.requests}
    assert len(worker.lines("requests_off")) == 1


@pytest.mark.promise(9)
def test_a_header_in_latin_1_kills_no_worker(stage: Stage, model: ModelControl) -> None:
    stage.put_run()
    stage.kcat(stage.topics.batches, b"x", "-p", "0", "-H", b"gr\xf6\xdfe=1")
    stage.put_batches(texts(1), partition=0)
    stage.worker(model.url)
    assert len(stage.results(1)) == 1
    assert stage.dead_letters(1)[0].headers["prism_reason"] == "not_parsed"


@pytest.mark.promise(4)
@pytest.mark.promise(5)
def test_after_a_kill_only_what_was_in_flight_is_asked_again(stage: Stage, model: ModelControl) -> None:
    stage.put_run()
    model.set(faults="text:SLOW=hang")
    stage.put_batches([["SLOW one"], *texts(10), ["SLOW two"], *texts(5)], partition=2)
    first = stage.worker(model.url, ready=True, **SHORT_SESSION)
    stage.results(15)

    def noted() -> bool:
        offset, note = committed(stage)[2]
        return (offset, note.finished) == (0, ((1, 10), (12, 16)))

    await_value(noted, "what is finished above the frontier is in the commit")
    first.kill()
    model.set(faults="")
    stage.worker(model.url)
    results = stage.results(17)
    assert Counter(result.id for result in results) == Counter(f"r/l/{n}" for n in range(17))
    await_value(lambda: committed(stage)[2][0] == 17, "everything is committed")
    assert rows_asked(model) == {1: 45, 2: 2}


@pytest.mark.promise(5)
def test_a_stop_waits_for_what_is_being_asked(stage: Stage, model: ModelControl) -> None:
    stage.put_run()
    model.set(latency_ms=1500)
    worker = stage.worker(model.url, CONCURRENT_REQUESTS="4")
    stage.put_batches(texts(20))
    await_value(lambda: model.stats()["in_flight"] == 4, "four calls")
    assert worker.terminate() == 0
    done = len(stage.results(4))
    assert done < 20, "what nobody has begun is left to others"
    assert rows_asked(model) == {1: 3 * done}
    model.set(latency_ms=0)
    stage.worker(model.url)
    stage.results(20)
    assert rows_asked(model) == {1: 60}


@pytest.mark.promise(9)
@pytest.mark.promise(10)
def test_an_outage_of_the_model_server_is_said_and_waited_for(stage: Stage, model: ModelControl) -> None:
    stage.put_run()
    worker = stage.worker(model.url)
    stage.put_batches(texts(4))
    stage.results(4)
    model.set(down=True)
    body = worker.await_ready(503, seconds=10)
    assert "model server" in body["reason"]
    stage.put_batches(texts(8), first=4)
    await_value(
        lambda: any(beat.state is WorkerState.WAITING for beat in heartbeats(stage)), "a heartbeat says so"
    )
    assert len(stage.seen(stage.topics.results)) == 4
    model.set(down=False)
    worker.await_ready()
    assert set(outcomes(stage.results(12)).values()) == {"ok"}
    assert rows_asked(model) == {1: 36}


@pytest.mark.promise(9)
def test_a_row_that_breaks_the_server_fails_and_no_other(stage: Stage, model: ModelControl) -> None:
    stage.put_run(retries="1", delay="0")
    model.set(faults="text:BREAKS=http_500,text:ENDS=disconnect")
    stage.put_batches([[GOOD, "it BREAKS", GOOD], *texts(3), [GOOD, GOOD, "it ENDS"]])
    stage.worker(model.url)
    found = outcomes(stage.results(5))
    failed = {row_id: reason for row_id, reason in found.items() if reason != "ok"}
    assert failed == {"0-1": "model_error", "4-2": "model_error"}

    def told() -> list[Heartbeat]:
        return [beat for beat in heartbeats(stage) if beat.rows_processed == 15]

    beat = await_value(told, "a heartbeat that counts")[0]
    assert (beat.errors, beat.last_error, beat.runs["r"].failed) == (2, "model_error", 2)


def test_a_cancelled_run_is_answered_without_calls(stage: Stage, model: ModelControl) -> None:
    stage.put_run()
    model.set(latency_ms=3000)
    stage.worker(model.url, CONCURRENT_REQUESTS="1")
    stage.put_batches(texts(5), partition=0)
    await_value(lambda: model.stats()["in_flight"] == 1, "a call")
    stage.put_run(RunState.CANCELLED)
    found = Counter(outcomes(stage.results(5)).values())
    assert found["cancelled"] >= 12
    assert model.stats()["calls"] == 1


def test_a_worker_that_never_knew_a_cancelled_run_answers_it_too(stage: Stage, model: ModelControl) -> None:
    stage.put_run(RunState.CANCELLED)
    stage.put_batches(texts(3))
    stage.worker(model.url)
    assert set(outcomes(stage.results(3)).values()) == {"cancelled"}
    assert model.stats()["calls"] == 0


def test_a_run_that_is_completed_is_not_paid_for_again(stage: Stage, model: ModelControl) -> None:
    stage.put_run(RunState.COMPLETED)
    stage.put_batches(texts(3), partition=0)
    stage.put_run(run_id="other")
    stage.put_batches(texts(1), run_id="other", partition=0)
    stage.worker(model.url)
    assert [result.run_id for result in stage.results(1)] == ["other"]
    await_value(lambda: committed(stage)[0][0] == 4, "they are committed past")
    assert rows_asked(model) == {1: 3}


@pytest.mark.promise(9)
def test_a_row_that_kills_each_worker_is_found(stage: Stage, model: ModelControl) -> None:
    stage.put_run()
    poison = [*texts(2), [GOOD, "deadly nightshade", GOOD], *texts(3)]
    stage.put_batches(poison, partition=0)
    deaths = 0

    def next_worker() -> Service:
        return stage.worker(
            model.url, ready=False, PRISM_CRASH_AT="worker.before_call~nightshade", **SHORT_SESSION
        )

    worker = next_worker()
    deadline = time.monotonic() + 60
    while len(stage.seen(stage.topics.results)) < 6:
        assert time.monotonic() < deadline, f"{deaths} deaths, and still {committed(stage)[0]}"
        if worker.process.poll() is not None:
            deaths += 1
            worker = next_worker()
        time.sleep(0.02)
    found = outcomes(stage.results(6))
    assert {row_id: reason for row_id, reason in found.items() if reason != "ok"} == {"2-1": "poison"}
    assert deaths <= 7
    await_value(lambda: committed(stage)[0][0] == 6, "everything is committed")


@pytest.fixture
def other_model() -> Iterator[ModelControl]:
    """Another model server than the worker's own."""
    with EmbeddedModelServer(Behaviour()) as server:
        yield ModelControl(server.url)


@pytest.mark.promise(9)
@pytest.mark.parametrize("begun", [False, True], ids=["before", "in the middle"])
def test_a_suspect_whose_server_is_away_holds_nobody_up(
    stage: Stage, model: ModelControl, other_model: ModelControl, begun: bool
) -> None:
    stage.put_run(run_id="gone", entry={"name": MODEL, "base_url": [other_model.url]})
    stage.put_batches(texts(1), "gone", partition=0)
    suspected = CommitNote(topic_id(stage.admin, stage.topics.batches), losses=CAREFUL_AFTER, careful_until=9)
    consumer = Consumer({"bootstrap.servers": stage.bootstrap, "group.id": stage.group})
    place = TopicPartition(stage.topics.batches, 0, 0, metadata=suspected.encode(0))
    consumer.commit(offsets=[place], asynchronous=False)
    consumer.close()
    other_model.set(down=not begun, latency_ms=1000)
    worker = stage.worker(model.url)
    if begun:
        await_value(lambda: other_model.stats()["in_flight"], "the suspect's call")
        assert worker.lines("working_alone")
        other_model.set(down=True)
    stage.put_run()
    stage.put_batches(texts(3), partition=1)
    assert {result.run_id for result in stage.results(3)} == {"r"}
    await_value(
        lambda: any("gone" in one.waiting for one in heartbeats(stage)[-1:]), "the worker to say what waits"
    )
    other_model.set(down=False, latency_ms=0)
    assert [result.run_id for result in stage.results(4)][3:] == ["gone"]


@pytest.mark.promise(9)
def test_runs_stuck_on_servers_that_are_away_leave_a_hand_for_the_others(
    stage: Stage, model: ModelControl, other_model: ModelControl
) -> None:
    """A window of each of two runs lies before the third one's batches, in every partition."""
    other_model.set(down=True)
    for run_id in ("gone", "lost"):
        stage.put_run(run_id=run_id, entry={"name": MODEL, "base_url": [other_model.url]})
        stage.put_batches(texts(MIN_WINDOW), run_id)
    stage.put_run()
    stage.put_batches(texts(PARTITIONS))
    stage.worker(model.url, CONCURRENT_REQUESTS="2")
    assert {result.run_id for result in stage.results(PARTITIONS)} == {"r"}
    await_value(lambda: {"gone", "lost"} <= heartbeats(stage)[-1].waiting.keys(), "both to be said to wait")
    other_model.set(down=False)
    counts = Counter(result.run_id for result in stage.results(2 * MIN_WINDOW + PARTITIONS))
    assert counts == {"r": PARTITIONS, "gone": MIN_WINDOW, "lost": MIN_WINDOW}


def test_two_workers_share_the_partitions_and_no_batch_is_answered_twice(
    stage: Stage, model: ModelControl
) -> None:
    stage.put_run()
    model.set(latency_ms=50)
    one = stage.worker(model.url, PRISM_WORKER_ID="one", CONCURRENT_REQUESTS="2")
    stage.put_batches(texts(60))
    two = stage.worker(model.url, PRISM_WORKER_ID="two", CONCURRENT_REQUESTS="2")
    results = stage.results(60)
    assert Counter(result.id for result in results) == Counter(f"r/l/{n}" for n in range(60))
    assert one.terminate() == two.terminate() == 0
    assert rows_asked(model) == {1: 180}


def test_rows_that_say_the_same_are_asked_once(stage: Stage, model: ModelControl) -> None:
    stage.put_run(dedupe=True)
    model.set(latency_ms=50)
    stage.put_batches([[f"{GOOD} {row % 7}" for row in range(n, n + 3)] for n in range(40)])
    stage.worker(model.url, CONCURRENT_REQUESTS="4")
    results = stage.results(40)
    assert Counter(outcomes(results).values()) == {"ok": 120}
    assert sum(model.stats()["calls_by_rows"].values()) == 7
    assert sum(result.usage.reused_rows for result in results) == 113


def test_who_waits_for_a_row_does_not_wait_for_the_others_of_its_batch(
    stage: Stage, model: ModelControl
) -> None:
    stage.put_run(dedupe=True, retries="2", delay="600")
    model.set(latency_ms=100, faults="text:BAD=http_400")
    stage.put_batches([[GOOD, "BAD"]], partition=0)
    stage.worker(model.url, CONCURRENT_REQUESTS="2")
    await_value(lambda: model.stats()["calls_by_rows"], "the first call")
    stage.put_batches([[GOOD]], first=1, partition=0)
    assert [result.id for result in stage.results(1)] == ["r/l/1"]


def test_a_failure_is_asked_again_for_each_that_says_the_same(stage: Stage, model: ModelControl) -> None:
    stage.put_run(dedupe=True, retries="1")
    model.set(faults="truncated_json=1")
    stage.put_batches([["the same"]] * 5, partition=0)
    stage.worker(model.url, CONCURRENT_REQUESTS="4")
    assert set(outcomes(stage.results(5)).values()) == {"not_json"}


def test_a_wrong_setting_is_one_line_and_3(stage: Stage, model: ModelControl) -> None:
    worker = stage.worker(model.url, ready=False, CONCURRENT_REQUESTS="many")
    assert worker.process.wait(20) == 3
    assert worker.log.read_text() == "CONCURRENT_REQUESTS: 'many' is wrong; allowed: 1 to 1024\n"
