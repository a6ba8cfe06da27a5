"""What OpenAPI is told beyond what FastAPI reads off the routes: bodies, answers, errors, the token."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from posezoo.serve.metrics import CONTENT_TYPE
from posezoo.serve.refusals import STATUS
from posezoo.serve.settings import Settings
from posezoo.serve.upload import FIELD


class ErrorText(BaseModel):
    """Why a request was refused."""

    code: str
    message: str


class Error(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorText


class Person(BaseModel):
    """As in a file of the format posezoo/1."""

    box: list[float]
    box_score: float
    score: float
    keypoints: list[list[float | None]]


class PictureResult(BaseModel):
    """The people of a picture, or what was wrong with it."""

    image: str
    width: int | None
    height: int | None
    people: list[Person]
    error: str | None


class Prediction(BaseModel):
    """The answer of `/v1/predict`."""

    model: str
    skeleton: str
    joints: list[str]
    results: list[PictureResult]
    timing_ms: dict[str, float]


def answers(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, by status; those that every route has are among them."""
    by_status: dict[int | str, list[str]] = defaultdict(list)
    for code in (*codes, "unauthorised", "wrong_host"):
        by_status[STATUS[code]].append(code)
    return {
        status: {"model": Error, "description": ", ".join(found)}
        for status, found in sorted(by_status.items())  # type: ignore[type-var]
    }


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "type": "object",
    "required": [FIELD],
    "additionalProperties": False,
    "properties": {FIELD: {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A picture (JPEG, PNG, BMP, GIF, WebP or TIFF), or several as a form.",
        "content": {
            "image/jpeg": _BINARY,
            "image/png": _BINARY,
            "application/octet-stream": _BINARY,
            "multipart/form-data": {"schema": _FORM},
        },
    }
}
METRICS: dict[int | str, dict[str, Any]] = {
    **answers(),
    200: {"description": "Prometheus' text format", "content": {CONTENT_TYPE: {"schema": {"type": "string"}}}},
}
PREDICT: dict[int | str, dict[str, Any]] = {
    **answers(
        *("bad_image", "bad_option", "bad_body", "unknown_model", "slow_upload", "too_large", "too_many_pixels"),
        *("unsupported_type", "too_many_images", "too_many_people", "busy", "internal", "not_ready", "shutting_down"),
        "timeout",
    ),
    200: {"model": Prediction, "description": "The people, or the picture", "content": {"image/jpeg": _BINARY}},
}


def complete(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The document of an app."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, routes=app.routes)
        # an option that is wrong is refused in our words, with 400
        for operation in (operation for path in made["paths"].values() for operation in path.values()):
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
        schemas = made["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        if settings.token is not None:
            made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            made["security"] = [{"token": []}]
        app.openapi_schema = made
    return app.openapi_schema
