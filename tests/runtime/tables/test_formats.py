"""A format is one record in one list: help, messages and the writer take it from there."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rrtn.runtime.errors import ConfigError, MissingExtraError
from rrtn.runtime.tables.formats import FORMATS, suffixes
from rrtn.runtime.tables.rows import Row
from rrtn.runtime.tables.table_format import TableFormat, WriteRow
from rrtn.runtime.tables.writer import check_table, write_table

ROWS = [
    Row(file="a.wav", scores={"Awe": 0.5}, embedding=np.float32([1, 2])),
    Row(file="b.wav", error="missing"),
]


@contextlib.contextmanager
def opened_tsv(path: Path, labels: tuple[str, ...], _: int | None) -> Iterator[WriteRow]:
    with path.open("w") as file:
        file.write("\t".join(["file", *labels]) + "\n")
        yield lambda row: file.write(
            "\t".join([str(row.file), *map(str, (row.scores or {}).values())]) + "\n"
        )
        file.flush()


@pytest.fixture
def tsv(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format of someone else's."""
    monkeypatch.setitem(FORMATS, ".tsv", TableFormat(suffix=".tsv", opened=opened_tsv))


@pytest.mark.usefixtures("tsv")
def test_a_format_more_is_written_whole_with_its_embeddings_beside(tmp_path: Path) -> None:
    target = tmp_path / "t.TSV"
    check_table(target, embeddings=True)
    assert list(write_table(target, ROWS, ("Awe",), embedding_size=2)) == ROWS
    assert target.read_text() == "file\tAwe\na.wav\t0.5\nb.wav\n"
    assert np.load(tmp_path / "t.embeddings.npy").tolist()[0] == [1, 2]


def test_messages_and_help_name_every_format(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    assert suffixes() == ".csv, .jsonl or .parquet"
    request.getfixturevalue("tsv")
    with pytest.raises(ConfigError, match=r"has the suffix \.xlsx \| expected \.csv, .*\.parquet or \.tsv"):
        check_table(tmp_path / "t.xlsx")
    help_text = subprocess.run(
        [sys.executable, "-m", "rrtn", "score", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert [suffix for suffix in FORMATS if suffix not in help_text] == [".tsv"]


def test_a_format_without_its_package_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = TableFormat(suffix=".arrow", opened=opened_tsv, package="no_such_package", extra="arrow")
    monkeypatch.setitem(FORMATS, ".arrow", table)
    with pytest.raises(
        MissingExtraError, match=r"^no_such_package \| .*\.arrow.* \| .*pip install \"\.\[arrow\]\""
    ):
        check_table(tmp_path / "t.arrow")


def test_the_list_of_formats_loads_neither_numpy_nor_pyarrow() -> None:
    """The help of rrtn score has the list, and must be there at once."""
    code = (
        "import sys, rrtn.runtime.tables.formats; sys.exit(bool({'numpy', 'pyarrow'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=500).returncode == 0
