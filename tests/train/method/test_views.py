"""Randomness as pure functions, uniform and uncorrelated; SpecAugment as torchlibrosa's.

All draws have fixed seeds, so that no test fails by chance; the bounds are those of a chance of
about 1 in 10,000.
"""

import functools
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from rrtn.train.method import views
from rrtn.train.method.views import (
    AugmentConfig,
    crop_starts,
    epoch_order,
    mask_draws,
    masked_view,
    step_seed,
    stripes,
    uniform,
)
from scipy import stats
from torchlibrosa.augmentation import DropStripes

N = 20_000
LEAST_P = 1e-4
WIDEST_R = 4 / N**0.5  # four standard errors of a correlation of 0
SAMPLES = np.arange(N)
SHAPES = [(64, 250), (8, 64)]  # (max_width, total): of time and of frequency

Float64 = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def splitmix64(value: int) -> int:
    """Steele, Lea, Flood 2014, figure 17, in Python's integers."""
    wide = 2**64 - 1
    z = (value + 0x9E3779B97F4A7C15) & wide
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & wide
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & wide
    return z ^ (z >> 31)


def written_out(seed: int, epoch: int, sample: int, purpose: int, count: int) -> list[float]:
    """What `uniform` draws for one sample."""
    row = splitmix64(splitmix64(splitmix64(splitmix64(seed) + epoch) + purpose) + sample)
    return [(splitmix64(row + j * 0x9E3779B97F4A7C15) >> 11) / 2**53 for j in range(1, count + 1)]


def correlation(a: Float64, b: Float64) -> float:
    return abs(float(np.corrcoef(a.ravel(), b.ravel())[0, 1]))


class TestUniform:
    def test_equals_splitmix64_written_out(self) -> None:
        """Pins the numbers: another platform or version of NumPy must train the same run."""
        assert uniform(3, 5, np.array([11]), views.MASKS, 3)[0].tolist() == written_out(3, 5, 11, 2, 3)

    def test_each_purpose_has_the_numbers_that_it_had(self) -> None:
        """A run that an rrtn of before has begun goes on with the same order, crops, masks and folds."""
        purposes = {
            "order": views.ORDER,
            "crop": views.CROP,
            "masks": views.MASKS,
            "speakers": views.SPEAKERS,
        }
        assert purposes == {"order": 0, "crop": 1, "masks": 2, "speakers": 3}
        draws = [written_out(3, 5, sample, 0, 1)[0] for sample in range(20)]
        assert epoch_order(3, 5, 20).tolist() == sorted(range(20), key=draws.__getitem__)
        starts = [int(written_out(3, 5, sample, 1, 1)[0] * 901) for sample in range(20)]
        assert crop_starts(3, 5, np.arange(20), np.full(20, 1000), 100).tolist() == starts
        augment = AugmentConfig(time_stripes=3, freq_stripes=1)
        masks = [written_out(3, 5, sample, 2, 8) for sample in range(20)]
        assert mask_draws(3, 5, np.arange(20), augment).tolist() == masks

    def test_known_value_of_the_generator(self) -> None:
        """The first output of splitmix64 for state 0, as in its reference implementation."""
        assert splitmix64(0) == 0xE220A8397B1DCDAF
        assert int(views._mix(np.uint64(0))[0]) == 0xE220A8397B1DCDAF

    def test_a_samples_numbers_do_not_depend_on_its_batch(self) -> None:
        whole = uniform(1, 2, SAMPLES, views.MASKS, 8)
        batch = np.array([19_999, 3, 3, 700])
        np.testing.assert_array_equal(uniform(1, 2, batch, views.MASKS, 8), whole[batch])
        np.testing.assert_array_equal(uniform(1, 2, SAMPLES, views.MASKS, 3), whole[:, :3])

    @pytest.mark.parametrize(
        "other", [(2, 2, views.CROP), (1, 3, views.CROP), (1, 2, views.MASKS), (2, 1, views.CROP)]
    )
    def test_another_seed_epoch_or_purpose_gives_unrelated_numbers(self, other: tuple[int, int, int]) -> None:
        usual = uniform(1, 2, SAMPLES, views.CROP, 1)
        seed, epoch, purpose = other
        changed = uniform(seed, epoch, SAMPLES, purpose, 1)
        assert not np.isin(usual, changed).any()
        assert correlation(usual, changed) < WIDEST_R

    @pytest.mark.parametrize(
        ("seed", "epoch", "purpose"), [(0, 0, views.ORDER), (0, 59, views.CROP), (2**63 - 1, 7, views.MASKS)]
    )
    def test_every_draw_is_uniform(self, seed: int, epoch: int, purpose: int) -> None:
        draws = uniform(seed, epoch, SAMPLES, purpose, 8)
        assert draws.min() >= 0
        assert draws.max() < 1
        assert min(stats.kstest(column, "uniform").pvalue for column in draws.T) > LEAST_P
        assert stats.kstest(draws.ravel(), "uniform").pvalue > LEAST_P

    def test_a_sample_is_uniform_over_the_epochs(self) -> None:
        draws = np.concatenate([uniform(0, epoch, np.array([17]), views.CROP, 1)[0] for epoch in range(2000)])
        assert stats.kstest(draws, "uniform").pvalue > LEAST_P
        assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 4 / 2000**0.5

    def test_neighbours_are_not_correlated(self) -> None:
        draws = uniform(0, 0, SAMPLES, views.MASKS, 8)
        assert correlation(draws[1:, 0], draws[:-1, 0]) < WIDEST_R  # samples
        assert (
            max(correlation(draws[:, j], draws[:, j + 1]) for j in range(7)) < WIDEST_R
        )  # draws of one sample
        assert (
            correlation(draws[1:, 0], draws[:-1, 1]) < WIDEST_R
        )  # one sample's first, the next one's second
        assert correlation(draws[:, 0], uniform(0, 1, SAMPLES, views.MASKS, 8)[:, 0]) < WIDEST_R  # epochs


class TestOrder:
    @pytest.mark.parametrize("n", [1, 2, 1000])
    def test_is_a_permutation(self, n: int) -> None:
        assert sorted(epoch_order(0, 0, n)) == list(range(n))

    def test_differs_by_epoch_and_seed_and_by_nothing_else(self) -> None:
        first = epoch_order(0, 0, 1000)
        np.testing.assert_array_equal(epoch_order(0, 0, 1000), first)
        for other in (epoch_order(0, 1, 1000), epoch_order(1, 0, 1000)):
            assert (other == first).mean() < 0.01  # of 1000, one stays in its place on average

    def test_every_place_is_equally_likely(self) -> None:
        places = [int(np.flatnonzero(epoch_order(0, epoch, 10) == 3)[0]) for epoch in range(5000)]
        assert stats.chisquare(np.bincount(places, minlength=10)).pvalue > LEAST_P


class TestCrops:
    def test_short_recordings_start_at_0(self) -> None:
        lengths = np.array([1, 99, 100])
        assert crop_starts(0, 0, np.arange(3), lengths, 100).tolist() == [0, 0, 0]

    def test_every_start_is_equally_likely_the_last_one_included(self) -> None:
        starts = crop_starts(0, 0, SAMPLES, np.full(N, 109), 100)
        assert set(starts) == set(range(10))
        assert stats.chisquare(np.bincount(starts)).pvalue > LEAST_P

    def test_a_samples_crop_depends_on_seed_epoch_sample_and_its_own_length_only(self) -> None:
        lengths = np.random.default_rng(0).integers(50, 50_000, N)
        whole = crop_starts(4, 2, SAMPLES, lengths, 100)
        batch = np.array([500, 19_999, 2])
        np.testing.assert_array_equal(crop_starts(4, 2, batch, lengths[batch], 100), whole[batch])
        assert (crop_starts(4, 3, SAMPLES, lengths, 100) != whole).mean() > 0.99
        assert (crop_starts(5, 2, SAMPLES, lengths, 100) != whole).mean() > 0.99

    def test_crops_lie_inside_their_recordings(self) -> None:
        lengths = np.random.default_rng(0).integers(1, 500, N)
        starts = crop_starts(0, 0, SAMPLES, lengths, 100)
        assert starts.min() == 0
        assert (starts + 100 <= np.maximum(lengths, 100)).all()


def test_step_seeds_are_pure_distinct_and_what_torch_takes() -> None:
    seeds = [step_seed(0, step) for step in range(10_000)]
    assert len(set(seeds)) == 10_000
    assert seeds[7] == splitmix64(splitmix64(0) + 7) >> 1
    assert step_seed(1, 7) != seeds[7]
    torch.manual_seed(max(seeds))


def one_stripe(max_width: int, total: int) -> tuple[Float64, Float64]:
    """Width [N] and start [N] of one stripe a sample; the start is NaN where the width is 0."""
    mask = stripes(torch.from_numpy(uniform(0, 0, SAMPLES, views.MASKS, 2)), max_width, total).numpy()
    width = mask.sum(axis=1)
    return width, np.where(width > 0, mask.argmax(axis=1), np.nan)


@functools.cache
def torchlibrosa_masks(max_width: int, total: int, count: int) -> npt.NDArray[np.bool_]:
    """[N, total], True where torchlibrosa dropped."""
    torch.manual_seed(0)
    dropped = DropStripes(dim=2, drop_width=max_width, stripes_num=count)(torch.ones(N, 1, total, 1))
    return dropped[:, 0, :, 0].numpy() == 0


@pytest.mark.parametrize(("max_width", "total"), SHAPES)
class TestStripes:
    def test_the_width_is_uniform_and_never_the_full_one(self, max_width: int, total: int) -> None:
        width, _ = one_stripe(max_width, total)
        counts = np.bincount(width, minlength=max_width)
        assert len(counts) == max_width
        assert stats.chisquare(counts).pvalue > LEAST_P

    def test_the_start_is_uniform_and_the_stripe_inside(self, max_width: int, total: int) -> None:
        width, start = one_stripe(max_width, total)
        there = width > 0
        assert (start[there] <= (total - width - 1)[there]).all()
        assert start[there].min() == 0
        # The middles of at least 57 equal steps: off a continuous uniform by 0.009 at most, where
        # 0.016 is the bound.
        share = ((start + 0.5) / (total - width))[there]
        assert stats.kstest(share, "uniform").statistic < 0.016
        assert correlation(width[there].astype(np.float64), share) < WIDEST_R

    def test_a_stripe_is_in_one_piece(self, max_width: int, total: int) -> None:
        mask = stripes(torch.from_numpy(uniform(0, 0, SAMPLES, views.MASKS, 2)), max_width, total).int()
        edges = torch.diff(mask, dim=1, prepend=torch.zeros(N, 1), append=torch.zeros(N, 1))
        assert set((edges != 0).sum(1).tolist()) == {0, 2}

    def test_two_stripes_mask_as_much_and_where_torchlibrosa_does(self, max_width: int, total: int) -> None:
        ours = stripes(torch.from_numpy(uniform(0, 0, SAMPLES, views.MASKS, 4)), max_width, total).numpy()
        theirs = torchlibrosa_masks(max_width, total, 2)
        shares = ours.mean(axis=1), theirs.mean(axis=1)
        standard_error = (sum(np.var(share) for share in shares) / N) ** 0.5
        assert abs(shares[0].mean() - shares[1].mean()) < 4 * standard_error
        assert stats.ks_2samp(*shares).pvalue > LEAST_P
        by_place = ours.mean(axis=0), theirs.mean(axis=0)
        errors = np.sqrt(sum(p * (1 - p) for p in by_place) / N)
        assert (np.abs(by_place[0] - by_place[1]) <= 5 * errors).all()  # 5: the largest of 250
        assert [place[-1] for place in by_place] == [0, 0]  # of both: start + width is never the end

    def test_the_largest_draw_is_not_the_full_width(self, max_width: int, total: int) -> None:
        largest = torch.full((1, 2), 1 - 2**-53, dtype=torch.float64)
        mask = stripes(largest, max_width, total)[0]
        assert mask.sum() == max_width - 1
        assert mask.tolist().index(True) == total - max_width  # start = total - width - 1

    def test_torchlibrosa_never_drops_the_full_width_either(self, max_width: int, total: int) -> None:
        assert torchlibrosa_masks(max_width, total, 1).sum(axis=1).max() == max_width - 1


class TestMaskedView:
    CONFIG = AugmentConfig(time_width=12, time_stripes=3, freq_width=3, freq_stripes=3)
    B, T, M = 16, 50, 12

    def inputs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(0)
        log_mel = torch.from_numpy(rng.normal(-40, 20, (self.B, 1, self.T, self.M)).astype(np.float32))
        fill = torch.from_numpy(rng.normal(-40, 20, self.M).astype(np.float32))
        return log_mel, fill, torch.from_numpy(uniform(0, 0, np.arange(self.B), views.MASKS, 12))

    def test_the_clean_view_stays_as_it_was_bit_for_bit(self) -> None:
        log_mel, fill, draws = self.inputs()
        before = log_mel.clone()
        masked = masked_view(log_mel, fill, draws, self.CONFIG)
        assert torch.equal(log_mel, before)
        assert masked.data_ptr() != log_mel.data_ptr()
        masked.zero_()
        assert torch.equal(log_mel, before)

    def test_equals_stripes_written_out_one_by_one(self) -> None:
        log_mel, fill, draws = self.inputs()
        expected = log_mel.clone()
        for b, row in enumerate(draws.tolist()):
            for for_width, for_start in zip(row[:3], row[3:6], strict=True):
                width = int(for_width * 12)
                start = int(for_start * (self.T - width))
                expected[b, 0, start : start + width, :] = fill
            for for_width, for_start in zip(row[6:9], row[9:], strict=True):
                width = int(for_width * 3)
                start = int(for_start * (self.M - width))
                expected[b, 0, :, start : start + width] = fill[start : start + width]
        masked = masked_view(log_mel, fill, draws, self.CONFIG)
        assert torch.equal(masked, expected)
        assert 0.1 < (masked != log_mel).float().mean() < 0.9

    def test_draws_are_of_time_first_then_of_frequency(self) -> None:
        log_mel, fill, draws = self.inputs()
        only_time, only_freq = draws.clone(), draws.clone()
        only_time[:, 6:9] = 0  # no width in frequency
        only_freq[:, :3] = 0
        in_time = masked_view(log_mel, fill, only_time, self.CONFIG)[:, 0] != log_mel[:, 0]
        in_freq = masked_view(log_mel, fill, only_freq, self.CONFIG)[:, 0] != log_mel[:, 0]
        assert in_time.any()
        assert torch.equal(in_time.any(2), in_time.all(2))  # whole frames
        assert in_freq.any()
        assert torch.equal(in_freq.any(1), in_freq.all(1))  # whole mel bins

    def test_a_width_of_1_masks_nothing(self) -> None:
        log_mel, fill, draws = self.inputs()
        nothing = replace(self.CONFIG, time_width=1, freq_width=1)
        assert torch.equal(masked_view(log_mel, fill, draws, nothing), log_mel)

    def test_keeps_dtype_and_shape_with_draws_in_float64(self) -> None:
        log_mel, fill, draws = self.inputs()
        masked = masked_view(log_mel, fill.double(), draws, self.CONFIG)
        assert (masked.dtype, masked.shape) == (torch.float32, log_mel.shape)


@pytest.mark.parametrize("name", ["time_width", "time_stripes", "freq_width", "freq_stripes"])
def test_an_augmentation_of_less_than_1_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=rf"augment\.{name} \| 0 \| expected at least 1"):
        AugmentConfig(**{name: 0})
