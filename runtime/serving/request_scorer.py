"""One scorer for all requests: their sounds share the decoders and the batches."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from ..errors import StoppedError
from ..scoring.feed import Feed
from ..scoring.scorer import Scorer
from ..tables.rows import Row
from .refusals import RefusedError, busy


class RequestScorer:
    """Runs a scorer in a thread of its own inside of a `with`. Every thread may ask it for scores."""

    def __init__(self, scorer: Scorer, *, most_waiting: int) -> None:
        """At most `most_waiting` sounds wait for their scores."""
        self.failure: BaseException | None = None
        self.when_failed: Callable[[], None] = lambda: None
        self._scorer, self._most = scorer, most_waiting
        self._feed, self._lock = Feed(), threading.Lock()
        self._futures: dict[int, Future[Row]] = {}
        self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)

    def __enter__(self) -> "RequestScorer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Scores what waits, then stops the thread."""
        self._feed.close()
        self._thread.join()
        self._feed.release()

    @property
    def waiting(self) -> int:
        """The number of sounds that have no scores yet."""
        return len(self._futures)

    def score(self, paths: Sequence[bytes]) -> "list[Future[Row]]":
        """The row of each file, once it is there. Its `file` is empty.

        Raises RefusedError where there are too many sounds, StoppedError where the scorer has failed.
        """
        futures = [Future[Row]() for _ in paths]
        for future in futures:
            future.set_running_or_notify_cancel()  # a client that has gone cancels nothing
        with self._lock:
            self.check_room(len(paths))
            for path, future in zip(paths, futures, strict=True):
                self._futures[self._feed.put(path)] = future
        return futures

    def check_room(self, sounds: int) -> None:
        """Raises what `score` would raise for so many sounds."""
        if self.failure:
            raise _failed()
        if sounds > self._most:
            came = f"{sounds} sounds in one request"
            raise RefusedError(413, "too_large", "request", came, wanted=f"at most {self._most}")
        if len(self._futures) + sounds > self._most:
            raise busy(f"{len(self._futures)} sounds wait for their scores")

    def _run(self) -> None:
        try:
            for ticket, rows in self._scorer.rows_of_feed(self._feed):
                with self._lock:
                    future = self._futures.pop(ticket)
                future.set_result(rows[0])
        except BaseException as error:  # whatever it is, nobody may wait for ever
            with self._lock:
                self.failure = error
                unanswered, self._futures = self._futures, {}
            for future in unanswered.values():
                future.set_exception(_failed())
            self.when_failed()


def _failed() -> StoppedError:
    return StoppedError("server", "its scorer has failed", fix="see its log")
