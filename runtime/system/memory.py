"""A budget for the memory of this process, so that one bad input ends in an error and not the machine.

What asks for more gets a MemoryError.
"""

import contextlib
from collections.abc import Iterator
from typing import Final

from .host import NO_LIMIT, MemoryKind, memory_in_use, memory_limits, set_memory_limits

MEMORY_BUDGET: Final = 4 << 30  # bytes that a process of ours may take beyond what it has
_ours: dict[MemoryKind, int] = {}  # the soft limits that were set here: a second budget may be larger


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
