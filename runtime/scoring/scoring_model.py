"""The model of a scorer: a loaded backend that batches and single clips run on.

B batch, N samples, K labels, D embedding.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from ..arrays import Float32, Int16, waveform_from_samples
from ..backends.base import Backend
from ..backends.choice import Choice, backend_from_variant, choose_backend
from ..backends.model_batch import ClipBatch, Outputs, padded
from ..backends.registry import backend_kind
from ..bundle import Bundle
from ..errors import ModelError, OutOfMemoryError, UnavailableError
from ..frontend import clip_input
from ..system.cpus import usable_cpus
from ..system.failpoints import failpoint

# Frames from which on a clip has two tiles of four rows in the deepest maps, which have a row for 32 frames.
# Of one tile, a clip alone makes a matrix product of one row, which is summed in another order.
_TWO_TILES: Final = 160


@dataclass
class Timing:
    """Seconds of work, summed over all decoders and all threads of the model, and over all calls."""

    decoding: float = 0.0  # with reading
    features: float = 0.0
    model: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, *, decoding: float = 0.0, features: float = 0.0, model: float = 0.0) -> None:
        """Adds seconds. Several threads may."""
        with self._lock:
            self.decoding += decoding
            self.features += features
            self.model += model

    def adapt_to_fork(self) -> None:
        """In a forked process: a thread that is no more may have held the lock."""
        self._lock = threading.Lock()


class ScoringModel:
    """Runs batches of one size, less where the device's memory is too small. Several threads may use it."""

    def __init__(
        self,
        bundle: Bundle,
        choice: Choice,
        *,
        batch_size: int,
        lanes: int | None,
        is_named: bool,
        timing: Timing,
    ) -> None:
        """Wraps the backend that was chosen.

        `is_named` says that the user chose the variant; single clips then take no other. The time that
        batches take is added to `timing`.
        """
        self.backend = choice.backend
        self.batch_that_fits = batch_size  # less once the device's memory was too small
        self.in_use: set[int] = set()  # threads that are in the model
        way = choice.way
        # Its files are read later, too: the working directory may be another one by then.
        self._bundle = replace(bundle, path=bundle.path.absolute())
        self._is_named, self._tuning = is_named, choice.tuning
        self.threads, self._lanes = way.threads if way else 1, lanes or (way.lanes if way else usable_cpus())
        self._for_clips: Backend | None = None  # not chosen yet
        self._timing, self._lock = timing, threading.Lock()

    @property
    def lanes(self) -> int:
        """Number of batches that run at once."""
        return backend_kind(self.backend.device).lanes(self._lanes)

    def outputs(self, batch: ClipBatch, *, fixed: bool = True) -> Outputs:
        """A batch of the backend's input, float32 or int16 -> scores [B, K], embedding [B, D] or None.

        The batch may be smaller than a whole one: it is padded, without `fixed`, or where silence is not
        computed, to the sizes that `_size_for` has. With `fixed` a clip does not depend on its neighbours:
        where silence is not computed, a short one that is alone is run twice. If the device has too little
        memory for a batch, it is halved until it fits. Raises OutOfMemoryError if not even one clip fits.
        """
        if fixed and self.backend.skips_silence:
            is_short = self._bundle.spec.frames < _TWO_TILES
            if is_short and isinstance(batch, np.ndarray) and len(batch) == 1 < self.batch_that_fits:
                return self.outputs(np.concatenate([batch, batch]), fixed=False).first(1)
            fixed = False
        while True:
            size = self.batch_that_fits if fixed else self._size_for(len(batch))
            try:
                return Outputs.joined(
                    [self._run(batch[i : i + size], size) for i in range(0, len(batch), size)]
                )
            except MemoryError as error:  # of the backend, or of the arrays around it
                if size == 1:
                    raise _one_is_too_much(error) from error
                self.batch_that_fits = min(self.batch_that_fits, size // 2)  # another lane may have halved it

    def _size_for(self, clips: int) -> int:
        """Size of the batch for so many clips: on a GPU a power of two, as each size is prepared anew."""
        if backend_kind(self.backend.device).needs_gpu:
            clips = 1 << (clips - 1).bit_length()
        return min(self.batch_that_fits, clips)

    def timed_outputs(self, batch: ClipBatch, *, fixed: bool = True) -> Outputs:
        """`outputs`, whose time is added to the timing."""
        begin = time.perf_counter()
        try:
            return self.outputs(batch, fixed=fixed)
        finally:
            self._timing.add(model=time.perf_counter() - begin)

    def scores_of_clip(self, samples: Int16) -> Float32:
        """Samples [N] of one clip -> scores [K], by what runs single clips. Raises what `outputs` raises."""
        backend = self.backend_for_clips()
        clip = clip_input(waveform_from_samples(samples), self._bundle.spec, backend.variant.input)
        try:
            with self._counted():
                scores: Float32 = backend.scores(clip[None])[0]
        except MemoryError as error:
            raise _one_is_too_much(error) from error
        return scores

    def backend_for_clips(self) -> Backend:
        """What runs single clips: the backend of the batches, unless its variant is slow for them."""
        with self._lock:
            if self._for_clips is None:
                # Another export in this folder has replaced its file: the model that is loaded goes on.
                with contextlib.suppress(ModelError):
                    self._for_clips = self._loaded_for_clips()
                self._for_clips = self._for_clips or self.backend
            return self._for_clips

    def _loaded_for_clips(self) -> Backend | None:
        """Another backend than that of the batches; None where this is the one."""
        batches = self.backend
        if self._tuning:
            way, now = self._tuning.clips, (batches.variant.name, batches.device, self.threads)
            if (way.variant, way.backend, way.threads) == now:
                return None
            return choose_backend(self._bundle, single=True, tuned=True).backend
        if self._is_named or not backend_kind(batches.device).drawback(batches.variant, True):
            return None
        return choose_backend(self._bundle, batches.device, threads=1, single=True).backend

    def adapt_to_fork(self, parent: int) -> None:
        """In a process that was forked from `parent`, replaces what a fork cannot share.

        Raises UnavailableError where the backend cannot be shared: the memory of a GPU belongs to the process
        that loaded the model, and so do the threads of some runtimes.
        """
        if not backend_kind(self.backend.device).survives_fork:
            raise UnavailableError(
                f"--backend {self.backend.device}",
                f"process {parent} has loaded the model, and this one was forked from it",
                wanted="a Scorer that is made in the process that uses it",
                fix="make it after the fork (gunicorn: without --preload), or use multiprocessing spawn",
            )
        self._lock = threading.Lock()  # another thread may have held it
        self._timing.adapt_to_fork()
        if self.in_use:  # a thread that is no more was in the session, and may hold locks of it
            self.in_use = set()
            self.backend = backend_from_variant(
                self._bundle, self.backend.variant, self.backend.device, threads=self.threads
            )
            self._for_clips = None

    def _run(self, batch: ClipBatch, size: int) -> Outputs:
        failpoint(f"model.{size}")
        with self._counted():
            return self.backend.run(padded(batch, size)).first(len(batch))

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        thread = threading.get_ident()
        self.in_use.add(thread)
        try:
            yield
        finally:
            self.in_use.discard(thread)


def _one_is_too_much(error: MemoryError) -> ModelError:
    if isinstance(error, ModelError):
        return error
    return OutOfMemoryError(
        "one clip",
        "takes more memory than there is",
        wanted="a model that fits",
        fix="stop other programs that take memory",
    )
