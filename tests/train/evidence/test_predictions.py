"""Predictions on disk: what was written comes back to the bit, and a submission is in the
challenge's form.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from abandoned import abandon
from rrtn.runtime.errors import DataError
from rrtn.train.evidence.predictions import (
    Predictions,
    kept_predictions,
    read_predictions,
    write_predictions,
    write_test_submission,
)


def predictions(rated: float = 0.5) -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(
        file_ids=("[3]", "[1]", "[2]"),
        speakers=("b", "", 'a,"x"'),
        targets=("Awe", "=Joy, of rated"),
        scores=rng.uniform(0, 1, (3, 2)).astype(np.float32).astype(np.float64),
        rated=np.full((3, 2), rated),
    )


@pytest.mark.parametrize("rated", [0.1, np.nan])
def test_what_was_written_comes_back_to_the_bit(rated: float, tmp_path: Path) -> None:
    before = predictions(rated)
    after = read_predictions(write_predictions(tmp_path / "new/Val", before))
    assert (after.file_ids, after.speakers, after.targets) == (
        before.file_ids,
        before.speakers,
        before.targets,
    )
    np.testing.assert_array_equal(after.scores, before.scores)
    np.testing.assert_array_equal(after.rated, before.rated)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("0.5", "0.6", 1),
        lambda text: text[:-2] + chr(ord(text[-2]) ^ 1) + text[-1],
        lambda text: text.rpartition("\r\n[2]")[0] + "\r\n",
        lambda text: text.replace("b,", "b,nan,", 1),
    ],
)
def test_changed_numbers_are_not_believed(tmp_path: Path, edit: Callable[[str], str]) -> None:
    stem = tmp_path / f"Val-{'a' * 12}-{'b' * 12}"
    path = write_predictions(stem, predictions())
    kept, content = kept_predictions(tmp_path, f"{stem.name}-*.csv"), path.read_bytes()
    assert kept is not None
    path.write_bytes(edit(content.decode()).encode())
    assert path.read_bytes() != content
    with pytest.raises(DataError, match="it was changed"):
        read_predictions(path)
    assert kept_predictions(tmp_path, f"{stem.name}-*.csv") is None
    abandon(path)  # of a process that was killed
    write_predictions(stem, predictions())
    assert path.read_bytes() == content
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "content", ["", "File_ID,Awe\n1,2\n", "File_ID,Subject_ID,A,A rated\n1,s,0.5\n", "\xff"]
)
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "Val.csv").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=r"Val\.csv"):
        read_predictions(tmp_path / "Val.csv")


def test_a_submission_has_the_names_of_the_table_and_no_control_characters(tmp_path: Path) -> None:
    names = ("C:\\Study\\wav\\spk 7\\a.WAV", "[b\\x1b]", "c\x1b[2J\n=1")
    write_test_submission(tmp_path / "test.csv", replace(predictions(np.nan), file_ids=names))
    _, *rows = (tmp_path / "test.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == [
        "[C:\\Study\\wav\\spk 7\\a.WAV]",
        "[b\\x5cx1b]",
        "[c\\x1b[2J\\x0a=1]",
    ]


def test_a_submission_has_brackets_and_the_datas_order(tmp_path: Path) -> None:
    write_test_submission(tmp_path / "test.csv", predictions(np.nan))
    header, *rows = (tmp_path / "test.csv").read_text().splitlines()
    assert header == 'File_ID,Awe,"\'=Joy, of rated"'
    assert [row.split(",")[0] for row in rows] == ["[3]", "[1]", "[2]"]
    assert rows[0] == "[3],0.636962,0.269787"
