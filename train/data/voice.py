"""A source-filter voice for vocal bursts, in NumPy.

After Fant 1960, Klatt & Klatt 1990, and soundgen (Anikin 2019). The slow movements of larynx and
tract are drawn at 1 kHz. Glottal pulses and aspiration noise follow them and are filtered by
formants, frame by frame. N samples, C control points, T filter frames, F frequency bins.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtime.spec import FrontendSpec

SAMPLING_RATE = FrontendSpec.sampling_rate

_CONTROL_RATE = 1_000  # Hz; the fastest movement, roughness, stays below 100 Hz
_STEP = SAMPLING_RATE // _CONTROL_RATE  # samples between control points
_HOP = 256  # samples between filter frames: formants move in 16 ms steps, cross-faded
_N_FFT = 4 * _HOP  # a frame is 2 hops long, which leaves 32 ms for the tract to ring
_ASPIRATION = 0.04  # sd of full noise, relative to the power of the unfiltered glottal pulses

# float64 on the control points; float32 in the filters, which takes half as long
Signal = NDArray[np.floating]
Spectrum = NDArray[np.complexfloating]


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """Who speaks, and through what: anatomy, microphone and room."""

    f0: float = 160.0  # Hz, at rest
    tract_length: float = 16.0  # cm from glottis to lips; every formant scales with 1 / length
    jitter: float = 0.01  # sd of a glottal period, in periods
    shimmer: float = 0.05  # sd of a pulse's amplitude, in amplitudes
    tilt: float = 0.0  # dB per octave about 1 kHz, the microphone's
    cutoff: float = 7_500.0  # Hz, the microphone's -3 dB edge
    room: float = -50.0  # dB, noise of the room (sd) against the burst's peak


@dataclass(frozen=True, kw_only=True)
class Gesture:
    """What the voice does in one burst: a few syllables, perhaps a gasp before and a sigh after."""

    lead: float = 0.1  # s of room before the burst
    length: float = 1.5  # s from the gasp to the end of the sigh
    tail: float = 0.1  # s of room after it
    f0: float = 0.0  # semitones above the speaker's rest
    slope: float = 0.0  # semitones from the start to the end of each syllable; positive rises
    arch: float = 0.0  # semitones at the middle of each syllable above its ends
    declination: float = 0.0  # semitones from the first syllable to the last; negative falls
    rate: float = 1.0  # syllables per second; below 1 / length there is one, sustained
    irregularity: float = 0.0  # sd of the log of the interval between onsets
    duty: float = 0.8  # voiced part of each interval
    attack: float = 0.03  # s, time constant of each syllable's onset
    crescendo: float = 0.0  # dB from the first syllable to the last
    effort: float = 0.5  # 0 soft (steep source spectrum) .. 1 shouted (flat)
    breath: float = 0.2  # 0 modal .. 1 whispered
    openness: float = 0.5  # of the jaw, 0 as in "oo" and "ee" .. 1 as in "ah"
    frontness: float = 0.4  # of the tongue, 0 as in "oo" .. 1 as in "ee"
    # change of openness within each syllable; positive opens ("wah"), negative closes ("ow")
    glide: float = 0.0
    tremor_rate: float = 5.0  # Hz, of pitch and level together
    tremor_depth: float = 0.0  # semitones
    roughness: float = 0.0  # 0 .. 1, depth of a 70 Hz modulation (Arnal et al. 2015: screams, 30 to 150 Hz)
    gasp: float = 0.0  # 0 .. 1, level and length of a breath drawn in before the first syllable
    sigh: float = 0.0  # 0 .. 1, level and length of a breath let out after the last


@dataclass(frozen=True, kw_only=True)
class _Movement:
    """A gesture over time, at the control rate."""

    f0: Signal  # [C] Hz
    voicing: Signal  # [C] amplitude of the glottal pulses
    breath: Signal  # [C] amplitude of the aspiration noise
    openness: Signal  # [C]


def burst(gesture: Gesture, *, speaker: Speaker, rng: np.random.Generator) -> NDArray[np.float32]:
    """One vocal burst, [N] float32 at 16 kHz, with a peak of -3 dBFS.

    N / 16 kHz is lead + length + tail, to 1 ms.
    """
    movement = _movement(gesture, rest=speaker.f0, rng=rng)
    pulses = _glottal_pulses(movement, speaker=speaker, rng=rng)
    aspiration = np.repeat(movement.breath, _STEP) * rng.standard_normal(len(pulses), dtype=np.float32)
    voice = _through_tract(pulses, aspiration, openness=movement.openness, gesture=gesture, speaker=speaker)
    voice /= np.abs(voice).max()
    voice += 10 ** (speaker.room / 20) * rng.standard_normal(len(voice), dtype=np.float32)
    voice *= FrontendSpec().peak / np.abs(voice).max()
    return voice.astype(np.float32)


def formants(openness: Signal, *, frontness: float, tract_length: float) -> Signal:
    """[C] openness -> [C, 5] formant frequencies in Hz (a man's vowel chart, scaled by length)."""
    f1 = 300 + 500 * openness
    f2 = 800 + 1_500 * frontness + 300 * openness * (1 - 2 * frontness)
    higher = np.broadcast_to(np.array([2_500.0, 3_500.0, 4_500.0]), (*openness.shape, 3))
    return np.concatenate([f1[..., None], f2[..., None], higher], axis=-1) * (17.5 / tract_length)


def pulse_times(f0: Signal, *, jitter: float, rng: np.random.Generator) -> Signal:
    """[C] Hz -> the seconds at which the glottis closes.

    That is where the phase passes whole cycles; each cycle has a length of 1 +- jitter.
    """
    phase = np.concatenate([[0.0], np.cumsum(f0 / _CONTROL_RATE)])
    cycles: Signal = np.cumsum(np.maximum(1 + jitter * rng.standard_normal(int(phase[-1]) + 1), 0.2))
    cycles = cycles[cycles < phase[-1]]
    return np.interp(cycles, phase, np.arange(len(phase)) / _CONTROL_RATE)


def _movement(gesture: Gesture, *, rest: float, rng: np.random.Generator) -> _Movement:
    """The gesture over time. The place of a control point in its syllable decides everything."""
    seconds = gesture.lead + gesture.length + gesture.tail
    time = np.arange(round(seconds * _CONTROL_RATE)) / _CONTROL_RATE
    start = gesture.lead + min(0.4 * gesture.gasp, 0.3 * gesture.length)
    end = gesture.lead + gesture.length - min(0.5 * gesture.sigh, 0.3 * gesture.length)
    onsets, lengths = _syllables(gesture, start=start, end=end, rng=rng)
    now = np.maximum(np.searchsorted(onsets, time, side="right") - 1, 0)
    since = time - onsets[now]
    within = np.clip(since / lengths[now], 0, 1)
    overall = np.clip((time - start) / (end - start), 0, 1) - 0.5

    tremor = gesture.tremor_depth * np.sin(2 * np.pi * (gesture.tremor_rate * time + rng.random()))
    contour = gesture.slope * (within - 0.5) + gesture.arch * (np.sin(np.pi * within) - 0.5)
    semitones = gesture.f0 + contour + gesture.declination * overall + tremor
    level = 10 ** ((gesture.crescendo * overall + 2 * tremor) / 20) * rng.lognormal(0, 0.15, len(onsets))[now]

    sounding = _envelope(since, lengths[now], attack=gesture.attack)
    roughness = 1 - gesture.roughness * (0.5 + 0.5 * np.sin(2 * np.pi * 70 * time))
    return _Movement(
        f0=np.clip(rest * 2 ** (semitones / 12), 50, 1_500),
        voicing=np.sqrt(1 - min(gesture.breath, 1) ** 2) * level * sounding * roughness,
        breath=_ASPIRATION * gesture.breath * level * sounding
        + _breaths(time, gesture, start=start, end=end),
        openness=np.clip(gesture.openness + gesture.glide * (within - 0.5), 0, 1),
    )


def _syllables(
    gesture: Gesture, *, start: float, end: float, rng: np.random.Generator
) -> tuple[Signal, Signal]:
    """Onsets and lengths in seconds, of at least one syllable.

    Irregular intervals, too, fill the time from start to end.
    """
    count = max(1, round(gesture.rate * (end - start)))
    intervals = np.exp(gesture.irregularity * rng.standard_normal(count))
    intervals *= (end - start) / intervals.sum()
    return start + np.cumsum(intervals) - intervals, gesture.duty * intervals


def _envelope(since: Signal, length: Signal, *, attack: float) -> Signal:
    """[C] amplitude 0 .. 1: an exponential onset, a plateau, and a release over the last 40 percent."""
    onset: Signal = 1 - np.exp(-np.maximum(since, 0) / attack)
    release: Signal = np.sin(np.pi / 2 * np.clip((length - since) / (0.4 * length), 0, 1)) ** 2
    return onset * release


def _breaths(time: Signal, gesture: Gesture, *, start: float, end: float) -> Signal:
    """[C] noise amplitude of the gasp, which swells and stops, and of the sigh, which fades."""
    drawn_in = np.clip((time - gesture.lead) / max(start - gesture.lead, 1e-3), 0, 1)
    let_out = np.clip((time - end) / max(gesture.lead + gesture.length - end, 1e-3), 0, 1)
    swell: Signal = drawn_in * np.clip((1 - drawn_in) / 0.15, 0, 1)
    fade: Signal = (1 - let_out) * np.clip(let_out / 0.15, 0, 1)
    return _ASPIRATION * (gesture.gasp * swell + gesture.sigh * fade)


def _glottal_pulses(movement: _Movement, *, speaker: Speaker, rng: np.random.Generator) -> Signal:
    """[N]: one impulse for each glottal cycle, shared by the two nearest samples.

    Its power does not depend on f0.
    """
    times = pulse_times(movement.f0, jitter=speaker.jitter, rng=rng)
    control = (times * _CONTROL_RATE).astype(int)
    shimmer = np.maximum(1 + speaker.shimmer * rng.standard_normal(len(times)), 0)
    amplitude = movement.voicing[control] * shimmer * np.sqrt(SAMPLING_RATE / movement.f0[control])
    before, fraction = np.divmod(times * SAMPLING_RATE, 1)
    index = before.astype(int)
    samples = len(movement.f0) * _STEP
    pulses = np.zeros(samples + 1)
    pulses += np.bincount(index, amplitude * (1 - fraction), samples + 1)
    pulses[1:] += np.bincount(index, amplitude * fraction, samples + 1)[:-1]
    return pulses[:samples]


def _through_tract(
    pulses: Signal, aspiration: Signal, *, openness: Signal, gesture: Gesture, speaker: Speaker
) -> Signal:
    """[N], [N] -> [N]: the glottis filters the pulses; formants, lips and microphone filter both.

    The frames are filtered one by one and added (overlap-add).
    """
    glottis = _glottis(gesture.effort)
    spectrum = _spectrum(pulses) * glottis + _spectrum(aspiration)  # [T, F]
    centres = np.arange(len(spectrum)) * _HOP // _STEP
    resonances = formants(
        openness[np.minimum(centres, len(openness) - 1)],
        frontness=gesture.frontness,
        tract_length=speaker.tract_length,
    )
    spectrum *= _microphone(speaker) / np.fft.rfft(_all_pole(resonances), _N_FFT)
    return _overlap_add(np.fft.irfft(spectrum, _N_FFT), samples=len(pulses))


def _spectrum(source: Signal) -> Spectrum:
    """[N] -> [T, F]: Hann frames of two hops (they add up to one), centred on multiples of the hop."""
    hops = -(-len(source) // _HOP) + 1
    padded = np.zeros((hops + 1) * _HOP, dtype=np.float32)
    padded[_HOP : _HOP + len(source)] = source
    blocks = padded.reshape(hops + 1, _HOP)
    window = np.hanning(2 * _HOP + 1)[:-1].astype(np.float32)
    return np.fft.rfft(np.concatenate([blocks[:-1], blocks[1:]], axis=1) * window, _N_FFT)


def _overlap_add(frames: Signal, *, samples: int) -> Signal:
    """[T, n_fft] -> [N], the inverse of `_spectrum`."""
    parts = frames.reshape(len(frames), -1, _HOP)
    out = np.zeros((len(frames) + parts.shape[1], _HOP), dtype=np.float32)
    for late in range(parts.shape[1]):
        out[late : late + len(frames)] += parts[:, late]
    return out.ravel()[_HOP : _HOP + samples]


def _all_pole(resonances: Signal) -> Signal:
    """[T, 5] Hz -> [T, 11] denominator of the tract's all-pole filter (Klatt 1980), gain 1 at 0 Hz."""
    bandwidths = 50 + 0.05 * resonances
    radius = np.exp(-np.pi * bandwidths / SAMPLING_RATE)
    middle = -2 * radius * np.cos(2 * np.pi * resonances / SAMPLING_RATE)
    product: Signal = np.ones((len(resonances), 1))
    for pole in range(resonances.shape[1]):
        longer = np.pad(product, ((0, 0), (0, 2)))
        product = longer.copy()
        product[:, 1:] += middle[:, pole, None] * longer[:, :-1]
        product[:, 2:] += radius[:, pole, None] ** 2 * longer[:, :-2]
    product /= product.sum(axis=1, keepdims=True)
    return product.astype(np.float32)


def _glottis(effort: float) -> Spectrum:
    """[F]: two real poles, -12 dB per octave above 100 Hz (soft) .. 1,000 Hz (shouted)."""
    pole = np.exp(-2 * np.pi * 100 * 10**effort / SAMPLING_RATE)
    one_pole: Spectrum = (1 - pole) / (1 - pole * np.exp(-1j * _omega()))
    return (one_pole**2).astype(np.complex64)


def _microphone(speaker: Speaker) -> Spectrum:
    """[F]: the lips' radiation (+6 dB per octave) and the speaker's microphone."""
    hertz = _omega() * SAMPLING_RATE / (2 * np.pi)
    octaves = np.log2(np.maximum(hertz, 100) / 1_000)
    low_pass = 1 / np.sqrt(1 + (hertz / speaker.cutoff) ** 12)
    lips = 1 - 0.97 * np.exp(-1j * _omega())
    response: Spectrum = lips * low_pass * 10 ** (speaker.tilt * octaves / 20)
    return response.astype(np.complex64)


def _omega() -> Signal:
    """[F] radians per sample."""
    return np.linspace(0, np.pi, _N_FFT // 2 + 1)
