"""Scores of a whole split, from frontend and network in evaluation mode.

n clips, B batch, T frames, M mels, L columns of the scores.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

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
    half: torch.dtype | None = None,
    compiled: nn.Module | None = None,
    world: World = World(),  # noqa: B008  # frozen
    advance: Callable[[int], None] = lambda count: None,
) -> Float32:
    """Scores [n, L] of a whole split, in its order. The ranks share the clips.

    `crop` full takes a recording that is longer than a clip as a whole, by itself. The network runs under
    autocast to `half`, if there is one. `compiled` is the network for batches of one shape: what is
    shorter is padded, and whole recordings go through `network`. `advance` is called after each batch with
    the number of clips that are done since the last call, and equally often on each rank.
    """
    network.eval()
    shares = np.array_split(np.arange(len(split)), world.size)
    longer_of = [
        (split.store.lengths[share] > split.spec.clip_samples) & (crop == "full") for share in shares
    ]
    samples, longer = shares[world.rank], longer_of[world.rank]
    scores = np.empty((len(samples), network.head.out_features), dtype=np.float32)
    for chosen, batch in _batches(split, frontend, samples, longer):
        is_whole = batch.shape[2] != split.spec.frames
        with torch.autocast(split.device.type, half, enabled=half is not None), _benchmark(not is_whole):
            if compiled is None or is_whole:
                found = network(batch).scores
            else:
                found = compiled(_padded(batch, _BATCH[split.device.type])).scores[: len(batch)]
            scores[chosen] = found.cpu().numpy()
        advance(len(batch) * world.size)
    counts = [_batch_count(of_share, split.device) for of_share in longer_of]
    for _ in range(max(counts) - counts[world.rank]):
        advance(0)
    return concatenated(world, scores)


def _padded(batch: Tensor, size: int) -> Tensor:
    """[B, 1, T, M] -> [size, 1, T, M], with zeros."""
    return torch.nn.functional.pad(batch, (0, 0, 0, 0, 0, 0, 0, size - len(batch)))


@contextlib.contextmanager
def _benchmark(allowed: bool) -> Iterator[None]:
    """cuDNN tries its algorithms for every new shape, and recordings have a shape each."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before and allowed
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _batch_count(longer: "np.typing.NDArray[np.bool_]", device: torch.device) -> int:
    """Of a share of the clips: how many batches `_batches` makes."""
    return -(-int((~longer).sum()) // _BATCH[device.type]) + int(longer.sum())


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
