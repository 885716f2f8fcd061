"""Speaker-disjoint folds of a data set: each speaker is validated on once, by a run that never heard them.

n clips.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...runtime.errors import ConfigError, DataError
from ...runtime.text import counted
from ..config import ALL_FOLDS, LOSO, fold_of_text
from .data_set import Clip, DataSet, Split
from .ratings import classes_not_in_train

_FEWEST = 2  # clips with each target, on both sides of a fold


def fold_numbers(clips: Sequence[Clip], folds: str) -> list[int]:
    """[n]: the fold of each clip, counted from 1. `folds` is a number, or loso for a fold for each speaker.

    Speakers with many clips are dealt first, each to the fold with the fewest clips so far; among equals, a
    hash of the name decides. Equal tables have equal folds, whatever the seed and the order of rows.
    Raises DataError for clips without a speaker, ConfigError for more folds than speakers.
    """
    if nameless := [clip for clip in clips if not clip.speaker]:
        raise DataError(
            "rrtn crossval",
            f"{counted(len(nameless), 'clip')} without a speaker (first: {nameless[0].file_id})",
            wanted="a column of speakers: a fold holds whole speakers",
            fix="--speaker-column NAME",
        )
    counts = Counter(clip.speaker for clip in clips)
    if len(counts) < 2:
        came = f"{counted(len(counts), 'speaker')} in the table"
        raise DataError(
            "rrtn crossval", came, wanted="at least 2: a fold is predicted by a run of the others"
        )
    if folds == LOSO:
        number = {speaker: i for i, speaker in enumerate(sorted(counts), start=1)}
        return [number[clip.speaker] for clip in clips]
    if int(folds) > len(counts):
        raise ConfigError(
            "--folds", folds, wanted=f"at most {len(counts)}, the number of speakers, or {LOSO}"
        )
    sizes = [0] * int(folds)
    number = {}
    for speaker in sorted(counts, key=lambda name: (-counts[name], hashlib.sha256(name.encode()).digest())):
        fold = sizes.index(min(sizes))
        sizes[fold] += counts[speaker]
        number[speaker] = fold + 1
    return [number[clip.speaker] for clip in clips]


def fold_of_data(data: DataSet, fold: str, numbers: Sequence[int] = ()) -> DataSet:
    """`data` with Train as its only rated split -> the fold that a setting such as 2/5 names.

    all/5 has all clips in Train and in Val: what is evaluated when each fold has been predicted. `numbers`
    are those of `fold_numbers`, where they are known. Raises what `fold_numbers` raises, and DataError for a
    fold with too few clips of a target.
    """
    which, folds = fold_of_text(fold)
    pool = data.splits["Train"]
    of_clips = np.array(numbers or fold_numbers(pool.clips, folds))
    if which == ALL_FOLDS:
        everything = np.ones(len(of_clips), dtype=np.bool_)
        return _with_splits(data, everything, everything)
    if which > of_clips.max():
        raise ConfigError("data.fold", fold, wanted=f"at most {of_clips.max()}, the number of speakers")
    inside = of_clips == which
    for side, mask in (("validated on", inside), ("trained on", ~inside)):
        rated = (~np.isnan(pool.ratings[mask])).sum(0)
        if (few := rated < _FEWEST).any():
            name = data.columns.names[int(few.argmax())]
            raise DataError(
                f"fold {fold}",
                f"{counted(int(rated[few.argmax()]), 'clip')} with {name} {side}",
                wanted=f"at least {_FEWEST}",
                fix=f"take fewer folds, or leave {name} out",
            )
    return _with_splits(data, ~inside, inside)


def check_classes_of_fold(data: DataSet, fold: str) -> None:
    """Raises DataError where a class is in the fold alone, so that its run would never learn it.

    Asked before training alone: `fold_of_data` also reads finished runs, which are evaluated as they are.
    """
    for name, clips in classes_not_in_train(data, [data.splits["Val"]]).items():
        if clips:
            speakers = {clip.speaker for clip in clips}
            apart = f"take more folds ({LOSO}: one for each speaker), or leave"
            raise DataError(
                f"fold {fold}",
                f"no clip with {name} trained on: the {counted(len(clips), 'clip')} with it "
                f"{'is' if len(clips) == 1 else 'are'} of {counted(len(speakers), 'speaker')}, in this fold",
                wanted="at least 1, so that the class is learned",
                fix=f"{apart if len(speakers) > 1 else 'leave'} the cells of this class empty",
            )


def _with_splits(
    data: DataSet, train: "np.typing.NDArray[np.bool_]", val: "np.typing.NDArray[np.bool_]"
) -> DataSet:
    pool = data.splits["Train"]
    splits = {
        name: Split(
            clips=tuple(pool.clips[i]._replace(split=name) for i in np.flatnonzero(mask)),
            ratings=pool.ratings[mask],
            rated=pool.rated[mask],
            part_of=None if mask.all() else (pool, np.flatnonzero(mask)),  # decoded once for all folds
        )
        for name, mask in (("Train", train), ("Val", val))
    }
    return replace(data, splits={**data.splits, **splits})
