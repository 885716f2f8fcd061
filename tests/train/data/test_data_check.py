"""What `rrtn data check` finds in a tiny data set of which one thing is wrong."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rrtn.runtime.spec import FrontendSpec
from rrtn.train.config import Crop, DataConfig
from rrtn.train.data.clip_cache import clip_store
from rrtn.train.data.data_check import DataReport, check_data
from rrtn.train.data.data_set import read_data
from rrtn.train.data.sound_check import notes_for_training

MakeData = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def checked(make_data: MakeData, spec: FrontendSpec) -> Callable[..., DataReport]:
    """Makes the data, lets a function spoil its wav/, checks it."""

    def check(
        spoil: Callable[[Path], object] = lambda wav: None, table: list[str] | None = None
    ) -> DataReport:
        folder = make_data(table) if table else make_data()
        spoil(folder / "wav")
        return check_data(folder, spec)

    return check


Checked = Callable[..., DataReport]


def rrtn(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rrtn", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def copies(*pairs: tuple[int, int]) -> Callable[[Path], None]:
    """The second of each pair becomes the first's audio."""

    def copy(wav: Path) -> None:
        for source, target in pairs:
            shutil.copyfile(wav / f"{source:05d}.wav", wav / f"{target:05d}.wav")

    return copy


def written(number: int, samples: np.ndarray) -> Callable[[Path], None]:
    return lambda wav: soundfile.write(wav / f"{number:05d}.wav", samples, 16_000)


def with_full_mark(lines: list[str], but: tuple[int, ...] = ()) -> list[str]:
    """Awe is 1.0 in every rated clip but these."""
    changed = [line.split(",") for line in lines]
    for i, cells in enumerate(changed[1:]):
        if cells[-2] and i not in but:
            cells[-2] = "1.0"
    return [",".join(cells) for cells in changed]


def test_of_good_data_there_is_nothing_to_say(checked: Checked) -> None:
    report = checked()
    assert (report.errors, report.warnings, report.duplicates, report.bad_files) == ((), (), [], {})


def test_table_1_has_lengths_and_levels_of_the_files(checked: Checked) -> None:
    def write(wav: Path) -> None:
        for number in range(8):  # Train: 1 to 8 s, peaks of -6.02 dBFS but the last
            samples = np.random.default_rng(number).uniform(-0.4, 0.4, 16_000 * (number + 1))
            samples[100] = 0.5 if number < 7 else 1 - 2**-15
            soundfile.write(wav / f"{number:05d}.wav", samples, 16_000)

    train, val, test = checked(write).splits
    assert (train.clips, val.clips, test.clips) == (8, 4, 2)
    assert train.minutes == 36 / 60
    assert (train.seconds["min"], train.seconds["median"], train.seconds["max"]) == (1.0, 4.5, 8.0)
    assert train.longer_than_clip == 6  # 2.49 s
    assert val.seconds == dict.fromkeys(val.seconds, 0.3)
    assert train.peak_dbfs["median"] == pytest.approx(-6.02, abs=0.01)
    assert train.peak_dbfs["max"] == pytest.approx(0, abs=0.01)
    assert (train.speakers, train.countries) == (4, {"USA": 8})


def test_ratings_are_counted_by_split_and_blank_ones_are_not(checked: Checked, csv_lines: list[str]) -> None:
    report = checked()
    rows = [line.split(",") for line in csv_lines[1:13]]
    values = np.array([row[-2:] for row in rows], dtype=float)
    assert report.histograms.keys() == {"Train", "Val"}
    thousandths = np.round(1000 * values[8:]).T
    assert report.histograms["Val"].tolist() == [
        np.histogram(row, 10, (0, 1000))[0].tolist() for row in thousandths
    ]
    assert report.pairs[0].r == pytest.approx(np.corrcoef(values.T)[0, 1], abs=1e-6)


def test_equal_audio_in_two_splits_is_a_leak_and_comes_first(checked: Checked) -> None:
    report = checked(copies((2, 3), (5, 9)))
    assert [[clip.file_id for clip in same] for same in report.duplicates] == [
        ["[00005]", "[00009]"],
        ["[00002]", "[00003]"],
    ]
    assert report.warnings == (
        "DUPLICATE LEAK: 1 recording in more than one split under other names "
        "(first: [00005] in Train = [00009] in Val): validation figures will be too good",
        "1 recording in one split more than once (first: [00002] = [00003] in Train)",
    )


def test_equal_audio_in_another_format_is_the_same(checked: Checked) -> None:
    def rewrite(wav: Path) -> None:
        samples, rate = soundfile.read(wav / "00005.wav", dtype="int16")
        soundfile.write(wav / "00009.wav", np.stack([samples, samples], axis=1), rate, format="FLAC")

    assert "first: [00005] in Train = [00009] in Val" in checked(rewrite).warnings[0]


def test_one_sample_makes_it_another_recording_and_silence_is_no_duplicate(checked: Checked) -> None:
    def write(wav: Path) -> None:
        samples, rate = soundfile.read(wav / "00005.wav", dtype="int16")
        samples[1000] += 16
        soundfile.write(wav / "00009.wav", samples, rate)
        for number in (1, 2):
            soundfile.write(wav / f"{number:05d}.wav", np.zeros(4800), 16_000)

    report = checked(write)
    assert report.duplicates == []
    assert report.warnings == (
        "2 of 14 clips are silent: there is nothing to learn from them (first: [00001], line 3)",
    )
    assert [split.silent for split in report.splits] == [2, 0, 0]


def test_a_clipped_recording_is_named(checked: Checked) -> None:
    wave = np.clip(3 * np.sin(np.arange(4800) / 10), -1, 1) * 10 ** (
        -3 / 20
    )  # then set to -3 dB, as in Hume-VB
    report = checked(written(10, wave))
    assert report.warnings == (
        "1 of 14 clips is clipped: the tops of their waves are cut off (first: [00010], line 12)",
    )
    assert [split.clipped for split in report.splits] == [0, 1, 0]


def silence_before(numbers: range, seconds: float, noise: float = 0.0) -> Callable[[Path], None]:
    """Sound of 1 s behind silence, or behind a noise of this amplitude."""

    def write(wav: Path) -> None:
        rng = np.random.default_rng(0)
        for number in numbers:
            before = rng.uniform(-noise, noise, round(16_000 * seconds))
            samples = np.r_[before, rng.uniform(-0.5, 0.5, 16_000)]
            soundfile.write(wav / f"{number:05d}.wav", samples, 16_000, subtype="FLOAT")

    return write


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_silence_that_is_all_that_evaluation_hears_is_told(checked: Checked, noise: float) -> None:
    """Silence and dither, as --trim removes them; a noise that --trim leaves is sound."""
    assert checked(silence_before(range(7, 10), 2.6, noise)).warnings == (
        "no sound in the first 2.49 s, which is all that evaluation hears, of 1 of 8 clips in Train, 2 of 4 "
        "clips in Val (first: [00007], line 9): --trim (frontend.trim) removes silence at both ends",
    )
    assert checked(silence_before(range(7, 10), 2.6, noise=0.01)).warnings == ()
    assert checked(silence_before(range(7, 10), 2.4)).warnings == ()


def test_a_clip_that_is_silent_altogether_is_told_once(checked: Checked) -> None:
    (warning,) = checked(written(9, np.zeros(64_000))).warnings
    assert "silent" in warning


def test_training_tells_of_silence_that_is_all_that_a_model_hears(
    make_data: MakeData, spec: FrontendSpec
) -> None:
    """By the length of its own clip; not where silence is trimmed."""
    folder = make_data()
    silence_before(range(8, 12), 2.6)(folder / "wav")
    data = read_data(folder)
    clips = [clip for split in data.splits.values() for clip in split.clips]
    paths = [clip.path for clip in clips]

    def notes(spec: FrontendSpec, crop: Crop = "clip") -> list[str]:
        return notes_for_training(clips, [clip_store(paths, spec)], spec, crop)

    assert ["4 of 4 clips in Val" in note for note in notes(spec)] == [True]
    assert notes(replace(spec, frames=300)) == []
    assert notes(replace(spec, trim=True)) == []
    assert notes(spec, "full") == []


def test_files_that_cannot_be_decoded_are_an_error_and_the_rest_is_reported(checked: Checked) -> None:
    def spoil(wav: Path) -> None:
        (wav / "00002.wav").write_bytes(b"no audio")
        (wav / "00013.wav").write_bytes(b"")

    report = checked(spoil)
    assert list(report.bad_files) == ["[00002]", "[00013]"]
    assert report.errors[0].startswith("2 of 14 files cannot be used (first: [00002]: unsupported_format: ")
    assert [split.bad for split in report.splits] == [1, 0, 1]
    assert report.splits[0].minutes == round(7 * 0.3 / 60, 2)
    assert report.duplicates == []


def test_a_speaker_in_two_splits_is_a_leak(checked: Checked, csv_lines: list[str]) -> None:
    csv_lines[10] = csv_lines[10].replace("Val_4", "Train_0")
    (warning,) = checked(table=csv_lines).warnings
    assert warning.startswith("SPEAKER LEAK: 1 speaker in more than one split (first: Train_0)")


def test_without_speakers_nobody_can_see_a_leak(checked: Checked, csv_lines: list[str]) -> None:
    csv_lines[0] = csv_lines[0].replace("Subject_ID", "Info")
    assert checked(table=csv_lines).warnings == (
        "14 of 14 clips have no Subject_ID: speaker leaks stay unseen, and nothing has an interval "
        "(--speaker-column NAME) (first: [00000], line 2)",
    )


def test_the_clip_without_a_full_mark_is_odd_where_all_others_have_one(
    checked: Checked, csv_lines: list[str]
) -> None:
    report = checked(table=with_full_mark(csv_lines, but=(9,)))
    assert report.one_at_full == 11 / 12
    assert "1 of 14 clips has no target at exactly 1.0" in report.warnings[-1]
    assert "(first: [00009], line 11)" in report.warnings[-1]


def test_where_many_have_no_full_mark_the_data_are_rated_otherwise(
    checked: Checked, csv_lines: list[str]
) -> None:
    report = checked(table=with_full_mark(csv_lines, but=(1, 3, 9)))
    assert report.one_at_full == 9 / 12
    assert report.warnings == ()


def test_a_constant_target_is_named_and_its_correlations_are_null(
    checked: Checked, csv_lines: list[str]
) -> None:
    report = checked(table=with_full_mark(csv_lines))
    assert report.warnings == (
        "no variation in Train, so nothing to learn: Awe",
        "no variation in Val, so a CCC of 0 there says nothing: Awe",
    )
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["correlations"] == [
        [None, None],
        [None, 1.0],
    ]


def test_labels_of_any_kind_are_counted(
    make_data: MakeData, csv_lines: list[str], spec: FrontendSpec
) -> None:
    """Awe from 1 to 5 with two blanks, and a class for each clip."""
    lines = [f"{csv_lines[0]},Type"]
    for i, line in enumerate(csv_lines[1:]):
        cells = line.split(",")
        cells[5] = "" if i in (2, 8) else cells[5] and str(1 + i % 5)
        lines.append(",".join([*cells, "Laugh" if i % 3 else "Cry"]))
    settings = DataConfig(scale=("Awe=1:5",), class_targets=("Type",))
    report = check_data(make_data(lines), spec, settings)
    assert [label.name for label in report.labels] == ["Awe", "Fear", "Type"]
    assert [label.scale for label in report.labels] == ["1:5", "0:1", "2 classes"]
    assert report.labels[0].values == 5
    assert report.labels[0].blank == {"Train": 1, "Val": 1, "Test": 2}
    assert report.classes == {
        "Type": {"Cry": {"Train": 3, "Val": 1, "Test": 1}, "Laugh": {"Train": 5, "Val": 3, "Test": 1}}
    }
    assert report.histograms["Train"].sum(axis=1).tolist() == [7, 8]
    assert report.verdict == "trains, with 1 warning"
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["verdict"] == report.verdict


def test_classes_alone_have_no_ratings_to_show(
    make_data: MakeData, csv_lines: list[str], tmp_path: Path
) -> None:
    lines = [
        ",".join([*line.split(",")[:5], ("Type", "Cry", "Laugh")[i and 1 + i % 2]])
        for i, line in enumerate(csv_lines)
    ]
    folder = make_data(lines)
    (folder / "data.toml").write_text('class_targets = ["Type"]\n')
    shown = rrtn("data", "check", folder)
    assert shown.returncode == 0, shown.stderr
    assert "Clips of each class of Type" in shown.stdout
    assert "Pearson" not in shown.stdout
    assert shown.stderr.splitlines()[-1].startswith("verdict: trains")


def test_classes_that_may_be_one_are_told(make_data: MakeData, csv_lines: list[str]) -> None:
    lines = [
        ",".join([*line.split(",")[:5], ("Type", "Cry", "laugh", "Laugh ", "big laugh")[i and 1 + i % 4]])
        for i, line in enumerate(csv_lines)
    ]
    folder = make_data(lines)
    (folder / "data.toml").write_text('class_targets = ["Type"]\n')
    shown = rrtn("data", "check", folder)
    assert "classes of Type that may be one: 'Laugh' = 'laugh'" in shown.stderr


def test_a_leak_is_in_the_verdict(checked: Checked, csv_lines: list[str]) -> None:
    report = checked(table=[line.replace("Val_4", "Train_0") for line in csv_lines])
    assert report.verdict == "trains, but validation figures will be too good: SPEAKER LEAK"


def test_a_table_and_its_audio_may_lie_apart(make_data: MakeData, tmp_path: Path) -> None:
    folder = make_data()
    (folder / "data_info.csv").rename(tmp_path / "mine.csv")
    shown = rrtn("data", "check", "--csv", tmp_path / "mine.csv", "--audio", folder / "wav", "--json")
    assert json.loads(shown.stdout)["targets"] == ["Awe", "Fear"]


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines on stderr, without those of progress, which a slow disk brings."""
    return [line for line in done.stderr.splitlines() if not line.startswith("decode ")]


def test_exit_code_3_with_bad_files_2_with_a_refused_csv_and_0_else(
    make_data: MakeData, csv_lines: list[str]
) -> None:
    folder = make_data()
    good = rrtn("data", "check", folder)
    assert (good.returncode, said(good)) == (0, ["verdict: trains, and nothing is wrong with it"])
    assert {"Train", "Awe", "Fear", "clipped"} <= set(good.stdout.split())
    copies((5, 9))(folder / "wav")
    assert rrtn("data", "check", folder, "--json").returncode == 0  # a warning
    (folder / "wav/00002.wav").write_bytes(b"no audio")
    bad = rrtn("data", "check", folder, "--json")
    assert bad.returncode == 3
    document = json.loads(bad.stdout)
    assert document["bad_files"].keys() == {"[00002]"}
    assert said(bad) == [
        f"error: {document['errors'][0]}",
        f"warning: {document['warnings'][0]}",
        "verdict: cannot be trained: 1 file cannot be used",
    ]
    make_data([*csv_lines, csv_lines[1].replace("Train", "Val")])
    refused = rrtn("data", "check", folder)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"rrtn: {folder / 'data_info.csv'}, line 16 ")


def test_on_real_speech(emodb: Path, spec: FrontendSpec) -> None:
    report = check_data(emodb, spec)
    assert [(split.clips, split.speakers, split.bad, split.silent) for split in report.splits] == [
        (348, 6, 0, 0),
        (96, 2, 0, 0),
        (91, 2, 0, 0),
    ]
    assert (report.errors, report.warnings) == ((), ())
    assert report.pairs[0][:2] == ("Anger", "Naturalness")
