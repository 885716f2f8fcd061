"""The processor: its model, and how many of its cores this process may use."""

import contextlib
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .control_groups import PROC, control_groups
from .host import usable_cores

_CPUINFO: Final = Path("/proc/cpuinfo")
# What decides how fast matrix products are, as Linux calls it on x86 and on ARM.
_OF_MATRICES: Final = (
    "avx",
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)


def usable_cpus() -> int:
    """The number of cores that this process may keep busy.

    This is the least of its affinity mask, the quota of its control groups (containers, systemd, Slurm) and
    OMP_NUM_THREADS.
    """
    limits = [usable_cores(), cpu_quota(), _wanted_threads()]
    return max(1, min(limit for limit in limits if limit is not None))


def cpu_quota(proc: Path = PROC) -> int | None:
    """The cores that the control groups of a process give it, rounded up; None where they set no limit.

    Both versions of control groups count, and every group above the process's own.
    """
    return min(_quotas(proc), default=None)


def _wanted_threads() -> int | None:
    """OMP_NUM_THREADS: a number, or one for each level of nesting. Other text is no limit."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if first == "1" and "TORCHELASTIC_RUN_ID" in os.environ:
        return None  # torchrun sets it where the user has not
    return int(first) if first.isdecimal() and int(first) else None


def _quotas(proc: Path) -> Iterator[int]:
    for folder in control_groups("cpu", proc):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            if (file := folder / "cpu.max").exists():  # version 2: "max 100000" or "150000 100000"
                quota, period = file.read_text(encoding="utf-8").split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")  # -1: no limit
                period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
            if quota != "max" and int(quota) > 0:
                yield math.ceil(int(quota) / int(period))


def cpu_model() -> str:
    """The name that the system gives the processor."""
    return _cpuinfo("model name") or platform.processor()


def cpu_kind() -> dict[str, str]:
    """What tells this processor from others where speeds are compared.

    Machines in the cloud give one name to several: "AMD EPYC" may have AVX2 alone or AVX-512 with bfloat16.
    """
    flags = _flags()
    return {
        "cpu": cpu_model(),
        "family": " ".join(filter(None, (_cpuinfo("cpu family"), _cpuinfo("model")))),
        "instructions": " ".join(name for name in _OF_MATRICES if name in flags),
    }


def vector_extension() -> str:
    """The best of avx512f, avx2 and avx; on other processors the architecture.

    It decides how fast matrix products are.
    """
    flags = _flags()
    for extension in ("avx512f", "avx2", "avx"):
        if extension in flags:
            return extension
    return platform.machine()


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself: AVX-512 BF16 or AMX."""
    return not _flags().isdisjoint(("avx512_bf16", "amx_bf16"))


def has_vnni() -> bool:
    """Whether the processor adds products of int8 in one instruction: AVX-512 VNNI or AVX-VNNI."""
    return not _flags().isdisjoint(("avx512_vnni", "avx_vnni"))


def _flags() -> set[str]:
    return set((_cpuinfo("flags") or _cpuinfo("Features")).split())


def _cpuinfo(field: str) -> str:
    """A field of the first core; "" if the system does not say."""
    # The file is long on a machine with many cores, so it is read only up to the field.
    with contextlib.suppress(OSError), _CPUINFO.open(encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    return ""
