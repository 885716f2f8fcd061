"""Issue 16, done when 2: files that real tools write give what their README says, in all three commands.

Once as they are with PyAV, and once as they are without it.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from conftest import SHARED
from rrtn.runtime import FrontendSpec
from rrtn.train.data.data_check import check_data

TROUBLE = SHARED / "trouble"
pytestmark = pytest.mark.skipif(not TROUBLE.is_dir(), reason="needs shared/data/trouble")

WHOLE: Final = 3.55  # s, of the spoken original
BY_PYAV: Final = (
    "42_ogg_flac.oga",
    "audition_peak.wav",
    "76_two_data.wav",
    "73_odd_list_no_pad.wav",
    "junk_inside.mp3",
    "36_voice.3gp",
    "39_speex.spx",
)
BY_LIBSNDFILE: Final = (
    "lead3s.wav",
    "56_inverted.wav",
    "quiet_dc.wav",
    "quiet_nodc.wav",
    "tail_10ms.wav",
    "short_vbr_notag.mp3",
    "92_chained.ogg",
    "chained.opus",
    "93_concat.mp3",
    "rate_change.mp3",
    "26_mp3_in_wav.wav",
    "killed_recorder.wav",
    "size_44_too_much.wav",
    "27_layer2.mp2",
    "87.voc",
    "91.bwf",
)


@pytest.fixture
def without_the_extra(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that cannot import PyAV; nor can its children."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/sitecustomize.py").write_text("import sys\nsys.modules['av'] = None\n")
    paths = [str(tmp_path / "hidden"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def rrtn(
    *arguments: object, env: dict[str, str] | None = None, cwd: Path
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rrtn", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


def scored(folder: Path, model: Path, env: dict[str, str] | None) -> tuple[dict[str, dict[str, str]], str]:
    """The rows by the names of the files, and what the command said."""
    files = [TROUBLE / name for name in (*BY_PYAV, *BY_LIBSNDFILE)]
    done = rrtn("score", *files, "-m", model, "--out", "scores.csv", cwd=folder, env=env)
    assert done.returncode in (0, 3), done.stderr
    with (folder / "scores.csv").open(newline="") as file:
        return {Path(row["file"]).name: row for row in csv.DictReader(file)}, done.stderr


def test_n13_score_reads_every_file_with_the_extra(tmp_path: Path, tiny_model: Path) -> None:
    rows, said = scored(tmp_path, tiny_model, None)
    assert {name: row["error"] for name, row in rows.items()} == dict.fromkeys((*BY_PYAV, *BY_LIBSNDFILE), "")
    by_pyav = {name for name, row in rows.items() if "second_reader" in row["flags"].split(";")}
    assert by_pyav == {*BY_PYAV}
    assert "pip install" not in said


def test_n13_score_says_what_to_install_without_the_extra(
    tmp_path: Path, tiny_model: Path, without_the_extra: dict[str, str]
) -> None:
    rows, said = scored(tmp_path, tiny_model, without_the_extra)
    expected = dict.fromkeys(BY_PYAV, "needs_formats_extra") | dict.fromkeys(BY_LIBSNDFILE, "")
    assert {name: row["error"] for name, row in rows.items()} == expected
    assert f"the {len(BY_PYAV)} with needs_formats_extra" in said
    assert 'pip install "av<19,>=18.1"' in said


@pytest.mark.slow
def test_n13_a_table_keeps_the_readers_that_it_was_begun_with(
    tmp_path: Path, tiny_model: Path, without_the_extra: dict[str, str]
) -> None:
    arguments = (
        "score",
        TROUBLE / "36_voice.3gp",
        TROUBLE / "91.bwf",
        "-m",
        tiny_model,
        "--out",
        "scores.csv",
    )
    begun = rrtn(*arguments, cwd=tmp_path, env=without_the_extra)
    assert begun.returncode == 3
    assert rrtn(*arguments, cwd=tmp_path, env=without_the_extra).returncode == 3
    table = (tmp_path / "scores.csv").read_bytes()
    refused = rrtn(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    (line,) = (line for line in refused.stderr.splitlines() if line.startswith("rrtn: "))
    assert "begun with second_reader none, now PyAV " in line
    assert "--overwrite" in line
    assert (tmp_path / "scores.csv").read_bytes() == table
    assert rrtn(*arguments, "--overwrite", cwd=tmp_path).returncode == 0
    back = rrtn(*arguments, cwd=tmp_path, env=without_the_extra)
    assert back.returncode == 2
    assert "now none" in back.stderr


def test_n13_samples_are_those_of_the_spoken_original(spec: FrontendSpec) -> None:
    from rrtn.runtime.audio.reader import read_audio

    original = read_audio(TROUBLE / "91.bwf", spec)
    for name in ("42_ogg_flac.oga", "76_two_data.wav", "73_odd_list_no_pad.wav"):
        np.testing.assert_array_equal(read_audio(TROUBLE / name, spec).samples, original.samples, name)
    for name in BY_PYAV:
        assert read_audio(TROUBLE / name, spec).seconds == pytest.approx(WHOLE, abs=0.1), name


@pytest.fixture
def data(make_data: Callable[..., Path]) -> Path:
    """A data set whose clips are files of the folder, whatever their suffix is."""
    names = (*BY_PYAV, *BY_LIBSNDFILE)
    rows = [
        f"[{i:05d}],{('Train', 'Val')[i % 3 == 2]},{i},USA,30,0.{i + 10},0.{40 - i}"
        for i in range(len(names))
    ]
    folder = make_data(["File_ID,Split,Subject_ID,Country_string,Age,Awe,Fear", *rows])
    for path in (folder / "wav").iterdir():
        path.unlink()
    for i, name in enumerate(names):
        shutil.copyfile(TROUBLE / name, folder / f"wav/{i:05d}.wav")
    return folder


def test_n13_data_check_reads_what_score_reads(
    data: Path, spec: FrontendSpec, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_data(data, spec).bad_files == {}
    monkeypatch.setitem(sys.modules, "av", None)
    bad = check_data(data, spec).bad_files
    assert sorted(bad) == [f"[{i:05d}]" for i in range(len(BY_PYAV))]
    assert all(error.startswith("needs_formats_extra: ") for error in bad.values())


@pytest.mark.slow
def test_n13_train_reads_what_score_reads(
    tmp_path: Path, data: Path, cache: Path, without_the_extra: dict[str, str]
) -> None:
    arguments = ("train", "--data", data, "--epochs", 1, "--batch-size", 4, "--device", "cpu", "--out")
    refused = rrtn(*arguments, "a", cwd=tmp_path, env=without_the_extra)
    assert refused.returncode == 2
    assert "files cannot be decoded" in refused.stderr  # of Train, the first split that is read
    assert 'pip install "av<19,>=18.1"' in refused.stderr
    done = rrtn(*arguments, "b", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["best"]["epoch"] == 1
