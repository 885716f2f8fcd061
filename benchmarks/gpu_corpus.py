"""The corpus of `rrtn data synth` as arrays, and `rrtn train` on them.

No file is written or decoded.

N samples, n clips, K targets.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any
from unittest import mock

import checkout  # noqa: F401  # before rrtn
import numpy as np
import torch
from rrtn.runtime import FrontendSpec
from rrtn.runtime.arrays import INT16_SCALE, Float32, Int16
from rrtn.runtime.audio.level import levelled
from rrtn.runtime.challenge import EMOTIONS
from rrtn.runtime.system.cpus import usable_cpus
from rrtn.train import loop, plan
from rrtn.train.config import Config
from rrtn.train.data import corpus
from rrtn.train.data.clip_cache import CacheShard, ClipStore
from rrtn.train.data.column_names import SPLITS
from rrtn.train.data.data_set import Clip, DataSet, Split
from rrtn.train.data.device_clips import SplitClips
from rrtn.train.data.voice import burst
from rrtn.train.evidence import trained_run
from rrtn.train.method.columns import UNIT, Columns
from rrtn.train.run_folder import RunFolder
from rrtn.train.run_state import append_history

_CHUNK = 50
_SHARD = 512  # clips, as ClipStore counts them
_PCM32 = 2**31  # libsndfile clips in 32 bits, and keeps the upper 16

Item = tuple[Int16, "np.typing.NDArray[np.float32]", int]  # levelled samples [N], ratings [K], speaker


def items_of_corpus(count: int, *, speakers: int, spec: FrontendSpec, seed: int = 0) -> list[Item]:
    """Clips 0 .. count - 1 of `corpus.synthesise(clips=count, speakers=speakers)`, as read_audio
    would give them.
    """
    chunks = [range(first, min(first + _CHUNK, count)) for first in range(0, count, _CHUNK)]
    workers = min(usable_cpus(), len(chunks))
    if workers == 1:
        return [item for chunk in chunks for item in _items(chunk, speakers, seed, spec)]
    with _one_thread(), ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = pool.map(_items, chunks, repeat(speakers), repeat(seed), repeat(spec))
        return [item for part in parts for item in part]


def _items(indices: range, speakers: int, seed: int, spec: FrontendSpec) -> list[Item]:
    return [_item(index, speakers, seed, spec) for index in indices]


def _item(index: int, speakers: int, seed: int, spec: FrontendSpec) -> Item:
    """What corpus._write_clip writes, read again."""
    number = index % speakers
    person = corpus._person(seed, number)
    rng = np.random.default_rng((seed, corpus._Stream.CLIP, index))
    felt = corpus._felt(rng)
    waveform = burst(corpus._gesture(felt, habit=person.habit, rng=rng), speaker=person.voice, rng=rng)
    pcm = np.rint(np.asarray(waveform, np.float64) * _PCM32).astype(np.int64).clip(-_PCM32, _PCM32 - 1) >> 16
    return (
        levelled(pcm.astype(np.float32) / np.float32(INT16_SCALE), spec),
        corpus._rated(felt, rng).round(4).astype(np.float32),
        number,
    )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """For the processes that are started inside: one thread of BLAS each."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def split_of_items(
    items: list[Item], spec: FrontendSpec, device: torch.device, *, resident: bool | None = None
) -> SplitClips:
    """A split as `split_clips` makes it of files; on a GPU it lies in its memory."""
    groups = [items[i : i + _SHARD] for i in range(0, len(items), _SHARD)]
    store = ClipStore([_shard([samples for samples, _, _ in group]) for group in groups])
    ratings = torch.from_numpy(np.array([ratings for _, ratings, _ in items])).to(device)
    names = [f"[{i:05d}]" for i in range(len(items))]
    return SplitClips(
        store, ratings, names, spec, resident=device.type == "cuda" if resident is None else resident
    )


def _shard(samples: list[Int16]) -> CacheShard:
    offsets = np.cumsum([0, *map(len, samples)], dtype=np.int64)
    return CacheShard.in_memory(np.concatenate(samples), offsets)


def corpus_of_bursts(
    train: int, val: int, spec: FrontendSpec, *, speakers: tuple[int, int]
) -> dict[str, list[Item]]:
    """Train and Val, no speaker in both: bursts of `speakers` people each."""
    items = items_of_corpus(train, speakers=speakers[0], spec=spec)
    return {"Train": items, "Val": items_of_corpus(val, speakers=speakers[1], spec=spec, seed=1)}


def data_of_items(items: dict[str, list[Item]]) -> DataSet:
    """What `read_data` would give of them as files."""
    splits = dict.fromkeys(SPLITS, _split([], np.zeros((0, len(EMOTIONS)), np.float32)))
    for name, of_split in items.items():
        clips = [
            Clip(f"[{name}-{i:05d}]", Path(), name, f"{name}-{speaker}", "", i)
            for i, (_, _, speaker) in enumerate(of_split)
        ]
        splits[name] = _split(clips, np.array([ratings for _, ratings, _ in of_split]))
    columns = Columns(targets=EMOTIONS, scales=(UNIT,) * len(EMOTIONS))
    return DataSet(path=Path(), columns=columns, splits=splits, of_table=())


def _split(clips: list[Clip], ratings: Float32) -> Split:
    """Rated from 0 to 1, as the network sees it."""
    return Split(clips=tuple(clips), ratings=ratings, rated=ratings.astype(np.float64))


@contextlib.contextmanager
def read_from_memory(items: dict[str, list[Item]]) -> Iterator[DataSet]:
    """Inside, `items` are the data set of every run, decoded."""
    data = data_of_items(items)
    of_clips = {
        clip.file_id: item
        for name, part in items.items()
        for clip, item in zip(data.splits[name].clips, part, strict=True)
    }

    def split_clips(
        data: DataSet, name: str, spec: FrontendSpec, device: torch.device, *, checked: bool = True
    ) -> SplitClips:
        return split_of_items([of_clips[clip.file_id] for clip in data.splits[name].clips], spec, device)

    def data_from_config(config: Config) -> DataSet:
        return data

    with (
        mock.patch.multiple(plan, data_of_settings=lambda *_: data, split_clips=split_clips),
        mock.patch.object(loop, "split_clips", split_clips),
        mock.patch.multiple(trained_run, data_from_config=data_from_config, split_clips=split_clips),
    ):
        yield data


def trained(
    config: Config,
    items: dict[str, list[Item]],
    run: Path,
    *,
    at_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
) -> loop.TrainResult:
    """`rrtn.train.loop.train` whole, on `items`; `at_epoch` gets each line of the history."""

    def appended(folder: RunFolder, record: dict[str, Any]) -> None:
        append_history(folder, record)
        at_epoch(record)

    with mock.patch.object(loop, "append_history", appended), read_from_memory(items):
        return loop.train(plan.plan_from_config(config), run, resume=False)
