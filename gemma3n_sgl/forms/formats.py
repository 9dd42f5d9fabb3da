"""The formats of JSON Schema that are kept, as patterns within what each allows. Others are annotations, by the standard.

Open repeats have an end of their own, in tokens.
"""

from __future__ import annotations

_DATE = r"[1-9]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])|[1-9]\d{3}-(0[13-9]|1[0-2])-(29|30)|[1-9]\d{3}-(0[13578]|1[02])-31"
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
_BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_LABEL = r"[a-z0-9]+(-[a-z0-9]+){0,2}"
_COUNT = r"[1-9]\d{0,3}"
_HOURS = rf"{_COUNT}(H({_COUNT}M({_COUNT}S)?)?|M({_COUNT}S)?|S)"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,3}}"

TOKENS = 8
"""Of each open repeat."""

FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"({_DATE})T{_TIME}",
    "duration": rf"P({_COUNT}W|{_COUNT}Y({_COUNT}M({_COUNT}D)?)?|{_COUNT}M({_COUNT}D)?|({_COUNT}D)?T{_HOURS}|{_COUNT}D)",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "email": rf"[A-Za-z0-9]+([._+-][A-Za-z0-9]+){{0,3}}@{_HOST}\.[a-z]{{2,8}}",
    "ipv4": rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}",
    "ipv6": r"[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}|[0-9a-f]{1,4}(:[0-9a-f]{1,4}){0,5}::[0-9a-f]{1,4}|::1",
    "hostname": _HOST,
    "uri": rf"https?://{_HOST}(:[1-9]\d{{1,3}})?(/[A-Za-z0-9._~/-]*)?(\?[A-Za-z0-9._~=&-]+)?(#[A-Za-z0-9._~-]+)?",
}
