"""The photo studio: bytes of anything in, a photo that is safe to send out, or a typed refusal.

Argument. A photo is decoded in a child process with limits, so whatever it does to its decoder happens to
that one photo: a child that dies, hangs or talks nonsense is killed, and the next photo gets a new one.
Each child belongs to one keeper thread, which alone starts it, talks to it and kills it, so its socket
needs no lock, and an answer cannot go to another photo. Keepers live as long as the studio, and must:
Linux kills a child when the thread that forked it ends. Every wait has an end: the caller's for a keeper
(`wait_s`), the keeper's for a child to start (`START_S`) and for a photo (`limits.seconds`).
"""

import base64
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

from prism.service.errors import RetryLater
from prism.service.logs import get_logger
from prism_model_worker.photos.decoder import Decoder, DecoderLate, DecoderLost
from prism_model_worker.photos.kinds import Kind, kind_of
from prism_model_worker.photos.photo import (
    Photo,
    PhotoFacts,
    PhotoLimits,
    PhotoProblem,
    PhotoRefused,
    too_large,
)

# A library that leaks must not grow without end, and a new process costs 0.2 s.
PHOTOS_PER_DECODER = 1000
MOST_RESIDENT_BYTES = 256 * 1024 * 1024

log = get_logger(__name__)


class Studio:
    """Develops photos in at most `decoders` processes, started when they are first needed.

    wait_s: how long a caller waits for a free one. Every method may be called from any thread.
    """

    def __init__(
        self,
        limits: PhotoLimits,
        decoders: int = 1,
        wait_s: float = 30.0,
        photos_per_decoder: int = PHOTOS_PER_DECODER,
    ) -> None:
        self._limits = limits
        self._wait_s = wait_s
        self._photos_per_decoder = photos_per_decoder
        self._keepers = ThreadPoolExecutor(decoders, thread_name_prefix="photo-keeper")
        # By keeper: each touches its own only, and `close` does when no keeper is left.
        self._decoders: dict[int, Decoder] = {}

    def develop(self, data: bytes) -> Photo:
        """Return a photo for the model.

        Raises PhotoRefused when it is the photo's fault, RetryLater when there was no decoder for it.
        """
        if len(data) > self._limits.max_bytes:
            raise too_large(len(data), self._limits.max_bytes)
        future = self._submit(kind_of(data), data)
        try:
            return future.result(self._wait_s)
        except CancelledError:
            raise _closed() from None
        except TimeoutError:
            if future.cancel():
                raise RetryLater("all photo decoders are busy", next="send fewer photos at once") from None
            return future.result()  # what has begun ends by its own deadline

    def close(self) -> None:
        """End all decoders. Photos that wait are given up; one that has begun is finished first."""
        self._keepers.shutdown(cancel_futures=True)
        while self._decoders:
            self._decoders.popitem()[1].kill()

    def _submit(self, kind: Kind, data: bytes) -> Future[Photo]:
        try:
            return self._keepers.submit(self._develop, kind, data)
        except RuntimeError:
            raise _closed() from None

    def _develop(self, kind: Kind, data: bytes) -> Photo:
        decoder = self._decoder()
        try:
            done = decoder.develop(kind, data)
        except DecoderLate:
            self._discard("late", kind, data)
            message = f"the photo was not decoded within {self._limits.seconds:g} s; send a smaller one"
            raise PhotoRefused(PhotoProblem.DECODER_TIMEOUT, message) from None
        except DecoderLost as error:
            self._discard(str(error), kind, data)
            message = "the photo's decoder broke down; send the photo in another format"
            raise PhotoRefused(PhotoProblem.DECODER_DIED, message) from None
        finally:
            self._retire_if_worn(decoder)
        return Photo(
            base64.b64encode(done.jpeg).decode(),
            PhotoFacts(kind, done.width, done.height, len(data)),
            PhotoFacts(Kind.JPEG, done.sent_width, done.sent_height, len(done.jpeg)),
        )

    def _decoder(self) -> Decoder:
        """Return this keeper's decoder, a new one where there is none that lives."""
        keeper = threading.get_ident()
        decoder = self._decoders.get(keeper)
        if decoder is not None and not decoder.alive:
            self._decoders.pop(keeper).kill()
            decoder = None
        if decoder is None:
            try:
                decoder = self._decoders[keeper] = Decoder(self._limits)
            except (OSError, DecoderLate, DecoderLost) as error:
                log.error("photo_decoder_not_started", error=error)
                raise RetryLater("no photo decoder could be started", next="see the service's log") from None
        return decoder

    def _discard(self, what: str, kind: Kind, data: bytes) -> None:
        status = self._decoders.pop(threading.get_ident()).kill()
        log.warning("photo_decoder_lost", what=what, status=status, format=kind, bytes=len(data))

    def _retire_if_worn(self, decoder: Decoder) -> None:
        if decoder.photos >= self._photos_per_decoder or decoder.resident_bytes() > MOST_RESIDENT_BYTES:
            keeper = threading.get_ident()
            if self._decoders.get(keeper) is decoder:
                self._decoders.pop(keeper).kill()


def _closed() -> RetryLater:
    return RetryLater("the photo studio is closed")
