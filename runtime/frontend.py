"""Log-Mel in NumPy, equal to torchlibrosa and to training's torchaudio.

N samples, T frames, F spectrum bins, M mels.
"""

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from .arrays import Float32, Float64, around_zero, in_float32, signal_of
from .errors import AudioError, ConfigError
from .spec import FrontendSpec, InputKind


def log_mel(waveform: npt.ArrayLike, spec: FrontendSpec) -> Float32:
    """The log-Mel features of one channel, in dB: waveform [N] -> float32 [T, M].

    `waveform` has the rate `spec.sampling_rate`. Its values are floats in [-1, 1], or integers, whose range
    stands for that. T is 1 + N // `spec.hop`, M is `spec.n_mels`. Silence is 10 log10(`spec.power_floor`),
    which is -100 dB.

    The STFT is centred and reflects the waveform at both ends, as in PANNs (`Spectrogram`, and
    `LogmelFilterBank` with top_db=None, of torchlibrosa). Zeros are added to a waveform that is too short
    to reflect, but T follows from the N that was given.

    Raises ConfigError, which is a ValueError, for what is no array [N] of samples, AudioError, which is one,
    too, for NaN and infinity.
    """
    signal = signal_of(waveform)
    if signal.ndim != 1:
        raise ConfigError("waveform", f"shape {signal.shape}", wanted="[N], the samples of one channel")
    x = in_float32(around_zero(signal))
    if signal.dtype.kind != "f":
        x /= np.float32(2.0 ** (8 * signal.dtype.itemsize - 1))
    if not np.isfinite(x).all():
        raise AudioError("non_finite", "NaN or infinity among the samples")
    return _first_frames(x, spec, spec.frames_of(len(x)))


def decibels_behind(spec: FrontendSpec) -> float:
    """Every value of the frames behind a short recording, in dB, as float32 holds it."""
    return 0.0 if spec.pad == "zero_db" else float(10 * np.log10(np.float32(spec.power_floor)))


def clip_log_mel(waveform: Float32, spec: FrontendSpec) -> Float32:
    """waveform [N] of any length -> the log-Mel [frames, M] of its first clip, padded as the spec says.

    This is `log_mel` of the clip. Frames that lie wholly in the silence behind a short recording are known
    beforehand, and are not computed.
    """
    reaching_in = -(-(len(waveform) + spec.n_fft // 2) // spec.hop)  # frames with samples of the recording
    sounding = min(spec.frames, reaching_in)
    silence = 10 * np.log10(np.float32(spec.power_floor))
    decibels = np.full((spec.frames, spec.n_mels), silence, np.float32)
    decibels[:sounding] = _first_frames(clip_of(waveform, spec), spec, sounding)
    if spec.pad == "zero_db":
        decibels[spec.frames_of(len(waveform)) :] = 0
    return decibels


def _first_frames(x: Float32, spec: FrontendSpec, frames: int) -> Float32:
    """waveform [N] -> the first frames [T, M] of its log-Mel."""
    half = spec.n_fft // 2
    if len(x) <= half:
        x = np.pad(x, (0, half + 1 - len(x)))
    decibels = np.maximum(_mel_power(x, spec, frames), np.float32(spec.power_floor))
    np.log10(decibels, out=decibels)
    decibels *= 10
    return decibels


_BLOCK: Final = 50  # frames that are transformed at a time; their spectra stay in the processor's cache


def _mel_power(x: Float32, spec: FrontendSpec, frames: int) -> Float32:
    """waveform [N], N > n_fft // 2 -> power in each mel band [T, M] of its first frames.

    The spectrum is float64: beside a loud voice, single precision moves bins at -90 dB by hundredths
    of a decibel. Every product is of a whole block, so that a frame's numbers do not depend on the number of
    frames.
    """
    window, bands = _window(spec), _mel_bands(spec)
    windowed = np.empty((_BLOCK, spec.n_fft))
    spectrum = np.empty((_BLOCK, spec.n_bins), dtype=np.complex128)
    parts = spectrum.view(np.float64).reshape(_BLOCK, spec.n_bins, 2)  # real and imaginary
    power = np.zeros((_BLOCK, spec.n_bins), dtype=np.float32)
    mel = np.empty((-(-frames // _BLOCK), _BLOCK, spec.n_mels), dtype=np.float32)
    for block, first in zip(mel, range(0, frames, _BLOCK), strict=True):
        n = min(_BLOCK, frames - first)
        np.multiply(_frames(x, spec, first, n), window, out=windowed[:n])
        np.fft.rfft(windowed[:n], out=spectrum[:n])
        np.square(parts[:n], out=parts[:n])
        np.add(parts[:n, :, 0], parts[:n, :, 1], out=power[:n], casting="same_kind")
        for bins, mels, weights in bands:
            np.matmul(power[:, bins], weights, out=block[:, mels])
    return mel.reshape(-1, spec.n_mels)[:frames]


def _frames(x: Float32, spec: FrontendSpec, first: int, count: int) -> Float32:
    """waveform [N], reflected at both ends -> its frames [count, n_fft] from `first` on."""
    begin = first * spec.hop - spec.n_fft // 2
    end = begin + (count - 1) * spec.hop + spec.n_fft
    before, after = max(0, -begin), max(0, end - len(x))
    part = x[max(0, begin) : end]
    if before or after:
        part = np.concatenate([x[before:0:-1], part, x[-2 : -2 - after : -1]])
    (stride,) = part.strides
    return np.lib.stride_tricks.as_strided(
        part, (count, spec.n_fft), (stride * spec.hop, stride), writeable=False
    )


def clip_of(waveform: Float32, spec: FrontendSpec, start: int = 0) -> Float32:
    """The clip [clip_samples] of a waveform [N] from sample `start` on, with zeros where N is too short."""
    part = waveform[start : start + spec.clip_samples]
    if len(part) == spec.clip_samples:
        return part
    clip = np.zeros(spec.clip_samples, part.dtype)
    clip[: len(part)] = part
    return clip


def clip_input(waveform: Float32, spec: FrontendSpec, kind: InputKind) -> Float32:
    """waveform [N] of any length -> its first clip, of `input_shape`, as a model of this kind takes it.

    A model that takes samples gets all of them.
    """
    match kind:
        case "logmel":
            return clip_log_mel(waveform, spec)[None]
        case "waveform":
            return clip_of(waveform, spec)
        case "samples":
            return waveform


def input_shape(spec: FrontendSpec, kind: InputKind) -> tuple[int, ...]:
    """Shape of one clip of a model's input: waveform or samples [N], or log-Mel [1, T, M]."""
    return (1, spec.frames, spec.n_mels) if kind == "logmel" else (spec.clip_samples,)


def hann(length: int) -> Float64:
    """Periodic Hann window [length]."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def mel_filterbank(spec: FrontendSpec) -> Float64:
    """Triangular filters [F, M] on Slaney's mel scale, each of unit area in Hz.

    They are those of librosa.filters.mel with norm="slaney".
    """
    bins = np.linspace(0, spec.sampling_rate / 2, spec.n_bins)  # Hz, [F]
    edges = mel_edges(spec)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - low) / (centre - low)
    falling = (high - bins[:, None]) / (high - centre)
    filters: Float64 = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters


_LINEAR_HERTZ_PER_MEL = 200 / 3  # below 1 kHz Slaney's scale is linear
_BREAK_HERTZ, _BREAK_MEL = 1000.0, 15.0
_LOG_STEP = np.log(6.4) / 27  # above it, 27 mels to 6.4 kHz


def mel_edges(spec: FrontendSpec) -> Float64:
    """[M + 2] in Hz: band m rises from edge m to its centre, edge m + 1, and falls to edge m + 2."""
    return _hertz(np.linspace(_slaney_mel(spec.f_min), _slaney_mel(spec.f_max), spec.n_mels + 2))


def _slaney_mel(hertz: float) -> float:
    if hertz < _BREAK_HERTZ:
        return hertz / _LINEAR_HERTZ_PER_MEL
    return float(_BREAK_MEL + np.log(hertz / _BREAK_HERTZ) / _LOG_STEP)


def _hertz(mel: Float64) -> Float64:
    logarithmic = _BREAK_HERTZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HERTZ_PER_MEL, logarithmic)


@lru_cache(maxsize=8)
def _window(spec: FrontendSpec) -> Float64:
    return hann(spec.n_fft)


@lru_cache(maxsize=8)
def _mel_bands(spec: FrontendSpec) -> tuple[tuple[slice, slice, Float32], ...]:
    """(bins, mels, the filters between them), three times.

    Low mels need low bins only, so that three products take a third of the multiplications of one. OpenBLAS
    computes such small products on the calling thread. For a larger one its second thread would spin on
    a core, which halves the throughput of decoders and of callers that have threads of their own.
    """
    filters = mel_filterbank(spec).astype(np.float32)
    bands = []
    for mels in (
        slice(0, spec.n_mels // 2),
        slice(spec.n_mels // 2, 3 * spec.n_mels // 4),
        slice(3 * spec.n_mels // 4, None),
    ):
        used = np.flatnonzero(filters[:, mels].any(1))
        bins = slice(used[0], used[-1] + 1) if used.size else slice(1)
        bands.append((bins, mels, np.ascontiguousarray(filters[bins, mels])))
    return tuple(bands)
