"""Headers, keys, dead letters, and what a client's callbacks mean."""

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from prism.kafka.clients import ErrorWatch, _NotEachAttempt, receive
from prism.kafka.dead_letters import send_dead_letter
from prism.kafka.errors import BrokerFatal, is_fatal, is_stale_member, raise_if_fatal
from prism.kafka.records import (
    Record,
    event_headers,
    in_trace,
    read_headers,
    read_key,
    sent_trace,
    trace_parent,
)
from prism.messages import MessageReason, TraceContext


class FakeMessage:
    """What `Record.of` asks of a client's message."""

    def __init__(self, value: bytes | None, key: bytes | None = b"k", headers: Any = None) -> None:
        self._value, self._key, self._headers = value, key, headers

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 2

    def offset(self) -> int:
        return 9

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return (1, 1234)

    def headers(self) -> Any:
        if isinstance(self._headers, BaseException):
            raise self._headers
        return self._headers


class FakeProducer:
    """Takes records up to a size; its queue may be full for some calls."""

    def __init__(self, largest: int = 10**9, full: int = 0) -> None:
        self.sent: list[dict[str, Any]] = []
        self._largest, self._full = largest, full

    def produce(self, topic: str, **record: Any) -> None:
        if self._full:
            self._full -= 1
            raise BufferError
        if len(record["value"] or b"") > self._largest:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        self.sent.append({"topic": topic, **record})

    def poll(self, timeout: float) -> None:
        pass


def record_of(**fields: Any) -> Record:
    return Record.of(FakeMessage(**fields))  # type: ignore[arg-type]


def test_headers_are_text_and_the_last_of_a_name_wins() -> None:
    assert read_headers([("Job", b"a"), ("job", b"b"), ("x", None), ("y", "text")]) == {
        "job": "b",
        "y": "text",
    }
    assert read_headers([("job", b"\xff\xfe")]) == {"job": "\ufffd\ufffd"}
    assert read_headers(None) == {}


@pytest.mark.promise(9)
def test_a_header_that_the_client_cannot_read_is_no_error() -> None:
    record = record_of(value=b"x", headers=SystemError("a name is no UTF-8"))
    assert (record.headers_as_sent, record.headers) == (None, {})
    producer = FakeProducer()
    send_dead_letter(producer, "dead", record, MessageReason.NOT_PARSED, "why")  # type: ignore[arg-type]
    assert producer.sent[0]["value"] == b"x"
    assert record_of(value=b"x", headers={"a": b"1"}).headers == {"a": "1"}


def test_a_key_is_text_whatever_it_is() -> None:
    assert read_key(None) == ""
    assert read_key(b"\xffx") == "\ufffdx"
    assert read_key("x") == "x"


def test_ids_and_traces_are_deterministic() -> None:
    headers = dict(event_headers("batch", "r/l/1", "/prism/x", "r"))
    assert headers == dict(event_headers("batch", "r/l/1", "/prism/x", "r"))
    assert headers["ce_id"] == b"r/l/1"
    assert headers["ce_type"] == b"io.prism.batch"
    version, trace, span, flags = trace_parent("r", "r/l/1").split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
    assert trace_parent("r", "r/l/2").split("-")[1] == trace


TRACE = TraceContext("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "vendor=1")


def test_a_record_is_in_the_trace_that_is_given() -> None:
    headers = read_headers(event_headers("batch", "r/l/1", "/prism/x", "r", TRACE))
    assert sent_trace(headers) == TRACE
    assert (headers["traceparent"], headers["tracestate"]) == (TRACE.parent, "vendor=1")
    again = in_trace([("a", b"1"), *event_headers("batch", "c", "s", "r", TRACE)], TraceContext(TRACE.parent))
    assert [name for name, _ in again].count("traceparent") == 1
    assert read_headers(again).keys() == {"a", *headers} - {"tracestate"}


def test_what_stands_in_for_a_trace_is_nobodys_span() -> None:
    headers = read_headers(event_headers("batch", "r/l/1", "/prism/x", "r"))
    assert TraceContext.from_headers(headers) is not None
    assert sent_trace(headers) is None
    assert sent_trace({"traceparent": "nonsense", "ce_id": "r/l/1"}) is None


def test_a_dead_letter_is_the_original_and_why() -> None:
    producer = FakeProducer(full=2)
    record = record_of(value=b"\x00garbage", headers=[("a", b"1"), ("b", None)])
    send_dead_letter(producer, "dead", record, MessageReason.NOT_PARSED, "why \ud800")  # type: ignore[arg-type]
    (sent,) = producer.sent
    assert (sent["topic"], sent["key"], sent["value"]) == ("dead", b"k", b"\x00garbage")
    headers = dict(sent["headers"])
    assert headers["a"] == b"1"
    assert headers["prism_reason"] == b"not_parsed"
    assert headers["prism_detail"] == b"why ?"
    assert (headers["prism_topic"], headers["prism_partition"], headers["prism_offset"]) == (b"t", b"2", b"9")


@pytest.mark.promise(9)
def test_an_original_that_no_record_can_carry_leaves_its_place() -> None:
    producer = FakeProducer(largest=10)
    record = record_of(value=b"x" * 100, headers=[("a", b"1")])
    send_dead_letter(producer, "dead", record, MessageReason.NOT_PARSED, "d" * 5000)  # type: ignore[arg-type]
    (sent,) = producer.sent
    assert sent["value"] is None
    assert "a" not in dict(sent["headers"])
    assert len(dict(sent["headers"])["prism_detail"]) == 1000


def test_fatal_is_what_only_a_new_process_cures() -> None:
    assert is_fatal(KafkaError(KafkaError._FATAL))  # `fatal()` is false here
    assert not is_fatal(KafkaError(KafkaError._TRANSPORT))
    assert is_stale_member(KafkaError(KafkaError.REBALANCE_IN_PROGRESS))
    assert not is_stale_member(KafkaError(KafkaError._WAIT_COORD))
    raise_if_fatal(None)
    with pytest.raises(BrokerFatal):
        raise_if_fatal(KafkaError(KafkaError._FATAL))


def test_a_watch_raises_in_its_owners_loop() -> None:
    watch = ErrorWatch()
    watch(KafkaError(KafkaError._TRANSPORT))
    watch.check()
    watch(KafkaError(KafkaError._FATAL))
    with pytest.raises(BrokerFatal):
        watch.check()


def statistics(**brokers: tuple[str, int]) -> str:
    return json.dumps(
        {"brokers": {name: {"state": one[0], "rxidle": one[1]} for name, one in brokers.items()}}
    )


@pytest.mark.promise(10)
@pytest.mark.parametrize(
    ("brokers", "away"),
    [
        ({"a": ("UP", 40_000)}, False),
        ({"a": ("UP", 7_000_000)}, True),  # it is stopped: connected, and silent
        ({"a": ("INIT", -1)}, True),
        ({"a": ("INIT", -1), "b": ("UP", 0)}, False),
        ({}, True),
    ],
)
def test_a_broker_is_away_until_it_is_heard_of(brokers: dict[str, tuple[str, int]], away: bool) -> None:
    watch = ErrorWatch()
    watch(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert watch.all_brokers_down
    watch.on_statistics(statistics(**brokers))
    assert watch.all_brokers_down is away


@pytest.mark.promise(10)
def test_a_connection_that_is_lost_and_found_again_is_no_outage() -> None:
    now = [100.0]
    watch = ErrorWatch(lambda: now[0])
    watch.on_statistics(statistics(a=("UP", 0)))
    now[0] = 101.0
    watch(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    watch.on_statistics(statistics(a=("CONNECT", -1)))
    assert watch.away is None, "heard of 1 s ago"
    now[0] = 103.1
    assert watch.away == "no Kafka broker answers", "3.1 s ago"
    watch.on_statistics(statistics(a=("UP", 0)))
    assert watch.away is None


@pytest.mark.promise(10)
def test_a_broker_that_is_silent_is_away_without_more_ado() -> None:
    now = [100.0]
    watch = ErrorWatch(lambda: now[0])
    now[0] = 106.0
    watch.on_statistics(statistics(a=("UP", 6_000_000)))
    assert watch.away is not None


def test_an_outage_is_one_line_and_not_twenty_a_second() -> None:
    keep = _NotEachAttempt(every_s=30)

    def passes(text: str, at: float) -> bool:
        line = logging.LogRecord("librdkafka", logging.ERROR, "", 0, "%s", (text,), None)
        line.created = at
        return keep.filter(line)

    one = "FAIL [x#consumer-1] [thrd:host:9092/1]: host:9092/1: Connect failed after {} ms"
    assert passes(one.format(0), 100)
    assert not passes(one.format(7), 101)
    assert passes("FAIL [x#producer-2] [thrd:host:9092/1]: Connect failed", 101)
    assert passes("MAXPOLL [x#consumer-1] [thrd:main]: exceeded", 102)
    assert passes(one.format(0), 131)


def test_a_ctrl_c_in_a_clients_callback_is_no_internal_error() -> None:
    """As confluent-kafka 2.16 ends a poll in whose callback SIGINT came: the exception itself is lost."""

    def poll(_seconds: float) -> None:
        raise SystemError("<method 'poll'> returned NULL without setting an exception")

    consumer: Any = SimpleNamespace(poll=poll)
    with pytest.raises(KeyboardInterrupt):
        receive(consumer, 10, 0.1)
