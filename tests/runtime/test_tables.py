"""The CSV gives back the exact bytes of every name, runs nothing in a spreadsheet, and is whole or not there."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rrtn.runtime.errors import StoppedError
from rrtn.runtime.scorer import Row
from rrtn.runtime.tables import cell_from_path, csv_text, path_from_cell, write_csv

LABELS = ("Awe", "=Fear")
GOOD = Row(file=b"a,b.wav", start=0.0, end=2.49, scores={"Awe": 0.1234567, "=Fear": 1e-9}, seconds=4.0)
FLAGGED = Row(file="silent.wav", start=0.0, end=0.5, scores={"Awe": 0.5, "=Fear": 1.0}, error="silent")
BAD = Row(file=Path("-gone.wav"), error="missing", detail="not there")
TABLE = (
    "file,start,end,Awe,'=Fear,error\n"
    '"a,b.wav",0.000,2.490,0.123457,0.000000,\n'
    "silent.wav,0.000,0.500,0.500000,1.000000,silent\n"
    "'-gone.wav,,,,,missing\n"
)
NAMES = [
    b"plain.wav",
    b"new\nline.wav",
    b"tab\t.wav",
    b"\t=cmd.wav",
    b"quote\"'.wav",
    b"'quoted'.wav",
    b"''.wav",
    b"=cmd|' /C calc'!A0.wav",
    b"+1.wav",
    b"@sum.wav",
    b"-lead.wav",
    b"\r\n.wav",
    b"caf\xe9.wav",
    b"\xed\xb2\x80surrogate.wav",
    b"back\\slash.wav",
    b"\\x41 is not A.wav",
    b"a,b;c.wav",
    b"x" * 255,
    "\N{GRINNING FACE}.wav".encode(),
    "caf\u00e9.wav".encode(),
    "cafe\u0301.wav".encode(),
]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_name_comes_back_byte_by_byte(name: bytes) -> None:
    assert path_from_cell(cell_from_path(name)) == name


def test_every_byte_comes_back_at_every_place() -> None:
    rng = np.random.default_rng(0)
    names = [bytes([byte]) for byte in range(1, 256)] + [rng.bytes(rng.integers(1, 12)) for _ in range(2_000)]
    assert [path_from_cell(cell_from_path(name)) for name in names] == names
    assert len({cell_from_path(name) for name in names}) == len(set(names))


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_one_line_of_utf8_and_no_formula(name: bytes) -> None:
    cell = cell_from_path(name)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert len(cell.encode().splitlines()) == 1


def test_ordinary_names_are_left_alone() -> None:
    assert cell_from_path("clips/Gr\u00fc\u00dfe, 1=2.wav") == "clips/Gr\u00fc\u00dfe, 1=2.wav"
    assert cell_from_path(b"caf\xe9\\\n.wav") == r"caf\xe9\x5c\x0a.wav"
    assert cell_from_path(Path("=cmd.wav")) == "'=cmd.wav"


def test_the_table_is_exactly_this(tmp_path: Path) -> None:
    rows = [GOOD, FLAGGED, BAD]
    assert list(write_csv(tmp_path / "t.csv", rows, LABELS)) == rows
    assert (tmp_path / "t.csv").read_bytes() == TABLE.encode()
    assert csv_text(rows, LABELS) == TABLE


def test_any_names_make_one_record_each(tmp_path: Path) -> None:
    rows = [Row(file=name, error="missing") for name in NAMES]
    list(write_csv(tmp_path / "t.csv", rows, LABELS))
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    assert [path_from_cell(record["file"]) for record in records] == NAMES


def rows_that_fail() -> Iterator[Row]:
    yield GOOD
    raise StoppedError("the storage is gone")


def test_a_run_that_stops_leaves_the_old_table_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("old")
    with pytest.raises(StoppedError, match="the storage is gone"):
        list(write_csv(tmp_path / "t.csv", rows_that_fail(), LABELS))
    assert names_in(tmp_path) == ["t.csv"]
    assert (tmp_path / "t.csv").read_text() == "old"


def test_a_reader_that_leaves_early_gets_no_half_table(tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "t.csv", [GOOD, BAD], LABELS)
    assert next(rows) is GOOD
    assert not (tmp_path / "t.csv").exists()
    rows.close()  # type: ignore[attr-defined]
    assert names_in(tmp_path) == []


def test_a_folder_that_is_gone_stops_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match=r"gone/t\.csv"):
        list(write_csv(tmp_path / "gone" / "t.csv", [GOOD], LABELS))
