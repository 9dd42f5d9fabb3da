"""Files that came within a request: data URIs and base64."""

from __future__ import annotations

import base64
from urllib.parse import unquote_to_bytes

from gemma3n_sgl.errors import MediaError
from gemma3n_sgl.media.limits import DEFAULTS, Limits


def data_uri(text: str, *, limits: Limits = DEFAULTS) -> bytes:
    """The bytes of a `data:` URI (RFC 2397), base64 or percent-encoded; its media type is not believed and not read.

    Raises MediaError if it is malformed, and TooLarge beyond `max_bytes`, before decoding.
    """
    head, comma, payload = text.partition(",")
    if head[:5].lower() != "data:" or not comma:
        raise MediaError("This is no data URI: it looks like data:image/png;base64,iVBORw0…")
    encoded = head.lower().endswith(";base64")
    if encoded and "%" not in payload:
        return base64_bytes(payload, limits=limits)
    if len(payload) > 4 * limits.max_bytes:  # each byte is 1 or 3 characters, and in base64 within percent signs up to 4
        raise limits.too_many_bytes()
    data = unquote_to_bytes(payload)
    if encoded:
        return base64_bytes(data, limits=limits)
    if len(data) > limits.max_bytes:
        raise limits.too_many_bytes()
    return data


def base64_bytes(text: str | bytes, *, limits: Limits = DEFAULTS) -> bytes:
    """Strictly decoded base64. Raises MediaError if it is none, and TooLarge beyond `max_bytes`, before decoding."""
    if len(text) // 4 * 3 > limits.max_bytes + 2:
        raise limits.too_many_bytes()
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise MediaError("The base64 is broken: it must be whole, of the standard alphabet, without line breaks.") from None
