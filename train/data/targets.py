"""From the cells of a table to what is learned: which columns, on which scale, and what is blank.

Cells are text with decimal points; who reads the table takes care of its dialect. n rows, K ratings,
J class targets, L columns of the scores.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ...runtime.arrays import Float32, Float64
from ...runtime.errors import ConfigError, DataError
from ...runtime.system.host import quoted
from ...runtime.text import counted, short
from ..method.columns import (
    AUTO,
    UNIT,
    ClassTarget,
    Columns,
    Scale,
    ScaleChoice,
    classes_of_labels,
    plain_number,
    scale_choice,
)
from .table_text import BLANKS, NOT_THOUSANDS, is_none, may_be_thousands, refused_lines

_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_HIDDEN: Final = -1.0  # what challenges write in place of Test's labels
_CODE: Final = re.compile(r"-[7-9]+|[7-9]{2,}")
_APART: Final = 2.0  # widths of all other ratings: what is farther from them may be no rating
_FEWEST_OTHERS: Final = 3  # different ratings that say where ratings are
FEWEST_RATED: Final = 2  # of each target in Train and in Val: one clip has no correlation
_MOST_CLASSES: Final = 200
# The scales that people rate on; the first that holds all ratings is proposed.
_USUAL: Final = tuple(
    Scale(*ends)
    for ends in (
        *((0, 1), (-1, 1), (1, 5), (0, 5), (-3, 3), (1, 7), (1, 9), (1, 10), (0, 10), (0, 100)),
        (-100, 100),
    )
)


@dataclass(frozen=True, kw_only=True)
class LabelChoice:
    """What the settings say about labels; each is empty where they say nothing."""

    scale: tuple[str, ...] = ()  # as `scale_choice` takes it
    class_targets: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()  # "Type=Laugh"; empty for the classes of Train
    only_named: bool = False  # rated targets are those that are named, and no other numeric column
    learned: bool = False  # the scales are those of a run, which no option changes


def names_as_spelt(names: Iterable[str], columns: Iterable[str]) -> tuple[str, ...]:
    """Names of columns in the Unicode form of the table, which may be another than that of who typed them."""
    columns = [*columns]
    spelt = {unicodedata.normalize("NFC", column): column for column in columns}
    return tuple(
        name if name in columns else spelt.get(unicodedata.normalize("NFC", name), name) for name in names
    )


def choice_as_spelt(choice: LabelChoice, columns: Sequence[str]) -> LabelChoice:
    """The same for the names in a choice: those of class targets, scales and classes."""
    classes = (label.partition("=") for label in choice.classes)
    scales = (entry.rpartition("=") for entry in choice.scale)
    return replace(
        choice,
        class_targets=names_as_spelt(choice.class_targets, columns),
        classes=tuple(f"{names_as_spelt([name], columns)[0]}={label}" for name, _, label in classes),
        scale=tuple(f"{names_as_spelt([name.strip()], columns)[0]}{by}{ends}" for name, by, ends in scales),
    )


@dataclass(frozen=True, kw_only=True)
class LabelCells:
    """The label columns of a table."""

    splits: Sequence[str]  # [n]: Train, Val or Test
    cells: Mapping[str, Sequence[str]]  # column -> [n]
    # (rows, what came, wanted=, fix=): an error that names the table and the lines of these rows
    refused: Callable[..., DataError]


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """What is learned from each row."""

    columns: Columns
    # [n, K + J]: ratings mapped to 0 to 1 in float64 and rounded once, then numbers of classes; NaN: none
    ratings: Float32
    rated: Float64  # [n, L] in the units of the scales, a class as 0 and 1; NaN: none
    warnings: tuple[str, ...]
    hidden: str = ""  # that one among `warnings` which says that ratings of Test may be taken as hidden


def number(cell: str) -> float | None:
    """A decimal number; None for anything else, such as 0.5_44, which Python would take for 0.544."""
    return float(cell) if _NUMBER.fullmatch(cell) else None


def label_cells(
    path: Path,
    lines: Sequence[int],
    rows: Sequence[Mapping[str, str]],
    names: Sequence[str],
    splits: Sequence[str] = (),
) -> LabelCells:
    """The columns `names` of the rows of a table, whose lines errors name. Numbers need no splits."""

    def refused(bad: Sequence[int], came: str, *, wanted: str, fix: str) -> DataError:
        return refused_lines(path, [lines[i] for i in bad], came, wanted=wanted, fix=fix)

    cells = {name: [row[name] for row in rows] for name in names}
    return LabelCells(splits=splits, cells=cells, refused=refused)


def labels_of_cells(cells: LabelCells, targets: Sequence[str], choice: LabelChoice) -> Labels:
    """The labels of all rows; `targets` are the rated columns.

    Raises DataError for a cell that is no number or no class, for a rating outside its scale, and for a
    target to be learned that fewer than two clips of Train or Val have; ConfigError for a scale of no target.
    """
    scales = scale_choice(choice.scale)
    if unknown := [name for name in scales.of_target if name not in targets]:
        fix = f"check the name, and that its cells are numbers: {NOT_THOUSANDS}"
        raise ConfigError("--scale", ", ".join(unknown), wanted=f"some of {', '.join(targets)}", fix=fix)
    n = len(cells.splits)
    raw = ratings_of_cells(cells, targets)
    chosen = tuple(_scale_of(raw[_is(cells, "Train"), k], name, scales) for k, name in enumerate(targets))
    classes = tuple(_class_target(cells, name, choice.classes) for name in choice.class_targets)
    columns = Columns(targets=tuple(targets), scales=chosen, classes=classes)
    hidden = _hidden_warning(cells, raw, columns, choice)
    raw[hidden_ratings(cells, raw, columns)] = np.nan
    _check_range(cells, raw, columns, scales, learned=choice.learned)
    of_classes = [_class_numbers(cells, target, learned=choice.learned) for target in classes]
    numbers = np.array(of_classes).reshape(len(classes), n).T
    shares = (raw - [scale.low for scale in chosen]) / [scale.width for scale in chosen]
    ratings = np.hstack([shares, numbers]).astype(np.float32)
    if not choice.learned:
        _check_rated(cells, ratings, columns)
    shown = raw if columns.is_scaled else shares.astype(np.float32)
    rated: Float64 = np.hstack([shown, *_one_hot(numbers, classes)])
    return Labels(
        columns=columns,
        ratings=ratings,
        rated=rated,
        warnings=(
            *_outside_warnings(raw, columns),
            *_code_warnings(raw, columns),
            *filter(None, [hidden]),
        ),
        hidden=hidden,
    )


def _is(cells: LabelCells, *splits: str) -> npt.NDArray[np.bool_]:
    return np.isin(np.asarray(cells.splits), splits)


def numbers_of_cells(cells: LabelCells, name: str) -> Float64:
    """[n]: NaN for a blank cell. Raises DataError for anything that is not a finite number."""
    values = np.array([_value(cell) for cell in cells.cells[name]], dtype=np.float64)
    if (bad := np.isneginf(values)).any():
        first = cells.cells[name][int(np.flatnonzero(bad)[0])]
        raise cells.refused(
            np.flatnonzero(bad),
            f"{name} is not a number: {short(first)}",
            wanted=f"a number, or no rating: {BLANKS}",
            fix=f"correct these cells, or give --targets without {name}"
            + (f": {NOT_THOUSANDS}" if may_be_thousands(first) else ""),
        )
    return values


def _value(cell: str) -> float:
    if is_none(cell):
        return math.nan
    value = number(cell)
    return value if value is not None and math.isfinite(value) else -math.inf


def _scale_of(train: Float64, name: str, choice: ScaleChoice) -> Scale:
    if scale := choice.given(name):
        return scale
    known = train[~np.isnan(train)]
    if not choice.is_auto or not len(known):
        return UNIT
    low, high = float(known.min()), float(known.max())
    return Scale(low, high if high > low else low + 1)


def ratings_of_cells(cells: LabelCells, targets: Sequence[str]) -> Float64:
    """[n, K]: the ratings as they stand there."""
    return (
        np.array([numbers_of_cells(cells, name) for name in targets])
        .reshape(len(targets), len(cells.splits))
        .T
    )


def hidden_ratings(cells: LabelCells, raw: Float64, columns: Columns) -> npt.NDArray[np.bool_]:
    """[n, K]: ratings of Test that are -1 because they are kept secret.

    They are where -1 is not on the scale, and where no clip of Test has another rating.
    """
    in_test = _is(cells, "Test")
    marked = (raw == _HIDDEN) & in_test[:, None]
    known = raw[in_test]
    if not ((known != _HIDDEN) & ~np.isnan(known)).any():
        return np.asarray(marked)
    return np.asarray(marked & np.array([not _holds(scale, _HIDDEN) for scale in columns.scales], dtype=bool))


def scale_with_hidden(cells: LabelCells, raw: Float64, columns: Columns, choice: LabelChoice) -> str:
    """The --scale on which hidden ratings of -1 would count, beside other negative ones; "" without these."""
    return _scales_with(_maybe_rated(cells, raw, columns), choice)


def _scales_with(found: Mapping[str, Scale], choice: LabelChoice) -> str:
    others = [entry for entry in choice.scale if entry.rpartition("=")[0].strip() not in found]
    entries = (*others, *(f"{name}={scale}" for name, scale in found.items()))
    return quoted(",".join(entries)) if found else ""


def _maybe_rated(cells: LabelCells, raw: Float64, columns: Columns) -> dict[str, Scale]:
    """Targets with hidden ratings and other negative ones -> a scale for all; none if Test is all hidden."""
    hidden = hidden_ratings(cells, raw, columns)
    if np.isnan(np.where(hidden, np.nan, raw)[_is(cells, "Test")]).all():
        return {}
    targets = zip(columns.targets, columns.scales, raw.T, hidden.T, strict=True)
    return {
        name: _fitting(ratings, scale) or scale
        for name, scale, ratings, is_hidden in targets
        if is_hidden.any() and (ratings[~is_hidden] < 0).any()
    }


def _hidden_warning(cells: LabelCells, raw: Float64, columns: Columns, choice: LabelChoice) -> str:
    """Empty where nothing suggests that a -1 of Test was meant as a rating."""
    found = _maybe_rated(cells, raw, columns)
    if not found:
        return ""
    counts = dict(zip(columns.targets, hidden_ratings(cells, raw, columns).sum(0).tolist(), strict=True))
    named = ", ".join(f"{name} {counts[name]}" for name in found)
    text = f"-1 in Test is taken as hidden, though other ratings are negative: {named}"
    return text if choice.learned else f"{text}; where it is a rating: --scale {_scales_with(found, choice)}"


def _holds(scale: Scale, value: float) -> bool:
    return scale.low <= value <= scale.high


def _check_range(
    cells: LabelCells, raw: Float64, columns: Columns, choice: ScaleChoice, *, learned: bool
) -> None:
    """Raises DataError for ratings outside their scale; of Val and Test not where the scale is Train's."""
    in_train, of_train = _is(cells, "Train"), _scales_of_train(columns, choice)
    for k, (name, scale) in enumerate(zip(columns.targets, columns.scales, strict=True)):
        outside = (raw[:, k] < scale.low) | (raw[:, k] > scale.high)
        if name in of_train:
            outside &= in_train
        if outside.any():
            raise cells.refused(
                np.flatnonzero(outside),
                f"{name} is out of range: {plain_number(raw[outside, k][0])}",
                wanted=f"a number from {plain_number(scale.low)} to {plain_number(scale.high)}",
                fix=_fix_of_range(raw, columns, k, outside, learned=learned),
            )


def _fix_of_range(
    raw: Float64, columns: Columns, k: int, outside: npt.NDArray[np.bool_], *, learned: bool
) -> str:
    """What to do about ratings outside [n] of the k-th scale: they mean none, are wrong, or have another."""
    values, others, scale = raw[outside, k], raw[~outside, k], columns.scales[k]
    are_codes = np.isin(values, codes_of_ratings(raw[:, k])).all()
    # As where a challenge hides labels of its Test, and they are split anew.
    are_hidden = (values == _HIDDEN).all() and not (others < 0).any()
    first = "correct it, or "
    if are_codes or are_hidden:
        first = f"leave the cell empty if {plain_number(values[0])} means no rating; else "
    if learned:
        return f"{first}write the ratings on {scale}, as the run learned it"
    entries = () if are_codes else proposed(raw, columns)
    if any("=" in entry for entry in entries):
        first += "take the columns of ratings alone: --targets NAME,...; or "
    flag = f"--scale {quoted(','.join(entries))}" if entries else "--scale"
    if any("," in entry for entry in entries):
        flag = f"scale = {[*entries]} in data.toml"
    return f"{first}say on which scale people rated: {flag}"


def codes_of_ratings(ratings: Float64) -> Float64:
    """The numbers among ratings [n] that look like codes for "no rating", such as -999, 99 and -9.

    They are whole and made of the digits 7 to 9, two of them or below 0. The other ratings, which are more,
    are much closer to each other.
    """
    known = ratings[~np.isnan(ratings)]
    values = np.unique(known)
    is_code = np.array([bool(_CODE.fullmatch(plain_number(value))) for value in values], dtype=bool)
    others = values[~is_code]
    if len(others) < _FEWEST_OTHERS or 2 * np.isin(known, others).sum() <= len(known):
        return values[:0]
    width = others[-1] - others[0]
    is_far = [np.abs(others - value).min() > _APART * width for value in values[is_code]]
    return np.asarray(values[is_code][is_far])


def _code_warnings(raw: Float64, columns: Columns) -> list[str]:
    """Codes for "no rating" that are on their scale, and press all ratings together on it."""
    named = [
        f"{name} {plain_number(code)} ({int((ratings == code).sum())})"
        for name, ratings in zip(columns.targets, raw.T, strict=True)
        for code in codes_of_ratings(ratings)
    ]
    means_none = "leave the cells empty if such a number means no rating"
    return [f"ratings far from all others: {', '.join(named)}; {means_none}"] if named else []


def _scales_of_train(columns: Columns, choice: ScaleChoice) -> set[str]:
    """The targets whose scale is Train's range.

    A run's settings have auto and a scale for each target, whether auto took it or not: then all of them.
    """
    targets, named = set(columns.targets), choice.of_target.keys()
    if not choice.is_auto:
        return set()
    return targets if named >= targets else targets - named


def proposed(raw: Float64, columns: Columns) -> tuple[str, ...]:
    """The entries of the --scale that all ratings [n, K] would fit: one for all targets where that is enough.

    `auto` is for targets whose ratings do not tell it.
    """
    fitting = [_fitting(column, scale) for column, scale in zip(raw.T, columns.scales, strict=True)]
    if len(set(fitting)) == 1:
        return (str(fitting[0] or AUTO),)
    pairs = zip(columns.targets, fitting, columns.scales, strict=True)
    if None in fitting:
        return (AUTO, *(f"{name}={fit}" for name, fit, _ in pairs if fit))
    return tuple(f"{name}={fit}" for name, fit, scale in pairs if fit != UNIT or scale != UNIT)


def _fitting(ratings: Float64, stated: Scale) -> Scale | None:
    """The stated scale where it holds all ratings; else a usual one, or whole numbers around them.

    None for ratings that are all the same, which many scales would fit.
    """
    known = ratings[~np.isnan(ratings) & ~np.isin(ratings, codes_of_ratings(ratings))]
    low, high = (float(known.min()), float(known.max())) if len(known) else stated
    if _holds(stated, low) and _holds(stated, high):
        return stated
    if low == high:
        return None
    return _usual(low, high)


def _usual(low: float, high: float) -> Scale:
    """A usual scale that holds both and is no more than twice as wide; else whole numbers around them."""
    usual = (scale for scale in _USUAL if _holds(scale, low) and _holds(scale, high))
    fit = next((scale for scale in usual if high - low >= scale.width / 2), None)
    return fit or Scale(float(math.floor(low)), float(math.ceil(high)))


def _class_target(cells: LabelCells, name: str, known: Sequence[str]) -> ClassTarget:
    """Its classes: those of the settings, or those of Train in alphabetical order."""
    if "=" in name:
        raise ConfigError("--class-target", name, wanted="a name without =", fix="rename the column")
    if classes := classes_of_labels(name, known):
        return ClassTarget(name=name, classes=classes)
    in_train = _is(cells, "Train")
    found = {cell for cell, is_in in zip(cells.cells[name], in_train, strict=True) if is_in}
    classes = tuple(sorted(cell for cell in found if not is_none(cell)))
    if not 2 <= len(classes) <= _MOST_CLASSES:
        raise DataError(
            f"--class-target {name}",
            f"{counted(len(classes), 'class')} in Train",
            wanted=f"2 to {_MOST_CLASSES}",
            fix="name a column of classes",
        )
    return ClassTarget(name=name, classes=classes)


def _class_numbers(cells: LabelCells, target: ClassTarget, *, learned: bool) -> Float64:
    """[n]: the number of each row's class, NaN for none. Raises DataError for a class that is not learned."""
    numbers = {name: float(i) for i, name in enumerate(target.classes)}
    texts = cells.cells[target.name]
    hidden = _is(cells, "Test") & np.array([number(cell) == _HIDDEN for cell in texts], dtype=bool)
    hidden |= np.array([is_none(cell) for cell in texts], dtype=bool)
    values = np.array([numbers.get(cell, math.nan) for cell in texts])
    if (unknown := np.isnan(values) & ~hidden).any():
        first = texts[int(np.flatnonzero(unknown)[0])]
        lacks, fix = "no clip of Train has", "move clips of this class to Train"
        if learned:
            lacks, fix = "the run did not learn", "leave the cell empty"
        raise cells.refused(
            np.flatnonzero(unknown),
            f"{target.name} is {first!r}, a class that {lacks}",
            wanted=f"one of {', '.join(target.classes)}",
            fix=f"correct it, or {fix}",
        )
    return np.where(hidden & ~np.isin(texts, target.classes), np.nan, values)


def _one_hot(numbers: Float64, classes: Sequence[ClassTarget]) -> list[Float64]:
    """[n, C] of each class target: 1 for the row's class, 0 for the others, NaN where it has none."""
    columns = []
    for known, target in zip(numbers.T, classes, strict=True):
        one = (known[:, None] == np.arange(len(target.classes))).astype(np.float64)
        columns.append(np.where(np.isnan(known)[:, None], np.nan, one))
    return columns


def _check_rated(cells: LabelCells, ratings: Float32, columns: Columns) -> None:
    """Raises DataError where a target has too few clips to be learned."""
    for split in ("Train", "Val"):
        inside = _is(cells, split)
        counts = (~np.isnan(ratings[inside])).sum(0)
        for name, count in zip(columns.names, counts.tolist(), strict=True):
            if count < min(FEWEST_RATED, int(inside.sum())):
                raise cells.refused(
                    np.flatnonzero(inside & np.isnan(ratings[:, columns.names.index(name)])),
                    f"{name} is blank: {count} of {int(inside.sum())} clips of {split} have it",
                    wanted=f"at least {FEWEST_RATED}",
                    fix=f"leave {name} out",
                )


def _outside_warnings(raw: Float64, columns: Columns) -> list[str]:
    """Ratings of Val and Test that lie outside of a scale that --scale auto took from Train."""
    ends = np.array([[scale.low, scale.high] for scale in columns.scales]).reshape(-1, 2)
    outside = ((raw < ends[:, 0]) | (raw > ends[:, 1])).sum(0)
    named = ", ".join(f"{name} {n}" for name, n in zip(columns.targets, outside.tolist(), strict=True) if n)
    return [f"ratings of Val or Test outside their scale, as --scale {AUTO} allows: {named}"] if named else []
