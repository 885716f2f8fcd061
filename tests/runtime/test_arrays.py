"""The two conversions between 16-bit samples and numbers."""

import numpy as np
import pytest
from rrtn.runtime.arrays import samples_from_waveform, waveform_from_samples

EACH_SAMPLE = np.arange(-32_768, 32_768).astype(np.int16)


def test_each_sample_survives_the_way_there_and_back() -> None:
    np.testing.assert_array_equal(samples_from_waveform(waveform_from_samples(EACH_SAMPLE)), EACH_SAMPLE)


def test_a_waveform_lies_below_1() -> None:
    waveform = waveform_from_samples(EACH_SAMPLE)
    assert waveform.dtype == np.float32
    assert (waveform.min(), waveform.max()) == (-1, 1 - 2**-15)


@pytest.mark.parametrize(
    ("value", "sample"),
    [(1, 32_767), (-1, -32_768), (7.5, 32_767), (-7.5, -32_768), (0.6 / 32_768, 1), (-0.4 / 32_768, 0)],
)
def test_a_number_becomes_the_nearest_sample_that_there_is(value: float, sample: int) -> None:
    assert samples_from_waveform([value]).tolist() == [sample]
