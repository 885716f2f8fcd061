"""Everything that can be found out about a data set before a training, and what is wrong with it.

n clips, K targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...runtime.spec import FrontendSpec
from ...runtime.text import counted
from ..config import DataConfig
from .clip_cache import store_with_errors
from .column_names import SPLITS
from .data_set import Clip, DataSet
from .places import config_of_folder
from .ratings import (
    LabelSummary,
    Pair,
    absent_classes,
    alike_names,
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
from .sound_check import (
    LEAK,
    clipped_warnings,
    duplicate_warnings,
    duplicates_of,
    marked,
    silent_start_warnings,
    silent_warnings,
)
from .table1 import SplitSummary, split_summary

_IN_HUMES_FORM: Final = 0.9  # from this share of clips with a target at 1.0, the other clips are odd


@dataclass(frozen=True, kw_only=True, eq=False)
class DataReport:
    """What `rrtn data check` prints."""

    data: DataSet
    clip_seconds: float  # what of a recording a model hears, as its frontend was given
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
            f"{len(self.bad_files)} of {clips} cannot be used (first: {file_id}: {error}): "
            "training refuses them",
        )

    @property
    def verdict(self) -> str:
        """What all of it comes to, in a line."""
        if self.errors:
            return f"cannot be trained: {counted(len(self.bad_files), 'file')} cannot be used"
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
            "clip_seconds": self.clip_seconds,
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
        settings = config_of_folder(folder)
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
    duplicates = duplicates_of(clips, list(stores.values()))
    errors = [error for store in stores.values() for error in store.errors]
    return DataReport(
        data=data,
        clip_seconds=spec.clip_seconds,
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
            *duplicate_warnings(duplicates),
            *silent_warnings(clips, list(stores.values())),
            *silent_start_warnings(clips, list(stores.values()), spec),
            *clipped_warnings(clips, list(stores.values())),
            *absent_classes(data),
            *constant_targets(data),
            *alike_names(data),
            *_not_in_humes_form(data, clips, ratings),
            *_without_speaker(clips),
        ),
    )


def _without_speaker(clips: Sequence[Clip]) -> list[str]:
    nameless = np.array([not clip.speaker for clip in clips])
    what = (
        "have no Subject_ID: speaker leaks stay unseen, and nothing has an interval (--speaker-column NAME)"
    )
    return marked(clips, nameless, what)


def _not_in_humes_form(data: DataSet, clips: Sequence[Clip], ratings: npt.NDArray[np.float32]) -> list[str]:
    """A warning for the odd clips, where nearly all clips have a target at 1.0.

    Data that were rated in another way are not at fault.
    """
    known = ~np.isnan(ratings).all(axis=1)
    odd = known & ~at_full(ratings)
    if data.columns.is_scaled or odd.sum() > (1 - _IN_HUMES_FORM) * known.sum():
        return []
    return marked(clips, odd, "have no target at exactly 1.0, as all others have, and as in Hume-VB")
