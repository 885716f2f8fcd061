"""What is wrong with the decoded sounds of a data set: silence, clipping, and the same samples twice.

N samples.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ...runtime.arrays import Int16
from ...runtime.audio.sound import FramePowers
from ...runtime.progress import Progress
from ...runtime.spec import FrontendSpec
from ...runtime.text import counted
from ..config import Crop
from .clip_cache import ClipStore
from .data_set import Clip
from .table1 import is_clipped

LEAK: Final = " LEAK:"  # in the warnings that concern validation
_LOUD: Final = 0.05  # of the peak: a frame of 10 ms that has such a sample is within 60 dB of any other
_LOOKED_AT: Final = 64  # samples in the middle; only clips that share them, and their length, are compared


def notes_for_training(
    clips: Sequence[Clip], stores: Sequence[ClipStore], spec: FrontendSpec, crop: Crop
) -> list[str]:
    """What a person should know of the clips of all splits before trusting a training's figures.

    `crop` is what of a recording evaluation hears.
    """
    duplicates = [group for group in duplicates_of(clips, stores) if len(_splits_of(group)) > 1]
    silent_starts = silent_start_warnings(clips, stores, spec) if crop == "clip" else []
    return [*duplicate_warnings(duplicates), *silent_warnings(clips, stores), *silent_starts]


def duplicates_of(clips: Sequence[Clip], stores: Sequence[ClipStore]) -> list[tuple[Clip, ...]]:
    """Groups of clips with the same samples, those in several splits first.

    `stores` hold the clips, one after the other. Bad files and silent clips belong to no group.
    """
    places = [(store, i) for store in stores for i in range(len(store))]
    glances = [_glance(store.waveform(i)) for store, i in places]
    alike = Counter(glances)
    same: dict[bytes, list[Clip]] = {}
    with Progress("compare", len(clips), "clips") as progress:
        for clip, (store, i), glance in zip(clips, places, glances, strict=True):
            if alike[glance] > 1 and not (store.errors[i] or store.silent[i]):
                same.setdefault(hashlib.sha256(store.waveform(i).tobytes()).digest(), []).append(clip)
            progress.advance()
    groups = [tuple(group) for group in same.values() if len(group) > 1]
    return sorted(groups, key=lambda group: len(_splits_of(group)), reverse=True)


def learned_count(
    clips: Sequence[Clip], learned: Sequence[Clip], store: ClipStore, learned_store: ClipStore
) -> int:
    """How many clips have the samples of one that was learned from. A store has those of each sequence."""
    of_learning = set(map(id, learned))
    groups = duplicates_of([*learned, *clips], [learned_store, store])
    known = [group for group in groups if not of_learning.isdisjoint(map(id, group))]
    return sum(id(clip) not in of_learning for group in known for clip in group)


def _glance(samples: Int16) -> tuple[int, bytes]:
    middle = len(samples) // 2
    return len(samples), samples[middle : middle + _LOOKED_AT].tobytes()


def _splits_of(group: Sequence[Clip]) -> set[str]:
    return {clip.split for clip in group}


def duplicate_warnings(duplicates: Sequence[tuple[Clip, ...]]) -> list[str]:
    """A line for the groups in several splits, and one for the others."""
    across = [group for group in duplicates if len(_splits_of(group)) > 1]
    within = [group for group in duplicates if len(_splits_of(group)) == 1]
    lines = []
    if across:
        names = " = ".join(f"{clip.file_id} in {clip.split}" for clip in across[0])
        lines.append(
            f"DUPLICATE{LEAK} {counted(len(across), 'recording')} in more than one split under other names "
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


def silent_warnings(clips: Sequence[Clip], stores: Sequence[ClipStore]) -> list[str]:
    """At most one line."""
    silent = _joined(store.silent for store in stores)
    return marked(clips, silent, "are silent: there is nothing to learn from them")


def silent_start_warnings(
    clips: Sequence[Clip], stores: Sequence[ClipStore], spec: FrontendSpec
) -> list[str]:
    """At most one line: on clips, silent ones aside, whose sound begins behind what evaluation hears."""
    if spec.trim:  # the stores have what is left
        return []
    late = _joined(np.array([_begins_late(store, i, spec) for i in range(len(store))]) for store in stores)
    first = next((clip for clip, is_late in zip(clips, late, strict=True) if is_late), None)
    if first is None:
        return []
    counts = Counter(clip.split for clip in clips)
    found = Counter(clip.split for clip, is_late in zip(clips, late, strict=True) if is_late)
    named = ", ".join(f"{n} of {counted(counts[split], 'clip')} in {split}" for split, n in found.items())
    return [
        f"no sound in the first {spec.clip_seconds:.2f} s, which is all that evaluation hears, of {named} "
        f"(first: {first.file_id}, line {first.line}): --trim (frontend.trim) removes silence at both ends"
    ]


def _begins_late(store: ClipStore, index: int, spec: FrontendSpec) -> bool:
    if store.lengths[index] <= spec.clip_samples or store.silent[index]:
        return False
    start = store.waveform(index)[: spec.clip_samples]
    if start.max() > _LOUD * spec.peak * 2**15:
        return False
    powers = FramePowers(spec.sampling_rate)
    powers.add(store.waveform(index).astype(np.float32))
    return powers.sound().extent()[0] >= spec.clip_samples


def clipped_warnings(clips: Sequence[Clip], stores: Sequence[ClipStore]) -> list[str]:
    """At most one line."""
    return marked(clips, _joined(map(is_clipped, stores)), "are clipped: the tops of their waves are cut off")


def marked(clips: Sequence[Clip], marks: npt.NDArray[np.bool_], what: str) -> list[str]:
    """A line that counts the marked clips [n], says what they are, and names the first; none without one."""
    if not marks.any():
        return []
    first = clips[int(marks.argmax())]
    some = int(marks.sum())
    if some == 1:
        what = what.replace("are ", "is ", 1).replace("have ", "has ", 1)
    return [f"{some} of {counted(len(clips), 'clip')} {what} (first: {first.file_id}, line {first.line})"]


def _joined(marks: Iterable[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    return np.concatenate(list(marks))
