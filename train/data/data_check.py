"""Everything that can be found out about a data set before a training, and what is wrong with it.

n clips, K targets.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...runtime.progress import Progress
from ...runtime.spec import FrontendSpec
from ...runtime.text import counted
from ..config import DataConfig, config_from_dict
from .clip_cache import ClipStore, store_with_errors
from .column_names import SPLITS
from .data_set import Clip, DataSet
from .places import SETTINGS, settings_of_folder
from .ratings import (
    LabelSummary,
    Pair,
    at_full,
    class_counts,
    constant_targets,
    correlations,
    histograms,
    label_summaries,
    rated,
    strongest_pairs,
)
from .reading import data_of_settings
from .table1 import SplitSummary, is_clipped, split_summary

LEAK: Final = " LEAK:"  # in the warnings that concern validation
_IN_HUMES_FORM: Final = 0.9  # from this share of clips with a target at 1.0, the other clips are odd


@dataclass(frozen=True, kw_only=True, eq=False)
class DataReport:
    """What `rrtn data check` prints."""

    data: DataSet
    splits: tuple[SplitSummary, ...]
    labels: tuple[LabelSummary, ...]
    classes: dict[str, dict[str, dict[str, int]]]  # class target -> class -> split -> clips
    histograms: dict[str, npt.NDArray[np.int64]]  # split -> [K, BINS]; splits without ratings are left out
    correlations: npt.NDArray[np.float64]  # [K, K], over all rated clips
    pairs: list[Pair]  # the strongest first
    one_at_full: float  # share of rated clips with a target at exactly 1.0, as in Hume-VB
    duplicates: list[tuple[Clip, ...]]  # clips with equal samples, those in several splits first
    bad_files: dict[str, str]  # File_ID -> "code: what is wrong"
    warnings: tuple[str, ...]

    @property
    def errors(self) -> tuple[str, ...]:
        """What training refuses."""
        if not self.bad_files:
            return ()
        file_id, error = next(iter(self.bad_files.items()))
        clips = counted(sum(split.clips for split in self.splits), "file")
        return (
            f"{len(self.bad_files)} of {clips} cannot be decoded (first: {file_id}: {error}): "
            "training refuses them",
        )

    @property
    def verdict(self) -> str:
        """What all of it comes to, in a line."""
        if self.errors:
            return f"cannot be trained: {counted(len(self.bad_files), 'file')} cannot be decoded"
        leaks = sorted({warning.partition(":")[0] for warning in self.warnings if LEAK in warning})
        if leaks:
            return f"trains, but validation figures will be too good: {' and '.join(leaks)}"
        if self.warnings:
            return f"trains, with {counted(len(self.warnings), 'warning')}"
        return "trains, and nothing is wrong with it"

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        targets = self.data.targets
        return {
            "dir": str(self.data.path),
            "targets": list(targets),
            "splits": [vars(split) for split in self.splits],
            "labels": [label._asdict() for label in self.labels],
            **({"classes": self.classes} if self.classes else {}),
            "histograms": {
                name: dict(zip(targets, counts.tolist(), strict=True))
                for name, counts in self.histograms.items()
            },
            "correlations": [
                [None if np.isnan(r) else round(r, 4) + 0.0 for r in row]
                for row in self.correlations.tolist()
            ],
            "one_target_at_1": self.one_at_full,
            "duplicates": [
                [{"file": clip.file_id, "split": clip.split} for clip in same] for same in self.duplicates
            ],
            "bad_files": self.bad_files,
            "errors": list(self.errors),
            "warnings": list(self.warnings),
            "verdict": self.verdict,
        }


def check_data(folder: Path, spec: FrontendSpec, settings: DataConfig | None = None) -> DataReport:
    """Reads the table and decodes every file into the cache that training reads.

    `settings` of [data] are those of training; by default they are what the folder's data.toml says.

    Raises DataError for a faulty table. A file that cannot be decoded is part of the report.
    """
    if settings is None:
        settings = config_from_dict({"data": settings_of_folder(folder)}, source=SETTINGS).data
    data = data_of_settings(folder, settings)
    splits = {name: data.splits[name] for name in SPLITS if data.splits[name].clips}
    stores = {
        name: store_with_errors(
            [clip.path for clip in split.clips], spec, label=f"decode {name}", channel=data.channel
        )
        for name, split in splits.items()
    }
    clips = [clip for split in splits.values() for clip in split.clips]
    of_targets = {name: split.ratings[:, : len(data.targets)] for name, split in splits.items()}
    ratings = np.concatenate([*of_targets.values()])
    all_rated = rated(ratings)
    r = correlations(all_rated)
    duplicates = _duplicates(clips, list(stores.values()))
    errors = [error for store in stores.values() for error in store.errors]
    return DataReport(
        data=data,
        splits=tuple(split_summary(name, split, stores[name], spec) for name, split in splits.items()),
        labels=label_summaries(data, [*splits]),
        classes=class_counts(data, [*splits]),
        histograms={
            name: histograms(known) for name, part in of_targets.items() if len(known := rated(part))
        },
        correlations=r,
        pairs=strongest_pairs(r, data.targets),
        one_at_full=float(at_full(all_rated).mean()) if len(all_rated) else 0.0,
        duplicates=duplicates,
        bad_files={clip.file_id: error for clip, error in zip(clips, errors, strict=True) if error},
        warnings=(
            *data.warnings,
            *_duplicate_warnings(duplicates),
            *_sound_warnings(clips, list(stores.values())),
            *constant_targets(data),
            *_not_in_humes_form(data, clips, ratings),
            *_without_speaker(clips),
        ),
    )


def _sound_warnings(clips: Sequence[Clip], stores: Sequence[ClipStore]) -> list[str]:
    silent = _joined(store.silent for store in stores)
    clipped = _joined(map(is_clipped, stores))
    return [
        *_marked(clips, silent, "are silent: there is nothing to learn from them"),
        *_marked(clips, clipped, "are clipped: the tops of their waves are cut off"),
    ]


def _without_speaker(clips: Sequence[Clip]) -> list[str]:
    nameless = np.array([not clip.speaker for clip in clips])
    return _marked(clips, nameless, "have no Subject_ID: speaker leaks stay unseen")


def _joined(marks: Iterable[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    return np.concatenate(list(marks))


def _duplicates(clips: Sequence[Clip], stores: Sequence[ClipStore]) -> list[tuple[Clip, ...]]:
    """Groups of clips with the same samples. Bad files and silent clips belong to no group."""
    same: dict[bytes, list[Clip]] = {}
    remaining = iter(clips)
    with Progress("compare", len(clips), "clips") as progress:
        for store in stores:
            for i in range(len(store)):
                clip = next(remaining)
                if not (store.errors[i] or store.silent[i]):
                    same.setdefault(hashlib.sha256(store.waveform(i).tobytes()).digest(), []).append(clip)
                progress.advance()
    groups = [tuple(group) for group in same.values() if len(group) > 1]
    return sorted(groups, key=lambda group: len(_splits_of(group)), reverse=True)


def _splits_of(group: Sequence[Clip]) -> set[str]:
    return {clip.split for clip in group}


def _duplicate_warnings(duplicates: Sequence[tuple[Clip, ...]]) -> list[str]:
    across = [group for group in duplicates if len(_splits_of(group)) > 1]
    within = [group for group in duplicates if len(_splits_of(group)) == 1]
    lines = []
    if across:
        names = " = ".join(f"{clip.file_id} in {clip.split}" for clip in across[0])
        lines.append(
            f"DUPLICATE LEAK: {counted(len(across), 'recording')} in more than one split under other names "
            f"(first: {names}): "
            "validation figures will be too good"
        )
    if within:
        names = " = ".join(clip.file_id for clip in within[0])
        lines.append(
            f"{counted(len(within), 'recording')} in one split more than once (first: {names} in "
            f"{within[0][0].split})"
        )
    return lines


def _marked(clips: Sequence[Clip], marks: npt.NDArray[np.bool_], what: str) -> list[str]:
    if not marks.any():
        return []
    first = clips[int(marks.argmax())]
    some = int(marks.sum())
    if some == 1:
        what = what.replace("are ", "is ", 1).replace("have ", "has ", 1)
    return [f"{some} of {counted(len(clips), 'clip')} {what} (first: {first.file_id}, line {first.line})"]


def _not_in_humes_form(data: DataSet, clips: Sequence[Clip], ratings: npt.NDArray[np.float32]) -> list[str]:
    """A warning for the odd clips, where nearly all clips have a target at 1.0.

    Data that were rated in another way are not at fault.
    """
    known = ~np.isnan(ratings).all(axis=1)
    odd = known & ~at_full(ratings)
    if data.columns.is_scaled or odd.sum() > (1 - _IN_HUMES_FORM) * known.sum():
        return []
    return _marked(clips, odd, "have no target at exactly 1.0, as all others have, and as in Hume-VB")
