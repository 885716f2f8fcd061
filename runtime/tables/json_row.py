"""A row in JSON: a line of a table, or a part of what --json prints.

It is {"file", "start", "end", "scores": {label: score}, "error", "flags"}; what is not there is null. "flags"
are joined by ";". A name that is not UTF-8 has U+FFFD in "file", and its bytes as base64 in "file_bytes".
"""

from collections.abc import Mapping
from typing import Any

from ..audio.file_names import exact_bytes, exact_name
from .rows import Row, flags_cell


def json_row(row: Row) -> dict[str, Any]:
    """The fields of a row."""
    text, name = exact_name(row.file)
    return {
        "file": text,
        "start": row.start,
        "end": row.end,
        "scores": None if row.scores is None else shortest_scores(row.scores),
        "error": row.error or None,
        "flags": flags_cell(row),
        **exact_bytes(name),
    }


def shortest_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Each score with the fewest digits that give back the same float32."""
    from ..arrays import shortest

    return dict(zip(scores, shortest([*scores.values()]), strict=True))
