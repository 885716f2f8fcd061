"""The paper's Table 1 for any data set, with the lengths and levels of its recordings."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ...runtime.spec import FrontendSpec
from .clip_cache import ClipStore
from .data_set import Split, named_speakers
from .levels import CLIPPED

_SHARES: Final = {"min": 0.0, "5%": 0.05, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}
Quantiles = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """One split. Bad files count as clips, and not in any other figure."""

    split: str
    clips: int
    minutes: float
    speakers: int
    countries: dict[str, int]
    seconds: Quantiles
    longer_than_clip: int  # recordings whose end is not evaluated
    peak_dbfs: Quantiles  # of the files themselves; silent files have none
    clipped: int
    silent: int
    bad: int  # files that cannot be used


def split_summary(name: str, split: Split, store: ClipStore, spec: FrontendSpec) -> SplitSummary:
    """`store` has the clips of the split, in the order of the split."""
    lengths = store.lengths[[not error for error in store.errors]]
    countries = [clip.country for clip in split.clips]
    return SplitSummary(
        split=name,
        clips=len(split.clips),
        minutes=round(float(lengths.sum()) / spec.sampling_rate / 60, 2),
        speakers=named_speakers(clip.speaker for clip in split.clips),
        countries={country: countries.count(country) for country in sorted(set(countries))},
        seconds=_quantiles(lengths / spec.sampling_rate),
        longer_than_clip=int((lengths > spec.clip_samples).sum()),
        peak_dbfs=_quantiles(20 * np.log10(store.peaks[store.peaks > 0])),
        clipped=int(is_clipped(store).sum()),
        silent=int(store.silent.sum()),
        bad=sum(map(bool, store.errors)),
    )


def is_clipped(store: ClipStore) -> npt.NDArray[np.bool_]:
    """[n] True where the tops of the waves are cut off, at any level."""
    return store.flat_tops >= CLIPPED


def _quantiles(values: npt.NDArray[np.float64]) -> Quantiles:
    if not len(values):
        return {}
    return {
        name: round(float(value), 3)
        for name, value in zip(_SHARES, np.quantile(values, list(_SHARES.values())), strict=True)
    }
