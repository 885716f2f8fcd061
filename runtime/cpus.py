"""The processor: its model, and how many of its cores this process may use."""

import contextlib
import os
import platform


def usable_cpus() -> int:
    """The number of cores in the process's affinity mask; all cores if the system has none."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The name that the system gives the processor."""
    return _cpuinfo("model name") or platform.processor()


def vector_extension() -> str:
    """The best of avx512f, avx2 and avx; on other processors the architecture.

    It decides how fast matrix products are.
    """
    flags = _cpuinfo("flags").split()
    for extension in ("avx512f", "avx2", "avx"):
        if extension in flags:
            return extension
    return platform.machine()


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself: AVX-512 BF16 or AMX."""
    flags = _cpuinfo("flags").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _cpuinfo(field: str) -> str:
    """A field of the first core; "" if the system does not say."""
    # The file is long on a machine with many cores, so it is read only up to the field.
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.partition("\t")[0] == field:
                return line.partition(": ")[2].strip()
    return ""
