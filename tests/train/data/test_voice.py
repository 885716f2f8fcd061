"""The voice obeys its parameters: each is measured again in what it renders."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from rrtn.train.data.voice import SAMPLING_RATE, Gesture, Speaker, burst, formants, pulse_times

STEADY = Gesture(lead=0.0, length=1.0, tail=0.0, rate=0.5, duty=1.0, attack=0.005, effort=0.7, breath=0.0)
CLEAN = Speaker(jitter=0.0, shimmer=0.0, room=-120.0)


def render(gesture: Gesture, *, speaker: Speaker = CLEAN, seed: int = 0) -> NDArray[np.float32]:
    return burst(gesture, speaker=speaker, rng=np.random.default_rng(seed))


def autocorrelation(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalised, one sign of lag, without the bias of a shrinking overlap."""
    centred = signal - signal.mean()
    sums = np.fft.irfft(np.abs(np.fft.rfft(centred, 2 * len(centred))) ** 2)[: len(centred) // 2]
    unbiased = sums / np.arange(len(centred), len(centred) - len(sums), -1)
    return np.asarray(unbiased / unbiased[0])


def periodicity(waveform: NDArray[np.float32], *, lowest: float, highest: float) -> tuple[float, float]:
    """f0 in Hz (parabola through the highest peak of the autocorrelation) and that peak's height,
    of the middle.
    """
    middle = waveform[len(waveform) // 4 : len(waveform) // 2].astype(np.float64)
    correlation = autocorrelation(middle)
    first, last = int(SAMPLING_RATE / highest), int(SAMPLING_RATE / lowest)
    lag = first + int(correlation[first:last].argmax())
    left, peak, right = correlation[lag - 1 : lag + 2]
    return SAMPLING_RATE / (lag + 0.5 * (left - right) / (left - 2 * peak + right)), float(peak)


def envelope(waveform: NDArray[np.float32], *, hop: int = 160) -> NDArray[np.float64]:
    """[N] -> [N / hop] root mean square."""
    whole = waveform[: len(waveform) // hop * hop].astype(np.float64)
    return np.asarray(np.sqrt((whole.reshape(-1, hop) ** 2).mean(axis=1)))


def harmonic_level(waveform: NDArray[np.float32], frequency: float) -> float:
    """dB of one sinusoid in the middle half second."""
    middle = waveform[4_000:12_000]
    phasor = np.exp(-2j * np.pi * frequency * np.arange(len(middle)) / SAMPLING_RATE)
    return float(20 * np.log10(abs(np.sum(middle * np.hanning(len(middle)) * phasor))))


@pytest.mark.parametrize("seed", range(5))
def test_peak_is_minus_three_dbfs_and_length_is_as_asked(seed: int) -> None:
    gesture = Gesture(lead=0.2, length=0.3 + 0.4 * seed, tail=0.1, gasp=0.5, sigh=0.5)
    waveform = render(gesture, speaker=Speaker(), seed=seed)
    assert waveform.dtype == np.float32
    assert waveform.shape == (round((0.6 + 0.4 * seed) * SAMPLING_RATE),)
    assert 20 * np.log10(np.abs(waveform).max()) == pytest.approx(-3.0, abs=0.01)


def test_breaths_leave_room_for_a_voice_in_the_shortest_burst() -> None:
    waveform = render(
        Gesture(lead=0.0, length=0.7, tail=0.0, gasp=1.0, sigh=1.0, breath=0.0, rate=0.4, duty=0.95)
    )
    _, middle = periodicity(
        waveform[round(0.15 * SAMPLING_RATE) : round(0.55 * SAMPLING_RATE)], lowest=100, highest=220
    )
    assert middle > 0.9


def test_same_generator_gives_the_same_samples() -> None:
    gesture, speaker = Gesture(gasp=0.5), Speaker()
    np.testing.assert_array_equal(render(gesture, speaker=speaker), render(gesture, speaker=speaker))
    assert not np.array_equal(render(gesture, speaker=speaker), render(gesture, speaker=speaker, seed=1))


@pytest.mark.parametrize("semitones", [0.0, 7.0, 12.0])
@pytest.mark.parametrize("rest", [90.0, 130.0, 220.0])
def test_f0_of_a_steady_voice_is_the_asked_one(rest: float, semitones: float) -> None:
    asked = rest * 2 ** (semitones / 12)
    waveform = render(replace(STEADY, f0=semitones), speaker=replace(CLEAN, f0=rest))
    f0, _ = periodicity(waveform, lowest=0.7 * asked, highest=1.4 * asked)
    assert f0 == pytest.approx(asked, rel=0.02)


@pytest.mark.parametrize("slope", [-6.0, 6.0])
def test_slope_moves_f0_over_the_syllable(slope: float) -> None:
    waveform = render(replace(STEADY, slope=slope), speaker=replace(CLEAN, f0=200.0))
    early, _ = periodicity(waveform[:6_400], lowest=120, highest=320)  # its middle is at 0.15 s
    late, _ = periodicity(waveform[9_600:], lowest=120, highest=320)  # and 0.75 s
    assert 12 * np.log2(late / early) == pytest.approx(0.6 * slope, abs=0.5)


@pytest.mark.parametrize("jitter", [0.0, 0.01, 0.05])
def test_jitter_is_the_deviation_of_the_periods(jitter: float) -> None:
    times = pulse_times(np.full(20_000, 150.0), jitter=jitter, rng=np.random.default_rng(0))
    periods = np.diff(times)
    assert periods.mean() == pytest.approx(1 / 150, rel=0.005)
    assert periods.std() / periods.mean() == pytest.approx(jitter, rel=0.05, abs=1e-6)


@pytest.mark.parametrize(("kind", "some", "much"), [("jitter", 0.02, 0.06), ("shimmer", 0.1, 0.25)])
def test_jitter_and_shimmer_make_the_voice_less_periodic(kind: str, some: float, much: float) -> None:
    speakers = [replace(CLEAN, f0=150.0, **{kind: amount}) for amount in (0.0, some, much)]
    heights = [
        periodicity(render(STEADY, speaker=speaker), lowest=100, highest=220)[1] for speaker in speakers
    ]
    assert heights[0] > 0.99
    assert heights[0] - heights[1] > 0.003
    assert heights[1] - heights[2] > 0.02


@pytest.mark.parametrize("tract_length", [13.0, 17.5])
@pytest.mark.parametrize(("openness", "frontness"), [(0.2, 0.1), (0.9, 0.4), (0.3, 0.6)])
def test_whisper_has_spectral_peaks_at_the_formants(
    tract_length: float, openness: float, frontness: float
) -> None:
    whisper = replace(STEADY, length=3.0, breath=1.0, openness=openness, frontness=frontness)
    waveform = render(whisper, speaker=replace(CLEAN, tract_length=tract_length, cutoff=20_000.0))
    frames = waveform[: len(waveform) // 512 * 512].reshape(-1, 512) * np.hanning(512)
    power = (np.abs(np.fft.rfft(frames)) ** 2).mean(axis=0)
    frequency = np.fft.rfftfreq(512, 1 / SAMPLING_RATE)
    asked = formants(np.array([openness]), frontness=frontness, tract_length=tract_length)[0]
    borders = np.concatenate([[100.0], (asked[:-1] + asked[1:]) / 2])
    for formant, low, high in zip(asked[:4], borders[:4], borders[1:], strict=True):
        between = (frequency > low) & (frequency < high)
        assert frequency[between][power[between].argmax()] == pytest.approx(formant, rel=0.05, abs=40)


def test_formants_scale_with_one_over_the_tract_length() -> None:
    openness = np.linspace(0, 1, 7)
    long, short = (formants(openness, frontness=0.5, tract_length=length) for length in (17.5, 14.0))
    assert long.shape == (7, 5)
    assert (np.diff(long, axis=1) > 0).all()
    np.testing.assert_allclose(short, long * 17.5 / 14.0)


@pytest.mark.parametrize("rate", [3.0, 4.0, 5.0])
def test_laughter_repeats_at_the_asked_rate(rate: float) -> None:
    laugh = Gesture(length=3.0, rate=rate, duty=0.5, attack=0.01, breath=0.4)
    correlation = autocorrelation(envelope(render(laugh, speaker=Speaker())))
    lag = 15 + int(correlation[15:50].argmax())  # 0.15 .. 0.5 s in frames of 10 ms
    assert 100 / lag == pytest.approx(rate, rel=0.06)
    assert correlation[lag] > 0.5


def test_effort_flattens_the_source_spectrum() -> None:
    speaker = replace(CLEAN, f0=100.0)
    soft, loud = (render(replace(STEADY, effort=effort), speaker=speaker) for effort in (0.0, 1.0))
    fall = [harmonic_level(voice, 200.0) - harmonic_level(voice, 3_000.0) for voice in (soft, loud)]
    assert fall[0] - fall[1] > 20


@pytest.mark.parametrize(("breath", "seconds"), [("gasp", 0.15), ("sigh", 1.65)])
def test_gasp_comes_before_the_voice_and_sigh_after(breath: str, seconds: float) -> None:
    plain = replace(STEADY, length=2.0, duty=0.99, rate=0.2)
    with_breath = render(replace(plain, **{breath: 1.0}))
    there = slice(round((seconds - 0.1) * SAMPLING_RATE), round((seconds + 0.2) * SAMPLING_RATE))
    _, voiced = periodicity(render(plain)[there], lowest=100, highest=220)
    _, noisy = periodicity(with_breath[there], lowest=100, highest=220)
    _, middle = periodicity(with_breath[12_000:20_000], lowest=100, highest=220)
    assert noisy < 0.5 < 0.95 < min(voiced, middle)
    assert 20 * np.log10(with_breath[there].std() / with_breath[12_000:20_000].std()) > -30  # and it is heard


def test_roughness_modulates_the_voice_at_seventy_hertz() -> None:
    depths = []
    for roughness in (0.0, 0.8):
        level = envelope(
            render(replace(STEADY, roughness=roughness), speaker=replace(CLEAN, f0=700.0)), hop=32
        )
        spectrum = np.abs(np.fft.rfft(level[100:400] * np.hanning(300)))  # 500 frames a second
        depths.append(spectrum[round(70 * 300 / 500)] / spectrum[0])
    assert depths[0] < 0.02 < 0.2 < depths[1]


def test_slow_attack_delays_the_level() -> None:
    sharp, slow = (envelope(render(replace(STEADY, attack=attack))) for attack in (0.005, 0.2))
    assert np.argmax(sharp > 0.7 * sharp.max()) < 0.05 * 100
    assert np.argmax(slow > 0.7 * slow.max()) > 0.1 * 100


def test_room_is_as_loud_as_asked() -> None:
    waveform = render(replace(STEADY, lead=1.0), speaker=replace(CLEAN, room=-40.0))
    assert 20 * np.log10(waveform[:12_000].std() / np.abs(waveform).max()) == pytest.approx(-40.0, abs=0.5)
