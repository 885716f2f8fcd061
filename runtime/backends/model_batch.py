"""What goes into a model and what comes out of it, on the host.

B batch, N samples, T frames, M mels, K labels, D embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import Float32, Int16, waveform_from_samples

ModelBatch = Float32 | Int16  # log_mel [B, 1, T, M], or waveform [B, N] in float32 or int16


class Outputs(NamedTuple):
    """What a model gives for a batch."""

    scores: Float32  # [B, K]
    embedding: Float32 | None  # [B, D]; None if the graph does not give it

    def first(self, count: int) -> "Outputs":
        """The first `count` clips, without those that padded the batch."""
        return Outputs(self.scores[:count], None if self.embedding is None else self.embedding[:count])

    @classmethod
    def joined(cls, parts: Sequence["Outputs"]) -> "Outputs":
        """The outputs of a batch that was run in parts."""
        embeddings = [part.embedding for part in parts if part.embedding is not None]
        return cls(
            np.concatenate([part.scores for part in parts]),
            np.concatenate(embeddings) if embeddings else None,
        )


@dataclass
class Spent:
    """The time of the steps of a run in seconds, summed over runs."""

    to_device: float = 0.0
    model: float = 0.0
    from_device: float = 0.0

    def add(self, begin: float, there: float, ran: float, back: float) -> None:
        """Adds a run, given the times when it began and when each of its three steps ended."""
        self.to_device += there - begin
        self.model += ran - there
        self.from_device += back - ran


def padded(batch: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """A batch of at least `size` clips: a smaller one gets zeros at its end."""
    missing = size - len(batch)
    if missing <= 0:
        return batch
    return np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])


def widened(batch: ModelBatch) -> Float32:
    """A batch in float32; 16-bit samples are divided by 32768."""
    if batch.dtype == np.int16:
        return waveform_from_samples(np.asarray(batch, dtype=np.int16))
    assert batch.dtype == np.float32, batch.dtype
    return np.asarray(batch, dtype=np.float32)
