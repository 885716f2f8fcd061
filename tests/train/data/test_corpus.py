"""The synthetic corpus: Hume-VB's layout and rules, and nothing depends on the number of workers."""

import csv
import hashlib
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from rrtn.runtime.challenge import EMOTIONS
from rrtn.runtime.errors import ConfigError, DataError, StoppedError
from rrtn.runtime.spec import FrontendSpec
from rrtn.train.config import config_from_dict
from rrtn.train.data.corpus import COUNTRIES, synthesise
from rrtn.train.data.data_set import read_data
from rrtn.train.data.device_clips import split_clips
from rrtn.train.data.places import with_settings_of_data
from rrtn.train.data.reading import data_of_settings
from rrtn.train.method.tasks import TASK_NAMES, task_of_name

CLIPS, SPEAKERS = 60, 10


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise(tmp_path_factory.mktemp("corpus"), clips=CLIPS, speakers=SPEAKERS, workers=1)


@pytest.fixture(scope="module")
def rows(corpus: Path) -> list[dict[str, str]]:
    return read_table(corpus)


def read_table(root: Path) -> list[dict[str, str]]:
    with (root / "data_info.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def ratings(rows: list[dict[str, str]]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """[B, K] of the rated clips."""
    return np.array([[float(row[target]) for target in EMOTIONS] for row in rows if row["Split"] != "Test"])


def test_two_workers_write_the_same_bytes_as_one(corpus: Path, tmp_path: Path) -> None:
    parallel = synthesise(tmp_path / "parallel", clips=CLIPS, speakers=SPEAKERS, workers=2)
    assert len(digests(corpus)) == CLIPS + 2  # data_info.csv and SYNTHETIC.txt
    assert digests(parallel) == digests(corpus)


def test_a_clip_is_the_same_in_a_smaller_corpus(corpus: Path, tmp_path: Path) -> None:
    smaller = synthesise(tmp_path / "smaller", clips=12, speakers=SPEAKERS, workers=1)
    whole = digests(corpus)
    assert {name: whole[name] for name in digests(smaller) if name.startswith("wav")} == {
        name: digest for name, digest in digests(smaller).items() if name.startswith("wav")
    }
    table = (corpus / "data_info.csv").read_text().splitlines()
    assert (smaller / "data_info.csv").read_text().splitlines() == table[:13]


def test_another_seed_has_other_clips_and_other_speakers(
    corpus: Path, rows: list[dict[str, str]], tmp_path: Path
) -> None:
    other = synthesise(tmp_path / "other", clips=12, speakers=SPEAKERS, seed=1, workers=1)
    assert not set(digests(other).values()) & set(digests(corpus).values())
    strongest = [ratings(table).argmax(axis=1) for table in (read_table(other), rows[:12])]
    assert (strongest[0] == strongest[1]).mean() < 0.5
    assert [row["Age"] for row in read_table(other)] != [row["Age"] for row in rows[:12]]


def test_columns_and_names_are_those_of_hume_vb(corpus: Path, rows: list[dict[str, str]]) -> None:
    assert list(rows[0]) == [
        *("File_ID", "Split", "Subject_ID", "Country", "Country_string", "Age"),
        *("Awe", "Excitement", "Amusement", "Awkwardness", "Fear"),
        *("Horror", "Distress", "Triumph", "Sadness", "Surprise"),
    ]
    assert [row["File_ID"] for row in rows] == [f"[{number:05d}]" for number in range(1, CLIPS + 1)]
    assert {path.name for path in (corpus / "wav").iterdir()} == {
        f"{row['File_ID'][1:-1]}.wav" for row in rows
    }
    assert {row["Subject_ID"] for row in rows} == {
        f"Speaker_{number:04d}" for number in range(1, SPEAKERS + 1)
    }


def test_speakers_are_disjoint_and_have_one_country_and_age(rows: list[dict[str, str]]) -> None:
    facts = {
        (row["Subject_ID"], row["Split"], row["Country"], row["Country_string"], row["Age"]) for row in rows
    }
    assert len(facts) == SPEAKERS
    assert [sum(fact[1] == split for fact in facts) for split in ("Train", "Val", "Test")] == [6, 2, 2]
    for _, _, country, name, age in facts:
        assert COUNTRIES[int(country)] == name
        assert 18 <= int(age) <= 80


def test_rated_clips_have_one_target_at_exactly_one(rows: list[dict[str, str]]) -> None:
    marks = ratings(rows)
    assert (marks.max(axis=1) == 1.0).all()
    assert (marks >= 0).all()
    assert np.median(np.sort(marks, axis=1)[:, -2]) < 0.98  # not everything is at one
    assert (marks.std(axis=0) > 0.15).all()


def test_labels_of_the_test_split_are_blank(rows: list[dict[str, str]]) -> None:
    blank = [all(row[target] == "" for target in EMOTIONS) for row in rows]
    assert blank == [row["Split"] == "Test" for row in rows]


def test_clips_are_pcm16_mono_at_minus_three_dbfs(corpus: Path) -> None:
    seconds = []
    for path in (corpus / "wav").iterdir():
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype, info.format) == (16_000, 1, "PCM_16", "WAV")
        peak = np.abs(soundfile.read(path)[0]).max()
        assert 20 * np.log10(peak) == pytest.approx(-3.0, abs=0.01)
        seconds.append(info.duration)
    assert 1.9 < np.mean(seconds) < 2.5
    assert min(seconds) > 0.7
    assert np.mean(np.array(seconds) > 39_840 / 16_000) > 0.1  # some are longer than a model's clip


def test_splits_keep_one_speaker_each_however_small(tmp_path: Path) -> None:
    tiny = synthesise(tmp_path / "tiny", clips=3, speakers=3, split=(0.98, 0.01, 0.01), workers=1)
    assert [row["Split"] for row in read_table(tiny)] == ["Train", "Val", "Test"]


def test_progress_counts_up_to_the_whole(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    synthesise(
        tmp_path / "new", clips=55, speakers=5, workers=1, progress=lambda done, of: seen.append((done, of))
    )
    assert len(seen) > 1 and seen == sorted(set(seen)) and seen[-1] == (55, 55)


def test_an_interrupted_folder_has_no_table(tmp_path: Path) -> None:
    def interrupt(done: int, clips: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(tmp_path / "half", clips=55, speakers=5, workers=1, progress=interrupt)
    assert (tmp_path / "half" / "wav" / "00001.wav").exists()
    assert [path.name for path in (tmp_path / "half").iterdir()] == ["wav"]


def test_a_folder_with_content_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(DataError, match=r"not an empty folder \| expected a new folder"):
        synthesise(tmp_path, clips=3, speakers=3, workers=1)
    with pytest.raises(DataError, match=r"not an empty folder \| expected a new folder"):
        synthesise(tmp_path / "precious.txt", clips=3, speakers=3, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("speakers", 2),
        ("clips", 4),
        ("seed", -1),
        ("split", (0.5, 0.5, 0.0)),
        ("split", (0.5, 0.3, 0.3)),
        ("workers", 0),
    ],
)
def test_bad_arguments_are_refused_in_one_line(tmp_path: Path, argument: str, value: object) -> None:
    arguments: dict[str, Any] = {"clips": 20, "speakers": 5, "workers": 1, argument: value}
    with pytest.raises(ConfigError) as refused:
        synthesise(tmp_path / "new", **arguments)
    assert (refused.value.subject, refused.value.came) == (argument, str(value))
    assert refused.value.wanted
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("task", TASK_NAMES[1:])
def test_a_task_has_its_own_columns_and_layout(task: str, tmp_path: Path) -> None:
    """The folder trains as it is: data.toml says where its parts are."""
    folder = synthesise(tmp_path / "corpus", clips=80, speakers=40, seed=4, task=task, workers=1)
    document = with_settings_of_data({"data": {"dir": str(folder)}})
    data = data_of_settings(folder, config_from_dict(document, source="test").data)
    asked = task_of_name(task)
    assert asked is not None
    assert (data.targets, [target.name for target in data.columns.classes]) == (
        asked.targets,
        [*asked.class_targets],
    )
    assert np.isnan(data.splits["Test"].ratings).all()
    rated = ~np.isnan(data.splits["Train"].ratings)
    if task == "avb-culture":
        assert (rated.sum(axis=1) == 10).all()  # by the own culture alone
    else:
        assert rated.all()
    is_avb = task.startswith("avb-")
    assert (folder / "labels").is_dir() == (folder / "audio/wav").is_dir() == is_avb
    assert (folder / "data_info.csv").is_file() == (not is_avb)


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    """libsndfile would say "System error", and NumPy how many samples."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    whole = read_data(synthesise(tmp_path / "whole", clips=9, speakers=3, seed=4, workers=1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        for workers in (1, 2):
            out = tmp_path / f"cut {workers}"
            with pytest.raises(StoppedError, match=rf"^{out}/wav/00001.wav \| File too large") as caught:
                synthesise(out, clips=9, speakers=3, seed=4, workers=workers)
            assert f"remove {out}, and run the same command again" in caught.value.fix
        with pytest.raises(StoppedError, match=r"clips \| File too large"):
            split_clips(whole, "Train", FrontendSpec(), torch.device("cpu"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_a_task_changes_labels_and_no_sound(tmp_path: Path) -> None:
    plain = synthesise(tmp_path / "plain", clips=6, speakers=3, seed=4, workers=1)
    task = synthesise(tmp_path / "task", clips=6, speakers=3, seed=4, task="avb-two", workers=1)
    for path in sorted((plain / "wav").iterdir()):
        assert (task / "audio/wav" / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(ConfigError, match=r"--task \| foo \| expected one of avb-high, "):
        synthesise(tmp_path / "none", clips=6, speakers=3, task="foo")
    assert not (tmp_path / "none").exists()
