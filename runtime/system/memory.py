"""A budget for the memory of this process, so that one bad input ends in an error and not the machine.

What asks for more gets a MemoryError.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .control_groups import PROC, control_groups
from .host import NO_LIMIT, MemoryKind, memory_in_use, memory_limits, set_memory_limits

MEMORY_BUDGET: Final = 4 << 30  # bytes that a process of ours may take beyond what it has
_OF_THE_REST: Final = 0.75  # of what the machine has left: other processes take some, too
_LIMITS: Final = ("memory.max", "memory.limit_in_bytes")  # of control groups of version 2, and of 1
_ours: dict[MemoryKind, int] = {}  # the soft limits that were set here: a second budget may be larger


def most_memory(proc: Path = PROC, meminfo: Path = Path("/proc/meminfo")) -> float:
    """Bytes that a process may take beyond what it has without danger to the machine, or to its container.

    Three quarters of what the machine has free, or of the lowest limit of the process's control groups. They
    are no less than MEMORY_BUDGET: much of what a process takes lies on no page. Infinite where the system
    does not say.
    """
    known = [*_available(meminfo), *_limits_of_groups(proc)]
    return max(MEMORY_BUDGET, _OF_THE_REST * min(known)) if known else math.inf


def _available(meminfo: Path) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError):
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) << 10


def _limits_of_groups(proc: Path) -> Iterator[int]:
    for folder in control_groups("memory", proc):
        for name in _LIMITS:
            with contextlib.suppress(OSError, ValueError):  # "max" is no limit
                yield int((folder / name).read_text(encoding="utf-8"))


def limit_memory(beyond: int, *, of: MemoryKind) -> None:
    """Lets this process take `beyond` bytes more than it has now. Where a lower limit stands, that stays.

    "space" are all addresses, also those of shared memory and of files, "data" only memory of the process's
    own: a GPU's driver reserves far more addresses than it uses. Without effect where the system has no
    such limit: macOS, Windows.
    """
    if (used := memory_in_use(of)) is None:
        return
    soft, hard = memory_limits(of)
    theirs = [limit for limit in (soft, hard) if limit not in (NO_LIMIT, _ours.get(of))]
    lowest = min([used + beyond, *theirs])
    if lowest != soft:
        set_memory_limits(of, (lowest, hard))
        _ours[of] = lowest


@contextlib.contextmanager
def memory_limited(beyond: int) -> Iterator[None]:
    """As `limit_memory` of "space" while the block runs. A lower limit stays, also a soft one."""
    before = memory_limits("space")
    if (used := memory_in_use("space")) is not None:
        lowest = min([used + beyond, *(limit for limit in before if limit != NO_LIMIT)])
        set_memory_limits("space", (lowest, before[1]))
    try:
        yield
    finally:
        set_memory_limits("space", before)


@contextlib.contextmanager
def memory_as_before() -> Iterator[None]:
    """Takes back at its end what `limit_memory` of "data" has set: `rrtn demo` trains after it has scored."""
    before, _ = memory_limits("data")
    try:
        yield
    finally:
        set_memory_limits("data", (before, memory_limits("data")[1]))
        _ours.pop("data", None)
