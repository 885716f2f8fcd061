"""What the ratings of a data set look like: histograms, correlations, constants, and the form of Hume-VB.

n clips, K targets.
"""

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...runtime.arrays import Float32
from ...runtime.text import first_of
from .data_set import Clip, DataSet, Split
from .targets import number

BINS: Final = 10  # of width 0.1; the last one has 1.0 in it
_FULL_TOLERANCE: Final = 1e-6
_BETWEEN_NUMBERS: Final = re.compile(r"(?<=\d)[\s_-]+(?=\d)")
_BESIDE_WORDS: Final = re.compile(r"(?<!\d)[\s_-]+|[\s_-]+(?!\d)")
_LEADING_ZEROS: Final = re.compile(r"(?<![\d.])0+(?=\d)")


class Pair(NamedTuple):
    """Two targets and Pearson's r between them."""

    first: str
    second: str
    r: float


def rated(ratings: Float32) -> Float32:
    """The rows of [n, K] that have a rating."""
    return ratings[~np.isnan(ratings).all(axis=1)]


def histograms(ratings: Float32) -> npt.NDArray[np.int64]:
    """[n, K] -> the number of clips in each tenth of 0 to 1 [K, BINS]; blanks are in none."""
    return np.stack([_histogram(column[~np.isnan(column)]) for column in ratings.T])


def _histogram(ratings: Float32) -> npt.NDArray[np.int64]:
    tenth = (ratings.astype(np.float64) * BINS + 1e-6).astype(np.int64)  # 0.3 in float32 is a bit less
    return np.bincount(np.clip(tenth, 0, BINS - 1), minlength=BINS)


def correlations(ratings: Float32) -> npt.NDArray[np.float64]:
    """[n, K] -> Pearson's r [K, K] over the clips that have both; NaN for a target without variation."""
    blank = np.isnan(ratings)
    if ratings.size and not blank.any():
        return _correlations(ratings)
    r = np.full((ratings.shape[1],) * 2, np.nan)
    for i, j in zip(*np.triu_indices(len(r)), strict=True):
        both = ratings[~(blank[:, i] | blank[:, j])][:, [i, j]]
        if len(both) > 1:
            r[i, j] = r[j, i] = _correlations(both)[0, 1]
    return r


def _correlations(ratings: Float32) -> npt.NDArray[np.float64]:
    centred = ratings.astype(np.float64) - ratings.mean(axis=0, dtype=np.float64)
    deviations = np.sqrt((centred**2).sum(axis=0))
    constant = np.ptp(ratings, axis=0) == 0
    deviations[constant] = np.nan
    r: npt.NDArray[np.float64] = centred.T @ centred / np.outer(deviations, deviations)
    return np.clip(r, -1, 1)


def strongest_pairs(r: npt.NDArray[np.float64], targets: tuple[str, ...]) -> list[Pair]:
    """All pairs of [K, K] that have an r; the largest |r| comes first."""
    pairs = [
        Pair(targets[i], targets[j], float(r[i, j]))
        for i, j in zip(*np.triu_indices(len(targets), 1), strict=True)
    ]
    return sorted((pair for pair in pairs if not np.isnan(pair.r)), key=lambda pair: -abs(pair.r))


def classes_not_in_train(data: DataSet, clips_of: Sequence[Split] = ()) -> dict[str, list[Clip]]:
    """Each class that no clip of Train has, as in Type=Laugh -> the clips of these splits that have it."""
    of_classes = range(len(data.targets), len(data.columns.labels))
    absent = [k for k in of_classes if not (data.splits["Train"].rated[:, k] == 1).any()]
    return {
        data.columns.labels[k]: [
            split.clips[i] for split in clips_of for i in np.flatnonzero(split.rated[:, k] == 1)
        ]
        for k in absent
    }


def absent_classes(data: DataSet) -> list[str]:
    """A warning for classes that the settings name and Train lacks; none where there are none."""
    absent = classes_not_in_train(data)
    return [f"no clip in Train, so never learned: {', '.join(absent)}"] if absent else []


def constant_targets(data: DataSet) -> list[str]:
    """A warning for each split, with all targets that are constant in it; none where no target is."""
    return [*constant_in_train(data), *(text for name in ("Val", "Test") for text in constant_in(data, name))]


def constant_in(data: DataSet, split: str) -> list[str]:
    """A warning with the targets that are constant in a split, and one with such class targets."""
    counts = (~np.isnan(data.splits[split].ratings)).sum(0).tolist() if split in data.splits else []
    several = zip(_values(data, split), counts, strict=False)
    constant = [name for (name, values), count in several if len(values) == 1 < count]
    found = {
        "CCC of 0": [name for name in data.targets if name in constant],
        "UAR": [name for name in data.columns.names[len(data.targets) :] if name in constant],
    }
    return [
        f"no variation in {split}, so a {measure} there says nothing: {', '.join(names)}"
        for measure, names in found.items()
        if names
    ]


def constant_in_train(data: DataSet) -> list[str]:
    """A warning with all targets that are constant in Train; none where no target is."""
    train = [name for name, values in _values(data, "Train") if len(values) < 2]
    return [f"no variation in Train, so nothing to learn: {', '.join(train)}"] if train else []


def alike_names(data: DataSet) -> list[str]:
    """A warning for targets, classes of a target, and speakers that are spelt in two ways."""
    warnings = []
    if alike := _alike(data.columns.names):
        warnings.append(f"targets that may be one: {', '.join(alike)}")
    for target in data.columns.classes:
        if alike := _alike(target.classes):
            warnings.append(f"classes of {target.name} that may be one: {', '.join(alike)}")
    speakers = (clip.speaker for split in data.splits.values() for clip in split.clips)
    return [*warnings, *alike_speakers(speakers)]


def alike_speakers(speakers: Iterable[str]) -> list[str]:
    """A warning for speakers that may be one: Anna and anna, 14 and 14.0, VP 14 and VP_014."""
    alike = _alike(sorted(set(speakers) - {""}), _speaker_key)
    return [f"speakers that may be one: {first_of(alike)}"] if alike else []


def _key(name: str) -> str:
    """Equal for names that differ in case, width or blanks alone."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _speaker_key(name: str) -> str | Decimal:
    """Equal also for names that are one number, or that differ in zeros and in what parts their words."""
    key = unicodedata.normalize("NFKC", name).casefold()
    if "e" not in key and number(key) is not None:  # 12e45 may be a hash
        return Decimal(key)
    parted = _BETWEEN_NUMBERS.sub("_", key)  # 1_11 is not 11_1
    return _LEADING_ZEROS.sub("", _BESIDE_WORDS.sub("", parted)) or key


def _alike(names: Iterable[str], key: Callable[[str], Hashable] = _key) -> list[str]:
    """'Anna' = 'anna', for each group of names that have one key."""
    spelt: dict[Hashable, list[str]] = {}
    for name in names:
        spelt.setdefault(key(name), []).append(name)
    return [" = ".join(map(repr, group)) for group in spelt.values() if len(group) > 1]


def _values(data: DataSet, split: str) -> list[tuple[str, Float32]]:
    """The distinct values of each target of a split; the class targets stand behind the others."""
    columns = data.splits[split].ratings.T if split in data.splits else ()
    known = (np.unique(column[~np.isnan(column)]) for column in columns)
    return [*zip(data.columns.names, known, strict=False)]


def at_full(ratings: Float32) -> npt.NDArray[np.bool_]:
    """[n, K] -> [n]: True for a clip with a target at exactly 1.0, as all rated clips of Hume-VB."""
    return np.asarray((np.abs(ratings - 1) < _FULL_TOLERANCE).any(axis=1))  # a NaN is not


class LabelSummary(NamedTuple):
    """One rated target or class target."""

    name: str
    scale: str  # 1:9; of a class target the number of its classes
    values: int  # distinct ones in Train
    blank: dict[str, int]  # split -> clips without it


def label_summaries(data: DataSet, splits: Sequence[str]) -> tuple[LabelSummary, ...]:
    """[K + J]: what there is of each target."""
    columns, train = data.columns, data.splits["Train"].ratings.T
    kinds = [*map(str, columns.scales), *(f"{len(target.classes)} classes" for target in columns.classes)]
    return tuple(
        LabelSummary(
            name=name,
            scale=kind,
            values=len(np.unique(train[k][~np.isnan(train[k])])),
            blank={split: int(np.isnan(data.splits[split].ratings[:, k]).sum()) for split in splits},
        )
        for k, (name, kind) in enumerate(zip(columns.names, kinds, strict=True))
    )


def class_counts(data: DataSet, splits: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Class target -> class -> split -> clips."""
    rated_targets = len(data.targets)
    return {
        target.name: {
            name: {
                split: int((data.splits[split].ratings[:, rated_targets + j] == number).sum())
                for split in splits
            }
            for number, name in enumerate(target.classes)
        }
        for j, target in enumerate(data.columns.classes)
    }
