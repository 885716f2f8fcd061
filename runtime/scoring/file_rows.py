"""The scored clips of a file, and the rows that they become. K labels, D embedding."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import Float32
from ..audio.codes import in_order
from ..audio.file_names import FilePath
from ..tables.rows import Row
from .decoder_messages import BadFile, ClipSpan, DecoderSettings, FileEnd

NOT_FINITE: Final = "the model gave NaN or infinity"  # the detail of invalid_score


class ScoredClip(NamedTuple):
    """The scores of one part of a file."""

    span: ClipSpan
    scores: list[float]  # K values of float32
    is_finite: bool
    embedding: Float32 | None  # [D]


@dataclass(slots=True)
class FileInProgress:
    """A file that is being scored. Its clips are in their order; None stands for one without scores yet."""

    path: FilePath
    clips: list[ScoredClip | None] = field(default_factory=list)
    unscored: int = 0
    ended: FileEnd | BadFile | None = None

    def new_clip(self, span: ClipSpan) -> "ClipPlace":
        """-> where the scores of the next clip belong."""
        self.clips.append(None)
        self.unscored += 1
        return ClipPlace(self, len(self.clips) - 1, span)

    @property
    def is_done(self) -> bool:
        """True once the file has ended and every clip of it has been scored."""
        return self.ended is not None and not self.unscored

    def reached(self) -> float:
        """Up to where (s) the file has been scored; another thread may be adding clips."""
        return next((clip.span.end for clip in reversed(self.clips) if clip), 0.0)


class ClipPlace(NamedTuple):
    """Where the scores of a clip belong."""

    file: FileInProgress
    number: int  # of the clip, in the file
    span: ClipSpan


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """What the rows of a file hold."""

    labels: tuple[str, ...]  # [K], in the order of the model's outputs
    decoding: DecoderSettings
    embeddings: bool

    def rows(self, file: FileInProgress) -> list[Row]:
        """The rows of a file that is done: of its clip, or of each window and then of their mean."""
        end = file.ended
        assert end is not None
        if isinstance(end, BadFile):
            return [Row(file=file.path, error=end.code, detail=end.detail, content=end.content)]
        clips = [clip for clip in file.clips if clip is not None]
        if not clips:  # no burst
            return [Row(file=file.path, flags=end.flags, seconds=end.seconds, content=end.content)]
        rows = [self._row(file.path, clip, end) for clip in clips]
        window, segment = self.decoding.window, self.decoding.segment
        if window is None or (window == "auto" and len(rows) == 1 and not segment):
            return rows
        return [*rows, self._row(file.path, mean_clip(clips), end)]

    def _row(self, path: FilePath, clip: ScoredClip, end: FileEnd) -> Row:
        (start, stop, sound), scores, is_finite, embedding = clip
        whole = math.isnan(start)
        return Row(
            file=path,
            start=None if whole else start,
            end=None if whole else stop,
            scores=dict(zip(self.labels, scores, strict=True)) if is_finite else None,
            error="" if is_finite else "invalid_score",
            flags=_flags(end, sound) if is_finite else (),
            detail="" if is_finite else NOT_FINITE,
            seconds=end.seconds,
            content=end.content,
            embedding=embedding if is_finite and self.embeddings else None,
        )


def _flags(end: FileEnd, sound: float) -> tuple[str, ...]:
    return end.flags if sound else in_order({*end.flags, "silent"})


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
        _weighted_mean([clip.scores for clip in clips], weights).tolist(),
        all(clip.is_finite for clip in clips),
        _weighted_mean(embeddings, weights) if embeddings else None,
    )


def _weighted_mean(vectors: Sequence[npt.ArrayLike], weights: list[float]) -> Float32:
    counted = weights if any(weights) else None
    return np.asarray(np.average(np.asarray(vectors, np.float64), axis=0, weights=counted), np.float32)
