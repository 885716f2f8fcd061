"""The filterbank and window against librosa and scipy."""

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any, Literal

import librosa
import numpy as np
import pytest
import scipy.signal
from rrtn.runtime import FrontendSpec, log_mel
from rrtn.runtime.errors import AudioError, ConfigError
from rrtn.runtime.frontend import (
    clip_input,
    clip_log_mel,
    clip_of,
    decibels_behind,
    hann,
    input_shape,
    mel_filterbank,
)


def test_filterbank_is_librosas(spec: FrontendSpec) -> None:
    theirs = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=64, fmin=50, fmax=8000, dtype=np.float64)
    np.testing.assert_allclose(mel_filterbank(spec), theirs.T, rtol=1e-9, atol=1e-15)


def test_window_is_the_periodic_hann() -> None:
    np.testing.assert_allclose(hann(512), scipy.signal.get_window("hann", 512, fftbins=True), atol=1e-15)


def test_log_mel_is_bitwise_deterministic(spec: FrontendSpec) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, 39_840)
    assert np.array_equal(log_mel(x, spec), log_mel(x.copy(), spec))


def test_log_mel_rejects_two_channels(spec: FrontendSpec) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 100\)"):
        log_mel(np.zeros((2, 100)), spec)


@pytest.mark.parametrize(
    "signal",
    ["abc", np.ones(9, complex), np.ma.masked_array(np.ones(9)), np.ones(9, bool), None, [[1.0], [1.0, 2.0]]],
    ids=["text", "complex", "masked", "bool", "None", "ragged"],
)
def test_what_is_no_array_of_samples_has_no_log_mel(spec: FrontendSpec, signal: Any) -> None:
    with pytest.raises(ConfigError, match="waveform"):
        log_mel(signal, spec)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_samples_that_are_not_finite_have_no_log_mel(spec: FrontendSpec, value: float) -> None:
    with pytest.raises(AudioError, match="non_finite"):
        log_mel([0.5, value, 0.5], spec)


def test_integers_have_the_log_mel_of_the_floats_that_they_stand_for(spec: FrontendSpec) -> None:
    steps = np.random.default_rng(0).integers(-128, 128, 2_000)
    expected = log_mel(steps / 128, spec)
    wide = steps << 8
    for signal in (
        steps.astype(np.int8),
        (steps + 128).astype(np.uint8),
        wide.astype(np.int16),
        (wide + 32_768).astype(np.uint16),
        wide << 48,
        (steps / 128).tolist(),
    ):
        np.testing.assert_array_equal(log_mel(signal, spec), expected)


def test_silence_is_the_floor(spec: FrontendSpec) -> None:
    np.testing.assert_allclose(log_mel(np.zeros(16_000), spec), -100, atol=1e-4)


def test_clip_of_cuts_and_pads(spec: FrontendSpec) -> None:
    x = np.arange(1, 50_001, dtype=np.float32)
    assert np.array_equal(clip_of(x, spec, start=5), x[5 : 5 + 39_840])
    short = clip_of(x[:10], spec)
    assert short.shape == (39_840,)
    assert np.array_equal(short[:10], x[:10])
    assert not short[10:].any()


@pytest.mark.parametrize(
    "samples",
    [0, 1, 159, 160, 161, 255, 256, 257, 4_000, 16_001, 39_423, 39_424, 39_583, 39_584, 39_840, 50_000],
)
def test_the_clip_of_a_short_recording_is_that_of_its_padding(samples: int, spec: FrontendSpec) -> None:
    """Frames in the silence behind it are not computed, and those that are, are the same to the bit."""
    waveform = np.random.default_rng(samples).uniform(-1, 1, samples).astype(np.float32)
    np.testing.assert_array_equal(clip_log_mel(waveform, spec), log_mel(clip_of(waveform, spec), spec))


@pytest.mark.parametrize(("pad", "level"), [("silence", -100.0), ("zero_db", 0.0)])
def test_frames_behind_a_short_recording_have_the_level_that_is_said(
    pad: Literal["silence", "zero_db"], level: float, spec: FrontendSpec
) -> None:
    padded = replace(spec, pad=pad)
    waveform = np.random.default_rng(0).uniform(-1, 1, 16_000).astype(np.float32)
    clip = clip_log_mel(waveform, padded)
    assert decibels_behind(padded) == pytest.approx(level, abs=1e-5)
    assert (
        clip[103:] == np.float32(decibels_behind(padded))
    ).all()  # two more frames reach into the recording
    np.testing.assert_array_equal(clip[:101], log_mel(clip_of(waveform, spec), spec)[:101])
    assert clip_input(waveform, padded, "logmel").shape == input_shape(padded, "logmel") == (1, *clip.shape)


WOKEN = """
import re, time
from pathlib import Path
import numpy as np
from rrtn.runtime import FrontendSpec, log_mel

def others():
    own = Path("/proc/thread-self").readlink().name
    return [task for task in Path("/proc/self/task").iterdir() if task.name != own]

def asleep(task):
    return "\\nState:\\tS" in (task / "status").read_text()

def switches():
    while not all(map(asleep, others())):
        time.sleep(0.01)
    said = "".join((task / "status").read_text() for task in others())
    return sum(map(int, re.findall(r"ctxt_switches:\\t(\\d+)", said)))

spec = FrontendSpec()
waveform = np.random.default_rng(0).uniform(-0.5, 0.5, spec.clip_samples).astype(np.float32)
log_mel(waveform, spec)
large = np.ones((500, 500), np.float32)
seen = [switches()]
for _ in range(50):
    log_mel(waveform, spec)
seen.append(switches())
for _ in range(20):
    large @ large
seen.append(switches())
print(*np.diff(seen))
"""


def test_no_thread_but_the_callers_works() -> None:
    """OpenBLAS' threads would spin on cores that others decode on: they sleep, and nothing wakes them."""
    done = subprocess.run([sys.executable, "-c", WOKEN], capture_output=True, text=True, check=True)
    by_log_mel, by_a_large_product = map(int, done.stdout.split())
    assert by_log_mel == 0
    if len(os.sched_getaffinity(0)) > 1:
        assert by_a_large_product > 0  # the control: a thread that works is seen
