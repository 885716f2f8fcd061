"""Files or samples in, rows of scores out: decoding in threads, batches of one fixed shape, order kept.

B batch, T frames, M mels, N samples, K labels.
"""

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .audio import Audio, FilePath, audio_from_array, read_audio
from .backends import BackendName, backend_from_bundle
from .bundle import Bundle, load_bundle
from .cpus import usable_cpus
from .errors import AudioError, ConfigError
from .frontend import Float32, clip_log_mel, clip_of

DEFAULT_BATCH = {"cpu": 4, "cuda": 256}
_FILES_AHEAD = 4  # batches of files that may lie decoded before the model takes them


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file's result. `scores` is None exactly where the file could not be scored; `error` then says why."""

    file: FilePath
    start: float | None = None  # s, of what was scored
    end: float | None = None  # s
    scores: dict[str, float] | None = None
    error: str = ""  # a code of audio.ERROR_CODES, or a flag of audio.FLAGS beside the scores
    detail: str = ""
    seconds: float = 0.0  # of audio in the file


@dataclass(frozen=True)
class _Prepared:
    """A file, decoded and ready for the model, or the reason why not. Many wait at once, so none keeps its samples."""

    file: FilePath
    features: Float32 | None = None  # log_mel [1, T, M] or waveform [N]
    seconds: float = 0.0  # of audio in the file
    flag: str = ""
    error: AudioError | None = None


class Scorer:
    """Scores audio with a bundle. Loading takes its time once; then every call uses the same session.

    Every batch has the same shape, its tail padded, so that a file's score does not depend on its neighbours.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str],
        backend: BackendName = "auto",
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        max_seconds: float = 3600.0,
        allow_truncated: bool = False,
    ) -> None:
        """`workers` decoding threads, by default one for each core. Raises ModelError, ConfigError."""
        _check_positive("--batch-size", batch_size)
        _check_positive("--workers", workers)
        _check_positive("--max-seconds", max_seconds)
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self.backend = backend_from_bundle(self.bundle, backend)
        self.batch_size = batch_size or DEFAULT_BATCH[self.backend.device]
        self.workers = workers or usable_cpus()
        self._max_seconds = max_seconds
        self._allow_truncated = allow_truncated

    @property
    def labels(self) -> tuple[str, ...]:
        """The K labels, in the order of the model's outputs."""
        return self.bundle.labels

    def score_files(self, paths: Iterable[FilePath]) -> Iterator[Row]:
        """One row for each path, in the order given. A bad file is a row with an error, never an exception."""
        batch: list[_Prepared] = []
        good = 0
        for item in self._prepared(paths):
            if item.features is None and not good:  # nothing is waiting before it
                yield _error_row(item)
                continue
            batch.append(item)
            good += item.features is not None
            if good == self.batch_size:
                yield from self._rows(batch)
                batch, good = [], 0
        yield from self._rows(batch)

    def score_waveform(self, waveform: npt.ArrayLike, sampling_rate: int) -> dict[str, float]:
        """Samples [N] or [N, channels] of any scale -> score of each label. Raises AudioError for NaN or no samples."""
        row = next(self._rows([self._ready("", audio_from_array(waveform, sampling_rate, self.bundle.spec))]))
        if row.scores is None:
            raise AudioError(row.error, row.detail)
        return row.scores

    def _prepared(self, paths: Iterable[FilePath]) -> Iterator[_Prepared]:
        """In order, with a bounded number of files in flight."""
        limit = _FILES_AHEAD * self.batch_size + self.workers
        waiting: deque[Future[_Prepared]] = deque()
        with ThreadPoolExecutor(self.workers, thread_name_prefix="decode") as pool:
            try:
                for path in paths:
                    waiting.append(pool.submit(self._prepare, path))
                    if len(waiting) >= limit:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, path: FilePath) -> _Prepared:
        try:
            audio = read_audio(path, self.bundle.spec, max_seconds=self._max_seconds, allow_truncated=self._allow_truncated)
        except AudioError as error:
            return _Prepared(path, error=error)
        return self._ready(path, audio)

    def _ready(self, path: FilePath, audio: Audio) -> _Prepared:
        return _Prepared(path, self._features(audio), audio.seconds, audio.flag)

    def _features(self, audio: Audio) -> Float32:
        spec = self.bundle.spec
        if self.backend.variant.input == "waveform":
            return clip_of(audio.waveform, spec)
        return clip_log_mel(audio.waveform, spec)[None]

    def _rows(self, items: list[_Prepared]) -> Iterator[Row]:
        features = [item.features for item in items if item.features is not None]
        scores = iter(self._scores(features) if features else ())
        for item in items:
            yield _error_row(item) if item.features is None else self._row(item, next(scores))

    def _scores(self, features: list[Float32]) -> Float32:
        """[K] for each of up to B inputs, from one batch of exactly B."""
        batch = np.zeros((self.batch_size, *features[0].shape), dtype=np.float32)
        batch[: len(features)] = features
        return self.backend.scores(batch)[: len(features)]

    def _row(self, item: _Prepared, scores: Float32) -> Row:
        if not np.isfinite(scores).all():
            return Row(file=item.file, error="invalid_score", detail="the model gave NaN or infinity")
        spec = self.bundle.spec
        return Row(
            file=item.file,
            start=0.0,
            end=min(item.seconds, spec.clip_samples / spec.sampling_rate),
            scores=dict(zip(self.labels, scores.tolist(), strict=True)),
            error=item.flag,
            seconds=item.seconds,
        )


def _error_row(item: _Prepared) -> Row:
    assert item.error is not None
    return Row(file=item.file, error=item.error.code, detail=item.error.detail)


def _check_positive(flag: str, value: float | None) -> None:
    if value is not None and not 0 < value < math.inf:
        raise ConfigError(f"{flag} | {value} | expected a number above 0")
