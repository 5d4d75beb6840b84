"""A client of the request lane: sends photos or texts at a steady rate, and times their replies."""

import base64
import bisect
import io
import itertools
import json
import random
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, Producer, TopicPartition
from PIL import Image

REQUEST_TOPIC = "eater-send-photo"
REPLY_TOPICS = ("photo-analysis-response", "gemini-response")
PHOTO_BYTES = 500_000
PHOTO_SIZE = (3264, 2448)
_USER = "bench@example.com"
_LIE_ON_THEIR_SIDE = {0x0112: 6}
_REPLY_S = 60.0


class Kind(StrEnum):
    """What is asked."""

    PHOTO = "photo"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one request: for its client, for the worker, and what of them was the model's."""

    client: float
    worker: float
    model: float


class Requester:
    """Sends from the thread that uses it, reads replies in one of its own."""

    def __init__(self, bootstrap: str) -> None:
        self._values = {
            Kind.PHOTO: _value(photo=base64.b64encode(photo_bytes()).decode()),
            Kind.TEXT: _value(),
        }
        self._numbers = itertools.count()
        self._replies: dict[str, tuple[float, Message]] = {}
        self._arrived = threading.Condition()
        self._stopped = threading.Event()
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "linger.ms": 0, "message.max.bytes": 2 * PHOTO_BYTES}
        )
        # A group's name is asked for even where none is joined.
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "requester"})
        self._thread = threading.Thread(target=self._read, name="replies", daemon=True)

    def __enter__(self) -> Self:
        known = self._consumer.list_topics(timeout=10).topics
        self._consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for topic in REPLY_TOPICS
                for partition in known[topic].partitions
            ]
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._consumer.close()
        self._producer.close()

    def ask(self, kind: Kind, per_second: float, seconds: float) -> list[Timing]:
        """Ask at a steady rate, however long the answers take; return when all are there."""
        # Without it every request would meet the same moment of a server's cycle.
        draw = random.Random(0)
        begun = time.monotonic()
        sent: dict[str, float] = {}
        for number in range(round(per_second * seconds)):
            due = begun + (number + draw.random()) / per_second
            time.sleep(max(0.0, due - time.monotonic()))
            key = f"{kind}-{next(self._numbers)}"
            sent[key] = time.monotonic()
            self._producer.produce(REQUEST_TOPIC, self._values[kind], key)
            self._producer.poll(0)
        return [self._timing(key, at) for key, at in sent.items()]

    def _timing(self, key: str, sent: float) -> Timing:
        with self._arrived:
            if not self._arrived.wait_for(lambda: key in self._replies, _REPLY_S):
                raise RuntimeError(f"no reply to {key} within {_REPLY_S:.0f} s")
            received, message = self._replies.pop(key)
        header = dict(message.headers() or []).get("prism_timings")
        if header is None:
            raise RuntimeError(f"no answer to {key}: {(message.value() or b'')[:300]!r}")
        timings = json.loads(header)
        return Timing(received - sent, timings["total"], timings["model"])

    def _read(self) -> None:
        while not self._stopped.is_set():
            message = self._consumer.poll(0.1)
            if message is None:
                continue
            received = time.monotonic()
            if (error := message.error()) is not None:
                raise KafkaException(error)
            with self._arrived:
                self._replies[(message.key() or b"").decode()] = received, message
                self._arrived.notify_all()


def _value(**more: str) -> bytes:
    return json.dumps({"user_email": _USER, "prompt": "What is on my plate?", **more}).encode()


def photo_bytes() -> bytes:
    """Return a JPEG as a phone's camera makes it: 8 million pixels, 500 kB, turned by its EXIF tag."""
    luma = Image.blend(_clouds(), Image.effect_noise(PHOTO_SIZE, 40), 0.06)
    picture = Image.merge("YCbCr", (luma, _clouds(), _clouds()))
    qualities = range(1, 96)
    above = bisect.bisect_right(qualities, PHOTO_BYTES, key=lambda quality: len(_jpeg(picture, quality)))
    return _jpeg(picture, qualities[above - 1])


def _clouds() -> Image.Image:
    width, height = PHOTO_SIZE
    return Image.effect_noise((width // 64, height // 64), 90).resize(PHOTO_SIZE, Image.Resampling.BICUBIC)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    exif = Image.Exif()
    exif.update(_LIE_ON_THEIR_SIDE)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, exif=exif)
    return out.getvalue()
