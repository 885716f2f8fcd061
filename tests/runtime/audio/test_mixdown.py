"""Which channel is heard, and when an offset counts: decided on the whole of a recording."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.mixdown import Mixdown
from rrtn.runtime.audio.reader import Audio, audio_from_array, read_audio
from rrtn.runtime.audio.snd_reader import BLOCK_FRAMES
from rrtn.runtime.errors import AudioError

Samples = NDArray[np.float64]


def audio_of(folder: Path, samples: Samples, spec: FrontendSpec, rate: int = 16_000) -> Audio:
    soundfile.write(folder / "a.wav", samples, rate, subtype="FLOAT")
    return read_audio(folder / "a.wav", spec)


def columns(*channels: Samples) -> Samples:
    return np.stack(channels, axis=1)


def steps_apart(one: Audio, other: Audio) -> int:
    assert one.samples.shape == other.samples.shape
    return int(np.abs(one.samples.astype(int) - other.samples).max())


def speech(frames: int, seed: int = 0) -> Samples:
    noise = np.random.default_rng(seed).normal(0, 0.1, frames)
    return noise * (1.1 + np.sin(np.arange(frames) / 3_000))


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize(
    "others", [(-1.0,), (-0.97,), (-0.5, -0.5), (-1.0, 0.8, -0.8), (1.0, -1.0, -1.0)], ids=str
)
def test_n5_of_channels_that_cancel_the_loudest_is_heard(
    tmp_path: Path, spec: FrontendSpec, rate: int, others: tuple[float, ...]
) -> None:
    voice, hiss = speech(30_000), np.random.default_rng(1).normal(0, 1e-4, (30_000, 8))
    channels = [voice, *(gain * voice for gain in others)]
    audio = audio_of(tmp_path, columns(*channels) + hiss[:, : len(channels)], spec, rate)
    assert audio.flags == ("one_channel",)
    assert steps_apart(audio, audio_of(tmp_path, voice + hiss[:, 0], spec, rate)) <= 1


def test_n5_the_loudest_may_be_any_channel(tmp_path: Path, spec: FrontendSpec) -> None:
    voice = speech(30_000)
    audio = audio_of(tmp_path, columns(-0.6 * voice, voice, -0.4 * voice), spec)
    assert audio.flags == ("one_channel",)
    assert steps_apart(audio, audio_of(tmp_path, voice, spec)) == 0


def test_n5_offsets_do_not_hide_that_channels_cancel(tmp_path: Path, spec: FrontendSpec) -> None:
    """The mean of both channels is the offset alone, and loudness is measured without it."""
    voice = 0.01 * speech(30_000)
    audio = audio_of(tmp_path, columns(voice + 0.3, -voice + 0.3), spec)
    assert audio.flags == ("one_channel", "dc")
    assert steps_apart(audio, audio_of(tmp_path, voice, spec)) <= 30


@pytest.mark.parametrize("loud_first", [False, True])
def test_n5_the_whole_recording_decides_and_not_each_block(
    tmp_path: Path, spec: FrontendSpec, loud_first: bool
) -> None:
    """Two blocks of quiet noise in both channels, two blocks of a loud voice that cancels."""
    hiss, voice = 1e-3 * speech(2 * BLOCK_FRAMES, 1), speech(2 * BLOCK_FRAMES)
    left, right = [hiss, voice], [hiss, -voice]
    if loud_first:
        left, right = left[::-1], right[::-1]
    audio = audio_of(tmp_path, columns(np.concatenate(left), np.concatenate(right)), spec, 44_100)
    assert audio.flags == ("one_channel",)
    assert steps_apart(audio, audio_of(tmp_path, np.concatenate(left), spec, 44_100)) == 0


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("kind", ["same", "unrelated", "one alone", "delayed", "a fifth of it upside down"])
def test_n5_channels_that_do_not_cancel_are_averaged_bit_for_bit(
    spec: FrontendSpec, channels: int, kind: str
) -> None:
    voice = speech(30_000)
    others = {
        "same": lambda number: voice,
        "unrelated": lambda number: speech(30_000, number),
        "one alone": lambda number: voice * (number == 0),
        "delayed": lambda number: np.roll(voice, 9 * number),
        "a fifth of it upside down": lambda number: voice if number == 0 else -0.2 / channels * voice,
    }
    samples = columns(*(others[kind](number) for number in range(channels))).astype(np.float32)
    audio = audio_from_array(samples, 16_000, spec)
    assert audio.flags == ()
    mean = samples.mean(axis=1) if channels > 1 else samples[:, 0]
    np.testing.assert_array_equal(audio.samples, audio_from_array(mean, 16_000, spec).samples)
    np.testing.assert_array_equal(Mixdown()(np.ascontiguousarray(samples.T)), mean)


@pytest.mark.parametrize("offset", [0.2, -0.2, 0.9])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_n5_an_offset_does_not_count_in_the_level(
    tmp_path: Path, spec: FrontendSpec, offset: float, rate: int, channels: int
) -> None:
    """At -40 dBFS, across block edges. 30 of 32,768 steps: the mean of the voice itself goes, too."""
    quiet = 0.01 * speech(BLOCK_FRAMES + 20_000)
    audio = audio_of(tmp_path, columns(*[quiet + offset] * channels), spec, rate)
    assert audio.flags == ("dc",)
    assert steps_apart(audio, audio_of(tmp_path, quiet, spec, rate)) <= 100


def test_n5_an_array_is_treated_as_a_file(tmp_path: Path, spec: FrontendSpec) -> None:
    voice = speech(30_000).astype(np.float32)
    for samples in (columns(voice, -voice), voice / 100 + np.float32(0.2)):
        from_array, from_file = (
            audio_from_array(samples, 44_100, spec),
            audio_of(tmp_path, samples, spec, 44_100),
        )
        assert from_array.flags == from_file.flags != ()
        assert steps_apart(from_array, from_file) == 0


@pytest.mark.parametrize(("share", "flags"), [(0.145, ()), (0.155, ("dc",))])
def test_n5_an_offset_below_15_percent_of_the_peak_stays(
    spec: FrontendSpec, share: float, flags: tuple[str, ...]
) -> None:
    sound = speech(30_000)
    sound -= sound.mean()
    sound /= np.abs(sound).max()
    audio = audio_from_array(sound + share, 16_000, spec)
    assert audio.flags == flags
    at_peak = np.round((sound + share) / np.abs(sound + share).max() * 32_768 * 10 ** (-3 / 20))
    assert (np.abs(audio.samples - at_peak).max() <= 1) == (not flags)


def test_n5_a_click_keeps_its_mean(spec: FrontendSpec) -> None:
    click = np.abs(speech(1_000))
    assert audio_from_array(click, 16_000, spec).flags == ()
    assert audio_from_array(np.abs(speech(2_000)), 16_000, spec).flags == ("dc",)


@pytest.mark.parametrize("channels", [1, 2])
def test_n5_an_offset_alone_is_silence(spec: FrontendSpec, channels: int) -> None:
    audio = audio_from_array(np.full((30_000, channels), 0.3), 44_100, spec)
    assert audio.flags == ("silent", "dc")
    assert not audio.samples.any()


@pytest.mark.parametrize("channel", [1, 2, 3])
def test_n5_a_channel_that_is_named_is_read_alone(tmp_path: Path, spec: FrontendSpec, channel: int) -> None:
    """Whatever the others do: the second is upside down, the third has NaN and an offset."""
    voice = speech(70_000)
    third = 0.1 * speech(70_000, 3) + 0.5
    samples = columns(voice, -voice, third)
    soundfile.write(tmp_path / "three.wav", samples, 44_100, subtype="FLOAT")
    audio = read_audio(tmp_path / "three.wav", spec, channel=channel)
    alone = audio_of(tmp_path, samples[:, channel - 1], spec, 44_100)
    assert audio.flags == alone.flags == (("dc",) if channel == 3 else ())
    assert steps_apart(audio, alone) == 0
    from_array = audio_from_array(samples, 44_100, spec, channel=channel)
    assert steps_apart(from_array, alone) <= 1


def test_n5_nan_in_another_channel_does_not_matter(spec: FrontendSpec) -> None:
    samples = columns(speech(30_000), np.full(30_000, np.nan))
    assert audio_from_array(samples, 16_000, spec, channel=1).flags == ()
    with pytest.raises(AudioError, match="non_finite"):
        audio_from_array(samples, 16_000, spec)


@pytest.mark.parametrize("channels", [2, 3, 8])
def test_the_mean_of_finite_channels_is_finite(tmp_path: Path, spec: FrontendSpec, channels: int) -> None:
    """Their sum is not."""
    voice = speech(20_000)
    loud = voice * (3.3e38 / np.abs(voice).max())
    audio = audio_of(tmp_path, columns(*[loud] * channels), spec)
    assert steps_apart(audio, audio_of(tmp_path, voice, spec)) <= 1
    with pytest.raises(AudioError, match="non_finite"):
        audio_of(tmp_path, columns(*[loud] * (channels - 1), np.full(20_000, np.inf)), spec)


def test_n5_a_missing_channel_is_an_error_that_says_so(tmp_path: Path, spec: FrontendSpec) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 2)), 16_000)
    with pytest.raises(AudioError, match="2, and --channel 3 was given") as caught:
        read_audio(tmp_path / "a.wav", spec, channel=3)
    assert caught.value.code == "no_channel"
