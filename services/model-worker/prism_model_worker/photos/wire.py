"""The protocol between the studio and a decoder: one request, one reply, over the decoder's stdin and stdout.

decoder → studio   READY                                   once, when its limits are set
studio → decoder   REQUEST(kind, length), then the file
decoder → studio   REPLY(ok, …sizes, length), then the JPEG, or `code` and `message` parted by a newline
"""

import struct
from typing import NamedTuple

from prism_model_worker.photos.kinds import Kind
from prism_model_worker.photos.photo import PhotoProblem, PhotoRefused

READY = b"R"
REQUEST = struct.Struct("!4sI")
REPLY = struct.Struct("!?IIIII")


class Developed(NamedTuple):
    """A photo as a decoder hands it back; sizes in pixels, the original's upright."""

    width: int
    height: int
    sent_width: int
    sent_height: int
    jpeg: bytes


def pack_request(kind: Kind, data: bytes) -> bytes:
    """Return the header before `data`."""
    return REQUEST.pack(kind.encode(), len(data))


def unpack_request(header: bytes) -> tuple[Kind, int]:
    """Return the format and the length of what follows."""
    kind, length = REQUEST.unpack(header)
    return Kind(kind.rstrip(b"\0").decode()), length


def pack_reply(outcome: Developed | PhotoRefused) -> bytes:
    """Return the reply as it travels."""
    if isinstance(outcome, PhotoRefused):
        body = f"{outcome.code}\n{outcome.message}".encode()
        return REPLY.pack(False, 0, 0, 0, 0, len(body)) + body
    return REPLY.pack(True, *outcome[:4], len(outcome.jpeg)) + outcome.jpeg


def reply_length(header: bytes) -> int:
    """Return the number of bytes behind a reply's header."""
    length: int = REPLY.unpack(header)[-1]
    return length


def unpack_reply(header: bytes, body: bytes) -> Developed:
    """Return what a reply holds. Raises PhotoRefused if that is a refusal, ValueError if it is no reply."""
    ok, width, height, sent_width, sent_height, _ = REPLY.unpack(header)
    if ok:
        return Developed(width, height, sent_width, sent_height, body)
    code, _, message = body.decode().partition("\n")
    raise PhotoRefused(PhotoProblem(code), message)
