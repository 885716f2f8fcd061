"""Clips of about the same length share a batch; none waits for ever, and each gets its own scores."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rrtn.runtime.backends.model_batch import HostBatch, Outputs
from rrtn.runtime.scoring.batches import Batches
from rrtn.runtime.scoring.by_length import WaitingClips
from rrtn.runtime.scoring.decoder_messages import ClipSpan
from rrtn.runtime.scoring.file_rows import FileInProgress

SIZE = 4


def waiting(*lengths: float) -> WaitingClips:
    """Clips whose only feature is their length."""
    clips = WaitingClips()
    places = [FileInProgress(b"").new_clip(ClipSpan(10.0, 10.0 + length, 0.0)) for length in lengths]
    clips.put(places, np.array(lengths)[:, None])
    return clips


def test_the_oldest_clip_goes_with_those_that_are_nearest_to_its_length() -> None:
    clips = waiting(1.0, 0.1, 2.5, 1.2, 0.7, 1.0, 0.2)
    places, features = clips.oldest_and_nearest(3)
    assert features[:, 0].tolist() == [1.0, 1.0, 1.2]
    assert [place.span.end for place in places] == [11.0, 11.0, 11.2]
    assert clips.oldest_and_nearest(3)[1][:, 0].tolist() == [0.1, 0.2, 0.7]
    assert clips.oldest_and_nearest(3)[1][:, 0].tolist() == [2.5]
    assert len(clips) == 0


def test_features_are_copied_as_their_place_is_used_again() -> None:
    clips, features = WaitingClips(), np.ones((1, 2))
    clips.put([FileInProgress(b"").new_clip(ClipSpan(0.0, 1.0, 1.0))], features)
    features[:] = 7
    assert clips.oldest_and_nearest(1)[1].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, []), (1, [1]), (2, [1, 1]), (5, [3, 2]), (8, [4, 4]), (9, [3, 3, 3]), (16, [4, 4, 4, 4])],
)
def test_what_is_left_is_shared_among_the_lanes(count: int, sizes: list[int]) -> None:
    """The longest first: the lanes then end at about the same time."""
    clips = waiting(*np.random.default_rng(0).uniform(0.1, 2.5, count))
    parts = [features[:, 0].tolist() for _, features in clips.shared_out(SIZE, 2)]
    assert [len(part) for part in parts] == sizes
    lengths = [length for part in parts for length in part]
    assert lengths == sorted(lengths, reverse=True)
    assert len(clips) == 0


class Model:
    """It gives each clip its own feature, and keeps the features of each batch."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []

    def __call__(self, batch: Any) -> Outputs:
        clips: NDArray[np.float32] = np.array(batch)
        self.batches.append(clips[:, 0].tolist())
        return Outputs(clips, None)


@pytest.mark.parametrize("lanes", [1, 3])
def test_batches_hold_clips_of_about_one_length(lanes: int) -> None:
    rng, model = np.random.default_rng(0), Model()
    lengths = rng.uniform(0.1, 2.5, 150).astype(np.float32)
    files = {i: FileInProgress(b"") for i in range(50)}  # of three clips each
    room = lambda: HostBatch((SIZE, 1), np.dtype(np.float32))  # noqa: E731
    with Batches(model, room, size=SIZE, lanes=lanes, by_length=True) as batches:
        for first in range(0, 150, 5):
            spans = [(i // 3, 0.0, float(lengths[i]), 0.0) for i in range(first, first + 5)]
            batches.add(spans, lengths[first : first + 5, None], files)
        batches.flush()
    scores = [[clip.scores[0] for clip in file.clips if clip] for file in files.values()]
    assert scores == lengths.reshape(50, 3).tolist()
    assert all(file.unscored == 0 for file in files.values())
    sizes = [len(batch) for batch in model.batches]
    assert sum(sizes) == 150  # nothing was padded
    assert sizes.count(SIZE) >= (150 - 4 * SIZE) // SIZE
    ranges = [max(batch) - min(batch) for batch in model.batches]
    assert np.mean(ranges) < 0.4  # of clips as they come: 1.4
