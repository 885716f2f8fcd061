"""What the server counts, in the format of Prometheus."""

from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from ..tables.rows import Row

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_NO_ROUTE: Final = "other"  # a path that the server does not have is no label: there are too many


class Metrics:
    """Counters of this server, and of no other in the process."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        """`waiting` gives the number of sounds without scores."""
        self.results = dict[str, int]()  # number of sounds: scored, or the code of an error
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "rrtn_requests", "Requests that were answered.", ["path", "status"], registry=registry
        )
        self._seconds = Histogram("rrtn_request_seconds", "Time to answer.", ["path"], registry=registry)
        self._in_flight = Gauge("rrtn_requests_in_flight", "Requests without an answer.", registry=registry)
        self._sounds = Counter(
            "rrtn_sounds", "Sounds by result: scored, or the code of an error.", ["result"], registry=registry
        )
        self._audio = Counter("rrtn_audio_seconds", "Length of the sounds scored.", registry=registry)
        Gauge("rrtn_sounds_waiting", "Sounds without scores.", registry=registry).set_function(waiting)

    def count(self, row: Row) -> None:
        """Counts a sound."""
        result = row.error or "scored"
        self.results[result] = self.results.get(result, 0) + 1
        self._sounds.labels(result).inc()
        if not row.error:
            self._audio.inc(row.seconds)

    def text(self) -> bytes:
        """The answer of /metrics."""
        return generate_latest(self._registry)

    def measured(self, app: App) -> App:
        """An ASGI application whose requests are counted."""

        async def measured_app(scope: Scope, receive: Receive, send: Send) -> None:
            begin, status = perf_counter(), 0

            async def noted(message: MutableMapping[str, Any]) -> None:
                nonlocal status
                status = message.get("status", status)
                await send(message)

            self._in_flight.inc()
            try:
                await app(scope, receive, noted)
            finally:
                self._in_flight.dec()
                path = getattr(scope.get("route"), "path", _NO_ROUTE)
                self._requests.labels(path, str(status)).inc()
                self._seconds.labels(path).observe(perf_counter() - begin)

        return measured_app
