"""The formats of JSON Schema that are kept, as patterns within what each allows."""

from __future__ import annotations

_DATE = "[1-9][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL = "[a-z]([a-z0-9]|-[a-z0-9]){0,15}"

FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": "P([1-9][0-9]{0,2}D|T[1-9][0-9]{0,2}[HMS])",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "email": f"[a-z0-9]([a-z0-9]|[._-][a-z0-9]){{0,15}}@{_LABEL}(\\.{_LABEL}){{0,1}}\\.[a-z]{{2,6}}",
    "ipv4": f"{_BYTE}\\.{_BYTE}\\.{_BYTE}\\.{_BYTE}",
    "ipv6": "([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}",
    "hostname": f"{_LABEL}(\\.{_LABEL}){{0,2}}",
    "uri": f"https?://{_LABEL}(\\.{_LABEL}){{0,2}}(/[a-zA-Z0-9_.~-]{{0,16}}){{0,4}}",
}
"""Unknown formats are annotations, by the standard."""
