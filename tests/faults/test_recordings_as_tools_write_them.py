"""Points 5, 8, 13 and 28 of docs/reliability.md, through `rrtn score`, `data check` and `train`."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import SHARED
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.tables.rows import Row
from rrtn.train.data.clip_cache import clip_store
from rrtn_processes import Ended

Samples = NDArray[np.float64]


@pytest.fixture
def trouble() -> Path:
    """Files that real tools wrote; not part of the project."""
    if not (SHARED / "trouble").is_dir():
        pytest.skip("no shared/data/trouble beside the project")
    return SHARED / "trouble"


def row_of(scorer: Scorer, path: Path) -> Row:
    (row,) = scorer.score_files([path])
    return row


def distance(scorer: Scorer, one: Path, other: Path) -> float:
    """The largest difference of a score."""
    scores = [row_of(scorer, path).scores for path in (one, other)]
    assert scores[0] is not None
    assert scores[1] is not None
    return max(abs(scores[0][label] - scores[1][label]) for label in scores[0])


# The same voice, once or twice, in 91.bwf without loss. Lossy ones differ by up to 0.021.
@pytest.mark.parametrize(
    ("name", "seconds", "flags", "apart"),
    [
        ("56_inverted.wav", 3.549, ("one_channel",), 0.0),
        ("killed_recorder.wav", 3.549, ("no_length",), 0.0),
        ("size_44_too_much.wav", 3.549, (), 0.0),
        ("87.voc", 3.549, (), 0.0),
        ("91.bwf", 3.549, (), 0.0),
        ("26_mp3_in_wav.wav", 3.605, (), 0.03),
        ("27_layer2.mp2", 3.553, (), 0.03),
        ("92_chained.ogg", 7.098, (), 0.03),
        ("chained.opus", 7.098, (), 0.03),
        ("93_concat.mp3", 7.098, (), 0.03),
        ("rate_change.mp3", 7.184, (), 0.03),
    ],
)
def test_n13_files_of_real_tools_are_scored_whole(
    scorer: Scorer, trouble: Path, name: str, seconds: float, flags: tuple[str, ...], apart: float
) -> None:
    row = row_of(scorer, trouble / name)
    assert (row.error, row.flags) == ("", ("only_start", *flags))
    assert row.seconds == pytest.approx(seconds, abs=1e-3)
    assert distance(scorer, trouble / name, trouble / "91.bwf") <= apart


def test_n13_limits_are_held_against_what_was_decoded_of_a_real_file(tiny_model: Path, trouble: Path) -> None:
    """30 s; libsndfile guesses 77 s."""
    for max_seconds, error in ((31, ""), (30, "too_long")):
        scorer = Scorer(tiny_model, "cpu", max_seconds=max_seconds)
        assert row_of(scorer, trouble / "short_vbr_notag.mp3").error == error
        scorer.close()


def test_n5_the_same_voice_has_the_same_scores_with_an_offset(scorer: Scorer, trouble: Path) -> None:
    assert distance(scorer, trouble / "quiet_dc.wav", trouble / "quiet_nodc.wav") < 1e-2
    assert "dc" in row_of(scorer, trouble / "quiet_dc.wav").flags
    assert "dc" not in row_of(scorer, trouble / "quiet_nodc.wav").flags


def test_n8_stray_forks_change_no_score(
    tmp_path: Path, tiny_model: Path, rrtn: Callable[..., Ended], sound: Samples
) -> None:
    """A Mac resource fork in the working directory or beside a file makes libsndfile take text for sound."""
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/a.wav", sound, 16_000)
    (tmp_path / "in/b.wav").write_text("this is no audio\n" * 1_000)
    before = rrtn("score", "in/a.wav", "in/b.wav", "-m", tiny_model)
    soundfile.write(tmp_path / "x.sd2", sound, 16_000, subtype="PCM_16")
    for place in ("._", "._a.wav", "._b.wav", "in/._", "in/._a.wav", "in/._b.wav"):
        shutil.copy(tmp_path / "._x.sd2", tmp_path / place)
    after = rrtn("score", "in/a.wav", "in/b.wav", "-m", tiny_model)
    assert (after.code, after.out) == (before.code, before.out) == (3, before.out)
    assert "unsupported_format" in after.out


def two_channels(path: Path, sound: Samples) -> None:
    soundfile.write(path, np.stack([sound, np.roll(sound, 99) ** 3], axis=1), 16_000)


def scores_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return [dict(row) for row in csv.DictReader(file)]


def test_n5_channel_of_score_picks_one_and_says_where_it_lacks(
    tmp_path: Path, tiny_model: Path, rrtn: Callable[..., Ended], sound: Samples
) -> None:
    (tmp_path / "in").mkdir()
    two_channels(tmp_path / "in/both.wav", sound)
    soundfile.write(tmp_path / "in/mono.wav", np.roll(sound, 99) ** 3, 16_000)
    done = rrtn("score", "in", "-m", tiny_model, "--channel", 2, "--out", "second.csv", "--json")
    assert (done.code, done.summary["errors"]) == (3, {"no_channel": 1})
    rrtn("score", "in", "-m", tiny_model, "--out", "mean.csv")
    (both, _), (_, mono) = scores_of(tmp_path / "second.csv"), scores_of(tmp_path / "mean.csv")
    assert [both[label] for label in ("Awe", "Fear", "Joy")] == [
        mono[label] for label in ("Awe", "Fear", "Joy")
    ]
    other = rrtn("score", "in", "-m", tiny_model, "--channel", 1, "--out", "second.csv")
    assert (other.code, "channel 2, now 1" in other.err) == (2, True)


@pytest.mark.parametrize("command", ["score", "train", "data check"])
def test_n5_there_is_no_channel_0(tmp_path: Path, rrtn: Callable[..., Ended], command: str) -> None:
    arguments = {"score": ["a.wav"], "train": [], "data check": ["a"]}[command]
    done = rrtn(*command.split(), *arguments, "--channel", 0)
    assert (done.code, "--channel" in done.err) == (2, True)


def test_n5_channel_of_train_is_in_the_config_and_in_the_key_of_the_cache(
    tmp_path: Path,
    cache: Path,
    spec: FrontendSpec,
    rrtn: Callable[..., Ended],
    make_data: Callable[..., Path],
) -> None:
    data = make_data()
    plan = rrtn("train", "--data", data, "--channel", 2, "--dry-run", "--json")
    assert plan.summary["config"]["data"]["channel"] == 2
    two_channels(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 9_000))
    stores = [clip_store([tmp_path / "a.wav"], spec, channel=channel) for channel in (None, 1, 2)]
    assert len({store.digest for store in stores}) == 3
    assert len(list((cache / "clips").glob("*.npy"))) == 3


def test_n5_data_check_names_files_without_the_channel(
    rrtn: Callable[..., Ended], make_data: Callable[..., Path]
) -> None:
    data = make_data()
    two_channels(data / "wav/00003.wav", np.random.default_rng(0).normal(0, 0.1, 9_000))
    done = rrtn("data", "check", data, "--channel", 2, "--json")
    assert (done.code, len(done.summary["bad_files"])) == (3, 13)
    assert "no_channel: 1, and --channel 2 was given" in done.summary["bad_files"]["[00000]"]


def test_n28_lines_of_libsndfile_never_reach_stdout(
    tmp_path: Path, tiny_model: Path, rrtn: Callable[..., Ended], make_data: Callable[..., Path]
) -> None:
    """It prints for a broken table of packets in ALAC, and for cut-off SDS."""
    data = make_data()
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000)
    soundfile.write(data / "wav/00001.wav", noise, 16_000, format="CAF", subtype="ALAC_16")
    alac = bytearray((data / "wav/00001.wav").read_bytes())
    table = alac.index(b"pakt") + 36
    alac[table : alac.index(b"data")] = b"\xff" * (alac.index(b"data") - table)
    (data / "wav/00001.wav").write_bytes(alac)
    soundfile.write(data / "wav/00002.wav", noise, 16_000, format="SDS")
    sds = bytearray((data / "wav/00002.wav").read_bytes())
    sds[21 + 127 * 50] = 0  # where a packet begins
    (data / "wav/00002.wav").write_bytes(sds)
    # A process of its own: what the C library keeps in its buffer comes at the process's end.
    check = [sys.executable, "-m", "rrtn", "data", "check", str(data), "--json"]
    done = subprocess.run(check, stdout=subprocess.PIPE, check=False, timeout=100)
    assert (done.returncode, json.loads(done.stdout)["bad_files"].keys()) == (3, {"[00001]", "[00002]"})
    assert rrtn("score", data / "wav", "-m", tiny_model, "--json").summary["errors"]
    table_on_stdout = rrtn("score", data / "wav", "-m", tiny_model).out.splitlines()
    assert {line.count(",") for line in table_on_stdout} == {7}
