"""Rolling windows of live sound become rows, each as soon as its last sample is there.

The sound takes the way of a recording at the running level: the same mixdown, resampler, windows and level
(audio/reader.py, cutting.py, level.py), and so the same scores. K labels.
"""

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np

from ..arrays import Float32, Float64
from ..audio.codes import in_order
from ..audio.cutting import cut, endless_places
from ..audio.level import LevelledClip, RunningLevel
from ..audio.reader import mono_from_live
from ..errors import AudioError, ConfigError
from ..scoring.decoder_messages import window_samples
from ..scoring.scorer import Scorer
from ..tables.json_row import shortest_scores
from ..tables.rows import Row
from ..text import counted
from .source import LiveSource

_LATEST: Final = 2.0  # s of sound that may wait behind a window that is scored; or a hop, if that is longer
_LATENCIES: Final = 10_000  # the last ones, of which percentiles are taken


class LiveRow(NamedTuple):
    """A window's row, and how the work stood when it was given."""

    row: Row
    latency: float  # s, from when the window's last sample was heard until its scores were there
    dropped_windows: int  # so far
    dropped_samples: int  # so far


class LiveScoring:
    """Scores what a source hears, on one thread.

    Where more than 2 s of sound wait behind a window (or a hop, if that is more), `drops_late` leaves the
    window out. Else nothing is left out, and the source waits.
    """

    def __init__(self, scorer: Scorer, source: LiveSource, *, drops_late: bool) -> None:
        """The scorer has a window, and the running level."""
        decoding = scorer.decoding
        assert decoding.window is not None
        assert decoding.level == "running"
        self._scorer, self._source, self._drops_late = scorer, source, drops_late
        self._rate = decoding.spec.sampling_rate
        self._length, self._hop = window_samples(decoding.window, decoding.hop, decoding.spec)
        self._mean = _Mean(len(scorer.labels))
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._begin = time.monotonic()
        self._errors, self._flags = Counter[str](), Counter[str]()
        self._windows = self._dropped = 0
        self.missing = ""  # once the sound has ended: what was promised and did not come

    def rows(self) -> Iterator[LiveRow]:
        """A row for each window, up to the end of the sound.

        A window that cannot be scored is a row with an error code. Raises ConfigError where the channel is
        missing, and what the source raises.
        """
        source, level = self._source, RunningLevel(self._scorer.bundle.spec)
        blocks = source.queue.blocks(source.patience)
        channel, channels = self._scorer.decoding.channel, source.queue.channels
        if channel and channel > channels:
            raise ConfigError(
                f"--channel {channel}",
                f"the sound has {counted(channels, 'channel')}",
                wanted=f"1 to {channels}",
                fix="leave it out for the mean of all" if channels > 1 else "leave it out",
            )
        mono = mono_from_live(blocks, source.rate, self._scorer.bundle.spec, channel=channel)
        for start, window in cut(mono, endless_places(self._length, self._hop)):
            if self._is_late():
                self._dropped += 1
                with contextlib.suppress(AudioError):  # the level is that of all windows
                    level.hear(window)
            else:
                yield self._scored(start, window, level)
        self.missing = source.missing()

    def mean_row(self) -> Row | None:
        """The row of all windows so far, as a recording in windows has it; None where it has none."""
        is_one_clip = self._scorer.decoding.window == "auto" and self._windows == 1
        scores = self._mean.scores()
        if scores is None or is_one_clip:
            return None
        flags = () if self._mean.has_sound else ("silent",)
        return Row(file=self._source.name, scores=self._labelled(scores), flags=flags)

    def summary(self) -> dict[str, Any]:
        """What has come of the sound so far."""
        scorer, queue, mean = self._scorer, self._source.queue, self._mean.scores()
        return {
            "windows": self._windows,
            "scored": self._windows - self._errors.total(),
            "errors": dict(sorted(self._errors.items())),
            "flags": dict(sorted(self._flags.items())),
            "seconds": round(time.monotonic() - self._begin, 3),
            "audio_seconds": round(queue.heard / self._source.rate, 3),
            "backend": scorer.backend.device,
            "variant": scorer.backend.variant.name,
            "window": self._length / self._rate,
            "hop": self._hop / self._rate,
            "level": scorer.decoding.level,
            "dropped_windows": self._dropped,
            "dropped_samples": queue.lost,
            "latency_p50": self._latency(50),
            "latency_p99": self._latency(99),
            "missing": self.missing,
            "scores": None if mean is None else shortest_scores(self._labelled(mean)),
        }

    def _is_late(self) -> bool:
        latest = max(_LATEST, self._hop / self._rate)
        return self._drops_late and self._source.queue.waiting > latest * self._source.rate

    def _scored(self, start: int, window: Float32, level: RunningLevel) -> LiveRow:
        stop = start + len(window)
        row = Row(file=self._source.name, start=start / self._rate, end=stop / self._rate)
        try:
            clip = level.clip(start, window)
            scores = self._scorer.score_clip(clip.samples)
            self._mean.add([*scores.values()], clip.sound)
            row = replace(row, scores=scores, flags=self._flags_of(clip))
        except AudioError as error:
            row = replace(row, error=error.code, detail=error.detail)
            self._errors[error.code] += 1
        self._windows += 1
        self._flags.update(row.flags)
        heard = self._source.queue.arrival(self._sample(stop))
        self._latencies.append(time.monotonic() - heard)
        return LiveRow(row, self._latencies[-1], self._dropped, self._source.queue.lost)

    def _flags_of(self, clip: LevelledClip) -> tuple[str, ...]:
        first, end = self._sample(clip.start), self._sample(clip.start + len(clip.samples))
        gap = {"gap"} if self._source.queue.has_gap(first, end) else set()
        return in_order(gap if clip.sound else gap | {"silent"})

    def _sample(self, position: int) -> int:
        """The source's sample that is heard at a position at the model's rate."""
        return position * self._source.rate // self._rate

    def _labelled(self, scores: Float64) -> dict[str, float]:
        return dict(zip(self._scorer.labels, scores.tolist(), strict=True))

    def _latency(self, percent: float) -> float | None:
        return round(float(np.percentile(self._latencies, percent)), 4) if self._latencies else None


class _Mean:
    """The mean over windows, in which a window weighs by the sound that it holds (file_rows.mean_clip)."""

    def __init__(self, labels: int) -> None:
        self._weighted, self._plain = np.zeros(labels), np.zeros(labels)
        self._sound, self._count = 0.0, 0

    @property
    def has_sound(self) -> bool:
        """Whether a window was not silent."""
        return self._sound > 0

    def add(self, scores: list[float], sound: float) -> None:
        """A window's scores [K] and its seconds of sound."""
        self._weighted += np.multiply(scores, sound)
        self._plain += scores
        self._sound, self._count = self._sound + sound, self._count + 1

    def scores(self) -> Float64 | None:
        """[K]; None before the first window. Where all are silent, all count the same."""
        if not self._count:
            return None
        return self._weighted / self._sound if self._sound else self._plain / self._count
