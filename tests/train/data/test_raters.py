"""Tables with a row for each person's rating become one row for each clip."""

import csv
import itertools
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from rrtn.runtime.errors import DataError
from rrtn.train.data.importing import Imported, ImportRequest, import_data
from rrtn.train.data.places import DataPlaces

CLIPS, RATERS = 12, 5
HEADER = ("file", "speaker", "participant", "participant_age", "Awe", "Type")


def rating_of(clip: int, rater: int) -> tuple[str, ...]:
    """Raters of odd numbers hear no awe in clip 3; nobody of clip 4's raters says what type it is."""
    awe = "NA" if clip == 3 and rater % 2 else str(1 + (3 * clip + 2 * rater) % 7)
    kind = "" if clip == 4 else ("gasp", "cry")[(clip // 2 + rater // 3) % 2]
    return f"{clip:02d}", f"s{clip % 6}", f"r{rater}", str(20 + rater), awe, kind


ROWS = [rating_of(clip, rater) for rater, clip in itertools.product(range(RATERS), range(CLIPS))]


def imported(folder: Path, rows: list[tuple[str, ...]], **options: object) -> Imported:
    audio = folder / "audio"
    audio.mkdir(exist_ok=True)
    for i in range(CLIPS):
        (audio / f"{i:02d}.wav").touch()
    with (folder / "ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows([options.pop("header", HEADER), *rows])  # type: ignore[list-item]
    settings = options.pop("settings", {"scale": ["1:7"], "class_targets": ["Type"]})
    return import_data(
        ImportRequest(
            source=folder / "ratings.csv",
            out=folder / "out",
            settings=settings,  # type: ignore[arg-type]
            places=DataPlaces(audio=audio),
            rater_column=str(options.pop("rater_column", "participant")),
            shares=(0.5, 0.34, 0.16),
            **options,  # type: ignore[arg-type]
        )
    )


def test_a_clip_has_the_mean_and_the_class_of_most_raters(tmp_path: Path) -> None:
    made = imported(tmp_path, ROWS)
    of_clip = {
        clip.file_id: rated
        for split in made.data.splits.values()
        for clip, rated in zip(split.clips, split.rated, strict=True)
    }
    assert made.data.targets == ("Awe",)
    assert made.data.columns.labels == ("Awe", "Type=cry", "Type=gasp")
    for i in range(CLIPS):
        awe = [float(row[4]) for row in ROWS if row[0] == f"{i:02d}" and row[4] != "NA"]
        assert of_clip[f"{i:02d}"][0] == pytest.approx(np.mean(awe), rel=1e-8)
        gasps = np.nan if i == 4 else float(i // 2 % 2 == 0)  # three of five raters
        assert of_clip[f"{i:02d}"][2] == pytest.approx(gasps, nan_ok=True)


def test_a_clip_is_one_however_each_rater_writes_its_file(tmp_path: Path) -> None:
    spellings = ("{}", "{}.wav", "C:\\study\\{}.WAV", "[{}]", "audio/{}.flac")
    rows = [(spellings[i // CLIPS].format(row[0]), *row[1:]) for i, row in enumerate(ROWS)]
    made = imported(tmp_path, rows)
    assert made.notes[0].startswith("60 ratings of 12 clips by 5 raters, 5 a clip: ratings are means")
    (tmp_path / "plain").mkdir()
    for name, split in imported(tmp_path / "plain", ROWS).data.splits.items():
        np.testing.assert_array_equal(split.rated, made.data.splits[name].rated)


def test_a_class_that_is_asked_for_in_another_unicode_form_is_that_of_most_raters(tmp_path: Path) -> None:
    header = (*HEADER[:5], unicodedata.normalize("NFD", "Gefühl"))
    settings = {"scale": ["1:7"], "class_targets": [unicodedata.normalize("NFC", "Gefühl")]}
    made = imported(tmp_path, ROWS, header=header, settings=settings)
    assert made.data.columns.labels[1:] == (f"{header[5]}=cry", f"{header[5]}=gasp")


def test_what_became_of_the_other_columns_is_said(tmp_path: Path) -> None:
    made = imported(tmp_path, ROWS)
    header = (tmp_path / "out/data_info.csv").read_text().splitlines()[0]
    assert header == "File_ID,Split,Subject_ID,Awe,Type"  # `participant` is the rater, and no speaker
    assert made.notes[0].startswith("60 ratings of 12 clips by 5 raters, 5 a clip: ratings are means")
    assert "participant_age is left out: it differs between the ratings of a clip" in made.notes


@pytest.mark.parametrize("rater", ["participant", ""])
def test_a_header_without_rows_is_refused(tmp_path: Path, rater: str) -> None:
    with pytest.raises(DataError, match=r"ratings\.csv \| no rows below the header"):
        imported(tmp_path, [], rater_column=rater)


def test_a_column_without_a_name_has_no_mean(tmp_path: Path) -> None:
    """pandas writes its index so; a table without speakers has none by it."""
    rows = [(str(i), row[0], *row[2:]) for i, row in enumerate(ROWS)]
    made = imported(tmp_path, rows, header=("", HEADER[0], *HEADER[2:]))
    assert (tmp_path / "out/data_info.csv").read_text().splitlines()[0] == "File_ID,Split,Subject_ID,Awe,Type"
    assert {clip.speaker for split in made.data.splits.values() for clip in split.clips} == {""}
    assert made.data.targets == ("Awe",)


def test_where_targets_are_named_a_comment_with_a_number_is_left_out_as_any_other(tmp_path: Path) -> None:
    comments = ["2" if i == 7 else f"remark {i}" for i in range(len(ROWS))]
    rows = [(*row, comment) for row, comment in zip(ROWS, comments, strict=True)]
    settings = {"scale": ["1:7"], "targets": ["Awe"]}
    made = imported(tmp_path, rows, header=(*HEADER, "Comment"), settings=settings)
    assert made.data.targets == ("Awe",)
    assert "Comment is left out: it differs between the ratings of a clip" in made.notes
    (tmp_path / "any").mkdir()
    with pytest.raises(DataError, match=r"Comment is not a number.* give --targets without Comment"):
        imported(tmp_path / "any", rows, header=(*HEADER, "Comment"), settings={"scale": ["1:7"]})


def test_a_tie_of_classes_is_blank_and_counted(tmp_path: Path) -> None:
    made = imported(tmp_path, [row for row in ROWS if row[2] == "r0" or (row[2] == "r4" and row[0] < "03")])
    assert "Type: blank for 3 clips with two classes named equally often" in made.notes


def test_ties_that_leave_one_class_are_named(tmp_path: Path) -> None:
    """Two raters who agree on gasp alone."""
    rows = [(*row[:5], "gasp" if row[2] == "r0" or row[0] < "04" else "cry") for row in ROWS[: 2 * CLIPS]]
    with pytest.raises(DataError) as caught:
        imported(tmp_path, rows)
    assert str(caught.value) == (
        "--class-target Type | 1 class left: blank for 8 clips with two classes named equally often | "
        "expected 2 or more | break these ties in the table, or leave this column out"
    )


@pytest.mark.parametrize(
    ("rated", "settings", "said"),
    [
        ("Awe", {"scale": ["1:7"], "targets": ["Awe"]}, "the labels are means over raters"),
        ("age", {"class_targets": ["Type"]}, "each class is the one that most raters named"),
        (
            "Awe",
            {"scale": ["1:7"], "class_targets": ["Type"]},
            "ratings are means over raters, and each class is the one that most raters named",
        ),
    ],
)
def test_what_labels_are_is_said_of_each_kind(
    tmp_path: Path, rated: str, settings: dict[str, object], said: str
) -> None:
    made = imported(tmp_path, ROWS, header=(*HEADER[:4], rated, "Type"), settings=settings)
    assert made.notes[0] == f"60 ratings of 12 clips by 5 raters, 5 a clip: {said}"


REFUSED = {
    "outside the scale, which the mean hides": (7, 4, "8", "Awe is out of range: 8", "line 9 (1 in all)"),
    "no number": (7, 4, "seven", "Awe is not a number", "line 9 (1 in all)"),
    "two speakers of a clip": (7, 1, "s9", "Subject_ID differs", "lines 9, 21, 33 and 2 more (5 in all)"),
}


@pytest.mark.parametrize(("place", "column", "cell", "came", "lines"), REFUSED.values(), ids=REFUSED)
def test_refused_with_their_lines(
    place: int, column: int, cell: str, came: str, lines: str, tmp_path: Path
) -> None:
    changed = [list(row) for row in ROWS]
    changed[place][column] = cell
    settings = {"scale": ["1:7"], "targets": ["Awe"]}
    with pytest.raises(DataError, match=came) as caught:
        imported(tmp_path, [tuple(row) for row in changed], settings=settings)
    assert lines in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_minus_one_of_one_rater_in_test_is_refused(tmp_path: Path) -> None:
    """There it stands for labels that are kept secret, and a mean with it is none."""
    in_test = imported(tmp_path, ROWS).data.splits["Test"].clips[0].file_id
    place = next(i for i, row in enumerate(ROWS) if row[0] == in_test and row[4] != "NA")
    rows = [(*row[:4], "-1", row[5]) if i == place else row for i, row in enumerate(ROWS)]
    (tmp_path / "again").mkdir()
    with pytest.raises(DataError, match="-1 in Test, for a clip that has ratings") as caught:
        imported(tmp_path / "again", rows)
    assert f"line {place + 2} (1 in all)" in str(caught.value)
    of_all = [(*row[:4], "-1", row[5]) if row[0] == in_test else row for row in ROWS]
    (tmp_path / "hidden").mkdir()
    made = imported(tmp_path / "hidden", of_all)
    assert np.isnan(made.data.splits["Test"].rated[0, 0])


def test_a_minus_one_in_test_beside_negative_ratings_names_the_scale_that_holds_it(tmp_path: Path) -> None:
    in_test = imported(tmp_path, ROWS).data.splits["Test"].clips[0].file_id
    negative = [(*row[:4], "NA" if row[4] == "NA" else f"{(int(row[4]) - 4) / 4}", row[5]) for row in ROWS]
    place = next(i for i, row in enumerate(ROWS) if row[0] == in_test and row[4] != "NA")
    rows = [(*row[:4], "-1", row[5]) if i == place else row for i, row in enumerate(negative)]
    (tmp_path / "again").mkdir()
    with pytest.raises(DataError, match="-1 in Test, for a clip that has ratings") as caught:
        imported(tmp_path / "again", rows, settings={"scale": ["auto"], "targets": ["Awe"]})
    assert caught.value.fix == (
        "leave the cell empty where a rater gave none; where -1 is a rating: --scale auto,Awe=-1:1"
    )


def test_one_target_of_test_may_be_hidden_and_another_not(tmp_path: Path) -> None:
    """A -1 is beside ratings only where these are of the same target."""
    (tmp_path / "first").mkdir()
    in_test = imported(tmp_path / "first", ROWS).data.splits["Test"].clips[0].file_id
    hidden = {(*row, "-1" if row[0] == in_test else "5") for row in ROWS}
    made = imported(tmp_path, sorted(hidden), header=(*HEADER, "Joy"))
    assert made.data.targets == ("Awe", "Joy")
    (clip,) = [i for i, one in enumerate(made.data.splits["Test"].clips) if one.file_id == in_test]
    awe, joy = made.data.splits["Test"].rated[clip][:2]
    assert not np.isnan(awe) and np.isnan(joy)


def test_a_row_that_stands_twice_counts_once_and_two_ratings_of_one_rater_are_said(tmp_path: Path) -> None:
    another = (*ROWS[1][:4], "2" if ROWS[1][4] != "2" else "3", ROWS[1][5])
    (tmp_path / "whole").mkdir()
    (tmp_path / "more").mkdir()
    whole = imported(tmp_path / "whole", ROWS)
    made = imported(tmp_path / "more", [*ROWS, ROWS[0], another])
    assert "1 repeated row, taken once" in made.notes
    assert "1 clip with several ratings of one rater: each counts" in made.notes
    assert not any("repeated" in note or "several ratings" in note for note in whole.notes)
    first = {
        clip.file_id: rated[0]
        for split in whole.data.splits.values()
        for clip, rated in zip(split.clips, split.rated, strict=True)
    }
    later = {
        clip.file_id: rated[0]
        for split in made.data.splits.values()
        for clip, rated in zip(split.clips, split.rated, strict=True)
    }
    assert {clip for clip in first if first[clip] != later[clip]} == {ROWS[1][0]}


def test_the_rows_of_several_raters_lead_to_the_option(tmp_path: Path) -> None:
    imported(tmp_path, ROWS)
    with pytest.raises(DataError) as caught:
        import_data(
            ImportRequest(
                source=tmp_path / "ratings.csv",
                out=tmp_path / "again",
                settings={"scale": ["1:7"]},
                places=DataPlaces(audio=tmp_path / "audio", speaker_column="speaker"),
            )
        )
    assert caught.value.fix == (
        "remove all but one, or merge them; where each is one person's rating: rrtn data import "
        "--rater-column NAME, which needs a column of these people"
    )


def test_a_column_of_raters_that_is_not_there(tmp_path: Path) -> None:
    request = ImportRequest(
        source=tmp_path / "r.csv", out=tmp_path / "out", settings={}, places=DataPlaces(), rater_column="who"
    )
    (tmp_path / "r.csv").write_text("file,Awe\na,1\n")
    with pytest.raises(DataError, match=r"--rater-column \| who \| expected a column of .*file, Awe"):
        import_data(request)


def test_a_column_that_has_the_name_of_the_raters_is_named(tmp_path: Path) -> None:
    header = ("file", "speaker", "participant", "Rater_ID", "Awe", "Type")
    with pytest.raises(DataError) as caught:
        imported(tmp_path, ROWS, header=header)
    assert str(caught.value).endswith(
        "line 1 | column 'Rater_ID' beside 'participant', which takes its place | expected each name once | "
        "rename 'Rater_ID'"
    )
    with pytest.raises(DataError, match=r"line 1 \| column 'participant' twice \| expected each name once$"):
        imported(tmp_path, ROWS, header=("file", "speaker", "participant", "participant", "Awe", "Type"))


def test_clips_and_raters_of_the_notes_are_counted_once(tmp_path: Path) -> None:
    """Two raters of one clip have rated it twice; and cells that name nobody are no further raters."""
    twice = [(*line[:4], "2" if line[4] != "2" else "3", line[5]) for line in (ROWS[0], ROWS[CLIPS])]
    unnamed = [(*ROWS[2][:2], name, *ROWS[2][3:]) for name in ("", "NA")]
    (tmp_path / "whole").mkdir()
    (tmp_path / "more").mkdir()
    whole = imported(tmp_path / "whole", ROWS)
    more = imported(tmp_path / "more", [*ROWS, *twice, *unnamed])
    assert "1 clip with several ratings of one rater: each counts" in more.notes
    raters = len({line[2] for line in ROWS})
    assert any(f" by {raters} raters, " in note for note in whole.notes)
    assert any(f" by {raters} raters and some without a name, " in note for note in more.notes)
