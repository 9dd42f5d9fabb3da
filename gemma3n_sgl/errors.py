"""Everything that can go wrong, and what a client is told of it.

    Gemma3nError                        500 server_error
    ├── RequestError                    400 invalid_request_error        the caller's to mend
    │   ├── InvalidValue                400 invalid_value                a field, an option, an argument
    │   ├── MediaError                  400 invalid_media                bytes that are no picture or no sound
    │   ├── FetchError                  400 media_fetch_failed           a URL that can't or may not be read
    │   ├── ContextLengthExceeded       400 context_length_exceeded
    │   ├── Unauthorized                401 invalid_api_key
    │   ├── Forbidden                   403 forbidden                    a page in a browser that may not call
    │   ├── NotFound                    404 not_found
    │   │   └── ModelNotFound           404 model_not_found
    │   ├── MethodNotAllowed            405 method_not_allowed
    │   ├── RequestTimeout              408 request_timeout              a body that comes too slowly
    │   └── TooLarge                    413 too_large                    a body, a picture, a sound
    ├── Overloaded                      429 overloaded                   more at once than one client may ask for, or the engine takes
    ├── ServerFull                      503 server_full                  the server has enough to do with others
    ├── ShuttingDown                    503 shutting_down                the server ends; another one may answer
    ├── SettingsError                   500 invalid_settings             the operator's to mend
    ├── ProgramError                    500 program_error                the program's author's to mend
    ├── RunTimeout                      504 run_timeout                  a program that takes too long
    └── EngineError                     502 engine_error                 the engine broke off, or spoke nonsense
        ├── EngineUnavailable           503 engine_unavailable           not there, or still loading
        └── EngineTimeout               504 engine_timeout

A message is written for the person who reads it: it says what was wrong in the caller's own terms and what to do next, and never
holds a stack trace, a path or a decoder's words. What is not in this tree is a bug, and is told as one.
"""

from __future__ import annotations

from typing import ClassVar


class Gemma3nError(Exception):
    """Base of every error of ours.

    `status` is the HTTP status, `type` and `code` are those of OpenAI's error object, `param` names the field or argument meant.
    `retry_after` is in seconds (None: nothing is said about trying again); `retry` False tells OpenAI's clients not to.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "server_error"
    retry_after: ClassVar[int | None] = None
    retry: ClassVar[bool | None] = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class RequestError(Gemma3nError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidValue(RequestError):
    code = "invalid_value"


class MediaError(RequestError):
    code = "invalid_media"


class FetchError(RequestError):
    code = "media_fetch_failed"


class ContextLengthExceeded(RequestError):
    code = "context_length_exceeded"


class Unauthorized(RequestError):
    status = 401
    code = "invalid_api_key"


class Forbidden(RequestError):
    status = 403
    code = "forbidden"


class NotFound(RequestError):
    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(RequestError):
    status = 405
    code = "method_not_allowed"


class RequestTimeout(RequestError):
    status = 408
    code = "request_timeout"


class TooLarge(RequestError):
    status = 413
    code = "too_large"


class Overloaded(Gemma3nError):
    status = 429
    type = "rate_limit_error"
    code = "overloaded"
    retry_after = 1


class ServerFull(Gemma3nError):
    status = 503
    code = "server_full"
    retry_after = 5


class ShuttingDown(Gemma3nError):
    status = 503
    code = "shutting_down"
    retry_after = 1


class SettingsError(Gemma3nError):
    code = "invalid_settings"
    retry = False


class ProgramError(Gemma3nError):
    code = "program_error"
    retry = False


class RunTimeout(Gemma3nError):
    status = 504
    code = "run_timeout"
    retry = False


class EngineError(Gemma3nError):
    status = 502
    code = "engine_error"


class EngineUnavailable(EngineError):
    status = 503
    code = "engine_unavailable"
    retry_after = 5


class EngineTimeout(EngineError):
    status = 504
    code = "engine_timeout"
