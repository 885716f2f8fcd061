"""Where bursts are. The oracle is the definition, written out over the whole recording at once."""

import pickle

import numpy as np
import pytest
from numpy.typing import NDArray
from rrtn.runtime.audio.bursts import BurstDetector

RATE, FRAME = 16_000, 160
Samples = NDArray[np.float32]
Spans = list[tuple[int, int]]


def noise(seconds: float, dbfs: float, *, seed: int = 0) -> Samples:
    samples = np.random.default_rng(seed).normal(size=round(seconds * RATE))
    return (samples * 10 ** (dbfs / 20)).astype(np.float32)


def with_tones(samples: Samples, *places: tuple[float, float], dbfs: float = -20.0) -> Samples:
    """A tone of 1 kHz from each start to each end (s), as loud as noise of so many dBFS."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(len(samples)) / RATE) * np.sqrt(2) * 10 ** (dbfs / 20)
    heard = samples.copy()
    for start, end in places:
        first, last = round(start * RATE), round(end * RATE)
        heard[first:last] += tone[first:last].astype(np.float32)
    return heard


def spans(samples: Samples, *sizes: int) -> Spans:
    """The bursts, where the samples come in blocks of these sizes, again and again."""
    detector, place, number = BurstDetector(RATE), 0, 0
    while place < len(samples):
        size = sizes[number % len(sizes)] if sizes else len(samples)
        detector.add(samples[place : place + size])
        place, number = place + size, number + 1
    return [(start, stop) for start, stop in detector.spans()]


def frames(*places: tuple[float, float]) -> Spans:
    """A burst has 50 ms more on either side than what is loud."""
    return [(round((start - 0.05) * RATE), round((end + 0.05) * RATE)) for start, end in places]


def field_recording(seconds: float, *, seed: int) -> Samples:
    """Noise that changes its level, with tones of any level and length."""
    rng = np.random.default_rng(seed)
    parts = [noise(seconds / 5, rng.uniform(-75, -35), seed=seed + i) for i in range(5)]
    samples = np.concatenate(parts)
    for _ in range(round(seconds / 4)):
        start = rng.uniform(0, seconds)
        samples = with_tones(samples, (start, start + rng.exponential(0.8)), dbfs=rng.uniform(-45, -10))
    return samples


def defined(samples: Samples) -> Spans:
    """The definition: frames, floors of steps, frames above them, runs of these, bursts."""
    full = len(samples) // FRAME * FRAME
    cut = [samples[:full].reshape(-1, FRAME), samples[full:].reshape(1, -1)]
    power = np.concatenate([powers_without_slow_parts(part.astype(float)) for part in cut if part.size])
    level = 10 * np.log10(np.maximum(1e-12, power))
    above = np.zeros(len(level))
    for begin in range(0, len(level), 50):
        before = level[begin - 450 : begin + 50] if begin >= 450 else None
        after = level[begin : begin + 500] if begin + 500 <= len(level) else None
        whole = [part for part in (before, after) if part is not None]
        heard = whole or [level[max(0, begin - 450) : begin + 500]]
        floors = [sorted(part)[round((len(part) - 1) / 10)] for part in heard]
        above[begin : begin + 50] = level[begin : begin + 50] - max(-70.0, *floors)
    runs: list[list[int]] = []
    for i in np.flatnonzero(above >= 6):
        if runs and i - runs[-1][-1] <= 31:
            runs[-1].append(int(i))
        else:
            runs.append([int(i)])
    found = [run for run in runs if sum(above[i] >= 12 for i in run) >= 5]
    parts = [part for run in found for part in parted(run[0], run[-1] + 1)]
    ends = [0, *(min(len(samples), (stop + 5) * FRAME) for _, stop in parts)]
    starts = [max(end, (start - 5) * FRAME) for end, (start, _) in zip(ends, parts, strict=False)]
    return [*zip(starts, ends[1:], strict=True)]


def parted(start: int, stop: int) -> Spans:
    """Every 30 s; what the 50 ms behind a part hold whole is no part of its own."""
    if stop - start <= 3_005:
        return [(start, stop)]
    return [(start, start + 3_000), *parted(start + 3_000, stop)]


def powers_without_slow_parts(cut: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row, that of what a parabola through it leaves."""
    time = np.arange(cut.shape[1])
    slow = np.polyfit(time, cut.T, 2).T @ np.vander(time, 3).T
    return np.asarray(np.mean((cut - slow) ** 2, axis=1))


@pytest.mark.parametrize("seed", range(4))
def test_bursts_are_those_of_the_definition(seed: int) -> None:
    samples = field_recording(60.003, seed=seed)
    found = spans(samples)
    assert len(found) > 5
    assert found == defined(samples)


@pytest.mark.parametrize("seconds", [0.02, 0.3, 3.0, 7.0])
def test_a_short_recording_is_its_own_floor(seconds: float) -> None:
    samples = with_tones(noise(seconds, -60.0), (0.4 * seconds, 0.6 * seconds))
    assert spans(samples) == defined(samples)


@pytest.mark.parametrize("sizes", [(1_000,), (159, 161, 1), (65_536, 7), (8_000,)])
def test_blocks_of_any_size_give_the_same_bursts(sizes: tuple[int, ...]) -> None:
    samples = field_recording(60.0, seed=1)
    assert spans(samples, *sizes) == spans(samples)


def test_a_burst_begins_and_ends_where_its_sound_does() -> None:
    places = ((0.0, 0.4), (12.0, 12.1), (14.0, 17.5), (29.7, 30.0))
    heard = spans(with_tones(noise(30.0, -60.0), *places))
    assert heard == [(0, 7_200), *frames(*places[1:3]), (round(29.65 * RATE), 480_000)]


def test_short_pauses_do_not_part_a_burst_and_longer_ones_do() -> None:
    samples = with_tones(noise(30.0, -60.0), (10.0, 10.5), (10.8, 11.0), (11.4, 12.0))
    assert spans(samples) == frames((10.0, 11.0), (11.4, 12.0))


def test_what_is_shorter_than_50_ms_is_no_burst() -> None:
    assert spans(with_tones(noise(20.0, -60.0), (5.0, 5.04), (10.0, 10.05))) == frames((10.0, 10.05))


@pytest.mark.parametrize("dbfs", [-50.0, -30.0, -10.0])
def test_a_recording_may_be_of_any_level(dbfs: float) -> None:
    samples = with_tones(noise(30.0, -60.0), (10.0, 10.5), dbfs=-30.0)
    assert spans(samples * np.float32(10 ** ((dbfs + 30) / 20))) == frames((10.0, 10.5))


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.zeros(100, np.float32),
        np.zeros(30 * RATE, np.float32),
        np.full(30 * RATE, 0.3, np.float32),
        noise(30.0, -20.0),
        noise(30.0, -96.0),
        np.concatenate([noise(15.0, -70.0), noise(15.0, -25.0)]),  # a fan is switched on
        np.concatenate([noise(15.0, -25.0), np.zeros(15 * RATE, np.float32)]),
        noise(30.0, -60.0) + np.float32(0.5) * np.sin(np.arange(30 * RATE) / 500, dtype=np.float32),  # 5 Hz
    ],
)
def test_silence_steady_noise_and_rumble_are_no_bursts(samples: Samples) -> None:
    assert spans(samples) == []


def test_a_burst_that_does_not_end_is_parted_every_30_s() -> None:
    """Its pauses are too short to part it, and long enough to show the noise."""
    places = [(10 + i, 10.8 + i) for i in range(70)]
    assert spans(with_tones(noise(90.0, -60.0), *places)) == [
        (round(9.95 * RATE), round(40.05 * RATE)),
        (round(40.05 * RATE), round(70.05 * RATE)),
        (round(70.05 * RATE), round(79.85 * RATE)),
    ]


@pytest.mark.parametrize("frames_more", [1, 4, 5, 6, 12, 40])
@pytest.mark.parametrize("silence", [0.0, 0.02, 3.0])
def test_a_burst_that_ends_soon_after_30_s(frames_more: int, silence: float) -> None:
    """At the end of the recording, too, where nothing can be added behind it."""
    end = 40.0 + frames_more / 100
    places = [(10 + i, 10.8 + i) for i in range(30)] + [(39.9, end)]
    samples = with_tones(noise(end + silence, -60.0), *places)
    found = spans(samples)
    assert found == defined(samples)
    assert len(found) == (1 if frames_more <= 5 else 2)
    assert all(start < stop for start, stop in found) and found[-1][1] == min(
        len(samples), round((end + 0.05) * RATE)
    )


def test_a_copy_goes_its_own_way() -> None:
    samples = with_tones(noise(40.0, -60.0), (12.0, 12.5), (17.0, 17.5))
    detector = BurstDetector(RATE)
    detector.add(samples[: 15 * RATE])
    other = detector.copy()
    other.add(noise(20.0, -10.0))
    assert other.spans()[0] == frames((12.0, 12.5))[0]
    assert detector.spans() == frames((12.0, 12.5))
    detector.add(samples[15 * RATE :])
    assert detector.spans() == frames((12.0, 12.5), (17.0, 17.5))


def test_what_the_detector_holds_does_not_grow() -> None:
    detector, sizes = BurstDetector(RATE), []
    minute = noise(60.0, -50.0)
    for _ in range(90):
        detector.add(minute)
        sizes.append(len(pickle.dumps(detector)))
    assert max(sizes) < 1.01 * min(sizes)


def test_nan_and_infinity_are_left_to_the_reader() -> None:
    samples = with_tones(noise(30.0, -60.0), (10.0, 10.5))
    samples[[5_000, 400_000]] = np.nan, np.inf
    assert spans(samples)
