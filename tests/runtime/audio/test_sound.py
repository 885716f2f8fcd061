"""Which 10 ms of a recording hold sound. The oracle is the definition, taken frame by frame."""

import numpy as np
import pytest
from rrtn.runtime.audio.sound import FramePowers, Sound

RATE = 16_000
FRAME = 160


def frames_with_sound(samples: np.ndarray) -> list[bool]:
    """Power in dB within 60 of the loudest, frame by frame, as librosa's `effects.trim` has it."""
    frames = [samples[i : i + FRAME].astype(float) for i in range(0, len(samples), FRAME)]
    powers = [float(np.mean(frame**2)) for frame in frames]
    return [power > 0 and 10 * np.log10(power / max(powers)) >= -60 for power in powers]


def sound_of(samples: np.ndarray) -> Sound:
    """As it comes from blocks of any length."""
    powers = FramePowers(RATE)
    rng = np.random.default_rng(len(samples))
    cuts = np.sort(rng.integers(0, len(samples) + 1, rng.integers(4)))
    for block in np.split(samples.astype(np.float32), cuts):
        powers.add(block)
    return powers.sound()


def recording(*parts: tuple[float, int]) -> np.ndarray:
    """Noise of each amplitude for so many samples."""
    rng = np.random.default_rng(0)
    return np.concatenate(
        [rng.uniform(-level, level, count).round().astype(np.int16) for level, count in parts]
    )


@pytest.mark.parametrize(
    "parts",
    [
        [(0, 1_000), (20_000, 3_000), (0, 777)],
        [(30, 1_600), (20_000, 3_000), (5, 161)],
        [(1, 320), (20_000, 160), (20, 320), (2_000, 1)],
        [(20_000, 159)],
        [(1, 500)],
        [(0, 500)],
    ],
    ids=str,
)
def test_n3_a_frame_holds_sound_within_60_db_of_the_loudest(parts: list[tuple[float, int]]) -> None:
    samples = recording(*parts)
    sound, expected = sound_of(samples), frames_with_sound(samples)
    assert (sound.seconds(0, len(samples)) == 0) == (not any(expected))
    audible = np.repeat(expected, FRAME)[: len(samples)]
    for start in range(0, len(samples), 53):
        for stop in (start, start + 1, start + 160, start + 999, len(samples), len(samples) + 5):
            assert sound.seconds(start, stop) == pytest.approx(audible[start:stop].sum() / RATE, abs=1e-12)
    begin, end = sound.extent()
    if any(expected):
        assert audible[begin:end].sum() == audible.sum()
        assert audible[begin] and audible[end - 1]
    else:
        assert (begin, end) == (0, len(samples))


def test_n3_nothing_has_no_sound() -> None:
    sound = sound_of(np.zeros(0, np.int16))
    assert (sound.seconds(0, 10), sound.extent()) == (0.0, (0, 0))
