"""The running level: what it is, written out, and that a file and a live sound have the same one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.arrays import Float32
from rrtn.runtime.audio.cutting import cut, endless_places
from rrtn.runtime.audio.level import LevelledClip, RunningLevel
from rrtn.runtime.audio.reader import mono_from_live, opened, recording_from_descriptor
from rrtn.runtime.errors import AudioError, ConfigError
from rrtn.runtime.scoring.decoder_messages import DecoderSettings, window_samples, windows
from rrtn.runtime.scoring.engine import settings_of_scorer

rng = np.random.default_rng(0)
TOP = 32_768 * 10 ** (-3 / 20)  # the spec's peak, in int16


def clips_of_live(
    samples: Float32, rate: int, spec: FrontendSpec, length: int, hop: int, *, block: int
) -> list[LevelledClip]:
    """What live sound is cut into that comes in blocks of so many samples."""
    blocks = (samples[i : i + block] for i in range(0, len(samples), block))
    level = RunningLevel(spec)
    mono = mono_from_live(blocks, rate, spec)
    return [level.clip(start, window) for start, window in cut(mono, endless_places(length, hop))]


def clips_of_file(path: Path, spec: FrontendSpec, window: float, hop: float | None) -> list[LevelledClip]:
    decoding = DecoderSettings(spec=spec, input="waveform", slots=1, window=window, hop=hop, level="running")
    with opened(path) as descriptor:
        recording = recording_from_descriptor(descriptor, spec, most_kept=50_000, level="running")
        return list(recording.clips(windows(recording.length, decoding)))


def test_a_window_has_the_level_of_the_loudest_sample_so_far(spec: FrontendSpec) -> None:
    level = RunningLevel(spec)
    loud, quiet, louder = (np.array([0, peak, -peak / 2], np.float32) for peak in (0.5, 0.05, 1.0))
    assert [level.clip(0, one).samples[1] for one in (loud, quiet, louder, loud)] == pytest.approx(
        [TOP, TOP / 10, TOP, TOP / 2], abs=1
    )


def test_near_silence_is_not_lifted_to_full_level(spec: FrontendSpec) -> None:
    """A sound of -60 dBFS, before anything loud: the level is that of -40 dBFS."""
    clip = RunningLevel(spec).clip(0, np.array([0, 0.001], np.float32))
    assert clip.samples[1] == pytest.approx(TOP / 10, abs=1)


def test_sound_is_what_comes_within_60_db_of_the_loudest_so_far(spec: FrontendSpec) -> None:
    level = RunningLevel(spec)
    noise = rng.normal(size=16_000).astype(np.float32)
    sound = [level.clip(0, gain * noise).sound for gain in (1e-4, 0.1, 1e-3, 1e-5, 0.0)]
    assert sound == [1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_window_that_is_not_finite_changes_no_other(spec: FrontendSpec, bad: float) -> None:
    noise = rng.normal(size=1_600).astype(np.float32)
    level, undisturbed = RunningLevel(spec), RunningLevel(spec)
    with pytest.raises(AudioError, match="non_finite"):
        level.clip(0, np.array([bad, 9], np.float32))
    expected = undisturbed.clip(0, noise)
    np.testing.assert_array_equal(level.clip(0, noise).samples, expected.samples)


@pytest.mark.parametrize("total", [0, 1, 6, 7, 8, 9, 10, 11, 13, 14, 15, 24, 29, 30])
@pytest.mark.parametrize(("length", "hop"), [(7, 7), (7, 3), (7, 10), (1, 1), (30, 1)])
@pytest.mark.parametrize("block", [1, 4, 100])
def test_windows_without_an_end_are_those_of_a_file(total: int, length: int, hop: int, block: int) -> None:
    spec = FrontendSpec()
    decoding = DecoderSettings(
        spec=spec, input="waveform", slots=1, window=length / spec.sampling_rate, hop=hop / spec.sampling_rate
    )
    assert window_samples(length / 16_000, hop / 16_000, spec) == (length, hop)
    expected = [*windows(total, decoding)] if total else []
    samples = np.arange(total)
    blocks: Iterator[NDArray[np.int_]] = (samples[i : i + block] for i in range(0, total, block))
    found = [(start, start + len(piece)) for start, piece in cut(blocks, endless_places(length, hop))]
    assert found == expected
    blocks = (samples[i : i + block] for i in range(0, total, block))
    for start, piece in cut(blocks, endless_places(length, hop)):
        assert [*piece] == [*range(start, start + len(piece))]


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("milliseconds", [1, 10, 250])
def test_live_sound_is_what_a_file_of_it_is(
    tmp_path: Path, spec: FrontendSpec, rate: int, milliseconds: int
) -> None:
    """Every sample that the model hears, whatever the blocks are in which the sound comes."""
    seconds = 4
    samples = (rng.normal(size=(seconds * rate, 2)) * np.geomspace(1e-3, 0.2, seconds * rate)[:, None]).clip(
        -1, 1
    )
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    live = clips_of_live(
        samples.astype(np.float32), rate, spec, 16_000, 8_000, block=rate * milliseconds // 1000
    )
    file = clips_of_file(tmp_path / "a.wav", spec, 1.0, 0.5)
    assert len(live) == len(file) == 7
    for one, other in zip(live, file, strict=True):
        assert (one.start, one.sound) == (other.start, other.sound)
        np.testing.assert_array_equal(one.samples, other.samples)


def test_rules_that_look_at_the_whole_of_a_file_do_not_apply(tmp_path: Path, spec: FrontendSpec) -> None:
    """Nobody knows yet that channels cancel each other, that there is an offset, where sound ends."""
    noise = 0.1 * rng.normal(size=(48_000, 1))
    soundfile.write(tmp_path / "a.wav", np.pad(noise * [1, -1] + 0.5, ((16_000, 0), (0, 0))), 16_000)
    clips = clips_of_file(tmp_path / "a.wav", FrontendSpec(trim=True), 1.0, None)
    assert [clip.start for clip in clips] == [0, 16_000, 32_000, 48_000]
    assert not clips[0].samples.any()
    assert clips[1].samples == pytest.approx(TOP, abs=2)


def test_a_table_keeps_the_level_only_where_it_is_running(
    tiny_model: Path, tmp_path: Path, sound: NDArray[np.float64]
) -> None:
    soundfile.write(tmp_path / "a.wav", np.concatenate([sound, 0.1 * sound]), 16_000)
    with Scorer(tiny_model, "cpu", window=1.5, workers=1) as file:
        expected = list(file.score_files([tmp_path / "a.wav"]))
        assert "level" not in settings_of_scorer(file)
    with Scorer(tiny_model, "cpu", window=1.5, workers=1, level="running") as running:
        found = list(running.score_files([tmp_path / "a.wav"]))
        assert settings_of_scorer(running)["level"] == "running"
    assert [row.scores == other.scores for row, other in zip(found, expected, strict=True)] == [True] * 3
    soundfile.write(tmp_path / "a.wav", np.concatenate([0.1 * sound, sound]), 16_000)
    with Scorer(tiny_model, "cpu", window=1.5, workers=1, level="running") as running:
        alone = running.score_waveform(0.1 * sound, 16_000)
        first = next(running.score_files([tmp_path / "a.wav"]))
    assert first.scores == pytest.approx(alone, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "subject"),
    [({"level": "loud", "window": 1.0}, "--level"), ({"level": "running"}, "--level running")],
)
def test_a_level_that_cannot_be_is_refused(
    tiny_model: Path, settings: dict[str, object], subject: str
) -> None:
    make: Callable[..., Scorer] = Scorer
    with pytest.raises(ConfigError) as caught:
        make(tiny_model, "cpu", **settings)
    assert caught.value.subject == subject
