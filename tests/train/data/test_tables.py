"""Tables as people and programs write them: each is read as it is meant, or refused in one line."""

import codecs
import gzip
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rrtn.runtime import FrontendSpec
from rrtn.runtime.errors import DataError, RrtnError
from rrtn.train.data.data_check import check_data
from rrtn.train.data.data_set import DataSet, read_data
from rrtn.train.data.places import DataPlaces
from rrtn.train.data.ratings import alike_names
from rrtn.train.data.table_text import read_text_table
from rrtn.train.data.targets import LabelChoice
from rrtn.train.request import new_config

# Name, split, speaker, Valence, Arousal of the plain table.
ROWS = [
    ("a1", "Train", "s1", "0.25", "0.5"),
    ("a2", "Train", "s1", "0.75", "1"),
    ("a3", "Train", "s2", "0.5", "0.125"),
    ("b1", "Val", "s3", "0.125", "0.25"),
    ("b2", "Val", "s4", "1", "0"),
    ("c1", "Test", "s5", "", ""),
]
HEADER = ("File_ID", "Split", "Subject_ID", "Valence", "Arousal")
SOUNDS = ("a1.wav", "a2.wav", "a3.wav", "b1.wav", "b2.wav", "c1.wav")
Table = Callable[[], str | bytes]


def table(
    header: tuple[str, ...] = HEADER,
    rows: list[tuple[str, ...]] = ROWS,
    *,
    by: str = ",",
    end: str = "\n",
) -> str:
    return "".join(by.join(cells) + end for cells in [header, *rows])


def renamed(**names: str) -> Callable[[], str]:
    return lambda: table(tuple(names.get(name, name) for name in HEADER))


def changed(column: int, texts: dict[str, str]) -> Callable[[], str]:
    return lambda: table(
        rows=[
            tuple(texts.get(cell, cell) if k == column else cell for k, cell in enumerate(row))
            for row in ROWS
        ]
    )


def hidden(text: str) -> Callable[[], str]:
    """Test's ratings are kept secret so."""
    return lambda: table(rows=[*ROWS[:-1], (*ROWS[-1][:3], text, text)])


def with_column(name: str, values: str = "0 1 0 1 0 1") -> Callable[[], str]:
    rows = [(*row, value) for row, value in zip(ROWS, values.split(), strict=True)]
    return lambda: table((*HEADER, name), rows)


def decimal_commas(by: str, rows: list[tuple[str, ...]] = ROWS) -> str:
    return table(rows=[tuple(cell.replace(".", ",") for cell in row) for row in rows], by=by)


def quoted(tabs: str) -> str:
    """As pandas writes numbers with to_csv(decimal=",")."""
    lines = [
        [f'"{cell}"' if "," in cell else cell for cell in line.split("\t")] for line in tabs.splitlines()
    ]
    return "".join(",".join(cells) + "\n" for cells in lines)


def splits(train: str, val: str, test: str) -> Callable[[], str]:
    return changed(1, {"Train": train, "Val": val, "Test": test})


EXCEL = table(by=";", end="\r\n") + ";;;;\r\n" * 3
READ: dict[str, Table] = {
    "plain": table,
    "tabs": lambda: table(by="\t"),
    "semicolons": lambda: table(by=";"),
    "semicolons and decimal commas": lambda: decimal_commas(";"),
    "tabs and decimal commas": lambda: decimal_commas("\t"),
    "commas and decimal commas in quotes": lambda: quoted(decimal_commas("\t")),
    "decimal commas without a zero": lambda: decimal_commas(";").replace("0,5", ",5"),
    "UTF-8 with a mark": lambda: codecs.BOM_UTF8 + table().encode(),
    "UTF-16, little end first": lambda: codecs.BOM_UTF16_LE + table().encode("utf-16-le"),
    "UTF-16, big end first": lambda: codecs.BOM_UTF16_BE + table().encode("utf-16-be"),
    "UTF-16 without a mark": lambda: table(by="\t").encode("utf-16-le"),
    "UTF-16 without a mark, big end first": lambda: table(by="\t").encode("utf-16-be"),
    "Excel's Unicode text": lambda: table(by="\t", end="\r\n").encode("utf-16"),
    "Excel's empty rows": lambda: EXCEL,
    "Excel's line sep=;": lambda: f"sep=;\r\n{decimal_commas(';')}",
    "empty rows above": lambda: f"\n,,,,\n{table()}",
    "empty columns at the right": lambda: table().replace("\n", ",,\n"),
    "empty cells at the right of some rows": lambda: table().replace("0.5\n", "0.5,,\n"),
    "line ends of an old Mac": lambda: table(end="\r"),
    "all in quotes": lambda: table(rows=[tuple(f'"{cell}"' for cell in row) for row in ROWS]),
    "spaces around": lambda: table(by=" ; "),
    "an index column": lambda: table(("", *HEADER), [(str(i), *row) for i, row in enumerate(ROWS)]),
    "columns in another order": lambda: table(
        tuple(HEADER[k] for k in (3, 4, 2, 1, 0)), [tuple(row[k] for k in (3, 4, 2, 1, 0)) for row in ROWS]
    ),
    **{f"file: {name}": renamed(File_ID=name) for name in ("file", "FILE", "filename", "File Name", "path")},
    **{f"split: {name}": renamed(Split=name) for name in ("split", "SPLIT", "partition", "Partition")},
    **{
        f"speaker: {name}": renamed(Subject_ID=name)
        for name in ("speaker", "Speaker_ID", "SUBJECT", "participant", "spk")
    },
    "train, dev, test": splits("train", "dev", "test"),
    "train, devel, test": splits("train", "devel", "test"),
    "TRAIN, VAL, TEST": splits("TRAIN", "VAL", "TEST"),
    "training, validation, test": splits("training", "validation", "test"),
    **{f"Test of {text}": hidden(text) for text in ("-1", "NA", "nan", "-1.0")},
    "Test without its rows": lambda: table(rows=ROWS[:-1]),
    "a speaker of 0 and 1": with_column("speaker"),
    "age and sex": with_column("Age", "31 31 40 25 60 22"),
    "numbers of takes": with_column("take_no", "1 2 3 4 5 6"),
    "names with suffixes": changed(0, {"a1": "a1.wav", "b1": "b1.wav"}),
    "names with another suffix": changed(0, {"a1": "a1.flac", "b1": "b1.MP3"}),
    "names in capitals": changed(0, {"a1": "A1", "b1": "B1.WAV"}),
    "names in brackets": changed(0, {"a1": "[a1]", "b1": "[b1]"}),
    "paths of another machine": changed(0, {"a1": "C:\\study\\a1.wav", "b1": "/home/me/data/b1.wav"}),
    "paths below a folder": changed(0, {"a1": "recordings/a1.wav"}),
}

REFUSED: dict[str, tuple[Table, tuple[str, ...]]] = {
    "a workbook": (lambda: b"PK\x03\x04\x14\0", ("a workbook", "CSV UTF-8")),
    "a compressed table": (lambda: gzip.compress(table().encode()), ("a compressed file", "CSV UTF-8")),
    "a Parquet table": (lambda: b"PAR1\x15\x04", ("a Parquet file", "CSV UTF-8")),
    "a table of SPSS": (lambda: b"$FL2@(#) IBM SPSS", ("a file of SPSS", "CSV UTF-8")),
    "a table of Stata": (lambda: b"<stata_dta><header>", ("a file of Stata", "CSV UTF-8")),
    "a table of SAS": (lambda: bytes(12) + b"\xc2\xea\x81\x60", ("a file of SAS", "CSV UTF-8")),
    "Latin-1": (lambda: table().replace("s2", "Zoë").encode("latin-1"), ("line 4 ", "not UTF-8")),
    "nothing": (lambda: "", ("empty file",)),
    "empty rows alone": (lambda: ";;;\n;;;\n", ("empty file",)),
    "a title above": (lambda: f"Ratings of May\n{table()}", ("line 1", "no column File_ID")),
    "pipes": (lambda: table(by="|"), ("line 1", "one column", "commas, semicolons or tabs")),
    "no file column": (renamed(File_ID="Stimulus"), ("no column File_ID", "--file-column NAME")),
    "no split column": (renamed(Split="Phase"), ("no column Split", "--split-column NAME", "data import")),
    "a column twice": (renamed(Arousal="Valence"), ("column 'Valence' twice",)),
    "an unknown split": (splits("train", "eval", "test"), ("lines 5, 6 (2 in all)", "Split is 'eval'")),
    "no validation": (splits("train", "train", "test"), ("0 rows with Split Val",)),
    "commas and points": (
        lambda: decimal_commas(";").replace("0,125", "0.125", 1),
        ("line 4 (1 in all)", "Arousal has a decimal point here"),
    ),
    "commas and points, with commas in quotes": (
        lambda: quoted(decimal_commas("\t").replace("0,125", "0.125", 1)),
        ("line 4 (1 in all)", "Arousal has a decimal point here"),
    ),
    "a thousand separator": (
        changed(3, {"0.5": "1.234.5"}),
        ("line 4 (1 in all)", "Valence is not a number"),
    ),
    "commas that may part thousands": (
        lambda: table(rows=[(*row[:3], '"4,250"', '"1,125"') for row in ROWS]),
        ("no column of numbers among Valence, Arousal | ", "in Valence, Arousal, 1,234 may be a thousand"),
    ),
    "a rating in words": (changed(4, {"0.5": "high"}), ("line 2 (1 in all)", "Arousal is not a number")),
    "a row too short": (lambda: table().replace(",0.5\n", "\n"), ("line 2 (1 in all)", "has: 4", "5 cells")),
    "rows too long": (
        lambda: table().replace("0.5\n", "0.5,1,2\n").replace("0.125\n", "0.125,1\n"),
        ("lines 2, 4 (2 in all)", "header has: 6, 7", "5 cells"),
    ),
    "an open quote": (lambda: table().replace("s5", '"s5'), ("unexpected end of data",)),
    "a name without a file": (changed(0, {"a2": "a22"}), ("line 3 (1 in all)", "a22.wav is not in")),
    "a name in the wrong folder": (
        changed(0, {"a2": "anna/deep"}),
        ("line 3 (1 in all)", "deep.wav is not in"),
    ),
    "a name in another folder": (
        changed(0, {"a2": "ben/take"}),
        ("line 3 (1 in all)", "take.wav is not in"),
    ),
    "a name outside": (changed(0, {"a2": "../a2"}), ("line 3 (1 in all)", "File_ID is '../a2'")),
    "an absolute name": (
        changed(0, {"a2": "/etc/passwd"}),
        ("line 3 (1 in all)", "File_ID is '/etc/passwd'"),
    ),
    "a name of two files": (
        changed(0, {"a2": "twice"}),
        ("line 3 (1 in all)", "twice may be bo/twice.wav or cy"),
    ),
    "one file twice": (changed(0, {"a2": "A1.wav"}), ("line 3 (1 in all)", "A1.wav is the file of")),
    "numbers of speakers alone": (
        lambda: table(("File_ID", "Split", "speaker", "Age"), [(*row[:2], "1", "30") for row in ROWS]),
        ("no column of",),
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the sounds of the table, of which nothing is decoded here."""
    for name in (*SOUNDS, "anna/take.wav", "bo/twice.wav", "cy/twice.flac"):
        path = tmp_path / "wav" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def read(folder: Path, content: str | bytes, **options: object) -> DataSet:
    (folder / "data_info.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_data(folder, **options)  # type: ignore[arg-type]


def test_there_are_more_than_fifty_tables() -> None:
    assert len(READ) + len(REFUSED) >= 50


def test_why_a_column_with_commas_is_no_target_is_said(folder: Path) -> None:
    """Also where another one has numbers, and where the column is named."""
    text = table(rows=[(*row[:4], '"4,250"') for row in ROWS])
    reason = "1,234 may be a thousand, 1.234 is none"
    assert any(f"Arousal; in Arousal, {reason}" in warning for warning in read(folder, text).warnings)
    with pytest.raises(DataError, match=f"Arousal is not a number: '4,250' .*{reason}"):
        read(folder, text, targets=["Arousal"])


@pytest.mark.parametrize("name", READ)
def test_a_table_is_read_as_it_is_meant(name: str, folder: Path) -> None:
    data = read(folder, READ[name]())
    assert set(data.targets) == {"Valence", "Arousal"}
    order = [data.targets.index(target) for target in ("Valence", "Arousal")]
    for split, clips in data.splits.items():
        rows = [row for row in ROWS if row[1] == split]
        if split == "Test" and name == "Test without its rows":
            rows = []
        assert [clip.path for clip in clips.clips] == [folder / f"wav/{row[0]}.wav" for row in rows]
        assert [clip.speaker for clip in clips.clips] == [row[2] for row in rows]
        rated = np.array([[float(cell or "nan") for cell in row[3:]] for row in rows], np.float32)
        np.testing.assert_array_equal(clips.ratings[:, order], rated.reshape(-1, 2))


@pytest.mark.parametrize("name", REFUSED)
def test_a_faulty_table_is_refused_in_one_line(name: str, folder: Path) -> None:
    content, parts = REFUSED[name]
    with pytest.raises(RrtnError) as caught:
        read(folder, content())
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(("one", "other"), [("ratings", "Age"), ("Rater 1", "Rater 2")])
def test_numbers_that_are_metadata_by_their_names_are_named_where_nothing_else_is(
    one: str, other: str, folder: Path
) -> None:
    content = table((*HEADER[:3], one, other))
    with pytest.raises(DataError, match=rf"no column of labels \|.* {one}, {other} have .*--targets NAME"):
        read(folder, content)
    assert read(folder, content, targets=[one]).targets == (one,)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_label_is_known_in_either_unicode_form(folder: Path, forms: tuple[str, str]) -> None:
    """And is called as the table calls it."""
    anger, kind = (unicodedata.normalize(forms[0], name) for name in ("Ärger", "Gefühl"))
    typed = [unicodedata.normalize(forms[1], name) for name in (anger, kind)]
    rows = [(*row[:3], str(1 + i), "ab"[i % 2]) for i, row in enumerate(ROWS)]
    content = table((*HEADER[:3], anger, kind), rows)
    choice = LabelChoice(scale=(f"{typed[0]}=1:9",), class_targets=(typed[1],))
    data = read(folder, content, targets=typed[:1], labels=choice)
    assert data.columns.labels == (anger, f"{kind}=a", f"{kind}=b")
    assert [str(scale) for scale in data.columns.scales] == ["1:9"]
    with pytest.raises(DataError, match=r"--class-target .* that --targets does not name"):
        read(folder, content, targets=[anger, kind], labels=choice)


def test_where_names_hold_commas_the_list_of_a_file_is_told(folder: Path) -> None:
    content = table((*HEADER[:3], '"Nat,ural"', "Awe"))
    with pytest.raises(DataError, match=r"^--targets \| Nat, ural .* targets = \['Nat,ural'\] in data.toml"):
        read(folder, content, targets=["Nat", "ural"])
    assert read(folder, content, targets=["Nat,ural"]).targets == ("Nat,ural",)
    choice = LabelChoice(class_targets=("Nat", "ural"))
    with pytest.raises(DataError, match=r"^--class-target \| .* class_targets = \['Nat,ural'\] in data.toml"):
        read(folder, content, labels=choice)


def test_numbers_that_have_lost_their_zeros_are_told_the_file(folder: Path) -> None:
    """As a spreadsheet makes 7 of 007."""
    for name in ("007.wav", "0010.flac"):
        (folder / "wav" / name).touch()
    for cell, there in (("7", "007.wav"), ("10.wav", "0010.flac"), ("7.0", "007.wav"), ("[7]", "007.wav")):
        content = str(changed(0, {"a2": cell, "b1": "8"})())
        with pytest.raises(DataError, match=r"lines 3, 5 \(2 in all\) ") as raised:
            read(folder, content)
        assert raised.value.fix == f"write the names as the files have them: {there} is there"
    with pytest.raises(DataError, match="add the files, or remove these rows"):
        read(folder, changed(0, {"a2": "8"})())


def test_a_folder_of_recordings_that_is_not_there_is_named(folder: Path) -> None:
    for places in (DataPlaces(audio=folder / "nope"), DataPlaces(audio=folder / "wav/a1.wav")):
        with pytest.raises(DataError) as raised:
            read(folder, table(), places=places)
        assert str(raised.value).startswith(f"{places.audio} | no such folder | expected the folder of the")
    (folder / "wav").rename(folder / "sounds")
    with pytest.raises(DataError, match=r"/wav \| no such folder .* --audio FOLDER"):
        read(folder, table())


def test_all_rows_that_write_a_file_in_another_way_are_counted(folder: Path) -> None:
    again = [(f"{row[0]}.wav", *row[1:]) for row in ROWS]
    with pytest.raises(
        DataError, match=r"lines 8, 9, 10 and 3 more \(6 in all\) \| a1.wav is the file of a1"
    ):
        read(folder, table(rows=[*ROWS, *again]))


def test_a_speaker_of_0_and_1_is_learned_by_who_names_it_alone(folder: Path) -> None:
    content = with_column("speaker")()
    assert read(folder, content).numeric_metadata == ("speaker",)
    assert read(folder, content, targets=("speaker",)).targets == ("speaker",)


def test_a_column_that_is_named_as_the_speaker_is_no_target(folder: Path) -> None:
    content = with_column("Voice")()
    data = read(folder, content, places=DataPlaces(speaker_column="Voice"))
    assert data.targets == ("Valence", "Arousal")
    assert [clip.speaker for clip in data.splits["Train"].clips] == ["0", "1", "0"]
    assert read(folder, content).targets == ("Valence", "Arousal", "Voice")


INDEXED = table(("", *HEADER[:2], *HEADER[3:]), [(str(i), *row[:2], *row[3:]) for i, row in enumerate(ROWS)])


def test_a_column_without_a_name_is_neither_speaker_nor_country_nor_metadata(folder: Path) -> None:
    """pandas writes its index so."""
    data = read(folder, INDEXED)
    assert data.targets == ("Valence", "Arousal")
    for split in data.splits.values():
        assert {(clip.speaker, clip.country) for clip in split.clips} == {("", "")}
    assert data.numeric_metadata == ()
    assert [*data.cells["a1"]] == ["File_ID", "Split", "Valence", "Arousal"]


def test_several_columns_without_a_name_are_left_out(folder: Path) -> None:
    lines = INDEXED.splitlines()
    data = read(folder, "".join(f"{i if i else ''},{line}\n" for i, line in enumerate(lines)))
    assert data.targets == ("Valence", "Arousal")


def test_a_row_is_as_long_as_the_header_with_the_columns_without_a_name(folder: Path) -> None:
    with pytest.raises(DataError, match=r"line 3 .* header has: 4 \| expected 5 cells"):
        read(folder, INDEXED.replace("1,a2", "a2"))


def test_a_file_that_has_a_number_for_a_name_is_no_metadata(folder: Path) -> None:
    (folder / "wav/a1.wav").rename(folder / "wav/17.wav")
    assert read(folder, table().replace("a1", "17")).numeric_metadata == ()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("File_ID", "no column File_ID; the header has File_ID2, "),
        ("Split", "no column Split; the header has File_ID, Split2, "),
    ],
)
def test_a_name_with_a_digit_is_another_name(column: str, message: str, folder: Path) -> None:
    """Set1 is one of several sets, and no split."""
    with pytest.raises(DataError, match=message):
        read(folder, renamed(**{column: f"{column}2"})())


def test_a_second_speaker_is_not_the_speaker(folder: Path) -> None:
    data = read(folder, renamed(Subject_ID="Speaker2")())
    assert {clip.speaker for split in data.splits.values() for clip in split.clips} == {""}
    assert read(folder, with_column("Age2")()).numeric_metadata == ("Age2",)


SAME_PEOPLE = ("1 1 2 3 4 5", "Ann Ann Bo Cy Dee Eve")
SAME_SPLITS = ("train train train dev dev test", "Train Train Train Val Val Test")
SAME_FILES = ("a1.wav a2.wav a3.wav b1.wav b2.wav c1.wav", "C:\\s\\a1 /s/a2 s/A3.wav b1 [b2] c1.flac")


def two_columns(role: str, one: str, other: str, cells: tuple[str, str]) -> str:
    """The table with two columns in place of the one of a role."""
    at = HEADER.index(role)
    header = (*HEADER[:at], *HEADER[at + 1 :], one, other)
    return table(
        header,
        [
            (*row[:at], *row[at + 1 :], *both)
            for row, both in zip(ROWS, zip(*(text.split() for text in cells), strict=True), strict=True)
        ],
    )


@pytest.mark.parametrize(
    ("role", "columns", "cells", "what"),
    [
        ("Subject_ID", ("speaker", "subject"), (SAME_PEOPLE[0], "x y x y x y"), "speakers"),
        ("Subject_ID", ("actor", "participant"), (SAME_PEOPLE[0], "x y x y x y"), "speakers"),
        ("Subject_ID", ("speaker", "worker_id"), (SAME_PEOPLE[0], "1 1 2 2 4 5"), "speakers"),
        ("Split", ("split", "partition"), (SAME_SPLITS[0], "train dev train dev dev test"), "splits"),
        ("File_ID", ("file", "path"), (SAME_FILES[0], "a2.wav a1.wav a3.wav b1.wav b2.wav c1.wav"), "files"),
    ],
)
def test_of_two_columns_of_one_role_that_differ_the_one_that_is_passed_over_is_named(
    role: str, columns: tuple[str, str], cells: tuple[str, str], what: str, folder: Path
) -> None:
    """Whatever their order: who speaks comes before who may be listening."""
    flag = {"File_ID": "file", "Split": "split", "Subject_ID": "speaker"}[role]
    taken, passed_over = columns
    for one, other in ((0, 1), (1, 0)):
        content = two_columns(role, columns[one], columns[other], (cells[one], cells[other]))
        data = read(folder, content)
        assert [warning for warning in data.warnings if "passed over" in warning] == [
            f"data_info.csv: {taken} names the {what}; {passed_over} differs from it and is passed over: "
            f"--{flag}-column {passed_over} takes it"
        ]
        assert len({clip.speaker for split in data.splits.values() for clip in split.clips}) == 5
    named = read(folder, content, places=DataPlaces(**{f"{flag}_column": passed_over}))
    assert not any("passed over" in warning for warning in named.warnings)


@pytest.mark.parametrize(
    ("role", "columns", "cells"),
    [
        ("Subject_ID", ("speaker", "subject"), SAME_PEOPLE),
        ("Subject_ID", ("speaker", "subject"), (SAME_PEOPLE[0], "NA NA NA NA NA NA")),
        ("Subject_ID", ("actor", "person"), ("no no no no no no", SAME_PEOPLE[1])),
        ("Subject_ID", ("speaker", "person"), (SAME_PEOPLE[0], "Ann NA Bo NA Dee NA")),
        ("Split", ("split", "partition"), SAME_SPLITS),
        ("Split", ("subset", "set"), (SAME_SPLITS[0], "A B A B A B")),
        ("Split", ("split", "set"), ("A B A B A B", SAME_SPLITS[1])),
        ("File_ID", ("file", "path"), SAME_FILES),
        ("File_ID", ("clip", "filename"), ("1 2 3 4 5 6", SAME_FILES[0])),
        ("File_ID", ("file", "path"), ("1 2 3 4 5 6", SAME_FILES[0])),
    ],
)
def test_two_columns_of_one_role_that_agree_are_no_problem(
    role: str, columns: tuple[str, str], cells: tuple[str, str], folder: Path
) -> None:
    data = read(folder, two_columns(role, *columns, cells))
    assert [clip.path.name for clip in data.splits["Train"].clips] == ["a1.wav", "a2.wav", "a3.wav"]
    assert len({clip.speaker for split in data.splits.values() for clip in split.clips}) == 5
    assert not any("passed over" in warning for warning in data.warnings)


def test_the_exact_names_of_hume_vb_win_and_what_differs_is_said(folder: Path) -> None:
    header = (*HEADER, "partition", "speaker", "filename", "actor")
    more = ["train x b1.wav 1", "test y a2.wav 1", "test x c1 2", "dev y b1 3", "dev x b2 4", "test x c1 5"]
    rows = [(*row, *cells.split()) for row, cells in zip(ROWS, more, strict=True)]
    data = read(folder, table(header, rows))
    assert [clip.speaker for clip in data.splits["Train"].clips] == ["s1", "s1", "s2"]
    assert [clip.path.name for clip in data.splits["Val"].clips] == ["b1.wav", "b2.wav"]
    assert [warning for warning in data.warnings if "passed over" in warning] == [
        "data_info.csv: File_ID names the files; filename differs from it and is passed over: "
        "--file-column filename takes it",
        "data_info.csv: Split names the splits; partition differs from it and is passed over: "
        "--split-column partition takes it",
        "data_info.csv: Subject_ID names the speakers; speaker differs from it and is passed over: "
        "--speaker-column speaker takes it",
    ]


def test_a_column_may_name_the_files_and_the_speakers(folder: Path) -> None:
    """As where each clip is taken for a speaker of its own."""
    data = read(folder, table(HEADER, ROWS), places=DataPlaces(speaker_column="File_ID"))
    assert len({clip.speaker for split in data.splits.values() for clip in split.clips}) == 6


def test_numbers_that_may_have_separators_of_thousands_are_no_decimals(folder: Path) -> None:
    text = with_column("Views", '"1,250" "2,500" 950 "1,000" 10 7')()
    assert isinstance(text, str)
    with pytest.raises(DataError, match="Views is not a number"):
        read(folder, text)


def test_columns_of_any_name_are_given_by_hand(folder: Path) -> None:
    content = table(("Stimulus", "Phase", "Who", "Valence", "Arousal"))
    places = DataPlaces(file_column="Stimulus", split_column="Phase", speaker_column="Who")
    data = read(folder, content, places=places)
    assert [clip.speaker for clip in data.splits["Val"].clips] == ["s3", "s4"]
    assert data.targets == ("Valence", "Arousal")
    with pytest.raises(RrtnError, match=r"^--file-column \| Datei \| expected a column of .*Stimulus, Phase"):
        read(folder, content, places=DataPlaces(file_column="Datei"))


def test_table_and_audio_lie_anywhere(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (folder / "wav").rename(elsewhere)
    (tmp_path / "ratings.tsv").write_text(table(by="\t"))
    places = DataPlaces(csv=tmp_path / "ratings.tsv", audio=elsewhere)
    assert read_data(tmp_path, places=places).splits["Val"].clips[0].path == elsewhere / "b1.wav"


def test_a_table_beside_its_audio_needs_no_wav_folder(folder: Path) -> None:
    (folder / "wav/ratings.csv").write_text(table())
    data = read_data(folder / "wav", places=DataPlaces(csv=folder / "wav/ratings.csv"))
    assert data.splits["Val"].clips[0].path == folder / "wav/b1.wav"


def test_a_name_outside_is_refused_though_that_file_is_there(folder: Path) -> None:
    (folder / "outside.wav").touch()
    for name in ("../outside", "..\\outside", str(folder / "outside.wav"), str(folder / "outside")):
        with pytest.raises(DataError, match=r"line 3 \(1 in all\) \| File_ID is .* the name of a file below"):
            read(folder, table().replace("a2", name))
    data = read(folder, table().replace("a2", str(folder / "wav/a2.wav")))
    assert data.splits["Train"].clips[1].path == folder / "wav/a2.wav"


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_is_found_in_either_unicode_form(folder: Path, forms: tuple[str, str]) -> None:
    on_disk, in_table = (unicodedata.normalize(form, "Geräusch") for form in forms)
    (folder / "wav/a1.wav").rename(folder / f"wav/{on_disk}.wav")
    data = read(folder, table().replace("a1", in_table))
    assert data.splits["Train"].clips[0].path == folder / f"wav/{on_disk}.wav"


def test_the_folder_that_a_name_gives_decides_between_two_files(folder: Path) -> None:
    data = read(folder, table().replace("a1", "bo/twice").replace("a2", "twice.flac"))
    assert [clip.path.relative_to(folder / "wav") for clip in data.splits["Train"].clips[:2]] == [
        Path("bo/twice.wav"),
        Path("cy/twice.flac"),
    ]


def test_the_file_whose_folders_are_those_of_the_name_comes_first(folder: Path) -> None:
    for name in ("far.flac", "cy/far.flac"):
        (folder / "wav" / name).touch()
    data = read(folder, table().replace("a1", "D:\\old\\cy\\far"))
    assert data.splits["Train"].clips[0].path == folder / "wav/cy/far.flac"


def test_a_folder_that_is_not_there_is_said_where_those_of_other_rows_are(folder: Path) -> None:
    """The file of another folder may be of another speaker."""
    data = read(folder, table().replace("a1", "bo/twice").replace("a2", "spk3/a2"))
    assert data.splits["Train"].clips[1].path == folder / "wav/a2.wav"
    assert data.warnings[0] == (
        "data_info.csv: in 1 row the named folder is not there, though those of other rows are "
        "(first: line 3, spk3/a2 is taken as wav/a2.wav)"
    )


@pytest.mark.parametrize(
    "names",
    [
        {"a1": "C:\\study\\bo\\twice", "a2": "C:\\study\\a2"},  # what is before the folders is alike
        {"a1": "recordings/a1", "a2": "more/a2"},  # no row has a folder that is there
        {"a1": "bo/twice", "a2": "wav/a2"},  # the audio's own folder
        {"a1": "bo/twice", "a2": "take"},
        {"a1": "/old/one/bo/twice", "a2": "/old/other/a2"},  # two other machines
    ],
)
def test_folders_of_another_machine_are_no_warning(folder: Path, names: dict[str, str]) -> None:
    (folder / "wav/take.wav").touch()
    data = read(folder, changed(0, names)())
    assert [warning for warning in data.warnings if "the named folder" in warning] == []


def test_files_without_a_row_are_counted_in_every_folder_and_form(folder: Path) -> None:
    (folder / "wav/notes.txt").touch()
    (folder / "wav/._a1.wav").touch()  # macOS's, and what was thrown away
    (folder / "wav/.Trash").mkdir()
    (folder / "wav/.Trash/old.wav").touch()
    (warning,) = read(folder, table()).warnings
    assert warning == "wav/: 3 files without a row in the CSV, ignored (first: anna/take.wav)"


def test_dev_and_val_in_one_table_are_said(folder: Path) -> None:
    data = read(folder, table().replace("b1,Val", "b1,dev"))
    assert data.warnings[0] == "Split: dev and val are all taken as Val"


def test_settings_that_lie_beside_the_table_are_taken(folder: Path, tmp_path: Path) -> None:
    (folder / "wav").rename(tmp_path / "sounds")
    (folder / "data.toml").write_text('audio = "sounds"\nspeaker_column = "Voice"\n')
    data = read(folder, with_column("Voice")())
    assert data.splits["Train"].clips[0].path == tmp_path / "sounds/a1.wav"
    assert data.targets == ("Valence", "Arousal")
    (folder / "data.toml").write_text("fraction = 0.5\n")
    with pytest.raises(RrtnError, match=r"data\.toml \| unknown: fraction"):
        read(folder, table())


def test_a_speaker_is_one_in_either_unicode_form_and_na_is_nobody(folder: Path) -> None:
    """Speaker leaks are counted by them."""
    name = "J\u00fcrgen"
    forms = {"s1": name, "s3": unicodedata.normalize("NFD", name), "s2": "NA", "s4": "nan"}
    (folder / "data_info.csv").write_text(str(changed(2, forms)()), encoding="utf-8")
    data = read_data(folder)
    assert [clip.speaker for clip in data.splits["Train"].clips] == [name, name, ""]
    assert [clip.speaker for clip in data.splits["Val"].clips] == [name, ""]
    assert any(
        f"SPEAKER LEAK: 1 speaker in more than one split (first: {name})" in one for one in data.warnings
    )


def test_targets_that_may_be_one_are_told(folder: Path) -> None:
    data = read(folder, str(with_column("valence")()))
    assert alike_names(data) == ["targets that may be one: 'Valence' = 'valence'"]


def test_speakers_that_may_be_one_are_told(folder: Path) -> None:
    (folder / "data_info.csv").write_text(str(changed(2, {"s1": "Anna", "s3": "anna", "s4": "Ben"})()))
    assert alike_names(read_data(folder)) == ["speakers that may be one: 'Anna' = 'anna'"]


@pytest.mark.parametrize(
    "names",
    ["14 14.0", "14 014", "VP_14 VP14", "VP-14 vp_14", "VP014 VP14", "AnnaMaria Anna-Maria"],
)
def test_speakers_that_are_spelt_in_two_ways_are_told(names: str, folder: Path) -> None:
    one, other = sorted(names.split())
    (folder / "data_info.csv").write_text(str(changed(2, {"s1": one, "s3": other})()))
    assert alike_names(read_data(folder)) == [f"speakers that may be one: {one!r} = {other!r}"]


@pytest.mark.parametrize(
    "names",
    ["14 -14", "s1_11 s11_1", "v1.01 v1.1", "14 140", "A1 A1.5", f"{10**20} {10**20 + 1}", "_ -", "p1 p1_1"],
)
def test_speakers_of_different_numbers_are_two(names: str, folder: Path) -> None:
    one, other = names.split()
    (folder / "data_info.csv").write_text(str(changed(2, {"s1": one, "s3": other})()))
    assert alike_names(read_data(folder)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('csv_column = "x"', "unknown: csv_column | expected some of targets, scale, "),
        ('dir = "/x"', "unknown: dir | expected some of targets, scale, "),
        ('[data]\ncsv = "x.csv"', "unknown: data | expected some of targets, scale, "),
        ("targets = 5", "targets = 5 | expected list"),
        ("audio = 5", "audio = 5 | expected str"),
        ("channel = -1", "channel (data.channel) | -1 | expected at least 0"),
        ('scale = ["9:1"]', "--scale (data.scale) | '9:1' | "),
        ("scale = [", " | expected TOML"),
    ],
)
def test_a_mistake_beside_the_table_is_that_files(text: str, message: str, folder: Path) -> None:
    """However the data is named."""
    content, settings = table(), folder / "data.toml"
    settings.write_text(text)
    for ask in (
        lambda: read(folder, content),
        lambda: new_config({"data": {"dir": str(folder)}}),
        lambda: check_data(folder, FrontendSpec()),
    ):
        with pytest.raises(RrtnError) as raised:
            ask()
        assert str(raised.value).startswith(str(settings))
        assert message in str(raised.value)
        assert " dir," not in raised.value.wanted


def test_settings_that_notepad_saves_are_read(folder: Path) -> None:
    (folder / "data.toml").write_text('targets = ["Arousal"]\r\n', encoding="utf-8-sig")
    assert new_config({"data": {"dir": str(folder)}}).data.targets == ("Arousal",)


def test_a_name_with_a_nul_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the name of a file"):
        read_text_table(tmp_path / "a\0b.csv")
