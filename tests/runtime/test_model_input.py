"""Signals as other programs hold them, made into a model's input."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.errors import AudioError, ConfigError, ModelError
from rrtn.runtime.frontend import clip_log_mel, clip_of
from rrtn.runtime.model_input import ModelInput


def test_a_files_samples_become_what_the_file_becomes(real_clips: list[Path], spec: FrontendSpec) -> None:
    for path in real_clips:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        waveform = read_audio(path, spec).waveform
        # In one block or in many, soxr may round a sample the other way.
        came = ModelInput("waveform", spec.to_dict())(samples.T, rate)
        np.testing.assert_allclose(came, clip_of(waveform, spec), atol=1 / 32_768, rtol=0)
        log_mel = ModelInput("logmel", spec.to_dict())(samples.T, rate)
        assert np.array_equal(log_mel, clip_log_mel(came, spec))


def test_the_level_is_the_whole_signals_and_the_clip_its_begin(spec: FrontendSpec) -> None:
    signs = np.resize([1.0, -1.0], spec.clip_samples + 10)
    signal = 0.001 * signs
    signal[-1] = -0.01  # behind the clip
    clip = ModelInput("waveform", spec.to_dict())(signal, spec.sampling_rate)
    level = np.round(32_768 * spec.peak / 10) / 32_768
    assert np.array_equal(clip, (level * signs[: spec.clip_samples]).astype(np.float32))


def test_channels_come_first_and_are_averaged(sound: NDArray[np.float64], spec: FrontendSpec) -> None:
    prepare = ModelInput("waveform", spec.to_dict())
    stereo = np.array([sound, np.roll(sound, 100)], dtype=np.float32)
    assert np.array_equal(prepare(stereo, 16_000), prepare(stereo.mean(axis=0), 16_000))


def test_what_is_no_signal_is_refused(spec: FrontendSpec) -> None:
    prepare = ModelInput("waveform", spec.to_dict())
    with pytest.raises(ConfigError, match="sampling_rate"):
        prepare(np.zeros(10))
    with pytest.raises(ConfigError, match="shape"):
        prepare(np.zeros((2, 3, 4)), 16_000)
    with pytest.raises(AudioError, match="non_finite"):
        prepare([1.0, np.inf], 16_000)
    with pytest.raises(ModelError, match="hop"):
        ModelInput("waveform", {name: value for name, value in spec.to_dict().items() if name != "hop"})


def test_audobject_is_not_needed(spec: FrontendSpec) -> None:
    program = (
        "import sys; sys.modules['audobject'] = None; from rrtn.runtime.model_input import ModelInput; "
        f"print(ModelInput('logmel', {spec.to_dict()})([0.5] * 100, 16000).shape, ModelInput.__mro__[1])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "(250, 64) <class 'object'>\n", done.stderr
