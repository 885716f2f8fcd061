"""When clips that come one by one are run, and with how many others."""

import math
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import numpy as np
import pytest
from rrtn.runtime.backends.model_batch import HostBatch, Outputs
from rrtn.runtime.scoring import batches as module
from rrtn.runtime.scoring.batches import Batches
from rrtn.runtime.scoring.file_rows import FileInProgress

SIZE = 8


class Held:
    """A model that gives each clip its own number, once it may."""

    def __init__(self) -> None:
        self.may_run, self.sizes = Event(), list[int]()

    def __call__(self, batch: Any) -> Outputs:
        self.may_run.wait()
        self.sizes.append(len(batch))
        return Outputs(np.array(batch), None)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    monkeypatch.setattr(module, "_PATIENCE", 1e6)
    model = Held()
    yield model
    model.may_run.set()


@pytest.fixture
def add(held: Held) -> Iterator[tuple[Batches, Callable[[int], list[FileInProgress]]]]:
    room = lambda: HostBatch((SIZE, 1), np.dtype(np.float32))  # noqa: E731
    count = iter(range(1000))
    with Batches(held, room, size=SIZE, lanes=2) as batches:

        def add(clips: int) -> list[FileInProgress]:
            numbers = [next(count) for _ in range(clips)]
            files = {number: FileInProgress(b"") for number in numbers}
            features = np.array(numbers, np.float32)[:, None]
            batches.add([(number, 0.0, 1.0, 1.0) for number in numbers], features, files)
            return list(files.values())

        yield batches, add
        held.may_run.set()


Added = tuple[Batches, Callable[[int], list[FileInProgress]]]


def test_a_clip_alone_runs_at_once_and_unpadded(held: Held, add: Added) -> None:
    batches, put = add
    (file,) = put(1)
    assert batches.run_some(coming=0) == math.inf
    held.may_run.set()
    batches.flush()
    assert held.sizes == [1]
    assert file.clips[0] is not None
    assert file.clips[0].scores == [0.0]


def test_few_others_are_waited_for_shortly(add: Added) -> None:
    batches, put = add
    put(1)
    assert 0 < batches.run_some(coming=1) <= module._LINGER


def test_many_others_are_waited_for_until_half_a_batch(held: Held, add: Added) -> None:
    batches, put = add
    put(3)
    assert batches.run_some(coming=SIZE // 4) > module._LINGER
    put(1)
    assert batches.run_some(coming=SIZE // 4) == math.inf
    put(1)
    assert batches.run_some(coming=0) > module._LINGER  # for those at the end of the batch that runs
    held.may_run.set()
    batches.flush()
    assert sorted(held.sizes) == [4, SIZE]


def test_no_more_batches_run_than_there_are_lanes(held: Held, add: Added) -> None:
    batches, put = add
    files = put(4)
    batches.run_some(coming=0)
    files += put(4)
    batches.run_some(coming=0)
    files += put(4)
    assert batches.run_some(coming=0) == math.inf
    held.may_run.set()
    batches.flush()
    assert [file.clips[0].scores for file in files if file.clips[0]] == [[float(i)] for i in range(12)]
