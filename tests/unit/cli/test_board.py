"""The board: how long a worker has been silent, whatever its clock says."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Message

from prism.kafka.clients import KafkaSettings
from prism.kafka.records import Record
from prism.kafka.table import Handler
from prism.messages import Topics
from prism_cli import board as boards
from prism_cli.board import Board
from tests.unit.cli.views import NOW, nowhere, worker_view


class FakeReader:
    """Hands over the records that a test gives it."""

    broker_away = False
    latest: "FakeReader"

    def __init__(self, _settings: KafkaSettings, handlers: Mapping[str, Handler]) -> None:
        self.caught_up = False
        self.handlers = handlers
        FakeReader.latest = self


def test_silence_is_measured_by_our_own_clock_once_we_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "TableReader", FakeReader)
    seconds = [100.0]
    board = Board(nowhere(Path("data")), lambda: NOW, lambda: seconds[0])

    def beat(minutes_ahead: float) -> None:
        updated = (NOW + timedelta(minutes=minutes_ahead)).isoformat()
        value = worker_view(updated_at=updated).heartbeat.to_bytes()
        topic = Topics().workers
        FakeReader.latest.handlers[topic](Record(topic, 0, 0, "worker-1", value, 0, cast(Message, None)))

    beat(-1.0)
    assert board.workers()[0].silent_s == 60.0, "what was there before can only be told by its clock"
    FakeReader.latest.caught_up = True
    beat(+10.0)
    seconds[0] += 7.0
    assert board.workers()[0].silent_s == 7.0
    assert board.workers()[0].lost
    beat(-10.0)
    assert not board.workers()[0].lost
