"""Clips that wait for others of about their length, where that saves time: where silence is not computed."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .file_rows import ClipPlace

_Waiting = tuple[ClipPlace, npt.NDArray[Any]]
Together = tuple[list[ClipPlace], npt.NDArray[Any]]  # their places, and their features [C, ...]


class WaitingClips:
    """Clips in the order in which they came. The oldest one is always among the next that go."""

    def __init__(self) -> None:
        self._clips: list[_Waiting] = []

    def __len__(self) -> int:
        return len(self._clips)

    def put(self, places: Sequence[ClipPlace], features: npt.NDArray[Any]) -> None:
        """Copies the features [C, ...] of C clips."""
        self._clips += zip(places, (clip.copy() for clip in features), strict=True)

    def oldest_and_nearest(self, count: int) -> Together:
        """Takes the oldest clip, and those that are the nearest to its length: `count` in all."""
        oldest = _length(self._clips[0])
        order = sorted(range(len(self)), key=lambda i: abs(_length(self._clips[i]) - oldest))
        taken, left = order[:count], sorted(order[count:])
        together = _together([self._clips[i] for i in taken])
        self._clips = [self._clips[i] for i in left]
        return together

    def shared_out(self, size: int, lanes: int) -> Iterator[Together]:
        """Takes all, from the longest to the shortest: at most `size` at once, as many for each lane."""
        clips, self._clips = sorted(self._clips, key=_length, reverse=True), []
        turns = math.ceil(len(clips) / (size * lanes))
        count = math.ceil(len(clips) / max(1, turns * lanes))
        for i in range(0, len(clips), max(1, count)):
            yield _together(clips[i : i + count])


def _length(clip: _Waiting) -> float:
    place, _ = clip
    return place.span.end - place.span.start


def _together(clips: Sequence[_Waiting]) -> Together:
    return [place for place, _ in clips], np.stack([features for _, features in clips])
