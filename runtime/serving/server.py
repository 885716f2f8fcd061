"""A scorer becomes a server, until a signal comes."""

import socket
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import StoppedError
from ..scoring.scorer import Scorer
from ..system.host import NamedFile
from .application import Service, application_from_service
from .bodies import Bodies
from .http_server import HttpServer, listen
from .kserve import write_wav
from .metrics import Metrics
from .request_scorer import RequestScorer


@dataclass(frozen=True)
class Limits:
    """What a request may cost."""

    max_bytes: int  # of its body
    seconds: float  # in which its body must have come
    most_waiting: int  # sounds of all requests without scores; more are refused


class Server:
    """Scores over HTTP."""

    def __init__(self, scorer: Scorer, limits: Limits) -> None:
        self._requests = RequestScorer(scorer, most_waiting=limits.most_waiting)
        self.metrics = Metrics(lambda: self._requests.waiting)
        bodies = Bodies(max_bytes=limits.max_bytes, seconds=limits.seconds)
        service = Service(self._requests, bodies, self.metrics, scorer.bundle)
        self._http = HttpServer(application_from_service(service), seconds=limits.seconds)
        self._requests.when_failed = self._http.stop
        self._rate = scorer.bundle.spec.sampling_rate

    def run(self, bound: socket.socket, *, ready: Callable[[], None]) -> None:
        """Answers requests on a socket until SIGTERM, SIGHUP or Ctrl-C comes.

        Requests that have come are answered; then the signal reaches the handler that was there
        before. `ready` is called once a first sound was scored. Raises what has stopped the scorer.
        """
        try:
            with self._requests:
                self._score_silence()
                listen(bound)  # whoever connects from now on waits, and is not refused
                ready()
                self._http.run(bound)
        except StoppedError:
            if self._requests.failure:  # those who ask are told only that there is one
                raise self._requests.failure from None
            raise
        if self._requests.failure:
            raise self._requests.failure

    def _score_silence(self) -> None:
        """Starts the decoders and runs the model once. Raises what would fail each request."""
        with NamedFile() as upload:
            write_wav(upload.file, np.zeros(self._rate, np.float32), self._rate)
            (future,) = self._requests.score([upload.path])
            row = future.result()
        if row.error:
            came = f"{row.error}: {row.detail}"
            raise StoppedError("a second of silence", came, wanted="its scores", fix="rrtn doctor")
