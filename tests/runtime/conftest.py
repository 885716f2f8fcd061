"""What the runtime's tests have: no torch, and a device whose memory is the host's.

The device works off its streams only where someone waits for them.
"""

import ctypes
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rrtn.runtime.backends.device_memory import Device, device_of

TRAINING_ONLY = ("torch", "torchaudio", "safetensors")


class HostCalls:
    """A stand-in for CUDA's runtime. `log` has every call but `enter`, in the order in which they were made.

    Where `at_once`, work is done as it is queued: ONNX Runtime's CPU sessions do not stand in our streams.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.log: list[str] = []
        self.entered: set[int] = set()  # threads
        self.pinned: dict[int, int] = {}  # address -> size, of what is pinned now
        self.streams: dict[int, deque[tuple[int, Callable[[], None]]]] = defaultdict(deque)
        self.before_wait: Callable[[], object] = lambda: None
        self._at_once = at_once
        self._events: dict[int, int] = {}  # event -> its stream
        self.freed: list[int] = []  # events
        self._made = 76
        self._lock = threading.Lock()

    def queue(self, words: str, stream: int, work: Callable[[], None], *, event: int = 0) -> None:
        """Work of any kind; a model's launch, too."""
        assert threading.get_ident() in self.entered, "the device's context is not that of this thread"
        with self._lock:
            self.log.append(f"{words} on {stream}")
            if self._at_once:
                work()
            else:
                self.streams[stream].append((event, work))

    def _done_until(self, stream: int, event: int) -> None:
        with self._lock:
            while self.streams[stream]:
                mark, work = self.streams[stream].popleft()
                work()
                if event and mark == event:
                    return

    def enter(self) -> None:
        self.entered.add(threading.get_ident())

    def stream(self) -> int:
        self._made += 1
        return self._made

    def event(self) -> int:
        return self.stream()

    def free(self, event: int) -> None:
        self.freed.append(event)

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        self.queue(f"copy {size}", stream, lambda: ctypes.memmove(to, source, size) and None)

    def clear(self, to: int, size: int, stream: int) -> None:
        self.queue(f"clear {size}", stream, lambda: ctypes.memset(to, 0, size) and None)

    def record(self, event: int, stream: int) -> None:
        self._events[event] = stream
        self.queue("record", stream, lambda: None, event=event)

    def wait(self, event: int) -> None:
        self.before_wait()
        self.log.append(f"wait for {self._events[event]}")
        self._done_until(self._events[event], event)

    def wait_stream(self, stream: int) -> None:
        self.log.append(f"wait for all of {stream}")
        self._done_until(stream, 0)

    def host_array(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return np.full(shape, np.nan, np.float32)

    def pin(self, array: NDArray[Any]) -> Callable[[], None]:
        address = array.ctypes.data
        self.pinned[address] = array.nbytes
        return lambda: self.pinned.pop(address) and None


@pytest.fixture
def host_calls() -> HostCalls:
    """Work is done where it is waited for."""
    return HostCalls()


@pytest.fixture
def host_device(host_calls: HostCalls) -> Device:
    """Its streams are 77 and 78."""
    return device_of(host_calls, "cpu")


@pytest.fixture
def prompt_device() -> Device:
    """Its work is done as it is queued."""
    return device_of(HostCalls(at_once=True), "cpu")


@pytest.fixture(autouse=True)
def without_torch() -> Iterator[None]:
    """Who scores has no torch: importing it fails in each test of the runtime, and in its forks."""
    loaded = {name: sys.modules[name] for name in [*sys.modules] if name.partition(".")[0] in TRAINING_ONLY}
    sys.modules |= dict.fromkeys([*TRAINING_ONLY, *loaded])
    yield
    for name in TRAINING_ONLY:
        del sys.modules[name]
    sys.modules |= loaded
