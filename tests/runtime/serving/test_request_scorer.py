"""What waits is bounded, and nobody waits for ever."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.bundle import Bundle
from rrtn.runtime.errors import ConfigError, StoppedError
from rrtn.runtime.scoring.scoring_model import ScoringModel
from rrtn.runtime.serving.application import Service, application_from_service
from rrtn.runtime.serving.bodies import Bodies
from rrtn.runtime.serving.metrics import Metrics
from rrtn.runtime.serving.refusals import RefusedError
from rrtn.runtime.serving.request_scorer import RequestScorer
from rrtn.runtime.serving.server import Limits, Server
from rrtn.runtime.tables.rows import Row


def test_rows_come_to_those_who_asked(scorer: Scorer, real_clips: list[Path]) -> None:
    with RequestScorer(scorer, most_waiting=100) as requests:
        futures = requests.score([os.fsencode(path) for path in real_clips])
        rows = [future.result() for future in futures]
        (bad,) = requests.score([b"/nowhere"])
        assert (bad.result().error, requests.waiting) == ("missing", 0)
    for row, right in zip(rows, scorer.score_files(real_clips), strict=True):
        assert row.scores == pytest.approx(right.scores, abs=1e-6)


def test_only_sounds_with_scores_count_as_audio() -> None:
    counts = Metrics(lambda: 0)
    counts.count(Row(file=b"", scores={"Awe": 0.5}, seconds=2.0))
    counts.count(Row(file=b"", error="invalid_score", seconds=3.0))
    assert b"rrtn_audio_seconds_total 2.0" in counts.text()
    assert counts.results == {"scored": 1, "invalid_score": 1}


def test_what_waits_at_the_end_is_scored(scorer: Scorer, real_clips: list[Path]) -> None:
    with RequestScorer(scorer, most_waiting=100) as requests:
        futures = requests.score([os.fsencode(path) for path in real_clips])
    assert all(future.result(0).scores for future in futures)


def test_a_scorer_that_fails_answers_everybody(
    scorer: Scorer, real_clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_model(self: ScoringModel, batch: Any, size: int) -> Any:
        raise RuntimeError("no model")

    monkeypatch.setattr(ScoringModel, "_run", no_model)
    failed = []
    with Scorer(scorer.bundle, "cpu") as broken, RequestScorer(broken, most_waiting=100) as requests:
        requests.when_failed = lambda: failed.append(True)
        futures = requests.score([os.fsencode(path) for path in real_clips])
        for future in futures:
            with pytest.raises(StoppedError, match="its scorer has failed"):
                future.result()
        with pytest.raises(StoppedError, match="its scorer has failed"):
            requests.score([b"x"])
    assert (failed, str(requests.failure)) == ([True], "no model")


def test_a_scorer_that_fails_before_the_first_sound_is_asked_says_why() -> None:
    """Its thread may be faster than the sound that the server begins with."""

    class Frozen:
        bundle = Bundle(path=Path(), labels=("Awe",), spec=FrontendSpec(), variants=(), provenance={})

        def rows_of_feed(self, feed: object) -> Iterator[Any]:
            raise ConfigError("decoder", "a frozen program")
            yield

    server = Server(Frozen(), Limits(max_bytes=1000, seconds=9.0, most_waiting=4))  # type: ignore[arg-type]
    server._requests._thread.start()
    server._requests._thread.join()
    server._requests._thread = threading.Thread()
    with socket.create_server(("127.0.0.1", 0)) as bound, pytest.raises(ConfigError, match="frozen program"):
        server.run(bound, ready=lambda: None)


@pytest.fixture
def idle(scorer: Scorer) -> Iterator[RequestScorer]:
    """At most two may wait, and outside of a `with` nothing is scored."""
    requests = RequestScorer(scorer, most_waiting=2)
    yield requests
    requests._feed.release()


def test_more_than_may_wait_is_refused(idle: RequestScorer) -> None:
    with pytest.raises(RefusedError) as refused:
        idle.score([b"a"] * 3)
    assert (refused.value.status, refused.value.headers) == (413, {})
    idle.score([b"a"])
    with pytest.raises(RefusedError) as refused:
        idle.score([b"a"] * 2)
    assert (refused.value.status, refused.value.headers) == (429, {"retry-after": "1"})
    assert idle.waiting == 1


def service_of(requests: RequestScorer, **limits: Any) -> Service:
    counts = Metrics(lambda: requests.waiting)
    bodies = Bodies(**{"max_bytes": 1000, "seconds": 9.0, **limits})
    bundle = Bundle(path=Path(), labels=("Awe",), spec=FrontendSpec(), variants=(), provenance={})
    return Service(requests, bodies, counts, bundle)


async def answer(service: Service, *parts: bytes) -> Any:
    async def chunks() -> Any:
        for part in parts:
            yield part

    transport: Any = ASGITransport(application_from_service(service))  # type: ignore[arg-type]
    async with AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.post("/score", content=chunks())


@pytest.mark.parametrize(("parts", "status"), [((b"a" * 600, b"a" * 401), 413), ((b"",), 429)])
def test_a_body_in_chunks_and_a_full_server(
    idle: RequestScorer, parts: tuple[bytes, ...], status: int
) -> None:
    idle.score([b"a", b"b"])
    service = service_of(idle)
    got = asyncio.run(answer(service, *parts))
    assert (got.status_code, got.headers.get("retry-after")) == (status, {429: "1"}.get(status))
    assert service.bodies._held == 0
