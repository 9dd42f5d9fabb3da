"""Forms with a file, which goes to disk as it comes, and never whole into memory."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from gemma3n_sgl.errors import InvalidValue, ServerFull, TooLarge
from gemma3n_sgl.serving.exchange import limited

_MOST_FIELDS = 32
_MOST_TEXT = 64 * 1024
"""Bytes of a field that is no file."""

log = logging.getLogger("gemma3n")
logging.getLogger("python_multipart").addHandler(logging.NullHandler())  # it tells of a form that can't be read, which its sender is told


async def read_form(request: Request, limit: int, timeout: float) -> tuple[dict[str, list[str]], UploadFile]:
    """The fields of a multipart form by name, and its one file, `file`. The form is of at most `limit` bytes, a larger one raises TooLarge;
    one that comes more slowly than `exchange.read_body` has it raises RequestTimeout."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise InvalidValue("Send the sound as multipart/form-data, in the field `file`.", param="file")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    form = await _form(limited(request, limit, timeout, _too_large))
    fields: dict[str, list[str]] = {}
    found: UploadFile | None = None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            found = value
            if name != "file":
                raise InvalidValue(f"The file stands in the field `file`, not `{name[:40]}`.", param="file")
        else:
            fields.setdefault(name, []).append(value)
    if found is None:
        how = "a text, not a file; curl wants an @ before its name: -F file=@talk.mp3" if "file" in fields else "missing: the sound to hear"
        raise InvalidValue(f"`file` is {how}.", param="file")
    return fields, found


@contextmanager
def room_on_disk() -> Iterator[None]:
    """A disk that is full is nobody's bug: whoever sends the file is told, and the operator."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT):  # the last where no folder has room for a first file
            raise
        log.warning("there is no room on disk for a file that is being sent: TMPDIR names the folder such files go to")
        raise ServerFull("There is no room for the file on the server's disk now. Try again later, or send a smaller one.") from None


async def _form(request: Request) -> FormData:
    try:
        with room_on_disk():
            return await request.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=_MOST_TEXT)
    except (HTTPException, UnicodeError):  # the latter of a charset that is no text's, such as "undefined"
        raise InvalidValue("The form can't be read: it holds one file, and a few fields of text. Let a client library write it.") from None


def _too_large(limit: int) -> TooLarge:
    size = f"{limit // 2**20} MB taken here (GEMMA3N_MAX_UPLOAD_MB)"
    return TooLarge(f"The file is larger than the {size}. Send it in a compressed format, or in parts.", param="file")
