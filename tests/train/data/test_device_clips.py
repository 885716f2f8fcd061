"""Clips on the device equal clips from the cache, and an epoch is what views.py says, for every
rank and from any step.
"""

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from rrtn.runtime.spec import FrontendSpec
from rrtn.train.config import config_from_dict
from rrtn.train.data import clip_cache as clips_module
from rrtn.train.data.clip_cache import ClipStore, clip_store
from rrtn.train.data.device_clips import Epoch, SplitClips, TrainingBatch, epoch_of_split
from rrtn.train.distributed import World
from rrtn.train.method import views

SPEC = FrontendSpec(frames=11)  # clips of 1600 samples
LENGTHS = (1, 700, 1599, 1600, 1601, 4000, 40, 9000, 1600, 2500, 1)
CONFIG = config_from_dict({"seed": 4, "optim": {"batch_size": 4}}, source="test")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClipStore]:
    """Noise of those lengths, in shards of four files; the last clip ends where the samples end."""
    folder, rng = tmp_path_factory.mktemp("wav"), np.random.default_rng(0)
    paths = [folder / f"{i}.wav" for i in range(len(LENGTHS))]
    for path, length in zip(paths, LENGTHS, strict=True):
        soundfile.write(path, rng.uniform(-0.7, 0.7, length), 16_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RRTN_CACHE", str(folder / "cache"))
        patch.setattr(clips_module, "_SHARD_FILES", 4)
        yield clip_store(paths, SPEC)


@pytest.fixture(params=[True, False], ids=["resident", "streamed"])
def split(request: pytest.FixtureRequest, store: ClipStore) -> SplitClips:
    return split_of(store, resident=request.param)


def split_of(store: ClipStore, *, resident: bool) -> SplitClips:
    ratings = torch.arange(len(store) * 2, dtype=torch.float32).reshape(-1, 2)
    return SplitClips(store, ratings, [f"[{i}]" for i in range(len(store))], SPEC, resident=resident)


class TestClips:
    def test_are_the_recordings_with_zeros_behind(self, split: SplitClips, store: ClipStore) -> None:
        """Written out from the decoded samples: random starts, short clips, the very end, starts
        behind the end.
        """
        rng = np.random.default_rng(1)
        samples = np.concatenate([np.arange(len(LENGTHS)), rng.integers(0, len(LENGTHS), 40), [10, 10, 7]])
        starts = np.concatenate([np.zeros(len(LENGTHS)), rng.integers(0, 2500, 40), [1, 3000, 8999]]).astype(
            np.int64
        )
        expected = np.zeros((len(samples), 1600), dtype=np.float32)
        for row, sample, start in zip(expected, samples, starts, strict=True):
            part = store.waveform(int(sample))[start : start + 1600] / np.float32(32768)
            row[: len(part)] = part
        came = split.clips(samples, starts)
        assert np.abs(expected).max() > 0.5
        np.testing.assert_array_equal(came.samples.numpy(), expected)
        remaining = np.array(LENGTHS)[samples] - starts
        np.testing.assert_array_equal(came.lengths.numpy(), np.minimum(remaining, 1600))

    def test_a_short_clip_has_nothing_of_the_recording_behind_it(self, store: ClipStore) -> None:
        resident = split_of(store, resident=True)
        came = resident.clips(np.array([0, 6]), np.array([0, 0])).samples
        assert came[0, 0] != 0
        assert came[1, :40].any()
        assert not came[0, 1:].any()
        assert not came[1, 40:].any()

    def test_the_flag_says_where_they_lie(self, store: ClipStore) -> None:
        assert [split_of(store, resident=resident).is_resident for resident in (True, False)] == [True, False]

    @pytest.mark.parametrize("sample", [0, 1, 3, 7])
    def test_whole_recordings_are_at_least_a_clip(
        self, sample: int, split: SplitClips, store: ClipStore
    ) -> None:
        came, length = split.whole(sample), LENGTHS[sample]
        assert came.samples.shape == (1, max(length, 1600))
        assert came.lengths.tolist() == [length]
        expected = store.waveform(sample) / np.float32(32768)
        np.testing.assert_array_equal(came.samples[0, :length].numpy(), expected)
        assert not came.samples[0, length:].any()


class TestEpoch:
    """Eleven clips in batches of four: two steps, three clips left over."""

    def test_is_a_permutation_without_the_incomplete_batch(self, split: SplitClips) -> None:
        orders = [epoch_of_split(split, CONFIG, epoch, World()).order for epoch in (0, 1)]
        for epoch, order in enumerate(orders):
            assert order.shape == (2, 4)
            assert len(set(order.ravel())) == 8
            np.testing.assert_array_equal(order.ravel(), views.epoch_order(4, epoch, 11)[:8])
        assert (orders[0] != orders[1]).any()

    def test_batches_are_the_crops_ratings_and_draws_of_views(self, split: SplitClips) -> None:
        came = list(epoch_of_split(split, CONFIG, 3, World()).batches(0))
        assert len(came) == 2
        for samples, batch in zip(views.epoch_order(4, 3, 11)[:8].reshape(2, 4), came, strict=True):
            starts = views.crop_starts(4, 3, samples, np.array(LENGTHS)[samples], 1600)
            clips = split.clips(samples, starts)
            assert torch.equal(batch.waveforms.samples, clips.samples)
            assert torch.equal(batch.waveforms.lengths, clips.lengths)
            assert torch.equal(batch.ratings, split.ratings[samples])
            assert torch.equal(batch.draws, views.mask_draws(4, 3, samples, CONFIG.augment))
            assert batch.draws.shape == (4, 8)

    def test_long_recordings_are_cropped_at_random(self, split: SplitClips) -> None:
        starts = [dict(zip(e.order.ravel(), e.starts.ravel(), strict=True)) for e in self.epochs(split, 20)]
        longest = [epoch[7] for epoch in starts if 7 in epoch]
        assert len(set(longest)) > 5
        assert 0 <= min(longest) <= max(longest) <= 9000 - 1600
        assert {epoch.get(1, 0) for epoch in starts} == {0}  # shorter than a clip

    @staticmethod
    def epochs(split: SplitClips, count: int) -> list[Epoch]:
        return [epoch_of_split(split, CONFIG, number, World()) for number in range(count)]

    @pytest.mark.parametrize("size", [2, 4])
    def test_the_ranks_slices_are_the_global_batch_in_order(self, size: int, split: SplitClips) -> None:
        alone = list(epoch_of_split(split, CONFIG, 1, World()).batches(0))
        ranks = [list(epoch_of_split(split, CONFIG, 1, World(rank, size)).batches(0)) for rank in range(size)]
        for step, expected in enumerate(alone):
            assert_same([joined([batches[step] for batches in ranks])], [expected])

    @pytest.mark.parametrize("first", [0, 1, 2, 3, 4, 5])
    def test_from_a_later_step_it_goes_on_as_it_would_have(self, first: int, split: SplitClips) -> None:
        config = replace(CONFIG, optim=replace(CONFIG.optim, batch_size=2))
        whole = list(epoch_of_split(split, config, 2, World()).batches(0))
        assert len(whole) == 5
        assert_same(list(epoch_of_split(split, config, 2, World()).batches(first)), whole[first:])

    def test_streamed_is_resident(self, store: ClipStore) -> None:
        resident, streamed = (
            epoch_of_split(split_of(store, resident=r), CONFIG, 5, World()) for r in (True, False)
        )
        assert_same(list(resident.batches(0)), list(streamed.batches(0)))

    def test_a_stream_that_is_left_early_ends(self, store: ClipStore) -> None:
        """As where a step raises: the thread that reads ahead goes with it."""
        before = set(threading.enumerate())
        batches = epoch_of_split(split_of(store, resident=False), CONFIG, 0, World()).batches(0)
        next(batches)
        (reader,) = set(threading.enumerate()) - before
        assert reader.name.startswith("clips")
        batches.close()
        assert not reader.is_alive()


def joined(parts: list[TrainingBatch]) -> TrainingBatch:
    waveforms = type(parts[0].waveforms)(
        *(torch.cat(tensors) for tensors in zip(*(p.waveforms for p in parts), strict=True))
    )
    return TrainingBatch(
        waveforms, torch.cat([p.ratings for p in parts]), torch.cat([p.draws for p in parts])
    )


def assert_same(came: list[TrainingBatch], expected: list[TrainingBatch]) -> None:
    assert len(came) == len(expected)
    for a, b in zip(came, expected, strict=True):
        assert all(
            torch.equal(x, y) for x, y in zip((*a.waveforms, *a[1:]), (*b.waveforms, *b[1:]), strict=True)
        )
