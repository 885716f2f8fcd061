"""Clips of many files in batches of one shape, several of which the model may be at.

B batch, K labels, D embedding.
"""

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Float32
from ..audio.file_names import FilePath
from ..backends.model_batch import Outputs
from .decoder_messages import BadFile, DecoderSettings, FileEnd


@dataclass(frozen=True)
class ScoredClip:
    """Scores of a part of a file."""

    start: float
    end: float
    scores: Float32  # [K]
    embedding: Float32 | None  # [D]


@dataclass
class FileInProgress:
    """A file on its way. It is done when it has ended and each of its clips has its scores."""

    path: FilePath
    clips: list[ScoredClip | None] = field(default_factory=list)
    unscored: int = 0
    ended: FileEnd | BadFile | None = None

    @property
    def is_done(self) -> bool:
        """Whether all that it will have is there."""
        return self.ended is not None and not self.unscored


ClipPlace = tuple[FileInProgress, int, float, float]  # file, place among its clips, start, end


class Batches:
    """Fills one batch while the model is at those before.

    On the CPU it is at as many batches at once as there are cores, each on one thread: threads that
    share a batch wait for each other, and for the decoders, at every layer.
    """

    def __init__(
        self,
        model: Callable[[npt.NDArray[Any]], Outputs],
        decoding: DecoderSettings,
        *,
        size: int,
        lanes: int,
    ) -> None:
        self._model, self._size = model, size
        self._empty = [
            np.zeros((size, *decoding.slot_shape), decoding.slot_dtype) for _ in range(2 * lanes + 1)
        ]
        self._batch = self._empty.pop()
        self._members: list[ClipPlace] = []
        self._running: deque[tuple[Future[Outputs], npt.NDArray[Any], list[ClipPlace]]] = deque()
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="model")

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def add(self, features: npt.NDArray[Any], file: FileInProgress, start: float, end: float) -> None:
        """Copies the features; has the model run where they are the last that it waited for."""
        self._batch[len(self._members)] = features
        self._members.append((file, len(file.clips), start, end))
        file.clips.append(None)
        file.unscored += 1
        if len(self._members) == self._size:
            self._run()
        while self._running and self._running[0][0].done():
            self._collect()

    def flush(self) -> None:
        """Runs what there is, and waits for all."""
        if self._members:
            self._batch[len(self._members) :] = 0
            self._run()
        while self._running:
            self._collect()

    def _run(self) -> None:
        self._running.append((self._threads.submit(self._model, self._batch), self._batch, self._members))
        self._members = []
        if not self._empty:
            self._collect()
        self._batch = self._empty.pop()

    def _collect(self) -> None:
        """Waits for the oldest."""
        future, batch, members = self._running.popleft()
        outputs = future.result()
        for i, (file, place, start, end) in enumerate(members):
            embedding = None if outputs.embedding is None else outputs.embedding[i : i + 1].ravel()
            file.clips[place] = ScoredClip(start, end, outputs.scores[i : i + 1].ravel(), embedding)
            file.unscored -= 1
        self._empty.append(batch)


def mean_clip(clips: list[ScoredClip]) -> ScoredClip:
    """Of all windows, in float64: a row without a place."""
    scores = np.asarray(np.mean([clip.scores for clip in clips], axis=0, dtype=np.float64), np.float32)
    embeddings = [clip.embedding for clip in clips if clip.embedding is not None]
    embedding = np.asarray(np.mean(embeddings, axis=0, dtype=np.float64), np.float32) if embeddings else None
    return ScoredClip(math.nan, math.nan, scores, embedding)
