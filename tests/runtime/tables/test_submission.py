"""The challenge's table: brackets, the model's order of labels, no blanks, one row a file."""

from pathlib import Path

import pytest
from abandoned import abandon
from rrtn.runtime.errors import DataError, StoppedError
from rrtn.runtime.tables.rows import Row
from rrtn.runtime.tables.submission import file_id_from_path, write_submission

LABELS = ("Fear", "Awe")


def scored(file: str, *, fear: float, awe: float = 0.5, start: float | None = None) -> Row:
    return Row(file=file, start=start, scores={"Awe": awe, "Fear": fear})


def test_the_submission_is_exactly_this(tmp_path: Path) -> None:
    """The last row of a file with windows counts, the mean; a flag is no error."""
    rows = [
        scored("wav/00002.wav", fear=0.25, start=0.0),
        scored("wav/00001.wav", fear=0.1, start=0.0),
        scored("wav/00001.wav", fear=0.3, start=2.49),
        scored("wav/00001.wav", fear=0.2),
        Row(file=b"wav/caf\xe9.x.flac", scores={"Awe": 0.0, "Fear": 0.0}, flags=("silent",)),
    ]
    abandon(tmp_path / "s.csv")  # of a process that was killed
    assert list(write_submission(tmp_path / "s.csv", rows, LABELS)) == rows
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]
    assert (tmp_path / "s.csv").read_text() == (
        "File_ID,Fear,Awe\n[00002],0.250000,0.500000\n"
        "[00001],0.200000,0.500000\n[caf\\xe9.x],0.000000,0.000000\n"
    )


def test_a_file_id_has_its_brackets_once() -> None:
    assert [
        file_id_from_path(name)
        for name in (
            "a/58712.wav",
            b"[58712].WAV",
            "58712",
            "take[2].wav",
            "=1.wav",
            "a.b/rec.001",
            "rec.001.Flac",
            ".wav",
        )
    ] == [
        "[58712]",
        "[58712]",
        "[58712]",
        "[take[2]]",
        "[=1]",
        "[rec.001]",
        "[rec.001]",
        "[.wav]",
    ]


def test_blanks_are_refused_with_the_first_files(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("old")
    bad = [Row(file=f"wav/{n}.wav", error="corrupt") for n in range(5)]
    with pytest.raises(DataError) as caught:
        list(write_submission(tmp_path / "s.csv", [scored("wav/good.wav", fear=0.1), *bad], LABELS))
    assert str(caught.value) == (
        f"{tmp_path / 's.csv'} | 5 of 6 files without scores: wav/0.wav (corrupt), wav/1.wav (corrupt), "
        "wav/2.wav (corrupt) and 2 more | expected scores for every file: the challenge takes no blanks | "
        "repair or leave out these files, or leave out --submission"
    )
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_two_files_with_one_file_id_are_refused(tmp_path: Path) -> None:
    rows = [scored("a/1.wav", fear=0.1), scored("b/1.wav", fear=0.2), scored("a/2.wav", fear=0.3)]
    with pytest.raises(DataError, match=r"\| more than one file has the File_ID \[1\] \|"):
        list(write_submission(tmp_path / "s.csv", rows, LABELS))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRTN_FAILPOINT", "write.begin:enospc")
    monkeypatch.setattr("rrtn.runtime.system.failpoints._passed", 0)
    with pytest.raises(StoppedError, match="No space left"):
        list(write_submission(tmp_path / "s.csv", [scored("a.wav", fear=0.1)], LABELS))
    assert list(tmp_path.iterdir()) == []
