"""A photo that came as text: base64 (RFC 4648, section 4 or 5), perhaps as a `data:` URL (RFC 2397)."""

import binascii

from prism_model_worker.photos.photo import PhotoProblem, PhotoRefused, too_large

_ADVICE = "send the photo's bytes as base64"
_URL_SAFE = str.maketrans("-_", "+/")
_LONGEST_HEAD = 200


def decode_photo_text(text: str, max_bytes: int) -> bytes:
    """Return the bytes that a text stands for.

    Either alphabet, with or without padding, whitespace anywhere, with or without `data:…;base64,`.
    Raises PhotoRefused: `BAD_BASE64`, and `TOO_LARGE_BYTES` before anything is decoded.
    """
    body = "".join(_without_prefix(text).split())
    digits = body.rstrip("=")
    if len(body) - len(digits) > 2 or not digits:
        raise _bad("is empty" if not body else "ends in too many `=`")
    size = len(digits) * 3 // 4
    if size > max_bytes:
        raise too_large(size, max_bytes)
    if "-" in digits or "_" in digits:
        if "+" in digits or "/" in digits:
            raise _bad("mixes two alphabets")
        digits = digits.translate(_URL_SAFE)
    try:
        return binascii.a2b_base64(digits + "=" * (-len(digits) % 4), strict_mode=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        raise _bad("is cut off or holds other characters") from None


def _without_prefix(text: str) -> str:
    text = text.lstrip()
    if text[:5].lower() != "data:":
        return text
    head, comma, body = text.partition(",")
    if not comma or not head[:_LONGEST_HEAD].lower().rstrip().endswith(";base64"):
        raise _bad("is a `data:` URL without `;base64,`")
    return body


def _bad(what: str) -> PhotoRefused:
    return PhotoRefused(PhotoProblem.BAD_BASE64, f"the photo's text {what}; {_ADVICE}")
