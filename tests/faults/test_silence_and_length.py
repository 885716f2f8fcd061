"""Points 3 and 4 of "trust the number": silence in a recording, and recordings longer than a clip."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.tables.rows import Row

Samples = NDArray[np.float64]
Rrtn = Callable[..., Any]
CLIP = 2.49  # s


@pytest.fixture
def voice() -> Samples:
    """5.2 s of noise whose loudness and colour change."""
    rng = np.random.default_rng(5)
    noise = rng.normal(size=round(5.2 * 16_000))
    return 0.3 * np.convolve(noise, [1, 0.8], "same") * (1.2 + np.sin(np.arange(noise.size) / 9_000)) / 4


def wav(path: Path, *parts: Samples | float) -> Path:
    """Parts of sound, and of so many seconds of silence."""
    samples = [np.zeros(round(part * 16_000)) if isinstance(part, float) else part for part in parts]
    soundfile.write(path, np.concatenate(samples), 16_000, subtype="FLOAT")
    return path


def rows_of(model: Path, path: Path, **options: Any) -> list[Row]:
    with_options = Scorer(model, "cpu", workers=1, **options)
    rows = list(with_options.score_files([path]))
    with_options.close()
    return rows


def values(row: Row) -> list[float]:
    assert row.scores is not None
    return list(row.scores.values())


# 3: silence


@pytest.mark.parametrize("lead", [2.49, 3.0, 30.0])
def test_n3_a_clip_without_the_voice_is_flagged(
    tmp_path: Path, tiny_model: Path, voice: Samples, lead: float
) -> None:
    (row,) = rows_of(tiny_model, wav(tmp_path / "a.wav", lead, voice))
    assert (row.error, row.flags) == ("", ("silent", "only_start"))
    assert row.scores is not None


def test_n3_dither_and_hiss_are_silence_too(tmp_path: Path, tiny_model: Path, voice: Samples) -> None:
    hiss = np.random.default_rng(0).normal(0, np.abs(voice).max() * 1e-4, 48_000)
    (row,) = rows_of(tiny_model, wav(tmp_path / "a.wav", hiss, voice))
    assert "silent" in row.flags
    (row,) = rows_of(tiny_model, wav(tmp_path / "b.wav", hiss * 100, voice))
    assert "silent" not in row.flags


def test_n3_silent_windows_do_not_count_in_the_mean(tmp_path: Path, tiny_model: Path, voice: Samples) -> None:
    *plain, alone = rows_of(tiny_model, wav(tmp_path / "a.wav", voice[: 2 * 16_000]), window=1.0)
    *windows, file = rows_of(tiny_model, wav(tmp_path / "b.wav", 4.0, voice[: 2 * 16_000], 3.0), window=1.0)
    assert [row.flags for row in windows] == [("silent",)] * 4 + [()] * 2 + [("silent",)] * 3
    assert [row.scores for row in windows[4:6]] == [row.scores for row in plain]
    assert (file.scores, file.flags, file.start) == (alone.scores, (), None)


def test_n3_a_window_weighs_by_the_sound_that_it_holds(
    tmp_path: Path, tiny_model: Path, voice: Samples
) -> None:
    """Ten milliseconds at the end count as ten milliseconds; so does a voice that begins late."""
    path = wav(tmp_path / "a.wav", 0.75, voice[: round(1.26 * 16_000)])
    *windows, file = rows_of(tiny_model, path, window=1.0)
    assert [(row.start, row.end) for row in windows] == [(0, 1), (1, 2), (2, 2.01)]
    expected = np.average([values(row) for row in windows], axis=0, weights=[0.25, 1.0, 0.01])
    np.testing.assert_allclose(values(file), expected, atol=1e-7, rtol=0)


def test_n3_where_all_is_silent_every_window_counts(tmp_path: Path, tiny_model: Path) -> None:
    rows = rows_of(tiny_model, wav(tmp_path / "a.wav", 3.5), window=1.0)
    assert [row.flags for row in rows] == [("silent",)] * 5
    assert rows[-1].scores == rows[0].scores


@pytest.mark.parametrize("window", [None, 1.0, "auto"])
def test_n3_a_model_that_trims_hears_the_voice_alone(
    tmp_path: Path, tiny_model_of: Callable[..., Path], voice: Samples, window: Any
) -> None:
    """The spec in the model's file says so. Times are those of the file."""
    trims = tiny_model_of(tmp_path / "trims.onnx", FrontendSpec(trim=True))
    keeps = tiny_model_of(tmp_path / "keeps.onnx", FrontendSpec())
    alone = rows_of(keeps, wav(tmp_path / "a.wav", voice), window=window)
    padded = rows_of(trims, wav(tmp_path / "b.wav", 3.0, voice, 1.7), window=window)
    assert [row.scores for row in padded] == [row.scores for row in alone]
    assert [row.flags for row in padded] == [row.flags for row in alone]
    for late, early in zip(padded, alone, strict=True):
        assert late.start == (None if early.start is None else pytest.approx(3.0 + early.start, abs=1e-9))
    assert padded[0].seconds == pytest.approx(9.9)


def test_n3_trimming_leaves_silence_within_and_silence_alone(tmp_path: Path, voice: Samples) -> None:
    spec = FrontendSpec(trim=True)
    audio = read_audio(wav(tmp_path / "a.wav", 1.0, voice[:16_000], 2.0, voice[:16_000], 1.0), spec)
    assert (len(audio.samples) / 16_000, audio.start) == (4.0, 1.0)
    silent = read_audio(wav(tmp_path / "b.wav", 2.0), spec)
    assert (len(silent.samples), silent.flags) == (32_000, ("silent",))


# 4: long recordings


def test_n4_what_was_not_scored_is_said(tmp_path: Path, tiny_model: Path, voice: Samples) -> None:
    for name, parts in {"long": (voice,), "short": (voice[:9_000],), "tail": (voice[:9_000], 5.0)}.items():
        wav(tmp_path / f"{name}.wav", *parts)
    flags = {
        name: rows_of(tiny_model, tmp_path / f"{name}.wav")[0].flags for name in ("long", "short", "tail")
    }
    assert flags == {"long": ("only_start",), "short": (), "tail": ()}  # no sound is left out of tail.wav


def test_n4_auto_has_windows_where_a_file_is_longer_than_a_clip(
    tmp_path: Path, tiny_model: Path, voice: Samples
) -> None:
    short = wav(tmp_path / "short.wav", voice[:30_000])
    exact = wav(tmp_path / "exact.wav", voice[:39_840])
    long = wav(tmp_path / "long.wav", voice)
    for path in (short, exact):
        assert rows_of(tiny_model, path, window="auto") == rows_of(tiny_model, path)
    rows = rows_of(tiny_model, long, window="auto")
    assert rows == rows_of(tiny_model, long, window=CLIP)
    assert [(row.start, row.end) for row in rows] == [(0, 2.49), (2.49, 4.98), (4.98, 5.2), (None, None)]
    assert all(row.flags == () for row in rows)
    assert rows[0].scores == rows_of(tiny_model, long)[0].scores


def test_n4_windows_have_no_longest_file(tmp_path: Path, tiny_model: Path, voice: Samples) -> None:
    path = wav(tmp_path / "a.wav", voice)
    assert rows_of(tiny_model, path, max_seconds=5.0)[0].error == "too_long"
    for window in (CLIP, "auto"):
        assert rows_of(tiny_model, path, max_seconds=5.0, window=window)[-1].error == ""


@pytest.mark.slow
def test_n4_an_hour_in_windows_takes_the_memory_of_minutes(tmp_path: Path, tiny_model: Path) -> None:
    """An hour at 16 kHz would be 230 MB of float32. Peaks are those of the decoder, by the kernel."""
    minute = np.random.default_rng(0).normal(0, 300, 60 * 16_000).astype(np.int16)
    peaks = []
    for minutes in (5, 60):
        with soundfile.SoundFile(tmp_path / "a.flac", "w", 16_000, 1, "PCM_16", format="FLAC") as file:
            for _ in range(minutes):
                file.write(minute)
        scorer = Scorer(tiny_model, "cpu", workers=1, window="auto")
        rows = list(scorer.score_files([tmp_path / "a.flac"]))
        assert rows[-1].seconds == 60 * minutes
        (decoder,) = scorer._idle[0]._decoders
        status = Path(f"/proc/{decoder._process.pid}/status").read_text()
        peaks.append(int(status.split("VmHWM:")[1].split()[0]) / 1024)
        scorer.close()
    assert peaks[1] - peaks[0] < 80  # MiB; what is kept of a recording at most, and powers


def test_n4_the_summary_counts_and_advises(
    start: Rrtn, tmp_path: Path, tiny_model: Path, voice: Samples
) -> None:
    wav(tmp_path / "a.wav", voice)
    wav(tmp_path / "b.wav", voice[:16_000])
    ended = start(
        "score", "a.wav", "b.wav", "-m", tiny_model, "--out", "t.csv", "--json", cwd=tmp_path
    ).wait()
    assert ended.code == 0, ended.err
    assert ended.summary["flags"] == {"only_start": 1}
    assert "flags: only_start 1" in ended.err
    assert "--window auto" in ended.err
    with (tmp_path / "t.csv").open() as file:
        assert [row["flags"] for row in csv.DictReader(file)] == ["only_start", ""]
    ended = start(
        "score", "a.wav", "b.wav", "-m", tiny_model, "--window", "auto", "--json", cwd=tmp_path
    ).wait()
    assert ended.summary["flags"] == {}
    assert [row["end"] for row in ended.summary["rows"]] == [2.49, 4.98, 5.2, None, 1.0]
    assert "--window auto" not in ended.err


@pytest.mark.parametrize("window", ["automatic", "2,49", "", "nan", "-1", "3"])
def test_n4_another_window_is_refused(start: Rrtn, tmp_path: Path, tiny_model: Path, window: str) -> None:
    wav(tmp_path / "a.wav", 1.0)
    ended = start("score", "a.wav", "-m", tiny_model, "--window", window, "--json", cwd=tmp_path).wait()
    assert ended.code == 2
    assert json.loads(ended.out)["error"]["subject"] == "--window"
