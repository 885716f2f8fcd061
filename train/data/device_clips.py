"""The clips of a split where the device reads them.

They are in the memory of the GPU where they fit; otherwise they are streamed from the cache. n
clips, B batch, N samples, M mels, K targets.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...runtime.arrays import INT16_SCALE, Int64
from ...runtime.spec import FrontendSpec
from ..config import Config
from ..distributed import World
from ..method import views
from .clip_cache import ClipStore, clip_store
from .data_set import DataSet, Split

_SHARE_OF_MEMORY: Final = 0.25  # share of the free GPU memory that one split may take


class Waveforms(NamedTuple):
    """Clips as the frontend takes them, on the device."""

    samples: Tensor  # [B, N] in [-1, 1], zeros behind a short recording
    lengths: Tensor  # [B] samples that belong to the recording


class SplitClips:
    """A decoded split: labels [n, K + J] on the device, and the waveforms there too where they fit."""

    def __init__(
        self, store: ClipStore, ratings: Tensor, names: list[str], spec: FrontendSpec, *, resident: bool
    ) -> None:
        self.store, self.ratings, self.names, self.spec = store, ratings, names, spec
        self._begins: Int64 = np.cumsum(store.lengths) - store.lengths
        self._resident = _flat(store, ratings.device) if resident else None

    def __len__(self) -> int:
        return len(self.store)

    @property
    def device(self) -> torch.device:
        """The device that batches are made on."""
        return self.ratings.device

    @property
    def is_resident(self) -> bool:
        """True if the waveforms are in the device's memory."""
        return self._resident is not None

    def lengths(self, samples: Int64, starts: Int64) -> Int64:
        """[B]: how many samples of each clip belong to the recording."""
        lengths: Int64 = np.minimum(self.store.lengths[samples] - starts, self.spec.clip_samples)
        return lengths

    def clips(self, samples: Int64, starts: Int64) -> Waveforms:
        """The clips `samples` [B], each from its `starts` [B] on."""
        lengths = _to(self.lengths(samples, starts), self.device)
        if self._resident is not None:
            return self.resident_clips(_to(self.begins(samples, starts), self.device), lengths)
        return Waveforms(_scaled(_to(self.store.clips(samples, starts, self.spec), self.device)), lengths)

    def resident_clips(self, begins: Tensor, lengths: Tensor) -> Waveforms:
        """As `clips`, for clips whose places [B] are on the device already.

        The host does no work and does not wait.
        """
        assert self._resident is not None
        position = torch.arange(self.spec.clip_samples, device=self.device)
        index = (begins[:, None] + position).clamp_(max=len(self._resident) - 1)
        inside = position < lengths[:, None]
        return Waveforms(_scaled(torch.where(inside, self._resident[index], 0)), lengths)

    def whole(self, sample: int) -> Waveforms:
        """One recording [1, its length], padded to a clip where it is shorter."""
        samples = torch.from_numpy(np.array(self.store.waveform(sample)))
        padded = torch.nn.functional.pad(samples, (0, max(0, self.spec.clip_samples - len(samples))))
        return Waveforms(
            _scaled(padded[None].to(self.device)), torch.tensor([len(samples)], device=self.device)
        )

    def begins(self, samples: Int64, starts: Int64) -> Int64:
        """Where clips [B] begin among all samples of the split, for `resident_clips`."""
        return self._begins[samples] + starts


class TrainingBatch(NamedTuple):
    """The input of a training step, on the device. B is this rank's share of the global batch."""

    waveforms: Waveforms
    ratings: Tensor  # [B, K + J], as in data_set.Split
    draws: Tensor  # [B, 2 S_time + 2 S_freq] for the masks of the second view


@dataclass(frozen=True, eq=False)
class Epoch:
    """Order, crops and masks of one epoch.

    They are all drawn before the first step, so that no step waits for the host.
    """

    split: SplitClips
    order: Int64  # [steps, B] sample numbers of this rank
    starts: Int64  # [steps, B]
    begins: Tensor
    lengths: Tensor
    ratings: Tensor  # [steps, B, K + J]
    draws: Tensor  # [steps, B, ...]

    def batches(self, first_step: int) -> Iterator[TrainingBatch]:
        """The batches from `first_step` to the end of the epoch."""
        steps = range(first_step, len(self.order))
        if self.split.is_resident:
            return (self._batch(self.split.resident_clips(self.begins[i], self.lengths[i]), i) for i in steps)
        return self._streamed(steps)

    def _streamed(self, steps: range) -> Iterator[TrainingBatch]:
        """Reads the next batch from the cache while the device works on this one."""
        with ThreadPoolExecutor(1, thread_name_prefix="clips") as pool:
            waiting = None
            for i in steps:
                waiting = waiting or pool.submit(self.split.clips, self.order[i], self.starts[i])
                waveforms = waiting.result()
                waiting = (
                    pool.submit(self.split.clips, self.order[i + 1], self.starts[i + 1])
                    if i + 1 in steps
                    else None
                )
                yield self._batch(waveforms, i)

    def _batch(self, waveforms: Waveforms, i: int) -> TrainingBatch:
        return TrainingBatch(waveforms, self.ratings[i], self.draws[i])


def epoch_of_split(split: SplitClips, config: Config, epoch: int, world: World) -> Epoch:
    """The steps of epoch number `epoch` for this rank. An incomplete last batch is dropped."""
    batch_size = config.optim.batch_size
    steps = len(split) // batch_size
    order = views.epoch_order(config.seed, epoch, len(split))[: steps * batch_size].reshape(steps, batch_size)
    order = order[:, world.slice_of(batch_size)]
    flat = order.reshape(-1)
    starts = views.crop_starts(config.seed, epoch, flat, split.store.lengths[flat], split.spec.clip_samples)
    draws = views.mask_draws(config.seed, epoch, flat, config.augment)
    device = split.device
    return Epoch(
        split=split,
        order=order,
        starts=starts.reshape(order.shape),
        begins=_to(split.begins(flat, starts).reshape(order.shape), device),
        lengths=_to(split.lengths(flat, starts).reshape(order.shape), device),
        ratings=split.ratings[_to(order, device)],
        draws=draws.to(device).reshape(*order.shape, -1),
    )


def part_of_training(data: DataSet, fraction: float, *, seed: int) -> DataSet:
    """Keeps whole speakers until they have `fraction` of the training clips; `seed` draws their order.

    A larger fraction contains all clips of a smaller one. A clip without a speaker counts as a
    speaker of its own.
    """
    train = data.splits["Train"]
    named = {clip.speaker for clip in train.clips}
    people = [
        clip.speaker or (f"\0{clip.file_id}" if clip.file_id in named else clip.file_id)
        for clip in train.clips
    ]
    _, speaker = np.unique(people, return_inverse=True)
    count = np.bincount(speaker)
    order = np.argsort(views.uniform(seed, 0, np.arange(len(count)), views.SPEAKERS, 1)[:, 0], kind="stable")
    before = np.cumsum(count[order]) - count[order]
    kept = np.flatnonzero(np.isin(speaker, order[before < fraction * len(speaker)]))
    clips = tuple(train.clips[i] for i in kept)
    whole = train.part_of and (train.part_of[0], train.part_of[1][kept])
    part = Split(clips=clips, ratings=train.ratings[kept], rated=train.rated[kept], part_of=whole)
    return replace(data, splits={**data.splits, "Train": part})


def split_clips(
    data: DataSet, name: str, spec: FrontendSpec, device: torch.device, *, checked: bool = True
) -> SplitClips:
    """The split `name`; files that the cache lacks are decoded. `checked` is `clip_store`'s.

    Raises DataError, with the names of the files that cannot be decoded.
    """
    split = data.splits[name]
    whole, rows = split.part_of or (split, None)
    store = clip_store(
        [clip.path for clip in whole.clips],
        spec,
        label=f"decode {name}",
        channel=data.channel,
        without_channel=data.without_channel,
        checked=checked or rows is not None,  # the digest of a part is that of what the cache holds
    )
    store = store if rows is None else store.part(rows)
    names = [clip.file_id for clip in split.clips]
    return SplitClips(
        store, torch.from_numpy(split.ratings).to(device), names, spec, resident=_fits(store, device)
    )


def sha256_of_splits(labels: tuple[str, ...], *splits: SplitClips) -> str:
    """SHA-256 of names, labels and samples, wherever the files are."""
    parts = [repr(labels)]
    for split in splits:
        ratings = hashlib.sha256(split.ratings.cpu().numpy().tobytes()).hexdigest()
        parts += [repr(split.names), ratings, split.store.digest]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _fits(store: ClipStore, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return 2 * int(store.lengths.sum()) < _SHARE_OF_MEMORY * free


def _flat(store: ClipStore, device: torch.device) -> Tensor:
    flat = torch.empty(int(store.lengths.sum()), dtype=torch.int16, device=device)
    end = 0
    for shard in store.shards:
        begin, end = end, end + len(shard)
        flat[begin:end] = torch.from_numpy(np.array(shard))  # a copy: torch takes no read-only memory
    return flat


def _to(array: "np.typing.NDArray[np.generic]", device: torch.device) -> Tensor:
    """Copies to a GPU through pinned memory, so that the host does not wait for earlier steps."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _scaled(samples: Tensor) -> Tensor:
    return samples.float() / float(INT16_SCALE)
