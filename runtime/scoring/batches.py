"""Clips of many files are put into batches. The model may run several batches at once.

B batch.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..backends.model_batch import BatchMemory, ClipBatch, Outputs
from ..backends.silence import CHOICE
from ..errors import StoppedError
from .by_length import WaitingClips
from .decoder_messages import ClipSpan, TicketSpan
from .file_rows import ClipPlace, FileInProgress, ScoredClip

_LINGER: Final = 0.01  # s that clips wait for others where few requests come
_PATIENCE: Final = 0.25  # s, where many come: fewer and larger batches take less time in all


class RunningBatch(NamedTuple):
    """A batch that the model has been given."""

    outputs: Future[Outputs]
    batch: BatchMemory
    members: list[ClipPlace]


class Batches:
    """Fills one batch while the model runs those before it.

    `lanes` batches run at once, each on a thread of its own. On the CPU there are as many lanes as cores:
    threads that share a batch wait for each other, and for the decoders, at every layer.
    """

    def __init__(
        self,
        model: Callable[[ClipBatch], Outputs],
        new_batch: Callable[[], BatchMemory],
        *,
        size: int,
        lanes: int,
        by_length: bool = False,
        wake: Callable[[], None] | None = None,
    ) -> None:
        """`new_batch` gives room for `size` clips. `wake` is called by a lane that has run a batch.

        With `by_length` clips wait for others of about their length to share a batch with.
        """
        self._model, self._size, self._lanes, self._wake = model, size, lanes, wake
        self._empty = [new_batch() for _ in range(2 * lanes + 1)]
        self._batch = self._empty.pop()
        self._members: list[ClipPlace] = []
        self._waiting = WaitingClips() if by_length else None
        self._since = 0.0  # when the first of the members came
        self._running: deque[RunningBatch] = deque()
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="model")

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def add(
        self, clips: Sequence[TicketSpan], features: npt.NDArray[Any], files: Mapping[int, FileInProgress]
    ) -> None:
        """Copies the features [C, ...] of C clips into batches. The model runs as soon as one is full.

        `files` has the file of each ticket.
        """
        places = [files[ticket].new_clip(ClipSpan(start, end, sound)) for ticket, start, end, sound in clips]
        if self._waiting is None:
            self._fill(places, features)
        else:
            self._waiting.put(places, features)
            while len(self._waiting) >= CHOICE * self._size:
                self._fill(*self._waiting.oldest_and_nearest(self._size))
        while self._running and self._running[0].outputs.done():
            self._collect()

    def run_some(self, *, coming: int) -> float:
        """For clips that come one by one: runs those that wait, once a lane is free and it is time.

        Until they fill half a batch, they wait for others to share it: for as long as _PATIENCE where a
        quarter of a batch is being decoded (`coming`) or run, at whose end more come; else for _LINGER where
        there is any. A clip alone runs at once. The batch is not padded. -> s after which to ask again.
        """
        for batch in [batch for batch in self._running if batch.outputs.done()]:
            self._running.remove(batch)
            self._hand_out(batch)
        if not self._members or len(self._running) >= self._lanes:
            return math.inf
        others = coming + sum(len(batch.members) for batch in self._running)
        if len(self._members) < self._size // 2 and others:
            patience = _PATIENCE if others >= self._size // 4 else _LINGER
            if (left := self._since + patience - time.monotonic()) > 0:
                return left
        self._run(len(self._members))
        return math.inf

    def flush(self) -> None:
        """Runs the batch as it is, padded with zeros, then the clips that wait, not padded; waits for all."""
        if self._members:
            self._batch.clear(len(self._members))
            self._run()
        for part in self._waiting.shared_out(self._size, self._lanes) if self._waiting else ():
            self._fill(*part)
            if self._members:
                self._run(len(self._members))
        while self._running:
            self._collect()

    def _fill(self, places: Sequence[ClipPlace], features: npt.NDArray[Any]) -> None:
        taken = 0
        while taken < len(places):
            begin = len(self._members)
            piece = places[taken : taken + self._size - begin]
            self._batch.put(begin, features[taken : taken + len(piece)])
            if not self._members:
                self._since = time.monotonic()
            self._members += piece
            taken += len(piece)
            if len(self._members) == self._size:
                self._run()

    def _run(self, size: int | None = None) -> None:
        try:
            outputs = self._threads.submit(self._model, self._batch.clips[:size])
        except RuntimeError as error:  # Python starts nothing any more
            fix = "join the thread that scores before the main thread returns"
            raise StoppedError("scoring", "the program is ending", fix=fix) from error
        if wake := self._wake:
            outputs.add_done_callback(lambda _: wake())
        self._running.append(RunningBatch(outputs, self._batch, self._members))
        self._members = []
        if not self._empty:
            self._collect()
        self._batch = self._empty.pop()

    def _collect(self) -> None:
        """Waits for the oldest batch, and hands out its scores."""
        self._hand_out(self._running.popleft())

    def _hand_out(self, batch: RunningBatch) -> None:
        outputs = batch.outputs.result()
        finite = np.asarray(np.isfinite(outputs.scores).all(axis=1)).tolist()
        embeddings: Iterable[Any] = repeat(None) if outputs.embedding is None else outputs.embedding
        clips = zip(batch.members, outputs.scores.tolist(), finite, embeddings, strict=False)
        for (file, number, span), scores, is_finite, embedding in clips:
            file.clips[number] = ScoredClip(span, scores, is_finite, embedding)
            file.unscored -= 1
        self._empty.append(batch.batch)
