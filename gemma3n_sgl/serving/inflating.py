"""Request bodies that come compressed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

from gemma3n_sgl.errors import InvalidValue

PIECE = 2**20
"""Bytes inflated at once: some milliseconds of the event loop's time."""

WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's `wbits` for each content coding that is read."""


async def inflated(chunks: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    """The bytes behind a `content-encoding`, in pieces of at most PIECE, so that a bomb can be told before it bursts.

    Raises InvalidValue for a coding that is not read here, and for what is damaged or cut off.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        async for chunk in chunks:
            yield chunk
        return
    if coding not in WINDOW:
        raise InvalidValue(f"A body of content-encoding {coding!r} is not read here. Send it as gzip, or as it is.")
    inflater = zlib.decompressobj(WINDOW[coding])
    async for data in chunks:
        piece = b""
        while data or len(piece) == PIECE:
            if inflater.eof:
                if not data:
                    break
                inflater = zlib.decompressobj(WINDOW[coding])  # gzip may have several members
            try:
                piece = inflater.decompress(data, PIECE)
            except zlib.error:
                raise InvalidValue(f"The body is not {coding}, as its content-encoding says.") from None
            data = inflater.unconsumed_tail or inflater.unused_data
            yield piece
            await asyncio.sleep(0)
    if not inflater.eof:
        raise InvalidValue(f"The body ends in the middle of its {coding} data.")
