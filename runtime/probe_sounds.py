"""Sounds that two ways of running a model are compared on, and how far their scores may be apart.

N samples.
"""

from typing import Final

import numpy as np

from .arrays import Float32, Float64, samples_from_waveform, waveform_from_samples
from .spec import FrontendSpec

# Largest difference of a score, as a share of its scale's width. `rrtn export` judges int8 by CCC alone.
SCORE_LIMITS: Final = {"fp32": 1e-4, "fp16": 2e-3}
_VOICES: Final = 12


def extremes(spec: FrontendSpec) -> Float32:
    """[4, N]: silence, a click, full-scale noise and a square wave, all of 16 bits, as decoders give them."""
    rng = np.random.default_rng(0)
    time = np.arange(spec.clip_samples) / spec.sampling_rate
    click = np.zeros(spec.clip_samples)
    click[spec.clip_samples // 2] = 1
    clips = [
        np.zeros_like(time),
        click,
        rng.uniform(-1, 1, len(time)),
        np.sign(np.sin(2 * np.pi * 220 * time)),
    ]
    return waveform_from_samples(samples_from_waveform(clips))


def voices(spec: FrontendSpec) -> Float32:
    """[12, N]: sounds with the pitches, harmonics, breath and lengths of voices, at many levels."""
    rng = np.random.default_rng(1)
    time = np.arange(spec.clip_samples) / spec.sampling_rate
    return np.array([_voice(rng, time) for _ in range(_VOICES)], dtype=np.float32)


def _voice(rng: np.random.Generator, time: Float64) -> Float64:
    pitch = rng.uniform(80, 500) * (1 + rng.uniform(-0.3, 0.3) * time / time[-1])
    phase = 2 * np.pi * np.cumsum(pitch) * (time[1] - time[0])
    harmonics = np.sum([np.sin(n * phase) * rng.uniform(0, 1) / n for n in range(1, 12)], axis=0)
    breath = rng.normal(0, rng.uniform(0.01, 0.5), len(time))
    length = rng.uniform(0.3, 1) * time[-1]
    sound = (harmonics + breath) * np.exp(-rng.uniform(0, 4) * time / time[-1]) * (time < length)
    level = 10 ** rng.uniform(-1.5, 0)
    return np.asarray(sound / np.abs(sound).max() * level, np.float64)
