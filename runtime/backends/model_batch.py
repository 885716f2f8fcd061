"""What goes into a model and what comes out of it, on the host.

B batch, N samples, T frames, M mels, K labels, D embedding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, overload

import numpy as np
import numpy.typing as npt

from ..arrays import Float32, Int16, Int64, waveform_from_samples
from ..bundle import Bundle, Variant
from ..errors import ModelError
from ..spec import FrontendSpec

_FRAMES = 2  # the axis of log-mels [B, 1, T, M]
ModelBatch = Float32 | Int16  # log_mel [B, 1, T, M], or waveform [B, N] in float32 or int16


class ClipsElsewhere(Protocol):
    """A batch in the memory of a device; see device_memory.DeviceClips."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[B, ...]"""

    @property
    def dtype(self) -> "np.dtype[Any]":
        """int16 or float32."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> "ClipsElsewhere": ...

    def padded(self, size: int) -> "ClipsElsewhere":
        """A copy of `size` clips; those that are missing are zeros."""


ClipBatch = ModelBatch | ClipsElsewhere


class BatchMemory(Protocol):
    """Room for the clips of one batch, where the model reads them."""

    @property
    def clips(self) -> ClipBatch:
        """The batch, for Backend.run."""

    def put(self, first: int, clips: npt.NDArray[Any]) -> None:
        """Copies clips [C, ...] to the places from `first` on; returns when `clips` may be overwritten."""

    def clear(self, first: int) -> None:
        """Fills the places from `first` on with zeros."""


class HostBatch:
    """A BatchMemory on the host."""

    def __init__(self, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> None:
        self.clips: npt.NDArray[Any] = np.zeros(shape, dtype)

    def put(self, first: int, clips: npt.NDArray[Any]) -> None:
        """Copies the clips."""
        self.clips[first : first + len(clips)] = clips

    def clear(self, first: int) -> None:
        """Fills the places from `first` on with zeros."""
        self.clips[first:] = 0


class HostModel:
    """What backends have in common that read their batches where the processor has put them together."""

    def run(self, batch: ClipBatch, spent: "Spent | None" = None) -> "Outputs":
        """A batch -> scores [B, K], embedding [B, D] or None."""
        raise NotImplementedError

    def scores(self, batch: ClipBatch) -> Float32:
        """A batch as `run` takes it -> scores [B, K]."""
        return self.run(batch).scores

    @property
    def skips_silence(self) -> bool:
        """Most compute whole clips."""
        return False

    def new_batch(self, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> BatchMemory:
        """Room for a batch [B, ...] on the host."""
        return HostBatch(shape, dtype)

    def pin(self, array: npt.NDArray[Any]) -> Callable[[], None]:
        """Nothing is to be done on the host."""
        return lambda: None


class Outputs(NamedTuple):
    """What a model gives for a batch."""

    scores: Float32  # [B, K]
    embedding: Float32 | None  # [B, D]; None if the graph does not give it

    def first(self, count: int) -> "Outputs":
        """The first `count` clips, without those that padded the batch."""
        return Outputs(self.scores[:count], None if self.embedding is None else self.embedding[:count])

    def at(self, places: Int64) -> "Outputs":
        """Those of the clips at these places, in their order."""
        return Outputs(self.scores[places], None if self.embedding is None else self.embedding[places])

    @classmethod
    def joined(cls, parts: Sequence["Outputs"]) -> "Outputs":
        """The outputs of a batch that was run in parts."""
        embeddings = [part.embedding for part in parts if part.embedding is not None]
        return cls(
            np.concatenate([part.scores for part in parts]),
            np.concatenate(embeddings) if embeddings else None,
        )


def check_fit(
    bundle: Bundle,
    variant: Variant,
    inputs: Mapping[str, Sequence[object]],
    outputs: Mapping[str, Sequence[object]],
) -> None:
    """Whether a loaded model takes what its variant says and gives a score for each of the bundle's K labels.

    `inputs` and `outputs` are the shapes of the model's tensors by name; a dimension that is free is no
    number, or below 0. Raises ModelError, before any audio is read.
    """
    k, wanted = len(bundle.labels), _input_of(bundle.spec, variant)
    known = {name: list(shape[1:]) for name, shape in outputs.items() if name in Outputs._fields}
    batches = [_known(shape)[:1] for shape in outputs.values()]
    fits = [_known(shape) for shape in inputs.values()] in _inputs_of(wanted) and known.get("scores") == [k]
    if not fits or any(batch != wanted[:1] for batch in batches):
        came = ", ".join(f"{name} {list(shape)}" for name, shape in {**inputs, **outputs}.items())
        raise ModelError(
            str(bundle.path / variant.file),
            came,
            wanted=_fit_in_words(wanted, k),
            fix=bundle.export_again(),
        )
    if "embedding" in known and not (len(known["embedding"]) == 1 and _is_size(known["embedding"][0])):
        raise ModelError(
            str(bundle.path / variant.file),
            f"embedding {list(outputs['embedding'])}",
            wanted="an embedding of a known size",
            fix=bundle.export_again(),
        )


def _input_of(spec: FrontendSpec, variant: Variant) -> list[int | None]:
    """The shape of a variant's input; None is a dimension that is free."""
    match variant.input:
        case "logmel":
            return [None, 1, spec.frames, spec.n_mels]
        case "waveform":
            return [None, spec.clip_samples]
        case "samples":
            return [1, None]


def _inputs_of(wanted: list[int | None]) -> list[list[list[int | None]]]:
    """The shapes that a model's inputs may have: of log-Mels the frames may be free."""
    free = [None if axis == _FRAMES else size for axis, size in enumerate(wanted)]
    return [[wanted], [free]] if len(wanted) > _FRAMES else [[wanted]]


def takes_sound_only(shape: Sequence[object]) -> bool:
    """Whether an input of this shape takes log-Mels without the silence behind: its frames are free."""
    return len(shape) > _FRAMES and not _is_size(shape[_FRAMES])


def _fit_in_words(wanted: list[int | None], k: int) -> str:
    if wanted[0] == 1:
        return f"one input of [1, any number of samples] and scores of [1, {k}], one for each label"
    return f"one input of {wanted[1:]} and scores of [{k}], one for each label, in batches of any size"


def _known(shape: Sequence[object]) -> list[object]:
    return [size if _is_size(size) else None for size in shape]


def _is_size(dimension: object) -> bool:
    return isinstance(dimension, int) and dimension > 0


@dataclass
class Spent:
    """The time of the steps of a run in seconds, summed over runs."""

    to_device: float = 0.0
    model: float = 0.0
    from_device: float = 0.0

    def include(self, other: "Spent") -> None:
        """Adds what others have spent."""
        self.to_device += other.to_device
        self.model += other.model
        self.from_device += other.from_device

    def add(self, begin: float, there: float, ran: float, back: float) -> None:
        """Adds a run, given the times when it began and when each of its three steps ended."""
        self.to_device += there - begin
        self.model += ran - there
        self.from_device += back - ran


@overload
def padded(batch: npt.NDArray[Any], size: int) -> npt.NDArray[Any]: ...
@overload
def padded(batch: ClipBatch, size: int) -> ClipBatch: ...
def padded(batch: ClipBatch, size: int) -> ClipBatch:
    """A batch of at least `size` clips: a smaller one gets zeros at its end."""
    missing = size - len(batch)
    if missing <= 0:
        return batch
    if isinstance(batch, np.ndarray):
        return np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])
    return batch.padded(size)


def widened(batch: ClipBatch) -> Float32:
    """A batch in float32; 16-bit samples are divided by 32768."""
    assert isinstance(batch, np.ndarray)
    if batch.dtype == np.int16:
        return waveform_from_samples(np.asarray(batch, dtype=np.int16))
    assert batch.dtype == np.float32, batch.dtype
    return np.asarray(batch, dtype=np.float32)
