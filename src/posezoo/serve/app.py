"""The HTTP API: `create_app` makes it; what its routes answer is in `posezoo.serve`'s docstring."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.staticfiles import StaticFiles

from posezoo import __version__
from posezoo.errors import PosezooError, unknown_name
from posezoo.formats.values import numbers, parse_json
from posezoo.predict import MIN_SCORE
from posezoo.serve import catalogue, schema
from posezoo.serve.gate import Gate
from posezoo.serve.metrics import CONTENT_TYPE
from posezoo.serve.refusals import Refusal
from posezoo.serve.render import keep, render_json, render_picture
from posezoo.serve.service import OpenModel, Service
from posezoo.serve.settings import Settings
from posezoo.serve.upload import Upload, read_uploads
from posezoo.serve.worker import Model, open_model
from posezoo.types import Boxes

PAGE = Path(__file__).parent / "page"
_PROBES = ("/healthz", "/readyz")
_T = TypeVar("_T")


class Options(BaseModel):
    """What a request to `/v1/predict` may ask for; another name than these is an error."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="A model that is loaded; without it, the first.")
    flip: bool = Field(False, description="Average with the mirrored picture: slower, better.")
    min_score: float | None = Field(
        None,
        ge=0,
        le=1,
        description=f"Leave out people whose score is below it; default {MIN_SCORE}, 0 for given boxes.",
    )
    output: Literal["json", "picture"] = Field("json", description="The people, or the picture with them drawn on it.")
    boxes: str | None = Field(
        None,
        description="JSON: [[x1, y1, x2, y2], ...], the people of the picture, in its pixels, instead of a detector; "
        "for several pictures a list with one such list, or null, for each.",
    )


def create_app(
    settings: Settings, opens: OpenModel = open_model, on_failure: Callable[[], object] | None = None
) -> FastAPI:
    """The app; its models are loaded in the background when it starts.

    Args:
        settings: models and limits.
        opens: loads a model.
        on_failure: called, in another thread, where a model cannot be loaded; `app.state.service.failure` says why.

    Example:
        >>> from fastapi.testclient import TestClient                            # doctest: +SKIP
        >>> with TestClient(create_app(Settings())) as client:                   # doctest: +SKIP
        ...     client.app.state.service.wait_ready()
        ...     client.post("/v1/predict", files={"files": open("a.jpg", "rb")}).json()
    """
    service = Service(settings, opens)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start(on_failure)
        try:
            yield
        finally:
            await run_in_threadpool(service.close)

    # their pages load scripts from elsewhere: /openapi.json is what there is
    app = FastAPI(title="posezoo", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    _add_probes(app, service)
    _add_catalogue(app, service)
    _add_predict(app, service)
    app.openapi = lambda: schema.complete(app, settings)  # type: ignore[method-assign]
    page = [path for path in PAGE.rglob("*") if path.is_file()] if PAGE.is_dir() else []
    if page:
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_exception_handler(RequestValidationError, _wrong_option)
    app.add_exception_handler(HTTPException, _no_route)
    open_paths = ["/", *_PROBES, *(f"/{path.relative_to(PAGE).as_posix()}" for path in page)]
    app.add_middleware(Gate, settings=settings, metrics=service.metrics, open_paths=open_paths)  # type: ignore[arg-type]
    return app


def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", responses=schema.answers())
    async def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @app.get("/readyz", responses=schema.answers("not_ready", "shutting_down"))
    async def readyz() -> dict[str, Any]:
        """The models are loaded and warm."""
        service.check_ready()
        return {"status": "ready", "models": list(service.models)}

    @app.get("/metrics", response_class=Response, responses=schema.METRICS)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def _add_catalogue(app: FastAPI, service: Service) -> None:
    rows, entries, skeletons = catalogue.model_rows(), catalogue.entries(), catalogue.skeleton_rows()

    @app.get("/v1/models", responses=schema.answers())
    async def models() -> dict[str, list[dict[str, Any]]]:
        """The pose networks of the zoo, those that are loaded first."""
        loaded = [_served(model, rows) for model in service.models.values()]
        others = [{**row, "loaded": False} for row in rows if row["name"] not in service.models]
        return {"models": [*loaded, *others]}

    @app.get("/v1/models/{name}", responses=schema.answers("unknown_model"))
    async def model(name: str) -> dict[str, Any]:
        """All that is known of one of them, by any name that it goes by."""
        loaded = service.loaded(name)
        if loaded is not None and loaded.name not in entries:
            return _served(loaded, rows)
        name = catalogue.name_of(name) if loaded is None else loaded.name
        return {**entries[name], "loaded": name in service.models}

    @app.get("/v1/skeletons/{name}", responses=schema.answers("unknown_skeleton"))
    async def skeleton(name: str) -> dict[str, Any]:
        """A keypoint set: names, edges, sides of the body, and which row each joint takes in a mirror."""
        if name not in skeletons:
            raise Refusal("unknown_skeleton", unknown_name("skeleton", name[:120], skeletons))
        return skeletons[name]


def _served(model: Model, rows: list[dict[str, Any]]) -> dict[str, Any]:
    spec = model.estimator.spec
    found = next((row for row in rows if row["name"] == model.name), None)
    return {**(found or catalogue.file_row(model.name, spec.skeleton.name, spec.input_size_wh)), "loaded": True}


def _add_predict(app: FastAPI, service: Service) -> None:
    @app.post("/v1/predict", response_class=Response, responses=schema.PREDICT, openapi_extra=schema.BODY)
    async def predict(request: Request, options: Annotated[Options, Query()]) -> Response:
        """Find people and their joints in a picture, or in several."""
        started = time.perf_counter()
        with service.taking():
            model = service.model(options.model)
            uploads = await _read(request, service.settings)
            read = time.perf_counter()
            boxes = _boxes(options.boxes, len(uploads))
            picture = options.output == "picture"
            if picture and len(uploads) > 1:
                raise Refusal("bad_option", f"output=picture is for one picture, but {len(uploads)} came")
            outcomes = await _unless_gone(request, service.estimate(model, uploads, boxes, options.flip, picture))
            if len(outcomes) == 1 and isinstance(outcomes[0].done, Refusal):
                raise outcomes[0].done
            kept = keep(outcomes, boxes, model, options.min_score)
            if picture:
                body = await run_in_threadpool(render_picture, outcomes[0], kept[0])
            else:
                body = await run_in_threadpool(render_json, model, outcomes, kept, (started, read))
        people = sum(map(len, kept))
        service.metrics.people.inc(people)
        request.state.notes.update(model=model.name, images=len(uploads), people=people)
        kind = "image/jpeg" if picture else "application/json"
        return Response(body, media_type=kind, headers={"Cache-Control": "no-store"})


async def _read(request: Request, settings: Settings) -> list[Upload]:
    try:
        return await asyncio.wait_for(
            read_uploads(request.headers, request.stream(), settings), timeout=settings.timeout_s
        )
    except asyncio.TimeoutError:
        raise Refusal("slow_upload", f"the body did not come within {settings.timeout_s:g} s") from None


async def _unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """What `work` gives; it is given up where the client hangs up, so that nobody waits behind the dead."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _boxes(text: str | None, images: int) -> list[Boxes | None]:
    """The `boxes` option: for each picture its boxes, or None."""
    if text is None:
        return [None] * images
    try:
        given, _ = parse_json(text, "boxes")
        if not isinstance(given, list):
            raise PosezooError("boxes must be a list")
        if images == 1 and not (len(given) == 1 and _is_list_of_boxes(given[0])):
            given = [given]
        if len(given) != images:
            raise PosezooError(f"{images} pictures came, but boxes for {len(given)}")
        return [None if each is None else _to_boxes(each) for each in given]
    except PosezooError as err:
        raise Refusal("bad_option", err) from None


def _is_list_of_boxes(given: Any) -> bool:
    return given is None or (isinstance(given, list) and all(isinstance(box, list) for box in given))


def _to_boxes(given: Any) -> Boxes:
    if not isinstance(given, list):
        raise PosezooError(f"boxes are {type(given).__name__}, expected a list of [x1, y1, x2, y2]")
    rows = [numbers(box, 4, f"box {row}") for row, box in enumerate(given)]
    return Boxes(np.array(rows, np.float32).reshape(-1, 4))


async def _wrong_option(_: Request, err: Exception) -> Response:
    """FastAPI's own check of the options, in our words."""
    assert isinstance(err, RequestValidationError)
    first = err.errors()[0]
    name = str(first["loc"][-1])
    if first["type"] == "extra_forbidden":
        raise Refusal("bad_option", unknown_name("option", name[:80], Options.model_fields))
    raise Refusal("bad_option", f"{name}: {first['msg']}")


async def _no_route(request: Request, err: Exception) -> Response:
    """What the router answers where there is no route."""
    assert isinstance(err, HTTPException)
    # the page, which is asked last, says 404 to what another route has, but not by this method
    near = (route for route in request.app.routes if route.matches(request.scope)[0] is Match.PARTIAL)
    methods = sorted({method for route in near for method in getattr(route, "methods", None) or ()})
    if methods or err.status_code == 405:
        allow = {"Allow": ", ".join(methods or ("GET", "HEAD"))}
        raise Refusal("method_not_allowed", f"{request.method[:20]} is not for this address", allow)
    raise Refusal("not_found", "there is nothing at this address: see /openapi.json")
