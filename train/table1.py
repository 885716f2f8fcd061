"""The paper's Table 1 for any data set, and what is odd about its audio and ratings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..runtime.spec import FrontendSpec
from .clips import ClipStore, clip_store
from .data import SPLITS, DataSet, Split, read_data

_PEAK_TOLERANCE: Final = 1e-6


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """One row of Table 1."""

    split: str
    clips: int
    minutes: float
    speakers: int
    countries: dict[str, int]
    silent: int
    longer_than_clip: int  # recordings of which evaluation sees the start only


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What `rrtn data check` prints."""

    data: DataSet
    splits: tuple[SplitSummary, ...]
    one_at_full: float  # share of rated clips with a target at exactly 1.0, as in Hume-VB

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "dir": str(self.data.path),
            "targets": list(self.data.targets),
            "splits": [vars(split) for split in self.splits],
            "one_target_at_1": self.one_at_full,
            "warnings": list(self.data.warnings),
        }


def check_data(folder: Path, spec: FrontendSpec) -> DataReport:
    """Reads the CSV and decodes every file. Raises DataError as training would."""
    data = read_data(folder)
    summaries = tuple(_summary(name, data.splits[name], spec) for name in SPLITS if data.splits[name].clips)
    ratings = np.concatenate([split.ratings for split in data.splits.values()])
    rated = ratings[~np.isnan(ratings).any(axis=1)]
    at_full = float((np.abs(rated.max(axis=1) - 1) < _PEAK_TOLERANCE).mean())
    return DataReport(data=data, splits=summaries, one_at_full=at_full)


def _summary(name: str, split: Split, spec: FrontendSpec) -> SplitSummary:
    store = clip_store([clip.path for clip in split.clips], spec, label=f"decode {name}")
    countries = [clip.country for clip in split.clips]
    return SplitSummary(
        split=name,
        clips=len(split.clips),
        minutes=round(float(store.lengths.sum()) / spec.sampling_rate / 60, 2),
        speakers=len({clip.speaker for clip in split.clips}),
        countries={country: countries.count(country) for country in sorted(set(countries))},
        silent=_silent(store),
        longer_than_clip=int((store.lengths > spec.clip_samples).sum()),
    )


def _silent(store: ClipStore) -> int:
    return sum(not store.waveform(i).any() for i in range(len(store)))
