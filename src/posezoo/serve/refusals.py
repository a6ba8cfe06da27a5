"""What a request can be refused for: every reason has a code of its own, and every code one status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STATUS: Mapping[str, int] = {
    "bad_image": 400,
    "bad_option": 400,
    "bad_body": 400,
    "unauthorised": 401,
    "not_found": 404,
    "unknown_model": 404,
    "unknown_skeleton": 404,
    "method_not_allowed": 405,
    "slow_upload": 408,
    "too_large": 413,
    "too_many_pixels": 413,
    "unsupported_type": 415,
    "wrong_host": 421,
    "too_many_images": 422,
    "too_many_people": 422,
    "busy": 429,
    "internal": 500,
    "not_ready": 503,
    "shutting_down": 503,
    "timeout": 504,
}
_HEADERS: Mapping[str, Mapping[str, str]] = {
    "unauthorised": {"WWW-Authenticate": "Bearer"},
    "busy": {"Retry-After": "1"},
    "not_ready": {"Retry-After": "2"},
    "shutting_down": {"Retry-After": "5"},
    # what is left of the body is not read, so that the connection is of no more use
    "too_large": {"Connection": "close"},
    "slow_upload": {"Connection": "close"},
}

FAILED = "the server failed; its log says why"


class Refusal(Exception):
    """A request that is not granted.

    Attributes:
        code: one of `STATUS`.
        message: one line that says what was given and what is expected.
        headers: of the answer.
    """

    def __init__(self, code: str, message: object, headers: Mapping[str, str] | None = None) -> None:
        self.code, self.message = code, " ".join(str(message).split())
        self.headers = {**_HEADERS.get(code, {}), **(headers or {})}
        super().__init__(self.message)

    @property
    def status(self) -> int:
        """Of the answer."""
        return STATUS[self.code]

    def body(self) -> dict[str, Any]:
        """The answer."""
        return {"error": {"code": self.code, "message": self.message}}
