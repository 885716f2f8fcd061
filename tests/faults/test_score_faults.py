"""Rows S of the fault catalogue: what goes wrong while scoring, and what must hold."""

import csv
import json
import os
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.audio import reader, snd_reader
from rrtn.runtime.audio.file_names import path_from_cell
from rrtn.runtime.errors import AudioError
from rrtn.runtime.tables.rows import Row
from rrtn_processes import Server

RRTN = Path(sys.executable).with_name("rrtn")
SCORED = ""  # the code of a file without fault
Samples = NDArray[np.float64]


Rrtn = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def rrtn(runtime_server: Server) -> Rrtn:
    return runtime_server.run


def records_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def row_of(scorer: Scorer, path: Path) -> Row:
    (row,) = scorer.score_files([path])
    return row


def scores_of(scorer: Scorer, path: Path) -> NDArray[np.float64]:
    row = row_of(scorer, path)
    assert row.scores is not None, row
    return np.array(list(row.scores.values()))


def wav(
    path: Path, samples: Any, rate: int = 16_000, subtype: str = "PCM_16", format: str | None = None
) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype, format=format)
    return path


def cut(path: Path, length: int) -> Path:
    path.write_bytes(path.read_bytes()[:length])
    return path


def patched(path: Path, offset: int, content: bytes) -> Path:
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(content)] = content
    path.write_bytes(whole)
    return path


def with_total_samples(flac: Path, total: int) -> Path:
    """The count in STREAMINFO: the lowest 36 of the 64 bits behind the frame sizes."""
    field = int.from_bytes(flac.read_bytes()[18:26]) >> 36 << 36 | total
    return patched(flac, 18, field.to_bytes(8))


# S6


def corrupt_files(folder: Path, sound: Samples) -> dict[str, str]:
    """Twelve kinds of bad files and more in `folder`; -> {name: code}."""
    soundless = np.zeros(0)
    (folder / "00-empty.wav").touch()
    (folder / "01-text.wav").write_text("this is no audio\n" * 100)
    cut(wav(folder / "02-cut.wav", sound), 20_000)
    wav(folder / "03-header-only.wav", soundless)
    wav(folder / "04-nan.wav", np.where(np.arange(sound.size) == 9_999, np.nan, sound), subtype="FLOAT")
    wav(
        folder / "05-infinite.wav", np.where(np.arange(sound.size) == 9_999, -np.inf, sound), subtype="DOUBLE"
    )
    flac = wav(folder / "06-cut.flac", sound)
    size = flac.stat().st_size
    cut(flac, size // 2)
    with_total_samples(wav(folder / "07-billions.flac", sound), 2**36 - 1)
    flipped = wav(folder / "08-flipped.flac", sound)
    patched(flipped, size // 2, bytes([flipped.read_bytes()[size // 2] ^ 1]))
    patched(wav(folder / "09-channels.wav", sound), 22, b"\xff\xff")
    patched(wav(folder / "10-rate-0.wav", sound), 24, bytes(4))
    patched(wav(folder / "11-rate-max.wav", sound), 24, b"\xff" * 4)
    wav(folder / "12-nine-channels.wav", np.zeros((100, 9)))
    (folder / "13-dangling.wav").symlink_to("nowhere")
    os.mkfifo(folder / "14-pipe.wav")
    (folder / "15-aac.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(200))
    wav(folder / "16-cut.w64", sound, format="W64")
    cut(folder / "16-cut.w64", 20_000)
    codes = (
        *(
            "empty",
            "unsupported_format",
            "truncated",
            "empty",
            "non_finite",
            "non_finite",
            "corrupt",
            "too_long",
            "corrupt",
        ),
        *(
            "corrupt",
            "corrupt",
            "corrupt",
            "unsupported_layout",
            "missing",
            "not_regular",
            "corrupt",
            "truncated",
        ),
    )
    return dict(zip(sorted(path.name for path in folder.iterdir()), codes, strict=True))


def test_s6_corrupt_files_are_one_row_each_and_leave_their_neighbours_alone(
    rrtn: Rrtn, tmp_path: Path, tiny_model: Path, real_clips: list[Path], sound: Samples
) -> None:
    """One error row each with stable code; neighbours' scores bit-equal to a run without the bad file."""
    (tmp_path / "in").mkdir()
    expected = corrupt_files(tmp_path / "in", sound)
    for number, clip in enumerate(real_clips):
        shutil.copy(clip, tmp_path / "in" / f"{number:02}-good{clip.suffix}")
        expected[f"{number:02}-good{clip.suffix}"] = SCORED

    alone = rrtn("score", *real_clips, "-m", tiny_model, "--json", cwd=tmp_path)
    among = rrtn("score", "in", "-m", tiny_model, "--json", cwd=tmp_path)
    assert (alone.returncode, among.returncode) == (0, 3)
    summary = json.loads(among.stdout)
    assert {Path(row["file"]).name: row["error"] or SCORED for row in summary["rows"]} == expected
    assert [Path(row["file"]).name for row in summary["rows"]] == sorted(expected)
    good = [row["scores"] for row in summary["rows"] if row["scores"]]
    assert good == [
        row["scores"] for row in json.loads(alone.stdout)["rows"]
    ]  # JSON keeps every bit of a float
    assert (summary["files"], summary["scored"], sum(summary["errors"].values())) == (29, 12, 17)


def test_s6_the_table_has_the_same_rows(rrtn: Rrtn, tmp_path: Path, tiny_model: Path, sound: Samples) -> None:
    """One error row each with stable code; the exit code says that some files are errors."""
    (tmp_path / "in").mkdir()
    expected = corrupt_files(tmp_path / "in", sound)
    wav(tmp_path / "in" / "05a-good.wav", sound)
    wav(tmp_path / "in" / "05b-silent.wav", np.zeros(1_000))
    expected |= {"05a-good.wav": SCORED, "05b-silent.wav": SCORED}

    run = rrtn("score", "in", "-m", tiny_model, "--out", "table.csv", "--json", cwd=tmp_path)
    assert run.returncode == 3
    records = records_of(tmp_path / "table.csv")
    assert [Path(record["file"]).name for record in records] == sorted(expected)
    assert {Path(record["file"]).name: record["error"] for record in records} == expected
    assert all(bool(record["Joy"]) == bool(record["end"]) == (record["error"] == "") for record in records)
    assert [Path(record["file"]).name for record in records if record["flags"]] == ["05b-silent.wav"]
    counted = Counter(expected.values()) - Counter({SCORED: 2})
    assert json.loads(run.stdout)["errors"] == dict(counted)
    assert counted.total() == 17


# S7


@pytest.mark.parametrize("format", ["WAV", "WAVEX", "AIFF", "AU", "W64", "RF64"])
def test_s7_cut_audio_is_an_error_or_scores_what_is_there(
    tmp_path: Path, tiny_model: Path, scorer: Scorer, sound: Samples, format: str
) -> None:
    """Row flagged `truncated` (default: error; `--allow-truncated` scores it)."""
    samples = np.round(sound * 32_768).astype(np.int16)
    whole = wav(tmp_path / "whole", samples, format=format)
    present = wav(tmp_path / "present", samples[:-5_000], format=format)
    assert row_of(scorer, whole).error == SCORED
    cut(whole, whole.stat().st_size - 10_000)

    row = row_of(scorer, whole)
    assert (row.error, row.scores, row.start, row.end) == ("truncated", None, None, None)
    allowed = row_of(Scorer(tiny_model, "cpu", allow_truncated=True), whole)
    assert (allowed.error, allowed.flags) == (SCORED, ("truncated",))
    assert allowed.scores == row_of(scorer, present).scores
    assert allowed.seconds == row_of(scorer, present).seconds == 19_000 / 16_000


@pytest.mark.parametrize(("milliseconds", "error"), [(1, ""), (19, ""), (21, "truncated")])
def test_s7_a_lost_trifle_is_no_truncation(
    tmp_path: Path, scorer: Scorer, sound: Samples, milliseconds: int, error: str
) -> None:
    """Some recorders count bytes of the header as sound: 20 ms may be missing."""
    path = wav(tmp_path / "a.wav", sound)
    cut(path, path.stat().st_size - 2 * 16 * milliseconds)
    assert row_of(scorer, path).error == error


def test_s7_cut_down_to_the_header_nothing_is_left_to_score(
    tmp_path: Path, tiny_model: Path, sound: Samples
) -> None:
    """With `--allow-truncated` too."""
    path = cut(wav(tmp_path / "a.wav", sound), 44)
    assert row_of(Scorer(tiny_model, "cpu"), path).error == "truncated"
    assert row_of(Scorer(tiny_model, "cpu", allow_truncated=True), path).error == "empty"


@pytest.mark.parametrize(
    ("flags", "exit_code", "errors"), [((), 3, {"truncated": 1}), (("--allow-truncated",), 0, {})]
)
def test_s7_a_truncation_that_is_allowed_is_a_flag_and_no_error(
    rrtn: Rrtn,
    tmp_path: Path,
    tiny_model: Path,
    sound: Samples,
    flags: tuple[str, ...],
    exit_code: int,
    errors: dict[str, int],
) -> None:
    """Default: error; with `--allow-truncated` the exit code is 0, as it is beside silence."""
    cut(wav(tmp_path / "cut.wav", sound), 20_000)
    wav(tmp_path / "silent.wav", np.zeros(1_000))
    run = rrtn("score", "cut.wav", "silent.wav", "-m", tiny_model, "--json", *flags, cwd=tmp_path)
    summary = json.loads(run.stdout)
    assert (run.returncode, summary["errors"], summary["scored"]) == (exit_code, errors, 1 if errors else 2)
    assert [row["error"] or SCORED for row in summary["rows"]] == [*(errors or [""]), ""]
    assert [row["flags"] for row in summary["rows"]] == ["" if errors else "truncated", "silent"]
    assert summary["flags"] == {"silent": 1} | ({} if errors else {"truncated": 1})


# S8


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 12_345, 23_999])
@pytest.mark.parametrize("rate", [4_000, 16_000, 44_100, 384_000])
def test_s8_one_sample_that_is_not_finite_is_an_error(
    tmp_path: Path, scorer: Scorer, sound: Samples, value: float, place: int, rate: int
) -> None:
    """NaN/Inf = error row."""
    sound[place] = value
    row = row_of(
        scorer, wav(tmp_path / "a.wav", np.stack([sound, np.ones_like(sound)], axis=1), rate, "FLOAT")
    )
    assert (row.error, row.scores) == ("non_finite", None)


@pytest.mark.parametrize("level", [0.0, 1e-310, 1e-40, 1e-8])
def test_s8_silence_and_denormals_are_scored_and_flagged(
    tmp_path: Path, scorer: Scorer, level: float
) -> None:
    """Zero = scored + flag; what is below the last bit of 24-bit audio is zero too."""
    path = wav(tmp_path / "a.wav", np.full(20_000, level), subtype="DOUBLE")
    zeros = wav(tmp_path / "zeros.wav", np.zeros(20_000))
    assert row_of(scorer, path).flags == ("silent",)
    np.testing.assert_array_equal(scores_of(scorer, path), scores_of(scorer, zeros))


def odd_signals(sound: Samples) -> dict[str, Samples]:
    rng = np.random.default_rng(0)
    return {
        "dc": np.full(20_000, 0.25),
        "dc of full scale": np.full(20_000, -1.0),
        "clipped": np.clip(100 * sound, -1, 1),
        "beyond full scale": 1e6 * sound,
        "square at the limit of float32": 3e38 * rng.choice([-1.0, 1.0], 20_000),
        "one click": np.eye(1, 20_000, 10_000)[0],
        "just above silence": 1.1e-7 * np.sin(np.arange(20_000)),
    }


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_s8_odd_signals_never_give_nan_without_an_error_code(
    tmp_path: Path, scorer: Scorer, sound: Samples, rate: int
) -> None:
    """Output never NaN without error code."""
    for name, samples in odd_signals(sound).items():
        row = row_of(scorer, wav(tmp_path / f"{name}.wav", samples, rate, "FLOAT"))
        if name == "square at the limit of float32" and rate != 16_000:
            assert (row.error, row.scores) == ("non_finite", None)  # resampling overshoots
        else:
            assert row.error == SCORED
            assert np.isfinite(list((row.scores or {}).values())).all()


def test_s8_gain_does_not_change_a_score(tmp_path: Path, scorer: Scorer, sound: Samples) -> None:
    """Every file is levelled: full scale and a thousand times beyond it score alike, bit by bit."""
    expected = scores_of(scorer, wav(tmp_path / "a.wav", sound, subtype="FLOAT"))
    for exponent in (-10, 10):
        loud = wav(tmp_path / "b.wav", sound * 2.0**exponent, subtype="FLOAT")
        np.testing.assert_array_equal(scores_of(scorer, loud), expected)


# S9

# A process's ru_maxrss starts at what its parent had; VmHWM is of the process alone. The decoder is
# one of its own.
PROBE = """
import json, re, sys
from pathlib import Path
from rrtn.runtime import Scorer

def peak():
    pids = ["self", *(decoder._process.pid for decoder in scorer._idle[0]._decoders)]
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(re.search(r"VmHWM:\\s+(\\d+) kB", text)[1]) for text in texts) / 1024

model, warm_up, *paths = sys.argv[1:]
scorer = Scorer(model, "cpu", workers=1, batch_size=16)
list(scorer.score_files([warm_up]))
before = peak()
rows = [[row.error or ";".join(row.flags), row.seconds] for row in scorer.score_files(paths)]
print(json.dumps({"rows": rows, "MiB": peak() - before}))
"""


def probe(model: Path, warm_up: Path, *paths: Path) -> tuple[list[list[Any]], float]:
    """Scores in a process of its own; -> [error, seconds] of each row, and by how many MiB its
    memory rose.
    """
    command = [sys.executable, "-c", PROBE, *map(str, (model, warm_up, *paths))]
    run = subprocess.run(command, capture_output=True, text=True, timeout=500, check=True)
    result = json.loads(run.stdout)
    return result["rows"], result["MiB"]


def constant_flac(path: Path, *, seconds: int, rate: int, channels: int = 1, value: int = 0) -> Path:
    second = np.full((rate, channels), value, dtype=np.int16)
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16", format="FLAC") as file:
        for _ in range(seconds):
            file.write(second)
    return path


def test_s9_a_bomb_of_ten_minutes_is_decoded_in_blocks(
    tmp_path: Path, tiny_model: Path, real_clips: list[Path]
) -> None:
    """RSS <= budget: 230 MB of samples at 48 kHz, of which the mono 16 kHz signal (37 MiB) is held
    a few times.
    """
    bomb = constant_flac(tmp_path / "bomb.flac", seconds=600, rate=48_000, channels=2)
    assert bomb.stat().st_size < 250_000
    rows, rise = probe(tiny_model, real_clips[0], bomb)
    assert rows == [["silent", 600.0]]
    assert rise < 170


def test_s9_files_that_wait_for_the_model_hold_no_samples(
    tmp_path: Path, tiny_model: Path, real_clips: list[Path]
) -> None:
    """RSS <= budget: it takes no more for sixteen files of a batch, 6 MiB each, than for one."""
    long = constant_flac(
        tmp_path / "long.flac", seconds=200, rate=16_000, value=1_000
    )  # zeros cost no memory
    rows, rise = probe(tiny_model, real_clips[0], *[long] * 17)
    assert rows == [["silent;dc", 200.0]] * 17
    assert rise < 60


def test_s9_headers_that_claim_hours_cost_nothing(
    tmp_path: Path, tiny_model: Path, real_clips: list[Path], sound: Samples
) -> None:
    """Duration cap error: 2^36 - 1 samples, 24 hours by the header, and 24 hours that are there (as
    holes).
    """
    billions = with_total_samples(wav(tmp_path / "billions.flac", sound), 2**36 - 1)
    day = with_total_samples(wav(tmp_path / "day.flac", sound), 24 * 3_600 * 16_000)
    sparse = wav(tmp_path / "sparse.wav", sound[:1_000], 8_000, "ULAW")
    start = sparse.read_bytes().index(b"data") + 4
    patched(sparse, start, (24 * 3_600 * 8_000).to_bytes(4, "little"))
    os.truncate(sparse, start + 4 + 24 * 3_600 * 8_000)
    rows, rise = probe(tiny_model, real_clips[0], billions, day, sparse)
    assert rows == [["too_long", 0.0]] * 3
    assert rise < 20


def test_s9_flac_of_unknown_length_scores_as_the_intact_file(
    tmp_path: Path, scorer: Scorer, sound: Samples
) -> None:
    """Streamed: a FLAC without a count of its samples is legal, and read to its last one."""
    noise = np.tile(sound, 5)[:100_003]  # more than a block, and no multiple of one
    intact = wav(tmp_path / "intact.flac", noise, 22_050)
    unknown = with_total_samples(wav(tmp_path / "unknown.flac", noise, 22_050), 0)
    assert intact.read_bytes() != unknown.read_bytes()
    assert row_of(scorer, unknown).seconds == row_of(scorer, intact).seconds
    np.testing.assert_array_equal(scores_of(scorer, unknown), scores_of(scorer, intact))


def test_s9_the_cap_holds_where_the_header_gives_no_length(tmp_path: Path, spec: FrontendSpec) -> None:
    """Duration cap error: decoding stops in the block that passes the cap."""
    decoded: list[int] = []
    path = with_total_samples(constant_flac(tmp_path / "a.flac", seconds=60, rate=16_000), 0)
    with pytest.raises(AudioError, match="too_long"):
        reader.read_audio(path, spec, max_seconds=5, meter=lambda block: decoded.append(len(block)))
    assert 5 * 16_000 < sum(decoded) <= 5 * 16_000 + snd_reader.BLOCK_FRAMES


# S10


def test_s10_nothing_to_score_is_an_error(tmp_path: Path, scorer: Scorer) -> None:
    """0-length and header-only: error."""
    (tmp_path / "zero.wav").touch()
    paths = [
        tmp_path / "zero.wav",
        *(wav(tmp_path / name, np.zeros(0)) for name in ("a.wav", "b.flac", "c.aiff")),
    ]
    assert [row.error for row in scorer.score_files(paths)] == ["empty"] * 4


@pytest.mark.parametrize("frames", [1, 159, 160, 511, 39_839, 39_840])
def test_s10_short_files_are_continued_with_zeros(tmp_path: Path, scorer: Scorer, frames: int) -> None:
    """Shorter than the clip: pad; the same as a file that ends in those zeros."""
    noise = np.random.default_rng(frames).normal(0, 0.1, frames)
    short = wav(tmp_path / "short.wav", noise, subtype="FLOAT")
    padded = wav(tmp_path / "padded.wav", np.pad(noise, (0, 39_840 - frames)), subtype="FLOAT")
    np.testing.assert_array_equal(scores_of(scorer, short), scores_of(scorer, padded))
    assert row_of(scorer, short).end == frames / 16_000


def test_s10_only_the_first_clip_of_a_long_file_counts(
    tmp_path: Path, scorer: Scorer, sound: Samples
) -> None:
    """Longer than the clip: the rest only takes part in the level."""
    start = np.pad(sound, (0, 39_840 - sound.size))
    long = wav(tmp_path / "long.wav", np.concatenate([start, 0.9 * sound]), subtype="FLOAT")
    np.testing.assert_array_equal(
        scores_of(scorer, long), scores_of(scorer, wav(tmp_path / "start.wav", start, subtype="FLOAT"))
    )


# S11


def data_of(path: Path) -> bytes:
    content = path.read_bytes()
    start = content.index(b"data") + 8
    return content[start : start + int.from_bytes(content[start - 4 : start], "little")]


def mu_law(data: bytes) -> Samples:
    """G.711, written out."""
    byte = ~np.frombuffer(data, np.uint8)
    magnitude = ((((byte & 0x0F).astype(int) << 3) + 0x84) << ((byte & 0x70) >> 4)) - 0x84
    return np.where(byte & 0x80, -magnitude, magnitude) / 32_768


def from_24_bits(data: bytes) -> Samples:
    low, middle, high = np.frombuffer(data, np.uint8).reshape(-1, 3).T.astype(int)
    return ((low | middle << 8 | high << 16) ^ 1 << 23) / 2**23 - 1


DECODED_BY_HAND: dict[str, Callable[[bytes], Samples]] = {
    "PCM_U8": lambda data: np.frombuffer(data, np.uint8) / 128 - 1,
    "PCM_16": lambda data: np.frombuffer(data, "<i2") / 2**15,
    "PCM_24": from_24_bits,
    "PCM_32": lambda data: np.frombuffer(data, "<i4") / 2**31,
    "FLOAT": lambda data: np.frombuffer(data, "<f4").astype(float),
    "DOUBLE": lambda data: np.frombuffer(data, "<f8"),
    "ULAW": mu_law,
}


def reference(path: Path, mono: Samples, rate: int) -> Path:
    """What a file must score as: resampled at once and in float64, levelled and rounded by hand."""
    resampled = mono if rate == 16_000 else soxr.resample(mono, rate, 16_000, quality="HQ")
    return wav(path, levelled_by_hand(resampled))


def levelled_by_hand(mono: Samples) -> NDArray[np.int16]:
    return np.round(mono * (32_768 * 10 ** (-3 / 20) / np.abs(mono).max())).astype(np.int16)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("subtype", DECODED_BY_HAND)
def test_s11_every_encoding_equals_its_reference(
    tmp_path: Path, scorer: Scorer, sound: Samples, subtype: str, channels: int
) -> None:
    """Resample/mixdown per spec; equals reference within 1e-4."""
    frames = np.stack([sound, np.roll(sound, 40)], axis=1)[:, :channels]
    path = wav(tmp_path / "a.wav", frames, subtype=subtype)
    mono = DECODED_BY_HAND[subtype](data_of(path)).reshape(-1, channels).mean(axis=1)
    np.testing.assert_allclose(
        mono, frames.mean(axis=1), atol=0.02
    )  # the decoders by hand are right themselves
    expected = scores_of(scorer, reference(tmp_path / "reference.wav", mono, 16_000))
    np.testing.assert_allclose(scores_of(scorer, path), expected, atol=1e-4, rtol=0)


RATES = [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]


@pytest.mark.parametrize("rate", RATES)
def test_s11_every_rate_equals_its_reference(tmp_path: Path, scorer: Scorer, rate: int) -> None:
    """Resample/mixdown per spec; equals reference within 1e-4."""
    noise = np.random.default_rng(rate).normal(0, 0.1, (3 * rate, 2)).astype(np.float32).astype(float)
    path = wav(tmp_path / "a.wav", noise, rate, "FLOAT")
    expected = scores_of(scorer, reference(tmp_path / "reference.wav", noise.mean(axis=1), rate))
    np.testing.assert_allclose(scores_of(scorer, path), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rate", RATES)
def test_s11_every_rate_agrees_with_fouriers_resampling(
    tmp_path: Path, spec: FrontendSpec, rate: int
) -> None:
    """Resample per spec; another library's exact method, below 0.8 of the band: within 1e-3 of full
    scale a sample.
    """
    noise = np.random.default_rng(rate).normal(0, 0.1, 2 * rate) * np.hanning(2 * rate)
    spectrum = np.fft.rfft(noise)
    spectrum[round(0.8 * min(rate, 16_000)) :] = 0
    banded = np.fft.irfft(spectrum, 2 * rate)
    samples = reader.read_audio(wav(tmp_path / "a.wav", banded, rate, "FLOAT"), spec).samples
    expected = levelled_by_hand(scipy.signal.resample(banded, 2 * 16_000))
    assert samples.shape == expected.shape
    assert np.abs(samples.astype(int) - expected).max() < 33


def test_s11_the_references_differ_by_more_than_the_tolerance(
    tmp_path: Path, scorer: Scorer, sound: Samples
) -> None:
    """Or else 1e-4 would say nothing: a quarter of a decibel of tilt, or one channel for the mean
    of two, is seen.
    """
    stereo = np.stack([sound, np.roll(sound, 40)], axis=1)
    mean = scores_of(scorer, wav(tmp_path / "mean.wav", stereo, subtype="FLOAT"))
    left = scores_of(scorer, wav(tmp_path / "left.wav", sound, subtype="FLOAT"))
    tilted = scores_of(
        scorer, wav(tmp_path / "tilted.wav", sound - 0.03 * np.roll(sound, 1), subtype="FLOAT")
    )
    assert np.abs(mean - left).max() > 1e-3
    assert np.abs(tilted - left).max() > 5e-4


# S12


def test_s12_content_decides_never_the_name(
    rrtn: Rrtn, tmp_path: Path, tiny_model: Path, sound: Samples
) -> None:
    """Extension lies (flac in .wav, .mp3 = text, upper case): decided by content; listed."""
    samples = np.round(sound * 32_768).astype(np.int16)
    (tmp_path / "in").mkdir()
    for name in ("flac.wav", "wav.mp3", "wav.FLAC", "WAV.WAV", "aiff.ogg"):
        wav(tmp_path / "in" / name, samples, format=name.partition(".")[0].upper())
    (tmp_path / "in" / "text.mp3").write_text("not music\n" * 1_000)
    (tmp_path / "in" / "zip.wav").write_bytes(b"PK\x03\x04" + bytes(1_000))
    run = rrtn("score", "in", "-m", tiny_model, "--json", cwd=tmp_path)
    rows = {Path(row["file"]).name: row for row in json.loads(run.stdout)["rows"]}
    bad = {name: row["error"] for name, row in rows.items() if row["error"]}
    assert bad == {"text.mp3": "unsupported_format", "zip.wav": "unsupported_format"}
    scores = [row["scores"] for row in rows.values() if row["scores"]]
    assert len(scores) == 5
    assert all(score == scores[0] for score in scores)


def test_s12_mp3_in_wav_is_read_as_mp3(tmp_path: Path, scorer: Scorer, real_clips: list[Path]) -> None:
    """Decided by content."""
    for clip in real_clips:
        if clip.suffix == ".mp3":
            shutil.copy(clip, tmp_path / "lie.wav")
            np.testing.assert_array_equal(scores_of(scorer, tmp_path / "lie.wav"), scores_of(scorer, clip))


# S13, S14


def test_s13_a_file_deleted_after_listing_is_missing(tmp_path: Path, scorer: Scorer, sound: Samples) -> None:
    """`missing` row."""
    for name in ("a.wav", "b.wav", "c.wav"):
        wav(tmp_path / name, sound)
    listed = sorted(tmp_path.iterdir())
    (tmp_path / "b.wav").unlink()
    assert [row.error for row in scorer.score_files(listed)] == [SCORED, "missing", SCORED]


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(1_000))


def overwrite(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(np.random.default_rng(0).bytes(size - size // 2))


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Does something to the file itself once its first block was decoded."""

    def arrange(action: Callable[[], object]) -> None:
        blocks = snd_reader.SndSound.blocks

        def interrupted(sound: snd_reader.SndSound) -> Iterator[reader.Float32]:
            for number, block in enumerate(blocks(sound)):
                if number == 0:
                    action()
                yield block

        monkeypatch.setattr(snd_reader.SndSound, "blocks", interrupted)

    return arrange


@pytest.mark.parametrize("action", [append, overwrite, shrink])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_s14_a_file_written_to_while_it_is_read_is_changed(
    tmp_path: Path,
    spec: FrontendSpec,
    meanwhile: Callable[[Callable[[], object]], None],
    action: Callable[[Path], None],
    suffix: str,
) -> None:
    """`changed` row (fstat before/after), never a mixed score; nor `corrupt`, which it may be no
    more a second later.
    """
    path = wav(tmp_path / f"a{suffix}", np.random.default_rng(0).normal(0, 0.1, 5 * snd_reader.BLOCK_FRAMES))
    os.utime(path, ns=(0, 0))
    meanwhile(lambda: action(path))
    with pytest.raises(AudioError) as caught:
        reader.read_audio(path, spec, allow_truncated=True)
    assert caught.value.code == "changed"


def test_s14_a_file_replaced_by_a_rename_scores_as_it_was(
    tmp_path: Path, spec: FrontendSpec, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    """Never a mixed score: the old file stays whole as long as it is open."""
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * snd_reader.BLOCK_FRAMES)
    path, new = wav(tmp_path / "a.wav", noise), wav(tmp_path / "new.wav", np.flip(noise))
    before = reader.read_audio(path, spec).samples
    meanwhile(lambda: new.replace(path) if new.exists() else None)
    np.testing.assert_array_equal(reader.read_audio(path, spec).samples, before)
    assert not new.exists()
    assert (reader.read_audio(path, spec).samples != before).any()


# S15


def test_s15_what_is_no_file_is_not_regular(
    rrtn: Rrtn, tmp_path: Path, tiny_model: Path, sound: Samples
) -> None:
    """File replaced by FIFO/socket/device/dir: `not_regular` row, no hang."""
    odd = [tmp_path / f"{kind}.wav" for kind in ("pipe", "socket", "folder", "zero", "null")]
    os.mkfifo(odd[0])
    os.mknod(odd[1], stat.S_IFSOCK | 0o600)
    odd[2].mkdir()
    odd[3].symlink_to("/dev/zero")
    odd[4].symlink_to("/dev/null")
    good = wav(tmp_path / "good.wav", sound)
    run = rrtn(
        "score", *odd[:2], odd[3], odd[4], good, "-m", tiny_model, "--json", cwd=tmp_path
    )  # killed if it hangs
    assert run.returncode == 3, run.stderr
    assert [row["error"] or SCORED for row in json.loads(run.stdout)["rows"]] == ["not_regular"] * 4 + [
        SCORED
    ]
    scorer = Scorer(tiny_model, "cpu")
    assert row_of(scorer, odd[2]).error == "not_regular"  # the command line would list what is in it


# S17

AWKWARD_NAMES = [
    *(b"new\nline.wav", b"tab\t.wav", b"quote\"'.wav", b"=cmd|'calc'!A0.wav", b"+1.wav", b"@sum.wav"),
    *(b"caf\xe9\n=x.wav", b"-lead.wav", b"--json.wav", b"a,b;c.wav", b"'quoted'.wav", b"back\\x41.wav"),
    *(b"[bold].wav", b"red].wav", b"\r.wav", b" space .wav", b"x" * 251 + b".wav"),
    *(b"\xf0\x9f\x98\x80.wav", b"caf\xc3\xa9.wav", b"cafe\xcc\x81.wav"),  # emoji; NFC and NFD twins
]


@pytest.fixture
def awkward(tmp_path: Path, sound: Samples) -> Path:
    """A folder with a file of each name; its own is awkward too, most of all before `/red]`."""
    folder = tmp_path / os.fsdecode(b"=\n\xff[")
    folder.mkdir()
    content = wav(tmp_path / "a.wav", sound).read_bytes()
    for name in AWKWARD_NAMES:
        (folder / os.fsdecode(name)).write_bytes(content)
    return folder


@pytest.mark.parametrize("named", ["as a folder", "as arguments"])
def test_s17_names_come_back_exactly(rrtn: Rrtn, awkward: Path, tiny_model: Path, named: str) -> None:
    """Round-trip exact (bytes), CSV parse gives back N rows, formula-escaped."""
    prefix = os.fsencode(awkward.name) + b"/" if named == "as a folder" else b""
    arguments = [os.fsencode(awkward.name)] if prefix else AWKWARD_NAMES
    cwd = awkward.parent if prefix else awkward
    table = awkward.parent / "table.csv"
    run = rrtn("score", "-m", tiny_model, "--out", table, "--", *arguments, cwd=cwd)
    assert run.returncode == 0, run.stderr
    records = records_of(table)
    assert sorted(path_from_cell(record["file"]) for record in records) == sorted(
        prefix + name for name in AWKWARD_NAMES
    )
    assert not any(record["file"].startswith(("=", "+", "-", "@", "\t", "\r")) for record in records)
    assert len(table.read_bytes().splitlines()) == 1 + len(AWKWARD_NAMES)
    assert len({record["Joy"] for record in records}) == 1


def test_s17_a_table_and_a_model_of_awkward_names(rrtn: Rrtn, awkward: Path, tiny_model: Path) -> None:
    """What is printed about them must not be taken for markup."""
    shutil.copy(tiny_model, awkward / "[dim].onnx")
    inside = os.fsencode(awkward.name)
    arguments = ("--out", inside + b"/red].csv", "-m", inside + b"/[dim].onnx", inside + b"/red].wav")
    run = rrtn("score", *arguments, cwd=awkward.parent)
    assert run.returncode == 0, run.stderr
    assert b"[dim].onnx on cpu" in run.stderr
    assert b"[/red].csv" in run.stderr
    assert len(records_of(awkward / "red].csv")) == 1


def test_s17_names_on_a_terminal(awkward: Path, tiny_model: Path) -> None:
    """The readable table shows them as they are."""
    terminal, stdout = os.openpty()
    command = [
        os.fspath(RRTN),
        "score",
        "-m",
        os.fspath(tiny_model),
        "--",
        "[bold].wav",
        f"../{awkward.name}/red].wav",
    ]
    run = subprocess.run(
        command, cwd=awkward, stdout=stdout, stderr=subprocess.PIPE, timeout=500, check=False
    )
    os.close(stdout)
    shown = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert run.returncode == 0, run.stderr
    assert " [bold].wav " in shown
    assert r"../=\x0a\xff[/red].wav " in shown


# S18


def rrtn_as_anyone(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """Root may read everything; without these two capabilities the modes count for root too."""
    beyond_modes = "-dac_override,-dac_read_search"
    prefix = (
        ["setpriv", f"--bounding-set={beyond_modes}", f"--inh-caps={beyond_modes}"]
        if os.geteuid() == 0
        else []
    )
    command = [*prefix, RRTN, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, timeout=500, check=False)


def test_s18_a_file_that_may_not_be_read_is_a_row(tmp_path: Path, tiny_model: Path, sound: Samples) -> None:
    """`permission` rows for files."""
    (tmp_path / "in").mkdir()
    for name in ("a.wav", "b.wav", "c.wav"):
        wav(tmp_path / "in" / name, sound)
    (tmp_path / "in" / "b.wav").chmod(0o000)
    run = rrtn_as_anyone("score", "in", "-m", tiny_model, "--json", cwd=tmp_path)
    assert run.returncode == 3, run.stderr
    assert [row["error"] or SCORED for row in json.loads(run.stdout)["rows"]] == [
        SCORED,
        "permission",
        SCORED,
    ]


def test_s18_n15_a_folder_that_may_not_be_read_is_a_row(
    tmp_path: Path, tiny_model: Path, sound: Samples
) -> None:
    """Unreadable dir is an error, not silence; and no end of all the others."""
    (tmp_path / "in" / "secret").mkdir(parents=True)
    (tmp_path / "in" / "listed").mkdir()
    for name in ("a.wav", "listed/b.wav", "secret/c.wav"):
        wav(tmp_path / "in" / name, sound)
    (tmp_path / "in" / "secret").chmod(0o000)
    (tmp_path / "in" / "listed").chmod(0o444)
    run = rrtn_as_anyone("score", "in", "-m", tiny_model, "--json", cwd=tmp_path)
    named = rrtn_as_anyone("score", "in/secret", "-m", tiny_model, "--json", cwd=tmp_path)
    for name in ("secret", "listed"):
        (tmp_path / "in" / name).chmod(0o700)
    assert run.returncode == 3, run.stderr
    rows = [(row["file"], row["error"] or SCORED) for row in json.loads(run.stdout)["rows"]]
    assert rows == [("in/a.wav", SCORED), ("in/listed/b.wav", "permission"), ("in/secret", "permission")]
    assert (named.returncode, json.loads(named.stdout)["error"]["came"]) == (2, "Permission denied")
    assert b"in/secret" in named.stderr


# N14


def test_n14_the_summary_says_what_was_left_out(
    rrtn: Rrtn, tmp_path: Path, tiny_model: Path, sound: Samples
) -> None:
    (tmp_path / "in").mkdir()
    wav(tmp_path / "in/a.wav", sound)
    wav(tmp_path / "in/b_noise.wav", sound)
    for name in ("._a.wav", "notes.txt", "more.txt"):
        (tmp_path / "in" / name).write_text("no audio")
    run = rrtn("score", "in", "-m", tiny_model, "--exclude", "*_noise.*", "--json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["left_out"] == {"--exclude": 1, "._*": 1, ".txt": 2}
    assert [row["file"] for row in document["rows"]] == ["in/a.wav"]
    assert "left out: .txt 2, " in run.stderr.decode()
    assert b"left out" not in rrtn("score", "in/a.wav", "-m", tiny_model, cwd=tmp_path).stderr


def test_n14_a_list_from_another_program(
    rrtn: Rrtn, tmp_path: Path, tiny_model: Path, sound: Samples
) -> None:
    """From another folder, in UTF-16, with quotes and a comment."""
    (tmp_path / "in").mkdir()
    wav(tmp_path / "in/a.wav", sound)
    (tmp_path / "in/list.txt").write_text('# mine\r\n"a.wav" \r\nb.wav\r\n', encoding="utf-16", newline="")
    run = rrtn("score", "--list", "in/list.txt", "-m", tiny_model, "--json", cwd=tmp_path)
    rows = [(row["file"], row["error"] or SCORED) for row in json.loads(run.stdout)["rows"]]
    assert rows == [("in/a.wav", SCORED), ("in/b.wav", "missing")]


# S33


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("empty", "no audio files found"),
        ("texts", "no audio files found"),
        ("gone", "does not exist"),
        ("gone.wav", "does not"),
    ],
)
def test_s33_nothing_to_score_is_refused(
    rrtn: Rrtn, tmp_path: Path, tiny_model: Path, argument: str, message: str
) -> None:
    """Empty folder, folder without audio, path does not exist: exit 2 with one line; nothing is written."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no audio")
    before = sorted(tmp_path.iterdir())
    run = rrtn("score", argument, "-m", tiny_model, "--out", "table.csv", "--json", cwd=tmp_path)
    assert run.returncode == 2
    assert json.loads(run.stdout)["error"]["exit_code"] == 2
    (line,) = run.stderr.decode().splitlines()
    assert line.startswith("rrtn: ")
    assert argument in line
    assert message in line
    assert sorted(tmp_path.iterdir()) == before


# S34


def scores_by_file(scorer: Scorer, paths: list[Path]) -> NDArray[np.float64]:
    """[files, labels] in sorted order of the files, whatever order they were scored in."""
    rows = sorted(scorer.score_files(paths), key=lambda row: os.fspath(row.file))
    return np.array([list((row.scores or {}).values()) for row in rows if row.scores])


@pytest.mark.parametrize("seed", range(5))
def test_s34_order_does_not_change_a_bit(
    scorer: Scorer, tmp_path: Path, real_clips: list[Path], seed: int
) -> None:
    """Same score per file, bit-equal within one batch shape, also with bad files between."""
    expected = scores_by_file(scorer, real_clips)
    mixed = [*real_clips, *[tmp_path / "gone.wav"] * 5]
    np.random.default_rng(seed).shuffle(mixed)  # type: ignore[arg-type]
    np.testing.assert_array_equal(scores_by_file(scorer, mixed), expected)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_s34_company_in_the_batch_does_not_change_a_bit(
    tiny_model: Path, real_clips: list[Path], batch_size: int
) -> None:
    """Same score alone, padded by zeros, as among others."""
    scorer = Scorer(tiny_model, "cpu", batch_size=batch_size)
    alone = np.concatenate([scores_by_file(scorer, [clip]) for clip in real_clips])
    np.testing.assert_array_equal(alone, scores_by_file(scorer, real_clips))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_s34_batch_size_changes_next_to_nothing(
    tiny_model: Path, scorer: Scorer, real_clips: list[Path], batch_size: int
) -> None:
    """<= 1e-6 between batch shapes, for which the runtime may choose other kernels."""
    other = scores_by_file(Scorer(tiny_model, "cpu", batch_size=batch_size), real_clips)
    np.testing.assert_allclose(other, scores_by_file(scorer, real_clips), atol=1e-6, rtol=0)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_s34_workers_do_not_change_a_bit(
    tiny_model: Path, scorer: Scorer, real_clips: list[Path], workers: int
) -> None:
    """Same score per file and the same order of rows."""
    rows = list(Scorer(tiny_model, "cpu", workers=workers).score_files(real_clips))
    assert rows == list(scorer.score_files(real_clips))
