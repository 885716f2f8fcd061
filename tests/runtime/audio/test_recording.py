"""A recording that is decoded twice gives the samples of one that is held in memory."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio import recording
from rrtn.runtime.audio.reader import opened, read_audio, recording_from_descriptor
from rrtn.runtime.errors import AudioError

Write = Callable[[Path], None]
rng = np.random.default_rng(0)
LONG = 0.3 * rng.normal(size=(400_000, 2))


def stereo(path: Path) -> None:
    soundfile.write(path, LONG.clip(-1, 1), 44_100, format="WAV")


def upside_down(path: Path) -> None:
    soundfile.write(path, (LONG[:, :1] * [[1, -1]]).clip(-1, 1), 16_000, format="WAV")


def with_offset(path: Path) -> None:
    soundfile.write(path, (0.01 * LONG[:, 0] + 0.2).clip(-1, 1), 16_000, format="WAV")


def silence_around(path: Path) -> None:
    soundfile.write(path, np.pad(LONG[:200_000, 0], 70_001).clip(-1, 1), 16_000, format="WAV")


def ogg_behind_ogg(path: Path) -> None:
    parts = []
    for half in np.split(LONG.clip(-1, 1), 2):
        soundfile.write(path, half, 44_100, format="OGG")
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))


def silence(path: Path) -> None:
    soundfile.write(path, np.zeros(200_000), 16_000, format="WAV")


@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize("write", [stereo, upside_down, with_offset, silence_around, ogg_behind_ogg, silence])
def test_n4_streamed_samples_are_those_in_memory(tmp_path: Path, write: Write, trim: bool) -> None:
    write(tmp_path / "a")
    spec = FrontendSpec(trim=trim)
    whole = read_audio(tmp_path / "a", spec)
    with opened(tmp_path / "a") as descriptor:
        streamed = recording_from_descriptor(descriptor, spec, most_kept=10_000)
        assert streamed._measured.kept is None
        assert (streamed.seconds, streamed.start) == (whole.seconds, whole.start)
        assert streamed.flags == set(whole.flags)
        for _ in range(2):
            np.testing.assert_array_equal(np.concatenate([*streamed.blocks()]), whole.samples)


@pytest.mark.parametrize("most_kept", [None, 10_000])
@pytest.mark.parametrize(("length", "hop"), [(39_840, 39_840), (39_840, 16_000), (1_000, 40_000), (7, 1_111)])
def test_n4_cuts_overlap_and_leave_gaps(
    tmp_path: Path, spec: FrontendSpec, most_kept: int | None, length: int, hop: int
) -> None:
    stereo(tmp_path / "a")
    samples = read_audio(tmp_path / "a", spec).samples
    starts = range(0, len(samples) - length, hop)
    with opened(tmp_path / "a") as descriptor:
        streamed = recording_from_descriptor(descriptor, spec, most_kept=most_kept)
        clips = list(streamed.clips((start, start + length) for start in starts))
    assert [clip.start for clip in clips] == [*starts]
    assert len(clips) > 2
    for start, cut, sound in clips:
        np.testing.assert_array_equal(cut, samples[start : start + length])
        assert sound == pytest.approx(length / 16_000)


def test_n4_a_file_that_shrinks_between_its_two_readings_is_changed(
    tmp_path: Path, spec: FrontendSpec
) -> None:
    stereo(tmp_path / "a")
    with pytest.raises(AudioError) as caught, opened(tmp_path / "a") as descriptor:
        streamed = recording_from_descriptor(descriptor, spec, most_kept=10_000)
        soundfile.write(tmp_path / "a", LONG[:1_000], 44_100, format="WAV")
        list(streamed.blocks())
    assert caught.value.code == "changed"


def test_n4_one_sample_that_is_not_finite_is_seen_in_any_block(tmp_path: Path, spec: FrontendSpec) -> None:
    for place in (0, 199_999, 399_999):
        samples = LONG[:, 0].astype(np.float32)
        samples[place] = np.nan
        soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
        with pytest.raises(AudioError) as caught, opened(tmp_path / "a.wav") as descriptor:
            recording_from_descriptor(descriptor, spec, most_kept=10_000)
        assert caught.value.code == "non_finite"


def test_n4_a_short_recording_is_decoded_once(tmp_path: Path, spec: FrontendSpec) -> None:
    stereo(tmp_path / "a")
    with opened(tmp_path / "a") as descriptor:
        held = recording_from_descriptor(descriptor, spec)
    assert held.length < recording.MOST_KEPT
    assert sum(map(len, held.blocks())) == held.length  # the file is closed
    assert len([*itertools.islice(held.clips([(0, 10)]), 1)]) == 1
