"""From a table with a row for each person's rating of a clip to a table with a row for each clip.

n ratings, m clips.
"""

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from ...runtime.arrays import Float64
from ...runtime.errors import DataError
from ...runtime.text import counted
from .column_names import is_metadata
from .data_set import DataSet
from .roles import check_there
from .source_table import SourceTable
from .table_text import TextTable, is_none, name_taken, refused_lines
from .targets import (
    LabelChoice,
    hidden_ratings,
    label_cells,
    labels_of_cells,
    number,
    numbers_of_cells,
    ratings_of_cells,
    scale_with_hidden,
)

RATER: Final = "Rater_ID"  # what the column of raters is called in a SourceTable
_OF_A_CLIP: Final = ("Split", "Subject_ID")  # a clip has one of each, whoever rates it


def with_raters(text: TextTable, column: str) -> TextTable:
    """The table with RATER in place of the name of its column of raters. Raises DataError."""
    check_there("--rater-column", column, text.columns, text.path)
    if RATER in text.columns and column != RATER:
        raise name_taken(text, RATER, column)
    return replace(text, columns=tuple(RATER if name == column else name for name in text.columns))


def clips_of_ratings(ratings: SourceTable, *, targets: Collection[str], labels: LabelChoice) -> SourceTable:
    """n rows -> m, in the order of the clips' first rows. A row that stands twice is taken once, with a note.

    A target becomes the mean over the raters of each clip; blanks do not count. A class becomes the one that
    most of them named, and a blank where two were named equally often. Any other column stays if the rows of
    each clip agree in it, and is left out otherwise, which is noted. Where no `targets` are named, they are
    the columns with numbers that have no name of metadata, as in a table with a row for each clip.

    Raises DataError for a clip with several splits or speakers, for a rating that is no number, and for
    classes of which ties leave one.
    """
    ratings = _without_repeats(ratings)
    clips: dict[str, list[int]] = {}
    for i, row in enumerate(ratings.rows):
        clips.setdefault(row["File_ID"], []).append(i)
    places = [*clips.values()]
    _check_of_a_clip(ratings, places)
    columns: dict[str, Sequence[str]] = {"File_ID": [*clips]}
    notes, has_means = [], False
    any_column = not targets and not labels.only_named
    for name in ratings.columns:
        if name in ("File_ID", RATER):
            continue
        cells = [[ratings.rows[i][name] for i in of_clip] for of_clip in places]
        if name in labels.class_targets:
            values, note = _classes(name, cells)
        elif name in targets or (any_column and _has_numbers(cells) and not is_metadata(name)):
            values, note, has_means = _means(ratings, name, places), "", True
        else:
            values, note = _alike(name, cells)
        columns |= {name: values} if values else {}
        notes += [note] if note else []
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    lines = [ratings.lines[of_clip[0]] for of_clip in places]
    has_classes = any(name in columns for name in labels.class_targets)
    said = (*ratings.notes, _how_many(ratings, places, has_means, has_classes), *notes)
    return replace(ratings, columns=tuple(columns), rows=rows, lines=lines, notes=said)


def check_ratings(ratings: SourceTable, data: DataSet, choice: LabelChoice) -> None:
    """Raises DataError for a rating outside its scale, and for a -1 of Test, which a mean may hide.

    `data` is what their means became.
    """
    split_of_clip = {clip.file_id: name for name, split in data.splits.items() for clip in split.clips}
    splits = [split_of_clip[row["File_ID"]] for row in ratings.rows]
    cells = label_cells(ratings.path, ratings.lines, ratings.rows, data.columns.names, splits)
    labels_of_cells(cells, data.targets, choice)
    raw, clips = ratings_of_cells(cells, data.targets), [row["File_ID"] for row in ratings.rows]
    hidden = hidden_ratings(cells, raw, data.columns)
    rated = {(clips[i], k) for i, k in np.argwhere(~(hidden | np.isnan(raw))).tolist()}
    if bad := sorted({i for i, k in np.argwhere(hidden).tolist() if (clips[i], k) in rated}):
        came, lines = "-1 in Test, for a clip that has ratings", [ratings.lines[i] for i in bad]
        fix = "leave the cell empty where a rater gave none"
        if flag := scale_with_hidden(cells, raw, data.columns, choice):
            fix += f"; where -1 is a rating: --scale {flag}"
        raise refused_lines(ratings.path, lines, came, wanted="ratings on their scale", fix=fix)


def _without_repeats(ratings: SourceTable) -> SourceTable:
    first: dict[tuple[str, ...], int] = {}
    for i, row in enumerate(ratings.rows):
        key = (*row.values(), str(i) if is_none(row[RATER]) else "")  # two who are not named may agree
        first.setdefault(key, i)
    kept, notes = [*first.values()], []
    if repeated := len(ratings.rows) - len(kept):
        notes.append(f"{counted(repeated, 'repeated row')}, taken once")
    pairs = Counter((ratings.rows[i]["File_ID"], ratings.rows[i][RATER]) for i in kept)
    if several := {file for (file, rater), n in pairs.items() if n > 1 and not is_none(rater)}:
        notes.append(f"{counted(len(several), 'clip')} with several ratings of one rater: each counts")
    return replace(
        ratings,
        rows=[ratings.rows[i] for i in kept],
        lines=[ratings.lines[i] for i in kept],
        notes=(*ratings.notes, *notes),
    )


def _how_many(
    ratings: SourceTable, places: Iterable[Sequence[int]], has_means: bool, has_classes: bool
) -> str:
    sizes = [len(of_clip) for of_clip in places]
    names = {row[RATER] for row in ratings.rows}
    named = {name for name in names if not is_none(name)}
    raters = counted(len(named), "rater") + (" and some without a name" if named < names else "")
    each = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else str(sizes[0])
    rows = f"{counted(len(ratings.rows), 'rating')} of {counted(len(sizes), 'clip')}"
    means = "ratings are means over raters" if has_classes else "the labels are means over raters"
    classes = "each class is the one that most raters named"
    said = ", and ".join([means] * has_means + [classes] * has_classes)
    return f"{rows} by {raters}, {each} a clip: {said}"


def _check_of_a_clip(ratings: SourceTable, places: Iterable[Sequence[int]]) -> None:
    """Raises DataError for a clip with several splits or speakers."""
    for name in (name for name in _OF_A_CLIP if name in ratings.columns):
        unlike = [of_clip for of_clip in places if len({ratings.rows[i][name] for i in of_clip}) > 1]
        if unlike:
            lines = [ratings.lines[i] for of_clip in unlike for i in of_clip]
            came = f"{name} differs between the ratings of a clip"
            raise refused_lines(
                ratings.path, lines, came, wanted="one for each clip", fix="correct these rows"
            )


# What becomes of a column, whose cells are those of each of m clips: a cell for each clip, and a note.


def _classes(name: str, cells: Sequence[Sequence[str]]) -> tuple[list[str], str]:
    """The class that most raters named, where there is one. Raises DataError if ties leave no two."""
    values, ties = [*map(_class, cells)], sum(map(_is_tie, cells))
    blank = f"blank for {counted(ties, 'clip')} with two classes named equally often"
    if ties and (left := len({*values} - {""})) < 2:
        fix = "break these ties in the table, or leave this column out"
        came = f"{counted(left, 'class')} left: {blank}"
        raise DataError(f"--class-target {name}", came, wanted="2 or more", fix=fix)
    return values, f"{name}: {blank}" if ties else ""


def _means(ratings: SourceTable, name: str, places: Iterable[Sequence[int]]) -> list[str]:
    """The mean over the raters. Raises DataError for a rating that is no number."""
    labels = label_cells(ratings.path, ratings.lines, ratings.rows, [name])
    values = numbers_of_cells(labels, name)
    return [_mean(values[of_clip]) for of_clip in places]


def _alike(name: str, cells: Sequence[Sequence[str]]) -> tuple[list[str], str]:
    """What all rows of a clip say; nothing where those of one differ."""
    if any(len(set(of_clip)) > 1 for of_clip in cells):
        return [], f"{name} is left out: it differs between the ratings of a clip"
    return [of_clip[0] for of_clip in cells], ""


def _class(cells: Iterable[str]) -> str:
    """The one that most named; "" for a tie, and where nobody named one."""
    found = Counter(filter(_is_label, cells)).most_common(1)
    return found[0][0] if found and not _is_tie(cells) else ""


def _is_tie(cells: Iterable[str]) -> bool:
    counts = [count for _, count in Counter(filter(_is_label, cells)).most_common(2)]
    return len(counts) > 1 and counts[0] == counts[1]


def _mean(values: Float64) -> str:
    """The mean of the known values, with nine digits, which is what float32 holds."""
    known = values[~np.isnan(values)].tolist()
    return f"{statistics.fmean(known):.9g}" if known else ""


def _is_label(cell: str) -> bool:
    return not is_none(cell)


def _has_numbers(cells: Iterable[Iterable[str]]) -> bool:
    return any(number(cell) is not None for each in cells for cell in each)
