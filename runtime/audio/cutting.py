"""Pieces of a sound that comes in blocks, each as soon as its last sample is there.

A sound that has no end yet is cut by the same code as a recording. N samples.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_Samples = TypeVar("_Samples", bound=npt.NDArray[Any])


def cut(blocks: Iterator[_Samples], places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, _Samples]]:
    """Blocks [N] that follow each other -> (start, samples) for the (start, stop) of each place.

    The places are in order, and may overlap or leave gaps. Where the blocks end within a place, its piece
    ends there, too, unless the place before has reached as far. That is the last piece.
    """
    samples, begin, reached = next(blocks, None), 0, 0  # `samples` begin at `begin`
    if samples is None:
        return
    for start, stop in places:
        while True:
            over = min(max(0, start - begin), len(samples))
            samples, begin = samples[over:], begin + over  # type: ignore[assignment]
            if begin + len(samples) >= stop:
                break
            if (block := next(blocks, None)) is None:
                if begin + len(samples) > max(start, reached):
                    yield start, samples
                return
            samples = np.concatenate([samples, block])  # type: ignore[assignment]
        yield start, samples[start - begin : stop - begin]  # type: ignore[misc]
        reached = stop


def endless_places(length: int, hop: int) -> Iterator[tuple[int, int]]:
    """Windows of so many samples, for `cut`: those of a recording whose length nobody knows yet."""
    return ((start, start + length) for start in itertools.count(0, hop))
