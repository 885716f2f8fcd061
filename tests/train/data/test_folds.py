"""Folds are whole speakers, balanced, and a function of the table alone."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rrtn.runtime.errors import ConfigError, DataError
from rrtn.train.config import DataConfig
from rrtn.train.data.data_set import Clip, DataSet, Split
from rrtn.train.data.folds import check_classes_of_fold, fold_numbers, fold_of_data
from rrtn.train.method.columns import UNIT, ClassTarget, Columns

SIZES = [9, 1, 4, 4, 2, 7, 3, 3, 5, 2, 2]  # clips of each speaker


def clips_of(sizes: list[int], *, split: str = "Train") -> tuple[Clip, ...]:
    speakers = [f"s{i:02d}" for i, size in enumerate(sizes) for _ in range(size)]
    return tuple(Clip(f"{i}", Path(f"{i}.wav"), split, name, "", i + 2) for i, name in enumerate(speakers))


def data_of(sizes: list[int]) -> DataSet:
    clips = clips_of(sizes)
    rated = np.random.default_rng(0).uniform(0, 1, (len(clips), 1))
    empty = Split(clips=(), ratings=np.empty((0, 1), np.float32), rated=np.empty((0, 1)))
    pool = Split(clips=clips, ratings=rated.astype(np.float32), rated=rated)
    columns = Columns(targets=("Awe",), scales=(UNIT,))
    return DataSet(
        path=Path(), columns=columns, splits={"Train": pool, "Val": empty, "Test": empty}, of_table=()
    )


@pytest.mark.parametrize("folds", ["2", "3", "5", "11", "loso"])
def test_a_speaker_is_in_one_fold_and_every_fold_has_one(folds: str) -> None:
    clips = clips_of(SIZES)
    numbers = fold_numbers(clips, folds)
    pairs = {(clip.speaker, number) for clip, number in zip(clips, numbers, strict=True)}
    assert len(pairs) == len(SIZES)
    assert set(numbers) == set(range(1, (len(SIZES) if folds == "loso" else int(folds)) + 1))


def test_folds_are_balanced_by_clips() -> None:
    sizes = Counter(fold_numbers(clips_of(SIZES), "3")).values()
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == sum(SIZES)


def test_speakers_with_many_clips_are_dealt_first() -> None:
    assert [*Counter(fold_numbers(clips_of([1, 1, 1, 1, 1, 1, 6]), "2")).values()] == [6, 6]


def test_folds_do_not_depend_on_the_order_of_the_rows() -> None:
    clips = clips_of(SIZES)
    backwards = fold_numbers(clips[::-1], "4")
    assert backwards[::-1] == fold_numbers(clips, "4")


def test_of_loso_each_speaker_is_one_in_alphabetical_order() -> None:
    assert fold_numbers(clips_of([2, 1, 3]), "loso") == [1, 1, 2, 3, 3, 3]


def test_a_fold_is_validated_on_and_the_others_are_trained_on() -> None:
    data = data_of([3, 2, 4])
    seen: list[str] = []
    for number in (1, 2, 3):
        fold = fold_of_data(data, f"{number}/loso")
        train, val = fold.splits["Train"], fold.splits["Val"]
        assert {clip.speaker for clip in train.clips}.isdisjoint(clip.speaker for clip in val.clips)
        assert len(train.clips) + len(val.clips) == 9
        assert {clip.split for clip in val.clips} == {"Val"}
        for clip, rated in zip(val.clips, val.rated, strict=True):
            assert rated == data.splits["Train"].rated[int(clip.file_id)]
        seen += [clip.file_id for clip in val.clips]
    assert sorted(seen) == sorted(clip.file_id for clip in data.splits["Train"].clips)


def test_all_folds_together_have_every_clip_on_both_sides() -> None:
    data = data_of([3, 2, 4])
    whole = fold_of_data(data, "all/3")
    for name in ("Train", "Val"):
        assert [clip.file_id for clip in whole.splits[name].clips] == [str(i) for i in range(9)]


def test_what_makes_no_folds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--folds \| 4 \| expected at most 3, the number of speakers"):
        fold_numbers(clips_of([1, 1, 1]), "4")
    nameless = [clip._replace(speaker="") for clip in clips_of([2])]
    with pytest.raises(DataError, match=r"2 clips without a speaker \(first: 0\) .*--speaker-column"):
        fold_numbers(nameless, "2")
    with pytest.raises(
        DataError, match=r"fold 2/loso \| 1 clip with Awe validated on \| expected at least 2"
    ):
        fold_of_data(data_of([3, 1, 3]), "2/loso")
    with pytest.raises(DataError, match=r"fold 1/2 \| 1 clip with Awe trained on"):
        fold_of_data(data_of([3, 1]), "1/2")
    with pytest.raises(ConfigError, match=r"data\.fold \| 4/loso \| expected at most 3"):
        fold_of_data(data_of([3, 2, 4]), "4/loso")


@pytest.mark.parametrize(
    ("speakers", "fold", "line"),
    [
        (
            ["s00"],
            "1/loso",
            "the 3 clips with it are of 1 speaker, in this fold | {wanted} | leave the cells",
        ),
        (
            ["s00", "s02"],
            "1/2",
            "the 6 clips with it are of 2 speakers, in this fold | {wanted} | take more folds (loso: one for "
            "each speaker), or leave the cells",
        ),
    ],
)
def test_a_class_in_one_fold_alone_is_refused_for_what_is_trained_on(
    speakers: list[str], fold: str, line: str
) -> None:
    data = data_of([3, 3, 3, 3])
    pool = data.splits["Train"]
    odd = np.array([[float(clip.speaker in speakers)] for clip in pool.clips])
    columns = Columns(
        targets=("Awe",), scales=(UNIT,), classes=(ClassTarget(name="Kind", classes=("A", "B")),)
    )
    pool = replace(pool, ratings=np.hstack([pool.ratings, odd]), rated=np.hstack([pool.rated, 1 - odd, odd]))
    part = fold_of_data(replace(data, columns=columns, splits=data.splits | {"Train": pool}), fold)
    with pytest.raises(DataError) as caught:
        check_classes_of_fold(part, fold)
    wanted = "expected at least 1, so that the class is learned"
    assert str(caught.value) == (
        f"fold {fold} | no clip with Kind=B trained on: {line.format(wanted=wanted)} of this class empty"
    )
    check_classes_of_fold(fold_of_data(data, fold), fold)


@pytest.mark.parametrize("text", ["6/5", "0/5", "2/1", "2/", "/5", "x/5", "2/lo", "-1/5", "2", "\u0662/5"])
def test_a_wrong_fold_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^data\.fold \| .* expected such as 2/5 or 2/loso"):
        DataConfig(fold=text)


@pytest.mark.parametrize("folds", ["2", "loso"])
def test_of_one_speaker_there_are_no_folds(folds: str) -> None:
    with pytest.raises(DataError, match=r"1 speaker in the table \| expected at least 2"):
        fold_numbers(clips_of([5]), folds)
