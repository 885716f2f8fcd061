"""A budget for the memory of this process, so that one bad input ends in an error and not the machine.

What asks for more gets a MemoryError.
"""

import contextlib
import resource
from collections.abc import Iterator
from typing import Final, Literal

MEMORY_BUDGET: Final = 4 << 30  # bytes that a process of ours may take beyond what it has

# "space": all addresses, also those of shared memory and of files. "data": only memory of the process's own.
# A GPU's driver reserves far more addresses than it uses.
_LIMITS: Final = {"space": (resource.RLIMIT_AS, 0), "data": (resource.RLIMIT_DATA, 5)}  # field of statm


def limit_memory(beyond: int, *, of: Literal["space", "data"]) -> None:
    """Lets this process take `beyond` bytes more than it has now. Where a lower limit stands, that stays."""
    limit, field = _LIMITS[of]
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[field])
    most = pages * resource.getpagesize() + beyond
    _, hard = resource.getrlimit(limit)
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(limit, (most, hard))


@contextlib.contextmanager
def memory_as_before() -> Iterator[None]:
    """Takes back at its end what `limit_memory` of "data" has set: `rrtn demo` trains after it has scored."""
    before, _ = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, resource.getrlimit(resource.RLIMIT_DATA)[1]))
