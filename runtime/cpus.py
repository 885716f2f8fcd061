"""The processor: what it is, and how many of its cores this process may use."""

import contextlib
import os
import platform


def usable_cpus() -> int:
    """Cores of the process's affinity mask, where the system has one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """As the system calls it."""
    return _cpuinfo("model name") or platform.processor()


def vector_extension() -> str:
    """What sets the speed of matrix products: avx512f, avx2 or avx, and on other processors their
    architecture.
    """
    flags = _cpuinfo("flags").split()
    return next(
        (extension for extension in ("avx512f", "avx2", "avx") if extension in flags), platform.machine()
    )


def _cpuinfo(field: str) -> str:
    """Of the first core; "" where the system does not say."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:  # of many cores it is long
        for line in lines:
            if line.partition("\t")[0] == field:
                return line.partition(": ")[2].strip()
    return ""
