"""What is random about a sample: its order, crop and masks. Each is a pure function of (seed, epoch, sample).

Processes, devices and restarts change nothing. B batch, T frames, M mels, S stripes.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...runtime.arrays import Int64
from .choices import AugmentConfig

# What a number is drawn for. The purpose is part of the hash, so that no two purposes share a number.
ORDER: Final = 0
CROP: Final = 1
MASKS: Final = 2
SPEAKERS: Final = 3


def uniform(seed: int, epoch: int, samples: Int64, purpose: int, count: int) -> npt.NDArray[np.float64]:
    """[B] sample numbers -> [B, count] numbers in [0, 1), by hashing (splitmix64, Steele et al. 2014)."""
    key = _mix(_mix(_mix(np.uint64(seed)) + np.uint64(epoch)) + np.uint64(purpose))
    rows = _mix(key + samples.astype(np.uint64))
    cells = _mix(rows[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)
    return (cells >> np.uint64(11)).astype(np.float64) * 2.0**-53


def epoch_order(seed: int, epoch: int, n_samples: int) -> Int64:
    """A permutation [n_samples] of the training samples."""
    draws = uniform(seed, epoch, np.arange(n_samples), ORDER, 1)[:, 0]
    order: Int64 = np.argsort(draws, kind="stable")
    return order


def crop_starts(seed: int, epoch: int, samples: Int64, lengths: Int64, clip_samples: int) -> Int64:
    """The first sample [B] of each clip: uniform in a recording that is longer than a clip, else 0."""
    spare = np.maximum(0, lengths - clip_samples)
    draws = uniform(seed, epoch, samples, CROP, 1)[:, 0]
    starts: Int64 = np.floor(draws * (spare + 1)).astype(np.int64)
    return starts


def step_seed(seed: int, step: int) -> int:
    """The seed of dropout's generator in a step, so that a restart at any step draws the same masks."""
    return int(_mix(_mix(np.uint64(seed)) + np.uint64(step))[0] >> np.uint64(1))


def mask_draws(seed: int, epoch: int, samples: Int64, config: AugmentConfig) -> Tensor:
    """The numbers [B, 2 S_time + 2 S_freq] for `masked_view`.

    They are float64: float32 rounds draws next to 1 up to 1, which gives a stripe of the full width.
    """
    count = 2 * (config.time_stripes + config.freq_stripes)
    return torch.from_numpy(uniform(seed, epoch, samples, MASKS, count))


def masked_view(log_mel: Tensor, fill: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    """log_mel [B, 1, T, M] -> a copy with stripes set to `fill` [M]; `draws` [B, 2 S_time + 2 S_freq].

    Stripes are in time first, then in frequency, as in torchlibrosa's SpecAugmentation. That one masks
    behind bn0, with 0, which is the mean there; the same in front of bn0 is a fill with the training
    set's mean of each mel bin.
    """
    by_time, by_freq = draws.split([2 * config.time_stripes, 2 * config.freq_stripes], dim=1)
    in_time = stripes(by_time, config.time_width, log_mel.shape[2])  # [B, T]
    in_freq = stripes(by_freq, config.freq_width, log_mel.shape[3])  # [B, M]
    masked = in_time[:, None, :, None] | in_freq[:, None, None, :]
    return torch.where(masked, fill.to(log_mel), log_mel)


def stripes(draws: Tensor, max_width: int, total: int) -> Tensor:
    """draws [B, 2 S] -> bool [B, total], the union of S stripes (torchlibrosa DropStripes, vectorised).

    Width uniform in 0 .. max_width - 1, never the full width; start uniform in 0 .. total - width - 1.
    """
    for_width, for_start = draws.chunk(2, dim=1)
    width = (for_width * min(max_width, total)).floor()
    start = (for_start * (total - width)).floor()
    position = torch.arange(total, device=draws.device)
    inside = (position >= start[..., None]) & (position < (start + width)[..., None])  # [B, S, total]
    return inside.any(dim=1)


_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


def _mix(value: npt.NDArray[np.uint64] | np.uint64) -> npt.NDArray[np.uint64]:
    """splitmix64's step and finaliser; a bijection of 64-bit numbers."""
    z = np.atleast_1d(value) + _GOLDEN  # an array, because scalars warn when they wrap around
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
