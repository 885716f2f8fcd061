"""Every log-Mel of the project agrees with torchlibrosa.

There are three: NumPy in the runtime, torchaudio in training, and the ONNX graph that takes waveforms.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torchlibrosa
from onnx import helper
from rrtn.export.graph import OPSET
from rrtn.export.log_mel_graph import log_mel_graph
from rrtn.runtime import FrontendSpec, log_mel
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.frontend import clip_of
from rrtn.train.method.frontend import LogMel

SPEC = FrontendSpec()
N = SPEC.clip_samples
TIME = np.arange(N) / SPEC.sampling_rate
FIXTURES = Path(__file__).parents[1] / "fixtures" / "bursts"

Implementation = Callable[[np.ndarray], np.ndarray]


def speech(name: str) -> np.ndarray:
    return clip_of(read_audio(FIXTURES / name, SPEC).waveform, SPEC)


def square(hertz: float) -> np.ndarray:
    return np.sign(np.sin(2 * np.pi * hertz * TIME + 1e-3))


SIGNALS = {
    "noise": np.random.default_rng(0).uniform(-1, 1, N),
    "quiet noise": np.random.default_rng(1).standard_normal(N) * 1e-5,
    "silence": np.zeros(N),
    "one click": np.eye(1, N, 20_000)[0],
    "clicks": (np.arange(N) % 4000 == 0).astype(float),
    "click at the edge": np.eye(1, N, 0)[0],
    "square 100 Hz": square(100),
    "square 441 Hz": square(441),
    "square 1 kHz": square(1000),
    "constant": np.ones(N),
}
# Recorded at 11 or 22 kHz: above the recording's band lie bins at -95 dB beside a loud voice, where
# torchlibrosa's own float32 DFT kernel is up to 4e-3 dB away from a float64 one.
BAND_LIMITED = {name: speech(name) for name in ("Laugh-female.wav", "Scream-male2.mp3", "Cough-male.wav")}


@pytest.fixture(scope="module")
def reference() -> Implementation:
    """torchlibrosa as PANNs sets it up, in its own float32."""
    stft = torchlibrosa.Spectrogram(n_fft=512, hop_length=160, win_length=512, freeze_parameters=True)
    mel = torchlibrosa.LogmelFilterBank(
        sr=16_000,
        n_fft=512,
        n_mels=64,
        fmin=50,
        fmax=8000,
        ref=1.0,
        amin=1e-10,
        top_db=None,
        freeze_parameters=True,
    )
    return lambda x: mel(stft(torch.tensor(x, dtype=torch.float32)[None]))[0, 0].numpy()


@pytest.fixture(scope="module")
def implementations() -> dict[str, Implementation]:
    training = LogMel(SPEC)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(log_mel_graph(SPEC), opset_imports=[opset], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return {
        "numpy": lambda x: log_mel(x, SPEC),
        "torchaudio": lambda x: training(torch.tensor(x, dtype=torch.float32)[None])[0, 0].numpy(),
        "onnx": lambda x: session.run(None, {"waveform": x.astype(np.float32)[None]})[0][0, 0],
    }


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("name", ["numpy", "torchaudio", "onnx"])
def test_log_mel_is_torchlibrosas(
    name: str, signal: str, implementations: dict[str, Implementation], reference: Implementation
) -> None:
    came, expected = implementations[name](SIGNALS[signal]), reference(SIGNALS[signal])
    assert came.dtype == np.float32
    assert came.shape == expected.shape == (250, 64)
    np.testing.assert_allclose(came, expected, atol=1e-3, rtol=0)  # dB, the contract's figure


@pytest.mark.parametrize("signal", BAND_LIMITED)
@pytest.mark.parametrize("name", ["numpy", "torchaudio", "onnx"])
def test_log_mel_of_band_limited_voices(
    name: str, signal: str, implementations: dict[str, Implementation], reference: Implementation
) -> None:
    came, expected = implementations[name](BAND_LIMITED[signal]), reference(BAND_LIMITED[signal])
    np.testing.assert_allclose(came, expected, atol=6e-3, rtol=0)
    loud = expected > -80
    np.testing.assert_allclose(came[loud], expected[loud], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["numpy", "torchaudio", "onnx"])
def test_log_mel_of_real_speech_is_torchlibrosas(
    name: str, emodb: Path, implementations: dict[str, Implementation], reference: Implementation
) -> None:
    for path in sorted((emodb / "wav").iterdir())[::50]:
        clip = clip_of(read_audio(path, SPEC).waveform, SPEC)
        np.testing.assert_allclose(implementations[name](clip), reference(clip), atol=1e-3, rtol=0)


def test_a_pure_tone_is_as_close_as_float32_allows(reference: Implementation) -> None:
    """Ours is at least as close to the float64 truth as torchlibrosa.

    Some bins lie 130 dB below a full-scale sine. There torchlibrosa itself is 0.1 dB off.
    """
    sine = np.sin(2 * np.pi * 437.3 * TIME)
    truth = _log_mel_float64(sine)
    ours, theirs = np.abs(log_mel(sine, SPEC) - truth), np.abs(reference(sine) - truth)
    assert ours.max() <= theirs.max()


@pytest.mark.parametrize("length", [0, 1, 159, 160, 256, 257, 511, 512, 16_001, N])
def test_lengths_are_equal_in_numpy_and_training(length: int) -> None:
    x = np.random.default_rng(2).uniform(-1, 1, length).astype(np.float32)
    numpy, training = log_mel(x, SPEC), LogMel(SPEC)(torch.from_numpy(x)[None])[0, 0].numpy()
    assert numpy.shape == training.shape == (1 + length // 160, 64)
    np.testing.assert_allclose(numpy, training, atol=1e-3, rtol=0)


def test_a_clip_of_39840_samples_has_250_frames() -> None:
    assert (SPEC.clip_samples, log_mel(np.zeros(SPEC.clip_samples), SPEC).shape[0]) == (39_840, 250)
    assert log_mel(np.zeros(SPEC.clip_samples - 1), SPEC).shape[0] == 249


def _log_mel_float64(x: np.ndarray) -> np.ndarray:
    """The definition once more, in float64 and with an explicit DFT instead of an FFT."""
    from rrtn.runtime.frontend import hann, mel_filterbank

    padded = np.pad(x, 256, mode="reflect")
    frames = np.stack([padded[t * 160 : t * 160 + 512] for t in range(250)]) * hann(512)
    dft = np.exp(-2j * np.pi * np.outer(np.arange(512), np.arange(257)) / 512)
    return 10 * np.log10(np.maximum(np.abs(frames @ dft) ** 2 @ mel_filterbank(SPEC), 1e-10))
