"""A good folder becomes the right clips and ratings; what is refused is in faults/test_train_faults.py."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rrtn.runtime.errors import DataError
from rrtn.train.data.data_set import DataSet, read_data

MakeData = Callable[..., Path]


def columns_turned(lines: list[str]) -> list[str]:
    """The same table with its columns from right to left."""
    return [",".join(reversed(line.split(","))) for line in lines]


def with_column(lines: list[str], name: str, value: str) -> list[str]:
    return [f"{line},{value if i else name}" for i, line in enumerate(lines)]


def test_rows_go_to_their_splits_in_the_order_of_the_table(make_data: MakeData) -> None:
    data = read_data(make_data())
    assert [clip.file_id for clip in data.splits["Train"].clips] == [f"[{i:05d}]" for i in range(8)]
    assert [clip.line for clip in data.splits["Val"].clips] == [10, 11, 12, 13]
    assert [clip.path.name for clip in data.splits["Test"].clips] == ["00012.wav", "00013.wav"]
    assert data.warnings == ()


def test_ratings_are_those_of_the_csv(make_data: MakeData, csv_lines: list[str]) -> None:
    data = read_data(make_data())
    written = np.array([line.split(",")[-2:] for line in csv_lines[1:9]], dtype=np.float32)
    assert data.targets == ("Awe", "Fear")
    np.testing.assert_array_equal(data.splits["Train"].ratings, written)


def test_blank_labels_of_test_are_nan(make_data: MakeData) -> None:
    ratings = read_data(make_data()).splits["Test"].ratings
    assert ratings.shape == (2, 2)
    assert np.isnan(ratings).all()


def test_columns_are_found_by_name_whatever_their_order(make_data: MakeData, csv_lines: list[str]) -> None:
    usual, turned = read_data(make_data()), read_data(make_data(columns_turned(csv_lines)))
    assert turned.targets == ("Fear", "Awe")
    np.testing.assert_array_equal(turned.splits["Val"].ratings[:, ::-1], usual.splits["Val"].ratings)
    assert turned.splits["Val"].clips == usual.splits["Val"].clips


def test_chosen_targets_come_in_the_chosen_order(make_data: MakeData) -> None:
    folder = make_data()
    both = read_data(folder).splits["Train"].ratings
    data = read_data(folder, ("Fear", "Awe"))
    assert data.targets == ("Fear", "Awe")
    np.testing.assert_array_equal(data.splits["Train"].ratings, both[:, ::-1])
    assert read_data(folder, ["Fear"]).splits["Train"].ratings.shape == (8, 1)


def test_an_unknown_target_is_refused_with_the_columns_that_there_are(make_data: MakeData) -> None:
    with pytest.raises(DataError, match=r"--targets \| Joy \| .*File_ID.*Awe, Fear"):
        read_data(make_data(), ("Joy", "Awe"))


def test_numeric_metadata_is_no_target(make_data: MakeData, csv_lines: list[str]) -> None:
    assert read_data(make_data(with_column(csv_lines, "Country", "2"))).targets == ("Awe", "Fear")


METADATA = [
    *"gender Gender SEX sex age AGE Duration duration clip_duration Speaker speaker speaker_id".split(),
    *"SubjectID subject subjectid participant Participant_ID actor id ID start end start_time".split(),
    *"EndTime fold Fold session Session_ID language country Country year index SampleRate".split(),
    *["Unnamed: 0", "speaker gender", "Subject-ID", "file name"],
]


def rewritten(folder: Path, lines: list[str]) -> DataSet:
    """The data of a folder whose table has other lines by now."""
    (folder / "data_info.csv").write_text("\n".join(lines))
    return read_data(folder)


def test_n7_metadata_of_any_spelling_is_no_target(make_data: MakeData, csv_lines: list[str]) -> None:
    """A 0 or 1 under `gender` is learned only by who asks for it."""
    folder = make_data()
    for name in METADATA:
        data = rewritten(folder, with_column(csv_lines, name, "1"))
        assert data.targets == ("Awe", "Fear"), name
        assert data.numeric_metadata == ("Age", name)
        assert read_data(folder, (name, "Awe")).targets == (name, "Awe")


def test_n7_a_name_with_another_word_is_a_target(make_data: MakeData, csv_lines: list[str]) -> None:
    folder = make_data()
    for name in ("Arousal", "valence", "Sexiness", "Age_of_joy", "Genderedness", "Startle"):
        assert rewritten(folder, with_column(csv_lines, name, "1")).targets == ("Awe", "Fear", name)


def test_n7_the_speaker_is_known_by_any_usual_name(make_data: MakeData, csv_lines: list[str]) -> None:
    folder = make_data()
    for name in "subject_id SUBJECT_ID SubjectID subject Speaker speaker_id spk participant".split():
        lines = [line.replace("Subject_ID", name) for line in csv_lines]
        assert rewritten(folder, lines).splits["Train"].clips[3].speaker == "Train_1", name
        data = rewritten(folder, [line.replace("Val_4", "Train_0") for line in lines])
        assert any("SPEAKER LEAK: 1 speaker " in warning for warning in data.warnings), name


def test_blanks_are_counted_in_train_and_val(make_data: MakeData, csv_lines: list[str]) -> None:
    lines = [
        ",".join([*line.split(",")[:-1], ""]) if i in (1, 2, 9, 13) else line
        for i, line in enumerate(csv_lines)
    ]
    assert read_data(make_data(lines)).warnings == (
        "blank, and left out of losses and metrics, of 8 clips in Train: Fear 2; of 4 clips in Val: Fear 1",
    )


def test_n7_the_table_may_name_speakers_twice(make_data: MakeData, csv_lines: list[str]) -> None:
    data = read_data(make_data(with_column(csv_lines, "speaker", "7")))
    assert data.splits["Train"].clips[3].speaker == "Train_1"


def test_n7_the_columns_that_a_table_needs_are_known_in_any_spelling(
    make_data: MakeData, csv_lines: list[str]
) -> None:
    usual = read_data(make_data())
    header = csv_lines[0].replace("File_ID", "file_id").replace("Split", "SPLIT")
    assert read_data(make_data([header, *csv_lines[1:]])).splits["Val"].clips == usual.splits["Val"].clips


def test_n29_a_file_id_that_no_file_can_have_is_one_line(make_data: MakeData, csv_lines: list[str]) -> None:
    folder = make_data()
    for name in ("x" * 300, "x" * 5000, "a/" * 3000 + "b", "x" * 300 + ".wav"):
        with pytest.raises(DataError, match=r"line 4 \(1 in all\) \| .* is not in ") as raised:
            rewritten(folder, [*csv_lines[:3], csv_lines[3].replace("[00002]", name), *csv_lines[4:]])
        assert len(str(raised.value)) < 600


def test_a_column_of_text_is_no_target_and_is_named(make_data: MakeData, csv_lines: list[str]) -> None:
    data = read_data(make_data(with_column(csv_lines, "Remark", "fine")))
    assert data.targets == ("Awe", "Fear")
    assert len(data.warnings) == 1
    assert "ignored: Remark" in data.warnings[0]


def test_without_any_numeric_column_nothing_can_be_trained(make_data: MakeData, csv_lines: list[str]) -> None:
    with pytest.raises(DataError, match="no column of"):
        read_data(make_data([line.rsplit(",", 2)[0] for line in csv_lines]))


@pytest.mark.parametrize("written", ["[00003]", "00003", "00003.wav"])
def test_a_file_is_found_however_its_id_is_written(
    make_data: MakeData, csv_lines: list[str], written: str
) -> None:
    csv_lines[4] = csv_lines[4].replace("[00003]", written)
    folder = make_data(csv_lines)
    clip = read_data(folder).splits["Train"].clips[3]
    assert (clip.file_id, clip.path) == (written, folder / "wav/00003.wav")


def test_files_may_lie_in_folders_below_wav(make_data: MakeData, csv_lines: list[str]) -> None:
    csv_lines[4] = csv_lines[4].replace("[00003]", "[anna/3.flac]")
    folder = make_data(csv_lines)
    (folder / "wav/anna").mkdir()
    (folder / "wav/00003.wav").rename(folder / "wav/anna/3.flac")
    assert read_data(folder).splits["Train"].clips[3].path == folder / "wav/anna/3.flac"


def test_the_country_is_the_readable_one(make_data: MakeData, csv_lines: list[str]) -> None:
    both = read_data(make_data(with_column(csv_lines, "Country", "2")))
    only_number = read_data(make_data([line.replace("Country_string", "Country") for line in csv_lines]))
    assert {clip.country for clip in both.splits["Train"].clips} == {"USA"}
    assert {clip.country for clip in only_number.splits["Train"].clips} == {"USA"}


def test_without_a_subject_column_speakers_are_unknown_and_no_leak(
    make_data: MakeData, csv_lines: list[str]
) -> None:
    csv_lines[0] = csv_lines[0].replace("Subject_ID", "Info")
    data = read_data(make_data(csv_lines))
    assert {clip.speaker for clip in data.splits["Train"].clips} == {""}
    assert data.warnings == ()


def test_a_single_csv_of_another_name_is_taken_and_two_are_refused(make_data: MakeData) -> None:
    folder = make_data()
    (folder / "data_info.csv").rename(folder / "labels.csv")
    assert len(read_data(folder).splits["Train"].clips) == 8
    (folder / "more.csv").write_text("")
    with pytest.raises(DataError, match=r"2 CSV files, none named data_info\.csv"):
        read_data(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere \| not a folder"):
        read_data(tmp_path / "nowhere")


@pytest.mark.parametrize("split", ["Train", "Val"])
def test_too_few_rows_of_a_split_are_refused(make_data: MakeData, csv_lines: list[str], split: str) -> None:
    rows = [line for line in csv_lines[1:] if f",{split}," in line]
    with pytest.raises(DataError, match=rf"1 row with Split {split} \| expected at least 2") as caught:
        read_data(make_data([line for line in csv_lines if line not in rows[1:]]))
    assert caught.value.fix == "make a new split: rrtn data import TABLE OUT --split 0.7,0.15,0.15"


def test_a_table_without_val_says_who_makes_one(make_data: MakeData, csv_lines: list[str]) -> None:
    with pytest.raises(DataError, match=r"0 rows with Split Val \| expected at least 2") as caught:
        read_data(make_data([line for line in csv_lines if ",Val," not in line]))
    assert caught.value.fix == (
        "rrtn data import TABLE OUT takes a Val out of Train, by speakers; rrtn crossval needs none"
    )


def test_a_test_split_is_not_needed(make_data: MakeData, csv_lines: list[str]) -> None:
    data = read_data(make_data(csv_lines[:13]))
    assert data.splits["Test"].clips == ()
    assert data.splits["Test"].ratings.shape == (0, 2)


def test_n11_targets_are_named_once(make_data: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="'Awe' more than once"):
        read_data(make_data(), ("Awe", "Fear", "Awe"))


@pytest.mark.parametrize("cell", ["0.5_44", "1_0", "\u0660.\u0665", "0x1", "0,5 ", "inf"])
def test_n24_a_rating_is_a_decimal_number(
    make_data: Callable[..., Path], csv_lines: list[str], cell: str
) -> None:
    parts = csv_lines[3].split(",")
    parts[5] = f'"{cell}"'
    csv_lines[3] = ",".join(parts)
    came = "Awe has a decimal comma here" if "," in cell else "Awe is not a number"
    with pytest.raises(DataError, match=came):
        read_data(make_data(csv_lines))
