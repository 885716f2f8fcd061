"""Files or samples in, rows of scores out, in the order of the files.

Processes of their own decode the files. The model runs on batches of one shape, unless it leaves silence out.

N samples, K labels, D embedding.
"""

import contextlib
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from ..arrays import Int16
from ..audio.file_names import FilePath
from ..audio.level import Level
from ..audio.reader import audio_from_array
from ..audio.sources import AudioSource, PackedFile
from ..backends.base import Backend
from ..backends.choice import BackendName, choose_backend, is_named
from ..backends.model_batch import BatchMemory, ClipBatch, Outputs
from ..backends.tuning_file import MOST_LANES
from ..bundle import Bundle, Variant, load_bundle
from ..errors import AudioError, ConfigError, ModelError, NotPicklableError
from ..progress import duration
from ..system.cpus import usable_cpus
from ..system.host import MOST_PROCESSES
from ..tables.rows import Row
from ..text import short
from .batches import Batches
from .decoder_handle import ClipsReady
from .decoder_messages import DecoderSettings, Segment, Window
from .decoder_pool import (
    DecoderPool,
    FileRestarted,
    FilesEnded,
    PoolEvent,
    PoolIdle,
    PoolLooked,
)
from .decoder_start import check_process, fork_lock, this_process
from .feed import Feed
from .file_rows import NOT_FINITE, FileInProgress, RowLayout
from .scorer_settings import (
    MOST_CLIPS,
    check_count,
    check_level,
    check_positive,
    check_segment,
    check_window,
    window_of,
)
from .scoring_model import ScoringModel, Timing

_AHEAD: Final = 4096  # files whose rows may wait for an earlier file that takes longer
_LONG: Final = 60.0  # s; what is shorter is scored before anybody asks how far it is


class Scorer:
    """Scores audio with a bundle.

    The model is loaded once. Every call uses the same session and the same decoders. The score of a file
    does not depend on its neighbours: batches have one shape, with their tail padded, or the model does not
    compute silence and gives the same scores in any batch.

    `with Scorer(bundle) as scorer:` stops the decoders at its end. Several threads may use one scorer. A
    process that is forked from the scorer's own may use its copy: it starts decoders of its own. A scorer on
    a GPU cannot be used after a fork, and no scorer can be pickled.
    """

    def __init__(
        self,
        bundle: Bundle | str | bytes | os.PathLike[str],
        backend: BackendName = "auto",
        *,
        variant: str | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        lanes: int | None = None,
        window: Window | None = None,
        hop: float | None = None,
        max_seconds: float = 3600.0,
        timeout: float = 60.0,
        allow_truncated: bool = False,
        channel: int | None = None,
        embeddings: bool = False,
        level: Level = "file",
        segment: Segment | None = None,
        start_decoding: bool = False,
    ) -> None:
        """Loads the model. `backend` and `variant` are those of `backends.choice.choose_backend`.

        By default the fastest variant that runs here is taken: for batches, or with a `batch_size` of 1 for
        single clips. What `rrtn tune` has found here decides, unless backend, variant or `lanes` are given.
        Up to `workers` decoding processes, by default one a core, are started as files come; with
        `start_decoding` the first one now, while the model is being loaded. On the CPU `lanes` batches run
        at once, by default as many as there are cores.

        Without `window` the first clip of a file is scored. With `window` (s, at most a clip) every
        window is scored, `hop` (s) apart, and their mean is one more row, in which a window weighs by the
        sound that it holds. With "auto" a file of at most one clip has one row, and a longer one has
        windows of one clip. `max_seconds` does not apply with windows. A file that takes longer than
        `timeout` (s) to decode is given up. `channel`, counted from 1, is scored in place of the mean of all.
        A recording in windows has the level of its loudest sample, or with `level` "running" that of the
        loudest one so far, as live sound has.

        With `segment` the bursts of a file are found first, by their "level"; with "voice" those that are no
        voice are left out. Each burst is scored as a file of its own, in windows of `window`, by default
        "auto", and the mean over all is one more row. `max_seconds` does not apply.

        Raises ModelError, ConfigError.
        """
        check_count("--batch-size", batch_size, most=MOST_CLIPS)
        check_count("lanes", lanes, most=MOST_LANES)
        for name, count in {"--workers": workers, "--channel": channel}.items():
            check_count(name, count)
        check_positive("--max-seconds", max_seconds)
        check_positive("--timeout", timeout)
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        check_segment(segment, level)
        window = window_of(window, segment)
        check_window(window, hop, self.bundle.spec)
        check_level(level, window)
        self.workers, self._timeout = min(workers or usable_cpus(), MOST_PROCESSES), timeout
        self._idle: list[DecoderPool] = []  # pools that no call uses; its methods need no lock
        self._closings = 0  # how often it was closed

        make_settings = partial(
            DecoderSettings,
            spec=self.bundle.spec,
            window=window,
            hop=hop,
            segment=segment,
            max_seconds=math.inf if window else max_seconds,
            allow_truncated=allow_truncated,
            channel=channel,
            level=level,
        )
        prepare = partial(self._prepare_decoding, make_settings, batch_size, start_decoding)
        with contextlib.ExitStack() as on_error:
            on_error.callback(self.close)
            choice = choose_backend(
                self.bundle,
                backend,
                variant=variant,
                threads=1,
                single=batch_size == 1,
                tuned=lanes is None,
                before_load=prepare,
            )
            if embeddings and choice.backend.embedding_size is None:
                raise ModelError(
                    "--embeddings",
                    f"{choice.backend.variant.file} gives scores only",
                    wanted="a model that gives embeddings",
                    fix=self.bundle.export_again("--embeddings"),
                )
            on_error.pop_all()
        self.passed_over, self.remark = choice.passed_over, choice.remark
        for decoders in self._idle:
            decoders.pin(choice.backend.pin)
        self.timing = Timing()
        self.model = ScoringModel(
            self.bundle,
            choice,
            batch_size=self.batch_size,
            lanes=lanes,
            is_named=is_named(self.bundle, variant),
            timing=self.timing,
        )
        self._layout = RowLayout(labels=self.labels, decoding=self.decoding, embeddings=embeddings)
        self._process = this_process()
        self._files: dict[int, FileInProgress] = {}  # of the list that is being scored

    def _prepare_decoding(
        self,
        make_settings: Callable[..., DecoderSettings],
        batch_size: int | None,
        start: bool,
        variant: Variant,
        batch_of_backend: int,
    ) -> None:
        """Sets what decoders must know of a variant, before it is loaded; starts one if it shall `start`."""
        self.close()  # one for another variant, which could not be loaded
        self.batch_size = batch_size or batch_of_backend
        slots = max(16, 2 * self.batch_size // self.workers)
        self.decoding = make_settings(input=variant.input, slots=slots)
        if start:
            self._idle.append(self._new_decoders())

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise NotPicklableError(
            "Scorer",
            "cannot be pickled or copied: it holds a loaded model and processes",
            wanted="the bundle's path",
            fix=f"give the other process {str(self.bundle.path)!r}, and make a Scorer there",
        )

    @property
    def lanes(self) -> int:
        """Number of batches that the model runs at once."""
        return self.model.lanes

    @property
    def backend(self) -> Backend:
        """What batches run on."""
        return self.model.backend

    @property
    def embedding_size(self) -> int | None:
        """D if the rows carry embeddings, else None."""
        return self.backend.embedding_size if self._layout.embeddings else None

    @property
    def labels(self) -> tuple[str, ...]:
        """The K labels, in the order of the model's outputs."""
        return self.bundle.labels

    def score_files(self, paths: Iterable[FilePath | PackedFile]) -> Iterator[Row]:
        """Gives the rows of each path, in the order of the paths.

        A file that cannot be scored is a row with an error code, never an exception. Raises ConfigError for
        one path that is not in a list, and for what is no path in one.
        """
        for rows in self.rows_of_files(paths):
            yield from rows

    def rows_of_files(self, paths: Iterable[FilePath | PackedFile]) -> Iterator[list[Row]]:
        """Gives the rows of each path as one list."""
        if isinstance(paths, str | bytes | os.PathLike | PackedFile):  # its letters would be taken for paths
            raise ConfigError("paths", repr(paths), wanted="a list of paths", fix=f"[{paths!r}]")
        self._adapt_to_fork()
        process, files = self._process, dict[int, FileInProgress]()
        closings, decoders, done = self._closings, self._taken_decoders(), False
        self._files = files
        try:
            with self._batches(self.model.timed_outputs, by_length=self.backend.skips_silence) as batches:
                released = 0
                for event in decoders.events(_noted(paths, files), ahead=_AHEAD):
                    check_process(process)
                    self._take(event, files, batches)
                    while (file := files.get(released)) and file.is_done:
                        yield self._layout.rows(files.pop(released))
                        decoders.released = released = released + 1
                batches.flush()
            yield from (self._layout.rows(files[ticket]) for ticket in sorted(files))
            done = True
        finally:
            if self._files is files:
                self._files = {}
            self._put_back(decoders, closings) if done else decoders.close()

    def in_work(self) -> str:
        """How far the first of the files in work has been scored, where that is a minute and more.

        Any thread may ask; of several lists of files at a time, the one that came last is meant.
        """
        for file in list(self._files.values())[:1]:
            if (reached := file.reached()) >= _LONG:
                return f"{os.path.basename(os.fsdecode(file.path))} to {duration(reached)}"
        return ""

    def rows_of_feed(self, feed: Feed) -> Iterator[tuple[int, list[Row]]]:
        """Gives the ticket and the rows of each file as soon as they are there, until the feed is closed.

        This is for files that come one by one, as requests do. A clip that is alone is scored at once;
        where many come, they share batches. The rows have no name of a file.
        """
        self._adapt_to_fork()
        process, files = self._process, defaultdict[int, FileInProgress](partial(FileInProgress, b""))
        run = partial(self.model.timed_outputs, fixed=False)
        with (
            contextlib.closing(self._taken_decoders()) as decoders,
            self._batches(run, wake=feed.wake) as batches,
        ):
            for event in decoders.events_of_feed(feed):
                check_process(process)
                self._take(event, files, batches)
                if isinstance(event, PoolLooked):
                    feed.look_within = batches.run_some(coming=event.decoding)
                    yield from self._done(files)
            batches.flush()
            yield from self._done(files)

    def score_waveform(self, waveform: npt.ArrayLike, sampling_rate: int) -> dict[str, float]:
        """Samples [N] or [N, channels] of any scale -> score of each label. The first clip of them is scored.

        A peak below 1e-7 is silence. The model runs at once, on a batch of one. Where another variant is
        faster for that, the first call loads it, too, unless a variant was named; a Scorer with a
        `batch_size` of 1 has loaded no other. The scores are those of `score_files` to 1e-6, or to what the
        two variants differ by. Raises AudioError if there are no samples or a sample is NaN, ConfigError for
        what is no array of samples.
        """
        audio = audio_from_array(waveform, sampling_rate, self.bundle.spec, channel=self.decoding.channel)
        return self.score_clip(audio.samples)

    def score_clip(self, samples: Int16) -> dict[str, float]:
        """Samples [N] of one clip, mono, at the model's rate and at their level -> score of each label.

        For sound that is levelled elsewhere, as live sound is. Raises AudioError where a score is no number.
        """
        self._adapt_to_fork()
        scores = self.model.scores_of_clip(samples)
        if not np.isfinite(scores).all():
            raise AudioError("invalid_score", NOT_FINITE)
        return dict(zip(self.labels, scores.tolist(), strict=True))

    def _batches(self, run: Callable[[ClipBatch], Outputs], **settings: Any) -> Batches:
        return Batches(run, self._new_batch, size=self.batch_size, lanes=self.lanes, **settings)

    def _new_batch(self) -> BatchMemory:
        decoding = self.decoding
        return self.backend.new_batch((self.batch_size, *decoding.slot_shape), decoding.slot_dtype)

    def close(self) -> None:
        """Stops the decoders. The next files start new ones.

        A list of files whose rows are not all taken keeps its own until then, or until its iterator ends.
        """
        self._closings += 1
        while self._idle:
            self._idle.pop().close()

    def _taken_decoders(self) -> DecoderPool:
        """The pool at hand, or a new one. Two lists of files that are scored at a time have two pools."""
        with contextlib.suppress(IndexError):
            decoders = self._idle.pop()
            if decoders.is_usable():
                return decoders
            decoders.close()
        decoders = self._new_decoders()
        decoders.pin(self.backend.pin)
        return decoders

    def _new_decoders(self) -> DecoderPool:
        chunk = min(self.batch_size, 32)
        decoders = DecoderPool(self.decoding, count=self.workers, chunk=chunk, timeout=self._timeout)
        decoders.close_with(self)
        return decoders

    def _put_back(self, decoders: DecoderPool, closings: int) -> None:
        """Keeps the pool for the next call, unless another call has put back its own.

        It was taken after so many closings; a pool that was in use when the scorer was closed is not kept.
        """
        if self._idle or closings < self._closings or not decoders.is_usable():
            decoders.close()
        else:
            self._idle.append(decoders)

    def _adapt_to_fork(self) -> None:
        """In a process that was forked since. Raises what `ScoringModel.adapt_to_fork` raises."""
        if self._process == this_process():
            return
        with fork_lock():
            if self._process != this_process():
                self.model.adapt_to_fork(self._process.number)
                self._process = this_process()

    def _take(self, event: PoolEvent, files: dict[int, FileInProgress], batches: Batches) -> None:
        match event:
            case ClipsReady(clips, features):
                batches.add(clips, features, files)
            case FileRestarted(ticket):  # clips of the old decoder may still be on their way to the old file
                files[ticket] = FileInProgress(files[ticket].path)
            case PoolIdle():
                batches.flush()
            case PoolLooked():
                pass
            case FilesEnded(ends, decoding, features):
                for end in ends:
                    files[end.ticket].ended = end
                self.timing.add(decoding=decoding, features=features)

    def _done(self, files: dict[int, FileInProgress]) -> Iterator[tuple[int, list[Row]]]:
        for ticket in [ticket for ticket, file in files.items() if file.is_done]:
            yield ticket, self._layout.rows(files.pop(ticket))


def _noted(
    sources: Iterable[FilePath | PackedFile], files: dict[int, FileInProgress]
) -> Iterator[AudioSource]:
    for ticket, source in enumerate(sources):
        if isinstance(source, PackedFile):
            files[ticket] = FileInProgress(source.name)
            yield source
        else:
            try:
                named = _as_bytes_can_be(source)
            except TypeError as error:
                wanted = "a path: str, bytes or os.PathLike"
                raise ConfigError(f"paths[{ticket}]", short(source), wanted=wanted) from error
            files[ticket] = FileInProgress(named)
            yield os.fsencode(named)


def _as_bytes_can_be(path: FilePath) -> FilePath:
    """A path; bytes in place of text that no file can be named, as "\\ud800", so that it is `missing`."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return str(path).encode("utf-8", "surrogatepass")
    return path
