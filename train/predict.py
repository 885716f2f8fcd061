"""The clips of a split on their way through frontend and network.

n clips, B batch, N samples, T frames, M mels, K targets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..runtime.audio import INT16_SCALE, Int16
from ..runtime.frontend import Float32
from ..runtime.progress import Progress
from ..runtime.spec import FrontendSpec
from . import views
from .clips import ClipStore, clip_store
from .data import DataSet
from .frontend import LogMel
from .model import TwinsNetwork

_BATCH: Final = 32
_MEAN_CLIPS: Final = 2000  # enough for the mean of a mel bin: its standard error is then below 0.3 dB


@dataclass(frozen=True, kw_only=True)
class SplitClips:
    """A split, decoded: waveforms on the host, ratings [n, K] on the device."""

    store: ClipStore
    ratings: Tensor
    names: list[str]
    spec: FrontendSpec


def split_clips(data: DataSet, name: str, spec: FrontendSpec, device: torch.device) -> SplitClips:
    """The split `name`, decoded where the cache lacks it. Raises DataError naming the files that cannot be."""
    split = data.splits[name]
    store = clip_store([clip.path for clip in split.clips], spec, label=f"decode {name}")
    ratings = torch.from_numpy(split.ratings).to(device)
    return SplitClips(store=store, ratings=ratings, names=[clip.file_id for clip in split.clips], spec=spec)


def waveform_batch(split: SplitClips, samples: views.Int64, *, seed: int, epoch: int) -> Tensor:
    """Training clips [B, N] in [-1, 1] on the ratings' device, cropped at this epoch's places."""
    lengths = split.store.lengths[samples]
    starts = views.crop_starts(seed, epoch, samples, lengths, split.spec.clip_samples)
    return _to_device(split.store.clips(samples, starts, split.spec), split.ratings.device)


def log_mels(split: SplitClips, frontend: LogMel, samples: views.Int64) -> Iterator[Tensor]:
    """Batches [B, 1, T, M] of the starts of the clips `samples`, as evaluation and scoring see them."""
    for begin in range(0, len(samples), _BATCH):
        chosen = samples[begin : begin + _BATCH]
        clips = split.store.clips(chosen, np.zeros_like(chosen), split.spec)
        yield frontend(_to_device(clips, split.ratings.device))


def mel_mean(split: SplitClips, frontend: LogMel) -> Tensor:
    """The mean [M] of each mel bin in dB, over up to 2000 clips spread over the split."""
    count = min(len(split.store), _MEAN_CLIPS)
    samples = np.linspace(0, len(split.store) - 1, count).astype(np.int64)
    total = torch.zeros(split.spec.n_mels, dtype=torch.float64, device=split.ratings.device)
    for batch in log_mels(split, frontend, samples):
        total += batch.double().mean(dim=(1, 2)).sum(0)
    return (total / count).float()


@torch.no_grad()
def predict(network: TwinsNetwork, frontend: LogMel, split: SplitClips, *, label: str = "validate") -> Float32:
    """Scores [n, K] of a whole split, in its order."""
    network.eval()
    parts: list[npt.NDArray[np.float32]] = []
    with Progress(label, len(split.store), "clips") as bar:
        for batch in log_mels(split, frontend, np.arange(len(split.store))):
            parts.append(network(batch).scores.cpu().numpy())
            bar.advance(len(batch))
    return np.concatenate(parts)


def _to_device(clips: Int16, device: torch.device) -> Tensor:
    waveform: Tensor = torch.from_numpy(clips).to(device).float() / float(INT16_SCALE)
    return waveform
