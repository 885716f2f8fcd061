"""Between hearing and scoring: in order, bounded, and what is lost is counted and keeps its time."""

import threading

import numpy as np
import pytest
from rrtn.runtime.errors import StoppedError
from rrtn.runtime.live.sound_queue import SoundQueue, _Arrival


def block(*values: float) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.array(values, np.float32)[:, None]


def all_of(queue: SoundQueue) -> list[float]:
    return [float(value) for one in queue.blocks() for value in one[:, 0]]


def test_blocks_come_in_their_order() -> None:
    queue = SoundQueue(1, limit=100, waits=False)
    for one in (block(1, 2), block(3), block(4, 5)):
        assert queue.put(one)
    assert (queue.heard, queue.waiting, queue.lost) == (5, 5, 0)
    queue.end()
    assert all_of(queue) == [1, 2, 3, 4, 5]
    assert queue.waiting == 0


def test_what_does_not_fit_is_silence_of_the_same_length() -> None:
    queue = SoundQueue(1, limit=3, waits=False)
    blocks = queue.blocks()
    for one in (block(1, 2), block(3, 4), block(5), block(6, 7)):
        queue.put(one)
    assert queue.lost == 3
    assert next(blocks)[:, 0].tolist() == [1, 2]
    queue.put(block(8))
    queue.end()
    assert all_of(queue) == [3, 4, 0, 0, 0, 8]
    assert queue.heard == 8
    assert [queue.has_gap(i, i + 1) for i in range(8)] == [False] * 4 + [True] * 3 + [False]


def test_a_long_gap_takes_no_memory() -> None:
    queue = SoundQueue(2, limit=1, waits=False)
    queue.put(np.ones((1, 2), np.float32))
    for _ in range(100):
        queue.put(np.ones((10_000, 2), np.float32))
    assert len(queue._blocks) == 2
    assert len(queue._gaps) == 1
    queue.end()
    sizes = [len(one) for one in queue.blocks()]
    assert sum(sizes) == 1_000_001
    assert max(sizes) <= 1 << 16


def test_a_source_that_can_wait_loses_nothing() -> None:
    queue = SoundQueue(1, limit=4, waits=True)
    most = []

    def hear() -> None:
        for i in range(1_000):
            queue.put(block(i))
        queue.end()

    thread = threading.Thread(target=hear)
    thread.start()
    found = []
    for one in queue.blocks():
        most.append(queue.waiting)
        found += one[:, 0].tolist()
    thread.join()
    assert found == [*range(1_000)]
    assert queue.lost == 0
    assert max(most) <= 4


def test_a_source_that_waits_ends_when_nobody_scores_any_more() -> None:
    queue = SoundQueue(1, limit=1, waits=True)
    said: list[bool] = []
    thread = threading.Thread(target=lambda: said.extend(queue.put(block(i)) for i in range(2)))
    thread.start()
    queue.close()
    thread.join(60)
    assert said[-1] is False


def test_the_arrival_of_a_sample_is_that_of_its_block() -> None:
    queue = SoundQueue(1, limit=10**9, waits=False)
    queue._arrivals.extend([_Arrival(10, 1.0), _Arrival(20, 2.0), _Arrival(30, 3.0)])
    assert [queue.arrival(samples) for samples in (1, 10, 11, 20, 30, 31)] == [1, 1, 2, 2, 3, 3]


def test_arrivals_take_bounded_memory() -> None:
    queue = SoundQueue(1, limit=10, waits=False)
    for i in range(200_000):
        queue.put(block(i))
    assert len(queue._arrivals) < 1 << 16
    assert queue._arrivals[-1].samples == 200_000


def test_a_microphone_that_is_silent_for_too_long_is_broken() -> None:
    queue = SoundQueue(1, limit=10, waits=False)
    with pytest.raises(StoppedError, match=r"no sound for 0\.01 s"):
        next(queue.blocks(0.01))
