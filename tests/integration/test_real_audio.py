"""The real audio beside the project, where it is there."""

from collections import Counter
from pathlib import Path

import numpy as np
from rrtn.runtime import Scorer
from rrtn.runtime.audio.inputs import InputChoice, inputs_from_arguments
from rrtn.train.data.data_set import read_data


def test_of_770_bursts_the_30_wavpack_files_need_the_second_reader(bursts: Path, tiny_model: Path) -> None:
    files = [each.source for each in inputs_from_arguments([bursts], InputChoice())]
    rows = list(Scorer(tiny_model).score_files(files))
    assert [row.file for row in rows] == files
    assert len(rows) == 770
    assert Counter(row.error for row in rows) == {"": 770}
    assert all(bytes(row.file).endswith(b".wv") == ("second_reader" in row.flags) for row in rows)


def test_emodb_is_read_as_its_readme_says(emodb: Path) -> None:
    data = read_data(emodb)
    assert {name: len(split.clips) for name, split in data.splits.items()} == {
        "Train": 348,
        "Val": 96,
        "Test": 91,
    }
    assert data.targets == (
        "Anger",
        "Boredom",
        "Disgust",
        "Fear",
        "Happiness",
        "Neutral",
        "Sadness",
        "Naturalness",
    )
    assert data.splits["Train"].clips[0].path.name == "00002.wav"
    assert (
        data.splits["Train"].ratings[0].round(2).tolist()
        == np.float32([0, 0, 0, 0.95, 0, 0, 0, 0.85]).tolist()
    )
    assert data.warnings == ()
