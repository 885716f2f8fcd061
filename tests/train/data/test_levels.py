"""Peaks and flat tops of waves that were clipped on purpose."""

import numpy as np
import pytest
from numpy.typing import NDArray
from rrtn.train.data.levels import CLIPPED, LevelMeter

RATE = 16_000  # Hz


def sine(*, hertz: float = 200, peak: float = 0.5) -> NDArray[np.float32]:
    """[N, 1], one second."""
    return (peak * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE))[:, None].astype(np.float32)


def metered(*blocks: NDArray[np.float32]) -> LevelMeter:
    meter = LevelMeter()
    for block in blocks:
        meter(block)
    return meter


def as_int16(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """As a WAV file has it."""
    return (np.clip(np.round(block * 32_768), -32_768, 32_767) / 32_768).astype(np.float32)


@pytest.mark.parametrize("hertz", [110, 200, 1000, 3000])
def test_a_wave_that_was_not_clipped_has_hardly_a_flat_top(hertz: float) -> None:
    for block in (
        sine(hertz=hertz + 0.37),
        np.random.default_rng(0).normal(0, 0.1, (RATE, 1)).astype(np.float32),
    ):
        assert metered(as_int16(block)).flat_tops < CLIPPED


def test_every_top_that_was_cut_is_counted_above_and_below() -> None:
    assert metered(as_int16(3 * sine(hertz=200))).flat_tops == 400


def test_what_was_made_quieter_after_clipping_is_clipped_still() -> None:
    quiet = as_int16(0.7 * as_int16(3 * sine()))
    assert metered(quiet).peak == pytest.approx(0.7, abs=1e-4)
    assert metered(quiet).flat_tops == 400


def test_two_samples_at_the_peak_are_no_flat_top_and_three_are() -> None:
    block = np.zeros((100, 1), dtype=np.float32)
    block[10:12] = block[50:52] = 0.8
    assert metered(block).flat_tops == 0
    block[52] = block[70:74] = -0.8
    assert metered(block).flat_tops == 2


def test_each_channel_is_heard_alone() -> None:
    left, right = np.zeros((50, 1), dtype=np.float32), as_int16(3 * sine(hertz=400)[:400])
    assert (
        metered(np.hstack([np.resize(left, right.shape), right])).flat_tops == metered(right).flat_tops == 20
    )
    block = np.zeros((9, 2), dtype=np.float32)
    block[0, 0] = block[1, 1] = block[2, 0] = 1.0  # three in a row, in no channel
    assert metered(block).flat_tops == 0


def test_blocks_are_one_recording_whose_highest_peak_counts() -> None:
    clipped, louder = as_int16(0.5 * as_int16(3 * sine())), sine(hertz=201.3, peak=0.9)
    together = metered(clipped, louder, clipped)
    assert together.peak == pytest.approx(0.9, abs=1e-3)
    assert together.flat_tops < CLIPPED  # at 0.5 a loud wave is not at its peak
    assert metered(sine(peak=0.2), clipped, sine(peak=0.2)).flat_tops == 400


@pytest.mark.parametrize("low", [-32_768, -32_767])
def test_the_other_end_of_the_range_is_no_higher_peak(low: int) -> None:
    """A 16-bit recording that was cut at 32767 may reach -32768 in a later block."""
    above = np.maximum(as_int16(3 * sine()), 0)
    once = np.array([[0.0], [low / 32_768], [0.0]], dtype=np.float32)
    assert metered(above, once).flat_tops == metered(above).flat_tops == 200
    assert metered(above, once).peak == max(-low, 32_767) / 32_768


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_silence_and_the_shortest_recordings(length: int) -> None:
    assert vars(metered(np.zeros((length, 1), dtype=np.float32))) == {"peak": 0.0, "flat_tops": 0}
    assert metered(np.ones((length, 1), dtype=np.float32)).flat_tops == (length == 3)
