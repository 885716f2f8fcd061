"""The list "The whole rule" of docs/hosts.md, written in NumPy from the page, against the reader."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.reader import read_audio

TIME = np.arange(30_000) / 22_050
TONE = np.sin(2 * np.pi * 300 * TIME) * np.exp(-2 * TIME) / 4
SOUNDS = {
    "mono": TONE,
    "an offset": TONE + 0.4,
    "an offset that does not count": TONE + 0.02,
    "a click with a mean": TONE[:1_000] + 0.4,
    "stereo": np.stack([TONE, TONE[::-1]], 1),
    "channels that cancel": np.stack([TONE, -0.9 * TONE], 1),
    "silence": 0 * TONE,
}


def by_the_rule(path: Path, spec: FrontendSpec) -> NDArray[np.int16]:
    """Steps 1 to 6."""
    x, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono, powers = x.mean(1), x.astype(np.float64).var(0)
    if x.shape[1] > 1 and mono.astype(np.float64).var() < 0.1 * powers.sum() / x.shape[1] ** 2:
        mono = x[:, powers.argmax()]
    m = mono.astype(np.float64).mean()
    if len(mono) >= 0.1 * rate and abs(m) > 0.15 * max(mono.max() - m, m - mono.min()):
        mono = mono - np.float32(m)
    if rate != spec.sampling_rate:
        mono = soxr.resample(mono, rate, spec.sampling_rate, quality="HQ")
    p = np.abs(mono).max()
    gain = np.float32(32_768 * 10 ** (spec.peak_dbfs / 20) / p) if p >= 1e-7 else 0
    return np.round(gain * mono).astype(np.int16)


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_the_samples_are_those_of_the_reader(
    name: str, rate: int, tmp_path: Path, spec: FrontendSpec
) -> None:
    soundfile.write(tmp_path / "sound.wav", SOUNDS[name], rate, subtype="PCM_16")
    np.testing.assert_array_equal(
        by_the_rule(tmp_path / "sound.wav", spec), read_audio(tmp_path / "sound.wav", spec).samples
    )


def test_of_real_recordings_too(real_clips: list[Path], spec: FrontendSpec) -> None:
    for path in real_clips:
        np.testing.assert_array_equal(by_the_rule(path, spec), read_audio(path, spec).samples)
