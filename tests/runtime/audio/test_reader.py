"""A file becomes the samples that a written-out reference gives, or an error whose code says why not."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.codes import ERROR_CODES
from rrtn.runtime.audio.reader import Audio, audio_from_array, read_audio
from rrtn.runtime.audio.snd_reader import BLOCK_FRAMES
from rrtn.runtime.errors import AudioError, ConfigError, StoppedError

if TYPE_CHECKING:
    from conftest import Watch

Samples = NDArray[np.float64]
DESCRIPTORS = Path("/proc/self/fd")
PEAK = 23_198  # -3 dB of 32,768


def levelled_by_hand(mono: Samples) -> NDArray[np.int16]:
    return np.round(mono * (32_768 * 10 ** (-3 / 20) / np.abs(mono).max())).astype(np.int16)


def written(path: Path, samples: Samples | NDArray[np.int16], rate: int, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def refusal(path: object, spec: FrontendSpec, **options: float) -> str:
    with pytest.raises(AudioError) as caught:
        read_audio(path, spec, **options)  # type: ignore[arg-type]
    assert caught.value.code in ERROR_CODES
    return caught.value.code


def assert_equal(ours: Audio, theirs: Audio) -> None:
    np.testing.assert_array_equal(ours.samples, theirs.samples)
    assert (ours.seconds, ours.flags) == (theirs.seconds, theirs.flags)


def assert_within_one_step(samples: NDArray[np.int16], expected: NDArray[np.int16]) -> None:
    """float32 against float64 arithmetic: what lies between two integers may be rounded to either."""
    assert samples.dtype == np.int16
    assert samples.shape == expected.shape
    assert np.abs(samples.astype(int) - expected).max() <= 1


def test_16_bit_mono_at_16_khz_is_only_levelled(tmp_path: Path, spec: FrontendSpec, sound: Samples) -> None:
    steps = np.round(sound * 32_768).astype(np.int16)
    audio = read_audio(written(tmp_path / "a.wav", steps, 16_000, "PCM_16"), spec)
    assert_within_one_step(audio.samples, levelled_by_hand(steps.astype(float)))
    assert (audio.seconds, audio.flags) == (1.5, ())


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 16_000, 44_100, 48_000, 384_000])
@pytest.mark.parametrize("gain", [1e-5, 1.0])
def test_peak_is_minus_three_dbfs_whatever_the_rate_and_gain(
    tmp_path: Path, spec: FrontendSpec, sound: Samples, rate: int, gain: float
) -> None:
    audio = read_audio(written(tmp_path / "a.wav", sound * gain, rate), spec)
    assert np.abs(audio.samples.astype(int)).max() == PEAK


@pytest.mark.parametrize("channels", [2, 3, 8])
def test_channels_are_averaged(tmp_path: Path, spec: FrontendSpec, channels: int) -> None:
    several = np.random.default_rng(0).normal(0, 0.1, (5_000, channels))
    audio = read_audio(written(tmp_path / "a.wav", several, 16_000), spec)
    assert_within_one_step(audio.samples, levelled_by_hand(several.mean(axis=1)))


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 192_000])
def test_a_tone_keeps_its_frequency_phase_and_shape_at_every_rate(
    tmp_path: Path, spec: FrontendSpec, rate: int
) -> None:
    """The tone itself, sampled at 16 kHz, is the reference.

    16 steps of 32,768 allow for the resampler's passband ripple.
    """

    def tone(sampling_rate: int) -> Samples:
        time = np.arange(sampling_rate) / sampling_rate
        return np.asarray(0.5 * np.sin(2 * np.pi * 1_234 * time) * np.sin(np.pi * time) ** 2)

    audio = read_audio(written(tmp_path / "a.wav", tone(rate), rate), spec)
    expected = levelled_by_hand(tone(16_000))
    assert audio.samples.shape == expected.shape
    assert np.abs(audio.samples.astype(int) - expected).max() <= 16


@pytest.mark.parametrize(
    "frames", [1, 2, BLOCK_FRAMES - 1, BLOCK_FRAMES, BLOCK_FRAMES + 1, 2 * BLOCK_FRAMES + 1]
)
def test_every_sample_arrives_across_block_edges(tmp_path: Path, spec: FrontendSpec, frames: int) -> None:
    noise = np.random.default_rng(frames).normal(0, 0.1, frames)
    assert_within_one_step(
        read_audio(written(tmp_path / "a.wav", noise, 16_000), spec).samples, levelled_by_hand(noise)
    )


@pytest.mark.parametrize("frames", [100, BLOCK_FRAMES - 1, BLOCK_FRAMES, 2 * BLOCK_FRAMES + 1])
def test_resampling_in_blocks_equals_resampling_at_once(
    tmp_path: Path, spec: FrontendSpec, frames: int
) -> None:
    noise = np.random.default_rng(frames).normal(0, 0.1, frames)
    at_once = soxr.resample(noise, 44_100, 16_000, quality="HQ")
    assert_within_one_step(
        read_audio(written(tmp_path / "a.wav", noise, 44_100), spec).samples, levelled_by_hand(at_once)
    )


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("shape", [(100_000,), (70_000, 1), (70_000, 2)])
def test_an_array_is_the_same_as_a_file_of_it(
    tmp_path: Path, spec: FrontendSpec, rate: int, shape: tuple[int, ...]
) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)
    assert_equal(
        audio_from_array(samples, rate, spec), read_audio(written(tmp_path / "a.wav", samples, rate), spec)
    )


@pytest.mark.parametrize("rate", [44_100.5, np.float32(16_000.25), float("nan"), True, "16000", 1j])
def test_a_rate_is_a_whole_number(spec: FrontendSpec, rate: Any) -> None:
    """The resampler would take it for another one. 44100.0 is whole."""
    with pytest.raises(ConfigError, match=r"sampling_rate \| .* as a whole number"):
        audio_from_array(np.zeros(100), rate, spec)
    sound = np.linspace(-1, 1, 1_000)
    assert_equal(audio_from_array(sound, 44_100.0, spec), audio_from_array(sound, 44_100, spec))


def test_audio_can_be_looked_for_in_a_list(spec: FrontendSpec, sound: Samples) -> None:
    """Parts that are arrays have no single truth, so that `==` of all parts would raise."""
    first, second = (audio_from_array(sound, 16_000, spec) for _ in range(2))
    assert [first, second].index(second) == 1


def test_an_arrays_scale_does_not_matter(spec: FrontendSpec, sound: Samples) -> None:
    steps = np.round(sound * 32_768).astype(np.int16)
    assert_equal(audio_from_array(steps, 44_100, spec), audio_from_array(steps / 32_768, 44_100, spec))


@pytest.mark.parametrize("seconds", [0.075, 1.0])
def test_unsigned_samples_lie_around_the_middle_of_their_range(
    tmp_path: Path, spec: FrontendSpec, seconds: float
) -> None:
    """As in a WAV file of 8 bits; scipy reads that one as uint8."""
    steps = np.round(60 * np.sin(np.arange(round(16_000 * seconds)) / 9)).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", (steps << 8).astype(np.int16), 16_000, subtype="PCM_U8")
    of_file = read_audio(tmp_path / "a.wav", spec)
    assert_equal(audio_from_array((steps + 128).astype(np.uint8), 16_000, spec), of_file)
    wide = (steps.astype(np.int64) << 8) + 32_768
    assert_equal(audio_from_array(wide.astype(np.uint16), 16_000, spec), of_file)
    of_64_bits = ((steps.astype(np.int64) << 56).view(np.uint64)) ^ np.uint64(1 << 63)
    assert_equal(audio_from_array(of_64_bits, 16_000, spec), of_file)


@pytest.mark.parametrize("shape", [(), (2, 3, 4), (100, 0), (100, 9)])
def test_an_array_that_is_not_audio_is_refused(spec: FrontendSpec, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="waveform"):
        audio_from_array(np.zeros(shape), 16_000, spec)


@pytest.mark.parametrize("rate", [0, 3_999, 384_001, "16000", None, float("nan")])
def test_an_array_at_an_odd_rate_is_refused(spec: FrontendSpec, rate: Any) -> None:
    with pytest.raises(ConfigError, match="sampling_rate"):
        audio_from_array(np.ones(100), rate, spec)


@pytest.mark.parametrize(
    "samples",
    [
        np.ma.masked_array(np.ones(100), mask=[1] + [0] * 99),
        np.ones(100, complex),
        np.zeros(100, "datetime64[s]"),
        np.array(["1"] * 100),
        [[1.0], [1.0, 2.0]],
        None,
        np.ones(100, bool),
    ],
    ids=["masked", "complex", "times", "text", "ragged", "None", "bool"],
)
def test_what_has_no_numbers_or_more_than_numbers_is_refused(spec: FrontendSpec, samples: Any) -> None:
    with pytest.raises(ConfigError, match="expected an array of integers or floats"):
        audio_from_array(samples, 16_000, spec)


@pytest.mark.parametrize("samples", [[np.nan, 0.5], [np.inf, 0.5], [1e300, 0.5]])
def test_an_array_beyond_float32_is_not_finite(spec: FrontendSpec, samples: list[float]) -> None:
    with pytest.raises(AudioError, match="non_finite"):
        audio_from_array(np.array(samples), 16_000, spec)


@pytest.mark.parametrize(("samples", "rate"), [([], 16_000), ([0.5], 192_000)])
def test_nothing_at_the_models_rate_is_empty(
    tmp_path: Path, spec: FrontendSpec, samples: list[float], rate: int
) -> None:
    assert refusal(written(tmp_path / "a.wav", np.array(samples), rate), spec) == "empty"
    with pytest.raises(AudioError, match="empty"):
        audio_from_array(samples, rate, spec)


def test_a_resampler_that_overshoots_float32_is_not_finite(tmp_path: Path, spec: FrontendSpec) -> None:
    square = 3e38 * np.random.default_rng(0).choice([-1.0, 1.0], 44_100)
    assert refusal(written(tmp_path / "a.wav", square, 44_100), spec) == "non_finite"


def test_silence_ends_above_the_last_bit_of_24_bit_audio(tmp_path: Path, spec: FrontendSpec) -> None:
    click = np.zeros(1_000)
    click[500] = 2.0**-23
    assert (
        np.abs(
            read_audio(written(tmp_path / "a.wav", click, 16_000, "PCM_24"), spec).samples.astype(int)
        ).max()
        == PEAK
    )
    assert read_audio(written(tmp_path / "a.wav", click / 2, 16_000), spec).flags == ("silent",)


@pytest.mark.parametrize("samples", [1, 160])
def test_a_very_short_recording_has_no_flag(tmp_path: Path, spec: FrontendSpec, samples: int) -> None:
    """As docs/scoring.md says; its start and end tell it."""
    assert read_audio(written(tmp_path / "a.wav", np.full(samples, 0.5), 16_000), spec).flags == ()


@pytest.mark.parametrize(("channels", "rate"), [(9, 16_000), (1, 3_999), (1, 384_001)])
def test_an_unusual_layout_is_refused(tmp_path: Path, spec: FrontendSpec, channels: int, rate: int) -> None:
    assert (
        refusal(written(tmp_path / "a.wav", np.ones((100, channels)), rate, "PCM_16"), spec)
        == "unsupported_layout"
    )


def test_the_longest_file_is_exactly_max_seconds(tmp_path: Path, spec: FrontendSpec) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 8_001)
    assert read_audio(written(tmp_path / "a.wav", noise[:8_000], 8_000), spec, max_seconds=1.0).seconds == 1.0
    assert refusal(written(tmp_path / "a.wav", noise, 8_000), spec, max_seconds=1.0) == "too_long"


@pytest.mark.parametrize("frames", [15_999, 16_001])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "ULAW", "IMA_ADPCM", "MS_ADPCM"])
def test_odd_lengths_and_blocked_codecs_are_whole(
    tmp_path: Path, spec: FrontendSpec, frames: int, subtype: str
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, frames)
    audio = read_audio(written(tmp_path / "a.wav", noise, 16_000, subtype), spec)
    assert audio.flags == ()
    assert 0 <= len(audio.samples) - frames < 2_048  # ADPCM fills its last block


@pytest.mark.parametrize("size", [0x7FFF_FFFF, 0xFFFF_FFF0, 0xFFFF_FFFF])
def test_the_size_that_a_streaming_writer_leaves_is_no_truncation(
    tmp_path: Path, spec: FrontendSpec, sound: Samples, size: int
) -> None:
    path = written(tmp_path / "a.wav", sound, 16_000, "PCM_16")
    intact = read_audio(path, spec)
    content = bytearray(path.read_bytes())
    content[40:44] = size.to_bytes(4, "little")
    path.write_bytes(content)
    assert_equal(read_audio(path, spec), replace(intact, flags=("no_length",)))


def test_an_mp3_is_never_truncated_by_the_length_that_libsndfile_guesses(
    real_clips: list[Path], spec: FrontendSpec
) -> None:
    mp3 = [path for path in real_clips if path.suffix == ".mp3"]
    assert [read_audio(path, spec).flags for path in mp3] == [()] * 3


def test_an_mp3_without_a_whole_frame_says_so(
    tmp_path: Path, real_clips: list[Path], spec: FrontendSpec
) -> None:
    """libsndfile says that there is no such file, or that it is a pipe."""
    clip = next(path for path in real_clips if path.suffix == ".mp3").read_bytes()
    header = clip[clip.index(b"\xff\xfb") :][:4]
    for content in (header + bytes(2_000), header + b"ABCD" * 500):
        (tmp_path / "x.mp3").write_bytes(content)
        with pytest.raises(AudioError) as caught:
            read_audio(tmp_path / "x.mp3", spec)
        assert (caught.value.code, caught.value.detail) == ("corrupt", "the decoder finds no sound in it")


@pytest.mark.parametrize(
    ("number", "code"), [(1, "unsupported_format"), (3, "corrupt"), (9, "corrupt"), (17, "out_of_memory")]
)
def test_what_libsndfile_refuses_has_a_code(
    tmp_path: Path,
    spec: FrontendSpec,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: str,
) -> None:
    (tmp_path / "x.wav").write_text("of a format that only libsndfile may know")

    def refuse(*_: object) -> None:
        raise soundfile.LibsndfileError(number)

    monkeypatch.setattr(soundfile, "SoundFile", refuse)
    assert refusal(tmp_path / "x.wav", spec) == code


def test_paths_are_text_bytes_or_path_objects(real_clips: list[Path], spec: FrontendSpec) -> None:
    path = real_clips[0]
    assert_equal(read_audio(str(path), spec), read_audio(path, spec))
    assert_equal(read_audio(os.fsencode(path), spec), read_audio(path, spec))


def test_failing_storage_stops_and_says_nothing_of_the_file(
    real_clips: list[Path], spec: FrontendSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("rrtn.runtime.audio.reader.os.open", fail)
    with pytest.raises(StoppedError, match="Input/output error"):
        read_audio(real_clips[0], spec)


def test_no_descriptor_stays_open(tmp_path: Path, real_clips: list[Path], spec: FrontendSpec) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "cut.wav").write_bytes(real_clips[1].read_bytes()[:1_000])
    os.mkfifo(tmp_path / "pipe.wav")
    before = len(list(DESCRIPTORS.iterdir()))
    read_audio(real_clips[0], spec)
    codes = [refusal(path, spec) for path in (tmp_path, *sorted(tmp_path.iterdir()))]
    assert codes == ["not_regular", "truncated", "not_regular", "unsupported_format"]
    assert len(list(DESCRIPTORS.iterdir())) == before


def fork_of_sound_designer(folder: Path, sound: Samples) -> Path:
    """A Mac resource fork: beside any bytes, it makes libsndfile take them for 16-bit samples."""
    soundfile.write(folder / "x.sd2", sound, 16_000, subtype="PCM_16")
    return folder / "._x.sd2"


def forks(folder: Path, name: str) -> list[Path]:
    """Where libsndfile looks for the fork of a file of this name, or of one without a name."""
    (folder / ".AppleDouble").mkdir()
    return [folder / place for place in ("._", f"._{name}", f".AppleDouble/{name}")]


def test_n8_no_file_in_the_working_directory_or_beside_a_recording_turns_text_into_audio(
    tmp_path: Path, spec: FrontendSpec, sound: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "here/a.wav"
    text.parent.mkdir()
    text.write_text("this is no audio\n" * 1_000)
    fork = fork_of_sound_designer(tmp_path, sound)
    for place in forks(text.parent, "a.wav"):
        shutil.copy(fork, place)
    monkeypatch.chdir(text.parent)
    shutil.copy(text, "x.wav")
    shutil.copy(fork, "._x.wav")
    assert soundfile.info("x.wav").frames == 8_500, "libsndfile does read forks"
    assert [refusal(path, spec) for path in (text, "a.wav", "x.wav")] == ["unsupported_format"] * 3


def test_n8_the_same_where_descriptors_have_no_names(
    tmp_path: Path,
    real_clips: list[Path],
    spec: FrontendSpec,
    sound: Samples,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """macOS, Windows, or no /proc: libsndfile is given virtual files, and looks for `._`."""
    monkeypatch.chdir(tmp_path)
    Path("text.wav").write_text("this is no audio\n" * 1_000)
    shutil.copy(fork_of_sound_designer(tmp_path, sound), "._")
    named = [read_audio(clip, spec).samples for clip in real_clips]
    monkeypatch.setattr("rrtn.runtime.audio.snd_reader.DESCRIPTORS", None)
    assert refusal("text.wav", spec) == "corrupt"
    Path("._").unlink()
    assert refusal("text.wav", spec) == "unsupported_format"
    for clip, samples in zip(real_clips, named, strict=True):
        np.testing.assert_array_equal(read_audio(clip, spec).samples, samples)


def test_n8_what_lies_in_the_working_directory_is_never_opened(
    tmp_path: Path,
    real_clips: list[Path],
    spec: FrontendSpec,
    monkeypatch: pytest.MonkeyPatch,
    watch: "Callable[[Path], Watch]",
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.wav").write_text("this is no audio\n" * 1_000)
    places = forks(tmp_path, "text.wav")
    for place in places:
        place.write_bytes(b"a fork")
    watches = [watch(place) for place in places]
    assert refusal("text.wav", spec) == "unsupported_format"
    for clip in real_clips:
        read_audio(clip, spec)
    assert [one.opened() for one in watches] == [0] * len(places)
    Path("._").read_bytes()
    assert watches[0].opened() == 1


# Each file twice: what is imported late is there when its second reading begins.
READS = """
import os, sys
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.errors import AudioError

for path in sys.argv[1:]:
    for mark in ("/first", "/second"):
        os.access(mark, os.R_OK)
        try:
            read_audio(path, FrontendSpec())
        except AudioError:
            pass
os.access("/end", os.R_OK)
"""


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace")
def test_n8_the_only_files_that_are_opened_are_those_to_read(tmp_path: Path, real_clips: list[Path]) -> None:
    (tmp_path / "text.wav").write_text("this is no audio\n" * 1_000)
    (tmp_path / "._").write_bytes(b"a fork")
    files = [str(path) for path in (tmp_path / "text.wav", *real_clips[::4])]
    command = ["strace", "-f", "-e", "trace=%file", "-o", "trace", sys.executable, "-c", READS, *files]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=100)
    seconds = re.findall(r"\"/second\".*?(?=\"/(?:first|end)\")", (tmp_path / "trace").read_text(), re.DOTALL)
    opened = [re.findall(r"open\w*\(.*?\"(.+?)\".*\) += \d", calls) for calls in seconds]
    by_descriptor = [{name for name in names if not name.startswith("/proc/self/")} for names in opened]
    assert by_descriptor == [{file} for file in files]
