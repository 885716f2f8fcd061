"""A burst in a recording is what the same samples are as a file of their own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.bursts import BurstDetector
from rrtn.runtime.audio.reader import opened, read_audio, segments_from_descriptor
from rrtn.runtime.audio.recording import Measured, Recording
from rrtn.runtime.audio.segments import Segments
from rrtn.runtime.errors import AudioError

RATE = 16_000
Samples = NDArray[np.float32]
Found = tuple[float, float, float, Samples]  # start and length in s, seconds of sound, samples


@pytest.fixture
def field(tmp_path: Path, real_clips: list[Path], spec: FrontendSpec) -> Path:
    """Twelve bursts of different levels, 6 s apart, in noise."""
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(6 * len(real_clips) + 4) * RATE) * 3e-4
    for number, clip in enumerate(real_clips):
        burst = read_audio(clip, spec).waveform[: 4 * RATE] * rng.uniform(0.1, 1.0)
        begin = (6 * number + 3) * RATE
        samples[begin : begin + len(burst)] += burst
    soundfile.write(tmp_path / "field.wav", samples.astype(np.float32), RATE, subtype="FLOAT")
    return tmp_path / "field.wav"


def found_in(path: Path, spec: FrontendSpec, **how: object) -> list[Found]:
    with opened(path) as descriptor:
        segments = segments_from_descriptor(descriptor, spec, **how)  # type: ignore[arg-type]
        return [*parts(segments)]


def parts(segments: Segments) -> Iterator[Found]:
    for start, burst in segments:
        samples = np.concatenate([*burst.blocks()])
        yield start / RATE, burst.length / RATE, burst.sound(0, burst.length), samples


@pytest.mark.parametrize("trim", [False, True])
def test_a_burst_has_the_samples_of_the_file_that_is_cut_out(field: Path, tmp_path: Path, trim: bool) -> None:
    whole, _ = soundfile.read(field, dtype="float32")
    places = [(start, length) for start, length, _, _ in found_in(field, FrontendSpec())]
    found = found_in(field, FrontendSpec(trim=trim))
    assert len(found) >= 12
    for (start, length), (_, _, _, samples) in zip(places, found, strict=True):
        first, last = round(start * RATE), round((start + length) * RATE)
        soundfile.write(tmp_path / "cut.wav", whole[first:last], RATE, subtype="FLOAT")
        cut = read_audio(tmp_path / "cut.wav", FrontendSpec(trim=trim))
        np.testing.assert_array_equal(samples, cut.samples)


def test_an_offset_counts_in_a_quiet_burst_as_in_the_file_that_is_cut_out(
    tmp_path: Path, spec: FrontendSpec
) -> None:
    """0.01: 2% of the peak of the loud burst, 33% of that of the quiet one."""
    rng = np.random.default_rng(0)
    samples = rng.normal(size=20 * RATE) * 3e-4 + 0.01
    for second, peak in ((4, 0.5), (12, 0.03)):
        samples[second * RATE : (second + 1) * RATE] += peak * np.sin(
            np.arange(RATE) * 2 * np.pi * 300 / RATE
        )
    soundfile.write(tmp_path / "field.wav", samples.astype(np.float32), RATE, subtype="FLOAT")
    whole, _ = soundfile.read(tmp_path / "field.wav", dtype="float32")
    flags = []
    with opened(tmp_path / "field.wav") as descriptor:
        for start, burst in segments_from_descriptor(descriptor, spec):
            flags.append(burst.flags)
            cut = tmp_path / "cut.wav"
            soundfile.write(cut, whole[start : start + burst.length], RATE, subtype="FLOAT")
            expected = read_audio(cut, spec)
            assert frozenset(expected.flags) == burst.flags
            np.testing.assert_allclose(np.concatenate([*burst.blocks()]), expected.samples, rtol=0, atol=1)
    assert flags == [frozenset(), frozenset({"dc"})]


def test_a_long_recording_is_decoded_twice_and_gives_the_same(field: Path, spec: FrontendSpec) -> None:
    kept, streamed = (found_in(field, spec, most_kept=most) for most in (None, 10_000))
    for one, other in zip(kept, streamed, strict=True):
        assert one[:3] == other[:3]
        np.testing.assert_array_equal(one[3], other[3])


def test_every_block_is_shown_in_both_readings(field: Path, spec: FrontendSpec) -> None:
    """Or else a long recording whose bursts are far apart would be taken for one that hangs."""
    shown: list[int] = []
    found_in(field, spec, most_kept=10_000, meter=lambda block: shown.append(len(block)))
    assert sum(shown) >= 2 * soundfile.info(field).frames - 6 * RATE  # it is read up to the last burst


def test_the_gate_leaves_bursts_out(field: Path, spec: FrontendSpec) -> None:
    asked: list[float] = []

    def gate(burst: Recording) -> bool:
        asked.append(burst.length / RATE)
        return burst.length > RATE

    assert [one[1] for one in found_in(field, spec, gate=gate)] == [one for one in asked if one > 1]
    assert len(asked) > len([one for one in asked if one > 1]) > 0


@pytest.mark.parametrize(
    ("samples", "code"), [([], "empty"), ([0.1, np.nan] * 900, "non_finite"), ([np.inf] * 9, "non_finite")]
)
def test_what_no_recording_may_hold(
    tmp_path: Path, spec: FrontendSpec, samples: list[float], code: str
) -> None:
    soundfile.write(tmp_path / "a.wav", np.array(samples, np.float32), RATE, subtype="FLOAT")
    with pytest.raises(AudioError) as caught:
        found_in(tmp_path / "a.wav", spec)
    assert caught.value.code == code


def test_silence_has_no_burst(tmp_path: Path, spec: FrontendSpec) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(20 * RATE), RATE)
    with opened(tmp_path / "a.wav") as descriptor:
        segments = segments_from_descriptor(descriptor, spec)
        assert segments.flags == {"silent"}
        assert list(segments) == []


def test_a_recording_that_shrinks_between_its_two_readings_is_changed(
    field: Path, spec: FrontendSpec
) -> None:
    with pytest.raises(AudioError) as caught, opened(field) as descriptor:
        segments = segments_from_descriptor(descriptor, spec, most_kept=10_000)
        soundfile.write(field, np.zeros(1_000), RATE)
        list(segments)
    assert caught.value.code == "changed"


def test_parts_that_give_less_than_they_gave_before_are_changed(spec: FrontendSpec) -> None:
    samples = np.random.default_rng(0).normal(size=20 * RATE).astype(np.float32) * 1e-3
    samples[12 * RATE : 13 * RATE] *= 100
    measured = Measured(BurstDetector(RATE), 0)
    measured.add(samples)
    assert len(list(Segments(spec, measured, (lambda: iter([samples]),), frozenset()))) == 1
    shorter = Segments(spec, measured, (lambda: iter([samples[: 25 * RATE // 2]]),), frozenset())
    with pytest.raises(AudioError) as caught:
        list(shorter)
    assert caught.value.code == "changed"
