"""Clips of many files are put into batches of one shape. The model may run several batches at once.

B batch, K labels, D embedding.
"""

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import Float32
from ..audio.file_names import FilePath
from ..backends.model_batch import Outputs
from .decoder_messages import BadFile, ClipSpan, DecoderSettings, FileEnd


@dataclass(frozen=True)
class ScoredClip:
    """The scores of one part of a file."""

    span: ClipSpan
    scores: Float32  # [K]
    embedding: Float32 | None  # [D]


@dataclass
class FileInProgress:
    """A file that is being scored. Its clips are in their order; None stands for one without scores yet."""

    path: FilePath
    clips: list[ScoredClip | None] = field(default_factory=list)
    unscored: int = 0
    ended: FileEnd | BadFile | None = None

    @property
    def is_done(self) -> bool:
        """True once the file has ended and every clip of it has been scored."""
        return self.ended is not None and not self.unscored


class ClipPlace(NamedTuple):
    """Where the scores of a clip in a batch belong."""

    file: FileInProgress
    number: int  # among the clips of the file
    span: ClipSpan


class RunningBatch(NamedTuple):
    """A batch that the model has been given."""

    outputs: Future[Outputs]
    batch: npt.NDArray[Any]
    members: list[ClipPlace]


class Batches:
    """Fills one batch while the model runs those before it.

    `lanes` batches run at once, each on a thread of its own. On the CPU there are as many lanes as cores:
    threads that share a batch wait for each other, and for the decoders, at every layer.
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
        shape = (size, *decoding.slot_shape)
        self._empty = [np.zeros(shape, decoding.slot_dtype) for _ in range(2 * lanes + 1)]
        self._batch = self._empty.pop()
        self._members: list[ClipPlace] = []
        self._running: deque[RunningBatch] = deque()
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="model")

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def add(self, features: npt.NDArray[Any], file: FileInProgress, span: ClipSpan) -> None:
        """Copies the features into the batch. The model runs as soon as the batch is full."""
        self._batch[len(self._members)] = features
        self._members.append(ClipPlace(file, len(file.clips), span))
        file.clips.append(None)
        file.unscored += 1
        if len(self._members) == self._size:
            self._run()
        while self._running and self._running[0].outputs.done():
            self._collect()

    def flush(self) -> None:
        """Runs the batch as it is, padded with zeros, and waits for all batches."""
        if self._members:
            self._batch[len(self._members) :] = 0
            self._run()
        while self._running:
            self._collect()

    def _run(self) -> None:
        outputs = self._threads.submit(self._model, self._batch)
        self._running.append(RunningBatch(outputs, self._batch, self._members))
        self._members = []
        if not self._empty:
            self._collect()
        self._batch = self._empty.pop()

    def _collect(self) -> None:
        """Waits for the oldest batch, and hands out its scores."""
        oldest = self._running.popleft()
        outputs = oldest.outputs.result()
        for i, member in enumerate(oldest.members):
            embedding = None if outputs.embedding is None else outputs.embedding[i : i + 1].ravel()
            scores = outputs.scores[i : i + 1].ravel()
            member.file.clips[member.number] = ScoredClip(member.span, scores, embedding)
            member.file.unscored -= 1
        self._empty.append(oldest.batch)


def mean_clip(clips: list[ScoredClip]) -> ScoredClip:
    """The mean over all windows of a file, in float64. Its start and end are NaN.

    A window weighs by the sound that it holds, so a silent one does not count. If all of them are silent,
    all count the same.
    """
    weights = [clip.span.sound for clip in clips]
    sound = sum(weights)
    embeddings = [clip.embedding for clip in clips if clip.embedding is not None]
    return ScoredClip(
        ClipSpan(math.nan, math.nan, sound),
        _weighted_mean([clip.scores for clip in clips], weights),
        _weighted_mean(embeddings, weights) if embeddings else None,
    )


def _weighted_mean(vectors: list[Float32], weights: list[float]) -> Float32:
    counted = weights if any(weights) else None
    return np.asarray(np.average(np.asarray(vectors, np.float64), axis=0, weights=counted), np.float32)
