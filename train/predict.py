"""Scores of a whole split, from frontend and network in evaluation mode.

n clips, B batch, T frames, M mels, L columns of the scores.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..runtime.arrays import Float32, Int64
from .config import Crop
from .data.device_clips import SplitClips
from .distributed import World, concatenated
from .method.frontend import LogMel
from .method.model import TwinsNetwork

_BATCH: Final = {"cpu": 32, "cuda": 256}
_MEAN_CLIPS: Final = 1000  # enough for the mean of a mel bin: its standard error is then about 0.3 dB


def log_mels(split: SplitClips, frontend: LogMel, samples: Int64) -> Iterator[Tensor]:
    """Batches [B, 1, T, M] of the recordings `samples`, each cut to its first clip."""
    size = _BATCH[split.device.type]
    for begin in range(0, len(samples), size):
        chosen = samples[begin : begin + size]
        yield frontend(*split.clips(chosen, np.zeros_like(chosen)))


def mel_mean(split: SplitClips, frontend: LogMel) -> Tensor:
    """The mean [M] of each mel bin in dB, from up to 1000 clips at equal distances in the split."""
    count = min(len(split), _MEAN_CLIPS)
    samples = np.linspace(0, len(split) - 1, count).astype(np.int64)
    total = torch.zeros(split.spec.n_mels, dtype=torch.float64, device=split.device)
    for batch in log_mels(split, frontend, samples):
        total += batch.double().mean(dim=(1, 2)).sum(0)
    return (total / count).float()


@torch.no_grad()
def predict(
    network: TwinsNetwork,
    frontend: LogMel,
    split: SplitClips,
    *,
    crop: Crop = "clip",
    half: bool = False,
    world: World = World(),  # noqa: B008  # frozen
    advance: Callable[[int], None] = lambda count: None,
) -> Float32:
    """Scores [n, L] of a whole split, in its order. The ranks share the clips.

    `crop` full takes a recording that is longer than a clip as a whole, by itself. `half` runs the
    network in bfloat16. `advance` is called with the number of clips that are done since the last call.
    """
    network.eval()
    samples = np.array_split(np.arange(len(split)), world.size)[world.rank]
    longer = (split.store.lengths[samples] > split.spec.clip_samples) & (crop == "full")
    scores = np.empty((len(samples), network.head.out_features), dtype=np.float32)
    for chosen, batch in _batches(split, frontend, samples, longer):
        with torch.autocast(split.device.type, torch.bfloat16, enabled=half):
            scores[chosen] = network(batch).scores.cpu().numpy()
        advance(len(batch) * world.size)
    return concatenated(world, scores)


def _batches(
    split: SplitClips, frontend: LogMel, samples: Int64, longer: "np.typing.NDArray[np.bool_]"
) -> Iterator[tuple[Int64, Tensor]]:
    """(rows, log_mel): every row of `samples` once, first in batches, then `longer` ones alone."""
    done, short = 0, np.flatnonzero(~longer)
    for batch in log_mels(split, frontend, samples[short]):
        yield short[done : done + len(batch)], batch
        done += len(batch)
    for row in np.flatnonzero(longer):
        yield np.array([row]), frontend(*split.whole(int(samples[row])))
