"""Rows for people."""

import pytest
from rrtn.runtime.errors import ConfigError
from rrtn.runtime.tables.rows import Row
from rrtn.runtime.tables.top_rows import TopRow, top_rows

BAD = Row(file="-gone.wav", error="missing", detail="not there")


def test_top_rows_are_the_highest_in_order_and_equals_in_the_models() -> None:
    row = Row(
        file="-a.wav",
        start=0.0,
        end=1.0,
        scores={"Awe": 0.5, "Joy": 0.9, "Fear": 0.5, "Calm": 0.1},
        flags=("silent", "truncated"),
    )
    labels = ("Fear", "Awe", "Joy", "Calm")
    assert list(top_rows([row, BAD], labels, 3)) == [
        TopRow("'-a.wav", 0.0, 1.0, [("Joy", 0.9), ("Fear", 0.5), ("Awe", 0.5)], "", "silent;truncated"),
        TopRow("'-gone.wav", None, None, [], "missing", ""),
    ]
    assert len(next(top_rows([row], labels, 10)).scores) == 4
    with pytest.raises(ConfigError, match="--top"):
        list(top_rows([row], labels, 0))


def test_labels_on_several_scales_are_compared_by_their_shares() -> None:
    """3.6 of 1 to 9 is a third of the way, 0.8 of -1 to 1 nine tenths."""
    row = Row(file="a.wav", scores={"Arousal": 3.6, "Valence": 0.8, "Cry": 0.5})
    scales = {"Arousal": (1.0, 9.0), "Valence": (-1.0, 1.0)}
    (found,) = top_rows([row], ("Arousal", "Valence", "Cry"), 3, scales)
    assert found.scores == [("Valence", 0.8), ("Cry", 0.5), ("Arousal", 3.6)]
