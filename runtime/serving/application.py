"""The paths of the server, and what each of them answers. /docs shows them all."""

import asyncio
import errno
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ... import __version__
from ..arrays import Float32
from ..bundle import Bundle
from ..errors import RrtnError
from ..system.host import NamedFile
from ..tables.json_row import shortest_scores
from ..tables.rows import Row
from . import kserve, metrics
from .bodies import Bodies
from .metrics import Metrics
from .page import PAGE_HEADERS, page_from_openapi
from .refusals import RefusedError, busy, refusal_from_row
from .request_scorer import RequestScorer

_GONE: Final = 499  # nginx's status for a client that did not wait
_KSERVE: Final = "/v2"
_MODEL: Final = f"{_KSERVE}/models/{{model}}"
_VERSION: Final = _MODEL + "/versions/{version}"


class ScoredSound(BaseModel):
    """The scores of one sound, and what `rrtn score` says beside them."""

    scores: dict[str, float]
    start: float | None
    end: float | None
    seconds: float
    flags: list[str]


class Why(BaseModel):
    """What the error is about, what is wrong with it, what is expected, and what to do."""

    subject: str
    came: str
    wanted: str
    fix: str
    code: str


class NoScores(BaseModel):
    """The answer to a request that cannot be answered."""

    error: Why


_SOUND: Final = {"schema": {"type": "string", "format": "binary"}}
_FORM: Final = {"schema": {"type": "object", "properties": {"file": _SOUND["schema"]}}}
_FILE: Final = {
    "requestBody": {"required": True, "content": {"audio/*": _SOUND, "multipart/form-data": _FORM}}
}
_TENSORS: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}}, "application/octet-stream": _SOUND},
    }
}


@dataclass(frozen=True)
class Service:
    """What all paths share."""

    scorer: RequestScorer
    bodies: Bodies
    metrics: Metrics
    bundle: Bundle

    async def rows(self, uploads: Sequence[NamedFile]) -> list[Row]:
        """A row for each sound."""
        futures = self.scorer.score([upload.path for upload in uploads])
        rows = [await asyncio.wrap_future(future) for future in futures]
        for row in rows:
            self.metrics.count(row)
        return rows


def application_from_service(service: Service) -> metrics.App:
    """The ASGI application."""
    app = FastAPI(
        title="rrtn serve",
        version=__version__,
        description="Scores of sounds. There is no authentication: anyone who can connect can send requests.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for router in (_scores(service), _inference(service), _state(service)):
        app.include_router(router)

    @app.get("/", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(page_from_openapi(app.openapi()), headers=PAGE_HEADERS)

    for kind in (RrtnError, HTTPException, ClientDisconnect, MemoryError, Exception):
        app.add_exception_handler(kind, _answer_to_error)
    app.add_exception_handler(OSError, _answer_to_os_error)
    return service.metrics.measured(app)


def _scores(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/score",
        response_model=ScoredSound,
        responses={status: {"model": NoScores} for status in (400, 408, 413, 415, 422, 429)},
        openapi_extra=_FILE,
    )
    async def score(request: Request) -> Response:
        """Scores an audio file: the body itself, or one file of a form. `curl --data-binary @burst.wav`."""
        async with service.bodies.sound(request) as upload:
            (row,) = await service.rows([upload])
        if row.error:
            raise refusal_from_row(row, "sound")
        fields = {
            "scores": shortest_scores(row.scores or {}),
            "start": row.start,
            "end": row.end,
            "seconds": row.seconds,
        }
        return _json({**fields, "flags": row.flags})

    return router


def _inference(service: Service) -> APIRouter:
    router = APIRouter(tags=["KServe v2"])
    model = kserve.model_metadata(service.bundle)

    @router.get(_KSERVE)
    async def server_metadata() -> Response:
        """Says which server this is."""
        return _json(kserve.server_metadata(__version__))

    @router.get(f"{_KSERVE}/health/live")
    async def live() -> Response:
        """Answers as long as the process runs."""
        return Response()

    @router.get(f"{_KSERVE}/health/ready")
    async def server_ready() -> Response:
        """Answers 503 once the scorer has failed."""
        return _ready(service)

    @router.get(f"{_MODEL}/ready", dependencies=_IS_MODEL)
    @router.get(f"{_VERSION}/ready", dependencies=_IS_MODEL, include_in_schema=False)
    async def model_ready() -> Response:
        """Answers 503 once the scorer has failed."""
        return _ready(service)

    @router.get(_MODEL, dependencies=_IS_MODEL)
    @router.get(_VERSION, dependencies=_IS_MODEL, include_in_schema=False)
    async def model_metadata() -> Response:
        """Says what the model takes and gives, with its labels in the order of the scores."""
        return _json(model)

    @router.post(f"{_MODEL}/infer", dependencies=_IS_MODEL, openapi_extra=_TENSORS)
    @router.post(f"{_VERSION}/infer", dependencies=_IS_MODEL, include_in_schema=False)
    async def infer(request: Request) -> Response:
        """Scores `waveform`, FP32 [samples] or [sounds, samples], in JSON or as binary data."""
        return await _inferred(service, request)

    return router


async def _inferred(service: Service, request: Request) -> Response:
    """Each waveform becomes a file in memory, so it takes the same way as all sounds."""
    length, rate = request.headers.get(kserve.HEADER_LENGTH), service.bundle.spec.sampling_rate
    async with service.bodies.content(request) as body:
        room = service.scorer.check_room
        inference = kserve.inference_from_body(body, length, sampling_rate=rate, check_room=room)
        with ExitStack() as stack:
            uploads = [stack.enter_context(NamedFile()) for _ in inference.waveforms]
            for upload, waveform in zip(uploads, inference.waveforms, strict=True):
                kserve.write_wav(upload.file, waveform, inference.sampling_rate)
            rows = await service.rows(uploads)
    for number, row in enumerate(rows):
        if row.error:
            raise refusal_from_row(row, f"{kserve.INPUT}[{number}]")
    scores: Float32 = np.array([[*(row.scores or {}).values()] for row in rows], np.float32)
    content, headers = kserve.answer_to_inference(inference, scores, [row.flags for row in rows])
    return Response(content, headers=headers)


def _state(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    @router.head("/health", include_in_schema=False)
    async def health() -> Response:
        """Answers as long as the process runs."""
        return _json({"status": "ok"})

    @router.get("/ready")
    @router.head("/ready", include_in_schema=False)
    async def ready() -> Response:
        """Answers 503 once the scorer has failed."""
        return _ready(service)

    @router.get("/metrics")
    @router.head("/metrics", include_in_schema=False)
    async def metrics_text() -> Response:
        """Counts of requests and sounds, for Prometheus."""
        return Response(service.metrics.text(), headers={"content-type": metrics.CONTENT_TYPE})

    return router


def _check_model(model: str, version: str = kserve.VERSION) -> None:
    if (model, version) != (kserve.MODEL, kserve.VERSION):
        wanted = f"{kserve.MODEL}, version {kserve.VERSION}"
        raise RefusedError(404, "not_found", "model", f"{model[:40]}, version {version[:10]}", wanted=wanted)


_IS_MODEL: Final = [Depends(_check_model)]


def _ready(service: Service) -> Response:
    failed = service.scorer.failure is not None
    return _json({"status": "failed" if failed else "ready"}, 503 if failed else 200)


def _json(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    content = msgspec.json.encode(document)
    return Response(content, status, {"content-type": "application/json", **(headers or {})})


async def _answer_to_error(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=_GONE)
    refusal = _refusal(error)
    fields = refusal.to_dict()
    # The protocol of KServe wants a text there, and its clients print it.
    is_kserve = request.url.path.startswith(_KSERVE)
    document = {"error": str(refusal), **fields} if is_kserve else {"error": fields}
    return _json(document, refusal.status, refusal.headers)


async def _answer_to_os_error(request: Request, error: Exception) -> Response:
    """Without free descriptors the client is asked to come again; anything else is a bug."""
    if not _lacks_descriptors(error):
        raise error
    return await _answer_to_error(request, error)


def _lacks_descriptors(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def _refusal(error: Exception) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, MemoryError):
        return busy("it has no memory for this request now")
    if _lacks_descriptors(error):
        return busy("it has no free file descriptor for this request now")
    if isinstance(error, HTTPException):
        code = _CODES.get(error.status_code, "bad_request")
        return RefusedError(
            error.status_code, code, "request", error.detail, fix="see /docs", headers=error.headers
        )
    if isinstance(error, RrtnError):
        return RefusedError(503, "stopped", error.subject, error.came, fix=error.fix)
    return RefusedError(
        500, "bug", "server", "a bug in rrtn", fix="report it with the lines of the server's log"
    )


_CODES: Final = {404: "not_found", 405: "method_not_allowed"}
